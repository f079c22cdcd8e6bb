/* SPDX-License-Identifier: Apache-2.0
 * One connection: its socket, what is awaited from it, and its end. */
#include "volume/nbd_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEND_BUFFER_BYTES (1 << 20)

/* ---- states ---- */

static void set_state(struct nbd_conn *c, enum nbd_conn_state state)
{
#define TO(state) (1u << NBD_CONN_##state)
	static const unsigned legal[] = {
		[NBD_CONN_FLAGS] = TO(OPTION) | TO(ENDED),
		[NBD_CONN_OPTION] = TO(OPTION) | TO(OPTION_DATA) | TO(ENDED),
		[NBD_CONN_OPTION_DATA] = TO(OPTION) | TO(COMMAND) | TO(DRAINING) | TO(ENDED),
		[NBD_CONN_COMMAND] = TO(COMMAND) | TO(PAYLOAD) | TO(DRAINING) | TO(ENDED),
		[NBD_CONN_PAYLOAD] = TO(COMMAND) | TO(ENDED),
		[NBD_CONN_DRAINING] = TO(ENDED),
		[NBD_CONN_ENDED] = 0,
	};
#undef TO

	CHECK(legal[c->state] >> state & 1);
	c->state = state;
	CHECK((state == NBD_CONN_COMMAND || state == NBD_CONN_PAYLOAD) <= (c->volume != NULL));
}

void nbd_conn_expect(struct nbd_conn *c, enum nbd_conn_state state, void *to, size_t want)
{
	CHECK(c->in.want == 0);
	set_state(c, state);
	c->in.to = to;
	c->in.want = want;
}

static bool is_reading(const struct nbd_conn *c)
{
	return c->state < NBD_CONN_DRAINING && !nbd_is_linked(&c->stalled) && c->out.plain.len <= NBD_HANDSHAKE_QUEUE;
}

/* ---- polling ---- */

static void poll_cb(uv_poll_t *poll, int status, int events)
{
	struct nbd_conn *c = poll->data;
	struct nbd_server *s = c->server;

	if (status < 0) { /* libuv no longer polls: find out by reading or sending */
		c->events = 0;
		events = UV_DISCONNECT | UV_WRITABLE;
	}
	if (events & UV_WRITABLE) {
		c->out.is_blocked = false;
		nbd_list_add(&s->output, &c->output);
	}
	c->has_left |= (events & UV_DISCONNECT) != 0;
	if (events & (UV_READABLE | UV_DISCONNECT))
		nbd_list_add(&s->ready, &c->ready);
}

void nbd_conn_poll(struct nbd_conn *c)
{
	int events = 0, rc;

	if (c->state == NBD_CONN_ENDED)
		return;
	if (is_reading(c))
		events |= UV_READABLE;
	if (c->out.is_blocked)
		events |= UV_WRITABLE;
	if (c->state != NBD_CONN_DRAINING && !c->half_closed)
		events |= UV_DISCONNECT;
	if (events == c->events)
		return;
	c->events = events;
	rc = events ? uv_poll_start(&c->poll, events, poll_cb) : uv_poll_stop(&c->poll);
	CHECK(rc == 0);
}

