/* SPDX-License-Identifier: Apache-2.0
 * The live map: a stamp per block, kept by extent. Most extents were never written, or were last written in one ballot:
 * they take no page. */
#include "volume/core_internal.h"

#include <stdlib.h>
#include <string.h>

static bool is_uniform(const struct volume_ballot *page)
{
	for (size_t i = 1; i < VOLUME_EXTENT_BLOCKS; i++)
		if (volume_ballot_compare(page[0], page[i]) != 0)
			return false;
	return true;
}

struct volume_ballot map_get(const struct volume_core *c, uint64_t block)
{
	const struct extent_stamps *s = &c->stamps[block / VOLUME_EXTENT_BLOCKS];

	CHECK(block < c->n_blocks);
	return s->page ? s->page[block % VOLUME_EXTENT_BLOCKS] : s->all;
}

void map_set(struct volume_core *c, uint64_t block, struct volume_ballot b)
{
	struct extent_stamps *s = &c->stamps[block / VOLUME_EXTENT_BLOCKS];

	CHECK(block < c->n_blocks);
	if (!s->page && volume_ballot_compare(s->all, b) == 0)
		return;
	if (!s->page) {
		s->page = xcalloc(VOLUME_EXTENT_BLOCKS, sizeof *s->page);
		for (size_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
			s->page[i] = s->all;
	}
	s->page[block % VOLUME_EXTENT_BLOCKS] = b;
}

void map_load(struct volume_core *c, uint32_t extent, const struct volume_ballot page[VOLUME_EXTENT_BLOCKS])
{
	struct extent_stamps *s = &c->stamps[extent];

	free(s->page);
	*s = (struct extent_stamps){.all = page[0]};
	if (is_uniform(page))
		return;
	s->page = xcalloc(VOLUME_EXTENT_BLOCKS, sizeof *s->page);
	memcpy(s->page, page, VOLUME_EXTENT_BLOCKS * sizeof *page);
}

/* As it is to be on the disk. The extent is idle: a page that says one thing only is given up. */
void map_copy(struct volume_core *c, uint32_t extent, struct volume_ballot ret[VOLUME_EXTENT_BLOCKS])
{
	struct extent_stamps *s = &c->stamps[extent];

	for (size_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		ret[i] = s->page ? s->page[i] : s->all;
	if (!s->page || !is_uniform(s->page))
		return;
	s->all = s->page[0];
	free(s->page);
	s->page = NULL;
}

void map_free(struct volume_core *c)
{
	for (uint32_t e = 0; e < c->n_extents; e++)
		free(c->stamps[e].page);
	free(c->stamps);
}
