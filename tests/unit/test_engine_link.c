/* SPDX-License-Identifier: Apache-2.0
 * kedged's end of the volume engine with the real one: rows make replicas, guests are let in as the rows say, and each
 * of the two goes on when the other one dies. */
#include "tests/unit/engine_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define FOLDER "volumes/" ID

static struct host *begin(void **state)
{
	struct lab *lab = *state;

	kedged_begin(&lab->hosts[0]);
	return &lab->hosts[0];
}

/* An engine of the test, which dies with it, and a volume that is served. */
static struct host *begin_serving(void **state)
{
	struct lab *lab = *state;
	struct host *h = &lab->hosts[0];

	(void)engine_start(h);
	UNTIL(lab, engine_pid(h) > 0);
	kedged_begin(h);
	store_create(lab);
	UNTIL(lab, h->status.serves);
	return h;
}

/* One that was told well after what the test has just said. */
static void next_status(struct host *h)
{
	lab_run(h->lab, 60 * USEC_PER_MS);
	h->n_statuses = 0;
	assert_true(engine_link_verify(h->link, ID, false)); /* whatever comes of it, it is told at once */
	UNTIL(h->lab, h->n_statuses >= 1);
}

/* ---- rows ---- */

static void a_row_makes_a_replica(void **state)
{
	struct host *h = begin(state);
	struct lab *lab = h->lab;

	UNTIL(lab, engine_link_is_connected(h->link)); /* kedged has started it */
	assert_int_equal(h->connected, 1);
	assert_int_equal(files_below(h, FOLDER), 0);
	store_create(lab);
	UNTIL(lab, h->status.leads && h->status.serves);
	assert_int_equal(h->n_opened, 1);
	assert_string_equal(h->opened.replica, lab->members[0].replica);
	assert_true(strlen(h->opened.replica) == 32 && h->opened.incarnation != 0);
	assert_int_equal(files_below(h, FOLDER), 3);
	assert_int_equal(h->status.epoch, 1);
	assert_string_equal(h->status.problem, "");
}

static void opened_is_repeated_until_the_row_says_so(void **state)
{
	struct host *h = begin(state);
	struct lab *lab = h->lab;

	UNTIL(lab, engine_link_is_connected(h->link));
	store_create(lab);
	lab->n_members = 0; /* the store takes no report */
	UNTIL(lab, h->n_opened >= 2);
	assert_false(h->status.leads);
	lab->n_members = 1;
	UNTIL(lab, h->status.leads);
	lab_run(lab, 100 * USEC_PER_MS);
	h->n_opened = 0;
	lab_run(lab, 1200 * USEC_PER_MS);
	assert_int_equal(h->n_opened, 0);
}

static void an_older_row_changes_nothing(void **state)
{
	struct host *h = begin_serving(state);
	struct lab *lab = h->lab;
	struct engine_row now;

	lab->row.primary_since = lab->row.vm_epoch = 2; /* another term of the same primary */
	store_commit(lab, true);
	UNTIL(lab, h->status.serves && h->status.epoch == 2);
	now = lab->row;
	lab->row.version -= 1;
	lab->row.epoch = 1;
	lab->row.primary = 9;
	lab->serve[0] = ENGINE_SERVE_NOBODY;
	store_tell(h);
	next_status(h);
	assert_true(h->status.serves && h->status.epoch == 2);
	lab->row = now; /* the same version, another order: that counts */
	store_tell(h);
	UNTIL(lab, !h->status.serves && h->status.leads);
}

/* Room first, then the report, then the size; the guest that is connected is made to connect anew. */
static void a_volume_grows(void **state)
{
	struct host *h = begin_serving(state);
	struct lab *lab = h->lab;
	int fd = guest_open(h, "disk");

	assert_true(fd >= 0 && guest_writes(h, fd, 0, 'a'));
	assert_int_equal(h->status.size, DISK_BYTES);
	h->n_opened = 0;
	lab->row.grow_to = 5 * DISK_BYTES;
	store_commit(lab, false);
	UNTIL(lab, h->n_opened == 1 && h->opened.size == 5 * DISK_BYTES);
	UNTIL(lab, h->status.size == 5 * DISK_BYTES);
	assert_int_equal(lab->row.size, 5 * DISK_BYTES);
	UNTIL(lab, guest_is_ended(fd));
	guest_close(fd);
	fd = guest_open(h, "disk");
	assert_true(guest_reads(h, fd, 0, 'a') && guest_writes(h, fd, 5 * DISK_BYTES - 4096, 'z'));
	guest_close(fd);
	h->status = (struct engine_status){0};
	engine_kill(h); /* and the next one opens what has grown */
	UNTIL(lab, h->status.serves);
	fd = guest_open(h, "disk");
	assert_true(guest_reads(h, fd, 5 * DISK_BYTES - 4096, 'z'));
	guest_close(fd);
	h->n_opened = 0;
	lab_run(lab, 1200 * USEC_PER_MS);
	assert_int_equal(h->n_opened, 0); /* the row says so */
}

