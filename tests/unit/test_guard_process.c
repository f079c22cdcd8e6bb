/* SPDX-License-Identifier: Apache-2.0
 * The real kedge-guard: it stops, thaws and freezes a real process, whatever its client does or sends. */
#include "tests/unit/guard_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SLOT        5
#define OTHER_SLOT  6
#define PRIVATE_MAX (2u << 20)

/* ---- stopping and thawing ---- */

static void a_watched_one_is_stopped_at_once(void **state)
{
	struct fixture *f = *state;
	pid_t pid = f->children[watch_new_child(f, SLOT)];
	usec_t now;

	/* a deadline alone thaws nothing */
	now = clock_boottime();
	atomic_store(&f->page->deadline, now + FAR);
	say(f, GUARD_KICK, 0, -1);
	wait_for_beat(f, now + 2 * GUARD_BEAT);
	assert_int_equal(state_of(pid), 'T');
}

static void an_order_thaws_and_its_end_holds(void **state)
{
	struct fixture *f = *state;
	pid_t pid = run_new_child(f, SLOT);

	atomic_store(&slot_at(f, SLOT)->order, 0);
	say(f, GUARD_KICK, 0, -1);
	wait_for_state(pid, 'T');
	wait_for_slot(f, SLOT, GUARD_HELD);
}

static void the_deadline_freezes_without_any_client(void **state)
{
	struct fixture *f = *state;
	pid_t pid = f->children[watch_new_child(f, SLOT)];
	usec_t deadline = clock_boottime() + 500 * USEC_PER_MS;

	thaw(f, SLOT, deadline);
	wait_for_state(pid, 'S');
	hang_up(f);
	wait_for_state(pid, 'T');
	assert_true(clock_boottime() >= deadline);
	wait_for_slot(f, SLOT, GUARD_HELD);
}

static void an_unguarded_one_goes_on(void **state)
{
	struct fixture *f = *state;
	pid_t pid = run_new_child(f, SLOT);
	usec_t now = clock_boottime();

	atomic_store(&slot_at(f, SLOT)->guarded, 0);
	atomic_store(&f->page->deadline, now);
	wait_for_beat(f, now + 2 * GUARD_BEAT);
	assert_int_equal(state_of(pid), 'S');
}

static void one_that_died_is_gone(void **state)
{
	struct fixture *f = *state;
	size_t i = watch_new_child(f, SLOT);

	(void)kill(f->children[i], SIGKILL);
	wait_for_slot(f, SLOT, GUARD_GONE);
	/* and one that is dead when it is handed over */
	name_slot(f, OTHER_SLOT, f->children[i]);
	say(f, GUARD_WATCH, OTHER_SLOT, f->pidfds[i]);
	wait_for_slot(f, OTHER_SLOT, GUARD_GONE);
}

/* ---- one guard, many clients ---- */

static void a_second_guard_ends_at_once(void **state)
{
	struct fixture *f = *state;
	pid_t pid = run_new_child(f, SLOT), second = run_guard(f->dir), ended;
	struct wait w = wait_until("the second guard ends");
	int status = 0;

	while ((ended = waitpid(second, &status, WNOHANG)) == 0)
		wait_more(&w);
	assert_int_equal(ended, second);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_watches(f, true, 1);
	assert_int_equal(state_of(pid), 'S');
}

