/* SPDX-License-Identifier: Apache-2.0
 * kedge-guard: freezes this node's guests when the lease ends, whether kedged lives, hangs or is dead (L11, L18).
 *
 * One thread, one poll. It shares a page of memory with kedged, which tells it by datagrams which processes to watch.
 * It needs nothing else: no configuration, no network, no disk after the start.
 */
#include "guard/core.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#define REALTIME_PRIORITY  10
#define DATAGRAMS_PER_TURN 64
#define LAST_WORDS_MAX     (2 * SLOTS_MAX) /* of a client before its successor: more than kedged says in one turn */

enum { POLL_LISTENER, POLL_CLIENT, POLL_TIMER, POLL_SLOTS };

struct guard {
	struct guard_core core;
	int memfd;
	int pidfds[SLOTS_MAX]; /* -1: not watched */
	struct pollfd polls[POLL_SLOTS + SLOTS_MAX];
};

/* ---- signals ---- */

static int send_signal(const struct guard *g, size_t slot, int number)
{
	if (g->pidfds[slot] < 0)
		return -ESRCH;
	return syscall(SYS_pidfd_send_signal, g->pidfds[slot], number, NULL, 0) == 0 ? 0 : -errno;
}

static usec_t now_cb(void *ctx)
{
	(void)ctx;
	return clock_boottime();
}

static int stop_cb(void *ctx, size_t slot)
{
	return send_signal(ctx, slot, SIGSTOP);
}

static int cont_cb(void *ctx, size_t slot)
{
	return send_signal(ctx, slot, SIGCONT);
}

static int kill_cb(void *ctx, size_t slot)
{
	return send_signal(ctx, slot, SIGKILL);
}

/* ---- datagrams ---- */

static void client_close(struct guard *g)
{
	if (g->polls[POLL_CLIENT].fd >= 0)
		(void)close(g->polls[POLL_CLIENT].fd);
	g->polls[POLL_CLIENT].fd = -1;
}

/* @fd -1: none goes with it. A client that does not read is dropped; it comes again. */
static void say(struct guard *g, uint32_t op, uint32_t slot, int fd)
{
	const struct guard_msg msg = {op, slot};

	if (fdpass_send(g->polls[POLL_CLIENT].fd, &msg, sizeof msg, fd) < 0)
		client_close(g);
}

static uint32_t own_version(void)
{
	unsigned major = 0, minor = 0, patch = 0;

	(void)sscanf(version_own(), "%3u.%3u.%3u", &major, &minor, &patch);
	return (major & 0xff) << 16 | (minor & 0xff) << 8 | (patch & 0xff);
}

static void hello(struct guard *g)
{
	if (g->memfd < 0) {
		say(g, GUARD_EMPTY, 0, -1);
	} else {
		say(g, GUARD_PAGE_FD, 0, g->memfd);
		for (uint32_t i = 0; i < SLOTS_MAX; i++)
			if (g->pidfds[i] >= 0)
				say(g, GUARD_PIDFD, i, g->pidfds[i]);
	}
	say(g, GUARD_ABOUT, own_version(), -1);
	say(g, GUARD_END, 0, -1);
}

/* Takes @fd. A page is taken once: a kedged that has another one is told of ours by HELLO. */
static void take_page(struct guard *g, int fd)
{
	struct guard_page *page;
	struct stat st;

	if (g->memfd >= 0 || fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof *page) {
		(void)close(fd);
		return;
	}
	page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (page == MAP_FAILED || page->magic != GUARD_PAGE_MAGIC || page->version != GUARD_PAGE_VERSION) {
		(void)fprintf(stderr, "kedge-guard: the page is not one of ours, ignoring it\n");
		if (page != MAP_FAILED)
			(void)munmap(page, sizeof *page);
		(void)close(fd);
		return;
	}
	g->memfd = fd;
	guard_core_attach(&g->core, page);
}

static void unwatch(struct guard *g, size_t slot)
{
	if (g->pidfds[slot] >= 0)
		(void)close(g->pidfds[slot]);
	g->pidfds[slot] = -1;
	g->polls[POLL_SLOTS + slot].fd = -1;
}

/* Anything else would take the place of the process that is watched there, which would then run for good. */
static bool is_pidfd(int fd)
{
	return syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == 0 || errno != EBADF;
}

/* Takes @fd. */
static void watch(struct guard *g, uint32_t slot, int fd)
{
	if (!g->core.page || slot >= SLOTS_MAX || g->core.page->slots[slot].vm[0] == '\0' || !is_pidfd(fd)) {
		(void)close(fd);
		return;
	}
	unwatch(g, slot);
	g->pidfds[slot] = fd;
	g->polls[POLL_SLOTS + slot].fd = fd;
	guard_core_watch(&g->core, slot);
}

static void obey(struct guard *g, const struct guard_msg *msg, int fd)
{
	if (msg->op == GUARD_PAGE_FD && fd >= 0) {
		take_page(g, fd);
		return;
	}
	if (msg->op == GUARD_WATCH && fd >= 0) {
		watch(g, msg->slot, fd);
		return;
	}
	if (fd >= 0)
		(void)close(fd);
	if (msg->op == GUARD_HELLO) {
		hello(g);
	} else if (msg->op == GUARD_DROP && g->core.page && msg->slot < SLOTS_MAX) {
		unwatch(g, msg->slot);
		guard_core_drop(&g->core, msg->slot);
	}
}