static void what_cannot_be_opened_is_told(void **state)
{
	struct lab *lab = *state;
	struct host *h = &lab->hosts[0];
	char path[256];

	for (unsigned i = 0; i < 3; i++) { /* files that are no replica's */
		static const char *const names[] = {"data", "meta", "epochs"};

		(void)snprintf(path, sizeof path, "%s/" FOLDER, h->dir);
		assert_int_equal(file_make_folder(path, 0700, NULL), 0);
		(void)snprintf(path, sizeof path, "%s/" FOLDER "/%s", h->dir, names[i]);
		assert_int_equal(file_replace(path, "nothing", 7, 0600, NULL), 0);
	}
	kedged_begin(h);
	UNTIL(lab, engine_link_is_connected(h->link));
	store_create(lab);
	UNTIL(lab, h->status.problem[0]);
	assert_true(!h->status.leads && !h->status.serves && h->n_opened == 0);
	next_status(h);
	assert_true(h->status.problem[0]);
	assert_true(engine_link_drop(h->link, ID)); /* it can be given up all the same */
	UNTIL(lab, h->n_dropped == 1);
	store_commit(lab, false);
	UNTIL(lab, h->status.serves);
	assert_string_equal(h->status.problem, "");
}

/* ---- guests ---- */

static void a_guest_is_let_in_as_the_row_says(void **state)
{
	struct host *h = begin_serving(state);
	struct lab *lab = h->lab;
	int fd = guest_open(h, "disk");

	assert_true(fd >= 0);
	assert_true(guest_writes(h, fd, 8192, 'x'));
	assert_true(guest_reads(h, fd, 8192, 'x'));
	assert_true(guest_reads(h, fd, 0, 0));
	lab->serve[0] = ENGINE_SERVE_NOBODY;
	store_commit(lab, false);
	UNTIL(lab, guest_is_ended(fd));
	guest_close(fd);
	UNTIL(lab, !h->status.serves);
	assert_int_equal(guest_open(h, "disk"), -1);
	lab->serve[0] = ENGINE_SERVE_VM;
	lab->row.vm_epoch = 2; /* V32: of an epoch that is not led yet */
	store_commit(lab, false);
	next_status(h);
	assert_false(h->status.serves);
	assert_int_equal(guest_open(h, "disk"), -1);
	store_commit(lab, true);
	UNTIL(lab, h->status.serves);
	fd = guest_open(h, "disk");
	assert_true(guest_reads(h, fd, 8192, 'x'));
	guest_close(fd);
}

/* ---- the one dies, the other goes on ---- */

static void io_goes_on_without_kedged(void **state)
{
	struct host *h = begin_serving(state);
	struct lab *lab = h->lab;
	pid_t pid = engine_pid(h);
	int fd = guest_open(h, "disk");

	assert_true(guest_writes(h, fd, 0, 'a'));
	kedged_die(h);
	assert_true(guest_writes(h, fd, 4096, 'b'));
	lab_run(lab, 50 * USEC_PER_MS);
	assert_true(guest_reads(h, fd, 4096, 'b'));
	h->n_opened = h->n_statuses = 0;
	kedged_begin(h);
	UNTIL(lab, h->connected == 2 && h->n_opened == 1 && h->n_statuses >= 1); /* it is told all */
	assert_true(h->status.serves);
	assert_int_equal(h->status.clients, 1);
	assert_true(guest_reads(h, fd, 0, 'a'));
	guest_close(fd);
	assert_int_equal(engine_pid(h), pid);
}

