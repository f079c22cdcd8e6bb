/* SPDX-License-Identifier: Apache-2.0
 * Faults. Each seed draws its own mix of them, so that some runs see few and some see one kind all the time. */
#include "tests/sim/world.h"

#include <string.h>

#define CHOICES ((unsigned[]){0, 0, 1, 3, 10})

static unsigned weight(struct world *w)
{
	return CHOICES[sim_random(w, 5)];
}

void sim_faults_choose(struct world *w)
{
	struct faults *f = &w->faults;

	f->agent_crash = weight(w);
	f->power = weight(w);
	f->hang = weight(w);
	f->guard_kill = weight(w);
	f->isolate = weight(w);
	f->one_way = weight(w);
	f->break_link = weight(w);
	f->slow_disk = weight(w);
	f->guest_end = weight(w);
	f->admin = weight(w) * 100;
	f->lag = weight(w) * 30;
	f->duplicate = weight(w) * 50;
	f->slow_start = weight(w) * 40;
	f->start_fails = weight(w) * 20;
	for (unsigned n = 1; n <= SIM_NODES; n++) {
		int64_t ppm = (int64_t)w->timing.drift_ppm;

		w->hosts[n].rate_ppm = sim_chance(w, 400) ? ppm : sim_chance(w, 600) ? -ppm : 0;
		w->hosts[n].offset = USEC_PER_SEC + sim_random(w, 100000 * USEC_PER_SEC);
		w->hosts[n].disk_delay = 200 + sim_random(w, 3 * USEC_PER_MS);
		w->hosts[n].guard_late = sim_chance(w, 500) ? w->timing.freeze_max / 2 : USEC_PER_MS;
	}
}

/* Times that matter to leases: a blink, about an election, just below and above the lease, long. */
static usec_t some_time(struct world *w)
{
	usec_t around = w->timing.lease / 2 + sim_random(w, w->timing.takeover * 3 / 2);

	switch (sim_random(w, 4)) {
	case 0:
		return sim_random(w, 300 * USEC_PER_MS);
	case 1:
		return sim_random(w, w->timing.lease);
	case 2:
		return around;
	default:
		return sim_random(w, 8 * USEC_PER_SEC);
	}
}

static void agent_back(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];

	if (h->up && !h->agent_up)
		sim_agent_start(w, e->node);
}

static void machine_back(struct world *w, struct event *e)
{
	sim_machine_boot(w, e->node);
}

static void hang_over(struct world *w, struct event *e)
{
	w->hosts[e->node].hung = false;
}

static void uncut(struct world *w, struct event *e)
{
	sim_log(w, "%u hears %u again", (unsigned)e->b, (unsigned)e->a);
	w->cut[e->a][e->b] = false;
}

static void cut_noticed(struct world *w, struct event *e)
{
	sim_link_break(w, (unsigned)e->a, (unsigned)e->b);
}

/* Frames vanish at once; both sides see the link die within two seconds, also when it could be used again before. */
static void cut(struct world *w, unsigned from, unsigned to, usec_t how_long)
{
	struct event *e;

	if (w->cut[from][to])
		return;
	sim_log(w, "%u does not hear %u", to, from);
	w->cut[from][to] = true;
	e = sim_after(w, how_long, uncut, OWNER_WORLD, 0);
	e->a = from;
	e->b = to;
	e = sim_after(w, sim_random(w, how_long < 2 * USEC_PER_SEC ? how_long + 1 : 2 * USEC_PER_SEC), cut_noticed,
		      OWNER_WORLD, 0);
	e->a = from;
	e->b = to;
}

static unsigned other(struct world *w, unsigned node)
{
	return (node - 1 + 1 + (unsigned)sim_random(w, SIM_NODES - 1)) % SIM_NODES + 1;
}

static void hang(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];

	/* P1 assumes that the guard or the agent runs. */
	if (!h->agent_up || h->hung || !h->guard_up)
		return;
	sim_log(w, "agent %u hangs", node);
	h->hung = true;
	sim_after(w, some_time(w), hang_over, OWNER_AGENT, node)->owner = OWNER_WORLD;
}

static void guard_kill(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];

	if (h->up && h->agent_up && !h->hung && h->guard_up)
		sim_guard_kill(w, node);
}

static void agent_crash(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];

	if (!h->agent_up || !h->guard_up)
		return;
	sim_agent_crash(w, node);
	sim_after(w, some_time(w), agent_back, OWNER_MACHINE, node);
}

static void power(struct world *w, unsigned node)
{
	if (!w->hosts[node].up)
		return;
	sim_machine_crash(w, node);
	sim_after(w, 500 * USEC_PER_MS + some_time(w), machine_back, OWNER_WORLD, 0)->node = node;
}

