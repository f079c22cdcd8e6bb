/* SPDX-License-Identifier: Apache-2.0
 * The cluster's state: SQLite tables, changed only by applying log entries, the same on every node.
 *
 * One store belongs to one thread. Any I/O error, full disk or corruption ends the process: the log brings the state
 * back (P7). A refused command is a result, not an error. */
#ifndef KEDGE_STORE_STORE_H
#define KEDGE_STORE_STORE_H

#include "store/command.h"

struct store;

/* What applying a command gave; kept for the session's retries. */
struct store_result {
	int code; /* 0 or a PROTO_E_* */
	char text[REASON_BYTES_MAX];
};

struct store_node {
	uint32_t node;
	char name[NAME_BYTES_MAX];
	char address[ADDRESS_BYTES_MAX];
	char zone[NAME_BYTES_MAX];
	char role[16];
};

/* A VM and its placement. */
struct store_vm {
	struct command_vm_put spec; /* run: what the administrator wants */
	char mac[18];
	uint32_t owner; /* 0: none */
	uint64_t gen;
	bool movable;
	uint64_t mver;
	bool want_movable; /* could another node run it? */
	uint64_t end_gen;  /* instances up to this generation shall end */
	bool end_hard;
	uint32_t fails; /* ends in a row that nobody asked for; one that ran for STORE_STABLE before begins a new row */
	uint64_t since; /* wall time of the placement */
	char reason[REASON_BYTES_MAX];
	bool deleting;  /* the row goes when it is stopped */
	bool confirmed; /* the owner before had said that it stopped (L10) */
	/* An export: a volume that is served without a VM (L23). It has a placement and no process. */
	bool is_export;
	uint32_t node; /* that shall serve it */
	/* What its kernel and initrd hold; "": they are the files at spec's paths, as each node has them. */
	char kernel_digest[DIGEST_BYTES_MAX];
	char initrd_digest[DIGEST_BYTES_MAX];
	bool has_seed; /* user-data or meta-data for cloud-init: store_vm_seed() */
};

/* Names of exports among the VMs: no VM's name has a colon. */
#define STORE_EXPORT "export:"

struct store_replica {
	uint32_t node;
	char replica[VOLUME_NAME_ID]; /* "": not known yet */
	bool in_sync;
	uint64_t incarnation; /* in which it is in sync; 0: none yet */
	uint64_t reported;    /* that its node told last; 0: none */
	bool lost;            /* in sync by name only: its files are others now (V25) */
	bool leaving;         /* no member any more: its files are to be erased */
	uint64_t room;        /* bytes of the volume for which its node told that its files have room; 0: not told */
};

/* A row of VOLUME-PROTOCOL, section 1, and what an administrator said of it. */
struct store_volume {
	char id[VOLUME_NAME_ID];
	char name[NAME_BYTES_MAX];
	uint64_t size;
	uint64_t grow_to;  /* its size as soon as all that are in sync have room for that; 0: it does not grow */
	uint32_t replicas; /* wanted */
	uint32_t nodes[REPLICAS_MAX]; /* that shall have one of them, as an administrator named them; 0 behind the last
				       */
	char vm[NAME_BYTES_MAX];      /* whose disk it is, or its export; "": nobody's */
	uint32_t disk;                /* its number there */
	uint64_t version;             /* grows with each change of the row */
	uint32_t epoch;
	uint32_t primary;
	uint32_t primary_since;
	uint32_t fork, cold, vm_epoch;
	bool deleting;
	uint64_t degraded; /* wall time since when fewer replicas than wanted are in sync; 0: they all are */
	size_t n_members;
	struct store_replica members[ENGINE_REPLICAS_MAX];
	char image[NAME_BYTES_MAX]; /* it was made from, or is being filled from; "": none */
	char digest[DIGEST_BYTES_MAX];
	char format[8];
	bool filling; /* nobody may use it yet */
};

struct store_image {
	char name[NAME_BYTES_MAX];
	char digest[DIGEST_BYTES_MAX];
	uint64_t bytes; /* of the file */
	uint64_t size;  /* of the disk in it */
	char format[8];
	uint32_t copies; /* wanted */
	uint64_t created;
};

/* A file that something refers to. */
struct store_file {
	char digest[DIGEST_BYTES_MAX];
	uint32_t copies; /* wanted; NODES_MAX: on every node */
};

struct store_event {
	uint64_t id;
	uint64_t wall;
	char kind[32];
	char object[NAME_BYTES_MAX];
	char text[REASON_BYTES_MAX];
};

