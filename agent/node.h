/* SPDX-License-Identifier: Apache-2.0
 * What a node decides: when it asks for its lease, what it starts, thaws, freezes, ends, and, as leader, who gets which
 * lease and which VM moves. The rules are LEASE-PROTOCOL's; their numbers stand beside the code.
 *
 * It decides and does nothing itself: every effect goes through struct node_env, every event comes in by a call. So the
 * same code runs in kedged and in the simulator. Everything is [loop]; effects never call back from inside.
 */
#ifndef KEDGE_AGENT_NODE_H
#define KEDGE_AGENT_NODE_H

#include "consensus/consensus.h"
#include "scheduler/scheduler.h"

struct node;

struct node_env {
	void *ctx;
	usec_t (*now)(void *ctx); /* boottime, read now */
	usec_t (*wall)(void *ctx);
	/* One frame to another node; may be lost. */
	void (*send)(void *ctx, node_id_t to, const void *p, size_t n);
	bool (*is_up)(void *ctx, node_id_t node); /* is there a link? */

	/* The guard: watch the process of @slot (SIGSTOP at once), forget it, look at the page. */
	void (*guard_watch)(void *ctx, size_t slot);
	void (*guard_drop)(void *ctx, size_t slot);
	void (*guard_kick)(void *ctx);
	/* SIGSTOP by the agent itself: only while the guard is gone (L18). */
	void (*freeze)(void *ctx, size_t slot);

	/* Save node_started() durably, then call node_started_saved(@seq). One at a time. */
	void (*started_save)(void *ctx, uint64_t seq);

	/* Create paused; then node_vm_started() or node_vm_ended(). */
	void (*vm_start)(void *ctx, const struct store_vm *vm);
	void (*vm_resume)(void *ctx, const char *vm, uint64_t gen);
	void (*vm_shutdown)(void *ctx, const char *vm, uint64_t gen);
	/* SIGKILL; node_vm_ended() follows when the process is gone. */
	void (*vm_kill)(void *ctx, const char *vm, uint64_t gen);
	/* May @vm's QEMU be created: does the engine here serve all of its disks, are its files here? */
	bool (*disks_serve)(void *ctx, const struct store_vm *vm);
	/* When a file that @vm's start needs last came nearer; 0: all are here. May be NULL: they always are. */
	usec_t (*files_progress)(void *ctx, const struct store_vm *vm);
	/* The process is gone and everybody knows. */
	void (*vm_forget)(void *ctx, const char *vm, uint64_t gen);
};

struct node_config {
	node_id_t self;
	const struct timing *timing;
	struct store *store;
	struct consensus *consensus;
	struct guard_page *page;
	uint64_t session; /* random_u64(), new for each process (L2) */
	unsigned voters_max;
	usec_t replace_after; /* a node that is silent for so long has its replicas placed anew; 0: never */
};

struct node *node_new(const struct node_config *config, const struct node_env *env);
/* NULL is allowed; returns NULL. */
struct node *node_free(struct node *n);

/* Before the first step: what the file `started` says, and what runs already (L17). */
void node_started_load(struct node *n, const char *vm, uint64_t gen);
void node_adopt(struct node *n, size_t slot, int32_t pid);
/* What the page says of exports; after the VMs. */
void node_adopt_exports(struct node *n);

/* A frame with an id below PEER_RAFT_FIRST; true when it was one of the node's. @from may be the node itself. */
bool node_receive(struct node *n, node_id_t from, const uint8_t *p, size_t len);

/* Events. */
void node_started_saved(struct node *n, uint64_t seq);
void node_vm_started(struct node *n, const char *vm, uint64_t gen, int32_t pid, uint64_t start_time);
/* No process of this generation exists and none will: it is gone, or its start failed. */
void node_vm_ended(struct node *n, const char *vm, uint64_t gen, const char *reason);

/* What this node has; told to the leader about once a second. @vms and @volumes of @info are ignored. */
void node_set_info(struct node *n, const struct peer_node_info *info);
/* What its engine says of the volumes here: struct engine_status, one after the other; copied. */
void node_set_volumes(struct node *n, const void *p, size_t len);

/* What VMs and volumes wait for here: struct peer_wait, one after the other; copied. */
void node_set_waits(struct node *n, const void *p, size_t len);

/* Once per turn, after consensus_step(). */
void node_step(struct node *n);

/* The highest generation begun per VM, for the file. Returns false past the end. */
bool node_started(const struct node *n, size_t i, const char **ret_vm, uint64_t *ret_gen);

/* ---- asking ---- */

/* May this node take changes and answer reads? (leader, own term's barrier applied) */
bool node_leads(const struct node *n);

/* A linearizable read: begin, then poll each turn. */
struct node_read {
	uint64_t term;
	uint64_t round;
	uint64_t index;
};
enum node_read_state { NODE_READ_WAIT, NODE_READ_READY, NODE_READ_LOST };
bool node_read_begin(struct node *n, struct node_read *ret); /* false: not the leader */
enum node_read_state node_read_poll(struct node *n, const struct node_read *read);

/* As seen by the leader; on other nodes what they can know. */
struct node_peer_status {
	bool heard;                 /* info is there */
	bool lease;                 /* its lease is fresh */
	usec_t silent;              /* since the last grant, or since this term began; USEC_INFINITY: not the leader */
	struct peer_node_info info; /* vms: valid until the next frame from that node */
};
void node_peer_status(struct node *n, node_id_t peer, struct node_peer_status *ret);

/* The volumes as applied, those of one VM together; valid until the next node_step(). */
const struct store_volume *node_volumes(const struct node *n, size_t *ret_n);
/* The disks of @row, in their order. */
const struct store_volume *node_disks(const struct node *n, const struct store_vm *row, size_t *ret_n);
/* What the node that leads @v told last about it; false: nothing. @ret->peers is valid until the next frame. */
bool node_volume_status(const struct node *n, const struct store_volume *v, struct engine_status *ret);
/* What @node told last that @object (a VM's name, a volume's id) waits for there; "": nothing. */
void node_wait(const struct node *n, node_id_t node, const char *object, char ret[REASON_BYTES_MAX]);
/* What @v waits for, in one line; "" when all is well. */
void node_volume_problem(struct node *n, const struct store_volume *v, char ret[REASON_BYTES_MAX]);

/* State of @vm in the words of `vm ls`, and why it waits ("" when it does not). */
void node_vm_status(struct node *n, const struct store_vm *vm, char ret_state[16], char ret_reason[REASON_BYTES_MAX]);

/* Of this node itself. */
bool node_lease_valid(const struct node *n);
/* L6: is the applied state no older than the last grant that this process got? */
bool node_knows(const struct node *n);
bool node_guard_lives(const struct node *n);
size_t node_instances(const struct node *n);

#endif
