/* SPDX-License-Identifier: Apache-2.0
 * What the files of the engine share. */
#ifndef KEDGE_VOLUME_ENGINE_INTERNAL_H
#define KEDGE_VOLUME_ENGINE_INTERNAL_H

#include "volume/disk_io.h"
#include "volume/engine.h"
#include "volume/nbd.h"
#include "volume/replica.h"

#include <uv.h>

enum vol_step {
	VOL_OPENING, /* a job opens or makes the replica, and reports it */
	VOL_OPEN,
	VOL_FAILED, /* could not be opened: tried again */
	VOL_ENDING, /* its core is over: it is closed once nothing is under way */
	VOL_CLOSED,
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
	struct volume_state state;
	uint64_t seq;
	uint8_t *bits; /* volume_bits_bytes() */
	struct map_job *maps, **maps_end;
};

struct links;
struct ask;

#define FINDINGS_MAX 64

struct vol {
	struct vol *next;
	struct engine *g;
	char name[NAME_BYTES_MAX];
	uint8_t id[VOLUME_ID_BYTES];
	uint64_t size;
	struct volume_row row;
	enum vol_step step;
	bool is_reported; /* the store knows what was opened here */
	bool force;       /* the next opening is in a new incarnation (V13) */
	usec_t again;     /* VOL_FAILED: when */
	struct volume_replica *replica;
	struct volume_core *core;
	unsigned ios;
	unsigned jobs;
	unsigned buffers;
	usec_t relink[NODES_MAX + 1]; /* when the core may greet this node again; 0: it knows of the link */
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
	char file[PATH_BYTES_MAX];
	node_id_t node;
	int lock;
	struct disk_io *disk;
	struct nbd_server *nbd;
	struct links *links;
	struct ask *ask;
	uv_timer_t timer;
	struct vol *vols;
	bool reading; /* the static store */
	struct {
		uint64_t inode, ns;
		int64_t sec;
	} read_as; /* the file that was read last */
	bool closing;
	unsigned parts; /* to be closed */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* A call that blocks, on a worker. done() on the loop, then the job is freed. */
struct job {
	uv_work_t work;
	void (*run)(struct job *j);
	void (*done)(struct job *j);
};

void job_begin(struct engine *g, struct job *j);

/* engine_volume.c */
void vol_open(struct vol *v);
void vol_end(struct vol *v);
void vol_step(struct vol *v, usec_t now);
void vol_row(struct vol *v, const struct volume_row *row);
void vol_path(const struct vol *v, char ret[PATH_BYTES_MAX + 64]); /* the replica's folder */

/* engine_meta.c */
void meta_init(struct vol *v);
void meta_free(struct vol *v);
void meta_state(struct vol *v, const struct volume_state *state, uint64_t seq);
void meta_intents(struct vol *v, const uint8_t *bits);
void meta_map(struct vol *v, uint32_t extent, const struct volume_ballot *stamps);

/* engine_links.c */
int links_new(struct engine *g, struct links **ret, struct err *e);
void links_close(struct links *s, void (*cb)(void *ctx), void *ctx);
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
void engine_look(struct engine *g);

#endif
