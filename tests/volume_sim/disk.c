/* SPDX-License-Identifier: Apache-2.0
 * Disks: a cache that a power cut loses sector by sector, and metadata that is there or not. */
#include "tests/volume_sim/vsim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Blocks at the borders of extents, side by side and apart, so that one write spans two of each. */
static const unsigned hot_blocks[] = {0, 1, 254, 255, 256, 257, 512};

int vs_disk_hot(uint64_t sector)
{
	if (sector == SIZE / SECTOR - 1)
		return HOT - 1;
	for (unsigned i = 0; i < ARRAY_LEN(hot_blocks); i++)
		if (sector / PER_BLOCK == hot_blocks[i])
			return (int)(i * PER_BLOCK + sector % PER_BLOCK);
	return -1;
}

uint64_t vs_disk_sector(unsigned hot)
{
	return hot == HOT - 1 ? SIZE / SECTOR - 1 : hot_blocks[hot / PER_BLOCK] * (uint64_t)PER_BLOCK + hot % PER_BLOCK;
}

static bool is_being_synced(const struct vs_node *n, uint64_t seq)
{
	for (unsigned i = 0; i < IOS_MAX; i++)
		if (n->ios[i].used && n->ios[i].kind == W_DATA && n->ios[i].io_kind == VOLUME_IO_SYNC &&
		    seq <= n->ios[i].upto)
			return true;
	return false;
}

static void put_cached(struct vsim *s, struct vs_node *n, unsigned hot, uint32_t v)
{
	struct vs_disk *d = &n->disk;

	/* What is overwritten may have been written back, and must have been where a sync covers it. */
	if (d->cached_seq[hot] != d->durable_seq[hot] &&
	    (vs_chance(s, 200) || is_being_synced(n, d->cached_seq[hot]))) {
		d->durable[hot] = d->cached[hot];
		d->durable_seq[hot] = d->cached_seq[hot];
	}
	d->cached[hot] = v;
	d->cached_seq[hot] = ++s->write_seq;
}

static bool is_write(enum volume_io_kind kind)
{
	return kind == VOLUME_IO_WRITE || kind == VOLUME_IO_ZERO || kind == VOLUME_IO_TRIM;
}

static void apply_write(struct vsim *s, struct vs_node *n, const struct vs_pending *p, bool torn)
{
	for (uint64_t i = 0; i < p->length / SECTOR; i++) {
		int hot = vs_disk_hot(p->offset / SECTOR + i);

		if (hot >= 0 && (!torn || vs_chance(s, 500)))
			put_cached(s, n, (unsigned)hot, p->io_kind == VOLUME_IO_WRITE ? p->data[i] : 0);
	}
}

static void apply_sync(struct vs_node *n, uint64_t upto)
{
	struct vs_disk *d = &n->disk;

	for (unsigned i = 0; i < HOT; i++)
		if (d->cached_seq[i] <= upto) {
			d->durable[i] = d->cached[i];
			d->durable_seq[i] = d->cached_seq[i];
		}
}

/* A hash of what is in the file: the values themselves, folded. */
static void hash_of(const struct vs_node *n, const struct vs_pending *p, uint8_t ret[VOLUME_HASH_BYTES])
{
	uint64_t h = 1469598103934665603ULL;

	for (uint64_t i = 0; i < p->length / SECTOR; i++) {
		int hot = vs_disk_hot(p->offset / SECTOR + i);

		h = (h ^ (hot >= 0 ? n->disk.cached[hot] : 0)) * 1099511628211ULL;
	}
	memset(ret, 0, VOLUME_HASH_BYTES);
	memcpy(ret, &h, sizeof h);
}

static void read_into(const struct vs_node *n, const struct vs_pending *p)
{
	uint32_t *to = p->io->data;

	for (uint64_t i = 0; i < p->length / SECTOR; i++) {
		int hot = vs_disk_hot(p->offset / SECTOR + i);

		to[i] = hot >= 0 ? n->disk.cached[hot] : 0;
	}
}

