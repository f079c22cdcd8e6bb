/* SPDX-License-Identifier: Apache-2.0
 * The replication of one volume on one node, as a state machine: events go in, effects come out, no clock, socket or
 * file is touched. It implements VOLUME-PROTOCOL; the numbers of its rules stand where they are kept. The engine
 * performs the effects on real disks and links, the simulator on virtual ones.
 *
 * Everything is [volume]: one thread at a time per core. Effects must not call back into the core from inside; they
 * only begin something, and its end comes as an event.
 */
#ifndef KEDGE_VOLUME_CORE_H
#define KEDGE_VOLUME_CORE_H

#include "volume/format.h"

#define VOLUME_MEMBERS_MAX 4 /* three replicas, and one that is on its way in or out */

struct volume_core;

/* ---- the store's row (section 1) ---- */

struct volume_member {
	node_id_t node;
	uint8_t replica[VOLUME_ID_BYTES];
	bool in_sync;
	uint64_t incarnation; /* the one in which it is in sync; 0: none yet */
	uint64_t reported;    /* the one that its node told last; 0: none */
	uint64_t size;        /* for which it told that its files have room; 0: not told yet */
};

struct volume_row {
	uint64_t version; /* grows with each change, also where the epoch stays */
	uint64_t size;    /* bytes; only ever grows, with the epoch, when all members in sync have room for it */
	uint64_t grow_to; /* to be made room for; 0: nothing is */
	uint32_t epoch;
	node_id_t primary;
	uint32_t primary_since;
	uint32_t fork;     /* epoch of the last FORCE, else 0 */
	uint32_t cold;     /* epoch of the last COLD, else 0 */
	uint32_t vm_epoch; /* in which the VM got its present node */
	size_t n_members;
	struct volume_member members[VOLUME_MEMBERS_MAX];
};

enum volume_change_kind { VOLUME_REMOVE, VOLUME_ADD, VOLUME_BUMP };

/* What a core asks the store for: a compare-and-set on @epoch. */
struct volume_change {
	enum volume_change_kind kind;
	uint32_t epoch;
	node_id_t node;       /* REMOVE, ADD */
	uint64_t incarnation; /* ADD */
};

/* ---- frames between replicas (section 2) ---- */

enum volume_frame_kind {
	VOLUME_F_HELLO = 1,
	VOLUME_F_WELCOME, /* the answer to HELLO */
	VOLUME_F_NACK,
	VOLUME_F_WRITE,
	VOLUME_F_ZERO,
	VOLUME_F_TRIM,
	VOLUME_F_COPY,
	VOLUME_F_FLUSH,
	VOLUME_F_CLEAR,
	VOLUME_F_ACTIVE,
	VOLUME_F_HASH,
	VOLUME_F_HASHED, /* the answer to HASH */
	VOLUME_F_ACK,
	VOLUME_F_PING,
	VOLUME_F_FETCH,   /* the data of a block, for a primary whose own copy is wrong */
	VOLUME_F_FETCHED, /* the answer to FETCH */
	VOLUME_F_INTENT,  /* copies come to this range soon: its intents can be durable by then */
};

#define VOLUME_HASH_BYTES 32
#define VOLUME_COPY_BYTES (1u << 20) /* of a copy, in whole blocks */

struct volume_frame {
	enum volume_frame_kind kind;
	struct volume_ballot ballot;
	uint64_t session;
	uint64_t seq;
	uint64_t offset; /* of the range; CLEAR: number of the extent */
	uint64_t length;
	struct volume_ballot stamp;       /* COPY */
	bool same;                        /* COPY: the data is there already; stamp and intent are still new (V20) */
	int32_t result;                   /* ACK: 0 or a negative errno */
	uint8_t replica[VOLUME_ID_BYTES]; /* HELLO, WELCOME */
	uint64_t incarnation;             /* WELCOME */
	struct volume_ballot active;      /* WELCOME */
	struct volume_ballot promised;    /* NACK */
	const uint8_t *intents;           /* WELCOME: a bit per extent, low bits first; valid during the call */
	uint32_t n_intents;               /* of these; the replica may have room for less than we, or for more */
	uint8_t hash[VOLUME_HASH_BYTES];  /* HASHED: SHA-256 of the range; zeroes: it cannot be read */
	void *data;                       /* WRITE, COPY, FETCHED: @length bytes */
};

/* ---- I/O on the local data ---- */

enum volume_io_kind { VOLUME_IO_READ, VOLUME_IO_WRITE, VOLUME_IO_ZERO, VOLUME_IO_TRIM, VOLUME_IO_SYNC, VOLUME_IO_HASH };

/* Embedded in what waits for it. WRITE: done when the data is in the kernel or the device. ZERO and TRIM leave zeroes
 * (V10). SYNC: fdatasync of everything that was done before. HASH: into @hash. */
