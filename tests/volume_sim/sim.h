/* SPDX-License-Identifier: Apache-2.0
 * kedge-volume-sim: what stands around its one volume: a store with one row, whose leader is not asked whether it may,
 * faults and stories. */
#ifndef KEDGE_TESTS_VOLUME_SIM_SIM_H
#define KEDGE_TESTS_VOLUME_SIM_SIM_H

#include "tests/volume_sim/vsim.h"

/* ---- store.c ---- */
extern const struct vs_around store_around;
bool node_has_store(const struct vsim *s, unsigned node);
void store_create(struct vsim *s);
void store_leader(struct vsim *s, struct vs_event *e);
void store_move(struct vsim *s, unsigned to, bool keep_old);
void store_force(struct vsim *s, struct volume_member *b);

void store_committed(struct vsim *s, const char *what);

/* ---- store_grow.c ---- */
void grow_create(struct vsim *s);
void grow_try(struct vsim *s);
bool grow_may_add(const struct vsim *s, const struct volume_member *m);
void grow_event(struct vsim *s, struct vs_event *e);

/* ---- faults.c ---- */
void faults_choose(struct vsim *s);
void faults_event(struct vsim *s, struct vs_event *e);
void scrub_event(struct vsim *s, struct vs_event *e);
void faults_heal(struct vsim *s);
void faults_end(struct vsim *s);

/* ---- stories.c ---- */
void stories_start(struct vsim *s);
void stories_step(struct vsim *s);

#endif
