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

#define READ_BYTES     (256u << 10)
#define TURN_READS     2            /* then others have their turn */
#define SEND_BYTES     (512u << 10) /* so much goes before the turn ends: the peer has work meanwhile */
#define QUEUE_BYTES    (256u << 20) /* what guests may have in flight, and copies */
#define UNACKED_MAX_MS 1000         /* a dead peer is noticed by TCP within this */

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

static bool open_records(struct link *l, const uint8_t *p, size_t n)
{
	size_t before = l->plain.len;
	long rc = record_open(l->record, p, n, &l->plain);

	l->received += l->plain.len - before;
	if (rc < 0) {
		link_end(l, rc == -ESHUTDOWN ? "the peer said goodbye" : "a record was tampered with, or is none",
			 false);
		return false;
	}
	return deliver(l);
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

static void poll_cb(uv_poll_t *poll, int status, int events)
{
	struct link *l = poll->data;

	if (status < 0) {
		link_end(l, uv_strerror(status), false);
		return;
	}
	if (events & UV_WRITABLE)
		flush(l);
	if (!l->ended && (events & UV_READABLE))
		receive(l);
}

/* ---- life ---- */

static void tune(int fd)
{
	static const int on = 1;
	static const unsigned unacked = UNACKED_MAX_MS;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked, sizeof unacked);
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
