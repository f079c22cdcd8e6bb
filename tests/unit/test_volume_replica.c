/* SPDX-License-Identifier: Apache-2.0
 * A replica's folder: made all or nothing, opened by one, damage named, failures final. */
#include "tests/unit/volume_help.h"
#include "volume/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- making one ---- */

static void test_a_new_one_is_blank(void **arg)
{
	struct volume_replica *r;
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
	struct stat st;

	(void)arg;
	create();
	r = open_with(false);
	assert_int_equal(volume_replica_losses(r), 0);
	assert_int_equal(volume_replica_mended(r), 0);
	assert_memory_equal(volume_replica_super(r)->volume, volume, sizeof volume);
	assert_int_equal(volume_replica_super(r)->size, SIZE);
	assert_int_equal(volume_ballot_pack(volume_replica_state(r)->promised), 0);
	assert_int_not_equal(volume_replica_state(r)->incarnation, 0);
	assert_int_equal(volume_replica_next_map(r, 0), EXTENTS);
	assert_int_equal(volume_replica_read_map(r, EXTENTS - 1, stamps, NULL), 0);
	assert_int_equal(stamps[0].epoch, 0);
	assert_int_equal(fstat(volume_replica_data(r), &st), 0);
	assert_int_equal(st.st_size, SIZE);
	assert_int_equal(st.st_blocks, 0);
	assert_null(volume_replica_close(r));
	assert_null(volume_replica_close(NULL));
}

static void test_create_refuses(void **arg)
{
	static const uint64_t sizes[] = {0, 512, 4097, VOLUME_SIZE_MAX + 4096, UINT64_MAX};
	char path[PATH_BYTES_MAX + 100];
	struct err e = {0};

	(void)arg;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		assert_int_equal(volume_replica_create(dir, volume, sizes[i], NULL, &e), -EINVAL);
		assert_non_null(strstr(e.text, "multiple of 4096"));
	}
	create();
	assert_int_equal(volume_replica_create(dir, volume, SIZE, NULL, &e), -EEXIST);
	assert_non_null(strstr(e.text, "remove it first"));
	(void)snprintf(path, sizeof path, "%s/none/v", top);
	assert_int_equal(volume_replica_create(path, volume, SIZE, NULL, &e), -ENOENT);
	(void)snprintf(path, sizeof path, "%s/%0254d", top, 1); /* the last name becomes too long with .new */
	assert_int_equal(volume_replica_create(path, volume, SIZE, NULL, &e), -ENAMETOOLONG);
	memset(path, 'p', sizeof path - 1);
	path[sizeof path - 1] = '\0';
	assert_int_equal(volume_replica_create(path, volume, SIZE, NULL, &e), -ENAMETOOLONG);
	assert_null(strchr(e.text, '\n'));
}

/* Each call in turn fails: an error, and nothing is left. */
static void test_create_all_or_nothing(void **arg)
{
	char aside[80];
	int rc = -1;
	long n = 0;

	(void)arg;
	(void)snprintf(aside, sizeof aside, "%s.new", dir);
	for (; rc < 0; n++) {
		struct err e = {0};

		calls_left = n;
		calls_error = ENOSPC;
		rc = volume_replica_create(dir, volume, SIZE, &fake, &e);
		assert_true(rc == 0 || (rc == -ENOSPC && e.text[0] && !is_there(dir)));
		assert_false(is_there(aside));
	}
	assert_true(n > 10);
	calls_left = -1;
	assert_null(volume_replica_close(open_with(false)));
}

static void test_create_over_the_rest_of_a_crash(void **arg)
{
	char aside[80], file[96];

	(void)arg;
	(void)snprintf(aside, sizeof aside, "%s.new", dir);
	(void)snprintf(file, sizeof file, "%s/meta", aside);
	assert_int_equal(mkdir(aside, 0700), 0);
	assert_int_equal(close(open(file, O_CREAT | O_WRONLY, 0600)), 0);
	create();
	assert_false(is_there(aside));
}

static void test_create_above_the_file_size_limit(void **arg)
{
	struct rlimit old, less = {1 << 20, 1 << 20};
	struct err e = {0};
	int rc;

	(void)arg;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	less.rlim_max = old.rlim_max;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &less), 0);
	rc = volume_replica_create(dir, volume, SIZE, NULL, &e);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(rc, -EFBIG);
	assert_non_null(strstr(e.text, "as large as the volume"));
	assert_false(is_there(dir));
}

static int full_disk(void)
{
	struct err e = {0};
	char path[64];

	if (mount("none", top, "tmpfs", 0, "size=16k") < 0)
		return SKIPPED;
	(void)snprintf(path, sizeof path, "%s/v.new", top);
	if (volume_replica_create(dir, volume, SIZE, NULL, &e) != -ENOSPC || !strstr(e.text, "free some space"))
		return 1;
	return is_there(dir) || is_there(path);
}

