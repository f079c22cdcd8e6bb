/* SPDX-License-Identifier: Apache-2.0
 * The store's part of a volume that grows. Its first end lies within a block, on the border of an extent, or within the
 * first block of one. */
#include "tests/volume_sim/sim.h"

static const uint64_t firsts[] = {255 * (uint64_t)VOLUME_BLOCK_BYTES + 3 * SECTOR, VOLUME_EXTENT_BYTES,
				  256 * (uint64_t)VOLUME_BLOCK_BYTES + 5 * SECTOR};

void grow_create(struct vsim *s)
{
	s->row.size = SIZE;
	if (!s->grows)
		return;
	s->row.size = firsts[s->seed / 16 % ARRAY_LEN(firsts)];
	s->guest.size = s->row.size;
	for (unsigned n = 1; n <= NODES; n++)
		s->nodes[n].disk.size = s->row.size;
}

/* Before a change is told: is it the one that was waited for? */
void grow_try(struct vsim *s)
{
	if (!s->row.grow_to)
		return;
	for (size_t i = 0; i < s->row.n_members; i++) {
		const struct volume_member *m = &s->row.members[i];

		if (m->in_sync && m->size < s->row.grow_to && !PLANTED(grow_without_room))
			return;
	}
	s->row.size = s->row.grow_to;
	s->row.grow_to = 0;
	if (!PLANTED(grow_in_epoch))
		s->row.epoch++;
	vs_log(s, "store: it has %llu bytes", (unsigned long long)s->row.size);
}

/* Nobody comes in who has no room for what there is. */
bool grow_may_add(const struct vsim *s, const struct volume_member *m)
{
	return m->size >= s->row.size || PLANTED(grow_without_room);
}

/* Once by a sector, so that the end lies elsewhere, then by all that is left. */
void grow_event(struct vsim *s, struct vs_event *e)
{
	(void)e;
	if (s->row.size >= SIZE)
		return;
	if (!s->row.grow_to) {
		s->row.grow_to = s->healing || vs_chance(s, 500) ? SIZE : s->row.size + SECTOR;
		store_committed(s, "GROW wanted");
	}
	vs_after(s, 300 * USEC_PER_MS + vs_random(s, 3 * USEC_PER_SEC), grow_event, 0);
}
