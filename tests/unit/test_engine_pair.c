/* SPDX-License-Identifier: Apache-2.0
 * Two nodes with a real engine each, links between them that kedged makes, and the test as the store: replicas join,
 * leave and take over, whatever part dies meanwhile. */
#include "tests/unit/engine_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { REMOVE, ADD, BUMP };

static struct lab *begin(void **state)
{
	struct lab *lab = *state;

	for (size_t i = 0; i < lab->n; i++)
		(void)engine_start(&lab->hosts[i]);
	for (size_t i = 0; i < lab->n; i++) {
		UNTIL(lab, engine_pid(&lab->hosts[i]) > 0);
		kedged_begin(&lab->hosts[i]);
	}
	UNTIL(lab, lab->hosts[0].connected && lab->hosts[1].connected);
	return lab;
}

static struct lab *begin_in_sync(void **state)
{
	struct lab *lab = begin(state);

	store_create(lab);
	UNTIL(lab, store_is_in_sync(lab, 2));
	UNTIL(lab, lab->hosts[0].status.serves);
	return lab;
}

/* The leader moves the volume to node 2; its old primary @confirmed that it stopped. */
static void take_over(struct lab *lab, bool confirmed)
{
	lab->row.primary = 2;
	lab->row.primary_since = lab->row.vm_epoch = lab->row.epoch + 1;
	lab->members[0].in_sync = confirmed;
	lab->serve[0] = ENGINE_SERVE_NOBODY;
	lab->serve[1] = ENGINE_SERVE_VM;
	store_commit(lab, true);
}

static void a_replica_joins_and_takes_over(void **state)
{
	struct lab *lab = begin(state);
	struct host *a = &lab->hosts[0], *b = &lab->hosts[1];
	int fd;

	lab->is_mute = true;
	store_create(lab);
	UNTIL(lab, a->status.serves);
	fd = guest_open(a, "disk");
	assert_true(guest_writes(a, fd, 0, 'a')); /* before the other is in sync: it is copied */
	lab->is_mute = false;
	UNTIL(lab, store_is_in_sync(lab, 2));
	assert_true(guest_writes(a, fd, 4096, 'b'));
	assert_int_equal(guest_open(b, "disk"), -1);
	take_over(lab, true);
	UNTIL(lab, guest_is_ended(fd));
	guest_close(fd);
	UNTIL(lab, b->status.serves && !a->status.leads);
	fd = guest_open(b, "disk");
	assert_true(guest_reads(b, fd, 0, 'a'));
	assert_true(guest_reads(b, fd, 4096, 'b'));
	assert_true(guest_writes(b, fd, 0, 'c'));
	guest_close(fd);
	assert_true(store_is_in_sync(lab, 1));
}

/* The outcome of what it asks for is unknown: it asks again, and the write waits until there is one. */
static void a_dead_peer_is_removed_once_kedged_is_back(void **state)
{
	struct lab *lab = begin_in_sync(state);
	struct host *a = &lab->hosts[0], *b = &lab->hosts[1];
	unsigned asked;
	int fd = guest_open(a, "disk");

	assert_true(guest_writes(a, fd, 0, 'a'));
	kedged_die(a);
	kedged_die(b);
	engine_kill(b);
	guest_begin_write(fd, 4096, 'b');
	asked = lab->asked[REMOVE];
	lab_run(lab, 300 * USEC_PER_MS);
	lab->is_mute = true;
	kedged_begin(a);
	UNTIL(lab, lab->asked[REMOVE] > asked);
	assert_int_equal(lab->last.node, 2);
	kedged_die(a); /* with the question unanswered */
	lab->is_mute = false;
	kedged_begin(a);
	UNTIL(lab, !store_is_in_sync(lab, 2));
	assert_true(guest_end_write(a, fd));
	kedged_begin(b);
	UNTIL(lab, store_is_in_sync(lab, 2)); /* its engine is started, and joins again */
	guest_close(fd);
}

