/* SPDX-License-Identifier: Apache-2.0
 * The replication core by itself: the order of what a write makes durable, and frames that no honest peer sends. The
 * simulator does the rest. */
#include "tests/unit/core_help.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_write_waits_for_its_intent(void **state)
{
	struct fixture *f = *state;
	char data[VOLUME_SECTOR_BYTES];
	struct volume_request r = {
		.kind = VOLUME_WRITE, .offset = 0, .length = sizeof data, .data = data, .client = 1, .epoch = 1};

	open_core(f, 1);
	row(f, 1);
	volume_core_submit(f->c, &r);
	assert_int_equal(f->n_dropped, 1); /* V1: its ballot is not durable yet */
	settle(f);
	volume_core_submit(f->c, &r);
	assert_int_equal(f->n_ios, 0); /* V14 */
	assert_true(f->intents);
	f->intents = false;
	volume_core_intents_written(f->c, 0);
	assert_int_equal(f->n_ios, 1);
	assert_int_equal(f->n_replies, 0);
	settle(f);
	assert_int_equal(f->n_replies, 1);
	assert_int_equal(f->rc, 0);
	assert_true(volume_core_intent(f->c, 0));
	assert_int_equal(volume_core_stamp(f->c, 0).epoch, 1);
}

static void steady_writes_make_nothing_else_durable(void **state)
{
	struct fixture *f = *state;
	char data[VOLUME_SECTOR_BYTES];
	struct volume_request r = {
		.kind = VOLUME_WRITE, .offset = 0, .length = sizeof data, .data = data, .client = 1, .epoch = 1};

	open_core(f, 1);
	row(f, 1);
	settle(f);
	volume_core_submit(f->c, &r);
	settle(f);
	for (int i = 0; i < 1000; i++) {
		r.offset = (uint64_t)i * sizeof data;
		volume_core_submit(f->c, &r);
		assert_false(f->intents || f->state_seq || f->n_maps);
		assert_int_equal(f->n_ios, 1);
		settle(f);
	}
	assert_int_equal(f->n_replies, 1001);
}

static void a_scrub_of_the_only_copy_finds_what_cannot_be_read(void **state)
{
	struct fixture *f = *state;
	struct volume_core_status st;

	open_core(f, 1);
	assert_int_equal(volume_core_scrub(f->c, 0, false), -EPERM);
	row(f, 1);
	settle(f);
	assert_int_equal(volume_core_scrub(f->c, 0, false), 0);
	assert_int_equal(volume_core_scrub(f->c, 0, false), -EALREADY);
	for (uint64_t block = 0; block < BLOCKS; block++) {
		assert_int_equal(f->n_ios, 1);
		memset(f->ios[0]->hash, 7, sizeof f->ios[0]->hash);
		volume_core_io_done(f->c, f->ios[--f->n_ios], block == 5 ? -EIO : 0);
	}
	assert_int_equal(f->n_findings, 1);
	assert_int_equal(f->finding.verdict, VOLUME_LOST);
	assert_int_equal(f->finding.offset, 5 * VOLUME_BLOCK_BYTES);
	volume_core_status(f->c, &st);
	assert_false(st.scrub.on);
	assert_int_equal(st.scrub.lost, 1);
	assert_int_equal(st.role, VOLUME_LEADING); /* the rest of it is still good */
}

/* Else a joiner with a bad sector would fail at it for ever. */
static void a_block_that_cannot_be_read_only_differs(void **state)
{
	static const uint8_t unreadable[VOLUME_HASH_BYTES];
	struct fixture *f = *state;
	struct volume_frame hello = {.kind = VOLUME_F_HELLO, .ballot = {1, 0}, .session = 1};
	struct volume_frame hash = {
		.kind = VOLUME_F_HASH, .ballot = {1, 0}, .session = 1, .seq = 1, .length = VOLUME_BLOCK_BYTES};

	open_core(f, 2);
	row(f, 1);
	volume_core_frame(f->c, 1, &hello);
	settle(f);
	volume_core_frame(f->c, 1, &hash);
	assert_int_equal(f->n_ios, 1);
	memset(f->ios[0]->hash, 7, sizeof f->ios[0]->hash);
	volume_core_io_done(f->c, f->ios[--f->n_ios], -EIO);
	assert_int_equal(f->sent.kind, VOLUME_F_HASHED);
	assert_memory_equal(f->sent.hash, unreadable, sizeof unreadable);
	assert_int_equal(f->rc, 0); /* it goes on */
}

