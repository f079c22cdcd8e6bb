/* SPDX-License-Identifier: Apache-2.0
 * A node: the process around the core, and its links. */
#include "tests/volume_sim/sim.h"

#include <stdlib.h>
#include <string.h>

static struct sim *the_sim; /* one at a time */

struct node *node_of(void *ctx)
{
	return ctx;
}

struct sim *sim_of(void *ctx)
{
	(void)ctx;
	return the_sim;
}

/* ---- effects: the disk ---- */

static void fx_state_write(void *ctx, const struct volume_state *state, uint64_t seq)
{
	struct node *n = ctx;
	struct pending *p = disk_pending(the_sim, n, W_STATE);

	p->state = *state;
	p->seq = seq;
	disk_begin(the_sim, n, p);
}

static void fx_intents_write(void *ctx, const uint8_t *bits)
{
	struct node *n = ctx;
	struct pending *p = disk_pending(the_sim, n, W_INTENTS);

	memcpy(p->intents, bits, sizeof p->intents);
	disk_begin(the_sim, n, p);
}

static void fx_map_write(void *ctx, uint32_t extent, const struct volume_ballot *stamps)
{
	struct node *n = ctx;
	struct pending *p = disk_pending(the_sim, n, W_MAP);

	p->extent = extent;
	for (unsigned i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		if (extent * VOLUME_EXTENT_BLOCKS + i < BLOCKS)
			p->stamps[i] = stamps[i];
	disk_begin(the_sim, n, p);
}

static void fx_io(void *ctx, struct volume_io *io)
{
	struct node *n = ctx;
	struct pending *p = disk_pending(the_sim, n, W_DATA);

	p->io = io;
	p->io_kind = io->kind;
	p->offset = io->offset;
	p->length = io->length;
	if (io->kind == VOLUME_IO_WRITE) {
		p->data = xcalloc(io->length / SECTOR, sizeof *p->data);
		memcpy(p->data, io->data, io->length / SECTOR * sizeof *p->data);
	}
	disk_begin(the_sim, n, p);
}

/* ---- effects: links ---- */

bool link_is_cut(const struct sim *s, unsigned a, unsigned b)
{
	return s->now < s->cut_until[a][b];
}

struct frame {
	struct volume_frame f;
	uint8_t intents[8 * ((EXTENTS + 63) / 64)];
	uint32_t *data;
};

static void deliver(struct sim *s, struct event *e)
{
	struct frame *f = e->p;
	struct node *n = &s->nodes[e->node];
	unsigned from = (unsigned)e->a;

	f->f.data = f->data;
	if (f->f.intents)
		f->f.intents = f->intents;
	volume_core_frame(n->core, from, &f->f);
	if (f->f.kind == VOLUME_F_WELCOME)
		check_known(s, n);
}

/* A frame of a link that broke is lost, or lingers in a buffer and comes after those of the next link. */
static void arrive(struct sim *s, struct event *e)
{
	struct frame *f = e->p;
	unsigned from = (unsigned)e->a;

	if (!renew_stands(s, from, e->node, e->b)) {
		bool lingers = !s->healing && sim_chance(s, 300);

		if (!lingers) {
			sim_free(f->data);
			return;
		}
		sim_log(s, "a frame of an old link %u->%u comes late (kind %d)", from, e->node, (int)f->f.kind);
	}
	renew_came(s, from, e->node, e->b, &f->f);
	deliver(s, e);
}

static void unlink_event(struct sim *s, struct event *e)
{
	if (e->c == 0 || s->link_life[e->node][e->a] == e->b)
		link_break(s, e->node, (unsigned)e->a);
}

static void lose(struct sim *s, unsigned from, unsigned to)
{
	struct event *e;

	if (s->lossy[from][to])
		return;
	s->lossy[from][to] = true;
	e = sim_after(s, sim_random(s, 600 * USEC_PER_MS), unlink_event, from);
	e->a = to;
	e->b = s->link_life[from][to];
	e->c = 1;
}

static void fx_send(void *ctx, node_id_t to, const struct volume_frame *f)
{
	struct node *n = ctx;
	struct sim *s = the_sim;
	usec_t at = s->now + 30 + sim_random(s, 300); /* first: compilers differ in the order of operands */
	uint64_t life;
	struct frame *copy;
	struct event *e;

	if (!s->healing && sim_random(s, 1000) < s->faults.lag)
		at += 200 * USEC_PER_MS;
	life = renew_life_for(s, n->id, to, f);
	if (s->link[n->id][to] && link_is_cut(s, n->id, to))
		lose(s, n->id, to);
	if (!s->link[n->id][to] || s->lossy[n->id][to] || !s->nodes[to].up || !renew_stands(s, n->id, to, life))
		return;
	at = renew_queue(s, n->id, to, life, at);
	copy = xcalloc(1, sizeof *copy);
	copy->f = *f;
	if (f->intents)
		memcpy(copy->intents, f->intents, sizeof copy->intents);
	if (f->data) {
		copy->data = sim_alloc(s, f->length / SECTOR, sizeof *copy->data);
		memcpy(copy->data, f->data, f->length / SECTOR * sizeof *copy->data);
	}
	e = sim_after(s, at - s->now, arrive, to);
	e->a = n->id;
	e->b = life;
	e->p = copy;
}

static void down_event(struct sim *s, struct event *e)
{
	if (!s->link[e->node][e->a])
		volume_core_link_down(s->nodes[e->node].core, (node_id_t)e->a);
}

static void up_event(struct sim *s, struct event *e)
{
	if (s->link[e->node][e->a])
		renew_begin(s, e->node, (unsigned)e->a);
}

void link_dial(struct sim *s, struct event *e)
{
	unsigned a = (unsigned)e->a, b = (unsigned)e->b;

	if (s->link[a][b])
		return;
	if (link_is_cut(s, a, b) || link_is_cut(s, b, a) || !s->nodes[a].up || !s->nodes[b].up) {
		struct event *again = sim_after(s, 20 * USEC_PER_MS + sim_random(s, 200 * USEC_PER_MS), link_dial, 0);

		again->a = a;
		again->b = b;
		return;
	}
	s->link[a][b] = s->link[b][a] = true;
	s->lossy[a][b] = s->lossy[b][a] = false;
	s->link_last[a][b] = s->link_last[b][a] = 0;
	sim_after(s, sim_random(s, 2000), up_event, a)->a = b;
	sim_after(s, sim_random(s, 2000), up_event, b)->a = a;
}

void link_break(struct sim *s, unsigned a, unsigned b)
{
	struct event *e;

	if (!s->link[a][b])
		return;
	s->link[a][b] = s->link[b][a] = false;
	s->older[a][b] = s->older[b][a] = 0;
	s->link_life[a][b] = s->link_life[b][a] = ++s->lives;
	if (s->nodes[a].up)
		sim_after(s, sim_random(s, 5000), down_event, a)->a = b;
	if (s->nodes[b].up)
		sim_after(s, sim_random(s, 5000), down_event, b)->a = a;
	e = sim_after(s, 5 * USEC_PER_MS + sim_random(s, 200 * USEC_PER_MS), link_dial, 0);
	e->a = a;
	e->b = b;
}

static void fx_unlink(void *ctx, node_id_t node)
{
	struct node *n = ctx;

	sim_log(the_sim, "node %u drops its link to %u", n->id, node);
	sim_after(the_sim, 0, unlink_event, n->id)->a = node;
}

/* ---- effects: store and guest ---- */

bool node_has_store(const struct sim *s, unsigned node)
{
	return s->healing || s->now >= s->nodes[node].no_store_until;
}

static void fx_propose(void *ctx, const struct volume_change *change)
{
	store_propose(the_sim, node_of(ctx)->id, change);
}

static void fx_look(void *ctx)
{
	node_row(the_sim, node_of(ctx)->id);
}

static void fx_reply(void *ctx, struct volume_request *r, int rc)
{
	(void)ctx;
	guest_reply(the_sim, r, rc);
}

static void fx_drop(void *ctx, struct volume_request *r)
{
	guest_dropped(the_sim, node_of(ctx)->id, r);
}

static void fx_drop_clients(void *ctx)
{
	guest_disconnected(the_sim, node_of(ctx)->id);
}

static void broken_event(struct sim *s, struct event *e)
{
	unsigned node = (unsigned)e->a;

	if (s->nodes[node].life != e->b)
		return;
	node_crash(s, node);
	disk_power(s, &s->nodes[node]);
	node_start(s, node);
}

static void fx_broken(void *ctx, int rc)
{
	struct node *n = ctx;
	struct event *e = sim_after(the_sim, 0, broken_event, 0);

	sim_log(the_sim, "node %u: its replica is broken (%d)", n->id, rc);
	e->a = n->id;
	e->b = n->life;
}

static void *fx_buffer(void *ctx, uint64_t length)
{
	struct node *n = ctx;

	CHECK(length > 0 && length <= VOLUME_COPY_BYTES);
	if (n->buffers >= 32)
		return NULL;
	n->buffers++;
	return sim_alloc(the_sim, length / SECTOR, sizeof(uint32_t));
}

static void fx_buffer_free(void *ctx, void *p, uint64_t length)
{
	(void)length;
	node_of(ctx)->buffers--;
	sim_free(p);
}

static void fx_data_free(void *ctx, void *p)
{
	(void)ctx;
	sim_free(p);
}

static bool fx_is_zero(void *ctx, const void *data, uint64_t at, uint64_t length)
{
	const uint32_t *v = data;

	(void)ctx;
	for (uint64_t i = 0; i < length / SECTOR; i++)
		if (v[at / SECTOR + i])
			return false;
	return true;
}

/* Replicas that are in sync are equal (D): there is nothing to find. */
static void fx_found(void *ctx, const struct volume_finding *f)
{
	sim_violate(the_sim, "D", "a scrub by %u finds the block at %llu wrong at %u", node_of(ctx)->id,
		    (unsigned long long)f->offset, f->node);
}

static const struct volume_effects effects = {
	.state_write = fx_state_write,
	.intents_write = fx_intents_write,
	.map_write = fx_map_write,
	.io = fx_io,
	.send = fx_send,
	.unlink = fx_unlink,
	.propose = fx_propose,
	.look = fx_look,
	.reply = fx_reply,
	.drop = fx_drop,
	.drop_clients = fx_drop_clients,
	.broken = fx_broken,
	.buffer = fx_buffer,
	.buffer_free = fx_buffer_free,
	.data_free = fx_data_free,
	.found = fx_found,
	.is_zero = fx_is_zero,
};

/* ---- life ---- */

static void tick_event(struct sim *s, struct event *e)
{
	struct node *n = &s->nodes[e->node];

	sim_after(s, 40 * USEC_PER_MS + sim_random(s, 10 * USEC_PER_MS), tick_event, e->node);
	volume_core_tick(n->core, s->now);
}

static void row_event(struct sim *s, struct event *e)
{
	struct node *n = &s->nodes[e->node];
	struct volume_row *row = e->p;

	volume_core_row(n->core, row);
}

/* The row as it is now reaches the node, soon or late. */
void node_row(struct sim *s, unsigned node)
{
	struct volume_row *row;
	usec_t delay = 500 + sim_random(s, 20 * USEC_PER_MS);

	if (!s->nodes[node].up || !node_has_store(s, node))
		return;
	if (!s->healing && sim_random(s, 1000) < s->faults.lag)
		delay += sim_random(s, 2 * USEC_PER_SEC);
	row = xcalloc(1, sizeof *row);
	*row = s->row;
	sim_after(s, delay, row_event, node)->p = row;
}

/* A store that begins knows less than it did: what it has applied again so far. */
static void old_row_event(struct sim *s, struct event *e)
{
	const struct volume_row *row = &s->rows[sim_random(s, ROWS)];

	if (row->version)
		volume_core_row(s->nodes[e->node].core, row);
}

static void row_again_event(struct sim *s, struct event *e)
{
	node_row(s, e->node);
	sim_after(s, 200 * USEC_PER_MS, row_again_event, e->node);
}

void node_start(struct sim *s, unsigned node)
{
	struct node *n = &s->nodes[node];
	struct volume_effects fx = effects;
	struct volume_config config = {.self = node,
				       .size = SIZE,
				       .state = n->disk.state,
				       .intents = n->disk.intents,
				       .stamps = n->disk.stamps,
				       .copies_max = s->copies_max,
				       .intents_cap = s->intents_cap,
				       .flush_habit = s->seed % 2 ? 1 : 8,
				       .clear_after = s->clear_after};

	if (n->up || !n->power)
		return;
	the_sim = s;
	sim_log(s, "node %u starts, incarnation %llx", node, (unsigned long long)n->disk.state.incarnation);
	n->up = true;
	n->life++;
	n->buffers = 0;
	n->stopped_until = 0;
	memset(n->was_known, 0, sizeof n->was_known);
	config.replica[0] = (uint8_t)node;
	fx.ctx = n;
	n->core = volume_core_new(&config, &fx, s->now);
	sim_after(s, 0, tick_event, node);
	if (!s->healing && sim_chance(s, 300)) {
		sim_after(s, 0, old_row_event, node);
		sim_after(s, sim_random(s, USEC_PER_SEC), row_again_event, node);
	} else {
		sim_after(s, 0, row_again_event, node);
	}
	for (unsigned b = 1; b <= NODES; b++) {
		struct event *e;

		if (b == node)
			continue;
		e = sim_after(s, sim_random(s, 50 * USEC_PER_MS), link_dial, 0);
		e->a = node;
		e->b = b;
	}
	store_report(s, node);
}

void node_crash(struct sim *s, unsigned node)
{
	struct node *n = &s->nodes[node];

	if (!n->up)
		return;
	sim_log(s, "process of node %u dies", node);
	guest_disconnected(s, node);
	for (unsigned b = 1; b <= NODES; b++)
		if (b != node)
			link_break(s, node, b);
	n->up = false;
	n->life++;
	disk_crash(s, n);
	n->core = volume_core_free(n->core);
}

void node_power_off(struct sim *s, unsigned node)
{
	struct node *n = &s->nodes[node];

	if (!n->power)
		return;
	if (s->guest.node == node)
		guest_kill(s);
	node_crash(s, node);
	sim_log(s, "node %u loses power", node);
	n->power = false;
	disk_power(s, n);
}
