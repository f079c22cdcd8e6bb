/* SPDX-License-Identifier: Apache-2.0
 * L23 with the real engine: a volume without a VM is served while the shared page says so, and not an answer longer. */
#include "tests/unit/engine_fixture.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define GEN        77
#define SLOT       3
#define FAR        (3600 * USEC_PER_SEC)
#define SOON       (300 * USEC_PER_MS)
#define READS      16 /* of so many bytes: more than a socket has room for */
#define READ_BYTES (1u << 20)

static void grant(struct host *h, const char *volume, uint64_t gen, usec_t valid_until)
{
	struct export_slot *s = &h->page->exports[SLOT];

	atomic_store(&s->gen, 0);
	(void)snprintf(s->volume, sizeof s->volume, "%s", volume);
	atomic_store(&s->valid_until, valid_until);
	atomic_store(&s->gen, gen);
}

/* Led here, and to be exported by the placement GEN. */
static struct host *begin(void **state)
{
	struct lab *lab = *state;
	struct host *h = &lab->hosts[0];

	(void)engine_start(h);
	UNTIL(lab, engine_pid(h) > 0);
	kedged_begin(h);
	store_create(lab);
	lab->serve[0] = ENGINE_SERVE_EXPORT;
	lab->gen = GEN;
	store_commit(lab, false);
	UNTIL(lab, h->status.leads);
	return h;
}

static void only_its_own_slot_counts(void **state)
{
	struct host *h = begin(state);
	usec_t far = clock_boottime() + FAR;
	int fd;

	lab_run(h->lab, 50 * USEC_PER_MS);
	assert_false(h->status.serves);
	assert_int_equal(guest_open(h, "disk"), -1); /* no slot */
	grant(h, "disk", GEN + 1, far);
	assert_int_equal(guest_open(h, "disk"), -1); /* another placement's */
	grant(h, "other", GEN, far);
	assert_int_equal(guest_open(h, "disk"), -1); /* another volume's */
	grant(h, "disk", GEN, clock_boottime() - 1);
	assert_int_equal(guest_open(h, "disk"), -1); /* over */
	assert_false(h->status.serves);
	grant(h, "disk", GEN, far);
	fd = guest_open(h, "disk");
	assert_true(fd >= 0);
	UNTIL(h->lab, h->status.serves);
	guest_close(fd);
}

static void an_idle_connection_ends_with_the_slot(void **state)
{
	struct host *h = begin(state);
	usec_t end = clock_boottime() + SOON;
	int fd;

	grant(h, "disk", GEN, end);
	fd = guest_open(h, "disk");
	assert_true(guest_writes(h, fd, 0, 'a'));
	assert_true(guest_reads(h, fd, 0, 'a'));
	UNTIL(h->lab, guest_is_ended(fd));
	assert_true(clock_boottime() >= end);
	guest_close(fd);
	UNTIL(h->lab, !h->status.serves);
	assert_int_equal(guest_open(h, "disk"), -1);
	/* a new order */
	atomic_store(&h->page->exports[SLOT].valid_until, clock_boottime() + FAR);
	fd = guest_open(h, "disk");
	assert_true(guest_reads(h, fd, 0, 'a'));
	UNTIL(h->lab, h->status.serves);
	lab_run(h->lab, 50 * USEC_PER_MS);
	assert_false(guest_is_ended(fd));
	guest_close(fd);
}

/* One after the other, over the end: what was asked too late is not answered, not even before the engine's next turn.
 */
static void what_is_asked_too_late_is_not_answered(void **state)
{
	struct host *h = begin(state);
	usec_t end = clock_boottime() + SOON, asked = 0;
	unsigned answers = 0;
	char byte;
	int fd;

	grant(h, "disk", GEN, end);
	fd = guest_open(h, "disk");
	for (;;) {
		asked = clock_boottime();
		guest_begin_read(fd, 0);
		if (!guest_end_read(h, fd, &byte))
			break;
		answers++;
		assert_true(asked < end);
	}
	assert_true(answers > 10 && clock_boottime() >= end);
	guest_close(fd);
}

