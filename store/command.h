/* SPDX-License-Identifier: Apache-2.0
 * The commands of the replicated log: a head and one or more bodies, applied in one transaction, all or nothing.
 *
 * Whatever is not deterministic (time, ids, random bits, choices) is in the entry, chosen by the leader. */
#ifndef KEDGE_STORE_COMMAND_H
#define KEDGE_STORE_COMMAND_H

#include "proto/proto.h"

enum command_id {
	COMMAND_HEAD = 1,
	COMMAND_GENESIS,
	COMMAND_NODE_ADD,
	COMMAND_TOKEN_ADD,
	COMMAND_VM_PUT,
	COMMAND_VM_DELETE,
	COMMAND_VM_WANT,
	COMMAND_VM_RESTART,
	COMMAND_MOVE,
	COMMAND_MOVABLE,
	COMMAND_WANT_MOVABLE,
	COMMAND_VOLUME_CREATE,
	COMMAND_VOLUME_CHANGE,
	COMMAND_VOLUME_REPORT,
	COMMAND_VOLUME_TAKEOVER,
	COMMAND_VOLUME_MEMBER,
	COMMAND_VOLUME_ERASED,
	COMMAND_VOLUME_SET,
	COMMAND_VOLUME_DELETE,
	COMMAND_DISK,
	COMMAND_EXPORT,
	COMMAND_NODE_FENCE,
	COMMAND_IMAGE_ADD = 40,
	COMMAND_IMAGE_RM,
	COMMAND_IMAGE_HELD,
	COMMAND_VM_FILES,
	COMMAND_VOLUME_IMAGE,
	COMMAND_VOLUME_FILLED,
	COMMAND_VOLUME_GROW = 50,
	COMMAND_VM_END = 60,
	COMMAND_NODE_ENGINE,
	COMMAND_NODE_REMOVE,
};

struct command_head {
	uint64_t session; /* of the client, 0: the leader's own decision, not deduplicated */
	uint64_t num;     /* counts up from 1 within the session */
	uint64_t wall;    /* the leader's wall clock */
	char actor[NAME_BYTES_MAX];
	uint32_t bodies;
};

/* First entry of a cluster: its identity. */
struct command_genesis {
	char cluster[40];
	char name[NAME_BYTES_MAX];
};

/* A node joins; uses up its token in the same transaction ("" only for the first node). */
struct command_node_add {
	uint32_t node; /* number, chosen by the leader: one above the highest ever used */
	char name[NAME_BYTES_MAX];
	char address[ADDRESS_BYTES_MAX];
	char zone[NAME_BYTES_MAX];
	char role[16]; /* node | witness */
	char token[40];
};

struct command_token_add {
	char id[40];
	char secret[65]; /* 256 bits in hexadecimal digits */
	char role[16];
	uint64_t expires; /* wall */
};

/* Define a VM, or change its definition (then identity stays: uuid, mac, machine are only taken for a new one). */
struct command_vm_put {
	char name[NAME_BYTES_MAX];
	uint32_t vcpus;
	uint64_t memory_bytes;
	bool run;
	char kernel[PATH_BYTES_MAX];
	char initrd[PATH_BYTES_MAX];
	char cmdline[CMDLINE_BYTES_MAX];
	uint32_t priority;
	char uuid[40];
	char machine[32];
};

/* A VM that has an owner is stopped first, and its row goes with the MOVE to nobody. */
struct command_vm_delete {
	char name[NAME_BYTES_MAX];
};

/* Start or stop; @hard: end it at once instead of asking the guest to shut down. */
struct command_vm_want {
	char name[NAME_BYTES_MAX];
	bool run;
	bool hard;
};

/* End the present instance; it starts again as a new generation. */
struct command_vm_restart {
	char name[NAME_BYTES_MAX];
	bool hard;
};

/* MOVE(vm, to, gen) of LEASE-PROTOCOL, section 1. @to 0: to nobody (the VM is stopped). */
struct command_move {
	char vm[NAME_BYTES_MAX];
	uint32_t to;
	uint64_t gen;
	bool failed; /* the instance ended by itself: counts for the back-off */
	char reason[REASON_BYTES_MAX];
	bool confirmed; /* the owner said that it stopped (L10) */
};

/* MOVABLE and UNMOVABLE(vm, mver): only at that version. */
struct command_movable {
	char vm[NAME_BYTES_MAX];
	uint64_t mver;
	bool movable;
};

/* Could another node run it? By this its owner knows that it shall be guarded (L20). */
struct command_want_movable {
	char vm[NAME_BYTES_MAX];
	bool want;
};

/* ---- volumes: VOLUME-PROTOCOL, section 1. They are named by their ids, which no other volume ever has. ---- */

/* CREATE p, others: primary first; 0 behind the last. */
struct command_volume_create {
	char id[VOLUME_NAME_ID];
	char name[NAME_BYTES_MAX];
	uint64_t size;     /* bytes */
	uint32_t replicas; /* wanted: as many as there are nodes below, or more once there are more nodes */
	uint32_t nodes[REPLICAS_MAX];
};

/* REMOVE, ADD, BUMP (enum volume_change_kind), as the engine of node @from asks. */
struct command_volume_change {
	char id[VOLUME_NAME_ID];
	uint32_t from;
	uint32_t kind;
	uint32_t epoch;
	uint32_t node;
	uint64_t incarnation;
};

/* REPORT: the engine of @node has opened @replica in this incarnation, and its files have @room for so many bytes. */
struct command_volume_report {
	char id[VOLUME_NAME_ID];
	uint32_t node;
	char replica[VOLUME_NAME_ID];
	uint64_t incarnation;
	uint64_t room;
};

