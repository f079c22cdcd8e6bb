/* SPDX-License-Identifier: Apache-2.0
 * The replication core by itself: the order of what a write makes durable, and frames that no honest peer sends. The
 * simulator does the rest. */
#include "volume/core.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE    (2 * (uint64_t)VOLUME_EXTENT_BYTES + VOLUME_BLOCK_BYTES)
#define BLOCKS  (2 * VOLUME_EXTENT_BLOCKS + 1)
#define IOS_MAX 4096

struct fixture {
	struct volume_core *c;
	uint64_t state_seq;
	bool intents;
	struct volume_io *ios[IOS_MAX];
	size_t n_ios;
	uint32_t maps[IOS_MAX];
	size_t n_maps;
	struct volume_frame sent; /* the last one */
	size_t n_sent, n_unlinked, n_dropped, n_replies;
	struct volume_finding finding; /* the last one */
	size_t n_findings;
	int rc;
	uint8_t bits[8];
	struct volume_ballot stamps[3 * VOLUME_EXTENT_BLOCKS];
};

static void fx_state(void *ctx, const struct volume_state *s KEDGE_UNUSED, uint64_t seq)
{
	((struct fixture *)ctx)->state_seq = seq;
}

static void fx_intents(void *ctx, const uint8_t *bits KEDGE_UNUSED)
{
	((struct fixture *)ctx)->intents = true;
}

static void fx_map(void *ctx, uint32_t extent, const struct volume_ballot *stamps KEDGE_UNUSED)
{
	struct fixture *f = ctx;

	f->maps[f->n_maps++] = extent;
}

static void fx_io(void *ctx, struct volume_io *io)
{
	struct fixture *f = ctx;

	assert_true(f->n_ios < IOS_MAX);
	assert_true(io->kind == VOLUME_IO_SYNC || (io->length > 0 && io->offset + io->length <= SIZE));
	f->ios[f->n_ios++] = io;
}

static void fx_send(void *ctx, node_id_t node KEDGE_UNUSED, const struct volume_frame *frame)
{
	struct fixture *f = ctx;

	f->sent = *frame;
	f->n_sent++;
}

static void fx_unlink(void *ctx, node_id_t node KEDGE_UNUSED)
{
	((struct fixture *)ctx)->n_unlinked++;
}

static void fx_propose(void *ctx KEDGE_UNUSED, const struct volume_change *change KEDGE_UNUSED)
{
}

static void fx_none(void *ctx KEDGE_UNUSED)
{
}

static void fx_reply(void *ctx, struct volume_request *r KEDGE_UNUSED, int rc)
{
	((struct fixture *)ctx)->n_replies++;
	((struct fixture *)ctx)->rc = rc;
}

static void fx_drop(void *ctx, struct volume_request *r KEDGE_UNUSED)
{
	((struct fixture *)ctx)->n_dropped++;
}

static void fx_broken(void *ctx, int rc)
{
	((struct fixture *)ctx)->rc = rc;
}

static void *fx_buffer(void *ctx KEDGE_UNUSED, uint64_t length)
{
	return malloc(length);
}

static void fx_buffer_free(void *ctx KEDGE_UNUSED, void *p, uint64_t length KEDGE_UNUSED)
{
	free(p);
}

static void fx_free(void *ctx KEDGE_UNUSED, void *p)
{
	free(p);
}

static bool fx_is_zero(void *ctx KEDGE_UNUSED, const void *data KEDGE_UNUSED, uint64_t at KEDGE_UNUSED,
		       uint64_t length KEDGE_UNUSED)
{
	return false;
}

static void fx_found(void *ctx, const struct volume_finding *finding)
{
	struct fixture *f = ctx;

	f->finding = *finding;
	f->n_findings++;
}

static const struct volume_effects effects = {.state_write = fx_state,
					      .intents_write = fx_intents,
					      .map_write = fx_map,
					      .io = fx_io,
					      .send = fx_send,
					      .unlink = fx_unlink,
					      .propose = fx_propose,
					      .look = fx_none,
					      .reply = fx_reply,
					      .drop = fx_drop,
					      .drop_clients = fx_none,
					      .broken = fx_broken,
					      .buffer = fx_buffer,
					      .buffer_free = fx_buffer_free,
					      .data_free = fx_free,
					      .found = fx_found,
					      .is_zero = fx_is_zero};

