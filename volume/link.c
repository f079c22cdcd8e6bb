/* SPDX-License-Identifier: Apache-2.0
 * A bulk link: records in and out of a socket, once per turn of the loop. */
#include "volume/link.h"

#include "volume/record.h"

#include "proto/proto.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <uv.h>

#define PAGE_BYTES     4096u
#define READ_BYTES     (256u << 10)
#define TURN_READS     2            /* then others have their turn */
#define SEND_BYTES     (512u << 10) /* so much goes before the turn ends: the peer has work meanwhile */
#define APART_BYTES    (32u << 10)  /* data of a frame, from which on it is opened where it stays */
#define QUEUE_BYTES    (256u << 20) /* what guests may have in flight, and copies */
#define UNACKED_MAX_MS 1000         /* a dead peer is noticed by TCP within this, once something was sent */
#define PROBE_S        1            /* without a byte: TCP asks then whether the peer stands, and must hear it once */

struct link {
	uv_loop_t *loop;
	int fd;
	node_id_t node;
	struct link_callbacks cb;
	struct record *record;
	uv_poll_t poll;
	uv_prepare_t before;
	unsigned handles;
	bool ended, quiet, waits; /* for room in the socket */
	char why[128];
	struct buf plain; /* opened, not yet a whole frame */
	struct buf data;  /* of the frame whose head @plain has, and what comes in the same record; has room for both */
	uint32_t n_data;  /* that it will have; 0: none is apart */
	struct buf early; /* came before the socket was ours */
	struct buf head;  /* of the frame that is being queued */
	struct buf out;   /* sealed, not yet sent */
	uint64_t sent, received;
};

static void poll_cb(uv_poll_t *poll, int status, int events);

static void watch(struct link *l)
{
	CHECK(uv_poll_start(&l->poll, l->waits ? UV_READABLE | UV_WRITABLE : UV_READABLE, poll_cb) == 0);
}

/* ---- ending ---- */

static void closed_cb(uv_handle_t *handle)
{
	struct link *l = handle->data;

	if (--l->handles > 0)
		return;
	(void)close(l->fd);
	l->record = record_free(l->record);
	buf_free(&l->plain);
	buf_free(&l->data);
	buf_free(&l->early);
	buf_free(&l->head);
	buf_free(&l->out);
	if (!l->quiet)
		l->cb.down(l->cb.ctx, l, l->node, l->why);
	free(l);
}

/* shutdown() tells whoever made the link, and holds another descriptor of the socket, that it may make the next. */
void link_end(struct link *l, const char *why, bool quiet)
{
	l->quiet |= quiet;
	if (l->ended)
		return;
	l->ended = true;
	(void)snprintf(l->why, sizeof l->why, "%s", why);
	(void)shutdown(l->fd, SHUT_RDWR);
	uv_close((uv_handle_t *)&l->poll, closed_cb);
	uv_close((uv_handle_t *)&l->before, closed_cb);
}

/* ---- sending ---- */

static void flush(struct link *l)
{
	size_t done = 0;

	while (done < l->out.len) {
		ssize_t n = send(l->fd, l->out.data + done, l->out.len - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			link_end(l, strerror(errno), false);
			return;
		}
		if (n < 0)
			break;
		done += (size_t)n;
	}
	buf_consume(&l->out, done);
	if (l->waits != (l->out.len > 0)) {
		l->waits = l->out.len > 0;
		watch(l);
	}
}

void link_send(struct link *l, const struct wire_frame *w)
{
	struct iovec v[2];
	int rc;

	if (l->ended)
		return;
	l->head.len = 0;
	wire_encode(w, &l->head);
	v[0] = (struct iovec){l->head.data, l->head.len};
	v[1] = (struct iovec){w->f.data, wire_has_data(&w->f) ? w->f.length : 0};
	l->sent += v[0].iov_len + v[1].iov_len;
	rc = record_seal(l->record, v, v[1].iov_len ? 2 : 1, &l->out);
	if (rc < 0)
		link_end(l, rc == -EOVERFLOW ? "its keys have served their time" : "sealing failed", false);
	else if (l->out.len > QUEUE_BYTES)
		link_end(l, "the peer does not read", false);
	else if (l->out.len >= SEND_BYTES && !l->waits)
		flush(l);
}

/* ---- receiving ---- */

/* False: the link has ended. */
static bool deliver(struct link *l)
{
	size_t used = 0, need;
	struct wire_frame w;

	while (!l->ended) {
		long n = wire_decode(l->plain.data + used, l->plain.len - used, &w, &need);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			link_end(l, "a frame makes no sense", false);
			return false;
		}
		l->cb.frame(l->cb.ctx, l, l->node, &w);
		used += (size_t)n;
	}
	buf_consume(&l->plain, used);
	return !l->ended;
}

