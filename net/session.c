/* SPDX-License-Identifier: Apache-2.0
 * One stream: accepted or dialled, its handshake on a worker, then plain bytes both ways. Whoever is let in is decided
 * here, by protocol, from the certificate alone (P8). */
#include "net/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PLAIN_BYTES 16384 /* a TLS record */

enum { ALERT_HANDSHAKE_FAILURE = 40, ALERT_NO_PROTOCOL = 120 };

static void handshake_continue(struct session *s);
static void flush(struct session *s);

static void set_state(struct session *s, enum session_state state)
{
	s->state = state;
	s->since = clock_boottime();
}

struct session *session_new(struct net *net, bool plain)
{
	struct session *s = xcalloc(1, sizeof *s);
	int rc;

	s->net = net;
	s->plain = plain;
	rc = plain ? uv_pipe_init(net->loop, &s->pipe, 0) : uv_tcp_init(net->loop, &s->tcp);
	CHECK(rc == 0);
	s->handle.data = s;
	s->next = net->sessions;
	net->sessions = s;
	net->n_sessions++;
	set_state(s, SESSION_HELLO);
	return s;
}

static void try_free(struct session *s)
{
	struct net *net = s->net;
	struct session **at = &net->sessions;

	if (!s->handle_closed || s->working)
		return;
	CHECK(!s->peer && !s->conn && !s->is_writing);
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	net->n_sessions--;
	if (s->tls_ready) {
		tls_free(&s->tls);
	} else {
		buf_free(&s->tls.in);
		buf_free(&s->tls.out);
	}
	buf_free(&s->arrived);
	buf_free(&s->out);
	buf_free(&s->writing);
	buf_free(&s->frame);
	free(s);
	net_try_free(net);
}

static void close_cb(uv_handle_t *handle)
{
	struct session *s = handle->data;

	s->handle_closed = true;
	if (s->peer)
		peer_session_closed(s);
	if (s->conn)
		conn_session_closed(s);
	try_free(s);
}

void session_close(struct session *s, int code, const char *fmt, ...)
{
	va_list ap;

	if (s->state == SESSION_CLOSING)
		return;
	if (s->error.code == 0) {
		s->error.code = code;
		va_start(ap, fmt);
		(void)vsnprintf(s->error.text, sizeof s->error.text, fmt, ap);
		va_end(ap);
	}
	set_state(s, SESSION_CLOSING);
	uv_close(&s->handle, close_cb);
}

/* ---- writing ---- */

static struct buf *session_out(struct session *s)
{
	return s->plain ? &s->out : &s->tls.out;
}

static void write_cb(uv_write_t *req, int status)
{
	struct session *s = req->data;

	s->is_writing = false;
	s->writing.len = 0;
	if (status < 0)
		session_close(s, -EPIPE, "write: %s", uv_strerror(status));
	else
		flush(s);
}

static void flush(struct session *s)
{
	struct buf *out = session_out(s), swap;
	uv_buf_t bytes;
	int rc;

	if (s->is_writing || s->working || s->state == SESSION_CLOSING || s->state == SESSION_DIALLING)
		return;
	if (out->len == 0) {
		if (s->state == SESSION_DRAINING)
			session_close(s, -ESHUTDOWN, "closed");
		return;
	}
	swap = s->writing;
	s->writing = *out;
	*out = swap;
	out->len = 0;
	bytes = uv_buf_init((char *)s->writing.data, (unsigned)s->writing.len);
	s->write.data = s;
	s->sent_at = clock_boottime();
	s->net->counters.bytes_out += s->writing.len;
	rc = uv_write(&s->write, &s->stream, &bytes, 1, write_cb);
	if (rc < 0)
		session_close(s, -EPIPE, "write: %s", uv_strerror(rc));
	else
		s->is_writing = true;
}

int session_send(struct session *s, const void *p, size_t n, size_t queue_max)
{
	if (s->state != SESSION_OPEN)
		return -ENOTCONN;
	if (session_out(s)->len + s->writing.len + n > queue_max)
		return -EAGAIN;
	if (s->plain)
		buf_append(&s->out, p, n);
	else if (tls_write(&s->tls, p, n) < 0) {
		session_close(s, -EPROTO, "TLS cannot write");
		return -ENOTCONN;
	}
	flush(s);
	return 0;
}

