/* SPDX-License-Identifier: Apache-2.0
 * What the files of the engine share. */
#ifndef KEDGE_VOLUME_ENGINE_INTERNAL_H
#define KEDGE_VOLUME_ENGINE_INTERNAL_H

#include "volume/disk_io.h"
#include "volume/engine.h"
#include "volume/nbd.h"
#include "volume/replica.h"
#include "volume/spin.h"

#include <uv.h>

enum vol_step {
	VOL_OPENING, /* a job opens or makes the replica, and reports it */
	VOL_OPEN,
	VOL_FAILED, /* could not be opened: tried again */
	VOL_ENDING, /* its core is over: it is closed once nothing is under way */
	VOL_CLOSED,
	VOL_ERASED, /* forgotten once the NBD server knows it no more */
};

struct map_job {
	struct map_job *next;
	uint32_t extent;
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
};

/* Writes of metadata: one job at a time, the newest state and intents only. */
struct meta {
	bool busy;
	bool has_state, has_intents;
	uint64_t grow_to; /* 0: nothing is to grow */
	size_t bytes;     /* of bits, for the replica as it is */
	struct volume_state state;
	uint64_t seq;
	uint8_t *bits;
	struct map_job *maps, **maps_end;
};

/* What kedged and a volume know of each other (engine_agent.c). */
struct vol_agent {
	bool dropping;      /* it was given up: closed, erased, forgotten */
	bool wanted_again;  /* a row came meanwhile in which this node is a member again */
	uint32_t serve;     /* enum engine_serve */
	uint64_t gen;       /* of the placement here */
	uint64_t asked;     /* the number of the proposal that is out; 0: none */
	usec_t asked_until; /* then its outcome is unknown */
	struct volume_change change;
	usec_t next_opened, next_status; /* to be told */
	bool leads, serves;              /* as told */
	uint64_t size;                   /* likewise; 0: not yet */
	uint64_t size_known;             /* to clients that are connected */
	char problem[REASON_BYTES_MAX];
};

struct bulk_handover;
struct link;
struct links;
struct message_type;
struct ask;
struct sock;
struct caller;
struct engine_store;
struct file_store;
struct agent_store;

#define FINDINGS_MAX 64

/* What a volume shares with another node: two streams, the one of each as the primary. */
struct vol_peer {
	struct link *out; /* for what is begun here; NULL: none stands */
	struct link *in;  /* for answers: where its last HELLO came */
	usec_t relink;    /* when the core may greet it again; 0: it knows of the link */
};

struct vol {
	struct vol *next;
	struct engine *g;
	char name[NAME_BYTES_MAX];
	uint8_t id[VOLUME_ID_BYTES];
	struct volume_row row; /* version 0: none yet */
	enum vol_step step;
	bool is_reported; /* the store knows what was opened here: */
	uint64_t incarnation;
	uint8_t replica_id[VOLUME_ID_BYTES];
	char problem[REASON_BYTES_MAX]; /* why it cannot be opened; "" for none */
	struct vol_agent agent;
	uint64_t room;     /* of the files, as the core knows; 0: nothing is open */
	uint64_t growing;  /* they are made larger; 0: no */
	usec_t grow_again; /* not before */
	bool force;        /* the next opening is in a new incarnation (V13) */
	usec_t again;      /* VOL_FAILED: when */
	struct volume_replica *replica;
	struct volume_core *core;
	unsigned ios;
	unsigned jobs;
	uint64_t buffers; /* bytes, of copies */
	struct vol_peer peers[NODES_MAX + 1];
	struct meta meta;
	struct volume_finding findings[FINDINGS_MAX]; /* of the last scrub, the first ones */
	size_t n_findings;
	uint64_t passes; /* of the scrub, as seen last */
	usec_t next_passes_look, next_scrub_look;
};