bool nbd_conn_is_hung_up(const struct nbd_conn *c)
{
	struct pollfd p = {.fd = c->fd};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

/* ---- reading ---- */

/* Take from the window what is awaited; true: all of it is here. */
static bool input_take(struct nbd_input *in)
{
	size_t n = in->end - in->at;

	if (n > in->skip)
		n = (size_t)in->skip;
	in->skip -= n;
	in->at += n;
	n = in->end - in->at;
	if (n > in->want)
		n = in->want;
	if (n > 0 && in->to)
		memcpy(in->to, in->window + in->at, n);
	in->to += n;
	in->want -= n;
	in->at += n;
	return in->skip == 0 && in->want == 0;
}

/* From the socket to where it is awaited, and a little more into the window. Returns what came, 0 at the end, or a
 * negative errno. */
static ssize_t input_receive(struct nbd_conn *c)
{
	struct nbd_input *in = &c->in;
	struct iovec iov[2] = {{in->to, in->want}, {in->window, sizeof in->window}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	uint64_t skip = in->skip < NBD_TRASH_BYTES ? in->skip : NBD_TRASH_BYTES;
	size_t first;
	ssize_t n;

	CHECK(in->at == in->end);
	if (skip > 0) {
		iov[0] = (struct iovec){c->server->trash, (size_t)skip};
		m.msg_iovlen = 1;
	}
	do
		n = recvmsg(c->fd, &m, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	first = (size_t)n < iov[0].iov_len ? (size_t)n : iov[0].iov_len;
	in->at = 0;
	in->end = (size_t)n - first;
	if (skip > 0) {
		in->skip -= first;
	} else {
		in->to += first;
		in->want -= first;
	}
	return n;
}

static void handle(struct nbd_conn *c)
{
	switch (c->state) {
	case NBD_CONN_FLAGS:
		nbd_option_flags(c);
		break;
	case NBD_CONN_OPTION:
		nbd_option_head(c);
		break;
	case NBD_CONN_OPTION_DATA:
		nbd_option_data(c);
		break;
	case NBD_CONN_COMMAND:
		(void)nbd_command_head(c);
		break;
	case NBD_CONN_PAYLOAD:
		nbd_command_payload(c);
		break;
	default:
		break;
	}
}

/* The other end closed something. If all of it, what it sent and was not read dies too (V32). */
static void look_who_left(struct nbd_conn *c)
{
	c->has_left = false;
	if (nbd_conn_is_hung_up(c))
		nbd_conn_end(c);
	else
		c->half_closed = true; /* no more will come: found by reading up to there */
}

void nbd_conn_read(struct nbd_conn *c)
{
	size_t budget = NBD_TURN_BYTES;
	ssize_t n;

	if (c->has_left && c->state < NBD_CONN_DRAINING)
		look_who_left(c);
	while (is_reading(c)) {
		if (input_take(&c->in)) {
			handle(c);
			continue;
		}
		if (budget == 0) /* the poll brings it back: the window is empty */
			break;
		n = input_receive(c);
		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			nbd_conn_end(c);
			break;
		}
		budget -= (size_t)n < budget ? (size_t)n : budget;
	}
	nbd_conn_poll(c);
}

/* ---- beginning and end ---- */

void nbd_conn_new(struct nbd_server *s, int fd)
{
	struct nbd_conn *c = xcalloc(1, sizeof *c);
	int bytes = SEND_BUFFER_BYTES;

	if (uv_poll_init(s->loop, &c->poll, fd) < 0) { /* the kernel is short of something */
		s->status.refused++;
		(void)close(fd);
		free(c);
		return;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes); /* the kernel cuts it to what is allowed */
	c->server = s;
	c->fd = fd;
	c->id = ++s->next_client;
	c->since_ms = uv_now(s->loop);
	c->poll.data = c;
	nbd_list_init(&c->ops);
	nbd_list_init(&c->out.replies);
	nbd_list_add(&s->conns, &c->all);
	s->status.connections++;
	c->in.to = c->in.head;
	c->in.want = NBD_CLIENT_FLAGS_BYTES;
	nbd_option_greet(c);
	nbd_conn_poll(c);
}

void nbd_conn_attach(struct nbd_conn *c, const struct nbd_export *export)
{
	struct nbd_server *s = c->server;
	struct nbd_volume *v = NULL;

	CHECK(!c->volume && export->volume && volume_size_is_valid(export->size));
	for (struct nbd_link *l = nbd_list_first(&s->volumes); l && !v; l = nbd_list_next(&s->volumes, l)) {
		v = CONTAINER_OF(l, struct nbd_volume, link);
		if (v->volume != export->volume)
			v = NULL;
	}
	if (!v) {
		v = xcalloc(1, sizeof *v);
		v->volume = export->volume;
		nbd_list_init(&v->writes);
		nbd_list_add(&s->volumes, &v->link);
	}
	v->users++;
	c->volume = v;
	c->export = *export;
	buf_free(&c->hs.data);
	nbd_conn_expect(c, NBD_CONN_COMMAND, c->in.head, NBD_REQUEST_BYTES);
}

void nbd_conn_drain(struct nbd_conn *c)
{
	set_state(c, NBD_CONN_DRAINING);
	c->out.progress_ms = uv_now(c->server->loop);
	nbd_list_add(&c->server->output, &c->output); /* perhaps nothing is left to be done */
}

static void close_cb(uv_handle_t *handle)
{
	struct nbd_conn *c = handle->data;

	c->poll_closed = true;
	nbd_conn_try_free(c);
}

void nbd_conn_end(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;

	if (c->state == NBD_CONN_ENDED)
		return;
	set_state(c, NBD_CONN_ENDED);
	uv_close((uv_handle_t *)&c->poll, close_cb); /* polls no longer, so the descriptor may go */
	(void)close(c->fd);
	c->fd = -1;
	nbd_list_remove(&c->ready);
	nbd_list_remove(&c->output);
	nbd_list_remove(&c->stalled);
	nbd_list_add(&s->ended, &c->ended);
	s->status.connections--;
	s->status.lingering++;
	s->has_released = true; /* those behind it may be the first now */
}

void nbd_conn_bury(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;
	struct nbd_link *l, *next;

	CHECK(c->state == NBD_CONN_ENDED && !c->is_buried);
	nbd_list_remove(&c->ended);
	if (c->volume)
		s->cb.gone(s->cb.ctx, c->volume->volume, c->id);
	for (l = nbd_list_first(&c->ops); l; l = next) {
		struct nbd_op *op = CONTAINER_OF(l, struct nbd_op, link);

		next = nbd_list_next(&c->ops, l);
		if (op->state != NBD_OP_OUT)
			nbd_op_free(op);
	}
	c->is_buried = true;
	nbd_conn_try_free(c);
}

static void volume_leave(struct nbd_volume *v)
{
	CHECK(v->users > 0);
	if (--v->users > 0)
		return;
	CHECK(!nbd_list_first(&v->writes) && v->unaligned == 0 && v->waiting == 0);
	nbd_list_remove(&v->link);
	free(v);
}

void nbd_conn_try_free(struct nbd_conn *c)
{
	struct nbd_server *s = c->server;

	if (!c->is_buried || !c->poll_closed || c->n_ops > 0)
		return;
	CHECK(c->bytes == 0 && !nbd_list_first(&c->ops));
	if (c->volume)
		volume_leave(c->volume);
	nbd_list_remove(&c->all);
	buf_free(&c->hs.data);
	buf_free(&c->out.plain);
	s->status.lingering--;
	free(c);
	nbd_server_try_finish(s);
}
