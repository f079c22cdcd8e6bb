/* SPDX-License-Identifier: Apache-2.0
 * Links between agents. raft's frames keep their order and are lost only with the link; the lease frames, whose rules
 * must bear it, are also late, doubled and out of order. */
#include "tests/sim/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEAD_AFTER   (2 * USEC_PER_SEC) /* a silent link is noticed within this */
#define REDIAL_EVERY (200 * USEC_PER_MS)

/* The environment of node n is &w->hosts[n]; the world starts before its hosts. */
static struct world *world_of(void *ctx, unsigned *ret_node)
{
	struct host *h = ctx;

	*ret_node = h->id;
	return CONTAINER_OF(h - h->id, struct world, hosts[0]);
}

static void deliver(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];
	unsigned from = (unsigned)e->a;
	uint32_t id;

	if (e->b && e->b != w->link_life[from][e->node])
		return; /* its link broke */
	if (message_id(e->p, e->n, &id) < 0)
		abort();
	if (id >= PEER_RAFT_FIRST)
		CHECK(consensus_receive(h->consensus, from, e->p, e->n) == 0);
	else
		CHECK(node_receive(h->node, from, e->p, e->n));
}

static struct event *post(struct world *w, usec_t delay, unsigned from, unsigned to, const void *p, size_t n)
{
	struct event *e = sim_after(w, delay, deliver, OWNER_AGENT, to);

	e->a = from;
	e->p = xcalloc(1, n);
	e->n = n;
	memcpy(e->p, p, n);
	return e;
}

static usec_t delay_of(struct world *w)
{
	return 50 + sim_random(w, 1000);
}

int sim_raft_send(void *ctx, node_id_t to, const void *p, size_t n)
{
	unsigned from;
	struct world *w = world_of(ctx, &from);
	usec_t at = w->now + delay_of(w) + w->raft_lag[to];
	struct event *e;

	if (!w->link[from][to])
		return -ENOTCONN;
	if (w->cut[from][to] || !w->hosts[to].agent_up)
		return 0; /* sent into the void; the link dies of it */
	if (at <= w->link_last[from][to])
		at = w->link_last[from][to] + 1;
	w->link_last[from][to] = at;
	e = post(w, at - w->now, from, to, p, n);
	e->b = w->link_life[from][to];
	return 0;
}

/* Leases are judged by times: most frames are quick, some come about a lease later. */
static usec_t lease_delay(struct world *w)
{
	if (!w->healing && sim_chance(w, w->faults.lag))
		return sim_random(w, w->timing.lease * 3 / 2);
	return delay_of(w);
}

static bool is_ask(const void *p, size_t n)
{
	uint32_t id;

	return message_id(p, n, &id) == 0 && id == PEER_ASK;
}

void sim_lease_send(void *ctx, node_id_t to, const void *p, size_t n)
{
	unsigned from;
	struct world *w = world_of(ctx, &from);
	unsigned copies = !w->healing && sim_chance(w, w->faults.duplicate) ? 2 : 1;

	if (!w->link[from][to] || w->cut[from][to] || !w->hosts[to].agent_up)
		return;
	if (w->disks && !w->healing && is_ask(p, n) &&
	    sim_chance(w, 300)) /* L20 bears it, however late it comes again */
		post(w, USEC_PER_SEC + sim_random(w, 8 * USEC_PER_SEC), from, to, p, n)->outlives = true;
	while (copies-- > 0)
		post(w, lease_delay(w) + w->lease_lag[to], from, to, p, n)->outlives =
			w->faults.behind || w->faults.stories;
}

bool sim_is_up(void *ctx, node_id_t node)
{
	unsigned from;
	struct world *w = world_of(ctx, &from);

	return w->link[from][node];
}

static void side_down(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];

	consensus_link_down(h->consensus, (node_id_t)e->a);
}

static void redial(struct world *w, struct event *e)
{
	unsigned a = (unsigned)e->a, b = (unsigned)e->b;
	struct event *again;

	if (w->link[a][b])
		return;
	if (w->cut[a][b] || w->cut[b][a] || !w->hosts[a].agent_up || !w->hosts[b].agent_up || w->hosts[a].hung ||
	    w->hosts[b].hung) {
		again = sim_after(w, REDIAL_EVERY / 2 + sim_random(w, REDIAL_EVERY), redial, OWNER_WORLD, 0);
		again->a = a;
		again->b = b;
		return;
	}
	w->link[a][b] = w->link[b][a] = true;
	w->link_last[a][b] = w->link_last[b][a] = 0;
	sim_log(w, "link %u-%u up", a, b);
}

void sim_link_break(struct world *w, unsigned a, unsigned b)
{
	struct event *e;

	if (a > b) {
		unsigned t = a;

		a = b;
		b = t;
	}
	if (!w->link[a][b])
		return;
	sim_log(w, "link %u-%u down", a, b);
	w->link[a][b] = w->link[b][a] = false;
	w->link_life[a][b]++;
	w->link_life[b][a]++;
	if (w->hosts[a].agent_up)
		sim_after(w, 0, side_down, OWNER_AGENT, a)->a = b;
	if (w->hosts[b].agent_up)
		sim_after(w, 0, side_down, OWNER_AGENT, b)->a = a;
	e = sim_after(w, 50 * USEC_PER_MS + sim_random(w, REDIAL_EVERY), redial, OWNER_WORLD, 0);
	e->a = a;
	e->b = b;
}

void sim_links_of_agent_down(struct world *w, unsigned node)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		if (n != node)
			sim_link_break(w, node, n);
}