static void test_create_on_a_full_disk(void **arg)
{
	int rc = in_namespace(full_disk);

	(void)arg;
	if (rc == SKIPPED) {
		print_message("skipped: mounting a small tmpfs needs root\n");
		skip();
	}
	assert_int_equal(rc, 0);
}

/* ---- V28 ---- */

static void test_a_second_engine_is_refused(void **arg)
{
	struct volume_replica_options o = {.wait = 30 * USEC_PER_MS, .sys = &fake};
	struct volume_replica *r, *second = NULL;
	struct err e = {0};
	usec_t began;
	int held;

	(void)arg;
	create();
	r = open_with(false);
	REFUSE_OPEN(-EWOULDBLOCK, dir, "another process has it open", "try again");
	began = clock_boottime();
	assert_int_equal(volume_replica_open(dir, &o, &second, &e), -EWOULDBLOCK);
	assert_true(clock_boottime() - began >= o.wait);
	held = dup(volume_replica_data(r)); /* as a request in the kernel does */
	r = volume_replica_close(r);
	REFUSE_OPEN(-EWOULDBLOCK, "its last I/O has not ended");
	(void)close(held);
	assert_null(volume_replica_close(open_with(false)));
}

/* ---- failures are final ---- */

static void assert_poisoned(struct volume_replica *r)
{
	struct volume_state s = *volume_replica_state(r);
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
	struct err e = {0};

	assert_int_equal(volume_replica_write_state(r, &s, &e), -EIO);
	assert_non_null(strstr(e.text, "open it anew"));
	assert_int_equal(volume_replica_write_intents(r, volume_replica_intents(r), NULL), -EIO);
	assert_int_equal(volume_replica_write_maps(r, NULL, 0, true, NULL), -EIO);
	assert_int_equal(volume_replica_clear(r, NULL, 0, NULL), -EIO);
	assert_int_equal(volume_replica_sync(r, NULL), -EIO);
	assert_int_equal(volume_replica_read_map(r, 0, stamps, NULL), -EIO);
	assert_int_equal(volume_replica_blank(r, NULL), -EIO);
}

static int try_state(struct volume_replica *r)
{
	struct volume_state s = *volume_replica_state(r);

	s.promised.epoch++;
	return volume_replica_write_state(r, &s, NULL);
}

static int try_intents(struct volume_replica *r)
{
	uint8_t bits[VOLUME_INTENTS_BYTES];

	memcpy(bits, volume_replica_intents(r), sizeof bits);
	bits[0] ^= 0x80; /* a failed attempt may have reached the disk */
	return volume_replica_write_intents(r, bits, NULL);
}

static int try_sync(struct volume_replica *r)
{
	return volume_replica_sync(r, NULL);
}

static int try_poison(struct volume_replica *r)
{
	volume_replica_poison(r);
	return -EIO;
}

static void test_failures_poison(void **arg)
{
	static int (*const tries[])(struct volume_replica *) = {try_state, try_intents, try_sync, try_poison};

	(void)arg;
	create();
	for (size_t i = 0; i < ARRAY_LEN(tries); i++)
		for (long n = 0; n < (i < 2 ? 3 : 1); n++) { /* the write, the sync, the second copy */
			struct volume_replica *r = open_with(true);

			calls_left = n;
			assert_int_equal(tries[i](r), -EIO);
			calls_left = -1;
			assert_poisoned(r);
			r = volume_replica_close(r);
			r = open_with(true);
			assert_int_equal(volume_replica_sync(r, NULL), 0);
			r = volume_replica_close(r);
		}
}

/* A full disk under the map loses nothing, as the intents stay: no poison. A failed sync of it is one. */
static void test_a_map_that_cannot_be_written(void **arg)
{
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
	struct volume_map_write map = {3, stamps};
	struct volume_replica *r;
	struct err e = {0};

	(void)arg;
	create();
	r = open_with(false);
	fill(stamps, 1);
	set_intents(r, (const uint32_t[]){3}, 1);
	calls_left = 0;
	calls_error = ENOSPC;
	assert_int_equal(volume_replica_clear(r, &map, 1, &e), -ENOSPC);
	assert_non_null(strstr(e.text, "epochs (page 3)"));
	assert_true(volume_bit(volume_replica_intents(r), 3));
	calls_left = -1;
	assert_int_equal(volume_replica_clear(r, &map, 1, NULL), 0);
	assert_false(volume_bit(volume_replica_intents(r), 3));
	set_intents(r, (const uint32_t[]){3}, 1);
	calls_left = 1;
	assert_int_equal(volume_replica_clear(r, &map, 1, NULL), -EIO);
	calls_left = -1;
	assert_poisoned(r);
	r = volume_replica_close(r);
}

