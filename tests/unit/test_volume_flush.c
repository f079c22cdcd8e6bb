/* SPDX-License-Identifier: Apache-2.0
 * Flushing in the core by itself: what one covers, and when one begins. */
#include "tests/unit/core_help.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_failed_flush_ends_the_replica(void **state)
{
	struct fixture *f = *state;
	struct volume_request r = {.kind = VOLUME_FLUSH, .client = 1, .epoch = 1};

	open_core(f, 1);
	row(f, 1);
	settle(f);
	volume_core_submit(f->c, &r);
	assert_int_equal(f->n_ios, 1);
	volume_core_io_done(f->c, f->ios[--f->n_ios], -EIO); /* V13 */
	assert_int_equal(f->rc, -EIO);
	assert_int_equal(f->n_replies, 0);
	assert_int_equal(f->n_dropped, 1);
}

static void a_flush_that_is_expected_has_begun(void **state)
{
	struct fixture *f = *state;
	char data[VOLUME_SECTOR_BYTES];
	struct volume_request w = {.kind = VOLUME_WRITE, .length = sizeof data, .data = data, .client = 1, .epoch = 1};
	struct volume_request late = w, flush = {.kind = VOLUME_FLUSH, .client = 1, .epoch = 1};
	size_t before;

	late.offset = VOLUME_BLOCK_BYTES;
	open_core(f, 1);
	row(f, 1);
	settle(f);
	for (int i = 0; i < 8; i++) {
		volume_core_submit(f->c, &w);
		settle(f);
		volume_core_submit(f->c, &flush);
		settle(f);
	}
	for (int i = 0; i < 2; i++) {
		before = f->n_replies;
		volume_core_submit(f->c, &w);
		assert_int_equal(f->n_ios, 1);
		assert_true(f->ios[0]->hurries);
		volume_core_io_done(f->c, f->ios[--f->n_ios], 0);
		assert_int_equal(f->n_ios, 1); /* nobody has asked yet */
		assert_int_equal(f->ios[0]->kind, VOLUME_IO_SYNC);
		if (i == 1) { /* what runs does not cover another write */
			volume_core_submit(f->c, &late);
			volume_core_io_done(f->c, f->ios[--f->n_ios], 0);
			assert_int_equal(f->n_replies, before + 2);
		}
		volume_core_submit(f->c, &flush);
		assert_int_equal(f->n_ios, 1);
		volume_core_io_done(f->c, f->ios[--f->n_ios], 0);
		if (i == 1) {
			assert_int_equal(f->n_replies, before + 2);
			volume_core_io_done(f->c, f->ios[--f->n_ios], 0);
			assert_int_equal(f->n_replies, before + 3);
		} else {
			assert_int_equal(f->n_replies, before + 2);
			assert_int_equal(f->n_ios, 0);
		}
	}
}

/* Where the disk is quicker than the guest. */
static void an_expected_flush_that_has_ended_was_not_in_vain(void **state)
{
	struct fixture *f = *state;
	char data[VOLUME_SECTOR_BYTES];
	struct volume_request w = {.kind = VOLUME_WRITE, .length = sizeof data, .data = data, .client = 1, .epoch = 1};
	struct volume_request flush = {.kind = VOLUME_FLUSH, .client = 1, .epoch = 1};
	size_t before;

	open_core(f, 1);
	row(f, 1);
	settle(f);
	for (int i = 0; i < 11; i++) {
		volume_core_submit(f->c, &w);
		if (i == 0)
			settle(f); /* its intent */
		else
			volume_core_io_done(f->c, f->ios[--f->n_ios], 0);
		assert_int_equal(f->n_ios, i >= 8); /* it begins by itself */
		settle(f);
		before = f->n_replies;
		volume_core_submit(f->c, &flush);
		assert_int_equal(f->n_replies, before + (i >= 8));
		settle(f);
		assert_int_equal(f->n_replies, before + 1);
	}
}

