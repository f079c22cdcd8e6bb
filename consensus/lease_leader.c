/* SPDX-License-Identifier: Apache-2.0
 * The leader's and the voters' side of leases. */
#include "consensus/consensus.h"

#include <string.h>

#define ROUND_EVERY (20 * USEC_PER_MS) /* a round that got no majority is followed by another after this */

bool lease_majority(const struct consensus_view *raft, bool (*has)(const void *ctx, node_id_t node), const void *ctx)
{
	unsigned now = 0, now_has = 0, old = 0, old_has = 0;

	if (PLANTED(nomaj))
		return true;
	for (size_t i = 0; i < raft->n_members; i++) {
		const struct consensus_member *m = &raft->members[i];
		bool yes = has(ctx, m->node);

		now += m->role == CONSENSUS_VOTER;
		now_has += m->role == CONSENSUS_VOTER && yes;
		old += m->was_voter;
		old_has += m->was_voter && yes;
	}
	return now_has > now / 2 && old_has > old / 2;
}

/* ---- voter ---- */

void lease_voter_init(struct lease_voter *v, usec_t now)
{
	v->confirmed_at = PLANTED(pongrestart) ? 0 : now;
}

bool lease_voter_ping(struct lease_voter *v, const struct consensus_view *raft, const struct peer_lease_round *ping,
		      usec_t now)
{
	if (raft->term != ping->term)
		return false; /* L4: it may have voted for another */
	v->confirmed_at = now;
	return true;
}

bool lease_voter_ages(const struct lease_voter *v, const struct consensus_view *raft, const struct peer_lease_age *ages,
		      usec_t now, struct peer_lease_age *ret)
{
	if (raft->term != ages->term)
		return false; /* L9: only in the term itself does it confirm no older leader any more */
	CHECK(now >= v->confirmed_at);
	*ret = (struct peer_lease_age){.term = ages->term, .age = now - v->confirmed_at};
	return true;
}

/* ---- leader ---- */

void lease_leader_init(struct lease_leader *l, const struct timing *timing)
{
	*l = (struct lease_leader){.timing = timing};
}

static bool still_leads(const struct lease_leader *l, const struct consensus_view *raft)
{
	return l->leading && raft->is_leader && raft->term == l->term;
}

enum lease_change lease_leader_poll(struct lease_leader *l, const struct consensus_view *raft,
				    const struct lease_voter *self, node_id_t me, usec_t now)
{
	if (still_leads(l, raft))
		return LEASE_SAME;
	if (!raft->is_leader) {
		enum lease_change change = l->leading ? LEASE_LOST : LEASE_SAME;

		l->leading = false;
		return change;
	}
	lease_leader_init(l, l->timing); /* L7: terms are compared, leadership lost and regained resets all */
	l->leading = true;
	l->term = raft->term;
	l->since = now;
	l->touched = now;
	l->hear_until = now + l->timing->hear;
	l->aged[me] = true;
	l->confirmed[me] = self->confirmed_at;
	for (size_t n = 0; n <= NODES_MAX; n++) /* L9: a new leader waits too */
		l->holders[n].wait_from = PLANTED(nlnowait) ? 0 : now;
	return LEASE_GAINED;
}

void lease_leader_barrier(struct lease_leader *l, const struct consensus_view *raft, uint64_t term)
{
	if (still_leads(l, raft) && l->term == term)
		l->barrier_done = true;
}

void lease_leader_req(struct lease_leader *l, node_id_t from, const struct peer_lease_req *req)
{
	struct lease_holder *h;

	CHECK(from >= 1 && from <= NODES_MAX);
	if (!l->leading)
		return;
	h = &l->holders[from];
	h->session = req->session;
	h->num = req->num;
	h->waiting = true;
	h->round = l->round + 1; /* L4: only a round that begins after this counts */
}

void lease_leader_pong(struct lease_leader *l, const struct consensus_view *raft, node_id_t from,
		       const struct peer_lease_round *pong)
{
	CHECK(from >= 1 && from <= NODES_MAX);
	if (!still_leads(l, raft) || pong->term != l->term || pong->round > l->round)
		return;
	if (pong->round > l->ponged[from])
		l->ponged[from] = pong->round;
}

static bool has_aged(const void *ctx, node_id_t node)
{
	const struct lease_leader *l = ctx;

	return l->aged[node];
}

/* Until @at there was no majority for so long that every node has frozen, and all their links may be down yet. Whoever
 * is heard of only now has not died: a switch that reboots, or a leader that stood still, costs a pause, no restart. */
static void was_out(struct lease_leader *l, usec_t at)
{
	for (size_t n = 0; n <= NODES_MAX; n++)
		l->holders[n].heard = false;
	l->hear_until = at + l->timing->hear_outage;
}

/* L9: with the ages of a majority the wait counts from the youngest confirmation: one of them confirmed each earlier
 * grant. */
