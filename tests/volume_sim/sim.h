/* SPDX-License-Identifier: Apache-2.0
 * One volume on three virtual nodes: the real core over disks that lose and tear writes, links that break and linger, a
 * store whose rows arrive late, and a guest that knows what it may read. A seed reproduces a run. */
#ifndef KEDGE_TESTS_VOLUME_SIM_SIM_H
#define KEDGE_TESTS_VOLUME_SIM_SIM_H

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

struct sim;
struct event;
typedef void (*event_fn)(struct sim *s, struct event *e);

struct event {
	usec_t at;
	uint64_t seq;
	event_fn fn;
	unsigned node; /* 0: of the world; else of a process of this node, and void with its life */
	uint64_t life;
	uint64_t a, b, c;
	void *p; /* free()d with the event */
};

/* Values that a sector may have. */
struct set {
	unsigned n;
	uint32_t v[SET_MAX];
};

struct disk {
	uint32_t cached[HOT], durable[HOT];
	uint64_t cached_seq[HOT], durable_seq[HOT];
	struct volume_state state;
	uint8_t intents[8 * ((EXTENTS + 63) / 64)];
	struct volume_ballot stamps[EXTENTS * VOLUME_EXTENT_BLOCKS];
};

enum write_kind { W_DATA, W_STATE, W_INTENTS, W_MAP };
#define W_KINDS 4

/* What the kernel has got and not done. */
struct pending {
	bool used;
	uint64_t id;
	enum write_kind kind;
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

struct node {
	unsigned id;
	bool up;    /* the process */
	bool power; /* the machine */
	uint64_t life;
	uint64_t boot;
	struct volume_core *core;
	struct disk disk;
	struct pending ios[IOS_MAX];
	usec_t slow; /* mean of an I/O */
	usec_t last_state, last_intents, last_map;
	unsigned buffers;
	usec_t stall[W_KINDS], stall_until[W_KINDS]; /* each write of a kind takes so much longer */
	usec_t no_store_until;                       /* cut off from the quorum */
	usec_t ask_lag;                              /* what it asks the store for takes so much longer */
	bool was_known[NODES + 1];
	usec_t stopped_until; /* SIGSTOP: nothing is delivered */
};

struct guest_op {
	bool used, running;
	struct volume_request r;
	unsigned first, n;     /* hot sectors */
	uint32_t value;        /* of a write; 0 for zeroes */
	struct set before[40]; /* reads: what was allowed as it began */
	uint64_t changes[40];
};

/* Who a request belongs to when the guest has forgotten it. */
struct ticket {
	struct volume_request r;
	struct guest_op *op;
	uint64_t op_number;
};

struct guest {
	unsigned node; /* 0: it is off */
	uint32_t epoch;
	uint64_t client;  /* 0: not connected */
	uint64_t leaving; /* whose connection's end its node hears of right now */
	bool quiet;       /* asks for nothing by itself */
	bool held;        /* does not connect */
	unsigned pace;    /* permille */
	usec_t pace_until;
	struct guest_op ops[GUEST_OPS];
	uint64_t numbers[GUEST_OPS];
	uint64_t next_number;
	bool flushing;
	uint32_t next_value;
};

#define FAULT_KINDS 14

struct faults {
	unsigned weights[FAULT_KINDS];
	unsigned io_error, force, lag;
};

/* Several faults in the order in which they hurt: see stories.c. */
struct step;
struct lent;
struct story {
	const struct step *next; /* NULL: none is told */
	const char *name;
	bool begun;       /* beyond its first step */
	bool led;         /* the leader moves the volume, not the story */
	unsigned a, b, c; /* the primary as it began, and the others */
	unsigned hot;     /* the sector that it is about */
	uint32_t epoch;   /* of the step before */
	usec_t at, until;
};

struct sim {
	uint64_t seed, random;
	usec_t now;
	uint64_t seq, io_id, write_seq;
	struct event **heap;
	struct lent *lent;
	size_t n_heap, cap_heap;
	struct node nodes[NODES + 1];
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
	uint64_t older[NODES + 1][NODES + 1], lives;
	usec_t older_last[NODES + 1][NODES + 1], older_lag[NODES + 1][NODES + 1];
	uint64_t out[NODES + 1][NODES + 1], in[NODES + 1][NODES + 1]; /* as in engine_links.c */
	struct guest guest;
	struct faults faults;
	unsigned copies_max, intents_cap; /* of each core's configuration */
	usec_t clear_after;
	bool healing;
	bool stories, disturbed; /* stories are told; faults come in between their steps too */
	struct story story;
	usec_t primary_bad_since;

