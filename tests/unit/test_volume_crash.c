/* SPDX-License-Identifier: Apache-2.0
 * Power cuts and kills of the engine at every call: what was durable stays, what was begun is there or not.
 *
 * The page cache is the real files; what the disk has is kept beside them. A write is in the cache at once and reaches
 * the disk with the next fdatasync of its file, or, at a power cut, in any of its sectors or none. */
#include "tests/unit/volume_help.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SECTOR     512
#define LAST       (VOLUME_PAGE_EXTENTS + 3) /* in the second page of intents */
#define BIG        ((uint64_t)(LAST + 1) * VOLUME_EXTENT_BYTES)
#define PAGES_MAX  64
#define WRITES_MAX 16 /* of a page that have not reached the disk */

/* The few extents that the story plays in. */
static const uint32_t played[] = {0, 1, 4031, VOLUME_PAGE_EXTENTS - 1, VOLUME_PAGE_EXTENTS, LAST};

struct disk_page {
	ino_t file;
	off_t at;
	uint8_t durable[VOLUME_PAGE_BYTES];
	uint8_t pending[WRITES_MAX][VOLUME_PAGE_BYTES];
	size_t pending_n;
};

/* What the last call that succeeded left, and what the one that did not was to leave. */
struct belief {
	struct volume_state state;
	uint8_t bits[2 * VOLUME_INTENTS_BYTES];
	struct volume_ballot stamps[ARRAY_LEN(played)]; /* of all blocks, where the intent is off */
};

enum plant { PLANT_NONE, PLANT_LYING_DISK, PLANT_BOTH_COPIES, PLANT_MAP_UNSYNCED, PLANTS };

static struct disk_page pages[PAGES_MAX];
static size_t pages_n;
static long calls_until_crash;
static uint64_t random_state;
static enum plant plant;
static struct belief sure, meant;
static ino_t epochs_file;
static bool power_was_cut; /* since the last open that came through */
static bool wrong;         /* a check failed: what a planted mistake must lead to */

static uint32_t pick(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 20) % n;
}

/* ---- the disk ---- */

static ino_t file_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static bool crashed(void)
{
	if (calls_until_crash > 0) {
		calls_until_crash--;
		return false;
	}
	errno = EIO;
	return true;
}

static void page_write(int fd, const void *p, off_t at)
{
	ino_t file = file_of(fd);
	struct disk_page *d = pages;

	while (d < pages + pages_n && (d->file != file || d->at != at))
		d++;
	if (d == pages + pages_n) {
		assert_true(pages_n++ < PAGES_MAX);
		d->file = file;
		d->at = at;
		d->pending_n = 0;
		assert_int_equal(pread(fd, d->durable, sizeof d->durable, at), sizeof d->durable);
	}
	if (d->pending_n == WRITES_MAX) /* only a disk that lies keeps so many */
		memmove(d->pending[0], d->pending[1], --d->pending_n * sizeof d->pending[0]);
	memcpy(d->pending[d->pending_n++], p, VOLUME_PAGE_BYTES);
	assert_int_equal(pwrite(fd, p, VOLUME_PAGE_BYTES, at), VOLUME_PAGE_BYTES);
}

static ssize_t disk_pwrite(int fd, const void *p, size_t n, off_t at)
{
	if (crashed())
		return -1;
	assert_int_equal(n, VOLUME_PAGE_BYTES);
	page_write(fd, p, at);
	if (plant == PLANT_BOTH_COPIES && memcmp(p, "KEDGEMAP", 8) != 0) /* in meta, copy 0 stands at odd pages */
		page_write(fd, p, at / VOLUME_PAGE_BYTES % 2 ? at + VOLUME_PAGE_BYTES : at - VOLUME_PAGE_BYTES);
	return (ssize_t)n;
}

static int disk_fdatasync(int fd)
{
	ino_t file = file_of(fd);

	if (crashed())
		return -1;
	if (plant == PLANT_LYING_DISK || (plant == PLANT_MAP_UNSYNCED && file == epochs_file))
		return 0;
	for (size_t i = 0; i < pages_n; i++)
		if (pages[i].file == file && pages[i].pending_n > 0) {
			memcpy(pages[i].durable, pages[i].pending[pages[i].pending_n - 1], VOLUME_PAGE_BYTES);
			pages[i].pending_n = 0;
		}
	return 0;
}

