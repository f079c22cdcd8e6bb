/* SPDX-License-Identifier: Apache-2.0
 * The NBD server itself: its socket, its turn, its deadlines and its end. */
#include "volume/nbd_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ACCEPTS_IN_TURN 16
#define TICK_MS_MAX     1000u
#define BACKLOG         128

const struct nbd_limits nbd_limits_default = {
	.connections = 256,
	.requests = 128,
	.connection_bytes = 64u << 20,
	.own_bytes = 1u << 20,
	.shared_bytes = 256u << 20,
	.handshake = 10 * USEC_PER_SEC,
	.stall = 10 * USEC_PER_SEC,
	.mode = 0600,
};

/* ---- the turn ---- */

static void bury_all(struct nbd_server *s)
{
	struct nbd_link *l;

	while ((l = nbd_list_first(&s->ended)) != NULL)
		nbd_conn_bury(CONTAINER_OF(l, struct nbd_conn, ended));
}

static void advance_all(struct nbd_server *s)
{
	struct nbd_list back;
	struct nbd_link *l;

	nbd_list_move(&back, &s->back);
	while ((l = nbd_list_take(&back)) != NULL)
		nbd_op_advance(CONTAINER_OF(l, struct nbd_op, queue));
}

/* Each that still finds no room goes back in line, in its place. */
static void resume_all(struct nbd_server *s)
{
	struct nbd_list stalled;
	struct nbd_link *l;

	if (!s->has_released)
		return;
	s->has_released = false;
	nbd_list_move(&stalled, &s->stalled);
	while ((l = nbd_list_take(&stalled)) != NULL) {
		struct nbd_conn *c = CONTAINER_OF(l, struct nbd_conn, stalled);

		if (nbd_command_head(c) && c->state != NBD_CONN_ENDED)
			nbd_list_add(&s->ready, &c->ready);
	}
}

static void read_all(struct nbd_server *s)
{
	struct nbd_list ready;
	struct nbd_link *l;

	nbd_list_move(&ready, &s->ready);
	while ((l = nbd_list_take(&ready)) != NULL)
		nbd_conn_read(CONTAINER_OF(l, struct nbd_conn, ready));
}

static void flush_all(struct nbd_server *s)
{
	struct nbd_list output;
	struct nbd_link *l;

	nbd_list_move(&output, &s->output);
	while ((l = nbd_list_take(&output)) != NULL)
		nbd_reply_flush(CONTAINER_OF(l, struct nbd_conn, output));
}

static bool has_work(const struct nbd_server *s)
{
	return nbd_list_first(&s->ended) || nbd_list_first(&s->back) || nbd_list_first(&s->ready) ||
	       nbd_list_first(&s->output) || (s->has_released && nbd_list_first(&s->stalled));
}

/* The dead first: gone() comes before anything new is submitted. What came back is answered in the same turn, all
 * together. */
static void step(struct nbd_server *s)
{
	if (!has_work(s))
		return;
	bury_all(s);
	advance_all(s);
	resume_all(s);
	read_all(s);
	advance_all(s);
	flush_all(s);
	bury_all(s);
}

static void idle_cb(uv_idle_t *idle)
{
	(void)idle;
}

/* Before the loop waits: if something is left, it must not. */
static void prepare_cb(uv_prepare_t *prepare)
{
	struct nbd_server *s = prepare->data;

	step(s);
	CHECK((has_work(s) ? uv_idle_start(&s->idle, idle_cb) : uv_idle_stop(&s->idle)) == 0);
}

static void check_cb(uv_check_t *check)
{
	step(check->data);
}

/* ---- accepting ---- */

static void accept_some(struct nbd_server *s)
{
	for (int i = 0; i < ACCEPTS_IN_TURN; i++) {
		int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0) {
			if (errno != EAGAIN) { /* out of descriptors or memory: the timer listens again */
				(void)uv_poll_stop(&s->listener);
				s->is_listening = false;
			}
			return;
		}
		s->status.accepted++;
		if (s->status.connections + s->status.lingering < s->limits.connections) {
			nbd_conn_new(s, fd);
		} else {
			s->status.refused++;
			(void)close(fd);
		}
	}
}

static void listener_cb(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	accept_some(poll->data);
}