struct volume_io {
	enum volume_io_kind kind;
	bool is_copy; /* nobody here asked for these bytes: they need not stay in a cache */
	bool hurries; /* a SYNC comes soon, most likely */
	uint64_t offset, length;
	void *data;
	uint8_t hash[VOLUME_HASH_BYTES];
	void (*done)(struct volume_core *c, struct volume_io *io, int rc); /* private */
};

/* ---- the guest's requests ---- */

enum volume_request_kind { VOLUME_READ, VOLUME_WRITE, VOLUME_ZERO, VOLUME_TRIM, VOLUME_FLUSH };

/* The caller's, until reply() or drop() gives it back. @data of a WRITE is private to it, so that every member gets the
 * same bytes (V6). */
struct volume_request {
	enum volume_request_kind kind;
	bool fua;
	uint64_t offset, length; /* within the size; not empty unless FLUSH */
	void *data;
	uint64_t client; /* its connection, not 0 */
	uint32_t epoch;  /* in which its VM or export was placed here (V32) */
	/* private */
	struct volume_request *next;
};

/* ---- what a scrub found ---- */

enum volume_verdict {
	VOLUME_WRONG,     /* the copy at @node is not what the others have: it gets their data */
	VOLUME_UNDECIDED, /* the copies differ, and nobody can tell whose is right: nothing is done */
	VOLUME_LOST,      /* no copy can be read */
};

struct volume_finding {
	enum volume_verdict verdict;
	node_id_t node;  /* WRONG */
	bool unreadable; /* WRONG: an I/O error, not other data */
	uint64_t offset, length;
};

/* ---- effects ---- */

struct volume_effects {
	void *ctx;
	/* Make the state durable as it is at the call; volume_core_state_written() with @seq. Later calls supersede. */
	void (*state_write)(void *ctx, const struct volume_state *state, uint64_t seq);
	/* The same for all intents (copied); at most one at a time. volume_core_intents_written(). */
	void (*intents_write)(void *ctx, const uint8_t *bits);
	/* Make the map of an extent durable as it is at the call; volume_core_map_written(), for one extent in order.
	 */
	void (*map_write)(void *ctx, uint32_t extent, const struct volume_ballot *stamps);
	/* volume_core_io_done(). */
	void (*io)(void *ctx, struct volume_io *io);
	/* Queue a frame on the link to @node; a broken link swallows it. Its data may be gone once this returns: copy
	 * it or take a reference. */
	void (*send)(void *ctx, node_id_t node, const struct volume_frame *f);
	/* End the link to @node; volume_core_link_down() follows or not. */
	void (*unlink)(void *ctx, node_id_t node);
	/* Ask the store; volume_core_proposed() with the outcome, the row itself comes by volume_core_row(). */
	void (*propose)(void *ctx, const struct volume_change *change);
	/* The row may be old: look (NACK). */
	void (*look)(void *ctx);
	/* A request is over: 0 or a negative errno. It is the caller's again. */
	void (*reply)(void *ctx, struct volume_request *r, int rc);
	/* A request died with its connection, or with this primary: it is the caller's again, nothing is answered
	 * (V32). */
	void (*drop)(void *ctx, struct volume_request *r);
	/* End all connections of guests, without a word (V29, V32). */
	void (*drop_clients)(void *ctx);
	/* The replica must be closed and opened in a new incarnation (V13). Nothing more comes out of this core. */
	void (*broken)(void *ctx, int rc);
	/* A buffer of @length bytes for a copy, at most VOLUME_COPY_BYTES, and back. NULL: none now, tried again later.
	 */
	void *(*buffer)(void *ctx, uint64_t length);
	void (*buffer_free)(void *ctx, void *p, uint64_t length);
	/* Are @length bytes of @data, from @at on, all zero? */
	bool (*is_zero)(void *ctx, const void *data, uint64_t at, uint64_t length);
	/* The data of a received frame, and back. */
	void (*data_free)(void *ctx, void *p);
	/* A scrub found this. */
	void (*found)(void *ctx, const struct volume_finding *f);
};

struct volume_config {
	node_id_t self;
	uint8_t replica[VOLUME_ID_BYTES];
	uint64_t size;             /* for which the files have room */
	struct volume_state state; /* as opened */
	const uint8_t *intents;    /* as opened, copied */
	/* The map as opened, one page of VOLUME_EXTENT_BLOCKS stamps per extent, copied. Where the intent is set the
	 * core replaces it (V30). */
	const struct volume_ballot *stamps;
	unsigned copies_max;  /* blocks that are being copied at a time */
	unsigned intents_cap; /* more than this many intents are cleared eagerly */
	unsigned flush_habit; /* so many flushes after a single write, or little: the next is prepared for; not 0 */
	usec_t clear_after;   /* an extent that was idle for so long is flushed and cleared */
	uint64_t copy_rate;   /* bytes per second of copies that no guest waits for, while guests write; 0: no bound */
};

/* Begin. The replica is open and its data is locked (V28). Waits for a row. */
struct volume_core *volume_core_new(const struct volume_config *config, const struct volume_effects *effects,
				    usec_t now);

