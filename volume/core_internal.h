/* SPDX-License-Identifier: Apache-2.0
 * What the files of the core share. Conditions are levels, not edges: an event changes a field, and core_step() looks
 * what can go on now. */
#ifndef KEDGE_VOLUME_CORE_INTERNAL_H
#define KEDGE_VOLUME_CORE_INTERNAL_H

#include "volume/core.h"

#define PEERS_MAX     (VOLUME_MEMBERS_MAX - 1)
#define REPLICA_PING  (100 * USEC_PER_MS)
#define REPLICA_LOST  (400 * USEC_PER_MS)
#define REPLICA_SLOW  (5 * USEC_PER_SEC)
#define PROPOSE_AGAIN (300 * USEC_PER_MS)
#define WRITE_AGAIN   (USEC_PER_SEC)
#define CLEAR_EVERY   (50 * USEC_PER_MS)

/* ---- what is under way ---- */

enum op_kind { OP_READ, OP_WRITE, OP_COPY };
enum op_step { OP_INTENT, OP_IO, OP_HASH, OP_ACKS, OP_FETCH };

/* A request that has begun, or a copy: it holds its range until it ends. */
struct op {
	struct op *next;
	enum op_kind kind;
	enum op_step step;
	struct volume_request *req; /* NULL: a copy */
	bool orphan;                /* its connection is gone: nobody is told */
	bool cancelled;             /* a copy of an earlier ballot whose I/O still runs */
	uint64_t offset, length;
	uint64_t seq;
	usec_t since;
	bool local;      /* done here */
	uint8_t sent;    /* to these peers, in their present session */
	uint8_t acked;   /* by these, in this ballot */
	uint8_t targets; /* OP_COPY */
	uint8_t hashed;  /* OP_COPY: their hash is here */
	uint8_t same;    /* OP_COPY: and equals ours */
	uint8_t stamped; /* OP_COPY: their stamp equals ours, which proves nothing */
	bool has_hash;   /* OP_COPY: ours is here; zeroes: it cannot be read */
	bool direct;     /* OP_COPY: it is known to differ, and goes without a comparison */
	bool scrub;      /* OP_COPY: nobody needs the block, the copies are only compared */
	uint8_t hash[VOLUME_HASH_BYTES], peer_hash[PEERS_MAX][VOLUME_HASH_BYTES];
	void *buffer; /* OP_COPY */
	uint64_t buffer_bytes;
	struct volume_io io;
};

/* A frame that changes the data here as a replica. */
struct replica_op {
	struct replica_op *next;
	struct volume_frame f;
	node_id_t from;
	uint64_t life; /* of the session: an older one's is not acknowledged (V3) */
	void *buffer;  /* FETCH */
	bool in_io;
	struct volume_io io;
};

/* ---- the other replicas, as the primary sees them ---- */

enum hello { HELLO_NONE, HELLO_SENT, HELLO_DONE };

struct peer {
	node_id_t node; /* 0: the slot is free */
	bool linked;    /* there is a link */
	enum hello hello;
	uint64_t session;
	bool known; /* compared in this run */
	uint64_t incarnation;
	struct volume_ballot active;
	uint64_t *need; /* a bit per block */
	uint64_t *seen; /* a bit per extent: it may have got something there since it was active (its intents) */
	uint64_t n_need;
	uint64_t cursor; /* where the search for the next copy goes on */
	uint64_t hinted; /* extents below were announced, as far as copies come there */
	bool lost_power; /* it told another incarnation than the store's: to be removed (V26) */
	bool active_sent;
	usec_t heard_at, away_since, pinged_at;
	uint64_t need_total; /* the most that it needed, for progress */
	usec_t need_since;
};

enum join { JOIN_NONE, JOIN_COPYING, JOIN_JOINT, JOIN_SYNCED, JOIN_PROPOSED };

enum start {
	START_NONE,
	START_DRAIN,    /* V17, V28: local I/O of before ends */
	START_SAVE,     /* promised = active = ballot, durable */
	START_DONE,     /* it leads */
	START_REBALLOT, /* V5: it goes on in a new epoch, whose ballot is not durable yet */
};

struct flush {
	bool running, local;
	bool syncing; /* the I/O runs, also when its flush was given up */
	uint64_t seq;
	usec_t since;
	uint8_t sent, acked;
	bool ended;     /* the last one, in this ballot, and none runs */
	bool settled;   /* begun when nothing was needed any more (V27) */
	bool fresh;     /* since it began no write or copy has begun or ended: another would cover nothing more */
	bool early;     /* begun before a guest asked for it */
	uint64_t *fset; /* V12: a bit per extent */
	struct volume_io io;
};

/* V3: a HELLO waits until local I/O of before has ended and the promise is durable. */
struct fence {
	bool pending;
	node_id_t from;
	struct volume_frame f;
};

/* The blocks one by one, from the first to the last. */
struct scrub {
	uint64_t rate; /* bytes per second; 0: no bound */
	bool primary_wins;
	struct op *op;     /* the block that is being compared, or whose copy here is being repaired */
	usec_t busy_since; /* the next block is not free; 0: it is */
	struct volume_scrub_status status;
};