static void apply(struct vsim *s, struct vs_node *n, const struct vs_pending *p, bool torn)
{
	s->touched |= p->kind == W_DATA;
	switch (p->kind) {
	case W_DATA:
		if (is_write(p->io_kind))
			apply_write(s, n, p, torn);
		else if (p->io_kind == VOLUME_IO_SYNC)
			apply_sync(n, p->upto);
		break;
	case W_STATE:
		n->disk.state = p->state;
		break;
	case W_INTENTS:
		memcpy(n->disk.intents, p->intents, sizeof p->intents);
		break;
	case W_MAP:
		for (unsigned i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
			if (p->extent * VOLUME_EXTENT_BLOCKS + i < BLOCKS)
				n->disk.stamps[p->extent * VOLUME_EXTENT_BLOCKS + i] = p->stamps[i];
		break;
	}
}

static void done_event(struct vsim *s, struct vs_event *e)
{
	struct vs_node *n = &s->nodes[e->node];
	struct vs_pending *p = &n->ios[e->a];
	struct vs_pending was;
	int rc = (int)(int64_t)e->c;

	if (!p->used || p->id != e->b)
		return;
	if (rc == 0)
		apply(s, n, p, false);
	if (rc == 0 && p->kind == W_DATA && p->io_kind == VOLUME_IO_READ)
		read_into(n, p);
	if (rc == 0 && p->kind == W_DATA && p->io_kind == VOLUME_IO_HASH)
		hash_of(n, p, p->io->hash);
	was = *p;
	p->used = false;
	free(p->data);
	switch (was.kind) {
	case W_DATA:
		volume_core_io_done(n->core, was.io, rc);
		break;
	case W_STATE:
		volume_core_state_written(n->core, was.seq, rc);
		break;
	case W_INTENTS:
		volume_core_intents_written(n->core, rc);
		break;
	case W_MAP:
		volume_core_map_written(n->core, was.extent, rc);
		break;
	}
}

struct vs_pending *vs_disk_pending(struct vsim *s, struct vs_node *n, enum vs_write_kind kind)
{
	for (unsigned i = 0; i < IOS_MAX; i++)
		if (!n->ios[i].used) {
			n->ios[i] = (struct vs_pending){.used = true, .id = ++s->io_id, .kind = kind};
			return &n->ios[i];
		}
	CHECK(!"room for an I/O");
}

void vs_disk_begin(struct vsim *s, struct vs_node *n, struct vs_pending *p)
{
	usec_t delay = 20 + vs_random(s, 2 * n->slow);
	usec_t *last = p->kind == W_STATE ? &n->last_state : p->kind == W_INTENTS ? &n->last_intents : &n->last_map;
	struct vs_event *e;

	if (vs_chance(s, 20))
		delay *= 20;
	if (s->now < n->stall_until[p->kind] && (p->kind != W_DATA || is_write(p->io_kind)))
		delay += n->stall[p->kind];
	p->upto = s->write_seq;
	if (p->kind != W_DATA) { /* one after the other */
		if (s->now + delay <= *last)
			delay = *last + 1 - s->now;
		*last = s->now + delay;
	}
	e = vs_after(s, delay, done_event, n->id);
	e->a = (uint64_t)(p - n->ios);
	e->b = p->id;
	if (p->kind == W_DATA && !s->healing && vs_random(s, 20000) < s->faults.io_error &&
	    p->io_kind != VOLUME_IO_READ && p->io_kind != VOLUME_IO_HASH)
		e->c = (uint64_t)(int64_t)-EIO;
}

/* Planted: it lands when its process has a successor already (V28). */
struct late {
	struct vs_pending p;
	uint32_t data[1024];
};

static void late_event(struct vsim *s, struct vs_event *e)
{
	struct late *l = e->p;

	l->p.data = l->data;
	if (s->nodes[e->a].power)
		apply(s, &s->nodes[e->a], &l->p, false);
}

static void goes_late(struct vsim *s, struct vs_node *n, const struct vs_pending *p)
{
	struct late *l = xcalloc(1, sizeof *l);
	struct vs_event *e = vs_after(s, vs_random(s, 500 * USEC_PER_MS), late_event, 0);

	l->p = *p;
	if (p->data)
		memcpy(l->data, p->data, p->length / SECTOR * sizeof *p->data);
	e->a = n->id;
	e->p = l;
}

/* The process is gone: what the kernel has got ends, what it had not got does not; then the next one opens (V28). */
void vs_disk_crash(struct vsim *s, struct vs_node *n)
{
	for (unsigned i = 0; i < IOS_MAX; i++) {
		struct vs_pending *p = &n->ios[i];

		if (!p->used)
			continue;
		if (PLANTED(no_drain_at_reopen) && p->kind == W_DATA && is_write(p->io_kind))
			goes_late(s, n, p);
		else if (vs_chance(s, 500))
			apply(s, n, p, false);
		p->used = false;
		free(p->data);
	}
	n->last_state = n->last_intents = n->last_map = 0;
	if (PLANTED(forget_promise))
		n->disk.state.promised = (struct volume_ballot){1, 0};
}

void vs_disk_power(struct vsim *s, struct vs_node *n)
{
	struct vs_disk *d = &n->disk;

	for (unsigned i = 0; i < IOS_MAX; i++) {
		struct vs_pending *p = &n->ios[i];

		if (!p->used)
			continue;
		if (!(p->kind == W_DATA && p->io_kind == VOLUME_IO_SYNC) && vs_chance(s, 500))
			apply(s, n, p, true);
		p->used = false;
		free(p->data);
	}
	for (unsigned i = 0; i < HOT; i++) {
		if (vs_chance(s, 300)) {
			d->durable[i] = d->cached[i];
			d->durable_seq[i] = d->cached_seq[i];
		}
		d->cached[i] = d->durable[i];
		d->cached_seq[i] = d->durable_seq[i];
	}
	s->touched = true;
	n->last_state = n->last_intents = n->last_map = 0;
	if (PLANTED(forget_promise))
		d->state.promised = (struct volume_ballot){1, 0};
	d->state.incarnation = vs_random(s, UINT64_MAX) | 1; /* V25: made durable by whoever opens it next */
}
