/* SPDX-License-Identifier: Apache-2.0
 * Stories: several faults in the order in which they hurt most, for those mistakes that chance alone hardly meets. */
#include "tests/sim/world.h"

#include <stdlib.h>
#include <string.h>

#define LOOK_EVERY (500) /* how often a story looks whether it can go on */

/* ---- pieces ---- */

static void silence(struct world *w, unsigned from, unsigned to, bool on)
{
	if (from != to)
		w->cut[from][to] = on;
}

/* Nobody hears @node (and it hears nobody). */
static void mute(struct world *w, unsigned node, bool deaf, bool on)
{
	for (unsigned n = 1; n <= SIM_NODES; n++) {
		silence(w, node, n, on);
		if (deaf)
			silence(w, n, node, on);
	}
}

/* The two hear each other again, over a new link: what was lost on the old one is known to be lost. */
static void reconnect(struct world *w, unsigned a, unsigned b)
{
	silence(w, a, b, false);
	silence(w, b, a, false);
	sim_link_break(w, a, b);
}

static void reconnect_all(struct world *w)
{
	memset(w->raft_lag, 0, sizeof w->raft_lag);
	memset(w->lease_lag, 0, sizeof w->lease_lag);
	for (unsigned a = 1; a <= SIM_NODES; a++)
		for (unsigned b = a + 1; b <= SIM_NODES; b++)
			if (w->cut[a][b] || w->cut[b][a])
				reconnect(w, a, b);
}

static void agent_back(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];

	if (h->up && !h->agent_up)
		sim_agent_start(w, e->node);
}

static void restart_agent(struct world *w, unsigned node)
{
	if (!w->hosts[node].agent_up || !w->hosts[node].guard_up)
		return;
	sim_agent_crash(w, node);
	sim_after(w, 50 * USEC_PER_MS, agent_back, OWNER_MACHINE, node);
}

static const struct process *guest_of(const struct world *w, unsigned node)
{
	const struct host *h = &w->hosts[node];

	for (size_t i = 0; i < SIM_PROCESSES; i++)
		if (sim_executes(h, &h->processes[i]))
			return &h->processes[i];
	return NULL;
}

static bool leads(struct world *w, unsigned node)
{
	return w->hosts[node].agent_up && node_leads(w->hosts[node].node);
}

static unsigned leader(struct world *w)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		if (leads(w, n))
			return n;
	return 0;
}

static uint64_t last_index(struct world *w, unsigned node)
{
	struct consensus_view raft;

	consensus_view(w->hosts[node].consensus, &raft);
	return raft.last_index;
}

/* A node that follows and runs a guest; 0: none. */
static unsigned owner(struct world *w)
{
	unsigned first = (unsigned)sim_random(w, SIM_NODES);

	for (unsigned i = 0; i < SIM_NODES; i++) {
		unsigned n = 1 + (first + i) % SIM_NODES;

		if (w->hosts[n].agent_up && !leads(w, n) && guest_of(w, n))
			return n;
	}
	return 0;
}

static bool all_up(const struct world *w)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		if (!w->hosts[n].agent_up || w->hosts[n].hung || !w->hosts[n].guard_up)
			return false;
	return true;
}

/* ---- the stories: each a function that is called until it says how long to wait: 0 ends it ---- */

/* It lost its VM while cut off; now it hears the leader and gets a lease, but the entries need one more round trip; and
 * its agent starts anew. */
static usec_t back_but_behind(struct world *w, struct story *s)
{
	usec_t lag = 700 * USEC_PER_MS + sim_random(w, 500 * USEC_PER_MS);

	switch (s->step++) {
	case 0:
		mute(w, s->owner, true, true);
		return w->timing.takeover + sim_random(w, USEC_PER_SEC);
	case 1:
		w->raft_lag[s->owner] = lag;
		for (unsigned n = 1; n <= SIM_NODES; n++)
			if (n != s->owner)
				reconnect(w, s->owner, n);
		return lag + 300 * USEC_PER_MS + sim_random(w, lag / 2);
	case 2:
		restart_agent(w, s->owner);
		return 5 * USEC_PER_SEC;
	default:
		return 0;
	}
}

/* Its last grants travel for long, and nobody hears it any more. */
static usec_t last_grants_late(struct world *w, struct story *s)
{
	switch (s->step++) {
	case 0:
		w->lease_lag[s->owner] = w->timing.lease / 2 + sim_random(w, w->timing.lease / 2);
		return w->timing.lease / 4 + sim_random(w, w->timing.lease);
	case 1:
		mute(w, s->owner, false, true);
		return 5 * USEC_PER_SEC;
	default:
		return 0;
	}
}

/* It restarts twice, and after its first request nobody hears the second one. The grants for the first one's requests
 * are still on their way and carry the numbers that the second one uses. */
