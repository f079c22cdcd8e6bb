/* SPDX-License-Identifier: Apache-2.0
 * Leases: who may run VMs until when. The rules L1 to L10 of LEASE-PROTOCOL as functions without a clock, a socket or a
 * thread: time and what raft says go in, decisions come out. The same code runs in the agent and in the simulator.
 *
 * A struct belongs to one thread. Fields are private but for the marked ones.
 */
#ifndef KEDGE_CONSENSUS_LEASE_H
#define KEDGE_CONSENSUS_LEASE_H

#include "proto/proto.h"

struct consensus_view;

/* ---- every voter ---- */

struct lease_voter {
	usec_t confirmed_at; /* last PONG or own grant; the process' start counts as one (L9) */
};

/* [loop] */
void lease_voter_init(struct lease_voter *v, usec_t now);

/* [loop] A PING came. True: answer with the same term and round. */
bool lease_voter_ping(struct lease_voter *v, const struct consensus_view *raft, const struct peer_lease_round *ping,
		      usec_t now);

/* [loop] AGES came. True: answer with @ret. */
bool lease_voter_ages(const struct lease_voter *v, const struct consensus_view *raft, const struct peer_lease_age *ages,
		      usec_t now, struct peer_lease_age *ret);

/* ---- the leader, for one term ---- */

struct lease_holder {
	usec_t wait_from; /* public: the takeover wait counts from here */
	bool granted;     /* public: a grant was made in this term */
	bool heard;       /* the same, and the majority was not lost since */
	bool waiting;     /* a request waits for a round */
	uint64_t session; /* of the last request */
	uint64_t num;
	uint64_t round; /* the first round begun after the request */
};

struct lease_leader {
	const struct timing *timing;
	bool leading;      /* public */
	uint64_t term;     /* public */
	bool barrier_done; /* public: an own entry is applied (L5); before it nothing is granted or decided */
	usec_t since;      /* public: when it saw itself leader */
	usec_t touched;    /* a round begun then was answered by a majority; at first, the election */
	usec_t hear_until; /* nothing is taken from a node not heard yet */
	bool ages_known;
	uint64_t round;
	usec_t round_at;
	uint64_t read_round;            /* the first round begun after the last linearizable read was asked for */
	uint64_t ponged[NODES_MAX + 1]; /* highest round that the voter answered */
	bool aged[NODES_MAX + 1];
	usec_t confirmed[NODES_MAX + 1]; /* by AGE: no later than this did the voter confirm an older leader */
	struct lease_holder holders[NODES_MAX + 1];
};

enum lease_change { LEASE_SAME, LEASE_GAINED, LEASE_LOST };

/* [loop] */
void lease_leader_init(struct lease_leader *l, const struct timing *timing);

/* [loop] Compare with what raft says now. GAINED: everything is reset for the new term; now log a barrier and send
 * AGES. */
enum lease_change lease_leader_poll(struct lease_leader *l, const struct consensus_view *raft,
				    const struct lease_voter *self, node_id_t me, usec_t now);

/* [loop] The barrier logged for @term is applied. */
void lease_leader_barrier(struct lease_leader *l, const struct consensus_view *raft, uint64_t term);

/* [loop] Messages. */
void lease_leader_req(struct lease_leader *l, node_id_t from, const struct peer_lease_req *req);
void lease_leader_pong(struct lease_leader *l, const struct consensus_view *raft, node_id_t from,
		       const struct peer_lease_round *pong);
void lease_leader_age(struct lease_leader *l, const struct consensus_view *raft, node_id_t from,
		      const struct peer_lease_age *age, node_id_t me, usec_t now);

/* [loop] Is a new round due? True: send PING with @ret to every voter but oneself. */
bool lease_leader_round(struct lease_leader *l, const struct consensus_view *raft, node_id_t me, usec_t now,
			struct peer_lease_round *ret);

/* [loop] A grant that can be made now; false: none. After sending it call lease_leader_granted() with a clock read
 * after that (L7). */
bool lease_leader_grant(struct lease_leader *l, const struct consensus_view *raft, node_id_t me, node_id_t *ret_to,
			struct peer_lease_grant *ret);
void lease_leader_granted(struct lease_leader *l, node_id_t to, struct lease_voter *self, usec_t fresh_now);

/* [loop] A read that must see every change acknowledged before it: take a ticket now, answer from the applied state
 * once the ticket is good, that is, once a majority confirmed this term after the read came (Raft dissertation, 6.4).
 */
uint64_t lease_leader_read(struct lease_leader *l);
bool lease_leader_read_good(const struct lease_leader *l, const struct consensus_view *raft, node_id_t me,
			    uint64_t ticket);

/* [loop] May a MOVE away from @owner be submitted in this very turn? (L8, but for what the caller knows: movable,
 * nothing in flight) */
bool lease_leader_may_take(const struct lease_leader *l, const struct consensus_view *raft, node_id_t owner,
			   usec_t now);

/* [loop] Is there a majority, of the old and the new voters, among those for which @has says so? */
bool lease_majority(const struct consensus_view *raft, bool (*has)(const void *ctx, node_id_t node), const void *ctx);

/* ---- every node that runs VMs ---- */

#define LEASE_REQUESTS 64 /* send times kept: renewals of some lease times */

struct lease_node {
	const struct timing *timing;
	uint64_t session; /* public: 64 random bits of this process (L2) */
	uint64_t num;
	struct {
		uint64_t num;
		usec_t at;
	} sent[LEASE_REQUESTS];
	node_id_t asked;
	usec_t next_at;
	bool accepted; /* public: this session has accepted a grant */
	uint64_t term; /* of the last accepted grant, and its number and index */
	uint64_t accepted_num;
	uint64_t index;
};

/* [loop] */
void lease_node_init(struct lease_node *n, const struct timing *timing, uint64_t session);

/* [loop] Is it time to ask @leader? At once when it is another than before. */
bool lease_node_due(const struct lease_node *n, node_id_t leader, usec_t now);

/* [loop] Make the request. Read the clock for @now, call this, then send: only what happened after the send is bounded
 * (L1). */
void lease_node_ask(struct lease_node *n, node_id_t leader, usec_t now, struct peer_lease_req *ret);

/* [loop] A grant came. True: accepted, and the lease now ends at @ret_deadline (L1-L3). */
bool lease_node_grant(struct lease_node *n, const struct peer_lease_grant *grant, usec_t now, usec_t *ret_deadline);

/* [loop] Does the own store know every MOVE submitted before the last grant? (L6) */
bool lease_node_knows(const struct lease_node *n, uint64_t applied);

#endif