	struct set allowed[HOT], flushed[HOT], flush_snap[HOT];
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
uint64_t sim_random(struct sim *s, uint64_t below);
bool sim_chance(struct sim *s, unsigned permille);
struct event *sim_after(struct sim *s, usec_t delay, event_fn fn, unsigned node);
void sim_run(struct sim *s, usec_t until);
void sim_end(struct sim *s);
void *sim_alloc(struct sim *s, size_t n, size_t bytes);
void sim_free(void *p);
void sim_log(struct sim *s, const char *fmt, ...) KEDGE_PRINTF(2, 3);
void sim_violate(struct sim *s, const char *what, const char *fmt, ...) KEDGE_PRINTF(3, 4);

/* ---- disk.c ---- */
int disk_hot(uint64_t sector); /* -1: never written */
uint64_t disk_sector(unsigned hot);
void disk_begin(struct sim *s, struct node *n, struct pending *p);
void disk_crash(struct sim *s, struct node *n);
void disk_power(struct sim *s, struct node *n);
struct pending *disk_pending(struct sim *s, struct node *n, enum write_kind kind);

/* ---- node.c ---- */
void node_start(struct sim *s, unsigned node);
void node_crash(struct sim *s, unsigned node);
bool node_has_store(const struct sim *s, unsigned node);
bool link_is_cut(const struct sim *s, unsigned a, unsigned b);
void node_power_off(struct sim *s, unsigned node);
void node_row(struct sim *s, unsigned node);
void link_break(struct sim *s, unsigned a, unsigned b);
void link_dial(struct sim *s, struct event *e);

/* ---- renew.c ---- */
uint64_t renew_life_for(const struct sim *s, unsigned from, unsigned to, const struct volume_frame *f);
bool renew_stands(const struct sim *s, unsigned from, unsigned to, uint64_t life);
usec_t renew_queue(struct sim *s, unsigned from, unsigned to, uint64_t life, usec_t at);
void renew_came(struct sim *s, unsigned from, unsigned to, uint64_t life, const struct volume_frame *f);
void renew_begin(struct sim *s, unsigned node, unsigned peer);
void renew_event(struct sim *s, struct event *e);
struct node *node_of(void *ctx);
struct sim *sim_of(void *ctx);

/* ---- store.c ---- */
void store_create(struct sim *s);
void store_propose(struct sim *s, unsigned node, const struct volume_change *c);
void store_report(struct sim *s, unsigned node);
void store_leader(struct sim *s, struct event *e);
struct volume_member *store_member(struct sim *s, unsigned node);
void store_move(struct sim *s, unsigned to, bool keep_old);
void store_force(struct sim *s, struct volume_member *b);

/* ---- guest.c ---- */
void guest_start(struct sim *s, unsigned node, uint32_t epoch);
void guest_kill(struct sim *s);
void guest_disconnected(struct sim *s, unsigned node);
void guest_reply(struct sim *s, struct volume_request *r, int rc);
void guest_dropped(struct sim *s, unsigned node, struct volume_request *r);
bool guest_issue(struct sim *s, enum volume_request_kind kind, unsigned hot);
void guest_event(struct sim *s, struct event *e);
void guest_reconnect(struct sim *s);
bool guest_idle(const struct sim *s);
void guest_backup(struct sim *s);

/* ---- check.c ---- */
bool set_has(const struct set *set, uint32_t v);
void set_add(struct set *set, uint32_t v);
void set_only(struct set *set, uint32_t v);
void check_step(struct sim *s);
void check_known(struct sim *s, struct node *n);
void check_end(struct sim *s);

/* ---- faults.c ---- */
void faults_choose(struct sim *s);
void faults_event(struct sim *s, struct event *e);
void scrub_event(struct sim *s, struct event *e);
void faults_heal(struct sim *s);
void faults_end(struct sim *s);

/* ---- stories.c ---- */
void stories_start(struct sim *s);
void stories_step(struct sim *s);

#endif
