/* SPDX-License-Identifier: Apache-2.0
 * Faults. Each seed draws its own mix, so that some runs see one kind all the time. */
#include "tests/volume_sim/sim.h"

#include <string.h>

static unsigned weight(struct vsim *s)
{
	static const unsigned choices[] = {0, 0, 1, 3, 10};

	return choices[vs_random(s, ARRAY_LEN(choices))];
}

static void choose_config(struct vsim *s)
{
	s->copies_max = 4;
	s->intents_cap = 2;
	s->clear_after = 300 * USEC_PER_MS;
	if (s->stories || vs_chance(s, 500))
		return;
	s->copies_max = 1 + (unsigned)vs_random(s, 8);
	s->intents_cap = (unsigned)vs_random(s, EXTENTS);
	s->clear_after = vs_random(s, 100 * USEC_PER_MS);
}

void faults_choose(struct vsim *s)
{
	struct vs_faults *f = &s->faults;

	choose_config(s);
	for (size_t i = 0; i < FAULT_KINDS; i++)
		f->weights[i] = weight(s);
	f->io_error = vs_chance(s, 200) ? weight(s) : 0;
	f->force = vs_chance(s, 200);
	f->lag = vs_chance(s, 500) ? weight(s) * 3 : 0;
	if (s->stories) /* which take too long else */
		f->lag /= 5;
	for (unsigned n = 1; n <= NODES; n++)
		s->nodes[n].slow = 100 + vs_random(s, 3 * USEC_PER_MS);
}

static usec_t some_time(struct vsim *s)
{
	switch (vs_random(s, 4)) {
	case 0:
		return vs_random(s, 20 * USEC_PER_MS);
	case 1:
		return vs_random(s, 400 * USEC_PER_MS);
	case 2:
		return vs_random(s, 1500 * USEC_PER_MS);
	default:
		return vs_random(s, 4 * USEC_PER_SEC);
	}
}

static void start_event(struct vsim *s, struct vs_event *e)
{
	if (s->nodes[e->a].power)
		vs_node_start(s, (unsigned)e->a);
}

static void power_event(struct vsim *s, struct vs_event *e)
{
	struct vs_node *n = &s->nodes[e->a];

	if (n->power)
		return;
	n->power = true;
	n->boot++;
	vs_node_start(s, (unsigned)e->a);
}

static void crash(struct vsim *s, unsigned node)
{
	vs_node_crash(s, node);
	vs_after(s, 1 + some_time(s) / 4, start_event, 0)->a = node;
}

static void power(struct vsim *s, unsigned node)
{
	vs_node_power_off(s, node);
	vs_after(s, USEC_PER_MS + some_time(s), power_event, 0)->a = node;
}

static void cut(struct vsim *s, unsigned a, unsigned b, usec_t how_long)
{
	if (a != b && !s->around->is_cut(s, a, b))
		s->cut_until[a][b] = s->now + how_long;
}

/* Cut off from the others, from the quorum, or from both. */
static void isolate(struct vsim *s, unsigned node)
{
	usec_t how_long = some_time(s);

	for (unsigned b = 1; b <= NODES; b++) {
		cut(s, node, b, how_long);
		cut(s, b, node, how_long);
	}
	if (vs_chance(s, 500))
		s->nodes[node].no_store_until = s->now + how_long;
	vs_log(s, "node %u is cut off for %.3f s%s", node, (double)how_long / 1e6,
	       !node_has_store(s, node) ? ", from the store too" : "");
}

static void store_cut(struct vsim *s, unsigned node)
{
	s->nodes[node].no_store_until = s->now + some_time(s);
	vs_log(s, "node %u is cut off from the store", node);
}

/* A planned move: its VM was stopped and that was confirmed. */
static void take(struct vsim *s, unsigned node)
{
	unsigned to = 1 + (unsigned)vs_random(s, NODES);
	struct volume_member *m = vs_member(s, to);

	(void)node;
	if (!m->in_sync || m->reported != m->incarnation)
		return;
	vs_guest_kill(s);
	store_move(s, to, vs_chance(s, 500));
}