struct store_cluster {
	char cluster[40]; /* "" before the genesis entry */
	char name[NAME_BYTES_MAX];
	uint32_t node_max;  /* highest node number ever used */
	uint64_t wall;      /* latest time that an entry carried */
	uint64_t event_max; /* highest id of an event */
	uint64_t gen_max;   /* highest generation that was ever drawn */
};

/* [any] NULL: none there. */
const struct store_replica *store_volume_on(const struct store_volume *v, uint32_t node);

/* [any] In sync, and what its node reported last is what was in sync: it lost nothing. */
bool store_replica_is_good(const struct store_replica *r);

/* [any] In sync by the row, but its node has reported a power loss since (V25). */
bool store_replica_lost_power(const struct store_replica *r);

/* [loop] Open or create the state in the file @path, or in memory for ":memory:". */
int store_open(const char *path, struct store **ret, struct err *e) KEDGE_MUST_CHECK;

/* [loop] NULL is allowed; returns NULL. Commits first. */
struct store *store_close(struct store *s);

/* [loop] Apply the entry at @index: once, also when it is delivered again. The transaction stays open until
 * store_commit(). @ret is filled in; for an entry that was applied before, with what is still known. */
void store_apply(struct store *s, uint64_t index, const void *entry, size_t n, struct store_result *ret);

#define STORE_STABLE (600 * USEC_PER_SEC)

/* [any] How many ends in a row are these, if @vm ends by itself at @wall? */
uint32_t store_fails_next(const struct store_vm *vm, usec_t wall);

/* [loop] Commit what was applied since the last time. Nothing may be acted on before. */
void store_commit(struct store *s);

/* [loop] Index of the last entry applied. */
uint64_t store_applied(const struct store *s);

/* [loop] Counts up with each entry that changed anything; equal numbers mean an equal view. */
uint64_t store_changes(const struct store *s);

/* [loop] Hash over every row of every table, equal on nodes with the same state at the same index. */
uint64_t store_hash(struct store *s);

/* [loop] The whole state as an image, malloc()ed. Commits first. */
void store_snapshot(struct store *s, void **ret, size_t *ret_n);

/* [loop] Replace the whole state by an image. -EBADMSG, and nothing changed, when it is not one. */
int store_restore(struct store *s, const void *p, size_t n) KEDGE_MUST_CHECK;

/* [loop] Look whether @image is of this store's cluster, and which index it holds. -EBADMSG when it is no image. */
int store_image_index(const void *p, size_t n, char ret_cluster[40], uint64_t *ret_index) KEDGE_MUST_CHECK;

/* [worker] Move the write-ahead log into the database file, through an own connection. */
int store_checkpoint(const char *path) KEDGE_MUST_CHECK;

/* [loop] Queries. The list functions return the number of rows written, at most @max, in a fixed order. */
void store_cluster(struct store *s, struct store_cluster *ret);
size_t store_nodes(struct store *s, struct store_node *ret, size_t max);
bool store_node(struct store *s, uint32_t node, struct store_node *ret);
size_t store_vms(struct store *s, struct store_vm *ret, size_t max);
bool store_vm(struct store *s, const char *name, struct store_vm *ret);
/* Those of one VM follow each other, in the order of their numbers; the VMs are in the order of their names. */
size_t store_volumes(struct store *s, struct store_volume *ret, size_t max);
bool store_volume(struct store *s, const char *name, struct store_volume *ret);
bool store_volume_by_id(struct store *s, const char *id, struct store_volume *ret);
size_t store_images(struct store *s, struct store_image *ret, size_t max);
bool store_image(struct store *s, const char *name, struct store_image *ret);
/* Every file that is in use, by digest. */
size_t store_files(struct store *s, struct store_file *ret, size_t max);
/* The nodes that hold @digest, a bit each: 1 << (node - 1). */
uint64_t store_holders(struct store *s, const char *digest);
/* The files that @node holds. */
size_t store_held_by(struct store *s, uint32_t node, struct store_file *ret, size_t max);
/* Append what cloud-init shall get; false: there is no such VM, or nothing. */
bool store_vm_seed(struct store *s, const char *vm, struct buf *ret_user_data, struct buf *ret_meta_data);
/* A token that can be used at @wall: not used, not expired. */
bool store_token(struct store *s, const char *id, uint64_t wall, struct command_token_add *ret);
/* Events with an id above @after, oldest first. */
size_t store_events(struct store *s, uint64_t after, struct store_event *ret, size_t max);

#endif