void session_drain(struct session *s)
{
	if (s->state == SESSION_DRAINING || s->state == SESSION_CLOSING)
		return;
	if (s->state == SESSION_OPEN && !s->plain)
		tls_close_notify(&s->tls);
	set_state(s, SESSION_DRAINING);
	flush(s);
}

/* Say why in TLS's own words, then close. */
static void refuse(struct session *s, uint8_t alert, const char *why)
{
	const uint8_t record[] = {21, 3, 3, 0, 2, 2, alert};

	s->net->counters.handshakes_failed++;
	(void)err_set(&s->error, -EPROTO, "%s", why);
	buf_append(&s->tls.out, record, sizeof record);
	session_drain(s);
}

/* ---- who is let in ---- */

static bool is_of_cluster(const struct session *s)
{
	return strcmp(s->identity.cluster, s->net->config.cluster) == 0;
}

static bool is_welcome(const struct session *s)
{
	const struct net *net = s->net;
	const struct net_identity *id = &s->identity;

	if (s->plain)
		return id->role == NET_ROLE_ADMIN;
	if (s->protocol == TLS_JOIN)
		return s->tls.psk_known;
	if (!is_of_cluster(s))
		return false;
	if (s->protocol == TLS_CTL)
		return id->role == NET_ROLE_ADMIN || id->role == NET_ROLE_OPERATOR || id->role == NET_ROLE_VIEWER;
	if (id->role != NET_ROLE_NODE || id->node == net->config.self)
		return false;
	if (s->is_client)
		return s->peer && s->peer->node == id->node;
	return id->node < net->config.self && net->cb.peer_known(net->cb.ctx, id->node);
}

static void open_session(struct session *s)
{
	struct net *net = s->net;

	if (!s->plain && s->protocol != TLS_JOIN && tls_peer_identity(&s->tls, &s->identity) < 0)
		s->identity.role = NET_ROLE_NONE;
	if (!is_welcome(s)) {
		net->counters.handshakes_failed++;
		session_close(s, -EACCES, "the peer's certificate does not open this door");
		return;
	}
	net->counters.handshakes_ok++;
	set_state(s, SESSION_OPEN);
	s->received_at = s->sent_at = s->since;
	if (!s->plain && s->protocol == TLS_PEER)
		peer_session_open(s);
	else
		conn_session_open(s);
}

/* ---- the handshake ---- */

static void work_cb(uv_work_t *work)
{
	struct session *s = work->data;

	CHECK(pthread_mutex_lock(&s->net->identity_lock) == 0);
	s->work_rc = tls_handshake(&s->tls, &s->work_error);
	CHECK(pthread_mutex_unlock(&s->net->identity_lock) == 0);
}

static void deliver(struct session *s, const uint8_t *p, size_t n)
{
	s->net->counters.bytes_in += n;
	if (!s->plain && s->protocol == TLS_PEER)
		peer_session_data(s, p, n);
	else
		conn_session_data(s, p, n);
}

static void read_plain(struct session *s)
{
	uint8_t bytes[PLAIN_BYTES];

	while (s->state == SESSION_OPEN) {
		long n = tls_read(&s->tls, bytes, sizeof bytes);

		if (n == -EAGAIN)
			return;
		if (n <= 0)
			session_close(s, -ECONNRESET, n == 0 ? "the peer closed" : "damaged TLS record");
		else
			deliver(s, bytes, (size_t)n);
	}
}

/* The peer's end, at once or, as it may be the worker that knows why, when that is done. */
static void ended(struct session *s, int rc)
{
	s->ended = rc;
	if (!s->working)
		session_close(s, -ECONNRESET, "%s", rc == UV_EOF ? "the peer closed" : uv_strerror(rc));
}