static void stop(struct vsim *s, unsigned node)
{
	usec_t how_long = some_time(s);

	if (!s->nodes[node].up)
		return;
	vs_log(s, "the process of %u stands still for %.3f s", node, (double)how_long / 1e6);
	if (s->nodes[node].stopped_until < s->now + how_long) /* never sooner: what waits for it must keep its place */
		s->nodes[node].stopped_until = s->now + how_long;
}

static unsigned other(struct vsim *s, unsigned node)
{
	return (node - 1 + 1 + (unsigned)vs_random(s, NODES - 1)) % NODES + 1;
}

static void all_power(struct vsim *s, unsigned node)
{
	(void)node;
	if (!vs_chance(s, 300))
		return;
	for (unsigned i = 1; i <= NODES; i++)
		power(s, i);
}

static void all_crash(struct vsim *s, unsigned node)
{
	(void)node;
	if (!vs_chance(s, 300))
		return;
	for (unsigned i = 1; i <= NODES; i++)
		crash(s, i);
}

static void one_way(struct vsim *s, unsigned node)
{
	usec_t time = some_time(s); /* first: compilers differ in the order of arguments */

	cut(s, node, other(s, node), time);
}

static void break_link(struct vsim *s, unsigned node)
{
	vs_link_break(s, node, other(s, node));
}

static void slow(struct vsim *s, unsigned node)
{
	s->nodes[node].slow = vs_chance(s, 500) ? 50 * USEC_PER_MS : 200;
}

/* One kind of write alone, so that it is overtaken by the others. */
static void stall(struct vsim *s, unsigned node)
{
	enum vs_write_kind kind = (enum vs_write_kind)vs_random(s, W_KINDS);

	s->nodes[node].stall[kind] = vs_random(s, vs_chance(s, 100) ? 7 * USEC_PER_SEC : USEC_PER_SEC);
	s->nodes[node].stall_until[kind] = s->now + some_time(s);
}

static void reconnect(struct vsim *s, unsigned node)
{
	(void)node;
	vs_guest_reconnect(s);
}

static void backup(struct vsim *s, unsigned node)
{
	(void)node;
	vs_guest_backup(s);
}

static void (*const kinds[FAULT_KINDS])(struct vsim *s, unsigned node) = {
	crash, all_crash, power, all_power, isolate,   one_way, break_link,
	slow,  stall,     stop,  take,      reconnect, backup,  store_cut,
};

static void one(struct vsim *s, unsigned node)
{
	unsigned n = (unsigned)vs_random(s, 140);

	for (size_t i = 0; i < FAULT_KINDS; i++) {
		if (n < s->faults.weights[i]) {
			kinds[i](s, node);
			return;
		}
		n -= s->faults.weights[i];
	}
}

/* Half of them hit the primary. */
void faults_event(struct vsim *s, struct vs_event *e)
{
	unsigned node = vs_chance(s, 500) ? s->row.primary : 1 + (unsigned)vs_random(s, NODES);

	(void)e;
	if (s->healing)
		return;
	if (!s->story.next || (s->disturbed && vs_chance(s, 100)))
		one(s, node);
	vs_after(s, 1 + vs_random(s, 150 * USEC_PER_MS), faults_event, 0);
}

/* It goes on beside all else, through the healing too. */
void scrub_event(struct vsim *s, struct vs_event *e)
{
	struct vs_node *p = &s->nodes[s->row.primary];
	struct volume_core_status st;

	(void)e;
	if (p->up) {
		volume_core_status(p->core, &st);
		if (!st.scrub.on && volume_core_scrub(p->core, 0, vs_chance(s, 500)) == 0)
			s->scrubs++;
	}
	vs_after(s, 1500 * USEC_PER_MS, scrub_event, 0);
}

/* Links, disks and machines as they should be. */
void faults_end(struct vsim *s)
{
	memset(s->cut_until, 0, sizeof s->cut_until);
	for (unsigned n = 1; n <= NODES; n++) {
		struct vs_node *h = &s->nodes[n];

		h->no_store_until = h->ask_lag = 0;
		memset(h->stall_until, 0, sizeof h->stall_until);
		h->slow = 200;
		h->power = true;
		vs_node_start(s, n);
	}
	s->guest.quiet = s->guest.held = false;
}

void faults_heal(struct vsim *s)
{
	vs_log(s, "healing");
	s->healing = true;
	s->story = (struct vs_story){0};
	faults_end(s);
}