/* How many bytes arrive until the end, or until there are @max. */
static size_t bytes_left(struct host *h, int fd, size_t max)
{
	static char bytes[65536];
	size_t all = 0;

	while (all < max) {
		ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		if (n > 0)
			all += (size_t)n;
		else
			lab_turn(h->lab);
	}
	return all;
}

static int begin_reading(struct host *h)
{
	int fd = guest_open(h, "disk");

	assert_true(fd >= 0);
	for (unsigned i = 0; i < READS; i++)
		guest_begin_long_read(fd, READ_BYTES);
	return fd;
}

/* Answers that are ready wait for a client that does not read, until it is over. */
static void answers_that_wait_are_not_sent(void **state)
{
	const size_t all = (size_t)READS * (16 + READ_BYTES);
	struct host *h = begin(state);
	size_t in_time;
	int fd, slow;

	grant(h, "disk", GEN, clock_boottime() + SOON);
	slow = begin_reading(h);
	fd = guest_open(h, "disk");
	lab_run(h->lab, SOON + 50 * USEC_PER_MS);
	guest_begin_read(fd, 0);
	assert_int_equal(bytes_left(h, fd, all), 0);
	guest_close(fd);
	in_time = bytes_left(h, slow, all);
	assert_true(in_time > 0 && in_time < all); /* the kernel had taken so much in time */
	guest_close(slow);
	/* the control: with time left they all come */
	grant(h, "disk", GEN, clock_boottime() + FAR);
	slow = begin_reading(h);
	lab_run(h->lab, 100 * USEC_PER_MS);
	assert_int_equal(bytes_left(h, slow, all), all);
	guest_close(slow);
}

static void another_placement_ends_the_connections(void **state)
{
	struct host *h = begin(state);
	int fd;

	grant(h, "disk", GEN, clock_boottime() + FAR);
	fd = guest_open(h, "disk");
	assert_true(guest_writes(h, fd, 0, 'a'));
	h->lab->gen++;
	store_commit(h->lab, false);
	UNTIL(h->lab, guest_is_ended(fd));
	guest_close(fd);
	assert_int_equal(guest_open(h, "disk"), -1);
	grant(h, "disk", GEN + 1, clock_boottime() + FAR);
	fd = guest_open(h, "disk");
	assert_true(guest_reads(h, fd, 0, 'a'));
	guest_close(fd);
}

/* An engine that stood still over the end: it wakes with requests that it has not taken up. */
static void an_engine_that_slept_over_the_end_answers_nothing(void **state)
{
	struct host *h = begin(state);
	pid_t pid = engine_pid(h);
	usec_t end = clock_boottime() + SOON;
	int fd;

	grant(h, "disk", GEN, end);
	fd = guest_open(h, "disk");
	assert_true(guest_writes(h, fd, 0, 'a'));
	assert_int_equal(kill(pid, SIGSTOP), 0);
	guest_begin_read(fd, 0);
	while (clock_boottime() <= end)
		(void)poll(NULL, 0, 5);
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(bytes_left(h, fd, SIZE_MAX), 0);
	guest_close(fd);
	assert_int_equal(engine_pid(h), pid);
}

static void kedged_may_be_dead(void **state)
{
	struct host *h = begin(state);
	usec_t end = clock_boottime() + SOON;
	int fd;

	grant(h, "disk", GEN, end);
	fd = guest_open(h, "disk");
	kedged_die(h);
	assert_true(guest_writes(h, fd, 0, 'a'));
	UNTIL(h->lab, guest_is_ended(fd));
	assert_true(clock_boottime() >= end);
	guest_close(fd);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_one, tear_down_lab)
	const struct CMUnitTest tests[] = {
		TEST(only_its_own_slot_counts),
		TEST(an_idle_connection_ends_with_the_slot),
		TEST(what_is_asked_too_late_is_not_answered),
		TEST(answers_that_wait_are_not_sent),
		TEST(another_placement_ends_the_connections),
		TEST(an_engine_that_slept_over_the_end_answers_nothing),
		TEST(kedged_may_be_dead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