static void take_ages(struct lease_leader *l, const struct consensus_view *raft)
{
	usec_t youngest = 0;

	if (l->ages_known || !lease_majority(raft, has_aged, l))
		return;
	l->ages_known = true;
	for (size_t n = 0; n <= NODES_MAX; n++)
		if (l->aged[n] && l->confirmed[n] > youngest)
			youngest = l->confirmed[n];
	for (size_t n = 0; n <= NODES_MAX; n++)
		if (!l->holders[n].granted && youngest < l->holders[n].wait_from)
			l->holders[n].wait_from = youngest;
	if (l->since - youngest >= l->timing->takeover)
		was_out(l, l->since);
}

void lease_leader_age(struct lease_leader *l, const struct consensus_view *raft, node_id_t from,
		      const struct peer_lease_age *age, node_id_t me, usec_t now)
{
	CHECK(from >= 1 && from <= NODES_MAX);
	if (!still_leads(l, raft) || age->term != l->term || from == me)
		return;
	l->aged[from] = true;
	l->confirmed[from] = age->age < now ? now - age->age : 0;
	take_ages(l, raft);
}

struct round_reached {
	const struct lease_leader *l;
	uint64_t round;
	node_id_t me;
};

static bool has_reached(const void *ctx, node_id_t node)
{
	const struct round_reached *r = ctx;

	return node == r->me || r->l->ponged[node] >= r->round;
}

static bool majority_reached(const struct lease_leader *l, const struct consensus_view *raft, node_id_t me,
			     uint64_t round)
{
	struct round_reached r = {l, round, me};

	return lease_majority(raft, has_reached, &r);
}

/* A majority answered what was sent at the round's beginning, and may since have gone. */
static void touch(struct lease_leader *l, usec_t at)
{
	if (at - l->touched >= l->timing->takeover)
		was_out(l, at);
	l->touched = at;
}

bool lease_leader_round(struct lease_leader *l, const struct consensus_view *raft, node_id_t me, usec_t now,
			struct peer_lease_round *ret)
{
	bool wanted;

	if (!still_leads(l, raft))
		return false;
	if (l->round_at > l->touched && majority_reached(l, raft, me, l->round))
		touch(l, l->round_at);
	wanted = l->read_round > l->round || now - l->round_at >= 2 * l->timing->renew;
	for (size_t n = 1; n <= NODES_MAX; n++)
		wanted |= l->holders[n].waiting && (l->holders[n].round > l->round || now - l->round_at >= ROUND_EVERY);
	if (!wanted || (now - l->round_at < ROUND_EVERY && l->round && !majority_reached(l, raft, me, l->round)))
		return false;
	l->round++;
	l->round_at = now;
	*ret = (struct peer_lease_round){.term = l->term, .round = l->round};
	return true;
}

static bool may_grant(const struct lease_leader *l, const struct consensus_view *raft, node_id_t me, node_id_t to)
{
	const struct lease_holder *h = &l->holders[to];
	uint64_t round = PLANTED(staleack) && l->round ? 1 : h->round;

	if (!h->waiting || (round > l->round && !PLANTED(nomaj)))
		return false;
	return majority_reached(l, raft, me, round);
}

bool lease_leader_grant(struct lease_leader *l, const struct consensus_view *raft, node_id_t me, node_id_t *ret_to,
			struct peer_lease_grant *ret)
{
	if (!still_leads(l, raft) || !l->barrier_done) /* L5 */
		return false;
	for (node_id_t n = 1; n <= NODES_MAX; n++) {
		struct lease_holder *h = &l->holders[n];

		if (!may_grant(l, raft, me, n))
			continue;
		h->waiting = false;
		*ret_to = n;
		*ret = (struct peer_lease_grant){
			.term = l->term,
			.session = h->session,
			.num = h->num,
			.index = PLANTED(idxcommit) ? raft->commit : raft->last_index, /* L6 */
		};
		return true;
	}
	return false;
}

void lease_leader_granted(struct lease_leader *l, node_id_t to, struct lease_voter *self, usec_t fresh_now)
{
	struct lease_holder *h = &l->holders[to];

	h->granted = true;
	h->heard = true;
	h->wait_from = fresh_now; /* L7: stamped late */
	if (!PLANTED(pongnoself))
		self->confirmed_at = fresh_now;
}

uint64_t lease_leader_read(struct lease_leader *l)
{
	l->read_round = l->round + 1;
	return l->read_round;
}

bool lease_leader_read_good(const struct lease_leader *l, const struct consensus_view *raft, node_id_t me,
			    uint64_t ticket)
{
	return still_leads(l, raft) && l->barrier_done && ticket <= l->round && majority_reached(l, raft, me, ticket);
}

bool lease_leader_may_take(const struct lease_leader *l, const struct consensus_view *raft, node_id_t owner, usec_t now)
{
	const struct lease_holder *h = &l->holders[owner];

	CHECK(owner >= 1 && owner <= NODES_MAX);
	if (!still_leads(l, raft) || !l->barrier_done)
		return false;
	if (now - l->touched >= l->timing->takeover) /* cut off, or it stood still: it cannot know who lives */
		return false;
	if (!h->heard && now < l->hear_until) /* its link may not be dialled again yet */
		return false;
	return now >= h->wait_from && now - h->wait_from >= l->timing->takeover; /* L8 */
}