/* The long data of a frame is opened where it stays, and given away: so it is not copied once more. */
static void set_apart(struct link *l)
{
	uint32_t n_data;
	size_t head = wire_peek(l->plain.data, l->plain.len, APART_BYTES, &n_data);
	size_t room = ((size_t)n_data + RECORD_PLAIN_BYTES_MAX + PAGE_BYTES) / PAGE_BYTES * PAGE_BYTES;

	if (head == 0)
		return;
	l->n_data = n_data;
	l->data = (struct buf){.data = aligned_alloc(PAGE_BYTES, room), .cap = room};
	CHECK(l->data.data != NULL);
	buf_append(&l->data, l->plain.data + head, l->plain.len - head);
	l->plain.len = head;
}

/* It is whole. What came behind it is the beginning of the next. */
static bool deliver_apart(struct link *l)
{
	struct wire_frame w;
	int rc = wire_decode_apart(l->plain.data, l->plain.len, l->data.data, l->n_data, &w);

	if (rc < 0) {
		link_end(l, "a frame makes no sense", false);
		return false;
	}
	l->plain.len = 0;
	buf_append(&l->plain, l->data.data + l->n_data, l->data.len - l->n_data);
	l->data = (struct buf){0};
	l->n_data = 0;
	l->cb.frame(l->cb.ctx, l, l->node, &w);
	return !l->ended;
}

static bool open_one(struct link *l, const uint8_t **p, size_t *n)
{
	size_t used;
	long rc = record_open_one(l->record, *p, *n, &used, l->n_data ? &l->data : &l->plain);

	if (rc < 0) {
		link_end(l, rc == -ESHUTDOWN ? "the peer said goodbye" : "a record was tampered with, or is none",
			 false);
		return false;
	}
	l->received += (size_t)rc;
	*p += used;
	*n -= used;
	return true;
}

static bool open_records(struct link *l, const uint8_t *p, size_t n)
{
	while (n > 0) {
		if (!open_one(l, &p, &n))
			return false;
		if (l->n_data && l->data.len < l->n_data)
			continue;
		if (l->n_data && !deliver_apart(l))
			return false;
		if (!deliver(l))
			return false;
		set_apart(l);
	}
	return true;
}

static void receive(struct link *l)
{
	static uint8_t bytes[READ_BYTES];

	for (int turns = 0; turns < TURN_READS; turns++) {
		ssize_t n = recv(l->fd, bytes, sizeof bytes, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			link_end(l, n < 0 ? strerror(errno) : "the peer closed it", false);
			return;
		}
		if (!open_records(l, bytes, (size_t)n))
			return;
	}
}

/* The turn's frames go out together; and what had been read by whoever made the link is opened first of all. */
static void before_cb(uv_prepare_t *prepare)
{
	struct link *l = prepare->data;

	if (l->early.len && open_records(l, l->early.data, l->early.len))
		buf_free(&l->early);
	if (l->out.len && !l->waits && !l->ended)
		flush(l);
}

/* libuv has one word for all that can befall a socket. */
static const char *why_broken(int fd, int status)
{
	int error = 0;
	socklen_t n = sizeof error;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error)
		return strerror(error);
	return uv_strerror(status);
}

static void poll_cb(uv_poll_t *poll, int status, int events)
{
	struct link *l = poll->data;

	if (status < 0) {
		link_end(l, why_broken(l->fd, status), false);
		return;
	}
	if (events & UV_WRITABLE)
		flush(l);
	if (!l->ended && (events & UV_READABLE))
		receive(l);
}

/* ---- life ---- */

/* An end that gives the link up may be unable to say so, and only one of the two dials the next: an end that has
 * nothing to send must notice by itself. */
static void tune(int fd)
{
	static const int on = 1, probe = PROBE_S;
	static const unsigned unacked = UNACKED_MAX_MS;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked, sizeof unacked);
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &probe, sizeof probe);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe, sizeof probe);
}

int link_new(struct uv_loop_s *loop, int fd, const struct bulk_handover *h, uint64_t bytes_max,
	     const struct link_callbacks *cb, struct link **ret, struct err *e)
{
	struct link *l = xcalloc(1, sizeof *l);
	int rc = record_new(h, &l->record, e);

	if (rc < 0) {
		(void)close(fd);
		free(l);
		return rc;
	}
	record_set_limit(l->record, bytes_max);
	l->loop = loop;
	l->fd = fd;
	l->node = h->peer;
	l->cb = *cb;
	tune(fd);
	CHECK(uv_poll_init_socket(loop, &l->poll, fd) == 0);
	CHECK(uv_prepare_init(loop, &l->before) == 0);
	l->poll.data = l->before.data = l;
	buf_append(&l->early, h->early, h->n_early);
	l->handles = 2;
	watch(l);
	CHECK(uv_prepare_start(&l->before, before_cb) == 0);
	*ret = l;
	return 0;
}

node_id_t link_node(const struct link *l)
{
	return l->node;
}

bool link_is_worn(const struct link *l)
{
	return record_is_worn(l->record);
}

void link_counters(const struct link *l, uint64_t *ret_sent, uint64_t *ret_received)
{
	*ret_sent = l->sent;
	*ret_received = l->received;
}