/* False: nothing more is there, or the client is gone. */
static bool client_read(struct guard *g)
{
	struct guard_msg msg;
	int fd, rc = fdpass_recv(g->polls[POLL_CLIENT].fd, &msg, sizeof msg, &fd);

	if (rc == -EAGAIN)
		return false;
	if (rc < 0) {
		client_close(g);
		return false;
	}
	obey(g, &msg, fd);
	return g->polls[POLL_CLIENT].fd >= 0;
}

/* The newest kedged is the one that counts. What the old one said counts still: it may have died before it was read,
 * and the new one takes as done what it finds in the page. */
static void client_accept(struct guard *g)
{
	int fd = accept4(g->polls[POLL_LISTENER].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (int i = 0; i < LAST_WORDS_MAX && client_read(g); i++)
		;
	client_close(g);
	g->polls[POLL_CLIENT].fd = fd;
}

/* ---- the loop ---- */

static void arm_timer(const struct guard *g, usec_t at)
{
	struct itimerspec spec = {
		.it_value = {.tv_sec = (time_t)(at / USEC_PER_SEC), .tv_nsec = (long)(at % USEC_PER_SEC) * 1000}};

	CHECK(timerfd_settime(g->polls[POLL_TIMER].fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0);
}

static void turn(struct guard *g)
{
	uint64_t ticks;

	arm_timer(g, guard_core_step(&g->core));
	if (poll(g->polls, ARRAY_LEN(g->polls), -1) < 0) {
		CHECK(errno == EINTR);
		return;
	}
	if (g->polls[POLL_TIMER].revents)
		(void)!read(g->polls[POLL_TIMER].fd, &ticks, sizeof ticks);
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (g->polls[POLL_SLOTS + i].fd >= 0 && g->polls[POLL_SLOTS + i].revents) {
			g->polls[POLL_SLOTS + i].fd = -1;
			guard_core_gone(&g->core, i);
		}
	(void)guard_core_step(&g->core); /* what the deadline demands comes before any talk */
	if (g->polls[POLL_LISTENER].revents)
		client_accept(g);
	else if (g->polls[POLL_CLIENT].revents)
		for (int i = 0; i < DATAGRAMS_PER_TURN && client_read(g); i++)
			;
}

/* Best effort, each by itself: an unprivileged guard is later than others, and `kedge node show` says so. */
static void harden(void)
{
	struct sched_param param = {.sched_priority = REALTIME_PRIORITY};
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)!write(fd, "-1000", 5);
		(void)close(fd);
	}
	(void)mlockall(MCL_CURRENT | MCL_FUTURE);
	(void)sched_setscheduler(0, SCHED_FIFO, &param);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
}

static int listen_at(const char *path, struct err *e)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof at.sun_path)
		return err_set(e, -ENAMETOOLONG, "%s: the path is too long for a Unix socket", path);
	memcpy(at.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	(void)unlink(path);
	(void)umask(0077);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 4) < 0)
		return err_set(e, -errno, "listen at %s: %s", path, strerror(errno));
	return fd;
}

static void set_up(struct guard *g, int listener)
{
	const struct guard_ops ops = {g, now_cb, stop_cb, cont_cb, kill_cb};

	guard_core_init(&g->core, &ops);
	g->memfd = -1;
	for (size_t i = 0; i < SLOTS_MAX; i++)
		g->pidfds[i] = -1;
	for (size_t i = 0; i < ARRAY_LEN(g->polls); i++)
		g->polls[i] = (struct pollfd){.fd = -1, .events = POLLIN};
	g->polls[POLL_LISTENER].fd = listener;
	g->polls[POLL_TIMER].fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	CHECK(g->polls[POLL_TIMER].fd >= 0);
}

static int usage(int code)
{
	(void)fprintf(code ? stderr : stdout, "usage: kedge-guard --dir DIR   (kedged starts it; DIR is the node's)\n");
	return code;
}

static int parse(int argc, char **argv, const char **ret_dir)
{
	static const struct option options[] = {
		{"dir", required_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'h')
			return usage(0);
		if (c != 'd')
			return usage(2);
		*ret_dir = optarg;
	}
	return *ret_dir && optind == argc ? -1 : usage(2);
}

int main(int argc, char **argv)
{
	static struct guard guard;
	char path[PATH_BYTES_MAX];
	const char *dir = NULL;
	struct err e = {0};
	int rc = parse(argc, argv, &dir);

	if (rc >= 0)
		return rc;
	(void)snprintf(path, sizeof path, "%s/run/guard.lock", dir);
	rc = file_lock(path, &e);
	if (rc == -EWOULDBLOCK)
		return 0; /* this node has a guard */
	(void)snprintf(path, sizeof path, "%s/run/guard.sock", dir);
	if (rc >= 0)
		rc = listen_at(path, &e);
	if (rc < 0) {
		(void)fprintf(stderr, "kedge-guard: %s\n", e.text);
		return 1;
	}
	set_up(&guard, rc);
	harden();
	for (;;)
		turn(&guard);
}
