/* SPDX-License-Identifier: Apache-2.0
 * The live map's pages: a table in two levels, two lists by last use, and one bit per extent that is filled. */
#include "volume/replica_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SHELF_PAGES 512u /* pointers in a piece of the table's second level */

/* Least recently used first. */
struct list {
	struct page *first, *last;
	size_t n;
};

struct page {
	struct page *prev, *next;
	struct list *list;
	uint32_t extent;
	uint32_t ticket;  /* of the load that is under way, or 0 */
	uint32_t unknown; /* blocks whose stamp is not known */
	bool dirty;
	uint64_t version; /* of the last change */
	uint8_t known[VOLUME_EXTENT_BLOCKS / 8];
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
};

struct shelf {
	uint32_t n; /* pages on it */
	struct page *pages[SHELF_PAGES];
};

struct volume_map {
	uint64_t blocks;
	uint32_t extents;
	uint32_t shelves_n;
	struct shelf **shelves;
	uint8_t *filled; /* a bit per extent: no page, all its blocks have @fill, the disk has something else */
	struct volume_ballot fill;
	struct list clean, held; /* held: dirty, or being loaded */
	uint64_t version;
	uint32_t ticket;
	size_t bytes, bytes_max;
	uint64_t loads, evictions;
};

/* ---- lists ---- */

static void list_remove(struct page *p)
{
	struct list *l = p->list;

	if (!l)
		return;
	*(p->prev ? &p->prev->next : &l->first) = p->next;
	*(p->next ? &p->next->prev : &l->last) = p->prev;
	p->prev = p->next = NULL;
	p->list = NULL;
	l->n--;
}

static void list_append(struct list *l, struct page *p)
{
	p->prev = l->last;
	*(l->last ? &l->last->next : &l->first) = p;
	l->last = p;
	p->list = l;
	l->n++;
}

/* To the end of the list where it belongs. */
static void page_used(struct volume_map *map, struct page *p)
{
	list_remove(p);
	list_append(p->dirty || p->ticket ? &map->held : &map->clean, p);
}

/* ---- the table ---- */

static struct page *page_find(const struct volume_map *map, uint32_t extent)
{
	const struct shelf *shelf;

	CHECK(extent < map->extents);
	shelf = map->shelves[extent / SHELF_PAGES];
	return shelf ? shelf->pages[extent % SHELF_PAGES] : NULL;
}

static void page_free(struct volume_map *map, struct page *p)
{
	struct shelf **at = &map->shelves[p->extent / SHELF_PAGES];

	list_remove(p);
	(*at)->pages[p->extent % SHELF_PAGES] = NULL;
	if (--(*at)->n == 0) {
		free(*at);
		*at = NULL;
		map->bytes -= sizeof **at;
	}
	free(p);
	map->bytes -= sizeof *p;
}

static void evict(struct volume_map *map, const struct page *spare)
{
	struct page *p = map->clean.first, *next;

	for (; p && map->bytes > map->bytes_max; p = next) {
		next = p->next;
		if (p == spare)
			continue;
		page_free(map, p);
		map->evictions++;
	}
}

static struct page *page_make(struct volume_map *map, uint32_t extent)
{
	struct shelf **at = &map->shelves[extent / SHELF_PAGES];
	struct page *p = xcalloc(1, sizeof *p);

	if (!*at) {
		*at = xcalloc(1, sizeof **at);
		map->bytes += sizeof **at;
	}
	(*at)->pages[extent % SHELF_PAGES] = p;
	(*at)->n++;
	map->bytes += sizeof *p;
	p->extent = extent;
	p->unknown = VOLUME_EXTENT_BLOCKS;
	page_used(map, p);
	return p;
}

static void page_changed(struct volume_map *map, struct page *p)
{
	p->dirty = true;
	p->version = ++map->version;
}

static void page_learn(struct page *p, uint32_t i, struct volume_ballot stamp)
{
	if (!volume_bit(p->known, i)) {
		volume_bit_set(p->known, i, true);
		p->unknown--;
	}
	p->stamps[i] = stamp;
}

/* The page of a filled extent is made when it is needed. */
static struct page *page_of(struct volume_map *map, uint32_t extent)
{
	struct page *p = page_find(map, extent);

	if (p || !volume_bit(map->filled, extent))
		return p;
	p = page_make(map, extent);
	for (uint32_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		page_learn(p, i,
			   (uint64_t)extent * VOLUME_EXTENT_BLOCKS + i < map->blocks ? map->fill
										     : (struct volume_ballot){0});
	volume_bit_set(map->filled, extent, false);
	page_changed(map, p);
	page_used(map, p);
	evict(map, p);
	return p;
}

/* ---- */

struct volume_map *volume_map_new(uint64_t size, size_t bytes_max)
{
	struct volume_map *map = xcalloc(1, sizeof *map);

