/* SPDX-License-Identifier: Apache-2.0
 * The frames on a link between two nodes: leases (LEASE-PROTOCOL, section 2), what a node tells the leader, forwarded
 * requests. raft's own frames are those of consensus/, with ids from PEER_RAFT_FIRST on. docs/WIRE.md lists them all.
 */
#ifndef KEDGE_PROTO_PEER_H
#define KEDGE_PROTO_PEER_H

#include "proto/engine.h"

enum peer_id {
	PEER_LEASE_REQ = 1,
	PEER_LEASE_PING,
	PEER_LEASE_PONG,
	PEER_LEASE_GRANT,
	PEER_LEASE_AGES,
	PEER_LEASE_AGE,
	PEER_STOPPED,
	PEER_NODE_INFO,
	PEER_VM_STATE, /* only inside PEER_NODE_INFO */
	PEER_FORWARD,
	PEER_ANSWER,
	PEER_ASK,
	PEER_VOLUME_VERIFY, /* leader to primary: struct engine_verify */
	PEER_FILE_ASK = 40,
	PEER_FILE_DATA,
	PEER_FILE_BAD, /* struct peer_file_ask: what you sent is not what its name says */
	PEER_WAIT,     /* only inside PEER_NODE_INFO */
	PEER_RAFT_FIRST = 64,
};

/* Node to leader: renew my lease. @session: 64 random bits of this process; @num counts up within it (L2). */
struct peer_lease_req {
	uint64_t session;
	uint64_t num;
};

/* Leader to voters, and back: are you still in @term? (L4) */
struct peer_lease_round {
	uint64_t term;
	uint64_t round;
};

/* Leader to node: granted; @index is the leader's last log index (L6). */
struct peer_lease_grant {
	uint64_t term;
	uint64_t session;
	uint64_t num;
	uint64_t index;
};

/* New leader to voters (age unused), and back: how long ago did you last confirm a leader? (L9) */
struct peer_lease_age {
	uint64_t term;
	uint64_t age;
};

/* Owner to leader: generation @gen of @vm has no process and will never have one again (L16). */
struct peer_stopped {
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
	bool failed; /* it ended by itself, or never came up: restart it with back-off */
	char reason[REASON_BYTES_MAX];
	bool elsewhere; /* it cannot be started here: rather on another node */
};

/* Owner to leader: the guard watches @vm, make it movable at @mver (L20). */
struct peer_ask {
	char vm[NAME_BYTES_MAX];
	uint64_t mver;
};

/* Node to leader, about once a second: what it is and has. */
struct peer_node_info {
	uint64_t memory_bytes;
	uint32_t cpus;
	char accel[8];
	char version[64];
	uint64_t applied; /* and @hash: the state's hash at that index, 0 when not known */
	uint64_t hash;
	bool guard_realtime;
	bool runs_vms;              /* the hypervisor module is ready */
	struct message_bin vms;     /* struct peer_vm_state, one after the other */
	bool has_engine;            /* the volume engine is there */
	uint64_t disk_free;         /* bytes for volumes */
	struct message_bin volumes; /* struct engine_status, one after the other */
	struct message_bin waits;   /* struct peer_wait, one after the other */
	bool engine_unsound;        /* it died again and again, or does not come: VMs with disks shall be elsewhere */
	char engine_version[64]; /* of the processes that run, "": not known. They outlive an upgrade of their files */
	char guard_version[64];
	char agent_version[64];
};

/* What the owner sees of an instance. */
struct peer_vm_state {
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
	char state[16]; /* starting | running | frozen | stopping | stopped */
};

/* What a VM or a volume waits for on this node, in words. */
struct peer_wait {
	char object[NAME_BYTES_MAX]; /* a VM's name, or a volume's id */
	char text[REASON_BYTES_MAX];
};

/* Send what the file @digest has at @offset: one piece, then it is asked for the next. */
struct peer_file_ask {
	char digest[DIGEST_BYTES_MAX];
	uint64_t offset;
};

struct peer_file_data {
	char digest[DIGEST_BYTES_MAX];
	uint64_t offset;
	uint64_t total;          /* bytes of the whole file */
	uint32_t error;          /* a positive errno: it cannot be read, nothing follows */
	struct message_bin data; /* at most FETCH_CHUNK_BYTES */
};

/* A request of an administrator that another node took: the leader answers with the same @id. */
struct peer_forward {
	uint64_t id;
	uint32_t role;
	char actor[NAME_BYTES_MAX];
	struct message_bin request; /* msgpack-rpc request */
};

struct peer_answer {
	uint64_t id;
	struct message_bin response;
};

extern const struct message_type peer_lease_req_type, peer_lease_ping_type, peer_lease_pong_type, peer_lease_grant_type,
	peer_lease_ages_type, peer_lease_age_type, peer_stopped_type, peer_node_info_type, peer_vm_state_type,
	peer_forward_type, peer_answer_type, peer_volume_verify_type, peer_ask_type, peer_wait_type, peer_file_ask_type,
	peer_file_data_type, peer_file_bad_type;

#endif