static void start_listening(struct nbd_server *s)
{
	if (!s->is_listening)
		s->is_listening = uv_poll_start(&s->listener, UV_READABLE, listener_cb) == 0;
}

/* ---- deadlines ---- */

static bool somebody_is_hungry(const struct nbd_server *s)
{
	for (struct nbd_link *l = nbd_list_first(&s->stalled); l; l = nbd_list_next(&s->stalled, l))
		if (CONTAINER_OF(l, struct nbd_conn, stalled)->is_hungry)
			return true;
	return false;
}

static bool is_late(const struct nbd_conn *c, uint64_t now_ms, bool is_hungry)
{
	const struct nbd_limits *l = &c->server->limits;
	bool has_output = c->out.plain.len > 0 || nbd_list_first(&c->out.replies);

	if (c->state == NBD_CONN_ENDED)
		return false;
	if (!c->volume)
		return now_ms >= c->since_ms + l->handshake / USEC_PER_MS;
	return has_output && (is_hungry || c->state == NBD_CONN_DRAINING) &&
	       now_ms >= c->out.progress_ms + l->stall / USEC_PER_MS;
}

static void timer_cb(uv_timer_t *timer)
{
	struct nbd_server *s = timer->data;
	uint64_t now = uv_now(s->loop);
	bool is_hungry = somebody_is_hungry(s);

	for (struct nbd_link *l = nbd_list_first(&s->conns); l; l = nbd_list_next(&s->conns, l)) {
		struct nbd_conn *c = CONTAINER_OF(l, struct nbd_conn, all);

		if (is_late(c, now, is_hungry)) {
			s->status.expired++;
			nbd_conn_end(c);
		}
	}
	s->has_released = true; /* memory may be there again */
	if (!s->is_closing)
		start_listening(s);
}

/* ---- the beginning ---- */

static bool limits_are_valid(const struct nbd_limits *l)
{
	uint64_t largest = NBD_PAYLOAD_MAX + 4 * VOLUME_SECTOR_BYTES;

	return l->connections > 0 && l->requests > 0 && l->connection_bytes >= largest && l->shared_bytes >= largest;
}

static int listen_at(const char *path, unsigned mode, struct err *e)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	size_t n = strlen(path);
	int fd, rc;

	if (n >= sizeof at.sun_path)
		return err_set(e, -ENAMETOOLONG, "NBD socket '%s': a socket's path has at most %zu bytes", path,
			       sizeof at.sun_path - 1);
	memcpy(at.sun_path, path, n);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, -errno, "NBD socket '%s': %s", path, strerror(errno));
	(void)unlink(path);
	/* before it has a name, so that nobody connects who may not */
	if (fchmod(fd, mode) == 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	rc = err_set(e, -errno, "NBD socket '%s': %s", path, strerror(errno));
	(void)close(fd);
	return rc;
}

static uint64_t tick_ms(const struct nbd_limits *l)
{
	usec_t shortest = l->handshake < l->stall ? l->handshake : l->stall;
	uint64_t ms = shortest / USEC_PER_MS / 4;

	if (ms > TICK_MS_MAX)
		return TICK_MS_MAX;
	return ms > 0 ? ms : 1;
}

static void start(struct nbd_server *s)
{
	uint64_t tick = tick_ms(&s->limits);

	CHECK(uv_prepare_init(s->loop, &s->prepare) == 0 && uv_check_init(s->loop, &s->check) == 0);
	CHECK(uv_idle_init(s->loop, &s->idle) == 0 && uv_timer_init(s->loop, &s->timer) == 0);
	s->handles = 5;
	s->listener.data = s->prepare.data = s->check.data = s->idle.data = s->timer.data = s;
	CHECK(uv_prepare_start(&s->prepare, prepare_cb) == 0 && uv_check_start(&s->check, check_cb) == 0);
	CHECK(uv_timer_start(&s->timer, timer_cb, tick, tick) == 0);
	start_listening(s);
}

