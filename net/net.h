/* SPDX-License-Identifier: Apache-2.0
 * TLS between nodes and from administrators: identities, the one listener, peer links, the blocking client.
 *
 * Everything marked [loop] runs on the libuv loop given to net_new() and calls back on it, never from inside the call
 * that caused it. Handshakes run on libuv's worker threads. Nothing here logs.
 */
#ifndef KEDGE_NET_NET_H
#define KEDGE_NET_NET_H

#include "base/base.h"
#include "net/bulk.h"
#include "net/digest.h"

struct uv_loop_s;
struct net;
struct net_conn;

/* ---- identities and certificates (pki) ---- */

enum net_role { NET_ROLE_NONE, NET_ROLE_NODE, NET_ROLE_ADMIN, NET_ROLE_OPERATOR, NET_ROLE_VIEWER };

/* Who is at the other end. From the verified certificate only (CN "node:3" or "admin:NAME", O = cluster id). For the
 * local socket: root is ADMIN "root", by SO_PEERCRED; everyone else is refused. */
struct net_identity {
	enum net_role role;
	node_id_t node; /* NET_ROLE_NODE only */
	char name[NAME_BYTES_MAX];
	char cluster[40];
};

/* [worker] Make a P-256 CA for @cluster: PEM key and self-signed certificate, valid 20 years from 2020 on (nodes
 * without a clock battery boot in 1970). */
