/* SPDX-License-Identifier: Apache-2.0
 * Disks of the simulated VMs: each is a whole volume of tests/volume_sim, real cores on virtual disks and links, whose
 * store is the cluster around it. Both run in one order of events. */
#ifndef KEDGE_TESTS_SIM_DISKS_H
#define KEDGE_TESTS_SIM_DISKS_H

#include "tests/sim/world.h"
#include "tests/volume_sim/vsim.h"

/* A replica, as the engine of its node and the agent there have it. */
struct sim_local {
	/* the engine */
	struct volume_row row; /* version 0: it was told none */
	bool serve;            /* its guest may use it here */
	bool leads, serves;    /* said last */
	usec_t next_status, next_opened;
	uint64_t asked; /* its proposal without an outcome; 0: none */
	struct volume_change change;
	usec_t asked_until;
	/* the agent */
	bool is_told; /* the engine has this row: */
	uint64_t version;
	bool told_serve;
	bool has_status, status_serves; /* as the engine said last */
	uint32_t status_epoch;
	uint64_t reported, reported_room;
	usec_t reported_at;
	usec_t last_down, last_up; /* the socket between both: FIFO */
};

struct sim_volume {
	struct vsim s;
	struct world *w;
	unsigned vm;
	char name[NAME_BYTES_MAX], id[VOLUME_NAME_ID], label[16];
	struct sim_local locals[SIM_NODES + 1];
};

static inline struct sim_volume *sim_volume_of(const struct vsim *s)
{
	return CONTAINER_OF((struct vsim *)s, struct sim_volume, s);
}

/* ---- disks.c ---- */
struct sim_volume *sim_volume_named(struct world *w, const char *id);

/* ---- engines.c ---- */
struct volume_row sim_row_of(const struct store_volume *v);
extern const struct vs_around sim_engine_around;
void sim_engines_start(struct world *w);
void sim_engine_crash(struct world *w, unsigned node);

/* ---- asking.c ---- */
/* As the agent of @node: ask the leader for a change; @seq: an engine's proposal that waits for the outcome, else 0. */
void sim_ask(struct sim_volume *v, unsigned node, const struct message_type *type, const void *body, uint64_t seq);
void sim_engine_answered(struct sim_volume *v, unsigned node, uint64_t seq, int rc);

#endif