enum volume_takeover_kind {
	VOLUME_TAKEOVER, /* @node is in sync */
	VOLUME_COLD,     /* every in-sync member lost power (V27), or, after COLD_WAIT, is @silent */
	VOLUME_FORCE,    /* @node is not in sync: data is lost (V31) */
};

/* For a VM's volume only in one entry with the MOVE that places it, before that. */
struct command_volume_takeover {
	char id[VOLUME_NAME_ID];
	uint32_t kind;
	uint32_t epoch;
	uint32_t node;
	bool confirmed; /* the old primary stopped, and stays in sync */
	bool silent;
	char reason[REASON_BYTES_MAX];
};

/* MEMBER +x or -x. What leaves stays in the row until its files are erased. */
struct command_volume_member {
	char id[VOLUME_NAME_ID];
	uint32_t node;
	bool add;
	char reason[REASON_BYTES_MAX];
};

struct command_volume_erased {
	char id[VOLUME_NAME_ID];
	uint32_t node;
};

/* How many replicas are wanted, and, if @has_nodes, on which nodes some of them or all; 0 behind the last. */
struct command_volume_set {
	char name[NAME_BYTES_MAX];
	uint32_t replicas;
	bool has_nodes;
	uint32_t nodes[REPLICAS_MAX];
};

/* GROW: @size bytes, more than it has, once all that are in sync have room for them. It never shrinks. */
struct command_volume_grow {
	char name[NAME_BYTES_MAX];
	uint64_t size;
};

/* Not while a VM has it, or it is exported. */
struct command_volume_delete {
	char name[NAME_BYTES_MAX];
};

/* @volume becomes disk number @disk of @vm; @vm "": it is nobody's any more. */
struct command_disk {
	char volume[NAME_BYTES_MAX];
	char vm[NAME_BYTES_MAX];
	uint32_t disk;
	char from[NAME_BYTES_MAX]; /* whose it is, as whoever asks saw it */
};

/* Serve @volume without a VM on @node; 0: not any more. It is a placement like a VM's (L23). */
struct command_export {
	char volume[NAME_BYTES_MAX];
	uint32_t node;
};

/* End the instance of generation @gen at once; it starts again where it can. */
struct command_vm_end {
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
	char reason[REASON_BYTES_MAX];
};

/* The volume engine of @node became unsound, or sound again: an event only. */
struct command_node_engine {
	uint32_t node;
	bool unsound;
};

/* The node is no member any more, and never will be under this number: its replicas leave all rows, what it held is
 * forgotten. Refused while a VM is placed on it, or it is needed for the data of a volume. */
struct command_node_remove {
	char name[NAME_BYTES_MAX];
};

/* An administrator says that the node is off and stays off: its VMs are nobody's, as if it had confirmed their end
 * (L10, for the generations that are current when this is applied). */
struct command_node_fence {
	char name[NAME_BYTES_MAX];
};

/* ---- images, and other files that every node may need; a file is named by the SHA-256 of what is in it ---- */

/* @node holds it. A name is given once. */
struct command_image_add {
	char name[NAME_BYTES_MAX];
	char digest[DIGEST_BYTES_MAX];
	uint64_t bytes;  /* of the file */
	uint64_t size;   /* of the disk in it */
	char format[8];  /* raw | qcow2 */
	uint32_t copies; /* wanted */
	uint32_t node;
};

/* Not while a volume is being filled from it. */
struct command_image_rm {
	char name[NAME_BYTES_MAX];
};

/* @node has the file now, or not any more. @unused: only while nothing refers to it, so that a file never goes while it
 * is being taken into use. */
struct command_image_held {
	char digest[DIGEST_BYTES_MAX];
	uint32_t node;
	bool held;
	bool unused;
};

/* The files of a VM, all of them anew: behind its COMMAND_VM_PUT. "": none. */
struct command_vm_files {
	char vm[NAME_BYTES_MAX];
	char kernel[DIGEST_BYTES_MAX];
	char initrd[DIGEST_BYTES_MAX];
	struct message_bin user_data; /* for cloud-init; texts */
	struct message_bin meta_data;
};

/* Behind COMMAND_VOLUME_CREATE, in the same entry: nobody uses the volume until it is filled from @image. */
struct command_volume_image {
	char id[VOLUME_NAME_ID];
	char image[NAME_BYTES_MAX];
};

/* It is, by the node that leads it since epoch @primary_since: after a change of the primary it begins anew. */
struct command_volume_filled {
	char id[VOLUME_NAME_ID];
	uint32_t primary_since;
};

extern const struct message_type command_head_type, command_genesis_type, command_node_add_type, command_token_add_type,
	command_vm_put_type, command_vm_delete_type, command_vm_want_type, command_vm_restart_type, command_move_type,
	command_movable_type, command_want_movable_type, command_volume_create_type, command_volume_change_type,
	command_volume_report_type, command_volume_takeover_type, command_volume_member_type,
	command_volume_erased_type, command_volume_set_type, command_volume_delete_type, command_disk_type,
	command_export_type, command_node_fence_type, command_image_add_type, command_image_rm_type,
	command_image_held_type, command_vm_files_type, command_volume_image_type, command_volume_filled_type,
	command_volume_grow_type, command_vm_end_type, command_node_engine_type, command_node_remove_type;

/* [any] Start an entry: encode @head (bodies must be right) into @ret; append the bodies by message_encode(). */
void command_begin(const struct command_head *head, struct buf *ret);

#endif
