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
};

extern const struct message_type command_head_type, command_genesis_type, command_node_add_type, command_token_add_type,
	command_vm_put_type, command_vm_delete_type, command_vm_want_type, command_vm_restart_type, command_move_type;

/* [any] Start an entry: encode @head (bodies must be right) into @ret; append the bodies by message_encode(). */
void command_begin(const struct command_head *head, struct buf *ret);

#endif
