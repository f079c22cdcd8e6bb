/* SPDX-License-Identifier: Apache-2.0
 * A replica whose files are made larger: all or nothing, whatever fails, and it opens again. */
#include "tests/unit/volume_help.h"
#include "volume/inspect.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int damage(void)
{
	char text[8192];
	FILE *out = fmemopen(text, sizeof text, "w");
	int rc;

	assert_non_null(out);
	rc = volume_inspect(dir, out, false, NULL);
	(void)fclose(out);
	return rc;
}

#define MORE ((uint64_t)(VOLUME_PAGE_EXTENTS + 3) * VOLUME_EXTENT_BYTES) /* a second page of intents */

static void assert_grown(struct volume_replica *r)
{
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
	struct stat st;

	assert_int_equal(volume_replica_super(r)->size, MORE);
	assert_true(volume_bit(volume_replica_intents(r), 3));
	assert_false(volume_bit(volume_replica_intents(r), VOLUME_PAGE_EXTENTS + 2));
	assert_int_equal(volume_replica_read_map(r, VOLUME_PAGE_EXTENTS + 2, stamps, NULL), 0);
	assert_int_equal(volume_ballot_pack(stamps[0]), 0);
	assert_int_equal(fstat(volume_replica_data(r), &st), 0);
	assert_int_equal(st.st_size, MORE);
	assert_int_equal(volume_replica_state(r)->growing, 0);
}

static void test_growing(void **arg)
{
	struct volume_replica *r;
	uint64_t incarnation;

	(void)arg;
	create();
	r = open_with(false);
	promise(r, 2, 5);
	set_intents(r, (const uint32_t[]){3}, 1);
	incarnation = volume_replica_state(r)->incarnation;
	assert_int_equal(volume_replica_grow(r, MORE, NULL), 0);
	assert_int_equal(volume_replica_grow(r, MORE, NULL), 0); /* it has it */
	assert_grown(r);
	set_intents(r, (const uint32_t[]){3, VOLUME_PAGE_EXTENTS + 1}, 2);
	promise(r, 3, 0); /* what a core knows nothing of stays */
	r = volume_replica_close(r);
	r = open_with(false);
	assert_grown(r);
	assert_true(volume_bit(volume_replica_intents(r), VOLUME_PAGE_EXTENTS + 1));
	assert_int_equal(volume_replica_state(r)->promised.epoch, 3);
	assert_int_equal(volume_replica_state(r)->incarnation, incarnation);
	assert_int_equal(volume_replica_mended(r), 0);
	r = volume_replica_close(r);
}

/* Each call in turn fails, and all after it: it has the old size or the new one, loses nothing, and grows then. */
static void test_growing_all_or_nothing(void **arg)
{
	struct volume_replica *r;
	int rc = -1;
	long n = 0;

	(void)arg;
	for (; rc < 0; n++) {
		create();
		r = open_with(false);
		promise(r, 2, 5);
		set_intents(r, (const uint32_t[]){3}, 1);
		calls_error = n % 2 ? EIO : ENOSPC;
		calls_left = n;
		rc = volume_replica_grow(r, MORE, NULL);
		calls_left = -1;
		r = volume_replica_close(r);
		r = open_with(false);
		assert_true(rc < 0 || volume_replica_super(r)->size == MORE);
		assert_true(volume_replica_super(r)->size == MORE || volume_replica_super(r)->size == SIZE);
		assert_true(volume_bit(volume_replica_intents(r), 3));
		assert_int_equal(volume_replica_state(r)->promised.minor, 5);
		assert_int_equal(damage(), 0); /* no damage, whatever the files' sizes */
		assert_int_equal(volume_replica_grow(r, MORE, NULL), 0);
		assert_grown(r);
		r = volume_replica_close(r);
		(void)teardown(NULL);
		(void)setup(NULL);
	}
	assert_true(n > 8);
}

/* Room is not there: nothing is poisoned, and a later try may find it. */
static void test_growing_without_room(void **arg)
{
	struct volume_replica *r;
	struct err e = {0};

	(void)arg;
	create();
	r = open_with(false);
	calls_error = EFBIG;
	calls_left = 3; /* the state in both its copies, and its sync */
	assert_int_equal(volume_replica_grow(r, MORE, &e), -EFBIG);
	assert_non_null(strstr(e.text, "no files that large"));
	calls_left = -1;
	assert_int_equal(volume_replica_super(r)->size, SIZE);
	assert_int_equal(volume_replica_sync(r, NULL), 0);
	assert_int_equal(volume_replica_grow(r, MORE, &e), 0);
	r = volume_replica_close(r);
}

/* A file of a size that no growth explains is damage as ever. */
static void test_sizes_beyond_a_growth(void **arg)
{
	struct volume_replica *r;
	char path[96];

	(void)arg;
	create();
	r = open_with(false);
	assert_int_equal(volume_replica_grow(r, 2 * SIZE, NULL), 0);
	r = volume_replica_close(r);
	(void)snprintf(path, sizeof path, "%s/data", dir);
	assert_int_equal(truncate(path, 3 * SIZE), 0);
	REFUSE_OPEN(-EBADMSG, "where it must have");
	assert_int_equal(truncate(path, SIZE), 0);
	REFUSE_OPEN(-EBADMSG, "where it must have");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_growing),
		TEST(test_growing_all_or_nothing),
		TEST(test_growing_without_room),
		TEST(test_sizes_beyond_a_growth),
	};

	return cmocka_run_group_tests_name("volume_grow", tests, NULL, NULL);
}