/* V9, V23: an ADD whose outcome nobody heard may commit late; the primary needs that replica until then. */
static void an_add_of_unknown_outcome_is_asked_again(void **state)
{
	struct lab *lab = begin(state);
	struct host *a = &lab->hosts[0];
	struct engine_propose first;
	int fd;

	lab->is_mute = true;
	store_create(lab);
	UNTIL(lab, lab->asked[ADD] == 1);
	first = lab->last;
	UNTIL(lab, a->status.serves);
	fd = guest_open(a, "disk");
	assert_true(guest_writes(a, fd, 0, 'a'));
	UNTIL(lab, lab->asked[ADD] == 2); /* after three seconds */
	assert_true(lab->last.seq != first.seq && lab->last.epoch == first.epoch &&
		    lab->last.incarnation == first.incarnation);
	lab->members[1].in_sync = true; /* the first one did commit */
	lab->members[1].incarnation = first.incarnation;
	store_commit(lab, true);
	lab->is_mute = false;
	assert_true(guest_writes(a, fd, 4096, 'b'));
	guest_close(fd);
	take_over(lab, false);
	UNTIL(lab, lab->hosts[1].status.serves);
	fd = guest_open(&lab->hosts[1], "disk");
	assert_true(guest_reads(&lab->hosts[1], fd, 0, 'a') && guest_reads(&lab->hosts[1], fd, 4096, 'b'));
	guest_close(fd);
}

/* V23: a primary that was started anew voids the ADD that it may have asked for. */
static void a_new_engine_bumps_over_an_add_of_before(void **state)
{
	struct lab *lab = begin(state);
	struct host *a = &lab->hosts[0];

	lab->is_mute = true;
	store_create(lab);
	UNTIL(lab, lab->asked[ADD] == 1);
	engine_kill(a);
	lab->is_mute = false;
	UNTIL(lab, store_is_in_sync(lab, 2));
	assert_int_equal(lab->asked[BUMP], 1);
	assert_int_equal(lab->asked[ADD], 2); /* the second one after the BUMP */
	assert_true(lab->row.epoch >= 3);
}

static void links_are_made_again(void **state)
{
	struct lab *lab = begin_in_sync(state);
	struct host *a = &lab->hosts[0], *b = &lab->hosts[1];
	int fd = guest_open(a, "disk");

	kedged_die(a); /* the link stays */
	assert_true(guest_writes(a, fd, 0, 'a'));
	kedged_begin(a);
	lab_run(lab, 300 * USEC_PER_MS);
	assert_true(guest_writes(a, fd, 0, 'b'));
	assert_int_equal(lab->asked[REMOVE], 0);
	assert_int_equal(lab->asked[ADD], 1);
	engine_kill(b); /* a new one is started, and dialled */
	assert_true(guest_writes(a, fd, 0, 'c'));
	UNTIL(lab, store_is_in_sync(lab, 2));
	engine_kill(a);
	guest_close(fd);
	a->status.serves = false;
	UNTIL(lab, a->status.serves);
	fd = guest_open(a, "disk");
	assert_true(guest_reads(a, fd, 0, 'c'));
	assert_true(guest_writes(a, fd, 0, 'd'));
	guest_close(fd);
	UNTIL(lab, store_is_in_sync(lab, 2));
}

#define RENEWALS    3
#define WORN_WRITES 350 /* of 4 KiB: before it is worn at 1.5 MiB */

/* How often, in its log. */
static size_t engine_said(const struct host *h, const char *what)
{
	char path[128], line[512];
	size_t n = 0;
	FILE *f;

	(void)snprintf(path, sizeof path, "%s/log", h->dir);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		n += strstr(line, what) != NULL;
	(void)fclose(f);
	return n;
}

/* False: the link has ended instead, and it waits. */
static bool write_or_end(struct lab *lab, int fd, uint64_t offset)
{
	struct pollfd answer = {.fd = fd, .events = POLLIN};

	guest_begin_write(fd, offset, 'b');
	UNTIL(lab, poll(&answer, 1, 0) == 1 || engine_said(&lab->hosts[0], "served their time") > 0);
	return poll(&answer, 1, 0) == 1 && guest_end_write(&lab->hosts[0], fd);
}

