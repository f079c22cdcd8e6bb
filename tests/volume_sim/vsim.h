/* SPDX-License-Identifier: Apache-2.0
 * One volume on three virtual nodes: the real core over disks that lose and tear writes, links that break and linger, a
 * store whose rows arrive late, and a guest that knows what it may read. A seed reproduces a run. */
#ifndef KEDGE_TESTS_VOLUME_SIM_VSIM_H
#define KEDGE_TESTS_VOLUME_SIM_VSIM_H

#include "volume/core.h"

#define NODES     3
#define SECTOR    4096u
#define EXTENTS   3u
#define SIZE      ((EXTENTS - 1) * (uint64_t)VOLUME_EXTENT_BYTES + 5 * VOLUME_BLOCK_BYTES + SECTOR)
#define BLOCKS    ((SIZE + VOLUME_BLOCK_BYTES - 1) / VOLUME_BLOCK_BYTES)
#define PER_BLOCK (VOLUME_BLOCK_BYTES / SECTOR)
#define HOT       (7 * PER_BLOCK + 1) /* the sectors that the guest ever writes: seven blocks, and a last short one */
#define IOS_MAX   256
#define GUEST_OPS 8
#define SET_MAX   64
#define ROWS      8

struct vsim;
struct vs_event;
typedef void (*vs_event_fn)(struct vsim *s, struct vs_event *e);

struct vs_event {
	usec_t at;
	uint64_t seq;
	vs_event_fn fn;
	unsigned node; /* 0: of the world; else of a process of this node, and void with its life */
	uint64_t life;
	uint64_t a, b, c;
	void *p; /* free()d with the event */
};

/* Values that a sector may have. */
struct vs_set {
	unsigned n;
	uint32_t v[SET_MAX];
};

struct vs_disk {
	uint32_t cached[HOT], durable[HOT];
	uint64_t cached_seq[HOT], durable_seq[HOT];
	uint64_t size; /* for which there is room */
	struct volume_state state;
	uint8_t intents[8 * ((EXTENTS + 63) / 64)];
	struct volume_ballot stamps[EXTENTS * VOLUME_EXTENT_BLOCKS];
};

enum vs_write_kind { W_DATA, W_STATE, W_INTENTS, W_MAP };
#define W_KINDS 4

/* What the kernel has got and not done. */
struct vs_pending {
	bool used;
	uint64_t id;
	enum vs_write_kind kind;
	struct volume_io *io;
	uint32_t *data; /* a copy for writes */
	uint64_t offset, length;
	enum volume_io_kind io_kind;
	struct volume_state state;
	uint64_t seq;
	uint8_t intents[8 * ((EXTENTS + 63) / 64)];
	uint32_t extent;
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
	uint64_t upto; /* SYNC: covers writes with a number up to this */
};

struct vs_node {
	struct vsim *sim;
	unsigned id;
	bool is_member; /* it has a replica */
	bool up;        /* the process */
	bool power;     /* the machine */
	uint64_t life;
	uint64_t boot;
	struct volume_core *core;
	struct vs_disk disk;
	struct vs_pending ios[IOS_MAX];
	usec_t slow; /* mean of an I/O */
	usec_t last_state, last_intents, last_map;
	unsigned buffers;
	usec_t stall[W_KINDS], stall_until[W_KINDS]; /* each write of a kind takes so much longer */
	usec_t no_store_until;                       /* cut off from the quorum */
	usec_t ask_lag;                              /* what it asks the store for takes so much longer */
	bool was_known[NODES + 1];
	usec_t stopped_until;     /* SIGSTOP: nothing is delivered */
	uint64_t wanted, growing; /* room: as its rows say; that is being made, 0: none is */
};

struct vs_op {
	bool used, running;
	struct volume_request r;
	unsigned first, n;        /* hot sectors */
	uint32_t value;           /* of a write; 0 for zeroes */
	struct vs_set before[40]; /* reads: what was allowed as it began */
	uint64_t changes[40];
};

/* Who a request belongs to when the guest has forgotten it. */
struct vs_ticket {
	struct volume_request r;
	struct vs_op *op;
	uint64_t op_number;
	struct vs_ticket *next; /* answered, not seen */
	int rc;
};