/* Each sector of a page has what was durable, what any later write put there, or rubbish where the power went. */
static void tear(struct disk_page *d)
{
	uint32_t way = pick(5), cut = pick(VOLUME_PAGE_BYTES / SECTOR + 1);

	if (d->pending_n == 0 || way == 0)
		return;
	for (uint32_t i = 0; i < VOLUME_PAGE_BYTES / SECTOR; i++) {
		uint32_t n = (uint32_t)d->pending_n; /* way 1: all of the last write */

		if (way >= 2)
			n = i < cut ? n : n - 1; /* a prefix */
		if (way == 3)
			n = pick(n + 1); /* any mixture */
		if (n > 0)
			memcpy(d->durable + i * SECTOR, d->pending[n - 1] + i * SECTOR, SECTOR);
		if (way == 4 && i == cut)
			memset(d->durable + i * SECTOR, 0xdb, SECTOR);
	}
}

static void power_cut(void)
{
	static const char *const names[] = {"meta", "epochs"};

	for (size_t f = 0; f < ARRAY_LEN(names); f++) {
		char path[96];
		int fd;

		(void)snprintf(path, sizeof path, "%s/%s", dir, names[f]);
		fd = open(path, O_WRONLY);
		assert_true(fd >= 0);
		for (size_t i = 0; i < pages_n; i++)
			if (pages[i].file == file_of(fd)) {
				tear(&pages[i]);
				assert_int_equal(pwrite(fd, pages[i].durable, VOLUME_PAGE_BYTES, pages[i].at),
						 VOLUME_PAGE_BYTES);
			}
		(void)close(fd);
	}
	pages_n = 0;
	power_was_cut = true;
	where.boot[0]++;
}

/* ---- what must hold ---- */

static void must(bool holds)
{
	if (!holds && plant == PLANT_NONE)
		fail();
	wrong = wrong || !holds;
}

static bool same_state(const struct volume_state *a, const struct volume_state *b)
{
	return volume_ballot_compare(a->promised, b->promised) == 0 &&
	       volume_ballot_compare(a->active, b->active) == 0 && a->addmark == b->addmark &&
	       a->cold_done == b->cold_done;
}

static void check_maps(struct volume_replica *r)
{
	struct volume_ballot got[VOLUME_EXTENT_BLOCKS];

	for (size_t i = 0; i < ARRAY_LEN(played); i++) {
		struct volume_ballot want = meant.stamps[i];

		if (volume_bit(volume_replica_intents(r), played[i]))
			continue; /* V30: whatever is there */
		if (!volume_bit(sure.bits, played[i]))
			want = sure.stamps[i];
		if (volume_replica_read_map(r, played[i], got, NULL) < 0) {
			must(false);
			continue;
		}
		for (size_t k = 0; k < VOLUME_EXTENT_BLOCKS; k++)
			must(volume_ballot_compare(got[k], want) == 0);
		sure.stamps[i] = want;
	}
}

/* It died in the call that fails here: what is done about the failure was never done. */
static void died(void)
{
	char path[sizeof dir + 16];

	(void)snprintf(path, sizeof path, "%s/failed", dir);
	(void)unlink(path);
}

static struct volume_replica *reopen(bool cut)
{
	struct volume_replica_options o = {.sys = &fake, .force = pick(4) == 0};
	uint64_t was = sure.state.incarnation;
	struct volume_replica *r = NULL;
	const uint8_t *bits;
	struct err e = {0};

	calls_until_crash = LONG_MAX;
	if (volume_replica_open(dir, &o, &r, &e) < 0) {
		if (plant == PLANT_NONE)
			fail_msg("%s", e.text);
		wrong = true;
		return NULL;
	}
	must(same_state(volume_replica_state(r), &sure.state) || same_state(volume_replica_state(r), &meant.state));
	must(cut || (volume_replica_state(r)->incarnation != was) == o.force);
	must(volume_replica_state(r)->incarnation != was || !power_was_cut);
	bits = volume_replica_intents(r);
	for (size_t i = 0; i < sizeof sure.bits; i++) /* each bit as it was durable, or as it was to be */
		must(((bits[i] ^ sure.bits[i]) & (bits[i] ^ meant.bits[i])) == 0);
	check_maps(r);
	power_was_cut = false;
	sure.state = *volume_replica_state(r);
	memcpy(sure.bits, bits, sizeof sure.bits);
	return r;
}

/* ---- the story ---- */

