/* SPDX-License-Identifier: Apache-2.0
 * The live map against a naive one: any order of stamps, fills, loads, write-outs and evictions tells the same. */
#include "volume/replica_map.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EXTENTS 40u
#define SIZE    ((uint64_t)EXTENTS * VOLUME_EXTENT_BYTES - 3 * VOLUME_BLOCK_BYTES) /* the last is not full */
#define BLOCKS  (SIZE / VOLUME_BLOCK_BYTES)
#define LOADS   8

/* A load whose end comes later, and may find that the world has moved on. */
struct load {
	uint32_t extent, ticket;
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
};

struct world {
	struct volume_map *map;
	struct volume_ballot truth[EXTENTS * VOLUME_EXTENT_BLOCKS];
	struct volume_ballot disk[EXTENTS][VOLUME_EXTENT_BLOCKS];
	struct load loads[LOADS];
	struct volume_ballot now;
	bool untouched[EXTENTS]; /* filled, and nothing since */
	uint64_t random;
	size_t bytes_max;
};

static uint32_t pick(struct world *w, uint32_t n)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (uint32_t)(w->random >> 20) % n;
}

static void fill_truth(struct world *w, uint32_t extent)
{
	for (uint32_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		w->truth[extent * VOLUME_EXTENT_BLOCKS + i] =
			extent * VOLUME_EXTENT_BLOCKS + i < BLOCKS ? w->now : (struct volume_ballot){0};
}

static void do_fill(struct world *w, uint32_t extent)
{
	w->now.minor++;
	volume_map_fill(w->map, extent, w->now);
	w->untouched[extent] = true;
	for (uint32_t i = 0; i < EXTENTS; i++)
		if (w->untouched[i])
			fill_truth(w, i);
}

static void do_set(struct world *w)
{
	uint32_t block = pick(w, BLOCKS);

	if (pick(w, 4) == 0)
		w->now.minor++;
	w->untouched[block / VOLUME_EXTENT_BLOCKS] = false;
	w->truth[block] = w->now;
	volume_map_set(w->map, block, w->now);
}

static void do_load_begin(struct world *w)
{
	struct load *l = &w->loads[pick(w, LOADS)];
	uint32_t extent = pick(w, EXTENTS);

	if (l->ticket)
		return;
	l->ticket = volume_map_load_begin(w->map, extent);
	l->extent = extent;
	memcpy(l->stamps, w->disk[extent], sizeof l->stamps); /* read at once, delivered late */
}

static void do_load_end(struct world *w)
{
	struct load *l = &w->loads[pick(w, LOADS)];

	if (!l->ticket)
		return;
	volume_map_load_end(w->map, l->extent, l->ticket, pick(w, 8) ? l->stamps : NULL);
	l->ticket = 0;
}

static void write_out(struct world *w, uint32_t extent)
{
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
	uint64_t version;
	bool late = pick(w, 3) == 0;

	if (volume_map_copy(w->map, extent, stamps, &version) < 0)
		return;
	w->untouched[extent] = false;
	memcpy(w->disk[extent], stamps, sizeof stamps);
	if (late)
		do_set(w); /* while the write runs */
	volume_map_written(w->map, extent, version);
}

/* What an owner does that keeps to the contract of the header. */
static void relieve(struct world *w)
{
	struct volume_map_stats s;
	uint32_t extent;

	volume_map_stats(w->map, &s);
	while (s.bytes > s.bytes_max && volume_map_oldest_dirty(w->map, &extent)) {
		uint32_t ticket = volume_map_load_begin(w->map, extent);

		if (ticket)
			volume_map_load_end(w->map, extent, ticket, w->disk[extent]);
		write_out(w, extent);
		volume_map_stats(w->map, &s);
	}
}

static void check_block(struct world *w, uint32_t block)
{
	struct volume_ballot got;

	if (volume_map_get(w->map, block, &got) == 0)
		assert_int_equal(volume_ballot_pack(got), volume_ballot_pack(w->truth[block]));
}

static void check_newer(struct world *w, uint32_t extent)
{
	struct volume_ballot base = {w->now.epoch, w->now.minor - pick(w, 50)};
	uint8_t got[VOLUME_EXTENT_BLOCKS / 8];
	int n = volume_map_newer(w->map, extent, base, got), want = 0;

	if (n < 0) {
		assert_int_equal(n, -EAGAIN);
		return;
	}
	w->untouched[extent] = false;
	for (uint32_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++) {
		bool newer = volume_ballot_compare(w->truth[extent * VOLUME_EXTENT_BLOCKS + i], base) > 0;

		assert_int_equal(volume_bit(got, i), newer);
		want += newer;
	}
	assert_int_equal(n, want);
}

static void step(struct world *w)
{
	switch (pick(w, 8)) {
	case 0:
		do_load_begin(w);
		break;
	case 1:
		do_load_end(w);
		break;
	case 2:
		write_out(w, pick(w, EXTENTS));
		break;
	case 3:
		if (pick(w, 10) == 0)
			do_fill(w, pick(w, EXTENTS));
		break;
	case 4:
		check_newer(w, pick(w, EXTENTS));
		break;
	default:
		do_set(w);
	}
}

/* At the end all is loaded and everything is compared. */
static void check_all(struct world *w)
{
	for (size_t i = 0; i < LOADS; i++)
		if (w->loads[i].ticket)
			volume_map_load_end(w->map, w->loads[i].extent, w->loads[i].ticket, w->loads[i].stamps);
	for (uint32_t extent = 0; extent < EXTENTS; extent++) {
		uint32_t ticket = volume_map_load_begin(w->map, extent);

		if (ticket)
			volume_map_load_end(w->map, extent, ticket, w->disk[extent]);
		for (uint32_t i = 0; i < VOLUME_EXTENT_BLOCKS && extent * VOLUME_EXTENT_BLOCKS + i < BLOCKS; i++) {
			struct volume_ballot got;
			uint32_t block = extent * VOLUME_EXTENT_BLOCKS + i;

			assert_int_equal(volume_map_get(w->map, block, &got), 0);
			assert_int_equal(volume_ballot_pack(got), volume_ballot_pack(w->truth[block]));
		}
	}
}

static void run(uint64_t seed, size_t bytes_max, bool bounded)
{
	struct world *w = calloc(1, sizeof *w);
	struct volume_map_stats s;

	assert_non_null(w);
	w->random = seed;
	w->now = (struct volume_ballot){3, 100};
	w->map = volume_map_new(SIZE, bytes_max);
	for (int i = 0; i < 20000; i++) {
		step(w);
		check_block(w, pick(w, BLOCKS));
		if (!bounded)
			continue;
		relieve(w);
		volume_map_stats(w->map, &s);
		assert_true(s.bytes <= bytes_max + (LOADS + 2) * 4096);
	}
	volume_map_stats(w->map, &s);
	assert_true(!bounded || s.evictions > 0);
	assert_true(s.pages <= EXTENTS && s.loads > 0);
	check_all(w);
	w->map = volume_map_free(w->map);
	free(w);
}

static void test_against_a_naive_map(void **arg)
{
	(void)arg;
	for (uint64_t seed = 1; seed <= 8; seed++)
		run(seed * 0x9e3779b97f4a7c15, SIZE_MAX, false);
}

static void test_memory_is_bounded(void **arg)
{
	(void)arg;
	for (uint64_t seed = 1; seed <= 8; seed++)
		run(seed * 0x9e3779b97f4a7c15, 40000, true);
}

/* 64 TiB cost nothing before they are touched, and a walk over them is quick. */
static void test_the_largest_volume(void **arg)
{
	struct volume_map *map = volume_map_new(VOLUME_SIZE_MAX, 16u << 20);
	const struct volume_ballot stamp = {2, 0};
	struct volume_map_stats s;
	uint32_t at;

	(void)arg;
	volume_map_stats(map, &s);
	assert_true(s.bytes < (1u << 20) && s.pages == 0);
	assert_int_equal(volume_map_next(map, 0), VOLUME_EXTENTS_MAX);
	volume_map_set(map, VOLUME_SIZE_MAX / VOLUME_BLOCK_BYTES - 1, stamp);
	volume_map_fill(map, 1000003, stamp);
	at = volume_map_next(map, 0);
	assert_int_equal(at, 1000003);
	at = volume_map_next(map, at + 1);
	assert_int_equal(at, VOLUME_EXTENTS_MAX - 1);
	assert_int_equal(volume_map_next(map, at + 1), VOLUME_EXTENTS_MAX);
	assert_null(volume_map_free(map));
	assert_null(volume_map_free(NULL));
}

/* A read that was overtaken by a fill, a write-out and an eviction must not bring back what it saw. */
static void test_a_late_load_changes_nothing(void **arg)
{
	struct volume_map *map = volume_map_new(SIZE, 0);
	struct volume_ballot old[VOLUME_EXTENT_BLOCKS] = {{1, 1}}, now[VOLUME_EXTENT_BLOCKS], got;
	uint32_t first = volume_map_load_begin(map, 0), second;
	uint64_t version;

	(void)arg;
	assert_int_equal(volume_map_load_begin(map, 0), 0);
	volume_map_fill(map, 0, (struct volume_ballot){2, 0});
	assert_int_equal(volume_map_copy(map, 0, now, &version), 0);
	volume_map_written(map, 0, version); /* evicted: no memory is allowed */
	assert_int_equal(volume_map_get(map, 0, &got), -EAGAIN);
	second = volume_map_load_begin(map, 0);
	volume_map_load_end(map, 0, first, old);
	assert_int_equal(volume_map_get(map, 0, &got), -EAGAIN);
	volume_map_set(map, 1, (struct volume_ballot){3, 0}); /* keeps the page in memory */
	volume_map_load_end(map, 0, second, now);
	assert_int_equal(volume_map_get(map, 0, &got), 0);
	assert_int_equal(got.epoch, 2);
	map = volume_map_free(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_a_naive_map),
		cmocka_unit_test(test_memory_is_bounded),
		cmocka_unit_test(test_the_largest_volume),
		cmocka_unit_test(test_a_late_load_changes_nothing),
	};

	return cmocka_run_group_tests_name("volume_map", tests, NULL, NULL);
}
