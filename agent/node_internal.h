/* SPDX-License-Identifier: Apache-2.0
 * What the node's files share. */
#ifndef KEDGE_AGENT_NODE_INTERNAL_H
#define KEDGE_AGENT_NODE_INTERNAL_H

#include "agent/node.h"

#define MOVES_PER_STEP 8                   /* a start-rate limit: a dead node's VMs do not start all at once */
#define STOPPED_EVERY  (300 * USEC_PER_MS) /* a lost STOPPED is sent again */
#define INFO_EVERY     (1000 * USEC_PER_MS)
#define SHUTDOWN_WAIT  (30 * USEC_PER_SEC) /* a guest that ignores its power button is ended then */
#define PRESS_EVERY    (3 * USEC_PER_SEC)
#define PLAN_EVERY     (10 * USEC_PER_MS)
#define LEASE_FRESH    (USEC_PER_SEC) /* a node granted within this can take VMs */

/* One instance of a VM on this node: a generation, and where it stands. */
enum instance_state {
	INSTANCE_SAVING,   /* `started` is being saved; no process yet */
	INSTANCE_STARTING, /* the hypervisor creates it */
	INSTANCE_WATCHED,  /* it has a process and a slot: the guard holds it or lets it run */
	INSTANCE_ENDED,    /* no process: STOPPED is told until the generation changes */
	INSTANCE_STATES,
};

struct instance {
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
	enum instance_state state;
	uint64_t save_seq;
	bool no_start; /* only `started` is saved: a generation that shall not run is given back */
	size_t slot;
	int32_t pid;
	bool resumed;  /* `cont` was given */
	bool shutdown; /* the power button was pressed; end it at @end_by */
	usec_t end_by, next_press;
	bool killed;
	bool asked_to_end;
	usec_t next_stopped;
	char reason[REASON_BYTES_MAX];
	char told[16]; /* state last told to the leader */
};

struct started {
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
};

/* The leader's memory about a VM, for one term. */
struct leader_vm {
	char name[NAME_BYTES_MAX];
	uint64_t busy; /* number of the command in flight, 0: none */
	uint64_t stopped_gen;
	bool failed;
	usec_t not_before;
	uint64_t not_before_gen;
};

struct leader_node {
	usec_t info_at; /* 0: never */
	struct peer_node_info info;
	struct buf vms;
	uint64_t session; /* of its last request */
};

struct node {
	struct node_config config;
	struct node_env env;
	struct lease_voter voter;
	struct lease_leader leader;
	struct lease_node lease;

	/* the applied state, read again when it changed */
	uint64_t changes;
	size_t n_vms, n_nodes;
	struct store_vm *vms;
	struct store_node *nodes;

	struct instance *instances;
	size_t n_instances, cap_instances;
	struct started *started;
	size_t n_started, cap_started;
	uint64_t save_seq;  /* of the last change of `started` */
	uint64_t saved_seq; /* durable up to here */
	bool saving;
	uint64_t saving_seq;

	usec_t raise_to;  /* a deadline accepted while the old one was past: raised once all are held (L11); 0: none */
	usec_t frozen_at; /* deadline for which the agent itself froze (L18) */

	struct peer_node_info info;
	usec_t next_info;
	node_id_t info_told_to;

	struct leader_vm *leader_vms; /* one per VM, in the order of vms */
	usec_t next_plan;
	uint64_t busy_count;
	struct leader_node leader_nodes[NODES_MAX + 1];
	usec_t next_members;
};

/* node.c */
void node_send(struct node *n, node_id_t to, const struct message_type *type, const void *msg);
const struct store_vm *node_find_vm(const struct node *n, const char *name);

/* node_lease.c */
void node_lease_step(struct node *n, const struct consensus_view *raft);
void node_lease_granted(struct node *n, const struct peer_lease_grant *grant);

/* node_instance.c */
void node_instances_step(struct node *n, const struct consensus_view *raft);
struct instance *node_instance(struct node *n, const char *vm);
void node_instance_state(const struct node *n, const struct instance *i, char ret[16]);

/* node_leader.c */
void node_leader_refresh(struct node *n, struct leader_vm *old, size_t n_old);
void node_leader_step(struct node *n, const struct consensus_view *raft);
bool node_leader_receive(struct node *n, node_id_t from, uint32_t id, const uint8_t *p, size_t len);

#endif
