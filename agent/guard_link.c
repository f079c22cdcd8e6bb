/* SPDX-License-Identifier: Apache-2.0
 * The agent's end of kedge-guard. */
#include "agent/guard_link.h"

#include "agent/spawn.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define OPEN_MAX_TIME (5 * USEC_PER_SEC)
#define ANSWER_MAX    (500 * USEC_PER_MS)
#define BEAT_MAX      (USEC_PER_SEC) /* without a beat for this long it is replaced */
#define SPAWN_EVERY   (USEC_PER_SEC)

struct guard_link {
	char dir[PATH_BYTES_MAX];
	char path[PATH_BYTES_MAX]; /* of the socket */
	int fd;                    /* -1: not connected */
	pid_t pid;                 /* of the connected guard */
	int memfd;
	struct guard_page *page;
	int pidfds[SLOTS_MAX]; /* -1: nothing is watched there */
	usec_t spawned_at, connected_at;
	uint32_t version; /* as GUARD_ABOUT says it; 0: not known */
};

/* ---- datagrams ---- */

static void disconnect(struct guard_link *g)
{
	if (g->fd >= 0)
		(void)close(g->fd);
	g->fd = -1;
}

static void say(struct guard_link *g, uint32_t op, size_t slot, int fd)
{
	const struct guard_msg msg = {op, (uint32_t)slot};
	int rc = g->fd >= 0 ? fdpass_send(g->fd, &msg, sizeof msg, fd) : 0;

	/* A kick that finds the queue full is not needed; anything else that is lost means that the guard hangs. */
	if (rc < 0 && (rc != -EAGAIN || op != GUARD_KICK))
		disconnect(g);
}

/* 1: a message, 0: nothing yet, negative: the link is gone. */
static int hear(struct guard_link *g, struct guard_msg *ret, int *ret_fd)
{
	int rc = fdpass_recv(g->fd, ret, sizeof *ret, ret_fd);

	if (rc == -EAGAIN)
		return 0;
	return rc < 0 ? rc : 1;
}

static bool connect_now(struct guard_link *g)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct ucred cred;
	socklen_t n = sizeof cred;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK(fd >= 0 && strlen(g->path) < sizeof at.sun_path);
	memcpy(at.sun_path, g->path, strlen(g->path) + 1);
	if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0) {
		(void)close(fd);
		return false;
	}
	g->fd = fd;
	g->pid = cred.pid;
	g->version = 0;
	g->connected_at = clock_boottime();
	return true;
}

static void spawn(struct guard_link *g)
{
	struct err e = {0};

	g->spawned_at = clock_boottime();
	if (spawn_detached("kedge-guard", g->dir, NULL, &e) < 0)
		log_error("%s", e.text);
}

/* The old one may hang: nothing but SIGKILL moves it then. Its lock is free once it is gone. */
static void replace(struct guard_link *g, const char *why)
{
	log_warning("the guard %s: starting a new one", why);
	if (g->fd >= 0) {
		disconnect(g);
		(void)kill(g->pid, SIGKILL);
	}
	spawn(g);
}

/* ---- opening ---- */

static struct guard_page *map_page(int fd)
{
	struct guard_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return page == MAP_FAILED ? NULL : page;
}

static void make_page(struct guard_link *g)
{
	g->memfd = memfd_create("kedge-guard-page", MFD_CLOEXEC);
	CHECK(g->memfd >= 0 && ftruncate(g->memfd, sizeof *g->page) == 0);
	g->page = map_page(g->memfd);
	CHECK(g->page != NULL);
	g->page->magic = GUARD_PAGE_MAGIC;
	g->page->version = GUARD_PAGE_VERSION;
}

static bool take_page(struct guard_link *g, int fd)
{
	struct guard_page *page = map_page(fd);

	if (!page || page->magic != GUARD_PAGE_MAGIC || page->version != GUARD_PAGE_VERSION)
		return false;
	g->memfd = fd;
	g->page = page;
	return true;
}

/* Takes @fd. */
static bool take_answer(struct guard_link *g, const struct guard_msg *msg, int fd)
{
	if (msg->op == GUARD_PAGE_FD && fd >= 0)
		return take_page(g, fd);
	if (msg->op == GUARD_ABOUT)
		g->version = msg->slot;
	if (msg->op == GUARD_PIDFD && fd >= 0 && msg->slot < SLOTS_MAX) {
		int before = g->pidfds[msg->slot]; /* of a guard that said half of it and hung */

		g->pidfds[msg->slot] = fd;
		fd = before;
	}
	if (fd >= 0)
		(void)close(fd);
	return true;
}

/* Ask the guard what it has. False: it gives no answer. */
static bool greet(struct guard_link *g)
{
	usec_t end = clock_boottime() + ANSWER_MAX;
	struct guard_msg msg = {0};

	say(g, GUARD_HELLO, 0, -1);
	while (g->fd >= 0 && clock_boottime() < end && msg.op != GUARD_END) {
		struct pollfd pfd = {.fd = g->fd, .events = POLLIN};
		int fd, rc;

		(void)poll(&pfd, 1, 20);
		rc = hear(g, &msg, &fd);
		if (rc < 0 || (rc > 0 && !take_answer(g, &msg, fd)))
			return false;
	}
	return msg.op == GUARD_END;
}