struct engine {
	uv_loop_t *loop;
	struct engine_config config;
	char dir[PATH_BYTES_MAX];
	const struct engine_store *store;
	struct file_store *file_store;   /* static mode */
	struct agent_store *agent_store; /* cluster mode */
	node_id_t node;                  /* 0: not known yet */
	int lock;
	struct disk_io *disk;
	struct nbd_server *nbd;
	struct links *links;
	struct sock *sock;
	struct ask *ask;
	uv_timer_t timer;
	struct spin spin;
	struct vol *vols;
	bool looks_for_losses; /* the engine before did not end well */
	bool closing;
	unsigned parts; /* to be closed */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* Where rows come from and what the cores ask for goes to: the static store's file (engine_static.c) or kedged
 * (engine_agent.c). */
struct engine_store {
	bool one_caller; /* a newer connection at run/vol.sock ends the older ones */
	/* Before anything else. @g->node is known afterwards, or by a message. */
	int (*begin)(struct engine *g, struct err *e);
	/* Every 20 ms. */
	void (*turn)(struct engine *g, usec_t now);
	/* The rows may be old. */
	void (*look)(struct engine *g);
	/* volume_core_proposed() with the outcome, never from inside. */
	void (*propose)(struct vol *v, const struct volume_change *change);
	/* [worker] REPORT, before the core begins. */
	int (*report)(const struct vol *v, const struct volume_replica *r, struct err *e);
	/* Its core has begun. */
	void (*opened)(struct vol *v);
	/* Whether it leads or serves may have changed, or why it cannot. Not from inside the core. */
	void (*moved)(struct vol *v);
	/* Its files have more room (@v->room): to be reported. */
	void (*grown)(struct vol *v);
	/* The files are gone. */
	void (*erased)(struct vol *v);
	/* A link stands, or ended; @worn: it stands, and another one should be made. Again when that changes. */
	void (*linked)(struct engine *g, node_id_t node, bool up, bool worn);
	void (*found)(struct vol *v, const struct volume_finding *f);
	/* May anybody use it here and now, as far as it is not the core that says so (L23)? */
	bool (*allows)(const struct vol *v);
	/* A message at run/vol.sock; @fd, or -1, stays the caller's. False: it makes no sense. */
	bool (*message)(struct engine *g, struct caller *c, const uint8_t *p, size_t n, int fd);
	void (*caller_gone)(struct engine *g, struct caller *c);
	/* May it end? */
	bool (*is_idle)(const struct engine *g);
	void (*end)(struct engine *g);
};

extern const struct engine_store engine_static_store, engine_agent_store;

/* A call that blocks, on a worker. done() on the loop, then the job is freed. */
struct job {
	uv_work_t work;
	void (*run)(struct job *j);
	void (*done)(struct job *j);
};

void job_begin(struct engine *g, struct job *j);

/* engine_volume.c */
struct vol *vol_new(struct engine *g, const uint8_t id[VOLUME_ID_BYTES]); /* VOL_CLOSED */
void vol_open(struct vol *v);
void vol_end(struct vol *v);
void vol_broken(struct vol *v, int rc); /* V13: it ends, and is opened in a new incarnation */
void vol_step(struct vol *v, usec_t now);
uint64_t vol_size(const struct vol *v); /* in use here, or, where nothing is open, as the row says */
const struct volume_member *vol_member(const struct vol *v); /* this node's, or NULL */
bool vol_serves(const struct vol *v);                        /* a client that connects now is let in */
void vol_drop_clients(struct vol *v);
void vol_path(const struct vol *v, char ret[PATH_BYTES_MAX + 64]); /* the replica's folder */

/* engine_meta.c */
void meta_init(struct vol *v);
void meta_free(struct vol *v);
void meta_state(struct vol *v, const struct volume_state *state, uint64_t seq);
void meta_intents(struct vol *v, const uint8_t *bits);
void meta_map(struct vol *v, uint32_t extent, const struct volume_ballot *stamps);
void meta_grow(struct vol *v, usec_t now); /* if it is to: see struct volume_row */

/* engine_loss.c: disk errors that an engine may have been told as it was killed */
void loss_begin(struct engine *g);     /* with the folder's lock */
void loss_look(struct engine *g);      /* [worker] before a replica is opened; the first one looks, others wait */
void loss_end(const struct engine *g); /* all is closed */

/* engine_erase.c: the files of a replica that was given up */
void vol_erase(struct vol *v); /* store->erased() follows, and VOL_ERASED or an opening anew */
void erase_leftovers(struct engine *g);

/* engine_sock.c: `run/vol.sock` */
int sock_new(struct engine *g, struct sock **ret, struct err *e);
void sock_close(struct sock *s, void (*cb)(void *ctx), void *ctx);
void sock_send_all(struct sock *s, const struct message_type *type, const void *msg);
void caller_send(struct caller *c, const void *p, size_t n); /* may end it */
bool caller_is_slow(const struct caller *c);                 /* something waits until it reads */
void caller_end(struct caller *c);

/* engine_links.c */
struct links *links_new(struct engine *g);
void links_close(struct links *s, void (*cb)(void *ctx), void *ctx);
void links_take(struct links *s, const struct bulk_handover *h, int fd); /* takes @fd */
bool links_has(const struct links *s, node_id_t node, bool *ret_is_worn);
void links_turn(struct links *s);
void links_send(struct links *s, struct vol *v, node_id_t node, const struct volume_frame *f);
void links_relink(struct vol *v, node_id_t node);
void links_tell(struct links *s, struct vol *v, usec_t now);
void links_introduce(struct links *s, struct vol *v); /* a core that is new, to the links that are there */

/* engine_guests.c */
extern const struct nbd_callbacks engine_guest_callbacks; /* but for the context */

/* engine_scrub.c */
int scrub_begin(struct vol *v, bool primary_wins);
void scrub_found(struct vol *v, const struct volume_finding *f);
void scrub_turn(struct vol *v, usec_t now);

/* engine_ask.c: `run/volctl.sock` */
int ask_new(struct engine *g, struct ask **ret, struct err *e);
void ask_close(struct ask *a, void (*cb)(void *ctx), void *ctx);

/* engine.c */
struct vol *engine_find(struct engine *g, const char *name);

#endif