/* Forget everything at once, as a crash does: buffers and the data of frames are given back, no other effect follows,
 * requests are the caller's. Returns NULL. */
struct volume_core *volume_core_free(struct volume_core *c);

/* Step down (V29) for good: requests come back, clients are dropped, local I/O ends and is told; nothing is begun any
 * more. Before volume_core_free() of a core that has guests. */
void volume_core_end(struct volume_core *c);

/* ---- events ---- */

void volume_core_row(struct volume_core *c, const struct volume_row *row);
void volume_core_proposed(struct volume_core *c, const struct volume_change *change, int rc);
/* There is a link, or the stream as primary is to begin anew on another one, by HELLO (V18). */
void volume_core_link_up(struct volume_core *c, node_id_t node);
void volume_core_link_down(struct volume_core *c, node_id_t node);
/* Would this HELLO be obeyed? Not one of an older ballot, nor one that its successor has overtaken on another link. */
bool volume_core_obeys(const struct volume_core *c, const struct volume_frame *hello);
/* A frame came; its data is the core's from here on, until data_free(). */
void volume_core_frame(struct volume_core *c, node_id_t from, const struct volume_frame *f);
void volume_core_state_written(struct volume_core *c, uint64_t seq, int rc);
void volume_core_intents_written(struct volume_core *c, int rc);
void volume_core_map_written(struct volume_core *c, uint32_t extent, int rc);
/* The files have room for @size bytes now, zeroes behind what they had; durable. */
void volume_core_grown(struct volume_core *c, uint64_t size);
void volume_core_io_done(struct volume_core *c, struct volume_io *io, int rc);
void volume_core_submit(struct volume_core *c, struct volume_request *r);
/* Its queued requests die; the running ones end without an answer (V32). */
void volume_core_client_gone(struct volume_core *c, uint64_t client);
/* V34: what was written until now has a stamp of at most the ballot that is returned, what is written later a higher
 * one. Returns 0; -EBUSY: something is under way, try again; -EPERM: not leading. @row is the store's, read
 * linearizably just now. */
int volume_core_checkpoint(struct volume_core *c, const struct volume_row *row, struct volume_ballot *ret);
/* Compare all copies from the first block to the last, beside the guest, at most @rate bytes per second (0: no bound).
 * Findings come by found(); a copy that is known to be wrong is repaired. @primary_wins: where nobody can tell, the
 * primary's copy is the right one, which is an administrator's decision. -EPERM: not leading; -EALREADY: a pass is
 * under way. It ends with the leadership. */
int volume_core_scrub(struct volume_core *c, uint64_t rate, bool primary_wins);
void volume_core_scrub_stop(struct volume_core *c);
/* At least every 50 ms. */
void volume_core_tick(struct volume_core *c, usec_t now);

/* ---- asking ---- */

enum volume_role { VOLUME_IDLE, VOLUME_STARTING, VOLUME_LEADING };

struct volume_peer_status {
	node_id_t node;
	bool in_sync, connected, known;
	uint64_t need_blocks, need_total; /* to copy, and of how many since @since */
	usec_t since;
};

struct volume_scrub_status {
	bool on;
	uint64_t block;                  /* the next one */
	uint64_t wrong, undecided, lost; /* blocks, in this pass or in the last one */
	uint64_t skipped;                /* the guest never left them alone */
	uint64_t passes;                 /* ended since the start */
};

struct volume_core_status {
	enum volume_role role;
	struct volume_ballot lead, promised, active;
	bool serves;   /* a guest's connection may stay (V4, V32) */
	unsigned join; /* 0 none, 1 copying, 2 joint, 3 synced, 4 proposed */
	node_id_t joiner;
	uint64_t need_blocks; /* to copy, over all peers */
	uint64_t intents;
	uint64_t unflushed; /* extents */
	uint64_t waiting;   /* requests that have not begun */
	uint64_t n_blocks;
	size_t n_peers; /* at the primary */
	struct volume_peer_status peers[VOLUME_MEMBERS_MAX - 1];
	struct volume_scrub_status scrub;
};

void volume_core_status(const struct volume_core *c, struct volume_core_status *ret);

/* Bytes that a guest may use: the row's, as far as there is room. */
uint64_t volume_core_size(const struct volume_core *c);

/* Two of its fields, for little. */
enum volume_role volume_core_role(const struct volume_core *c);
bool volume_core_serves(const struct volume_core *c);

/* The live stamp of a block, an intent, and whether @node needs a block; for tests and for backups. */
struct volume_ballot volume_core_stamp(const struct volume_core *c, uint64_t block);
bool volume_core_intent(const struct volume_core *c, uint32_t extent);
bool volume_core_needs(const struct volume_core *c, node_id_t node, uint64_t block);
bool volume_core_known(const struct volume_core *c, node_id_t node);
/* Is a write or copy under way there? */
bool volume_core_busy(const struct volume_core *c, uint64_t offset, uint64_t length);

#endif