static void open_core(struct fixture *f, node_id_t self)
{
	struct volume_config config = {.self = self,
				       .size = SIZE,
				       .state = {.incarnation = 77},
				       .intents = f->bits,
				       .stamps = f->stamps,
				       .copies_max = 4,
				       .intents_cap = 16,
				       .flush_habit = 8,
				       .clear_after = USEC_PER_SEC};
	struct volume_effects fx = effects;

	fx.ctx = f;
	f->c = volume_core_new(&config, &fx, USEC_PER_SEC);
}

static void row_in(struct fixture *f, node_id_t primary, uint32_t epoch)
{
	struct volume_row r = {.version = epoch,
			       .epoch = epoch,
			       .primary = primary,
			       .primary_since = 1,
			       .vm_epoch = 1,
			       .n_members = 1,
			       .members = {{.node = primary, .in_sync = true, .incarnation = 77, .reported = 77}}};

	volume_core_row(f->c, &r);
}

static void row(struct fixture *f, node_id_t primary)
{
	row_in(f, primary, 1);
}

/* Everything that was begun ends well. */
static void settle(struct fixture *f)
{
	while (f->n_ios || f->intents || f->state_seq || f->n_maps) {
		uint64_t seq = f->state_seq;

		f->state_seq = 0;
		if (seq)
			volume_core_state_written(f->c, seq, 0);
		if (f->intents) {
			f->intents = false;
			volume_core_intents_written(f->c, 0);
		}
		if (f->n_maps)
			volume_core_map_written(f->c, f->maps[--f->n_maps], 0);
		if (f->n_ios)
			volume_core_io_done(f->c, f->ios[--f->n_ios], 0);
	}
}

static int set_up(void **state)
{
	*state = xcalloc(1, sizeof(struct fixture));
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	f->c = volume_core_free(f->c);
	free(f);
	return 0;
}

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

/* Few writes before each flush are sent on their way; no flush begins by itself. */
static void few_writes_before_a_flush_hurry(void **state)
{
	struct fixture *f = *state;
	char data[VOLUME_SECTOR_BYTES];
	struct volume_request w = {.kind = VOLUME_WRITE, .length = sizeof data, .data = data, .client = 1, .epoch = 1};
	struct volume_request flush = {.kind = VOLUME_FLUSH, .client = 1, .epoch = 1};

	open_core(f, 1);
	row(f, 1);
	settle(f);
	for (int flushes = 0; flushes <= 8; flushes++) {
		for (int writes = 0; writes < 3; writes++) {
			volume_core_submit(f->c, &w);
			if (f->n_ios)
				assert_int_equal(f->ios[0]->hurries, flushes == 8);
			settle(f);
		}
		assert_int_equal(f->n_ios, 0);
		if (flushes < 8)
			volume_core_submit(f->c, &flush);
		settle(f);
	}
	for (int writes = 3; writes <= 65; writes++) {
		volume_core_submit(f->c, &w);
		assert_int_equal(f->ios[0]->hurries, writes < 64);
		settle(f);
	}
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
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_write_waits_for_its_intent),
		TEST(steady_writes_make_nothing_else_durable),
		TEST(a_scrub_of_the_only_copy_finds_what_cannot_be_read),
		TEST(a_block_that_cannot_be_read_only_differs),
		TEST(a_failed_flush_ends_the_replica),
		TEST(a_failed_read_ends_the_replica),
		TEST(a_flush_that_is_expected_has_begun),
		TEST(few_writes_before_a_flush_hurry),
		TEST(a_flush_of_what_was_flushed_is_answered_at_once),
		TEST(a_vm_placed_later_is_not_served),
		TEST(a_hello_that_was_overtaken_is_not_obeyed),
		TEST(frames_of_a_liar_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