static void an_engine_that_died_is_replaced(void **state)
{
	struct host *h = begin_serving(state);
	struct lab *lab = h->lab;
	pid_t pid = engine_pid(h);
	int fd = guest_open(h, "disk");
	uint64_t incarnation = h->opened.incarnation;

	assert_true(guest_writes(h, fd, 0, 'a'));
	engine_kill(h);
	guest_close(fd);
	h->status.serves = false;
	UNTIL(lab, h->connected == 2 && h->status.serves);
	assert_true(engine_pid(h) != pid);
	assert_true(h->opened.incarnation == incarnation); /* nothing was lost */
	fd = guest_open(h, "disk");
	assert_true(guest_reads(h, fd, 0, 'a'));
	guest_close(fd);
}

static void an_engine_that_hangs_is_replaced(void **state)
{
	struct host *h = begin_serving(state);
	struct lab *lab = h->lab;
	pid_t pid = engine_pid(h);
	int status = 0;

	lab_run(lab, 1200 * USEC_PER_MS); /* longer than what counts as hung: one that answers is left alone */
	assert_int_equal(engine_pid(h), pid);
	assert_int_equal(h->connected, 1);
	(void)kill(pid, SIGSTOP);
	UNTIL(lab, waitpid(pid, &status, WNOHANG) == pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	h->status.serves = false;
	UNTIL(lab, h->connected == 2 && h->status.serves);
}

/* And wait for another one, until its loop runs: it hears signals then. */
static void end_engine(struct host *h, int number)
{
	unsigned before = h->connected;
	pid_t pid = engine_pid(h);

	assert_true(pid > 0);
	(void)kill(pid, number);
	UNTIL(h->lab, h->connected > before && engine_pid(h) > 0 && engine_link_version(h->link)[0]);
	assert_true(engine_pid(h) != pid);
}

/* What was told to end says so, and does not count. */
static void an_engine_that_dies_again_and_again_is_unsound(void **state)
{
	struct lab *lab = *state;
	struct host *h;

	lab->is_patient = true;
	h = begin_serving(state);
	assert_string_equal(engine_link_version(h->link), KEDGE_VERSION);
	for (unsigned i = 0; i < 5; i++)
		end_engine(h, i < 3 ? SIGTERM : SIGKILL);
	assert_false(engine_link_is_unsound(h->link));
	end_engine(h, SIGKILL);
	assert_true(engine_link_is_unsound(h->link));
}

static void hangs_count_too(void **state)
{
	struct host *h = begin_serving(state);

	end_engine(h, SIGSTOP);
	end_engine(h, SIGKILL);
	end_engine(h, SIGSTOP);
	assert_true(engine_link_is_unsound(h->link));
}

/* The thread sanitizer does not see libuv close descriptors, takes the next use of a number for a race, and says so by
 * another exit code. */
static bool ended_well(int status)
{
#ifdef __SANITIZE_THREAD__
	return WIFEXITED(status);
#else
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
#endif
}

static void a_second_engine_ends_at_once(void **state)
{
	struct host *h = begin_serving(state);
	pid_t pid = engine_pid(h), second = engine_start(h);
	int status = 0;

	UNTIL(h->lab, waitpid(second, &status, WNOHANG) == second);
	assert_true(ended_well(status));
	assert_int_equal(engine_pid(h), pid);
	(void)kill(pid, SIGTERM);
	kedged_die(h);
	UNTIL(h->lab, waitpid(pid, &status, WNOHANG) == pid);
	assert_true(ended_well(status));
}

/* ---- giving up ---- */

static void what_is_dropped_is_erased(void **state)
{
	struct host *h = begin_serving(state);
	struct lab *lab = h->lab;
	char replica[VOLUME_NAME_ID];
	int fd = guest_open(h, "disk");

	assert_true(guest_writes(h, fd, 0, 'a'));
	memcpy(replica, h->opened.replica, sizeof replica);
	assert_true(engine_link_drop(h->link, ID));
	UNTIL(lab, h->n_dropped == 1);
	assert_int_equal(files_below(h, "volumes"), 0);
	UNTIL(lab, guest_is_ended(fd));
	guest_close(fd);
	assert_true(engine_link_drop(h->link, ID)); /* also where there is nothing */
	UNTIL(lab, h->n_dropped == 2);
	lab->members[0] = (struct engine_member){.node = 1, .in_sync = true};
	h->status.serves = false;
	store_commit(lab, true); /* wanted again: another replica, all zeroes */
	UNTIL(lab, h->status.serves);
	assert_string_not_equal(h->opened.replica, replica);
	fd = guest_open(h, "disk");
	assert_true(guest_reads(h, fd, 0, 0));
	guest_close(fd);
}

static void a_row_on_the_heels_of_a_drop_begins_anew(void **state)
{
	struct host *h = begin_serving(state);
	struct lab *lab = h->lab;
	char replica[VOLUME_NAME_ID];

	memcpy(replica, h->opened.replica, sizeof replica);
	assert_true(engine_link_drop(h->link, ID));
	store_tell(h); /* of before: it says nothing new */
	lab->members[0] = (struct engine_member){.node = 1, .in_sync = true};
	store_commit(lab, true);
	UNTIL(lab, h->n_dropped == 1 && strcmp(h->opened.replica, replica) != 0);
	UNTIL(lab, h->status.serves);
}

static void leftovers_go_at_the_start(void **state)
{
	struct lab *lab = *state;
	struct host *h = &lab->hosts[0];
	char path[256];

	(void)snprintf(path, sizeof path, "%s/" FOLDER ".gone", h->dir);
	assert_int_equal(file_make_folder(path, 0700, NULL), 0);
	(void)snprintf(path, sizeof path, "%s/" FOLDER ".gone/data", h->dir);
	assert_int_equal(file_replace(path, "x", 1, 0600, NULL), 0);
	assert_int_equal(files_below(h, "volumes"), 1);
	(void)begin(state);
	UNTIL(lab, files_below(h, "volumes") == 0);
}

/* ---- what makes no sense ---- */

static int connect_raw(struct host *h)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)snprintf(at.sun_path, sizeof at.sun_path, "%.90s/run/vol.sock", h->dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	return fd;
}