/* ---- V16, V30 ---- */

static void test_intents_and_maps_over_a_restart(void **arg)
{
	struct volume_ballot a[VOLUME_EXTENT_BLOCKS], b[VOLUME_EXTENT_BLOCKS], got[VOLUME_EXTENT_BLOCKS];
	const struct volume_map_write maps[] = {{2, a}, {4, b}};
	struct volume_replica *r;

	(void)arg;
	create();
	r = open_with(false);
	fill(a, 2);
	fill(b, 3);
	promise(r, 3, 7);
	set_intents(r, (const uint32_t[]){2, 4, 6}, 3);
	assert_int_equal(volume_replica_clear(r, maps, 2, NULL), 0);
	set_intents(r, (const uint32_t[]){4}, 1);
	r = volume_replica_close(r);
	memset(b, 0xee, sizeof b);
	poke("epochs", 4 * VOLUME_PAGE_BYTES, b, 100); /* its intent is set: no harm (V30) */
	r = open_with(false);
	assert_false(volume_bit(volume_replica_intents(r), 2));
	assert_true(volume_bit(volume_replica_intents(r), 4) && volume_bit(volume_replica_intents(r), 6));
	assert_int_equal(volume_replica_next_map(r, 0), 2);
	assert_int_equal(volume_replica_read_map(r, 2, got, NULL), 0);
	for (uint32_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		assert_int_equal(volume_ballot_compare(got[i], a[i]), 0);
	r = volume_replica_close(r);
}

/* ---- damage ---- */

static int inspect(char *ret, size_t size, bool json)
{
	FILE *out = fmemopen(ret, size, "w");
	struct err e = {0};
	int rc;

	assert_non_null(out);
	rc = volume_inspect(dir, out, json, &e);
	(void)fclose(out);
	return rc;
}

static void expect_damage(const char *where_it_is)
{
	char text[8192] = "";

	assert_int_equal(inspect(text, sizeof text, false), -EBADMSG);
	if (!strstr(text, where_it_is))
		fail_msg("'%s' is not in: %s", where_it_is, text);
}

static void test_damage_is_named(void **arg)
{
	struct volume_replica *r;
	char path[96];

	(void)arg;
	create();
	poke("meta", 4096 + 100, "x", 1);
	r = open_with(false); /* one copy: mended */
	assert_int_equal(volume_replica_mended(r), 1);
	r = volume_replica_close(r);
	r = open_with(false);
	assert_int_equal(volume_replica_mended(r), 0);
	r = volume_replica_close(r);
	poke("meta", 3 * 4096 + 100, "x", 1);
	poke("meta", 4 * 4096, "x", 1);
	REFUSE_OPEN(-EBADMSG, dir, "meta: both copies of intent page 0", "offset 12288 is torn",
		    "offset 16384 has a wrong", "remove the folder");
	expect_damage("meta, offset 16384");
	poke("meta", 4096 + 100, "x", 1);
	poke("meta", 8192 + 100, "x", 1);
	REFUSE_OPEN(-EBADMSG, "both copies of the state page", "offset 4096", "offset 8192");
	expect_damage("meta, offset 8192");
	poke("meta", 90, "x", 1);
	REFUSE_OPEN(-EBADMSG, "the superblock (offset 0) is torn or rotten");
	expect_damage("meta, offset 0");
	(void)snprintf(path, sizeof path, "%s/meta", dir);
	assert_int_equal(truncate(path, 100), 0);
	REFUSE_OPEN(-EBADMSG, "the superblock (offset 0) cannot be read");
	assert_int_equal(unlink(path), 0);
	REFUSE_OPEN(-ENOENT, "meta", "remove the folder");
}

/* Without the second copy one of these would bring back an older promise, unnoticed. */
static void test_a_rotten_copy_costs_nothing(void **arg)
{
	struct volume_replica *r;

	(void)arg;
	create();
	for (uint32_t i = 1; i <= 4; i++) {
		r = open_with(false);
		promise(r, i, 0);
		set_intents(r, &i, 1);
		r = volume_replica_close(r);
		poke("meta", i % 2 ? 4096 + 200 : 8192 + 200, "x", 1);
		poke("meta", i % 2 ? 3 * 4096 + 200 : 4 * 4096 + 200, "x", 1);
		r = open_with(false);
		assert_int_equal(volume_replica_mended(r), 2);
		assert_int_equal(volume_replica_state(r)->promised.epoch, i);
		assert_true(volume_bit(volume_replica_intents(r), i));
		r = volume_replica_close(r);
	}
}

static void test_wrong_sizes_are_damage(void **arg)
{
	char path[96];

	(void)arg;
	create();
	(void)snprintf(path, sizeof path, "%s/data", dir);
	assert_int_equal(truncate(path, 4096), 0);
	REFUSE_OPEN(-EBADMSG, "data has 4096 bytes");
	expect_damage("data, offset 0: the file has 4096 bytes");
	assert_int_equal(truncate(path, SIZE), 0);
	(void)snprintf(path, sizeof path, "%s/epochs", dir);
	assert_int_equal(truncate(path, 5), 0);
	REFUSE_OPEN(-EBADMSG, "epochs has 5 bytes");
}

/* Two whole copies that claim the same number: no guess is made. */
static void test_copies_that_differ(void **arg)
{
	uint8_t page[VOLUME_PAGE_BYTES];
	struct volume_state s;
	struct volume_replica *r;

	(void)arg;
	create();
	r = open_with(false);
	s = *volume_replica_state(r);
	s.promised.epoch = 9;
	volume_state_encode(&s, volume_replica_super(r)->replica, 1, page);
	r = volume_replica_close(r);
	poke("meta", 4096, page, sizeof page);
	REFUSE_OPEN(-EBADMSG, "two whole copies with one sequence number");
	expect_damage("two whole copies");
}

static void test_a_damaged_map_page(void **arg)
{
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS], untouched[VOLUME_EXTENT_BLOCKS];
	struct volume_map_write map = {3, stamps};
	struct volume_replica *r;
	struct err e = {0};

	(void)arg;
	create();
	r = open_with(false);
	fill(stamps, 2);
	set_intents(r, (const uint32_t[]){3}, 1);
	assert_int_equal(volume_replica_clear(r, &map, 1, NULL), 0);
	poke("epochs", 3 * 4096 + 70, "x", 1);
	memset(stamps, 0xee, sizeof stamps);
	memcpy(untouched, stamps, sizeof stamps);
	assert_int_equal(volume_replica_read_map(r, 3, stamps, &e), -EBADMSG);
	assert_memory_equal(stamps, untouched, sizeof stamps);
	assert_non_null(strstr(e.text, "extent 3 (offset 12288) is torn"));
	expect_damage("epochs, offset 12288: the page of extent 3");
	set_intents(r, (const uint32_t[]){3}, 1); /* the way out */
	r = volume_replica_close(r);
}

