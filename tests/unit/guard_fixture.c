/* SPDX-License-Identifier: Apache-2.0
 * A real kedge-guard in a folder of its own, a client of it, and children of the test for guests. */
#include "tests/unit/guard_fixture.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE (20 * USEC_PER_SEC) /* until a condition counts as never met */

/* ---- waiting ---- */

void wait_more(const struct wait *w)
{
	if (clock_boottime() > w->end)
		fail_msg("waited too long until %s", w->what);
	(void)poll(NULL, 0, 2);
}

struct wait wait_until(const char *what)
{
	return (struct wait){clock_boottime() + PATIENCE, what};
}

/* ---- processes ---- */

/* Each process of the test dies with it, however it ends. */
static pid_t fork_mortal(void)
{
	pid_t parent = getpid(), child = fork();

	assert_true(child >= 0);
	if (child == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
		_exit(126);
	return child;
}

pid_t run_guard(const char *dir)
{
	pid_t child = fork_mortal();

	if (child == 0) {
		(void)execl(KEDGE_GUARD, "kedge-guard", "--dir", dir, (char *)NULL);
		_exit(127);
	}
	return child;
}

void end_process(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

char state_of(pid_t pid)
{
	char path[64], *end;
	struct buf text = {0};
	char state;

	(void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	assert_int_equal(file_read(path, 4096, &text, NULL), 0);
	buf_append(&text, "", 1);
	end = strrchr((char *)text.data, ')');
	assert_non_null(end);
	state = end[2];
	buf_free(&text);
	return state;
}

void wait_for_state(pid_t pid, char state)
{
	struct wait w = wait_until(state == 'T' ? "the guest is stopped" : "the guest runs");

	while (state_of(pid) != state)
		wait_more(&w);
}

size_t open_descriptors(pid_t pid)
{
	char path[64];
	struct stat st;
	size_t n = 0;

	for (int fd = 0; fd < 1024; fd++) {
		(void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
		n += lstat(path, &st) == 0;
	}
	return n;
}

/* ---- talking to it ---- */

static bool try_connect(struct fixture *f)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%s/run/guard.sock", f->dir);
	if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0) {
		(void)close(fd);
		return false;
	}
	f->sock = fd;
	return true;
}

void hang_up(struct fixture *f)
{
	if (f->sock >= 0)
		(void)close(f->sock);
	f->sock = -1;
}

void connect_again(struct fixture *f)
{
	struct wait w = wait_until("the guard takes a client");

	hang_up(f);
	while (!try_connect(f))
		wait_more(&w);
}

void say(struct fixture *f, uint32_t op, uint32_t slot, int fd)
{
	const struct guard_msg msg = {op, slot};

	assert_int_equal(fdpass_send(f->sock, &msg, sizeof msg, fd), 0);
}

static struct guard_msg hear(struct fixture *f, int *ret_fd)
{
	struct wait w = wait_until("the guard answers");
	struct guard_msg msg;
	int rc;

	while ((rc = fdpass_recv(f->sock, &msg, sizeof msg, ret_fd)) == -EAGAIN)
		wait_more(&w);
	assert_int_equal(rc, 0);
	return msg;
}

void answer_free(struct answer *a)
{
	if (a->memfd >= 0)
		(void)close(a->memfd);
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (a->pidfds[i] >= 0)
			(void)close(a->pidfds[i]);
}

void ask(struct fixture *f, struct answer *ret)
{
	struct guard_msg msg;
	int fd;

	*ret = (struct answer){.memfd = -1};
	for (size_t i = 0; i < SLOTS_MAX; i++)
		ret->pidfds[i] = -1;
	say(f, GUARD_HELLO, 0, -1);
	msg = hear(f, &ret->memfd);
	assert_int_equal(msg.op, ret->memfd >= 0 ? GUARD_PAGE_FD : GUARD_EMPTY);
	while ((msg = hear(f, &fd)).op == GUARD_PIDFD) {
		assert_true(msg.slot < SLOTS_MAX && ret->pidfds[msg.slot] < 0 && fd >= 0);
		ret->pidfds[msg.slot] = fd;
		ret->n_pidfds++;
	}
	assert_int_equal(msg.op, GUARD_ABOUT);
	assert_true(msg.slot > 0);
	msg = hear(f, &fd);
	assert_int_equal(msg.op, GUARD_END);
	assert_int_equal(fd, -1);
}

void assert_watches(struct fixture *f, bool has_page, size_t n)
{
	struct answer a;

	connect_again(f);
	ask(f, &a);
	assert_int_equal(a.memfd >= 0, has_page);
	assert_int_equal(a.n_pidfds, n);
	answer_free(&a);
}

/* ---- the page ---- */

struct guard_page *make_page(int *ret_memfd)
{
	struct guard_page *page;

	*ret_memfd = memfd_create("kedge-test-page", MFD_CLOEXEC);
	assert_true(*ret_memfd >= 0);
	assert_int_equal(ftruncate(*ret_memfd, sizeof *page), 0);
	page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, *ret_memfd, 0);
	assert_true(page != MAP_FAILED);
	page->magic = GUARD_PAGE_MAGIC;
	page->version = GUARD_PAGE_VERSION;
	return page;
}

struct guard_slot *slot_at(struct fixture *f, size_t slot)
{
	return &f->page->slots[slot];
}

void wait_for_slot(struct fixture *f, size_t slot, uint64_t state)
{
	struct wait w = wait_until("the slot has its state");

	while (atomic_load(&slot_at(f, slot)->state) != state)
		wait_more(&w);
}

void wait_for_beat(struct fixture *f, usec_t after)
{
	struct wait w = wait_until("the guard beats");

	while (atomic_load(&f->page->beat) <= after)
		wait_more(&w);
}

void name_slot(struct fixture *f, size_t slot, pid_t pid)
{
	(void)snprintf(slot_at(f, slot)->vm, NAME_BYTES_MAX, "vm%zu", slot);
	atomic_store(&slot_at(f, slot)->pid, (uint64_t)pid);
	atomic_store(&slot_at(f, slot)->guarded, 1);
}

size_t new_child(struct fixture *f)
{
	size_t i = f->n_children;
	pid_t pid;

	assert_true(i < FIXTURE_CHILDREN_MAX);
	pid = fork_mortal();
	if (pid == 0) {
		(void)close_range(3, ~0U, 0); /* or the guard's client would live on in it */
		for (;;)
			(void)pause();
	}
	f->children[i] = pid;
	f->pidfds[i] = (int)syscall(SYS_pidfd_open, pid, 0);
	f->n_children++;
	assert_true(f->pidfds[i] >= 0);
	return i;
}

size_t watch_new_child(struct fixture *f, uint32_t slot)
{
	size_t i = new_child(f);

	name_slot(f, slot, f->children[i]);
	say(f, GUARD_WATCH, slot, f->pidfds[i]);
	wait_for_slot(f, slot, GUARD_HELD);
	wait_for_state(f->children[i], 'T');
	return i;
}

void thaw(struct fixture *f, size_t slot, usec_t until)
{
	atomic_store(&f->page->deadline, until);
	atomic_store(&slot_at(f, slot)->order, until);
	say(f, GUARD_KICK, 0, -1);
}

pid_t run_new_child(struct fixture *f, uint32_t slot)
{
	pid_t pid = f->children[watch_new_child(f, slot)];

	thaw(f, slot, clock_boottime() + FAR);
	wait_for_slot(f, slot, GUARD_RUNNING);
	wait_for_state(pid, 'S');
	return pid;
}

/* ---- set up ---- */

int set_up_without_page(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);
	char run[96];

	*state = f;
	f->sock = f->memfd = -1;
	(void)snprintf(f->dir, sizeof f->dir, "/tmp/kedge-guard-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	(void)snprintf(run, sizeof run, "%s/run", f->dir);
	assert_int_equal(mkdir(run, 0700), 0);
	f->page = make_page(&f->memfd);
	f->guard = run_guard(f->dir);
	connect_again(f);
	return 0;
}

int set_up(void **state)
{
	struct fixture *f;
	int rc = set_up_without_page(state);

	f = *state;
	say(f, GUARD_PAGE_FD, 0, f->memfd);
	return rc;
}

static void remove_below(const struct fixture *f, const char *name)
{
	char path[96];

	(void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
	if (unlink(path) < 0)
		(void)rmdir(path);
}

int tear_down(void **state)
{
	struct fixture *f = *state;

	if (f->guard)
		end_process(f->guard);
	for (size_t i = 0; i < f->n_children; i++) {
		end_process(f->children[i]);
		(void)close(f->pidfds[i]);
	}
	remove_below(f, "run/guard.sock");
	remove_below(f, "run/guard.lock");
	remove_below(f, "run");
	(void)rmdir(f->dir);
	hang_up(f);
	if (f->memfd >= 0) {
		(void)munmap(f->page, sizeof *f->page);
		(void)close(f->memfd);
	}
	free(f);
	return 0;
}