static void guest_end(struct world *w, unsigned node)
{
	struct process *p = &w->hosts[node].processes[sim_random(w, SIM_PROCESSES)];

	for (size_t i = 0; i < SIM_PROCESSES; i++)
		if (sim_executes(&w->hosts[node], &w->hosts[node].processes[i]))
			p = &w->hosts[node].processes[i];
	if (sim_executes(&w->hosts[node], p))
		sim_process_end(w, node, p, "crashed");
}

void sim_isolate(struct world *w, unsigned node, usec_t how_long)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		if (n != node) {
			cut(w, n, node, how_long);
			cut(w, node, n, how_long);
		}
}

/* One after the other: compilers differ in the order of arguments, and a seed is to tell the same story with each. */
static void cut_somewhere(struct world *w, unsigned node)
{
	usec_t time = some_time(w);

	cut(w, node, other(w, node), time);
}

static void one(struct world *w, unsigned node)
{
	const struct faults *f = &w->faults;
	unsigned n = (unsigned)sim_random(w, 200);

#define ROLL(weight) (n < (weight)*2 ? (n = 200, true) : (n -= (weight)*2, false))
	if (ROLL(f->agent_crash))
		agent_crash(w, node);
	else if (ROLL(f->power))
		power(w, node);
	else if (ROLL(f->hang))
		hang(w, node);
	else if (ROLL(f->guard_kill))
		guard_kill(w, node);
	else if (ROLL(f->isolate))
		sim_isolate(w, node, some_time(w));
	else if (ROLL(f->one_way))
		cut_somewhere(w, node);
	else if (ROLL(f->break_link))
		sim_link_break(w, node, other(w, node));
	else if (ROLL(f->guest_end))
		guest_end(w, node);
	else if (ROLL(f->slow_disk))
		w->hosts[node].disk_delay = sim_chance(w, 500) ? 100 * USEC_PER_MS : 500;
#undef ROLL
}

static unsigned leading(struct world *w)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		if (w->hosts[n].agent_up && node_leads(w->hosts[n].node))
			return n;
	return 0;
}

/* Half of the faults go for the leader: its loss is where the protocol is subtle. */
static void fault_event(struct world *w, struct event *e)
{
	unsigned node = 1 + (unsigned)sim_random(w, SIM_NODES), l = leading(w);

	(void)e;
	if (w->healing)
		return;
	one(w, l && sim_chance(w, 500) ? l : node);
	sim_after(w, (w->faults.stories ? 10 : 1) * (20 * USEC_PER_MS + sim_random(w, 600 * USEC_PER_MS)), fault_event,
		  OWNER_WORLD, 0);
}

/* A follower whose entries come late, heartbeats and all, but whose leases come in time: its store is behind. */
static void behind_event(struct world *w, struct event *e)
{
	unsigned node = 1 + (unsigned)sim_random(w, SIM_NODES);

	(void)e;
	memset(w->raft_lag, 0, sizeof w->raft_lag);
	if (w->healing)
		return;
	if (sim_chance(w, 600))
		w->raft_lag[node] = some_time(w);
	sim_after(w, 200 * USEC_PER_MS + some_time(w), behind_event, OWNER_WORLD, 0);
}

void sim_faults_start(struct world *w)
{
	if (w->faults.stories)
		sim_stories_start(w);
	if (w->faults.behind)
		sim_after(w, 5 * USEC_PER_SEC, behind_event, OWNER_WORLD, 0);
	sim_after(w, 5 * USEC_PER_SEC, fault_event, OWNER_WORLD, 0);
}

void sim_heal(struct world *w)
{
	sim_log(w, "healing");
	w->healing = true;
	memset(w->raft_lag, 0, sizeof w->raft_lag);
	memset(w->lease_lag, 0, sizeof w->lease_lag);
	memset(w->cut, 0, sizeof w->cut);
	sim_disks_heal(w);
	if (w->dead) {
		sim_disks_pin(w);
		for (unsigned n = 1; n <= SIM_NODES; n++)
			if (n == w->dead || w->seed / 64 % 2) /* or all lose power, and the others come back */
				sim_machine_crash(w, n);
	}
	for (unsigned n = 1; n <= SIM_NODES; n++) {
		w->hosts[n].hung = false;
		w->hosts[n].disk_delay = 500;
		if (n == w->dead)
			continue;
		if (!w->hosts[n].up)
			sim_machine_boot(w, n);
		else if (!w->hosts[n].agent_up)
			sim_agent_start(w, n);
	}
}

struct host *sim_alive(struct world *w)
{
	return &w->hosts[w->dead == 1 ? 2 : 1];
}