struct extent_stamps {
	struct volume_ballot all;
	struct volume_ballot *page; /* by block; NULL: all blocks have @all */
};

struct volume_core {
	struct volume_config config;
	struct volume_effects fx;
	usec_t now;
	bool broken, stepping;

	/* durable, as it will be once what is under way has ended */
	struct volume_state state;
	uint64_t state_seq, state_written, state_wait;
	uint64_t promise_seq; /* of the first that has the promise (V1) */
	uint64_t *intents;    /* set */
	uint64_t *durable;    /* and on the disk */
	uint64_t *writing;    /* the image that is being written */
	uint64_t *clearing;   /* their map is being written, or their bit goes off with the next image */
	uint64_t *mapped;     /* of these the map is durable */
	uint8_t *map_writes;  /* by extent: under way */
	bool intents_dirty, intents_busy;
	uint8_t *intent_bytes;
	struct extent_stamps *stamps;
	uint32_t n_extents; /* for which there is room, as of config.size; in use may be less: core_blocks() */
	uint64_t n_blocks;
	unsigned ios;         /* local I/O of any kind that has been begun */
	unsigned replica_ios; /* of these the ones for another primary */

	/* as any replica */
	struct volume_row row;
	bool has_row;
	node_id_t leader; /* whose frames are obeyed */
	uint64_t session, life;
	struct volume_ballot session_ballot;
	struct replica_op *replica_ops;
	struct fence fence;
	struct volume_ballot hello_ballot; /* of the last HELLO that was obeyed */
	uint64_t hello_session;

	/* as the primary */
	enum start start;
	struct volume_ballot lead;
	bool resumed;  /* planted: no settling */
	bool nacked;   /* V4: somebody obeys a higher ballot */
	uint32_t seen; /* newest epoch heard of */
	bool links[NODES_MAX + 1];
	struct peer peers[PEERS_MAX];
	struct op *ops;
	struct volume_request *waiting, **waiting_end;
	struct volume_request *flush_waiting, *flush_riding; /* for the next one; on the running one */
	uint64_t next_seq, next_session;
	uint64_t *unflushed; /* a bit per extent */
	uint64_t *restamped; /* extents whose stamps say more than was written (V17, V30) */
	uint64_t *remote;    /* extents in which another in-sync member may have set its intent */
	usec_t *touched;     /* when an extent was written last */
	struct flush flush;
	unsigned writes;       /* that came since the last flush did, as the primary or as a replica; 2: or more */
	uint64_t written;      /* bytes of them */
	unsigned flush_each;   /* so often in a row a flush came after a single write */
	unsigned flush_little; /* and when little was written */
	enum join join;
	unsigned joiner;          /* slot */
	uint64_t join_seq;        /* of the FLUSH that it alone gets */
	uint64_t join_wait;       /* for addmark */
	unsigned copies;          /* blocks */
	usec_t copy_at, scrub_at; /* when the next may begin, by its rate */
	usec_t guest_at;          /* when a guest's operation began last */
	struct scrub scrub;
	uint64_t *cold_set; /* V27: extents whose blocks are read only after settling and a flush; NULL: none */
	bool flush_early;   /* a guest's flush will come */
	bool flush_wanted;  /* by ourselves, for clearing or after COLD */
	struct volume_change asked;
	bool asking;
	usec_t ask_again;
	usec_t clear_again;
	usec_t retry_at; /* V13: a write on the last replica failed */
};

/* ---- bits ---- */

static inline bool bit_get(const uint64_t *v, uint64_t i)
{
	return v[i / 64] >> (i % 64) & 1;
}

static inline void bit_set(uint64_t *v, uint64_t i)
{
	v[i / 64] |= UINT64_C(1) << (i % 64);
}

static inline void bit_clear(uint64_t *v, uint64_t i)
{
	v[i / 64] &= ~(UINT64_C(1) << (i % 64));
}

static inline size_t bit_words(uint64_t n)
{
	return (size_t)((n + 63) / 64);
}

uint64_t bits_count(const uint64_t *v, uint64_t n);

/* ---- core_grow.c ---- */
uint64_t core_blocks(const struct volume_core *c); /* in use: what a primary speaks of */
bool grow_may_lead(const struct volume_core *c);
bool grow_may_join(const struct volume_core *c, const struct volume_member *m);

/* ---- core.c ---- */
void core_step(struct volume_core *c);
int core_self(const struct volume_core *c); /* index in row.members, or -1 */
const struct volume_member *core_member(const struct volume_core *c, node_id_t node);
bool core_acting(const struct volume_core *c);      /* V4 */
uint8_t core_in_sync(const struct volume_core *c);  /* peers of the view's in-sync set */
uint8_t core_required(const struct volume_core *c); /* V7 */
bool core_all_known(const struct volume_core *c);
void core_step_down(struct volume_core *c);
void core_break(struct volume_core *c, int rc);
/* May something of @bytes begin by @rate (0: no bound)? Then the next may from @next on. */
bool core_pace(const struct volume_core *c, usec_t *next, uint64_t rate, uint64_t bytes);
bool core_ask(struct volume_core *c, enum volume_change_kind kind, node_id_t node, uint64_t incarnation);
void core_io(struct volume_core *c, struct volume_io *io);