static ino_t inode_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static pid_t pid_of(int pidfd)
{
	char path[64], *line;
	struct buf text = {0};
	long pid;

	(void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
	assert_int_equal(file_read(path, 4096, &text, NULL), 0);
	buf_append(&text, "", 1);
	line = strstr((char *)text.data, "\nPid:");
	assert_non_null(line);
	pid = strtol(line + strlen("\nPid:"), NULL, 10);
	buf_free(&text);
	return (pid_t)pid;
}

static void a_new_client_is_told_everything(void **state)
{
	struct fixture *f = *state;
	pid_t runs = run_new_child(f, SLOT), held = f->children[watch_new_child(f, SLOTS_MAX - 1)];
	struct answer a;
	int other;
	struct guard_page *page = make_page(&other);

	connect_again(f);
	ask(f, &a);
	assert_int_equal(a.n_pidfds, 2);
	assert_int_equal(inode_of(a.memfd), inode_of(f->memfd));
	assert_int_equal(pid_of(a.pidfds[SLOT]), runs);
	assert_int_equal(pid_of(a.pidfds[SLOTS_MAX - 1]), held);
	answer_free(&a);
	/* a client with another page is told of this one */
	say(f, GUARD_PAGE_FD, 0, other);
	ask(f, &a);
	assert_int_equal(inode_of(a.memfd), inode_of(f->memfd));
	answer_free(&a);
	(void)munmap(page, sizeof *page);
	(void)close(other);
	/* and nobody noticed anything */
	assert_int_equal(state_of(runs), 'S');
	assert_int_equal(atomic_load(&slot_at(f, SLOT)->state), GUARD_RUNNING);
	assert_int_equal(state_of(held), 'T');
}

static void a_dropped_one_is_forgotten(void **state)
{
	struct fixture *f = *state;
	pid_t pid = run_new_child(f, SLOT);
	usec_t now;

	say(f, GUARD_DROP, SLOT, -1);
	wait_for_slot(f, SLOT, GUARD_FREE);
	assert_watches(f, true, 0);
	now = clock_boottime();
	atomic_store(&f->page->deadline, now);
	wait_for_beat(f, now + 2 * GUARD_BEAT);
	assert_int_equal(state_of(pid), 'S');
}

static void a_new_guard_takes_over_from_a_dead_one(void **state)
{
	struct fixture *f = *state;
	pid_t pid = run_new_child(f, SLOT);
	usec_t now;

	end_process(f->guard);
	f->guard = 0;
	now = clock_boottime();
	atomic_store(&f->page->deadline, now); /* nobody looks */
	f->guard = run_guard(f->dir);
	assert_watches(f, false, 0);
	assert_int_equal(state_of(pid), 'S');
	say(f, GUARD_PAGE_FD, 0, f->memfd);
	say(f, GUARD_WATCH, SLOT, f->pidfds[0]);
	wait_for_state(pid, 'T');
}

/* The guard reads nothing until a second client is there. */
static void the_last_words_of_a_dead_client_count(void **state)
{
	struct fixture *f = *state;
	size_t child = new_child(f);
	struct answer a;

	name_slot(f, SLOT, f->children[child]);
	(void)kill(f->guard, SIGSTOP);
	wait_for_state(f->guard, 'T');
	say(f, GUARD_WATCH, SLOT, f->pidfds[child]);
	connect_again(f);
	(void)kill(f->guard, SIGCONT);
	ask(f, &a);
	assert_int_equal(a.n_pidfds, 1);
	answer_free(&a);
	wait_for_state(f->children[child], 'T');
}

/* ---- garbage ---- */

/* What was sent before is obeyed now, or was so bad that the guard hung up: then this is a new client. */
static void settle(struct fixture *f)
{
	const struct guard_msg hello = {GUARD_HELLO, 0};
	struct wait w = wait_until("the guard answers or hangs up");
	struct guard_msg msg = {0};
	int fd, rc = fdpass_send(f->sock, &hello, sizeof hello, -1);

	while ((rc == 0 && msg.op != GUARD_END) || rc == -EAGAIN) {
		rc = fdpass_recv(f->sock, &msg, sizeof msg, &fd);
		if (rc == 0 && fd >= 0)
			(void)close(fd);
		if (rc == -EAGAIN)
			wait_more(&w);
	}
	if (rc < 0)
		connect_again(f);
}

/* As it is: any length, any number of descriptors. */
static void send_raw(struct fixture *f, const void *p, size_t n, const int *fds, size_t n_fds)
{
	struct iovec iov = {(void *)p, n};
	union {
		char bytes[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} room = {{0}};
	struct msghdr head = {.msg_iov = &iov, .msg_iovlen = 1};

	assert_true(n_fds <= 4);
	if (n_fds > 0) {
		head.msg_control = room.bytes;
		head.msg_controllen = CMSG_SPACE(n_fds * sizeof *fds);
		room.align.cmsg_level = SOL_SOCKET;
		room.align.cmsg_type = SCM_RIGHTS;
		room.align.cmsg_len = CMSG_LEN(n_fds * sizeof *fds);
		memcpy(CMSG_DATA(&room.align), fds, n_fds * sizeof *fds);
	}
	assert_int_equal(sendmsg(f->sock, &head, MSG_NOSIGNAL), n);
	settle(f);
}

static void send_op(struct fixture *f, uint32_t op, uint32_t slot, const int *fds, size_t n_fds)
{
	const struct guard_msg msg = {op, slot};

	send_raw(f, &msg, sizeof msg, fds, n_fds);
}

/* Datagrams of wrong lengths, each of which would free the guest of SLOT or replace it if it were cut to the right one.
 */
static void wrong_lengths(struct fixture *f, const int *fds)
{
	static const struct guard_msg drops[] = {{GUARD_DROP, SLOT}, {GUARD_DROP, SLOT}};
	static const size_t lengths[] = {0, 1, sizeof drops[0] - 1, sizeof drops[0] + 1, sizeof drops};

	for (size_t i = 0; i < ARRAY_LEN(lengths); i++)
		for (size_t n_fds = 0; n_fds <= 4; n_fds++)
			send_raw(f, drops, lengths[i], fds, n_fds);
}

static void wrong_words(struct fixture *f, const int *fds, size_t n)
{
	static const uint32_t ops[] = {0,          GUARD_EMPTY, GUARD_PIDFD,    GUARD_END,
				       GUARD_KICK, 9,           UINT32_MAX / 2, UINT32_MAX},
			      slots[] = {OTHER_SLOT, SLOTS_MAX, SLOTS_MAX + 1, INT32_MAX, UINT32_MAX};

	for (size_t op = 0; op < ARRAY_LEN(ops); op++)
		for (size_t n_fds = 0; n_fds <= 2; n_fds++)
			send_op(f, ops[op], SLOT, fds, n_fds);
	for (size_t slot = 0; slot < ARRAY_LEN(slots); slot++) {
		send_op(f, GUARD_DROP, slots[slot], NULL, 0);
		send_op(f, GUARD_WATCH, slots[slot], &f->pidfds[0], 1);
		for (size_t i = 0; i < n; i++)
			send_op(f, GUARD_WATCH, slots[slot], &fds[i], 1);
	}
	send_op(f, GUARD_WATCH, SLOT, NULL, 0);
	send_op(f, GUARD_PAGE_FD, 0, NULL, 0);
	for (size_t i = 0; i < n; i++)
		send_op(f, GUARD_PAGE_FD, SLOT, &fds[i], 1);
}

/* Descriptors that are no process', in the guest's own slot. */
static void wrong_descriptors(struct fixture *f, const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		send_op(f, GUARD_WATCH, SLOT, &fds[i], 1);
	for (size_t n_fds = 2; n_fds <= 4; n_fds++)
		send_op(f, GUARD_WATCH, SLOT, fds, n_fds);
}

static void random_datagrams(struct fixture *f, const int *fds)
{
	uint32_t seed = 1, words[8];

	for (int round = 0; round < 400; round++) {
		size_t bytes;

		for (size_t i = 0; i < ARRAY_LEN(words); i++)
			words[i] = (seed = seed * 1664525 + 1013904223) >> 4;
		words[0] = words[0] % 12 == GUARD_DROP ? 0 : words[0] % 12; /* a drop would be obeyed */
		words[1] = words[2] % 2 ? words[1] : SLOT;
		bytes = words[7] % 3 ? sizeof(struct guard_msg) : words[6] % sizeof words;
		send_raw(f, words, bytes, fds, words[5] % 5);
	}
}

static void garbage_neither_ends_it_nor_frees_a_guest(void **state)
{
	struct fixture *f = *state;
	pid_t pid = run_new_child(f, SLOT);
	int fds[5], pipes[2], memfd;
	struct guard_page *page = make_page(&memfd);
	size_t before;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	fds[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
	fds[1] = pipes[0]; /* never ready */
	fds[2] = memfd;    /* always ready */
	fds[3] = pipes[1];
	fds[4] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	settle(f);
	before = open_descriptors(f->guard);
	assert_true(fds[0] >= 0 && fds[4] >= 0);
	wrong_lengths(f, fds);
	wrong_words(f, fds, ARRAY_LEN(fds));
	wrong_descriptors(f, fds, ARRAY_LEN(fds));
	random_datagrams(f, fds);
	assert_int_equal(state_of(pid), 'S');
	assert_int_equal(atomic_load(&slot_at(f, SLOT)->state), GUARD_RUNNING);
	assert_watches(f, true, 1);
	assert_int_equal(open_descriptors(f->guard), before);
	atomic_store(&f->page->deadline, clock_boottime());
	wait_for_state(pid, 'T');
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		(void)close(fds[i]);
	(void)munmap(page, sizeof *page);
}

static bool has_mapped(pid_t pid, const char *name)
{
	char path[64];
	struct buf text = {0};
	bool found;

	(void)snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
	assert_int_equal(file_read(path, 1 << 20, &text, NULL), 0);
	buf_append(&text, "", 1);
	found = strstr((char *)text.data, name) != NULL;
	buf_free(&text);
	return found;
}

static void pages_that_are_none_are_not_taken(void **state)
{
	struct fixture *f = *state;
	int small = memfd_create("small", MFD_CLOEXEC), wrong, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct guard_page *page = make_page(&wrong);
	size_t child = new_child(f), before;

	settle(f);
	before = open_descriptors(f->guard);
	assert_int_equal(ftruncate(small, sizeof *page - 1), 0);
	say(f, GUARD_PAGE_FD, 0, small);
	say(f, GUARD_PAGE_FD, 0, null);
	page->version++;
	say(f, GUARD_PAGE_FD, 0, wrong);
	/* without a page nobody is watched, and nobody stopped */
	say(f, GUARD_WATCH, SLOT, f->pidfds[child]);
	say(f, GUARD_DROP, SLOT, -1);
	assert_watches(f, false, 0);
	assert_int_equal(open_descriptors(f->guard), before);
	assert_false(has_mapped(f->guard, "kedge-test-page"));
	wait_for_state(f->children[child], 'S');
	(void)munmap(page, sizeof *page);
	(void)close(small);
	(void)close(wrong);
	(void)close(null);
	/* the positive control */
	say(f, GUARD_PAGE_FD, 0, f->memfd);
	assert_watches(f, true, 0);
	assert_true(has_mapped(f->guard, "kedge-test-page"));
}

/* It asks and asks and never reads: it is dropped, it comes again, and the guest freezes all the same. */
static void a_client_that_does_not_read_delays_nothing(void **state)
{
	struct fixture *f = *state;
	const struct guard_msg hello = {GUARD_HELLO, 0};
	struct wait w = wait_until("the guest is stopped and the client was dropped");
	pid_t pid = run_new_child(f, SLOT);
	unsigned dropped = 0;

	atomic_store(&f->page->deadline, clock_boottime() + 300 * USEC_PER_MS);
	while (dropped == 0 || state_of(pid) != 'T') {
		int rc = fdpass_send(f->sock, &hello, sizeof hello, -1);

		if (rc == -EAGAIN) {
			wait_more(&w);
		} else if (rc < 0) {
			dropped++;
			connect_again(f);
		}
		assert_true(clock_boottime() < w.end);
	}
	assert_watches(f, true, 1);
}

/* Its memory is locked, so what it holds for itself is what it costs each node. */
static void it_is_small(void **state)
{
#ifdef KEDGE_SANITIZED
	(void)state;
	skip();
#else
	struct fixture *f = *state;
	struct buf text = {0};
	unsigned long bytes = 0;
	char path[64];

	(void)watch_new_child(f, SLOT);
	(void)snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)f->guard);
	assert_int_equal(file_read(path, 1 << 16, &text, NULL), 0);
	buf_append(&text, "", 1);
	for (char *at = (char *)text.data; (at = strstr(at, "\nPrivate_")) != NULL; at++)
		bytes += strtoul(strchr(at, ':') + 1, NULL, 10) * 1024;
	buf_free(&text);
	assert_in_range(bytes, 1, PRIVATE_MAX);
#endif
}

int main(void)
{
#define TEST(f)         cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define WITHOUT_PAGE(f) cmocka_unit_test_setup_teardown(f, set_up_without_page, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(a_watched_one_is_stopped_at_once),
		TEST(an_order_thaws_and_its_end_holds),
		TEST(the_deadline_freezes_without_any_client),
		TEST(an_unguarded_one_goes_on),
		TEST(one_that_died_is_gone),
		TEST(a_second_guard_ends_at_once),
		TEST(a_new_client_is_told_everything),
		TEST(a_dropped_one_is_forgotten),
		TEST(a_new_guard_takes_over_from_a_dead_one),
		TEST(the_last_words_of_a_dead_client_count),
		TEST(garbage_neither_ends_it_nor_frees_a_guest),
		WITHOUT_PAGE(pages_that_are_none_are_not_taken),
		TEST(a_client_that_does_not_read_delays_nothing),
		TEST(it_is_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