/* Before its keys have served their time another one is made beside it, and no write waits for that. */
static void a_worn_link_is_renewed(void **state)
{
	struct lab *lab = *state;
	struct host *a = &lab->hosts[0], *b = &lab->hosts[1];
	int fd;

	lab->link_mib = "2";
	(void)begin_in_sync(state);
	fd = guest_open(a, "disk");
	for (size_t links = 0; links < RENEWALS; links++)
		for (unsigned i = 0; engine_said(a, "ended:") == links; i++) {
			assert_true(guest_writes(a, fd, i % 512 * 4096, 'a'));
			lab_run(lab,
				i > WORN_WRITES ? 10 * USEC_PER_MS : 0); /* a newer one comes, and the older ends */
		}
	UNTIL(lab, engine_said(b, "ended:") >= RENEWALS);
	assert_true(engine_said(a, "beside an older one") >= RENEWALS);
	assert_int_equal(engine_said(a, "served their time") + engine_said(b, "served their time"), 0);
	kedged_die(a); /* the control: nobody makes links, and it ends at its bound */
	for (unsigned i = 0; write_or_end(lab, fd, i % 512 * 4096); i++)
		assert_true(i < 2000);
	kedged_begin(a);
	assert_true(guest_end_write(a, fd));
	UNTIL(lab, store_is_in_sync(lab, 2));
	guest_close(fd);
	assert_int_equal(lab->asked[ADD], 1 + lab->asked[REMOVE]);
}

static void damage(const struct host *h, off_t offset)
{
	char path[256];
	int fd;

	(void)snprintf(path, sizeof path, "%s/volumes/" ID "/data", h->dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0 && pwrite(fd, "?", 1, offset) == 1);
	(void)close(fd);
}

static void a_scrub_tells_what_it_finds(void **state)
{
	struct lab *lab = begin_in_sync(state);
	struct host *a = &lab->hosts[0];
	int fd = guest_open(a, "disk");

	assert_true(guest_writes(a, fd, 0, 'a'));
	guest_close(fd);
	damage(&lab->hosts[1], 100);
	assert_true(engine_link_verify(a->link, ID, false));
	UNTIL(lab, a->n_findings == 1 && a->status.scrub_passes == 1);
	assert_string_equal(a->finding.id, ID);
	assert_int_equal(a->finding.verdict, 1); /* of two nobody can tell who is right */
	assert_true(a->finding.offset == 0 && a->finding.length > 0);
	assert_int_equal(a->status.scrub_bad, 1);
	assert_true(engine_link_verify(a->link, ID, true));
	UNTIL(lab, a->n_findings == 2 && a->status.scrub_passes == 2);
	assert_true(a->finding.verdict == 0 && a->finding.node == 2);
	assert_true(engine_link_verify(a->link, ID, false));
	UNTIL(lab, a->status.scrub_passes == 3);
	assert_int_equal(a->n_findings, 2);
}

static void a_stranger_is_not_linked(void **state)
{
	struct lab *lab = *state;
	unsigned asked;

	lab->knows_peers = false;
	(void)begin(state);
	store_create(lab);
	UNTIL(lab, lab->hosts[0].status.serves);
	lab_run(lab, 500 * USEC_PER_MS);
	asked = lab->asked[ADD];
	assert_int_equal(asked, 0);
	lab->knows_peers = true; /* the control */
	UNTIL(lab, store_is_in_sync(lab, 2));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_two, tear_down_lab)
	const struct CMUnitTest tests[] = {
		TEST(a_replica_joins_and_takes_over),
		TEST(a_dead_peer_is_removed_once_kedged_is_back),
		TEST(an_add_of_unknown_outcome_is_asked_again),
		TEST(a_new_engine_bumps_over_an_add_of_before),
		TEST(links_are_made_again),
		TEST(a_worn_link_is_renewed),
		TEST(a_scrub_tells_what_it_finds),
		TEST(a_stranger_is_not_linked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