/* It is sent on its way; no flush begins by itself. */
static void little_before_a_flush_hurries(void **state)
{
	struct fixture *f = *state;
	char data[VOLUME_SECTOR_BYTES];
	struct volume_request w = {.kind = VOLUME_WRITE, .length = sizeof data, .data = data, .client = 1, .epoch = 1};
	struct volume_request flush = {.kind = VOLUME_FLUSH, .client = 1, .epoch = 1};

	open_core(f, 1);
	row(f, 1);
	settle(f);
	volume_core_submit(f->c, &w); /* the intent */
	settle(f);
	for (int flushes = 0; flushes <= 8; flushes++) {
		for (int writes = 0; writes < 3; writes++) {
			volume_core_submit(f->c, &w);
			assert_int_equal(f->ios[0]->hurries, flushes == 8);
			volume_core_io_done(f->c, f->ios[--f->n_ios], 0);
			assert_int_equal(f->n_ios, 0);
		}
		if (flushes < 8)
			volume_core_submit(f->c, &flush);
		settle(f);
	}
	for (unsigned written = 3 * VOLUME_SECTOR_BYTES; written <= (1u << 20); written += VOLUME_SECTOR_BYTES) {
		volume_core_submit(f->c, &w);
		assert_int_equal(f->ios[0]->hurries, written < (1u << 20));
		settle(f);
	}
}

/* V11: what was under way when a flush began, and is acknowledged since, is not covered by it. */
static void a_flush_covers_no_write_that_ended_later(void **state)
{
	struct fixture *f = *state;
	char data[VOLUME_SECTOR_BYTES];
	struct volume_request w = {.kind = VOLUME_WRITE, .length = sizeof data, .data = data, .client = 1, .epoch = 1};
	struct volume_request flush = {.kind = VOLUME_FLUSH, .client = 1, .epoch = 1}, next = flush;
	struct volume_io *write;

	open_core(f, 1);
	row(f, 1);
	settle(f);
	volume_core_submit(f->c, &w);
	settle(f);
	volume_core_submit(f->c, &w);
	write = f->ios[--f->n_ios];
	volume_core_submit(f->c, &flush);
	volume_core_io_done(f->c, f->ios[--f->n_ios], 0);
	assert_int_equal(f->n_replies, 2);
	volume_core_io_done(f->c, write, 0);
	volume_core_submit(f->c, &next);
	assert_int_equal(f->n_replies, 3);
	assert_int_equal(f->n_ios, 1);
	assert_int_equal(f->ios[0]->kind, VOLUME_IO_SYNC);
	settle(f);
	assert_int_equal(f->n_replies, 4);
}

/* What it wrote as a replica meanwhile, no flush of its own has covered. */
static void a_flush_of_an_earlier_leadership_covers_nothing(void **state)
{
	struct fixture *f = *state;
	struct volume_request flush = {.kind = VOLUME_FLUSH, .client = 1, .epoch = 1}, next = flush;

	open_core(f, 1);
	row(f, 1);
	settle(f);
	volume_core_submit(f->c, &flush);
	settle(f);
	assert_int_equal(f->n_replies, 1);
	row_in(f, 2, 2);
	settle(f);
	row_in(f, 1, 3);
	settle(f);
	next.epoch = 3;
	volume_core_submit(f->c, &next);
	assert_int_equal(f->n_replies, 1);
	assert_int_equal(f->n_ios, 1);
	settle(f);
	assert_int_equal(f->n_replies, 2);
}

/* V11: the one that ended began after all acknowledgements that the next one could cover, and in this ballot. */
static void a_flush_of_what_was_flushed_is_answered_at_once(void **state)
{
	struct fixture *f = *state;
	char data[VOLUME_SECTOR_BYTES];
	struct volume_request w = {.kind = VOLUME_WRITE, .length = sizeof data, .data = data, .client = 1, .epoch = 1};
	struct volume_request flush = {.kind = VOLUME_FLUSH, .client = 1, .epoch = 1};

	open_core(f, 1);
	row(f, 1);
	settle(f);
	for (unsigned turn = 1; turn <= 3; turn++) {
		size_t before = f->n_replies;

		if (turn < 3)
			volume_core_submit(f->c, &w);
		else
			row_in(f, 1, 2); /* another ballot */
		settle(f);
		volume_core_submit(f->c, &flush);
		assert_int_equal(f->n_ios, 1);
		assert_int_equal(f->ios[0]->kind, VOLUME_IO_SYNC);
		settle(f);
		assert_int_equal(f->n_replies, before + (turn < 3 ? 2 : 1));
		volume_core_submit(f->c, &flush);
		assert_int_equal(f->n_ios, 0);
		assert_int_equal(f->n_replies, before + (turn < 3 ? 3 : 2));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_failed_flush_ends_the_replica),
		TEST(a_flush_that_is_expected_has_begun),
		TEST(an_expected_flush_that_has_ended_was_not_in_vain),
		TEST(little_before_a_flush_hurries),
		TEST(a_flush_covers_no_write_that_ended_later),
		TEST(a_flush_of_an_earlier_leadership_covers_nothing),
		TEST(a_flush_of_what_was_flushed_is_answered_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
