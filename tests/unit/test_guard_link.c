/* SPDX-License-Identifier: Apache-2.0
 * The agent's end of the guard, with the real one: agents die and come back, guards too, and no guest is forgotten. */
#include "agent/guard_link.h"
#include "tests/unit/guard_fixture.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define SLOT 5

static struct guard_link *link_;

/* An agent begins: it finds the guard of the test, which listens. */
static void begin(struct fixture *f)
{
	assert_int_equal(guard_link_open(f->dir, &link_, &f->page, NULL), 0);
}

/* It dies: its descriptors close, and that is all. */
static void die(struct fixture *f)
{
	link_ = guard_link_close(link_);
	f->page = NULL;
}

static int set_up_link(void **state)
{
	struct fixture *f;
	int rc = set_up_without_page(state);

	f = *state;
	(void)munmap(f->page, sizeof *f->page);
	(void)close(f->memfd);
	f->memfd = -1;
	hang_up(f);
	begin(f);
	return rc;
}

static int tear_down_link(void **state)
{
	link_ = guard_link_close(link_);
	return tear_down(state);
}

static pid_t run_one(struct fixture *f)
{
	size_t i = new_child(f);
	usec_t until = clock_boottime() + FAR;

	name_slot(f, SLOT, f->children[i]);
	guard_link_watch(link_, SLOT, f->pidfds[i]);
	wait_for_slot(f, SLOT, GUARD_HELD);
	wait_for_state(f->children[i], 'T');
	atomic_store(&f->page->deadline, until);
	atomic_store(&slot_at(f, SLOT)->order, until);
	guard_link_kick(link_);
	wait_for_slot(f, SLOT, GUARD_RUNNING);
	wait_for_state(f->children[i], 'S');
	return f->children[i];
}

static void the_page_outlives_the_agent(void **state)
{
	struct fixture *f = *state;
	usec_t now;

	assert_true(f->page->magic == GUARD_PAGE_MAGIC && f->page->version == GUARD_PAGE_VERSION);
	atomic_store(&f->page->deadline, 4711);
	die(f);
	begin(f);
	assert_true(atomic_load(&f->page->deadline) == 4711);
	now = clock_boottime();
	guard_link_step(link_);
	wait_for_beat(f, now);
}

static void a_guest_goes_on_without_an_agent_and_with_the_next(void **state)
{
	struct fixture *f = *state;
	pid_t pid = run_one(f);
	usec_t now;

	die(f);
	assert_int_equal(state_of(pid), 'S');
	begin(f);
	assert_string_equal(slot_at(f, SLOT)->vm, "vm5");
	guard_link_keep(link_, SLOT, f->pidfds[0]);
	now = clock_boottime();
	wait_for_beat(f, now + 2 * GUARD_BEAT);
	assert_int_equal(atomic_load(&slot_at(f, SLOT)->state), GUARD_RUNNING);
	assert_int_equal(state_of(pid), 'S');
	guard_link_drop(link_, SLOT);
	wait_for_slot(f, SLOT, GUARD_FREE);
}

/* The agent died after it had named the slot, and before it could say so: nobody else would ever watch that guest. */
static void a_slot_that_the_guard_never_heard_of_is_watched(void **state)
{
	struct fixture *f = *state;
	size_t i = new_child(f);

	name_slot(f, SLOT, f->children[i]);
	die(f);
	begin(f);
	guard_link_keep(link_, SLOT, f->pidfds[i]);
	wait_for_slot(f, SLOT, GUARD_HELD);
	wait_for_state(f->children[i], 'T');
}

/* L18 */
static void a_new_guard_is_told_what_it_watches(void **state)
{
	struct fixture *f = *state;
	pid_t pid = run_one(f);
	struct wait w = wait_until("the new guard watches");

	end_process(f->guard);
	atomic_store(&slot_at(f, SLOT)->order, 0); /* nobody looks */
	f->guard = run_guard(f->dir);              /* before the agent starts one, which then ends by itself */
	connect_again(f);
	hang_up(f);
	while (state_of(pid) != 'T') {
		guard_link_step(link_);
		wait_more(&w);
	}
	wait_for_slot(f, SLOT, GUARD_HELD);
	/* and it is one that obeys */
	atomic_store(&slot_at(f, SLOT)->order, clock_boottime() + FAR);
	guard_link_kick(link_);
	wait_for_state(pid, 'S');
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_link, tear_down_link)
	const struct CMUnitTest tests[] = {
		TEST(the_page_outlives_the_agent),
		TEST(a_guest_goes_on_without_an_agent_and_with_the_next),
		TEST(a_slot_that_the_guard_never_heard_of_is_watched),
		TEST(a_new_guard_is_told_what_it_watches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
