/* SPDX-License-Identifier: Apache-2.0
 * What a replica keeps besides the data: its state, its intents and the map of stamps, each durable before what rests
 * on it. */
#include "volume/core_internal.h"

#include <errno.h>
#include <string.h>

/* ---- state ---- */

/* The number to wait for in state_written. */
uint64_t disk_save(struct volume_core *c)
{
	c->state_seq++;
	c->fx.state_write(c->fx.ctx, &c->state, c->state_seq);
	return c->state_seq;
}

void volume_core_state_written(struct volume_core *c, uint64_t seq, int rc)
{
	if (rc < 0) {
		core_break(c, rc);
		return;
	}
	if (seq > c->state_written)
		c->state_written = seq;
	core_step(c);
}

/* ---- intents ---- */

#define FOR_EXTENTS(e, offset, length) \
	for (uint64_t e = (offset) / VOLUME_EXTENT_BYTES; e <= ((offset) + (length)-1) / VOLUME_EXTENT_BYTES; e++)

/* V14: set, and soon durable. A clearing that has not reached the bit is given up: the intent may always stay. */
void disk_want_intents(struct volume_core *c, uint64_t offset, uint64_t length)
{
	FOR_EXTENTS(e, offset, length)
	{
		CHECK(e < c->n_extents);
		bit_clear(c->clearing, e);
		bit_clear(c->mapped, e);
		if (!bit_get(c->intents, e)) {
			bit_set(c->intents, e);
			c->intents_dirty = true;
		}
	}
}

bool disk_has_intents(const struct volume_core *c, uint64_t offset, uint64_t length)
{
	if (PLANTED(lazy_intent))
		return true;
	FOR_EXTENTS(e, offset, length)
	if (!bit_get(c->durable, e) || !bit_get(c->intents, e))
		return false;
	return true;
}

static void intents_begin(struct volume_core *c)
{
	for (size_t w = 0; w < bit_words(c->n_extents); w++) {
		uint64_t off = c->clearing[w] & c->mapped[w];

		c->intents[w] &= ~off; /* V16: the map is durable, now the bit */
		c->clearing[w] &= ~off;
		c->mapped[w] &= ~off;
		c->writing[w] = c->intents[w];
		c->durable[w] &= c->intents[w];
		for (unsigned b = 0; b < 8; b++)
			c->intent_bytes[w * 8 + b] = (uint8_t)(c->writing[w] >> (8 * b));
	}
	c->intents_dirty = false;
	c->intents_busy = true;
	c->fx.intents_write(c->fx.ctx, c->intent_bytes);
}

void volume_core_intents_written(struct volume_core *c, int rc)
{
	CHECK(c->intents_busy);
	c->intents_busy = false;
	if (rc < 0) {
		core_break(c, rc);
		return;
	}
	memcpy(c->durable, c->writing, bit_words(c->n_extents) * sizeof *c->durable);
	core_step(c);
}

/* V16: the map of the extent durable, then its bit. */
void disk_clear(struct volume_core *c, uint32_t extent)
{
	struct volume_ballot page[VOLUME_EXTENT_BLOCKS];

	CHECK(extent < c->n_extents);
	if (!bit_get(c->intents, extent) || bit_get(c->clearing, extent))
		return;
	bit_set(c->clearing, extent);
	if (PLANTED(clear_before_map)) {
		bit_set(c->mapped, extent);
		c->intents_dirty = true;
		return;
	}
	c->map_writes[extent]++;
	map_copy(c, extent, page);
	c->fx.map_write(c->fx.ctx, extent, page);
}

void volume_core_map_written(struct volume_core *c, uint32_t extent, int rc)
{
	if (rc == -ENOSPC || rc == -EDQUOT) { /* a full disk loses nothing: the intent stays, and is let go later */
		bit_clear(c->clearing, extent);
		c->touched[extent] = c->now;
	} else if (rc < 0) {
		core_break(c, rc);
		return;
	}
	/* Given up and begun anew in between: the page may be the older one, and the second writing follows. */
	if (bit_get(c->clearing, extent) && c->map_writes[extent] == 1) {
		bit_set(c->mapped, extent);
		c->intents_dirty = true;
	}
	CHECK(c->map_writes[extent] > 0);
	c->map_writes[extent]--;
	core_step(c);
}

void disk_step(struct volume_core *c)
{
	if (c->intents_dirty && !c->intents_busy)
		intents_begin(c);
}

/* ---- the map ---- */

void disk_stamp(struct volume_core *c, uint64_t offset, uint64_t length, struct volume_ballot b)
{
	uint64_t last = (offset + length - 1) / VOLUME_BLOCK_BYTES;

	CHECK(last < c->n_blocks);
	for (uint64_t i = offset / VOLUME_BLOCK_BYTES; i <= last; i++)
		map_set(c, i, b);
}

/* V17, V30: what was in flight when the lights went out counts as written in ballot @b. */
void disk_restamp_intents(struct volume_core *c, struct volume_ballot b, struct volume_ballot old_active)
{
	if (PLANTED(no_restamp) && old_active.epoch)
		return;
	for (uint64_t i = 0; i < c->n_blocks; i++) {
		if (!bit_get(c->intents, i / VOLUME_EXTENT_BLOCKS))
			continue;
		bit_set(c->restamped, i / VOLUME_EXTENT_BLOCKS);
		if (PLANTED(restamp_some) && volume_ballot_compare(map_get(c, i), old_active) < 0)
			continue;
		map_set(c, i, b);
	}
}