static bool open_now(struct guard_link *g)
{
	if (!connect_now(g)) {
		if (clock_boottime() > g->spawned_at + SPAWN_EVERY || g->spawned_at == 0)
			spawn(g);
		return false;
	}
	if (!greet(g)) {
		replace(g, "does not answer");
		return false;
	}
	if (!g->page) {
		make_page(g);
		say(g, GUARD_PAGE_FD, 0, g->memfd);
	}
	say(g, GUARD_KICK, 0, -1);
	return true;
}

int guard_link_open(const char *dir, struct guard_link **ret, struct guard_page **ret_page, struct err *e)
{
	usec_t end = clock_boottime() + OPEN_MAX_TIME;
	struct guard_link *g = xcalloc(1, sizeof *g);

	g->fd = g->memfd = -1;
	for (size_t i = 0; i < SLOTS_MAX; i++)
		g->pidfds[i] = -1;
	(void)snprintf(g->dir, sizeof g->dir, "%s", dir);
	(void)snprintf(g->path, sizeof g->path, "%.900s/run/guard.sock", dir);
	while (!open_now(g)) {
		if (clock_boottime() > end) {
			free(g);
			return err_set(e, -ETIMEDOUT, "the guard of %s does not start (see its messages above)", dir);
		}
		(void)poll(NULL, 0, 5);
	}
	*ret = g;
	*ret_page = g->page;
	return 0;
}

/* ---- running ---- */

static bool is_gone(struct guard_link *g)
{
	struct guard_msg msg;
	int fd, rc;

	if (g->fd < 0)
		return true;
	do {
		rc = hear(g, &msg, &fd);
		if (rc > 0 && fd >= 0)
			(void)close(fd);
		if (rc > 0 && msg.op == GUARD_ABOUT)
			g->version = msg.slot;
	} while (rc > 0);
	return rc < 0;
}

static bool is_hung(const struct guard_link *g)
{
	usec_t now = clock_boottime(), beat = atomic_load(&g->page->beat);

	return now > beat + BEAT_MAX && now > g->connected_at + BEAT_MAX;
}

/* L18: it gets the page and the descriptors, and freezes at once what is past. */
static void hand_over(struct guard_link *g)
{
	say(g, GUARD_PAGE_FD, 0, g->memfd);
	for (size_t i = 0; i < SLOTS_MAX; i++) {
		if (g->pidfds[i] >= 0)
			say(g, GUARD_WATCH, i, g->pidfds[i]);
		else /* given back, but the old guard died before it read that */
			atomic_store(&g->page->slots[i].state, GUARD_FREE);
	}
	say(g, GUARD_KICK, 0, -1);
	say(g, GUARD_HELLO, 0, -1); /* for its version: what else it answers is known */
	log_info("a new guard watches (process %d)", (int)g->pid);
}

void guard_link_step(struct guard_link *g)
{
	if (g->fd >= 0 && !is_gone(g)) {
		if (is_hung(g))
			replace(g, "shows no beat");
		return;
	}
	if (g->fd >= 0) {
		replace(g, "is gone");
		return;
	}
	if (connect_now(g))
		hand_over(g);
	else if (clock_boottime() > g->spawned_at + SPAWN_EVERY)
		spawn(g);
}

static void keep(struct guard_link *g, size_t slot, int pidfd)
{
	CHECK(slot < SLOTS_MAX);
	if (g->pidfds[slot] >= 0)
		(void)close(g->pidfds[slot]);
	g->pidfds[slot] = dup(pidfd);
	CHECK(g->pidfds[slot] >= 0);
}

void guard_link_watch(struct guard_link *g, size_t slot, int pidfd)
{
	keep(g, slot, pidfd);
	say(g, GUARD_WATCH, slot, g->pidfds[slot]);
}

void guard_link_keep(struct guard_link *g, size_t slot, int pidfd)
{
	if (atomic_load(&g->page->slots[slot].state) == GUARD_FREE)
		guard_link_watch(g, slot, pidfd);
	else
		keep(g, slot, pidfd);
}

void guard_link_drop(struct guard_link *g, size_t slot)
{
	if (g->pidfds[slot] >= 0)
		(void)close(g->pidfds[slot]);
	g->pidfds[slot] = -1;
	say(g, GUARD_DROP, slot, -1);
	if (g->fd < 0) /* nobody else will: the next guard is not told of this slot */
		atomic_store(&g->page->slots[slot].state, GUARD_FREE);
}

void guard_link_kick(struct guard_link *g)
{
	say(g, GUARD_KICK, 0, -1);
}

int guard_link_memfd(const struct guard_link *g)
{
	return g->memfd;
}

bool guard_link_is_realtime(const struct guard_link *g)
{
	return g->fd >= 0 && sched_getscheduler(g->pid) == SCHED_FIFO;
}

void guard_link_version(const struct guard_link *g, char *ret, size_t size)
{
	ret[0] = '\0';
	if (g->fd >= 0 && g->version)
		(void)snprintf(ret, size, "%u.%u.%u", g->version >> 16 & 0xff, g->version >> 8 & 0xff,
			       g->version & 0xff);
}

struct guard_link *guard_link_close(struct guard_link *g)
{
	if (!g)
		return NULL;
	disconnect(g);
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (g->pidfds[i] >= 0)
			(void)close(g->pidfds[i]);
	(void)munmap(g->page, sizeof *g->page);
	(void)close(g->memfd);
	free(g);
	return NULL;
}