/* ---- core_map.c ---- */
struct volume_ballot map_get(const struct volume_core *c, uint64_t block);
void map_set(struct volume_core *c, uint64_t block, struct volume_ballot b);
void map_load(struct volume_core *c, uint32_t extent, const struct volume_ballot page[VOLUME_EXTENT_BLOCKS]);
void map_copy(struct volume_core *c, uint32_t extent, struct volume_ballot ret[VOLUME_EXTENT_BLOCKS]);
void map_free(struct volume_core *c);

/* ---- core_disk.c ---- */
uint64_t disk_save(struct volume_core *c);
void disk_want_intents(struct volume_core *c, uint64_t offset, uint64_t length);
bool disk_has_intents(const struct volume_core *c, uint64_t offset, uint64_t length);
void disk_stamp(struct volume_core *c, uint64_t offset, uint64_t length, struct volume_ballot b);
void disk_restamp_intents(struct volume_core *c, struct volume_ballot b, struct volume_ballot old_active);
void disk_clear(struct volume_core *c, uint32_t extent);
void disk_step(struct volume_core *c);

/* ---- core_guest.c ---- */
bool guest_busy(const struct volume_core *c, uint64_t offset, uint64_t length, enum op_kind kind);
void guest_step(struct volume_core *c);
void guest_reballot(struct volume_core *c);
void guest_drop_all(struct volume_core *c);
void guest_free(struct volume_core *c);
void guest_send(struct volume_core *c, struct op *op);
void guest_op_free(struct volume_core *c, struct op *op);
void guest_ack(struct volume_core *c, unsigned slot, const struct volume_frame *f);

/* ---- core_flush.c ---- */
void flush_step(struct volume_core *c);
void flush_reballot(struct volume_core *c);
bool flush_ack(struct volume_core *c, unsigned slot, const struct volume_frame *f);
void flush_touch(struct volume_core *c, uint64_t offset, uint64_t length);
bool flush_is_soon(const struct volume_core *c);
void flush_saw_write(struct volume_core *c, uint64_t length);
void flush_saw_flush(struct volume_core *c);
void flush_write_over(struct volume_core *c);
void flush_submit(struct volume_core *c, struct volume_request *r);
void flush_drop_client(struct volume_core *c, uint64_t client, bool all);

/* ---- core_peer.c ---- */
void peers_row(struct volume_core *c);
void peers_step(struct volume_core *c);
void peers_forget(struct volume_core *c);
void peers_reballot(struct volume_core *c);
void peers_tick(struct volume_core *c, bool was_late);
int peer_slot(const struct volume_core *c, node_id_t node);
bool peer_connected(const struct peer *p);
void peer_frame(struct volume_core *c, unsigned slot, const struct volume_frame *f);
void peer_lost(struct volume_core *c, unsigned slot);
void peer_need(struct volume_core *c, struct peer *p, uint64_t block);
void peer_got(struct volume_core *c, struct peer *p, uint64_t block);
bool peer_needs(const struct peer *p, uint64_t offset, uint64_t length);
void peer_send(struct volume_core *c, unsigned slot, struct volume_frame *f);
bool peer_needs_extent(const struct volume_core *c, const struct peer *p, uint64_t extent);
void join_abandon(struct volume_core *c);

/* ---- core_copy.c ---- */
void copy_step(struct volume_core *c);
void copy_hashed(struct volume_core *c, unsigned slot, const struct volume_frame *f);
void copy_ack(struct volume_core *c, struct op *op, unsigned slot);
void copy_cancel_peer(struct volume_core *c, unsigned slot);
void copy_cancel_all(struct volume_core *c);
void copy_end(struct volume_core *c, struct op *op);
struct op *copy_begin(struct volume_core *c, uint64_t block, unsigned max, uint8_t targets, bool scrub);
void copy_io(struct volume_core *c, struct op *op, enum volume_io_kind kind);

/* ---- core_scrub.c ---- */
void scrub_step(struct volume_core *c);
void scrub_judge(struct volume_core *c, struct op *op);
void scrub_cancelled(struct volume_core *c);
void scrub_repaired(struct volume_core *c);
void scrub_fetched(struct volume_core *c, const struct volume_frame *f);

/* ---- core_clear.c ---- */
void clear_step(struct volume_core *c);

/* ---- core_replica.c ---- */
void replica_frame(struct volume_core *c, node_id_t from, const struct volume_frame *f);
void replica_step(struct volume_core *c);
void replica_end_sessions(struct volume_core *c);
bool replica_is_drained(const struct volume_core *c);
void replica_free(struct volume_core *c);
void replica_link_down(struct volume_core *c, node_id_t node);

#endif