	CHECK(volume_size_is_valid(size));
	map->blocks = volume_blocks(size);
	map->extents = volume_extents(size);
	map->shelves_n = (map->extents + SHELF_PAGES - 1) / SHELF_PAGES;
	map->shelves = xcalloc(map->shelves_n, sizeof *map->shelves);
	map->filled = xcalloc((map->extents + 7) / 8, 1);
	map->bytes = sizeof *map + map->shelves_n * sizeof *map->shelves + (map->extents + 7) / 8;
	map->bytes_max = bytes_max;
	return map;
}

struct volume_map *volume_map_free(struct volume_map *map)
{
	if (!map)
		return NULL;
	while (map->clean.first)
		page_free(map, map->clean.first);
	while (map->held.first)
		page_free(map, map->held.first);
	free(map->shelves);
	free(map->filled);
	free(map);
	return NULL;
}

int volume_map_get(struct volume_map *map, uint64_t block, struct volume_ballot *ret)
{
	uint32_t extent = (uint32_t)(block / VOLUME_EXTENT_BLOCKS), i = block % VOLUME_EXTENT_BLOCKS;
	struct page *p = page_find(map, extent);

	CHECK(block < map->blocks);
	if (!p && volume_bit(map->filled, extent)) {
		*ret = map->fill;
		return 0;
	}
	if (!p || !volume_bit(p->known, i))
		return -EAGAIN;
	page_used(map, p);
	*ret = p->stamps[i];
	return 0;
}

void volume_map_set(struct volume_map *map, uint64_t block, struct volume_ballot stamp)
{
	uint32_t extent = (uint32_t)(block / VOLUME_EXTENT_BLOCKS), i = block % VOLUME_EXTENT_BLOCKS;
	struct page *p = page_of(map, extent);

	CHECK(block < map->blocks);
	if (!p)
		p = page_make(map, extent);
	page_learn(p, i, stamp);
	page_changed(map, p);
	page_used(map, p);
	evict(map, p);
}

void volume_map_fill(struct volume_map *map, uint32_t extent, struct volume_ballot stamp)
{
	struct page *p = page_find(map, extent);

	CHECK(volume_ballot_compare(stamp, map->fill) >= 0);
	if (p)
		page_free(map, p);
	map->fill = stamp;
	volume_bit_set(map->filled, extent, true);
	map->version++;
}

int volume_map_newer(struct volume_map *map, uint32_t extent, struct volume_ballot base,
		     uint8_t ret[VOLUME_EXTENT_BLOCKS / 8])
{
	struct page *p = page_of(map, extent);
	int n = 0;

	if (!p || p->unknown)
		return -EAGAIN;
	page_used(map, p);
	memset(ret, 0, VOLUME_EXTENT_BLOCKS / 8);
	for (uint32_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		if (volume_ballot_compare(p->stamps[i], base) > 0) {
			volume_bit_set(ret, i, true);
			n++;
		}
	return n;
}

uint32_t volume_map_next(const struct volume_map *map, uint32_t from)
{
	uint32_t i = from;

	while (i < map->extents) {
		if (volume_bit(map->filled, i) || page_find(map, i))
			return i;
		if (i % 8 == 0 && !map->shelves[i / SHELF_PAGES] && map->filled[i / 8] == 0)
			i += 8;
		else
			i++;
	}
	return map->extents;
}

/* ---- reading in, writing out ---- */

uint32_t volume_map_load_begin(struct volume_map *map, uint32_t extent)
{
	struct page *p = page_find(map, extent);

	if (volume_bit(map->filled, extent) || (p && (p->ticket || p->unknown == 0)))
		return 0;
	if (!p)
		p = page_make(map, extent);
	if (++map->ticket == 0)
		map->ticket = 1;
	p->ticket = map->ticket;
	page_used(map, p);
	map->loads++;
	evict(map, p);
	return p->ticket;
}

void volume_map_load_end(struct volume_map *map, uint32_t extent, uint32_t ticket, const struct volume_ballot *stamps)
{
	struct page *p = page_find(map, extent);

	CHECK(ticket != 0);
	if (!p || p->ticket != ticket)
		return;
	p->ticket = 0;
	if (!stamps && !p->dirty) {
		page_free(map, p);
		return;
	}
	for (uint32_t i = 0; stamps && i < VOLUME_EXTENT_BLOCKS; i++)
		if (!volume_bit(p->known, i))
			page_learn(p, i, stamps[i]);
	page_used(map, p);
	evict(map, p);
}

int volume_map_copy(struct volume_map *map, uint32_t extent, struct volume_ballot ret[VOLUME_EXTENT_BLOCKS],
		    uint64_t *ret_version)
{
	struct page *p = page_of(map, extent);

	if (!p || p->unknown)
		return -EAGAIN;
	memcpy(ret, p->stamps, sizeof p->stamps);
	*ret_version = p->version;
	return 0;
}

void volume_map_written(struct volume_map *map, uint32_t extent, uint64_t version)
{
	struct page *p = page_find(map, extent);

	if (!p || p->version != version)
		return;
	p->dirty = false;
	page_used(map, p);
	evict(map, NULL);
}

bool volume_map_oldest_dirty(const struct volume_map *map, uint32_t *ret_extent)
{
	const struct page *p = map->held.first;

	while (p && (!p->dirty || p->ticket))
		p = p->next;
	if (!p)
		return false;
	*ret_extent = p->extent;
	return true;
}

void volume_map_stats(const struct volume_map *map, struct volume_map_stats *ret)
{
	*ret = (struct volume_map_stats){
		.bytes = map->bytes,
		.bytes_max = map->bytes_max,
		.pages = map->clean.n + map->held.n,
		.dirty = map->held.n,
		.loads = map->loads,
		.evictions = map->evictions,
	};
}