static void test_the_inspector(void **arg)
{
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS] = {{1, 0}, {2, 5}};
	struct volume_map_write map = {3, stamps};
	struct volume_replica *r;
	char text[8192] = "";

	(void)arg;
	create();
	r = open_with(false);
	promise(r, 2, 5);
	set_intents(r, (const uint32_t[]){3, 8, 9}, 3);
	assert_int_equal(volume_replica_clear(r, &map, 1, NULL), 0);
	assert_int_equal(inspect(text, sizeof text, false), 0);
	assert_non_null(strstr(text, "an engine has it open"));
	assert_non_null(strstr(text, "promised       (2,5)"));
	assert_non_null(strstr(text, "intents        8-9 (2 of 40 extents)"));
	assert_non_null(strstr(text, "extent 3: (0,0) x 254, (1,0) x 1, (2,5) x 1"));
	assert_non_null(strstr(text, "no damage"));
	r = volume_replica_close(r);
	assert_int_equal(inspect(text, sizeof text, true), 0);
	assert_non_null(strstr(text, "\"open\": false"));
	assert_non_null(strstr(text, "\"intents\": [[8, 9]], \"intents_set\": 2"));
	assert_non_null(strstr(text, "\"stamps\": [[0, 0, 254], [1, 0, 1], [2, 5, 1]]"));
	poke("meta", 4096 + 100, "x", 1);
	assert_int_equal(inspect(text, sizeof text, false), 0);
	assert_non_null(strstr(text, "copy 0 of the state"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_new_one_is_blank),
		TEST(test_create_refuses),
		TEST(test_create_all_or_nothing),
		TEST(test_create_over_the_rest_of_a_crash),
		TEST(test_create_above_the_file_size_limit),
		TEST(test_create_on_a_full_disk),
		TEST(test_a_second_engine_is_refused),
		TEST(test_failures_poison),
		TEST(test_a_map_that_cannot_be_written),
		TEST(test_intents_and_maps_over_a_restart),
		TEST(test_damage_is_named),
		TEST(test_a_rotten_copy_costs_nothing),
		TEST(test_wrong_sizes_are_damage),
		TEST(test_copies_that_differ),
		TEST(test_a_damaged_map_page),
		TEST(test_the_inspector),
	};

	return cmocka_run_group_tests_name("volume_replica", tests, NULL, NULL);
}
