/* SPDX-License-Identifier: Apache-2.0
 * Agreement: a log of commands that a majority of voters keeps, applied to the store in the same order everywhere
 * (Raft, Ongaro 2014, by libraft), and the leases that rest on it (consensus/lease.h). No raft type shows here.
 *
 * Everything is [loop]. consensus_step() is called at least once per turn of the loop: it completes what the turn
 * began, commits what was applied, and only then calls back.
 */
#ifndef KEDGE_CONSENSUS_CONSENSUS_H
#define KEDGE_CONSENSUS_CONSENSUS_H

#include "consensus/lease.h"
#include "store/store.h"

struct consensus;
struct uv_loop_s;

struct consensus_config {
	node_id_t self;
	const char *address; /* of this node, as the others know it */
	const struct timing *timing;
	struct store *store;
	const char *dir; /* of the log; must exist */
	struct uv_loop_s *loop;
};

struct consensus_callbacks {
	void *ctx;
	/* Queue one frame on the link to @to: 0, or -EAGAIN, -ENOTCONN. Must not call back into consensus. */
	int (*send)(void *ctx, node_id_t to, const void *p, size_t n);
	/* The log can no longer be written (full or failing disk): the process must end (P7). Must not return. */
	void (*fatal)(void *ctx, const char *why);
};

enum consensus_role { CONSENSUS_NONE, CONSENSUS_SPARE, CONSENSUS_STANDBY, CONSENSUS_VOTER };

struct consensus_member {
	node_id_t node;
	enum consensus_role role;
	bool was_voter; /* in the committed configuration, which counts too while a change is uncommitted */
};

/* Read at the call: raft may have moved on within this very turn. */
struct consensus_view {
	uint64_t term;
	bool is_leader;
	node_id_t leader;    /* 0: unknown */
	uint64_t last_index; /* uncommitted entries included */
	uint64_t commit;
	uint64_t applied;
	bool changing; /* a change of members is uncommitted */
	size_t n_members;
	struct consensus_member members[NODES_MAX];
};

/* @status: 0: applied and committed, @result says how it went. PROTO_E_UNKNOWN_OUTCOME: leadership was lost; it may or
 * may not be applied later. PROTO_E_NO_LEADER: it was not logged. */
typedef void (*consensus_done)(void *ctx, int status, const struct store_result *result);

/* Open the log in config->dir. Nothing runs yet. -EUCLEAN: the log is damaged: wipe the node and join again. */
int consensus_open(const struct consensus_config *config, const struct consensus_callbacks *cb, struct consensus **ret,
		   struct err *e) KEDGE_MUST_CHECK;

/* Make this node the only voter of a new cluster. Before consensus_start(), on a pristine log only: -EEXIST else. */
int consensus_bootstrap(struct consensus *c, struct err *e) KEDGE_MUST_CHECK;

/* Load the log, bring the store to it, take part. */
int consensus_start(struct consensus *c, struct err *e) KEDGE_MUST_CHECK;

/* A frame with an id from PEER_RAFT_FIRST on came from @from. -EBADMSG: not one of ours (close the link). */
int consensus_receive(struct consensus *c, node_id_t from, const uint8_t *p, size_t n) KEDGE_MUST_CHECK;

/* The link to @node broke: what was being sent there in pieces is given up. */
void consensus_link_down(struct consensus *c, node_id_t node);

/* Once per turn, see above. */
void consensus_step(struct consensus *c);

/* Log @entry (copied). Returns 0 and calls @done later, never from inside; or -EAGAIN: too much in flight,
 * PROTO_E_NO_LEADER: not the leader, and @done is not called. */
int consensus_propose(struct consensus *c, const void *entry, size_t n, consensus_done done,
		      void *ctx) KEDGE_MUST_CHECK;

/* Log an entry of this term without content; @done(status 0) once it is applied (L5). Errors as above. */
int consensus_barrier(struct consensus *c, consensus_done done, void *ctx) KEDGE_MUST_CHECK;

/* All zero before consensus_start() and after consensus_close(). */
void consensus_view(struct consensus *c, struct consensus_view *ret);

/* As leader, start at most one change of members towards: every node of @nodes is a member, @voters_max of those that
 * @is_up says are voters; a number up to @node_max that is not among them was removed, and is no member. Returns true
 * when a change was started or is under way. */
bool consensus_members_step(struct consensus *c, const struct store_node *nodes, size_t n, node_id_t node_max,
			    unsigned voters_max, bool (*is_up)(void *ctx, node_id_t node), void *ctx);

/* Take a snapshot of the state now; for tests. */
void consensus_set_snapshot_threshold(struct consensus *c, unsigned entries, unsigned trailing);

/* Stop; @cb(ctx) when all is closed and @c is freed. Not from inside a callback of consensus. */
void consensus_close(struct consensus *c, void (*cb)(void *ctx), void *ctx);

#endif