static void after_work_cb(uv_work_t *work, int status)
{
	struct session *s = work->data;

	(void)status;
	s->working = false;
	if (s->state == SESSION_CLOSING) {
		try_free(s);
		return;
	}
	buf_append(&s->tls.in, s->arrived.data, s->arrived.len);
	s->arrived.len = 0;
	if (s->work_rc == -EAGAIN) {
		flush(s);
		if (s->tls.in.len > 0)
			handshake_continue(s);
	} else if (s->work_rc < 0) {
		s->error = s->work_error;
		s->net->counters.handshakes_failed++;
		session_drain(s);
	} else {
		flush(s);
		open_session(s);
		read_plain(s);
	}
	if (s->ended)
		ended(s, s->ended);
}

/* The token's secret comes from the store, which belongs to this thread: find out which token it is before mbedTLS
 * asks. False: the identity is not whole yet. */
static bool find_psk(struct session *s)
{
	struct net *net = s->net;
	int rc = hello_psk_identity(s->tls.in.data, s->tls.in.len, s->tls.psk_id, sizeof s->tls.psk_id);

	if (rc == -EAGAIN)
		return false;
	if (rc == 0)
		s->tls.psk_known = net->cb.join_secret(net->cb.ctx, s->tls.psk_id, s->tls.psk);
	return true;
}

static void handshake_continue(struct session *s)
{
	bool is_join_server = s->protocol == TLS_JOIN && !s->is_client;

	CHECK(s->state == SESSION_HANDSHAKE && !s->working);
	if (is_join_server && s->work.data && s->tls.psk_id[0] == '\0' && !find_psk(s))
		return;
	s->work.data = s;
	s->working = true;
	CHECK(uv_queue_work(s->net->loop, &s->work, work_cb, after_work_cb) == 0);
}

static void begin_tls(struct session *s)
{
	struct tls_identity *id = s->protocol == TLS_JOIN ? NULL : &s->net->identity;
	int rc = tls_init(&s->tls, s->protocol, s->is_client, id, &s->error);

	s->tls_ready = true;
	if (rc < 0) {
		session_close(s, rc, "TLS");
		return;
	}
	set_state(s, SESSION_HANDSHAKE);
	handshake_continue(s);
}

/* A bulk link is no stream of ours: its socket goes on by a descriptor of its own, which closing ours does not end. */
static void hand_on(struct session *s)
{
	const struct net_callbacks *cb = &s->net->cb;
	uv_os_fd_t fd;
	int own = uv_fileno(&s->handle, &fd) < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);

	session_close(s, own < 0 ? -EMFILE : -ESHUTDOWN, own < 0 ? "no descriptor is left" : "handed on");
	if (own >= 0)
		cb->bulk(cb->ctx, own, s->tls.in.data, s->tls.in.len);
}

static void hello_continue(struct session *s)
{
	int rc = hello_protocol(s->tls.in.data, s->tls.in.len, &s->protocol);

	if (rc == -EAGAIN)
		return;
	if (rc == 0 && s->protocol == TLS_BULK && s->net->cb.bulk) {
		hand_on(s);
		return;
	}
	if (rc == 0 && s->protocol == TLS_BULK)
		rc = -ENOPROTOOPT; /* nobody here takes links */
	if (rc == -ENOPROTOOPT)
		refuse(s, ALERT_NO_PROTOCOL, "none of our protocols was asked for");
	else if (rc < 0)
		refuse(s, ALERT_HANDSHAKE_FAILURE, "no TLS ClientHello");
	else
		begin_tls(s);
}

/* ---- reading ---- */

static void alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct session *s = handle->data;

	(void)suggested;
	*ret = uv_buf_init((char *)s->net->read_buffer, READ_BYTES);
}

static void received(struct session *s, const uint8_t *p, size_t n)
{
	switch (s->state) {
	case SESSION_HELLO:
		buf_append(&s->tls.in, p, n);
		hello_continue(s);
		break;
	case SESSION_HANDSHAKE:
		buf_append(s->working ? &s->arrived : &s->tls.in, p, n);
		if (s->arrived.len > READ_BYTES)
			session_close(s, -EPROTO, "too much at once in the handshake");
		else if (!s->working)
			handshake_continue(s);
		break;
	case SESSION_OPEN:
		if (s->plain) {
			deliver(s, p, n);
		} else {
			buf_append(&s->tls.in, p, n);
			read_plain(s);
		}
		break;
	default: /* leaving: nothing is read any more */
		break;
	}
}

