/* SPDX-License-Identifier: Apache-2.0
 * `run/vol.sock`: whoever has the node's key hands over links there, and in cluster mode kedged says what is to be. */
#include "volume/engine_internal.h"

#include "proto/proto.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DATAGRAMS_PER_TURN 64
#define QUEUE_BYTES_MAX    (8u << 20) /* for a kedged that does not read; then it must come again */

_Static_assert(sizeof(struct bulk_handover) <= ENGINE_BYTES_MAX, "a hand-over is the largest");

struct caller {
	struct caller *next;
	struct engine *g;
	int fd;
	uv_poll_t poll;
	struct fdpass_queue queue;
	bool ended;
};

struct sock {
	struct engine *g;
	int listener;
	uv_poll_t poll;
	struct caller *callers; /* the newest first */
	unsigned open;          /* handles that must close */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

static void gone(struct sock *s)
{
	CHECK(s->open > 0);
	if (--s->open > 0 || !s->closed)
		return;
	s->closed(s->closed_ctx);
	free(s);
}

/* ---- one of them ---- */

static void caller_closed(uv_handle_t *handle)
{
	struct caller *c = handle->data;

	(void)close(c->fd);
	fdpass_queue_clear(&c->queue);
	gone(c->g->sock);
	free(c);
}

void caller_end(struct caller *c)
{
	struct caller **at = &c->g->sock->callers;

	if (c->ended)
		return;
	c->ended = true;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	uv_close((uv_handle_t *)&c->poll, caller_closed);
	c->g->store->caller_gone(c->g, c);
}

/* Takes @fd. */
static bool take(struct caller *c, const uint8_t *p, size_t n, int fd)
{
	const struct bulk_handover *h = (const struct bulk_handover *)p;
	bool makes_sense = false;

	if (n == sizeof *h && h->magic == BULK_MAGIC) {
		makes_sense = fd >= 0;
		if (fd >= 0)
			links_take(c->g->links, h, fd);
		return makes_sense;
	}
	makes_sense = c->g->store->message(c->g, c, p, n, fd);
	if (fd >= 0)
		(void)close(fd);
	return makes_sense;
}

static void read_some(struct caller *c)
{
	static union {
		uint8_t bytes[ENGINE_BYTES_MAX];
		struct bulk_handover align;
	} room;
	size_t n = 0;
	int fd = -1, rc = 0;

	for (unsigned i = 0; i < DATAGRAMS_PER_TURN && !c->ended; i++) {
		rc = fdpass_recv_any(c->fd, room.bytes, sizeof room.bytes, &n, &fd);
		if (rc < 0)
			break;
		if (!take(c, room.bytes, n, fd)) {
			log_warning("run/vol.sock: a message of %zu bytes makes no sense: the connection ends", n);
			caller_end(c);
		}
		explicit_bzero(room.bytes, n);
	}
	if (rc < 0 && rc != -EAGAIN) {
		explicit_bzero(room.bytes, sizeof room.bytes);
		caller_end(c);
	}
}

static void caller_cb(uv_poll_t *poll, int status, int events);

static void watch(struct caller *c)
{
	int events = UV_READABLE | (c->queue.first ? UV_WRITABLE : 0);

	CHECK(uv_poll_start(&c->poll, events, caller_cb) == 0);
}

static void caller_cb(uv_poll_t *poll, int status, int events)
{
	struct caller *c = poll->data;
	int rc = status < 0 ? status : 0;

	if (rc == 0 && (events & UV_WRITABLE))
		rc = fdpass_queue_flush(&c->queue, c->fd);
	if (rc < 0 && rc != -EAGAIN)
		caller_end(c);
	if (!c->ended && (events & UV_READABLE))
		read_some(c);
	if (!c->ended)
		watch(c);
}

void caller_send(struct caller *c, const void *p, size_t n)
{
	int rc = fdpass_queue_send(&c->queue, c->fd, p, n, QUEUE_BYTES_MAX);

	if (rc < 0) {
		log_warning("run/vol.sock: kedged %s", rc == -ENOBUFS ? "does not read" : "is gone");
		caller_end(c);
	} else if (c->queue.first) {
		watch(c);
	}
}

void sock_send_all(struct sock *s, const struct message_type *type, const void *msg)
{
	struct buf b = {0};

	message_encode(type, msg, &b);
	for (struct caller *c = s->callers, *next; c; c = next) {
		next = c->next;
		caller_send(c, b.data, b.len);
	}
	buf_free(&b);
}

bool caller_is_slow(const struct caller *c)
{
	return c->queue.first != NULL;
}

/* ---- all of them ---- */

static void listen_cb(uv_poll_t *poll, int status, int events)
{
	struct sock *s = poll->data;
	int fd = status < 0 ? -1 : accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct caller *c;

	(void)events;
	if (fd < 0)
		return;
	while (s->callers && s->g->store->one_caller) /* a new kedged replaces one that died */
		caller_end(s->callers);
	c = xcalloc(1, sizeof *c);
	*c = (struct caller){.next = s->callers, .g = s->g, .fd = fd};
	s->callers = c;
	s->open++;
	CHECK(uv_poll_init(s->g->loop, &c->poll, fd) == 0);
	c->poll.data = c;
	watch(c);
}

int sock_new(struct engine *g, struct sock **ret, struct err *e)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct sock *s = xcalloc(1, sizeof *s);

	s->g = g;
	if ((size_t)snprintf(at.sun_path, sizeof at.sun_path, "%s/run/vol.sock", g->dir) >= sizeof at.sun_path) {
		free(s);
		return err_set(e, -ENAMETOOLONG, "%s: too long for a socket's path", g->dir);
	}
	s->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	(void)unlink(at.sun_path);
	if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&at, sizeof at) < 0 ||
	    chmod(at.sun_path, 0600) < 0 || listen(s->listener, 4) < 0) {
		int rc = -errno;

		if (s->listener >= 0)
			(void)close(s->listener);
		free(s);
		return err_set(e, rc, "listen at '%s': %s", at.sun_path, strerror(-rc));
	}
	CHECK(uv_poll_init(g->loop, &s->poll, s->listener) == 0);
	s->poll.data = s;
	CHECK(uv_poll_start(&s->poll, UV_READABLE, listen_cb) == 0);
	s->open = 1;
	*ret = s;
	return 0;
}

static void listener_closed(uv_handle_t *handle)
{
	struct sock *s = handle->data;

	(void)close(s->listener);
	gone(s);
}

void sock_close(struct sock *s, void (*cb)(void *ctx), void *ctx)
{
	s->closed = cb;
	s->closed_ctx = ctx;
	while (s->callers)
		caller_end(s->callers);
	uv_close((uv_handle_t *)&s->poll, listener_closed);
}
