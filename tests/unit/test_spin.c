/* SPDX-License-Identifier: Apache-2.0
 * When a loop looks for the next event instead of sleeping, and when it sleeps. */
#include "volume/spin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PATIENCE_NS (20ull * 1000 * 1000 * 1000)

struct fixture {
	uv_loop_t loop;
	struct spin s;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);

	assert_int_equal(uv_loop_init(&f->loop), 0);
	spin_open(&f->s, &f->loop);
	*state = f;
	return 0;
}

static void closed_cb(uv_handle_t *handle)
{
	++*(unsigned *)handle->data;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	unsigned closed = 0;

	spin_close(&f->s, closed_cb, &closed);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(closed, 2);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	free(f);
	return 0;
}

/* One turn of the loop. Does it stay awake after it? */
static bool stays_awake(struct fixture *f)
{
	(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	return uv_is_active((uv_handle_t *)&f->s.awake);
}

/* Events one after the other, on a machine that may well stop us in between. */
static void hurry(struct fixture *f)
{
	uint64_t end = uv_hrtime() + PATIENCE_NS;

	do {
		spin_note(&f->s);
		assert_true(uv_hrtime() < end);
	} while (!stays_awake(f));
}

static void pause_ms(unsigned ms)
{
	struct timespec t = {.tv_nsec = ms * 1000000L};

	(void)nanosleep(&t, NULL);
}

static void it_sleeps_at_first(void **state)
{
	struct fixture *f = *state;

	assert_false(stays_awake(f));
	spin_note(&f->s);
	assert_false(stays_awake(f));
}

static void frequent_events_keep_it_awake(void **state)
{
	struct fixture *f = *state;

	hurry(f);
	pause_ms(1); /* nothing came */
	assert_false(stays_awake(f));
}

static void rare_events_do_not(void **state)
{
	struct fixture *f = *state;

	hurry(f);
	for (unsigned i = 0; i < 16; i++) {
		pause_ms(1);
		spin_note(&f->s);
		if (i >= 8)
			assert_false(stays_awake(f));
		else
			(void)stays_awake(f);
	}
}

/* The last answer was quick each time, but whoever asks takes their time. */
static void it_looks_for_answers_and_not_for_requests(void **state)
{
	struct fixture *f = *state;
	uint64_t end = uv_hrtime() + PATIENCE_NS;
	bool awake;

	do {
		pause_ms(1);
		spin_note(&f->s); /* a request */
		f->s.requests = 1;
		awake = stays_awake(f);
		spin_note(&f->s); /* what it waits for */
		f->s.requests = 0;
		(void)stays_awake(f);
		assert_true(uv_hrtime() < end);
	} while (!awake);
	for (unsigned i = 0; i < 8; i++) {
		pause_ms(1);
		spin_note(&f->s);
		(void)stays_awake(f);
	}
	assert_false(stays_awake(f));
}

static void a_disk_is_waited_for_asleep(void **state)
{
	struct fixture *f = *state;

	hurry(f);
	f->s.disk = 1;
	assert_false(stays_awake(f));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(it_sleeps_at_first),          TEST(frequent_events_keep_it_awake),
		TEST(rare_events_do_not),          TEST(it_looks_for_answers_and_not_for_requests),
		TEST(a_disk_is_waited_for_asleep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
