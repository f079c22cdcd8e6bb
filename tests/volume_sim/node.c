/* SPDX-License-Identifier: Apache-2.0
 * A node: the process around the core, and its links. */
#include "tests/volume_sim/vsim.h"

#include <stdlib.h>
#include <string.h>

static struct vsim *sim_of(void *ctx)
{
	const struct vs_node *n = ctx;

	return n->sim;
}

static unsigned id_of(void *ctx)
{
	const struct vs_node *n = ctx;

	return n->id;
}

/* ---- effects: the disk ---- */

static void fx_state_write(void *ctx, const struct volume_state *state, uint64_t seq)
{
	struct vs_node *n = ctx;
	struct vs_pending *p = vs_disk_pending(sim_of(ctx), n, W_STATE);

	p->state = *state;
	p->seq = seq;
	vs_disk_begin(sim_of(ctx), n, p);
}

static void fx_intents_write(void *ctx, const uint8_t *bits)
{
	struct vs_node *n = ctx;
	struct vs_pending *p = vs_disk_pending(sim_of(ctx), n, W_INTENTS);

	memcpy(p->intents, bits, sizeof p->intents);
	vs_disk_begin(sim_of(ctx), n, p);
}

static void fx_map_write(void *ctx, uint32_t extent, const struct volume_ballot *stamps)
{
	struct vs_node *n = ctx;
	struct vs_pending *p = vs_disk_pending(sim_of(ctx), n, W_MAP);

	p->extent = extent;
	for (unsigned i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		if (extent * VOLUME_EXTENT_BLOCKS + i < BLOCKS)
			p->stamps[i] = stamps[i];
	vs_disk_begin(sim_of(ctx), n, p);
}

static void fx_io(void *ctx, struct volume_io *io)
{
	struct vs_node *n = ctx;
	struct vs_pending *p = vs_disk_pending(sim_of(ctx), n, W_DATA);

	p->io = io;
	p->io_kind = io->kind;
	p->offset = io->offset;
	p->length = io->length;
	if (io->kind == VOLUME_IO_WRITE) {
		p->data = xcalloc(io->length / SECTOR, sizeof *p->data);
		memcpy(p->data, io->data, io->length / SECTOR * sizeof *p->data);
	}
	vs_disk_begin(sim_of(ctx), n, p);
}

/* ---- effects: links ---- */

static void link_dial(struct vsim *s, struct vs_event *e);

struct frame {
	struct volume_frame f;
	uint8_t intents[8 * ((EXTENTS + 63) / 64)];
	uint32_t *data;
};

static void deliver(struct vsim *s, struct vs_event *e)
{
	struct frame *f = e->p;
	struct vs_node *n = &s->nodes[e->node];
	unsigned from = (unsigned)e->a;

	f->f.data = f->data;
	if (f->f.intents)
		f->f.intents = f->intents;
	volume_core_frame(n->core, from, &f->f);
	if (f->f.kind == VOLUME_F_WELCOME)
		vs_check_known(s, n);
}

/* A frame of a link that broke is lost, or lingers in a buffer and comes after those of the next link. */
static void arrive(struct vsim *s, struct vs_event *e)
{
	struct frame *f = e->p;
	unsigned from = (unsigned)e->a;

	if (!renew_stands(s, from, e->node, e->b)) {
		bool lingers = !s->healing && vs_chance(s, 300);

		if (!lingers) {
			vs_free(f->data);
			return;
		}
		vs_log(s, "a frame of an old link %u->%u comes late (kind %d)", from, e->node, (int)f->f.kind);
	}
	renew_came(s, from, e->node, e->b, &f->f);
	deliver(s, e);
}

static void unlink_event(struct vsim *s, struct vs_event *e)
{
	if (e->c == 0 || s->link_life[e->node][e->a] == e->b)
		vs_link_break(s, e->node, (unsigned)e->a);
}

static void lose(struct vsim *s, unsigned from, unsigned to)
{
	struct vs_event *e;

	if (s->lossy[from][to])
		return;
	s->lossy[from][to] = true;
	e = vs_after(s, vs_random(s, 600 * USEC_PER_MS), unlink_event, from);
	e->a = to;
	e->b = s->link_life[from][to];
	e->c = 1;
}

static void fx_send(void *ctx, node_id_t to, const struct volume_frame *f)
{
	struct vs_node *n = ctx;
	struct vsim *s = sim_of(ctx);
	usec_t at = s->now + 30 + vs_random(s, 300); /* first: compilers differ in the order of operands */
	uint64_t life;
	struct frame *copy;
	struct vs_event *e;

	if (!s->healing && vs_random(s, 1000) < s->faults.lag)
		at += 200 * USEC_PER_MS;
	life = renew_life_for(s, n->id, to, f);
	if (s->link[n->id][to] && s->around->is_cut(s, n->id, to))
		lose(s, n->id, to);
	if (!s->link[n->id][to] || s->lossy[n->id][to] || !s->nodes[to].up || !renew_stands(s, n->id, to, life))
		return;
	at = renew_queue(s, n->id, to, life, at);
	copy = xcalloc(1, sizeof *copy);
	copy->f = *f;
	if (f->intents)
		memcpy(copy->intents, f->intents, sizeof copy->intents);
	if (f->data) {
		copy->data = vs_alloc(s, f->length / SECTOR, sizeof *copy->data);
		memcpy(copy->data, f->data, f->length / SECTOR * sizeof *copy->data);
	}
	e = vs_after(s, at - s->now, arrive, to);
	e->a = n->id;
	e->b = life;
	e->p = copy;
}

static void down_event(struct vsim *s, struct vs_event *e)
{
	if (!s->link[e->node][e->a])
		volume_core_link_down(s->nodes[e->node].core, (node_id_t)e->a);
}

static void up_event(struct vsim *s, struct vs_event *e)
{
	if (s->link[e->node][e->a])
		renew_begin(s, e->node, (unsigned)e->a);
}

static void link_dial(struct vsim *s, struct vs_event *e)
{
	unsigned a = (unsigned)e->a, b = (unsigned)e->b;

	if (s->link[a][b])
		return;
	if (!s->around->may_dial(s, a, b) || !s->nodes[a].up || !s->nodes[b].up) {
		struct vs_event *again = vs_after(s, 20 * USEC_PER_MS + vs_random(s, 200 * USEC_PER_MS), link_dial, 0);

		again->a = a;
		again->b = b;
		return;
	}
	s->link[a][b] = s->link[b][a] = true;
	s->lossy[a][b] = s->lossy[b][a] = false;
	s->link_last[a][b] = s->link_last[b][a] = 0;
	vs_after(s, vs_random(s, 2000), up_event, a)->a = b;
	vs_after(s, vs_random(s, 2000), up_event, b)->a = a;
}

void vs_link_break(struct vsim *s, unsigned a, unsigned b)
{
	struct vs_event *e;

	if (!s->link[a][b])
		return;
	s->link[a][b] = s->link[b][a] = false;
	s->older[a][b] = s->older[b][a] = 0;
	s->link_life[a][b] = s->link_life[b][a] = ++s->lives;
	if (s->nodes[a].up)
		vs_after(s, vs_random(s, 5000), down_event, a)->a = b;
	if (s->nodes[b].up)
		vs_after(s, vs_random(s, 5000), down_event, b)->a = a;
	e = vs_after(s, 5 * USEC_PER_MS + vs_random(s, 200 * USEC_PER_MS), link_dial, 0);
	e->a = a;
	e->b = b;
}

static void fx_unlink(void *ctx, node_id_t node)
{
	struct vs_node *n = ctx;

	vs_log(sim_of(ctx), "node %u drops its link to %u", n->id, node);
	vs_after(sim_of(ctx), 0, unlink_event, n->id)->a = node;
}

/* ---- effects: store and guest ---- */

static void fx_propose(void *ctx, const struct volume_change *change)
{
	sim_of(ctx)->around->propose(sim_of(ctx), id_of(ctx), change);
}

static void fx_look(void *ctx)
{
	sim_of(ctx)->around->look(sim_of(ctx), id_of(ctx));
}

static void fx_reply(void *ctx, struct volume_request *r, int rc)
{
	vs_guest_reply(sim_of(ctx), r, rc);
}

static void fx_drop(void *ctx, struct volume_request *r)
{
	vs_guest_dropped(sim_of(ctx), id_of(ctx), r);
}

static void fx_drop_clients(void *ctx)
{
	vs_guest_disconnected(sim_of(ctx), id_of(ctx));
}

static void broken_event(struct vsim *s, struct vs_event *e)
{
	unsigned node = (unsigned)e->a;

	if (s->nodes[node].life != e->b)
		return;
	vs_node_crash(s, node);
	vs_disk_power(s, &s->nodes[node]);
	vs_node_start(s, node);
}

static void fx_broken(void *ctx, int rc)
{
	struct vs_node *n = ctx;
	struct vs_event *e = vs_after(sim_of(ctx), 0, broken_event, 0);

	vs_log(sim_of(ctx), "node %u: its replica is broken (%d)", n->id, rc);
	e->a = n->id;
	e->b = n->life;
}

static void *fx_buffer(void *ctx, uint64_t length)
{
	struct vs_node *n = ctx;

	CHECK(length > 0 && length <= VOLUME_COPY_BYTES);
	if (n->buffers >= 32)
		return NULL;
	n->buffers++;
	return vs_alloc(sim_of(ctx), length / SECTOR, sizeof(uint32_t));
}

static void fx_buffer_free(void *ctx, void *p, uint64_t length)
{
	(void)length;
	((struct vs_node *)ctx)->buffers--;
	vs_free(p);
}

static void fx_data_free(void *ctx, void *p)
{
	(void)ctx;
	vs_free(p);
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
	vs_violate(sim_of(ctx), "D", "a scrub by %u finds the block at %llu wrong at %u", id_of(ctx),
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

static void tick_event(struct vsim *s, struct vs_event *e)
{
	struct vs_node *n = &s->nodes[e->node];

	vs_after(s, 40 * USEC_PER_MS + vs_random(s, 10 * USEC_PER_MS), tick_event, e->node);
	volume_core_tick(n->core, s->now);
	if (s->grows)
		vs_grow_tick(s, e->node);
}

static void row_event(struct vsim *s, struct vs_event *e)
{
	struct vs_node *n = &s->nodes[e->node];
	struct volume_row *row = e->p;

	n->wanted = row->grow_to > row->size ? row->grow_to : row->size;
	volume_core_row(n->core, row);
}

void vs_row(struct vsim *s, unsigned node, const struct volume_row *row, usec_t delay)
{
	struct volume_row *copy = xcalloc(1, sizeof *copy);

	*copy = *row;
	vs_after(s, delay, row_event, node)->p = copy;
}

void vs_node_start(struct vsim *s, unsigned node)
{
	struct vs_node *n = &s->nodes[node];
	struct volume_effects fx = effects;
	struct volume_config config = {.self = node,
				       .size = n->disk.size,
				       .state = n->disk.state,
				       .intents = n->disk.intents,
				       .stamps = n->disk.stamps,
				       .copies_max = s->copies_max,
				       .intents_cap = s->intents_cap,
				       .flush_habit = s->seed % 2 ? 1 : 8,
				       .clear_after = s->clear_after};

	if (n->up || !n->power || !n->is_member)
		return;
	vs_log(s, "node %u starts, incarnation %llx", node, (unsigned long long)n->disk.state.incarnation);
	n->up = true;
	n->life++;
	n->buffers = 0;
	n->stopped_until = 0;
	n->wanted = n->growing = 0;
	memset(n->was_known, 0, sizeof n->was_known);
	config.replica[0] = (uint8_t)node;
	fx.ctx = n;
	n->core = volume_core_new(&config, &fx, s->now);
	vs_after(s, 0, tick_event, node);
	s->around->begins(s, node);
	for (unsigned b = 1; b <= NODES; b++) {
		struct vs_event *e;

		if (b == node || !s->nodes[b].is_member)
			continue;
		e = vs_after(s, vs_random(s, 50 * USEC_PER_MS), link_dial, 0);
		e->a = node;
		e->b = b;
	}
	s->around->is_open(s, node);
}

void vs_node_crash(struct vsim *s, unsigned node)
{
	struct vs_node *n = &s->nodes[node];

	if (!n->up)
		return;
	vs_log(s, "process of node %u dies", node);
	vs_guest_disconnected(s, node);
	for (unsigned b = 1; b <= NODES; b++)
		if (b != node)
			vs_link_break(s, node, b);
	n->up = false;
	n->life++;
	vs_disk_crash(s, n);
	n->core = volume_core_free(n->core);
}

void vs_node_power_off(struct vsim *s, unsigned node)
{
	struct vs_node *n = &s->nodes[node];

	if (!n->power)
		return;
	if (s->guest.node == node)
		vs_guest_kill(s);
	vs_node_crash(s, node);
	vs_log(s, "node %u loses power", node);
	n->power = false;
	vs_disk_power(s, n);
}
