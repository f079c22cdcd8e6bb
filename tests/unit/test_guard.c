/* SPDX-License-Identifier: Apache-2.0
 * The guard's rules over its page: L11 freeze, L12 thaw, L13 hold at once. */
#include "guard/core.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct guard_page page;
static struct guard_core core;
static usec_t now, after_cont; /* the clock, and what SIGCONT takes */
static unsigned stops, conts, kills;
static int stop_answer;

static usec_t now_cb(void *ctx KEDGE_UNUSED)
{
	return now;
}

static int stop_cb(void *ctx KEDGE_UNUSED, size_t slot KEDGE_UNUSED)
{
	stops++;
	return stop_answer;
}

static int cont_cb(void *ctx KEDGE_UNUSED, size_t slot KEDGE_UNUSED)
{
	conts++;
	now += after_cont;
	return 0;
}

static int kill_cb(void *ctx KEDGE_UNUSED, size_t slot KEDGE_UNUSED)
{
	kills++;
	return 0;
}

static int set_up(void **state KEDGE_UNUSED)
{
	static const struct guard_ops ops = {NULL, now_cb, stop_cb, cont_cb, kill_cb};

	memset(&page, 0, sizeof page);
	page.magic = GUARD_PAGE_MAGIC;
	page.version = GUARD_PAGE_VERSION;
	memcpy(page.slots[3].vm, "a", 2);
	atomic_store(&page.slots[3].guarded, 1);
	stops = conts = kills = 0;
	stop_answer = 0;
	after_cont = 0;
	now = 1000;
	guard_core_init(&core, &ops);
	guard_core_attach(&core, &page);
	return 0;
}

static uint64_t state_of(void)
{
	return atomic_load(&page.slots[3].state);
}

static void run_until(usec_t deadline)
{
	guard_core_watch(&core, 3);
	atomic_store(&page.deadline, deadline);
	atomic_store(&page.slots[3].order, deadline);
	(void)guard_core_step(&core);
}

static void watched_is_held(void **state KEDGE_UNUSED)
{
	guard_core_watch(&core, 3);
	assert_int_equal(stops, 1);
	assert_int_equal(state_of(), GUARD_HELD);
	atomic_store(&page.deadline, 5000); /* a deadline alone thaws nothing */
	(void)guard_core_step(&core);
	assert_int_equal(conts, 0);
}

static void runs_by_order_and_freezes_at_the_deadline(void **state KEDGE_UNUSED)
{
	usec_t due;

	run_until(5000);
	assert_int_equal(state_of(), GUARD_RUNNING);
	due = guard_core_step(&core);
	assert_int_equal(due, 5000); /* it wakes for the deadline itself */
	now = 4999;
	(void)guard_core_step(&core);
	assert_int_equal(state_of(), GUARD_RUNNING);
	now = 5000;
	(void)guard_core_step(&core);
	assert_int_equal(state_of(), GUARD_HELD);
	assert_int_equal(stops, 2);
	assert_int_equal(kills, 0);
	atomic_store(&page.deadline, 9000); /* raised, but the order has ended */
	(void)guard_core_step(&core);
	assert_int_equal(state_of(), GUARD_HELD);
}

static void an_order_that_ended_meanwhile_is_taken_back(void **state KEDGE_UNUSED)
{
	after_cont = 10000; /* the guard stood still for longer than the lease */
	run_until(5000);
	assert_int_equal(conts, 1);
	assert_int_equal(state_of(), GUARD_HELD);
}

static void hold_is_obeyed_before_the_deadline(void **state KEDGE_UNUSED)
{
	run_until(5000);
	atomic_store(&page.slots[3].order, 0);
	(void)guard_core_step(&core);
	assert_int_equal(state_of(), GUARD_HELD);
}

static void what_cannot_be_stopped_is_ended(void **state KEDGE_UNUSED)
{
	run_until(5000);
	stop_answer = -EPERM;
	now = 5000;
	(void)guard_core_step(&core);
	assert_int_equal(kills, 1);
	assert_int_equal(state_of(), GUARD_GONE);
}

static void an_unguarded_one_goes_on(void **state KEDGE_UNUSED)
{
	run_until(5000);
	atomic_store(&page.slots[3].guarded, 0);
	now = 6000;
	(void)guard_core_step(&core);
	assert_int_equal(state_of(), GUARD_RUNNING);
}

static void it_beats(void **state KEDGE_UNUSED)
{
	now = 7777;
	assert_int_equal(guard_core_step(&core), 7777 + GUARD_BEAT);
	assert_int_equal(atomic_load(&page.beat), 7777);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, set_up)
	const struct CMUnitTest tests[] = {
		TEST(watched_is_held),
		TEST(runs_by_order_and_freezes_at_the_deadline),
		TEST(an_order_that_ended_meanwhile_is_taken_back),
		TEST(hold_is_obeyed_before_the_deadline),
		TEST(what_cannot_be_stopped_is_ended),
		TEST(an_unguarded_one_goes_on),
		TEST(it_beats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
