/* SPDX-License-Identifier: Apache-2.0
 * Rules L1 to L9 of the lease, one at a time. */
#include "consensus/consensus.h"
#include "consensus/lease.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define T0 (100 * USEC_PER_SEC)

static struct consensus_view raft;
static struct lease_leader leader;
static struct lease_voter self;

static int set_up(void **state KEDGE_UNUSED)
{
	memset(&raft, 0, sizeof raft);
	raft.term = 5;
	raft.is_leader = true;
	raft.leader = 1;
	raft.last_index = 40;
	raft.n_members = 3;
	for (node_id_t i = 0; i < 3; i++)
		raft.members[i] = (struct consensus_member){(node_id_t)(i + 1), CONSENSUS_VOTER, true};
	lease_leader_init(&leader, &timing_lan);
	lease_voter_init(&self, T0 - 10 * USEC_PER_SEC);
	return 0;
}

static void lead(usec_t now)
{
	assert_int_equal(lease_leader_poll(&leader, &raft, &self, 1, now), LEASE_GAINED);
	lease_leader_barrier(&leader, &raft, 5);
}

/* A round that begins at @at is answered by a majority. */
static void touch(usec_t at)
{
	struct peer_lease_round round;

	if (lease_leader_round(&leader, &raft, 1, at, &round))
		lease_leader_pong(&leader, &raft, 3, &round);
	(void)lease_leader_round(&leader, &raft, 1, at, &round);
}

/* The majority stays until @at. */
static bool may_take(node_id_t owner, usec_t at)
{
	for (usec_t t = leader.touched + timing_lan.renew; t < at; t += timing_lan.renew)
		touch(t);
	touch(at);
	return lease_leader_may_take(&leader, &raft, owner, at);
}

static bool grant(struct peer_lease_grant *ret)
{
	node_id_t to = 0;

	return lease_leader_grant(&leader, &raft, 1, &to, ret) && to == 2;
}

static void l1_counts_from_the_send(void **state KEDGE_UNUSED)
{
	struct peer_lease_grant g = {.term = 1};
	struct peer_lease_req req;
	struct lease_node node;
	usec_t deadline = 0;

	lease_node_init(&node, &timing_lan, 77);
	lease_node_ask(&node, 1, T0, &req);
	g.session = req.session;
	g.num = req.num;
	assert_true(lease_node_grant(&node, &g, T0 + USEC_PER_SEC, &deadline));
	assert_true(deadline == T0 + timing_lan.lease);
	assert_false(lease_node_grant(&node, &g, T0 + USEC_PER_SEC, &deadline)); /* L3: doubled */
}

static void l2_l3_refuse_what_is_not_mine_or_late(void **state KEDGE_UNUSED)
{
	struct peer_lease_grant g = {.term = 3};
	struct peer_lease_req first, second;
	struct lease_node node;
	usec_t deadline;

	lease_node_init(&node, &timing_lan, 77);
	lease_node_ask(&node, 1, T0, &first);
	lease_node_ask(&node, 1, T0 + 200 * USEC_PER_MS, &second);
	g.session = 78; /* another process of this node asked */
	g.num = first.num;
	assert_false(lease_node_grant(&node, &g, T0, &deadline));
	g.session = 77;
	assert_false(lease_node_grant(&node, &g, T0 + timing_lan.lease, &deadline)); /* its time is over */
	g.num = second.num;
	assert_true(lease_node_grant(&node, &g, T0 + USEC_PER_SEC, &deadline));
	g.num = first.num; /* overtaken */
	assert_false(lease_node_grant(&node, &g, T0 + USEC_PER_SEC, &deadline));
}

static void l4_needs_a_majority_after_the_request(void **state KEDGE_UNUSED)
{
	struct peer_lease_round before, after;
	struct peer_lease_req req = {.session = 9, .num = 1};
	struct peer_lease_grant g;

	lead(T0);
	lease_leader_req(&leader, 3, &(struct peer_lease_req){.session = 8, .num = 1});
	assert_true(lease_leader_round(&leader, &raft, 1, T0, &before));
	lease_leader_req(&leader, 2, &req); /* comes after the round began */
	lease_leader_pong(&leader, &raft, 2, &before);
	lease_leader_pong(&leader, &raft, 3, &before);
	while (lease_leader_grant(&leader, &raft, 1, &(node_id_t){0}, &g))
		assert_int_equal(g.session, 8); /* only the one that waited before */
	assert_true(lease_leader_round(&leader, &raft, 1, T0 + USEC_PER_SEC, &after));
	assert_false(grant(&g));
	lease_leader_pong(&leader, &raft, 3, &after);
	assert_true(grant(&g));
	assert_int_equal(g.num, 1);
	assert_int_equal(g.index, 40); /* L6: the last index, not the commit index */
}

static void l5_nothing_before_the_barrier(void **state KEDGE_UNUSED)
{
	struct peer_lease_round round;
	struct peer_lease_grant g;

	assert_int_equal(lease_leader_poll(&leader, &raft, &self, 1, T0), LEASE_GAINED);
	lease_leader_req(&leader, 2, &(struct peer_lease_req){.session = 9, .num = 1});
	if (lease_leader_round(&leader, &raft, 1, T0, &round))
		lease_leader_pong(&leader, &raft, 3, &round);
	assert_false(grant(&g));
	assert_false(may_take(2, T0 + 100 * USEC_PER_SEC));
	lease_leader_barrier(&leader, &raft, 4); /* of an earlier term */
	assert_false(may_take(2, T0 + 100 * USEC_PER_SEC));
	lease_leader_barrier(&leader, &raft, 5);
	assert_true(may_take(2, T0 + 100 * USEC_PER_SEC));
}