static void read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes)
{
	struct session *s = stream->data;

	if (n > 0) {
		s->received_at = clock_boottime();
		received(s, (const uint8_t *)bytes->base, (size_t)n);
	} else if (n < 0) {
		ended(s, (int)n);
	}
}

static void start_reading(struct session *s)
{
	int rc = uv_read_start(&s->stream, alloc_cb, read_cb);

	if (rc < 0)
		session_close(s, -EIO, "read: %s", uv_strerror(rc));
}

/* ---- beginning ---- */

/* The local socket: root, or whoever runs this agent, is admin. */
static bool identify_local(struct session *s)
{
	struct ucred cred;
	socklen_t n = sizeof cred;
	uv_os_fd_t fd;

	if (uv_fileno(&s->handle, &fd) < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0)
		return false;
	if (cred.uid != 0 && cred.uid != geteuid())
		return false;
	s->identity = (struct net_identity){.role = NET_ROLE_ADMIN, .name = "root"};
	memcpy(s->identity.cluster, s->net->config.cluster, strlen(s->net->config.cluster) + 1);
	return true;
}

void session_accept(struct net *net, uv_stream_t *listener, bool plain)
{
	struct session *s = session_new(net, plain);

	net->counters.accepted++;
	if (uv_accept(listener, &s->stream) < 0) {
		session_close(s, -ECONNABORTED, "gone before it was accepted");
		return;
	}
	if (net->n_sessions > SESSIONS_OPEN_MAX) {
		net->counters.closed_full++;
		session_close(s, -EMFILE, "too many connections");
		return;
	}
	if (plain) {
		(void)identify_local(s);
		open_session(s);
	} else {
		(void)uv_tcp_nodelay(&s->tcp, 1);
		(void)uv_tcp_keepalive(&s->tcp, 1, 30);
	}
	if (s->state != SESSION_CLOSING)
		start_reading(s);
}

static void connect_cb(uv_connect_t *req, int status)
{
	struct session *s = req->data;

	if (s->state == SESSION_CLOSING)
		return;
	if (status < 0) {
		session_close(s, -ECONNREFUSED, "connect: %s", uv_strerror(status));
		return;
	}
	(void)uv_tcp_nodelay(&s->tcp, 1);
	start_reading(s);
	begin_tls(s);
}

static int dial(struct session *s, const struct sockaddr *to)
{
	struct sockaddr_storage from = s->net->listen_at;
	int rc;

	if (from.ss_family == AF_INET)
		((struct sockaddr_in *)&from)->sin_port = 0;
	else
		((struct sockaddr_in6 *)&from)->sin6_port = 0;
	rc = uv_tcp_bind(&s->tcp, (struct sockaddr *)&from, 0);
	s->connect.data = s;
	if (rc == 0)
		rc = uv_tcp_connect(&s->connect, &s->tcp, to, connect_cb);
	return rc;
}

int session_dial(struct net_peer *peer, const struct sockaddr *to)
{
	struct session *s = session_new(peer->net, false);
	int rc;

	s->is_client = true;
	s->protocol = TLS_PEER;
	s->peer = peer;
	peer->dialling = s;
	set_state(s, SESSION_DIALLING);
	rc = dial(s, to);
	if (rc < 0)
		session_close(s, rc, "dial: %s", uv_strerror(rc));
	return rc;
}

void session_tick(struct session *s, usec_t now)
{
	switch (s->state) {
	case SESSION_DIALLING:
		if (now >= s->since + CONNECT_MAX)
			session_close(s, -ETIMEDOUT, "no answer to the dial");
		break;
	case SESSION_HELLO:
	case SESSION_HANDSHAKE:
		if (now >= s->since + HANDSHAKE_MAX) {
			s->net->counters.handshakes_failed++;
			session_close(s, -ETIMEDOUT, "no handshake in time");
		}
		break;
	case SESSION_DRAINING:
		if (now >= s->since + DRAIN_MAX)
			session_close(s, -ETIMEDOUT, "the peer does not read");
		break;
	default:
		break;
	}
}
