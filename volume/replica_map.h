/* SPDX-License-Identifier: Apache-2.0
 * The live map: the ballot of each block's last write, in memory for the extents that were touched.
 *
 * It does no I/O and belongs to one thread, the engine's loop ([loop] below; any one thread will do). What it lacks,
 * the owner has read elsewhere: volume_map_load_begin(), volume_replica_read_map() on a worker, volume_map_load_end().
 * Setting a stamp never waits for that: a page may be known in part.
 *
 * A page is dirty from a set or a fill until it was written to `epochs` as it is. Only pages that are clean, and not
 * being loaded, are ever evicted, the least recently used first. So memory stays below @bytes_max if the owner writes
 * dirty pages out when volume_map_stats() says that it is exceeded; it may do so at any time while the intent is set,
 * without clearing anything (V30). */
#ifndef KEDGE_VOLUME_REPLICA_MAP_H
#define KEDGE_VOLUME_REPLICA_MAP_H

#include "volume/format.h"

struct volume_map;

struct volume_map_stats {
	size_t bytes;     /* all that the map has allocated */
	size_t bytes_max; /* what it may have; above, every clean page is gone and dirty ones must be written out */
	size_t pages;
	size_t dirty; /* pages that may not be evicted */
	uint64_t loads;
	uint64_t evictions;
};

/* [loop] A map that knows nothing yet, for a volume of @size bytes. */
struct volume_map *volume_map_new(uint64_t size, size_t bytes_max);

/* [loop] NULL is fine. Returns NULL. */
struct volume_map *volume_map_free(struct volume_map *map);

/* [loop] The stamp of @block. -EAGAIN: its extent must be loaded first. */
int volume_map_get(struct volume_map *map, uint64_t block, struct volume_ballot *ret) KEDGE_MUST_CHECK;

/* [loop] Stamp a block: its extent's intent must be set already (V14). */
void volume_map_set(struct volume_map *map, uint64_t block, struct volume_ballot stamp);

/* [loop] Stamp all blocks of an intent extent, whatever they had: V17 with the new lead, V30 with `promised`. Costs no
 * memory. @stamp must not be below that of an earlier fill; extents that were filled before and not touched since rise
 * to it too, which costs a comparison and is never wrong. */
void volume_map_fill(struct volume_map *map, uint32_t extent, struct volume_ballot stamp);

/* [loop] Mark in @ret (a bit per block, low bits first) the blocks of @extent with a stamp above @base. Returns how
 * many, or -EAGAIN: the extent must be loaded first. */
int volume_map_newer(struct volume_map *map, uint32_t extent, struct volume_ballot base,
		     uint8_t ret[VOLUME_EXTENT_BLOCKS / 8]) KEDGE_MUST_CHECK;

/* [loop] The first extent from @from on of which the map holds anything, or the number of extents. With
 * volume_replica_next_map() a walk over a sparse volume is short. */
uint32_t volume_map_next(const struct volume_map *map, uint32_t from);

/* [loop] Begin to load @extent. Returns a ticket for volume_map_load_end(), or 0: nothing is lacking, or it is being
 * loaded. */
uint32_t volume_map_load_begin(struct volume_map *map, uint32_t extent);

/* [loop] The load is over: take the stamps (VOLUME_EXTENT_BLOCKS) of blocks that are not known yet; NULL: it failed,
 * they stay unknown. A ticket that was overtaken by a fill does nothing. */
void volume_map_load_end(struct volume_map *map, uint32_t extent, uint32_t ticket, const struct volume_ballot *stamps);

/* [loop] Copy the stamps of @extent to write them. @ret_version is for volume_map_written(). -EAGAIN: load it first. */
int volume_map_copy(struct volume_map *map, uint32_t extent, struct volume_ballot ret[VOLUME_EXTENT_BLOCKS],
		    uint64_t *ret_version) KEDGE_MUST_CHECK;

/* [loop] What volume_map_copy() gave is in `epochs`, durable or not: the page is clean unless it changed since. */
void volume_map_written(struct volume_map *map, uint32_t extent, uint64_t version);

/* [loop] The dirty page that was not used for longest and is not being loaded, to be written out; perhaps to be loaded
 * before. False: none. */
bool volume_map_oldest_dirty(const struct volume_map *map, uint32_t *ret_extent);

/* [loop] */
void volume_map_stats(const struct volume_map *map, struct volume_map_stats *ret);

#endif