/* Whatever it said before. */
static bool ends(int fd)
{
	char bytes[ENGINE_BYTES_MAX];
	ssize_t n;

	do
		n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
	while (n > 0);
	return n == 0 || errno != EAGAIN;
}

static bool is_refused(struct host *h, const void *p, size_t n, int fd)
{
	int raw = connect_raw(h);
	bool refused = false;

	assert_int_equal(fdpass_send(raw, p, n, fd), 0);
	for (unsigned i = 0; i < 300 && !refused; i++) {
		lab_turn(h->lab);
		refused = ends(raw);
	}
	(void)close(raw);
	return refused;
}

static void nonsense_ends_the_connection_only(void **state)
{
	const struct engine_hello hello = {.node = 1}, none = {0};
	const struct engine_drop drop = {.id = ID};
	struct lab *lab = *state;
	struct host *h = &lab->hosts[0];
	pid_t pid = engine_start(h);
	struct buf b = {0};
	int null = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	UNTIL(lab, engine_pid(h) == pid);
	assert_true(is_refused(h, "nonsense", 8, -1));
	message_encode(&engine_drop_type, &drop, &b);
	assert_true(is_refused(h, b.data, b.len, -1)); /* before HELLO */
	b.len = 0;
	message_encode(&engine_hello_type, &hello, &b);
	assert_true(is_refused(h, b.data, b.len, -1)); /* without a page */
	assert_true(is_refused(h, b.data, b.len, null));
	assert_false(is_refused(h, b.data, b.len, h->memfd)); /* the control */
	b.len = 0;
	message_encode(&engine_hello_type, &none, &b);
	assert_true(is_refused(h, b.data, b.len, h->memfd));
	buf_free(&b);
	(void)close(null);
	assert_int_equal(engine_pid(h), pid);
	kedged_begin(h);
	store_create(lab);
	UNTIL(lab, h->status.serves);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_one, tear_down_lab)
	const struct CMUnitTest tests[] = {
		TEST(a_row_makes_a_replica),
		TEST(opened_is_repeated_until_the_row_says_so),
		TEST(an_older_row_changes_nothing),
		TEST(a_volume_grows),
		TEST(what_cannot_be_opened_is_told),
		TEST(a_guest_is_let_in_as_the_row_says),
		TEST(io_goes_on_without_kedged),
		TEST(an_engine_that_died_is_replaced),
		TEST(an_engine_that_hangs_is_replaced),
		TEST(an_engine_that_dies_again_and_again_is_unsound),
		TEST(hangs_count_too),
		TEST(a_second_engine_ends_at_once),
		TEST(what_is_dropped_is_erased),
		TEST(a_row_on_the_heels_of_a_drop_begins_anew),
		TEST(leftovers_go_at_the_start),
		TEST(nonsense_ends_the_connection_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
