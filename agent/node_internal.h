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
/* A file of which nothing came for so long: another node may have it. */
#define FILES_WAIT  (30 * USEC_PER_SEC)
#define LEASE_FRESH (USEC_PER_SEC) /* a node granted within this can take VMs */

/* One instance of a VM on this node: a generation, and where it stands. */
enum instance_state {
	INSTANCE_SAVING,   /* `started` is being saved; no process yet */
	INSTANCE_STARTING, /* the hypervisor creates it */
	INSTANCE_WATCHED,  /* it has a process and a slot: the guard holds it or lets it run */
	INSTANCE_EXPORTED, /* an export: it has a slot that the engine reads */
	INSTANCE_ENDED,    /* no process: STOPPED is told until the generation changes */
	INSTANCE_STATES,
};

struct instance {
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
	enum instance_state state;
	uint64_t save_seq;
	usec_t files_wanted_at; /* INSTANCE_SAVING: since when only files are missing; 0: they are not */
	bool elsewhere;         /* it cannot be started here */
	bool no_start;          /* only `started` is saved: a generation that shall not run is given back */
	size_t slot;
	int32_t pid;
	bool resumed;  /* `cont` was given */
	bool shutdown; /* the power button was pressed; end it at @end_by */
	usec_t end_by, next_press;
	bool killed;
	usec_t guarded_at, next_ask; /* L20: since when the guard shall watch it */
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
	bool failed, elsewhere;
	usec_t not_before;
	uint64_t not_before_gen;
};

/* And about a volume. */
struct leader_volume {
	char id[VOLUME_NAME_ID];
	uint64_t busy;
	usec_t silent_since; /* since when only silent replicas keep it from serving; 0: not so */
};

struct leader_node {
	usec_t info_at; /* 0: never */
	struct peer_node_info info;
	struct buf vms, volumes, waits;
	usec_t silent_since; /* 0: its lease is fresh */
	uint32_t replicas;
	uint64_t session;            /* of its last request */
	bool was_sound, was_unsound; /* its engine, as this leader heard it last; neither: not heard yet */
};

/* Disks of one VM among the volumes. */
struct disk_range {
	size_t first, n;
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
	node_id_t node_max; /* the highest number that a node ever had */
	struct store_vm *vms;
	struct store_node *nodes;

	size_t n_volumes;
	struct store_volume *volumes;
	struct disk_range *disks; /* one per VM, in the order of vms */
	struct scheduler_disk *disk_views;

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
	struct buf volumes_told, waits_told;
	usec_t next_info;
	node_id_t info_told_to;

	struct leader_vm *leader_vms;         /* one per VM, in the order of vms */
	struct leader_volume *leader_volumes; /* one per volume, in the order of their ids */
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

/* node_started.c */
/* 0: none. */
uint64_t node_started_gen(const struct node *n, const char *vm);
/* Saves what is not durable yet, without what cannot matter any more. */
void node_started_step(struct node *n);

/* node_volume.c */
void node_volumes_refresh(struct node *n);
void node_volumes_gained(struct node *n);
/* Is the disk of an instance here good for nothing any more (V13)? */
bool node_disk_is_lost(const struct node *n, const struct store_vm *row);
/* Fill n->disk_views; @view needs now and nodes only. */
void node_disks_view(struct node *n, const struct scheduler_view *view);
void node_disks_of(const struct node *n, const struct store_vm *row, struct scheduler_vm *ret);
/* "its disk 'till.root' is being filled from image 'x': 12 %"; false: none is. */
bool node_explain_filling(const struct node *n, const struct store_vm *row, char ret[REASON_BYTES_MAX]);
/* The takeovers of @row's disks by @to, as bodies of the entry that moves it. Returns their number. */
uint32_t node_takeovers(const struct node *n, const struct store_vm *row, node_id_t to, bool confirmed,
			const char *reason, struct buf *entry);
/* The bug `splitmove`: in an entry of their own. */
void node_takeovers_alone(struct node *n, const struct store_vm *row, node_id_t to, bool confirmed);
/* Volumes that nobody uses. */
void node_volumes_step(struct node *n, const struct consensus_view *raft, const struct scheduler_view *view);

/* node_export.c */
bool node_export_begin(struct node *n, struct instance *i);
void node_export_end(struct node *n, struct instance *i);
void node_export_order(struct node *n, const struct instance *i, usec_t valid_until);
bool node_export_is_ordered(const struct node *n, const struct instance *i);

/* node_movable.c */
void node_movable_step(struct node *n, struct instance *i, const struct store_vm *row,
		       const struct consensus_view *raft);
void node_movable_receive(struct node *n, node_id_t from, const struct peer_ask *ask);
/* L21 and what the owners shall know; @vms as the scheduler saw them. */
void node_movable_plan(struct node *n, const struct scheduler_view *view);

/* node_unsound.c */
/* Who leaves a node whose engine cannot be relied on; what became of the engines is kept as an event. */
void node_unsound_step(struct node *n, const struct scheduler_view *view, bool has_moved);

/* node_leader.c */
/* Propose @entry, which holds the one command for @row that is in flight. Takes @entry. */
void node_leader_propose(struct node *n, const struct store_vm *row, struct buf *entry);
bool node_lease_is_fresh(const struct node *n, node_id_t node);
void node_leader_refresh(struct node *n, struct leader_vm *old, size_t n_old);
void node_leader_step(struct node *n, const struct consensus_view *raft);
bool node_leader_receive(struct node *n, node_id_t from, uint32_t id, const uint8_t *p, size_t len);

#endif