static void l6_needs_a_grant_of_this_session_and_its_index(void **state KEDGE_UNUSED)
{
	struct peer_lease_grant g = {.term = 1, .index = 40};
	struct peer_lease_req req;
	struct lease_node node;
	usec_t deadline;

	lease_node_init(&node, &timing_lan, 77);
	assert_false(lease_node_knows(&node, UINT64_MAX));
	lease_node_ask(&node, 1, T0, &req);
	g.session = req.session;
	g.num = req.num;
	assert_true(lease_node_grant(&node, &g, T0, &deadline));
	assert_false(lease_node_knows(&node, 39));
	assert_true(lease_node_knows(&node, 40));
}

static void l8_l9_a_new_leader_waits(void **state KEDGE_UNUSED)
{
	lead(T0);
	assert_false(may_take(2, T0 + timing_lan.takeover - 1));
	assert_true(may_take(2, T0 + timing_lan.takeover));
	raft.term = 6; /* leadership lost, and not seen yet */
	assert_false(may_take(2, T0 + timing_lan.takeover));
}

static void l9_ages_of_a_majority_shorten_the_wait(void **state KEDGE_UNUSED)
{
	struct peer_lease_age age = {.term = 5, .age = timing_lan.takeover - timing_lan.hear - 200 * USEC_PER_MS};

	lead(T0);
	lease_leader_age(&leader, &raft, 3, &age, 1, T0);
	assert_false(may_take(2, T0 + timing_lan.takeover - age.age - USEC_PER_MS));
	assert_true(may_take(2, T0 + timing_lan.takeover - age.age + USEC_PER_MS));
}

/* All links were down for long: every lease is over, but the nodes live, and theirs may be the link that comes last. */
static void a_new_leader_hears_first(void **state KEDGE_UNUSED)
{
	struct peer_lease_age age = {.term = 5, .age = 60 * USEC_PER_SEC};

	self.confirmed_at = T0 - 60 * USEC_PER_SEC;
	lead(T0);
	lease_leader_age(&leader, &raft, 3, &age, 1, T0);
	assert_false(may_take(2, T0 + timing_lan.hear_outage - 1));
	assert_true(may_take(2, T0 + timing_lan.hear_outage));
}

/* A short absence is the usual one of an election, and the time to hear hides behind TAKEOVER. */
static void after_a_usual_election_the_wait_is_shorter(void **state KEDGE_UNUSED)
{
	struct peer_lease_age age = {.term = 5, .age = timing_lan.takeover - 1};

	self.confirmed_at = T0 - age.age;
	lead(T0);
	lease_leader_age(&leader, &raft, 3, &age, 1, T0);
	assert_false(may_take(2, T0 + timing_lan.hear - 1));
	assert_true(may_take(2, T0 + timing_lan.hear));
}

/* It stood still, or its links were down, and raft did not depose it: it knows no more than a new one. */
static void a_leader_without_a_majority_takes_nothing(void **state KEDGE_UNUSED)
{
	usec_t at = T0 + 60 * USEC_PER_SEC;

	lead(T0);
	touch(T0);
	lease_leader_granted(&leader, 2, &self, T0);
	assert_false(lease_leader_may_take(&leader, &raft, 2, at));
	touch(at);
	assert_false(lease_leader_may_take(&leader, &raft, 2, at));
	assert_false(may_take(2, at + timing_lan.hear_outage - 1));
	assert_true(may_take(2, at + timing_lan.hear_outage));
}

static void a_node_heard_after_the_outage_has_the_usual_wait(void **state KEDGE_UNUSED)
{
	usec_t at = T0 + 60 * USEC_PER_SEC;

	lead(T0);
	touch(at);
	lease_leader_granted(&leader, 2, &self, at);
	assert_false(may_take(2, at + timing_lan.takeover - 1));
	assert_true(may_take(2, at + timing_lan.takeover));
}

static void a_voter_answers_its_own_term_only(void **state KEDGE_UNUSED)
{
	struct peer_lease_round ping = {.term = 4, .round = 1};

	assert_false(lease_voter_ping(&self, &raft, &ping, T0));
	assert_true(self.confirmed_at < T0);
	ping.term = 5;
	assert_true(lease_voter_ping(&self, &raft, &ping, T0));
	assert_true(self.confirmed_at == T0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, set_up)
	const struct CMUnitTest tests[] = {
		TEST(l1_counts_from_the_send),
		TEST(l2_l3_refuse_what_is_not_mine_or_late),
		TEST(l4_needs_a_majority_after_the_request),
		TEST(l5_nothing_before_the_barrier),
		TEST(l6_needs_a_grant_of_this_session_and_its_index),
		TEST(l8_l9_a_new_leader_waits),
		TEST(l9_ages_of_a_majority_shorten_the_wait),
		TEST(a_new_leader_hears_first),
		TEST(after_a_usual_election_the_wait_is_shorter),
		TEST(a_leader_without_a_majority_takes_nothing),
		TEST(a_node_heard_after_the_outage_has_the_usual_wait),
		TEST(a_voter_answers_its_own_term_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
