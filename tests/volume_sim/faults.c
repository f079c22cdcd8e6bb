/* SPDX-License-Identifier: Apache-2.0
 * Faults. Each seed draws its own mix, so that some runs see one kind all the time. */
#include "tests/volume_sim/sim.h"

#include <string.h>

static unsigned weight(struct sim *s)
{
	static const unsigned choices[] = {0, 0, 1, 3, 10};

	return choices[sim_random(s, ARRAY_LEN(choices))];
}

void faults_choose(struct sim *s)
{
	struct faults *f = &s->faults;

	f->crash = weight(s);
	f->power = weight(s);
	f->all_power = weight(s) / 3;
	f->cut = weight(s);
	f->one_way = weight(s);
	f->link = weight(s);
	f->slow = weight(s);
	f->stop = weight(s);
	f->take = weight(s);
	f->reconnect = weight(s);
	f->io_error = sim_chance(s, 200) ? weight(s) : 0;
	f->force = sim_chance(s, 200);
	f->backup = weight(s);
	f->lag = sim_chance(s, 500) ? weight(s) * 3 : 0;
	f->store_cut = weight(s);
	for (unsigned n = 1; n <= NODES; n++)
		s->nodes[n].slow = 100 + sim_random(s, 3 * USEC_PER_MS);
}

static usec_t some_time(struct sim *s)
{
	switch (sim_random(s, 4)) {
	case 0:
		return sim_random(s, 20 * USEC_PER_MS);
	case 1:
		return sim_random(s, 400 * USEC_PER_MS);
	case 2:
		return sim_random(s, 1500 * USEC_PER_MS);
	default:
		return sim_random(s, 4 * USEC_PER_SEC);
	}
}

static void start_event(struct sim *s, struct event *e)
{
	if (s->nodes[e->a].power)
		node_start(s, (unsigned)e->a);
}

static void power_event(struct sim *s, struct event *e)
{
	struct node *n = &s->nodes[e->a];

	if (n->power)
		return;
	n->power = true;
	n->boot++;
	node_start(s, (unsigned)e->a);
}

static void crash(struct sim *s, unsigned node)
{
	node_crash(s, node);
	sim_after(s, 1 + some_time(s) / 4, start_event, 0)->a = node;
}

static void power(struct sim *s, unsigned node)
{
	node_power_off(s, node);
	sim_after(s, USEC_PER_MS + some_time(s), power_event, 0)->a = node;
}

static void cut(struct sim *s, unsigned a, unsigned b, usec_t how_long)
{
	if (a != b && !link_is_cut(s, a, b))
		s->cut_until[a][b] = s->now + how_long;
}

/* Cut off from the others, from the quorum, or from both. */
static void isolate(struct sim *s, unsigned node)
{
	usec_t how_long = some_time(s);

	for (unsigned b = 1; b <= NODES; b++) {
		cut(s, node, b, how_long);
		cut(s, b, node, how_long);
	}
	if (sim_chance(s, 500))
		s->nodes[node].no_store_until = s->now + how_long;
	sim_log(s, "node %u is cut off for %.3f s%s", node, (double)how_long / 1e6,
		!node_has_store(s, node) ? ", from the store too" : "");
}

static void store_cut(struct sim *s, unsigned node)
{
	s->nodes[node].no_store_until = s->now + some_time(s);
	sim_log(s, "node %u is cut off from the store", node);
}

/* A planned move: its VM was stopped and that was confirmed. */
static void take(struct sim *s)
{
	unsigned to = 1 + (unsigned)sim_random(s, NODES);
	struct volume_member *m = store_member(s, to);

	if (!m->in_sync || m->reported != m->incarnation)
		return;
	guest_kill(s);
	store_move(s, to, sim_chance(s, 500));
}

static void stop(struct sim *s, unsigned node)
{
	usec_t how_long = some_time(s);

	if (!s->nodes[node].up)
		return;
	sim_log(s, "the process of %u stands still for %.3f s", node, (double)how_long / 1e6);
	s->nodes[node].stopped_until = s->now + how_long;
}

static unsigned other(struct sim *s, unsigned node)
{
	return (node - 1 + 1 + (unsigned)sim_random(s, NODES - 1)) % NODES + 1;
}

static void one(struct sim *s, unsigned node)
{
	const struct faults *f = &s->faults;
	unsigned n = (unsigned)sim_random(s, 120);

#define ROLL(weight) (n < (weight) ? (n = 1000, true) : (n -= (weight), false))
	if (ROLL(f->crash))
		crash(s, node);
	else if (ROLL(f->power))
		power(s, node);
	else if (ROLL(f->all_power))
		for (unsigned i = 1; i <= NODES; i++)
			power(s, i);
	else if (ROLL(f->cut))
		isolate(s, node);
	else if (ROLL(f->one_way))
		cut(s, node, other(s, node), some_time(s));
	else if (ROLL(f->link))
		link_break(s, node, other(s, node));
	else if (ROLL(f->slow))
		s->nodes[node].slow = sim_chance(s, 500) ? 50 * USEC_PER_MS : 200;
	else if (ROLL(f->stop))
		stop(s, node);
	else if (ROLL(f->take))
		take(s);
	else if (ROLL(f->reconnect))
		guest_reconnect(s);
	else if (ROLL(f->backup))
		guest_backup(s);
	else if (ROLL(f->store_cut))
		store_cut(s, node);
#undef ROLL
}

/* Half of them hit the primary. */
void faults_event(struct sim *s, struct event *e)
{
	unsigned node = sim_chance(s, 500) ? s->row.primary : 1 + (unsigned)sim_random(s, NODES);

	(void)e;
	if (s->healing)
		return;
	if (!s->story.next ||
	    (s->seed % 8 == 7 && sim_chance(s, 100))) /* half of the seeds with stories disturb them */
		one(s, node);
	sim_after(s, 1 + sim_random(s, 150 * USEC_PER_MS), faults_event, 0);
}

/* Links, disks and machines as they should be. */
void faults_end(struct sim *s)
{
	memset(s->cut_until, 0, sizeof s->cut_until);
	for (unsigned n = 1; n <= NODES; n++) {
		struct node *h = &s->nodes[n];

		h->no_store_until = h->ask_lag = 0;
		memset(h->stall, 0, sizeof h->stall);
		h->slow = 200;
		h->stopped_until = 0;
		h->power = true;
		node_start(s, n);
	}
	s->guest.quiet = s->guest.held = false;
}

void faults_heal(struct sim *s)
{
	sim_log(s, "healing");
	s->healing = true;
	s->story = (struct story){0};
	faults_end(s);
}