int net_pki_make_ca(const char *cluster, struct buf *ret_key, struct buf *ret_cert, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Make a P-256 key and a PEM certificate request for CN @common_name. */
int net_pki_make_request(const char *common_name, struct buf *ret_key, struct buf *ret_csr,
			 struct err *e) KEDGE_MUST_CHECK;

/* [worker] Sign @csr_pem as CN @common_name, O @cluster (what the request itself names is ignored; its self-signature
 * is checked), for @days. */
int net_pki_sign(const struct buf *ca_key, const struct buf *ca_cert, const struct buf *csr_pem,
		 const char *common_name, const char *cluster, unsigned days, struct buf *ret_cert,
		 struct err *e) KEDGE_MUST_CHECK;

/* [any] SHA-256 of the certificate's DER form, as 64 hexadecimal digits and a zero. */
int net_pki_fingerprint(const struct buf *cert_pem, char ret[65], struct err *e) KEDGE_MUST_CHECK;

/* [any] Is @address "HOST:PORT" with a numeric host ([...] around IPv6) and a port? -EINVAL with the reason. */
int net_address_check(const char *address, struct err *e) KEDGE_MUST_CHECK;

/* ---- the node's end: listener, links, connections ---- */

/* Two protocols deliver byte streams to the agent: the control port, and a join (after a PSK handshake). */
enum net_protocol { NET_CTL, NET_JOIN };

struct net_callbacks {
	void *ctx;
	/* A whole frame came in on the link from @from; valid during the call. */
	void (*peer_frame)(void *ctx, node_id_t from, const uint8_t *p, size_t n);
	/* The link is usable / is no more (and every frame not yet sent is lost). @reason for the human. */
	void (*peer_up)(void *ctx, node_id_t node);
	void (*peer_down)(void *ctx, node_id_t node, const char *reason);
	/* Is there a member @node of this cluster? A certificate alone is not enough. */
	bool (*peer_known)(void *ctx, node_id_t node);
	/* A connection was accepted and has proved who it is. Set its user pointer by net_conn_set_data(). */
	void (*conn_open)(void *ctx, struct net_conn *conn, enum net_protocol protocol);
	void (*conn_data)(void *ctx, struct net_conn *conn, const uint8_t *p, size_t n);
	/* Last call for @conn, for whatever reason it ended; it is freed afterwards. */
	void (*conn_closed)(void *ctx, struct net_conn *conn);
	/* The 256-bit secret of join token @id. Returns false when it is unknown, used or expired. */
	bool (*join_secret)(void *ctx, const char *id, uint8_t ret[32]);
	/* A connection whose ClientHello asks for kedge-bulk/1, of which @n bytes were read: @first, valid during the
	 * call. Nobody has proved anything yet. @fd is the callee's. NULL: such are refused. */
	void (*bulk)(void *ctx, int fd, const uint8_t *first, size_t n);
};

struct net_config {
	node_id_t self;
	const char *listen;  /* "host:port", numeric; outgoing links are bound to its host */
	const char *cluster; /* cluster id: certificates of another are refused */
	const char *ca_cert; /* paths of PEM files */
	const char *cert;
	const char *key;
	const char *ctl_sock; /* path of the local control socket, or NULL */
};

/* What was counted since the start, by reason. */
struct net_counters {
	uint64_t accepted, handshakes_ok, handshakes_failed, frames_in, frames_out, bytes_in, bytes_out;
	uint64_t closed_oversize, closed_malformed, closed_silent, closed_full, dropped_full;
};

/* [loop] Load the certificates. Nothing is opened yet. */
int net_new(struct uv_loop_s *loop, const struct net_config *config, const struct net_callbacks *cb, struct net **ret,
	    struct err *e) KEDGE_MUST_CHECK;

/* [loop] Bind and listen (TCP, and the local socket, whose stale file is replaced). */
int net_listen(struct net *net, struct err *e) KEDGE_MUST_CHECK;

/* [loop] Keep a link with @node at @address ("host:port"). Of a pair the lower id dials, with back-off; the higher one
 * waits. Calling it again with another address re-dials. */
int net_peer_add(struct net *net, node_id_t node, const char *address, struct err *e) KEDGE_MUST_CHECK;

/* [loop] Close and forget the link; no callback for it afterwards. */
void net_peer_remove(struct net *net, node_id_t node);

/* [loop] Queue a copy of one frame of @n <= FRAME_BYTES_MAX bytes. FIFO per link.
 * -EAGAIN: the queue holds PEER_QUEUE_BYTES_MAX, drop or retry later. -ENOTCONN: no link. -EMSGSIZE: too big. */
int net_peer_send(struct net *net, node_id_t node, const void *p, size_t n) KEDGE_MUST_CHECK;

/* [loop] What came over the link makes no sense: count it and close; peer_down() follows, then it is dialled anew. */
void net_peer_drop(struct net *net, node_id_t node, const char *reason);

/* [loop] */
bool net_peer_is_up(const struct net *net, node_id_t node);

/* [loop] Queue a copy of @n bytes. -EAGAIN above CTL_QUEUE_BYTES_MAX, -ENOTCONN when closing. */
int net_conn_send(struct net_conn *conn, const void *p, size_t n) KEDGE_MUST_CHECK;

/* [loop] Send what is queued, then close; conn_closed() follows. Any number of calls. */
void net_conn_close(struct net_conn *conn);

void net_conn_set_data(struct net_conn *conn, void *data);
void *net_conn_data(const struct net_conn *conn);
enum net_protocol net_conn_protocol(const struct net_conn *conn);
const struct net_identity *net_conn_identity(const struct net_conn *conn);
/* NET_JOIN: the token id that the PSK identity named. */
const char *net_conn_token(const struct net_conn *conn);

/* [loop] */
void net_counters(const struct net *net, struct net_counters *ret);

/* [loop] Close everything; @cb(ctx) once the last handle is closed and @net is freed. */
void net_close(struct net *net, void (*cb)(void *ctx), void *ctx);

/* ---- the blocking client, for the CLI ---- */

struct net_client;

/* [worker] Connect to the local control socket. */
int net_client_local(const char *path, struct net_client **ret, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Connect to @address by TLS with ALPN kedge-ctl/1, verifying the server against @ca_cert (paths of PEM files)
 * and that it is a node. Gives up @timeout after the call. */
int net_client_tls(const char *address, const char *ca_cert, const char *cert, const char *key, usec_t timeout,
		   struct net_client **ret, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Connect to @address by TLS-PSK with ALPN kedge-join/1 as token @id. @bind_host: local address, or NULL. */
int net_client_join(const char *address, const char *bind_host, const char *id, const uint8_t secret[32],
		    usec_t timeout, struct net_client **ret, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Send all of @p. 0 or a negative errno. */
int net_client_send(struct net_client *c, const void *p, size_t n, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Wait until boottime @deadline for bytes; append them to @ret. Returns the count, 0 at the end of the stream,
 * -ETIMEDOUT, or another negative errno. */
long net_client_recv(struct net_client *c, usec_t deadline, struct buf *ret, struct err *e) KEDGE_MUST_CHECK;

/* NULL is allowed; returns NULL. */
struct net_client *net_client_close(struct net_client *c);

#endif