struct vs_guest {
	unsigned node;  /* 0: it is off */
	uint32_t epoch; /* in which it was placed there; 0: that in which it finds its engine leading */
	uint64_t gen;   /* of a cluster's VM */
	uint64_t size;  /* of its disk, as it knows */
	bool frozen;    /* SIGSTOP: it asks for nothing and sees no answer until it goes on */
	struct vs_ticket *answers, **answers_end; /* which it has not seen */
	unsigned to_check;                        /* sectors from here on are read before anything else */
	uint64_t client;                          /* 0: not connected */
	uint32_t lead;                            /* epoch of the engine as it connected */
	uint64_t leaving;                         /* whose connection's end its node hears of right now */
	bool quiet;                               /* asks for nothing by itself */
	bool held;                                /* does not connect */
	unsigned pace;                            /* permille */
	usec_t pace_until;
	struct vs_op ops[GUEST_OPS];
	uint64_t numbers[GUEST_OPS];
	uint64_t next_number;
	bool flushing;
	uint32_t next_value;
};

/* What stands around a volume: a store of its own and its faults (kedge-volume-sim), or a whole cluster (kedge-sim). */
struct vs_around {
	/* A core asks the store; volume_core_proposed() with the outcome, or never. */
	void (*propose)(struct vsim *s, unsigned node, const struct volume_change *c);
	/* The row of a core may be old. */
	void (*look)(struct vsim *s, unsigned node);
	/* A core begins: it knows no row; and is there: its incarnation may be told. */
	void (*begins)(struct vsim *s, unsigned node);
	void (*is_open)(struct vsim *s, unsigned node);
	/* Its files have more room: to be told like its incarnation. */
	void (*grown)(struct vsim *s, unsigned node);
	/* Does nothing come from @from to @to now? May they have a link? */
	bool (*is_cut)(const struct vsim *s, unsigned from, unsigned to);
	bool (*may_dial)(const struct vsim *s, unsigned a, unsigned b);
	/* May the guest use it at @node, as far as the engine was told? */
	bool (*allows)(const struct vsim *s, unsigned node);
	/* An event is over. */
	void (*stepped)(struct vsim *s, unsigned node);
};

#define FAULT_KINDS 14

struct vs_faults {
	unsigned weights[FAULT_KINDS];
	unsigned io_error, force, lag;
};

/* Several faults in the order in which they hurt: see stories.c. */
struct vs_step;
struct vs_lent;
struct vs_story {
	const struct vs_step *next; /* NULL: none is told */
	const char *name;
	bool begun;       /* beyond its first step */
	bool led;         /* the leader moves the volume, not the story */
	unsigned a, b, c; /* the primary as it began, and the others */
	unsigned hot;     /* the sector that it is about */
	uint32_t epoch;   /* of the step before */
	usec_t at, until;
};

struct vsim {
	const struct vs_around *around;
	const char *name; /* before each line of the log; NULL: nothing */
	uint64_t seed, random;
	usec_t now;
	uint64_t seq, io_id, write_seq;
	struct vs_event **heap;
	struct vs_lent *lent;
	size_t n_heap, cap_heap;
	struct vs_node nodes[NODES + 1];
	struct volume_row row;
	struct volume_row old_row;
	struct volume_row rows[ROWS];    /* the last ones, by version */
	bool link[NODES + 1][NODES + 1]; /* symmetric */
	uint64_t link_life[NODES + 1][NODES + 1];
	usec_t link_last[NODES + 1][NODES + 1]; /* FIFO */
	usec_t cut_until[NODES + 1][NODES + 1];
	bool lossy[NODES + 1][NODES + 1]; /* a stream with a gap: nothing more of it arrives, and it breaks soon */
	/* a link that is made anew: the older one stands beside it, by its life; 0: none */
	bool renews;
	bool grows; /* the volume begins small */
	uint64_t older[NODES + 1][NODES + 1], lives;
	usec_t older_last[NODES + 1][NODES + 1], older_lag[NODES + 1][NODES + 1];
	uint64_t out[NODES + 1][NODES + 1], in[NODES + 1][NODES + 1]; /* as in engine_links.c */
	struct vs_guest guest;
	struct vs_faults faults;
	unsigned copies_max, intents_cap; /* of each core's configuration */
	usec_t clear_after;
	usec_t guest_every; /* mean time between two looks of the guest at what it could ask for, twice */
	unsigned dead;      /* a node that stays without power; 0: none */
	bool touched;       /* something changed that A and D speak of */
	bool healing;
	bool stories, disturbed; /* stories are told; faults come in between their steps too */
	struct vs_story story;
	usec_t primary_bad_since;