static usec_t two_restarts(struct world *w, struct story *s)
{
	struct consensus_view raft;

	switch (s->step) {
	case 0:
		s->step++;
		w->lease_lag[s->owner] = 1700 * USEC_PER_MS;
		restart_agent(w, s->owner);
		return 1500 * USEC_PER_MS;
	case 1:
		s->step++;
		restart_agent(w, s->owner);
		return LOOK_EVERY;
	case 2:
		consensus_view(w->hosts[s->owner].consensus, &raft);
		if (!raft.leader)
			return LOOK_EVERY;
		s->step++;
		return 2 * USEC_PER_MS;
	case 3:
		s->step++;
		mute(w, s->owner, false, true);
		return 5 * USEC_PER_SEC;
	default:
		return 0;
	}
}

static void ignore(void *ctx, int status, const struct store_result *result)
{
	(void)ctx;
	(void)status;
	(void)result;
}

/* What the deposed leader logged last goes to the new one, as if proposals were forwarded; the owner hears of it late.
 */
static void forward(struct world *w, struct story *s)
{
	const struct sim_disk *d = &w->hosts[s->leader].disk;

	w->raft_lag[s->owner] = USEC_PER_SEC;
	reconnect(w, s->leader, s->next);
	for (uint64_t i = s->index + 1; i < d->start + d->n; i++) {
		const struct sim_entry *e = &d->entries[i - d->start];

		if (i >= d->start && e->type == RAFT_COMMAND)
			(void)!consensus_propose(w->hosts[s->next].consensus, e->data, e->n, ignore, NULL);
	}
}

/* The old leader shall win the next election, with the vote of the one that does not lead now. */
static void depose_next(struct world *w, struct story *s)
{
	mute(w, s->next, true, true);
	reconnect(w, s->leader, s->next == s->owner ? s->third : s->owner);
}

/* The takeover of a cut off owner is logged by a leader that is cut off itself in that moment. The next leader knows
 * nothing of it and grants the owner its lease. Then the first one leads again, and its takeover commits. */
static usec_t led_again(struct world *w, struct story *s)
{
	switch (s->step) {
	case 0: /* the leader does not hear the owner */
		s->step++;
		silence(w, s->leader, s->owner, true);
		silence(w, s->owner, s->leader, true);
		return w->timing.takeover - 250 * USEC_PER_MS;
	case 1: /* nor anybody else; it leads for an election's time still, and logs the takeover */
		s->step++;
		mute(w, s->leader, true, true);
		s->index = last_index(w, s->leader);
		return 100 * USEC_PER_MS;
	case 2: /* another leads, and the owner's guest goes on */
		s->next = leads(w, s->owner) ? s->owner : leads(w, s->third) ? s->third : 0;
		if (!s->next || leads(w, s->leader) || !guest_of(w, s->owner))
			return LOOK_EVERY;
		if (last_index(w, s->leader) == s->index)
			return 0; /* nothing was logged in time */
		s->step++;
		PLANTED(fwd) ? forward(w, s) : depose_next(w, s);
		return LOOK_EVERY;
	case 3: /* the owner has the entry, and shall not learn that it is committed */
		if (!leads(w, s->leader) || last_index(w, s->owner) <= s->index)
			return LOOK_EVERY;
		s->step++;
		silence(w, s->leader, s->owner, true);
		return 2 * USEC_PER_SEC;
	default:
		return 0;
	}
}

/* ---- one after the other ---- */

static usec_t (*const stories[])(struct world *w, struct story *s) = {back_but_behind, last_grants_late, two_restarts,
								      led_again};

static void next_story(struct world *w, struct event *e);

static void story_event(struct world *w, struct event *e)
{
	struct story *s = &w->story;
	usec_t wait = 0;

	(void)e;
	if (w->healing)
		return;
	if (w->now < s->until && all_up(w))
		wait = stories[s->kind](w, s);
	else if (w->now < s->until) /* an agent comes back, or the power went: look again */
		wait = LOOK_EVERY;
	if (wait) {
		sim_after(w, wait, story_event, OWNER_WORLD, 0);
		return;
	}
	sim_log(w, "story %u ends at step %u", s->kind, s->step);
	reconnect_all(w);
	sim_after(w, 2 * USEC_PER_SEC + sim_random(w, 2 * USEC_PER_SEC), next_story, OWNER_WORLD, 0);
}

static void next_story(struct world *w, struct event *e)
{
	struct story *s = &w->story;

	(void)e;
	if (w->healing)
		return;
	*s = (struct story){.until = w->now + 12 * USEC_PER_SEC,
			    .kind = (unsigned)sim_random(w, ARRAY_LEN(stories)),
			    .leader = leader(w),
			    .owner = owner(w)};
	if (!all_up(w) || !s->leader || !s->owner) {
		sim_after(w, 100 * USEC_PER_MS, next_story, OWNER_WORLD, 0);
		return;
	}
	s->third = 1 + 2 + 3 - s->leader - s->owner;
	sim_log(w, "story %u: leader %u, owner %u", s->kind, s->leader, s->owner);
	story_event(w, e);
}

void sim_stories_start(struct world *w)
{
	sim_after(w, 5 * USEC_PER_SEC, next_story, OWNER_WORLD, 0);
}