static int change_state(struct volume_replica *r)
{
	meant.state = *volume_replica_state(r);
	meant.state.promised.minor++;
	meant.state.promised.epoch += pick(2);
	if (pick(2))
		meant.state.active = meant.state.promised;
	meant.state.addmark = pick(9);
	meant.state.cold_done = pick(9);
	return volume_replica_write_state(r, &meant.state, NULL);
}

static int set_some(struct volume_replica *r)
{
	for (size_t i = 0; i < ARRAY_LEN(played); i++)
		if (pick(3) == 0)
			volume_bit_set(meant.bits, played[i], true);
	return volume_replica_write_intents(r, meant.bits, NULL);
}

static int clear_some(struct volume_replica *r)
{
	struct volume_ballot stamps[ARRAY_LEN(played)][VOLUME_EXTENT_BLOCKS];
	struct volume_map_write maps[ARRAY_LEN(played)];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(played); i++) {
		if (!volume_bit(meant.bits, played[i]) || pick(2))
			continue;
		meant.stamps[i] = (struct volume_ballot){pick(1000), pick(1000)};
		for (size_t k = 0; k < VOLUME_EXTENT_BLOCKS; k++)
			stamps[n][k] = meant.stamps[i];
		volume_bit_set(meant.bits, played[i], false);
		maps[n] = (struct volume_map_write){played[i], stamps[n]};
		n++;
	}
	return volume_replica_clear(r, maps, n, NULL);
}

static bool step(struct volume_replica *r)
{
	static int (*const steps[])(struct volume_replica *) = {change_state, set_some, clear_some};

	meant = sure;
	if (steps[pick(ARRAY_LEN(steps))](r) < 0)
		return false;
	sure = meant;
	sure.state.incarnation = volume_replica_state(r)->incarnation;
	return true;
}

/* A kill of the engine, or a power cut; also one while the next engine is opening, and both in turn. */
static struct volume_replica *crash(struct volume_replica *r)
{
	struct volume_replica_options o = {.sys = &fake};
	bool cut = false;

	r = volume_replica_close(r);
	died();
	for (uint32_t again = pick(3); again > 0; again--) {
		if (pick(2)) {
			power_cut();
			cut = true;
		}
		calls_until_crash = pick(6);
		o.force = pick(4) == 0;
		cut = cut || o.force; /* it may have got a new incarnation */
		if (volume_replica_open(dir, &o, &r, NULL) == 0) {
			/* it came through, and tells a new incarnation to nobody */
			sure.state.incarnation = volume_replica_state(r)->incarnation;
			cut = power_was_cut = false;
			r = volume_replica_close(r);
		}
		died();
	}
	if (pick(2)) {
		power_cut();
		cut = true;
	}
	return reopen(cut);
}

static void run(uint64_t seed)
{
	struct volume_replica *r;
	char path[96];
	struct stat st;

	random_state = seed * 0x9e3779b97f4a7c15 + 1;
	(void)setup(NULL);
	assert_int_equal(volume_replica_create(dir, volume, BIG, &fake, NULL), 0);
	(void)snprintf(path, sizeof path, "%s/epochs", dir);
	assert_int_equal(stat(path, &st), 0);
	epochs_file = st.st_ino;
	fake.pwrite = disk_pwrite;
	fake.fdatasync = disk_fdatasync;
	pages_n = 0;
	wrong = power_was_cut = false;
	memset(&sure, 0, sizeof sure);
	meant = sure;
	calls_until_crash = LONG_MAX;
	r = open_with(false);
	sure.state = *volume_replica_state(r);
	for (int i = 0; i < 60 && r && !wrong; i++) {
		calls_until_crash = pick(40);
		while (step(r))
			;
		r = crash(r);
	}
	r = volume_replica_close(r);
	(void)teardown(NULL);
}

static void test_nothing_durable_is_lost(void **arg)
{
	(void)arg;
	plant = PLANT_NONE;
	for (uint64_t seed = 1; seed <= 30; seed++)
		run(seed);
}

/* The check can fail: each of these mistakes is caught. */
static void test_planted_mistakes_are_caught(void **arg)
{
	(void)arg;
	for (plant = PLANT_NONE + 1; plant < PLANTS; plant++) {
		uint64_t seed = 0;

		do
			run(++seed);
		while (!wrong && seed < 30);
		assert_true(wrong);
	}
	plant = PLANT_NONE;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_durable_is_lost),
		cmocka_unit_test(test_planted_mistakes_are_caught),
	};

	return cmocka_run_group_tests_name("volume_crash", tests, NULL, NULL);
}
