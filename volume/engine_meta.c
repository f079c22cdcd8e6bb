/* SPDX-License-Identifier: Apache-2.0
 * A replica's metadata, written by one job at a time: what comes meanwhile is written by the next, and only its newest.
 */
#include "volume/engine_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROW_AGAIN (USEC_PER_SEC) /* there was no room */

struct meta_job {
	struct job job;
	struct vol *v;
	bool is_state, is_intents;
	struct volume_state state;
	uint64_t seq;
	uint8_t *bits;
	struct map_job *map;
	uint64_t grow_to;
	int rc;
	struct err e;
};

static void run(struct job *j)
{
	struct meta_job *m = CONTAINER_OF(j, struct meta_job, job);
	struct volume_replica *r = m->v->replica;

	if (m->is_state) {
		m->rc = volume_replica_write_state(r, &m->state, &m->e);
	} else if (m->is_intents) {
		m->rc = volume_replica_write_intents(r, m->bits, &m->e);
	} else if (m->grow_to) {
		m->rc = volume_replica_grow(r, m->grow_to, &m->e);
	} else {
		struct volume_map_write w = {m->map->extent, m->map->stamps};

		m->rc = volume_replica_write_maps(r, &w, 1, true, &m->e);
	}
}

static void next(struct vol *v);

static void grown(struct vol *v, const struct meta_job *m)
{
	struct meta *q = &v->meta;
	uint8_t *bits;

	v->growing = 0;
	v->grow_again = clock_boottime() + GROW_AGAIN;
	(void)snprintf(v->problem, sizeof v->problem, "%.*s", (int)sizeof v->problem - 1, m->rc < 0 ? m->e.text : "");
	if (m->rc == -EIO) { /* V13 */
		vol_broken(v, m->rc);
	} else if (m->rc == 0) {
		bits = xcalloc(1, volume_bits_bytes(m->grow_to));
		memcpy(bits, q->bits, q->bytes);
		free(q->bits);
		q->bits = bits;
		q->bytes = volume_bits_bytes(m->grow_to);
		v->room = m->grow_to;
		log_info("%s: the replica here has room for %llu bytes", v->name, (unsigned long long)v->room);
		volume_core_grown(v->core, v->room);
		v->g->store->grown(v);
	}
}

static void done(struct job *j)
{
	struct meta_job *m = CONTAINER_OF(j, struct meta_job, job);
	struct vol *v = m->v;

	v->jobs--;
	v->meta.busy = false;
	if (m->rc < 0)
		log_error("%s: %s", v->name, m->e.text);
	if (!v->core)
		; /* it ended meanwhile */
	else if (m->is_state)
		volume_core_state_written(v->core, m->seq, m->rc);
	else if (m->is_intents)
		volume_core_intents_written(v->core, m->rc);
	else if (m->grow_to)
		grown(v, m);
	else
		volume_core_map_written(v->core, m->map->extent, m->rc);
	if (v->core && m->is_state)
		v->g->store->moved(v); /* a ballot is durable: it may lead now */
	free(m->bits);
	free(m->map);
	free(m);
	next(v);
}

static void next(struct vol *v)
{
	struct meta *q = &v->meta;
	struct meta_job *m;

	if (q->busy || !v->core || (!q->has_state && !q->has_intents && !q->maps && !q->grow_to))
		return;
	m = xcalloc(1, sizeof *m);
	m->job = (struct job){.run = run, .done = done};
	m->v = v;
	if (q->has_state) {
		m->is_state = true;
		m->state = q->state;
		m->seq = q->seq;
		q->has_state = false;
	} else if (q->has_intents) {
		m->is_intents = true;
		m->bits = xcalloc(1, q->bytes);
		memcpy(m->bits, q->bits, q->bytes);
		q->has_intents = false;
	} else if (q->grow_to) {
		m->grow_to = q->grow_to;
		q->grow_to = 0;
	} else {
		m->map = q->maps;
		q->maps = m->map->next;
		if (!q->maps)
			q->maps_end = &q->maps;
	}
	q->busy = true;
	v->jobs++;
	job_begin(v->g, &m->job);
}

void meta_init(struct vol *v)
{
	size_t bytes = volume_bits_bytes(v->room);

	v->meta = (struct meta){.bits = xcalloc(1, bytes), .bytes = bytes};
	v->meta.maps_end = &v->meta.maps;
}

void meta_free(struct vol *v)
{
	while (v->meta.maps) {
		struct map_job *map = v->meta.maps;

		v->meta.maps = map->next;
		free(map);
	}
	free(v->meta.bits);
	v->meta = (struct meta){0};
}

void meta_state(struct vol *v, const struct volume_state *state, uint64_t seq)
{
	v->meta.state = *state;
	v->meta.seq = seq;
	v->meta.has_state = true;
	next(v);
}

void meta_intents(struct vol *v, const uint8_t *bits)
{
	memcpy(v->meta.bits, bits, (volume_extents(v->room) + 7) / 8);
	v->meta.has_intents = true;
	next(v);
}

void meta_map(struct vol *v, uint32_t extent, const struct volume_ballot *stamps)
{
	struct map_job *map = xcalloc(1, sizeof *map);
	uint64_t first = (uint64_t)extent * VOLUME_EXTENT_BLOCKS, blocks = volume_blocks(v->room) - first;

	map->extent = extent;
	memcpy(map->stamps, stamps, (blocks < VOLUME_EXTENT_BLOCKS ? blocks : VOLUME_EXTENT_BLOCKS) * sizeof *stamps);
	*v->meta.maps_end = map;
	v->meta.maps_end = &map->next;
	next(v);
}

struct write_back_job {
	struct job job;
	struct vol *v;
	int rc;
	struct err e;
};

static void write_back_run(struct job *j)
{
	struct write_back_job *w = CONTAINER_OF(j, struct write_back_job, job);

	w->rc = volume_replica_write_back(w->v->replica, &w->e);
}

static void write_back_done(struct job *j)
{
	struct write_back_job *w = CONTAINER_OF(j, struct write_back_job, job);
	struct vol *v = w->v;

	v->jobs--;
	if (w->rc < 0)
		log_error("%s: %s", v->name, w->e.text);
	if (v->step == VOL_OPEN && w->rc == -EIO) { /* V13 */
		vol_broken(v, w->rc);
	} else if (v->step == VOL_OPEN && w->rc < 0) {
		v->growing = 0;
		v->grow_again = clock_boottime() + GROW_AGAIN;
	} else if (v->step == VOL_OPEN) {
		v->meta.grow_to = v->growing;
		next(v);
	}
	free(w);
}

/* What the store says, or is to say as soon as all in sync have room for it. What is dirty is written back before: else
 * promises and intents would wait behind the growth for all of it. */
void meta_grow(struct vol *v, usec_t now)
{
	uint64_t want = v->row.grow_to > v->row.size ? v->row.grow_to : v->row.size;
	struct write_back_job *w;

	if (v->growing || want <= v->room || now < v->grow_again)
		return;
	v->growing = want;
	w = xcalloc(1, sizeof *w);
	w->job = (struct job){.run = write_back_run, .done = write_back_done};
	w->v = v;
	v->jobs++;
	job_begin(v->g, &w->job);
}