int nbd_server_new(struct uv_loop_s *loop, const char *path, const struct nbd_callbacks *callbacks,
		   const struct nbd_limits *limits, struct nbd_server **ret, struct err *e)
{
	struct nbd_server *s;
	int fd, rc;

	CHECK(callbacks->open && callbacks->list && callbacks->submit && callbacks->gone && callbacks->extents);
	if (!limits)
		limits = &nbd_limits_default;
	if (!limits_are_valid(limits))
		return err_set(e, -EINVAL, "NBD limits: the largest request of %u bytes would never begin",
			       NBD_PAYLOAD_MAX);
	fd = listen_at(path, limits->mode, e);
	if (fd < 0)
		return fd;
	s = xcalloc(1, sizeof *s);
	rc = uv_poll_init(loop, &s->listener, fd);
	if (rc < 0) {
		(void)unlink(path);
		(void)close(fd);
		free(s);
		return err_set(e, rc, "NBD socket '%s': %s", path, uv_strerror(rc));
	}
	s->loop = loop;
	s->path = xstrdup(path);
	s->cb = *callbacks;
	s->limits = *limits;
	s->fd = fd;
	struct nbd_list *lists[] = {&s->conns, &s->volumes, &s->ready, &s->output, &s->stalled, &s->ended, &s->back};
	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		nbd_list_init(lists[i]);
	start(s);
	*ret = s;
	return 0;
}

/* ---- the end ---- */

static void close_cb(uv_handle_t *handle)
{
	struct nbd_server *s = handle->data;

	CHECK(s->handles > 0);
	s->handles--;
	nbd_server_try_finish(s);
}

void nbd_server_try_finish(struct nbd_server *s)
{
	void (*cb)(void *ctx) = s->close_cb;
	void *ctx = s->close_ctx;

	if (!s->is_closing || nbd_list_first(&s->conns))
		return;
	if (!s->is_finishing) {
		s->is_finishing = true;
		uv_close((uv_handle_t *)&s->prepare, close_cb);
		uv_close((uv_handle_t *)&s->check, close_cb);
		uv_close((uv_handle_t *)&s->idle, close_cb);
		uv_close((uv_handle_t *)&s->timer, close_cb);
	}
	if (s->handles > 0)
		return;
	CHECK(!has_work(s) && !nbd_list_first(&s->volumes) && s->status.requests == 0 && s->status.bytes == 0);
	nbd_pool_free(&s->pool);
	free(s->path);
	free(s);
	cb(ctx);
}

void nbd_server_close(struct nbd_server *s, void (*cb)(void *ctx), void *ctx)
{
	CHECK(!s->is_closing);
	s->is_closing = true;
	s->close_cb = cb;
	s->close_ctx = ctx;
	uv_close((uv_handle_t *)&s->listener, close_cb);
	(void)close(s->fd);
	(void)unlink(s->path);
	for (struct nbd_link *l = nbd_list_first(&s->conns); l; l = nbd_list_next(&s->conns, l))
		nbd_conn_end(CONTAINER_OF(l, struct nbd_conn, all));
	nbd_server_try_finish(s);
}

void nbd_server_drop(struct nbd_server *s, void *volume)
{
	for (struct nbd_link *l = nbd_list_first(&s->conns); l; l = nbd_list_next(&s->conns, l)) {
		struct nbd_conn *c = CONTAINER_OF(l, struct nbd_conn, all);

		if (c->volume && c->volume->volume == volume)
			nbd_conn_end(c);
	}
}

/* ---- asking ---- */

void nbd_server_status(const struct nbd_server *s, struct nbd_status *ret)
{
	*ret = s->status;
	ret->waiting = 0;
	for (struct nbd_link *l = nbd_list_first(&s->stalled); l; l = nbd_list_next(&s->stalled, l))
		ret->waiting++;
}

bool nbd_server_uses(const struct nbd_server *s, const void *volume)
{
	for (struct nbd_link *l = nbd_list_first(&s->volumes); l; l = nbd_list_next(&s->volumes, l))
		if (CONTAINER_OF(l, struct nbd_volume, link)->volume == volume)
			return true;
	return false;
}

unsigned nbd_server_clients(const struct nbd_server *s, const void *volume)
{
	unsigned n = 0;

	for (struct nbd_link *l = nbd_list_first(&s->conns); l; l = nbd_list_next(&s->conns, l)) {
		const struct nbd_conn *c = CONTAINER_OF(l, struct nbd_conn, all);

		n += c->volume && c->volume->volume == volume && c->state != NBD_CONN_ENDED;
	}
	return n;
}
