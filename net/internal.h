/* SPDX-License-Identifier: Apache-2.0
 * What the files of a node's end share: sessions (one stream each, with or without TLS), peers, connections. */
#ifndef KEDGE_NET_INTERNAL_H
#define KEDGE_NET_INTERNAL_H

#include "net/tls.h"

#include <pthread.h>
#include <uv.h>

#define TICK_MS           100
#define KEEPALIVE         (500 * USEC_PER_MS)
#define SILENT_MAX        (2 * USEC_PER_SEC)
#define TICK_LATE         (USEC_PER_SEC) /* our own loop stalled: silence proves nothing then */
#define HANDSHAKE_MAX     (10 * USEC_PER_SEC)
#define CONNECT_MAX       (USEC_PER_SEC) /* then anew: the kernel repeats a lost SYN after 1, 2, 4 s, ever later */
#define DRAIN_MAX         (5 * USEC_PER_SEC)
#define REDIAL_MIN        (100 * USEC_PER_MS)
#define REDIAL_MAX        (500 * USEC_PER_MS) /* with CONNECT_MAX: how long after a cut is healed; cf. LAN_HEAR_MS */
#define READ_BYTES        (64u << 10)
#define SESSIONS_OPEN_MAX (CTL_CLIENTS_MAX + 2 * NODES_MAX)

enum session_state {
	SESSION_DIALLING,  /* connect is under way */
	SESSION_HELLO,     /* accepted; the ClientHello is not whole yet */
	SESSION_HANDSHAKE, /* on a worker, or between two visits there */
	SESSION_OPEN,
	SESSION_DRAINING, /* nothing is read any more; what is queued goes out, then it closes */
	SESSION_CLOSING,
};

struct net_peer;

/* One stream. Freed when its handle is closed and no worker has it. */
struct session {
	struct net *net;
	struct session *next;
	enum session_state state;
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	};
	bool plain; /* the local socket */
	bool is_client;
	bool handle_closed;
	usec_t since; /* of the state */

	enum tls_protocol protocol;
	bool tls_ready;
	struct tls tls;
	struct buf arrived; /* while a worker has tls */
	uv_work_t work;
	bool working;
	int work_rc;
	struct err error;      /* why it closes */
	struct err work_error; /* the worker's, while it works */
	int ended;             /* meanwhile the peer's end came: of uv_read */

	struct buf out; /* plain sessions: to be written */
	struct buf writing;
	uv_write_t write;
	bool is_writing;
	uv_connect_t connect;

	usec_t received_at, sent_at;
	struct net_identity identity;
	struct buf frame; /* peer: what has come of the next frames */
	struct net_peer *peer;
	struct net_conn *conn;
};

/* A link with another node. */
struct net_peer {
	struct net *net;
	struct net_peer *next;
	node_id_t node;
	char address[ADDRESS_BYTES_MAX]; /* "": only ever accepted */
	struct session *active;
	struct session *dialling;
	usec_t backoff, next_dial;
};

/* A stream for the agent. */
struct net_conn {
	struct session *session;
	enum net_protocol protocol;
	void *data;
};

struct net {
	uv_loop_t *loop;
	struct net_config config;
	struct net_callbacks cb;
	struct net_counters counters;
	char self_host[ADDRESS_BYTES_MAX];
	struct sockaddr_storage listen_at;
	struct tls_identity identity;
	pthread_mutex_t identity_lock; /* mbedTLS caches inside keys: one handshake at a time */
	char *strings[6];              /* own copies of the configuration's */
	uv_tcp_t listener;
	uv_pipe_t local;
	uv_timer_t timer;
	usec_t ticked_at;
	struct session *sessions;
	size_t n_sessions;
	struct net_peer *peers;
	uint8_t read_buffer[READ_BYTES];
	bool closing;
	unsigned handles; /* listener, local, timer */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* session.c */
struct session *session_new(struct net *net, bool plain);
void session_accept(struct net *net, uv_stream_t *listener, bool plain);
int session_dial(struct net_peer *peer, const struct sockaddr *to);
int session_send(struct session *s, const void *p, size_t n, size_t queue_max);
void session_drain(struct session *s);
void session_close(struct session *s, int code, const char *fmt, ...) KEDGE_PRINTF(3, 4);
void session_tick(struct session *s, usec_t now);

/* peer.c */
struct net_peer *peer_find(const struct net *net, node_id_t node);
void peer_session_open(struct session *s);
void peer_session_data(struct session *s, const uint8_t *p, size_t n);
void peer_session_closed(struct session *s);
void peer_tick(struct net_peer *peer, usec_t now, bool was_late);
void peer_free(struct net_peer *peer);

/* conn.c */
void conn_session_open(struct session *s);
void conn_session_data(struct session *s, const uint8_t *p, size_t n);
void conn_session_closed(struct session *s);

/* net.c */
int net_parse_address(const char *address, struct sockaddr_storage *ret, struct err *e) KEDGE_MUST_CHECK;
void net_try_free(struct net *net);

#endif