/* Whoever asked hears nothing, and is let go: the connection could not end otherwise, nor could the engine. */
static void a_failed_read_ends_the_replica(void **state)
{
	struct fixture *f = *state;
	char data[VOLUME_SECTOR_BYTES];
	struct volume_request r = {.kind = VOLUME_READ, .length = sizeof data, .data = data, .client = 1, .epoch = 1};

	open_core(f, 1);
	row(f, 1);
	settle(f);
	volume_core_submit(f->c, &r);
	assert_int_equal(f->n_ios, 1);
	volume_core_io_done(f->c, f->ios[--f->n_ios], -EIO);
	assert_int_equal(f->rc, -EIO);
	assert_int_equal(f->n_replies, 0);
	assert_int_equal(f->n_dropped, 1);
}

static void a_vm_placed_later_is_not_served(void **state)
{
	struct fixture *f = *state;
	struct volume_request r = {.kind = VOLUME_FLUSH, .client = 1, .epoch = 2};

	open_core(f, 1);
	row(f, 1);
	settle(f);
	volume_core_submit(f->c, &r); /* V32 */
	assert_int_equal(f->n_dropped, 1);
}

/* xorshift64* (Vigna 2016) */
static uint64_t next_random(uint64_t *x)
{
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return *x * 2685821657736338717ULL;
}

static uint64_t odd_number(uint64_t *x, uint64_t usual)
{
	switch (next_random(x) % 6) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX - next_random(x) % 3;
	case 2:
		return next_random(x);
	case 3:
		return SIZE - next_random(x) % 3 * VOLUME_SECTOR_BYTES;
	default:
		return next_random(x) % usual;
	}
}

/* It comes on an older link, after its successor on a newer one: the session of that goes on. */
static void a_hello_that_was_overtaken_is_not_obeyed(void **state)
{
	struct fixture *f = *state;
	struct volume_frame hello = {.kind = VOLUME_F_HELLO, .ballot = {1, 0}, .session = 2};
	struct volume_frame flush = {.kind = VOLUME_F_FLUSH, .ballot = {1, 0}, .session = 2, .seq = 5};

	open_core(f, 2);
	row(f, 1);
	assert_true(volume_core_obeys(f->c, &hello));
	volume_core_frame(f->c, 1, &hello);
	settle(f);
	assert_true(f->sent.kind == VOLUME_F_WELCOME && f->sent.session == 2);
	hello.session = 1;
	assert_false(volume_core_obeys(f->c, &hello));
	volume_core_frame(f->c, 1, &hello);
	settle(f);
	assert_int_equal(f->n_sent, 1);
	volume_core_frame(f->c, 1, &flush);
	settle(f);
	assert_true(f->n_sent == 2 && f->sent.kind == VOLUME_F_ACK && f->sent.seq == 5);
	hello.session = 3;
	assert_true(volume_core_obeys(f->c, &hello));
	hello.ballot.epoch = 2; /* counts anew */
	hello.session = 1;
	assert_true(volume_core_obeys(f->c, &hello));
	volume_core_frame(f->c, 1, &hello);
	settle(f);
	assert_true(f->sent.kind == VOLUME_F_WELCOME && f->sent.session == 1);
	hello.ballot = (struct volume_ballot){1, 0};
	hello.session = 9;
	assert_false(volume_core_obeys(f->c, &hello));
}

/* Garbage of every kind, in the right session or not: nothing is done outside the volume (fx_io looks), and no memory
 * is lost or used twice (the address sanitizer looks). */
static void frames_of_a_liar_do_no_harm(void **state)
{
	struct fixture *f = *state;
	uint64_t x = 42;

	open_core(f, 2);
	row(f, 1);
	volume_core_link_up(f->c, 1);
	for (int i = 0; i < 100000; i++) {
		struct volume_frame frame = {
			.kind = (enum volume_frame_kind)(next_random(&x) % 16),
			.ballot = {(uint32_t)(next_random(&x) % 3), (uint32_t)(next_random(&x) % 3)},
			.session = next_random(&x) % 3,
			.seq = next_random(&x) % 50,
			.same = next_random(&x) % 2,
			.stamp = {(uint32_t)next_random(&x), 1}};

		frame.offset = odd_number(&x, SIZE);
		frame.length = odd_number(&x, VOLUME_BLOCK_BYTES);
		if (next_random(&x) % 3)
			frame.data = malloc(8);
		volume_core_frame(f->c, next_random(&x) % 4 ? 1 : 3, &frame);
		if (f->n_ios > 100 || next_random(&x) % 50 == 0)
			settle(f);
	}
	settle(f);
	assert_true(f->n_unlinked > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_write_waits_for_its_intent),
		TEST(steady_writes_make_nothing_else_durable),
		TEST(a_scrub_of_the_only_copy_finds_what_cannot_be_read),
		TEST(a_block_that_cannot_be_read_only_differs),
		TEST(a_failed_read_ends_the_replica),
		TEST(a_vm_placed_later_is_not_served),
		TEST(a_hello_that_was_overtaken_is_not_obeyed),
		TEST(frames_of_a_liar_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
