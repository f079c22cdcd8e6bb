/* SPDX-License-Identifier: Apache-2.0
 * A volume that grows (decision 0018): first every member in sync has room, durable, then the store says the new size,
 * in a new epoch, then a primary uses it (V5). So at any time the volume is one that always had that size, and whose
 * end nobody has written to: no other rule of the protocol knows of it. */
#include "volume/core_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- what is used ---- */

uint64_t volume_core_size(const struct volume_core *c)
{
	return c->row.size && c->row.size < c->config.size ? c->row.size : c->config.size;
}

uint64_t core_blocks(const struct volume_core *c)
{
	return volume_blocks(volume_core_size(c));
}

/* Only a FORCE names a replica that has no room yet. */
bool grow_may_lead(const struct volume_core *c)
{
	return c->row.size <= c->config.size || PLANTED(grow_without_room);
}

/* It would refuse what lies behind its end. */
bool grow_may_join(const struct volume_core *c, const struct volume_member *m)
{
	return c->row.size == 0 || m->size == 0 || m->size >= c->row.size;
}

/* ---- room ---- */

static void *stretch(void *p, size_t old, size_t n, size_t bytes)
{
	uint8_t *q = xcalloc(n, bytes);

	memcpy(q, p, old * bytes);
	free(p);
	return q;
}

static void stretch_bits(struct volume_core *c, size_t old, size_t n)
{
	uint64_t **maps[] = {&c->intents,   &c->durable,   &c->writing, &c->clearing,  &c->mapped,
			     &c->unflushed, &c->restamped, &c->remote,  &c->flush.fset};

	for (size_t i = 0; i < ARRAY_LEN(maps); i++)
		*maps[i] = stretch(*maps[i], old, n, sizeof **maps[i]);
	for (unsigned i = 0; i < PEERS_MAX; i++)
		c->peers[i].seen = stretch(c->peers[i].seen, old, n, sizeof *c->peers[i].seen);
	if (c->cold_set)
		c->cold_set = stretch(c->cold_set, old, n, sizeof *c->cold_set);
	c->intent_bytes = stretch(c->intent_bytes, old, n, 8);
}

void volume_core_grown(struct volume_core *c, uint64_t size)
{
	uint32_t extents = volume_extents(size);
	uint64_t blocks = volume_blocks(size);

	CHECK(volume_size_is_valid(size) && size >= c->config.size);
	stretch_bits(c, bit_words(c->n_extents), bit_words(extents));
	for (unsigned i = 0; i < PEERS_MAX; i++)
		c->peers[i].need = stretch(c->peers[i].need, bit_words(c->n_blocks), bit_words(blocks), 8);
	c->touched = stretch(c->touched, c->n_extents, extents, sizeof *c->touched);
	c->map_writes = stretch(c->map_writes, c->n_extents, extents, sizeof *c->map_writes);
	c->stamps = stretch(c->stamps, c->n_extents, extents, sizeof *c->stamps);
	c->n_extents = extents;
	c->n_blocks = blocks;
	c->config.size = size;
	core_step(c);
}