	struct vs_set allowed[HOT], flushed[HOT], flush_snap[HOT];
	bool flush_running;
	bool cold[HOT];
	uint64_t changes[HOT]; /* of what is allowed, by writes */
	struct {
		bool on;
		struct volume_ballot base;
		uint32_t data[HOT];
	} backup;

	const char *violation;
	char detail[256];
	bool verbose;
	uint64_t acked, reads, settles, takeovers, colds, joins, scrubs, renewals, overtaken, events;
};

/* ---- world.c ---- */
void vs_init(struct vsim *s, uint64_t seed, const struct vs_around *around);
void vs_add_replica(struct vsim *s, unsigned node);
uint64_t vs_random(struct vsim *s, uint64_t below);
bool vs_chance(struct vsim *s, unsigned permille);
struct vs_event *vs_after(struct vsim *s, usec_t delay, vs_event_fn fn, unsigned node);
/* The time of the next event; USEC_INFINITY: none. */
usec_t vs_next(const struct vsim *s);
void vs_do_next(struct vsim *s);
void vs_run(struct vsim *s, usec_t until);
void vs_end(struct vsim *s);
void *vs_alloc(struct vsim *s, size_t n, size_t bytes);
void vs_free(void *p);
void vs_log(struct vsim *s, const char *fmt, ...) KEDGE_PRINTF(2, 3);
void vs_violate(struct vsim *s, const char *what, const char *fmt, ...) KEDGE_PRINTF(3, 4);

/* ---- disk.c ---- */
int vs_disk_hot(uint64_t sector); /* -1: never written */
uint64_t vs_disk_sector(unsigned hot);
void vs_disk_begin(struct vsim *s, struct vs_node *n, struct vs_pending *p);
void vs_disk_crash(struct vsim *s, struct vs_node *n);
void vs_disk_power(struct vsim *s, struct vs_node *n);
struct vs_pending *vs_disk_pending(struct vsim *s, struct vs_node *n, enum vs_write_kind kind);

/* ---- node.c ---- */
void vs_node_start(struct vsim *s, unsigned node);
void vs_node_crash(struct vsim *s, unsigned node);
void vs_node_power_off(struct vsim *s, unsigned node);
/* The row reaches the node after @delay. */
void vs_row(struct vsim *s, unsigned node, const struct volume_row *row, usec_t delay);
void vs_link_break(struct vsim *s, unsigned a, unsigned b);

/* ---- grow.c ---- */
void vs_grow_tick(struct vsim *s, unsigned node);

/* ---- renew.c ---- */
uint64_t renew_life_for(const struct vsim *s, unsigned from, unsigned to, const struct volume_frame *f);
bool renew_stands(const struct vsim *s, unsigned from, unsigned to, uint64_t life);
usec_t renew_queue(struct vsim *s, unsigned from, unsigned to, uint64_t life, usec_t at);
void renew_came(struct vsim *s, unsigned from, unsigned to, uint64_t life, const struct volume_frame *f);
void renew_begin(struct vsim *s, unsigned node, unsigned peer);
void renew_event(struct vsim *s, struct vs_event *e);

/* ---- guest.c ---- */
void vs_guest_start(struct vsim *s, unsigned node, uint32_t epoch);
void vs_guest_kill(struct vsim *s);
void vs_guest_freeze(struct vsim *s, bool frozen);
void vs_guest_cut(struct vsim *s);
void vs_guest_disconnected(struct vsim *s, unsigned node);
void vs_guest_reply(struct vsim *s, struct volume_request *r, int rc);
void vs_guest_dropped(struct vsim *s, unsigned node, struct volume_request *r);
bool vs_guest_issue(struct vsim *s, enum volume_request_kind kind, unsigned hot);
void vs_guest_event(struct vsim *s, struct vs_event *e);
void vs_guest_reconnect(struct vsim *s);
bool vs_guest_idle(const struct vsim *s);
void vs_guest_backup(struct vsim *s);

/* ---- check.c ---- */
/* Of the row; NULL: none. */
struct volume_member *vs_member(struct vsim *s, unsigned node);
bool vs_set_has(const struct vs_set *set, uint32_t v);
void vs_set_add(struct vs_set *set, uint32_t v);
void vs_set_only(struct vs_set *set, uint32_t v);
void vs_check_step(struct vsim *s);
void vs_check_known(struct vsim *s, struct vs_node *n);
void vs_check_end(struct vsim *s);

#endif
