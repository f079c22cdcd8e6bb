/* SPDX-License-Identifier: Apache-2.0
 * The handshake of a bulk link (ALPN kedge-bulk/1) on a socket that is connected, and the keys that come of it: who
 * does the records afterwards is another process (proto/bulk.h). Other folders get this through net/net.h.
 */
#ifndef KEDGE_NET_BULK_H
#define KEDGE_NET_BULK_H

#include "base/base.h"

struct bulk_handover;
struct net_bulk_identity;

#define NET_BULK_FIRST_BYTES_MAX 16384u

/* [worker] Read the three PEM files. -EACCES: the certificate is not a node's. -EINVAL: a file is unusable. */
int net_bulk_identity_load(const char *ca, const char *cert, const char *key, struct net_bulk_identity **ret,
			   struct err *e) KEDGE_MUST_CHECK;

/* [any] No handshake may be using it. NULL is allowed; returns NULL. */
struct net_bulk_identity *net_bulk_identity_free(struct net_bulk_identity *id);

/* [any] Whose certificate it is. */
node_id_t net_bulk_identity_node(const struct net_bulk_identity *id);

/* [any] Begin to connect to @address from the host of @listen, both "HOST:PORT": a non-blocking socket, which becomes
 * writable once that is over (SO_ERROR). -EINVAL: an address makes no sense. Or what the socket says. */
int net_bulk_dial(const char *address, const char *listen, int *ret_fd, struct err *e) KEDGE_MUST_CHECK;

struct net_bulk_handshake {
	int fd; /* a connected stream; it becomes non-blocking and stays the caller's */
	bool is_client;
	node_id_t expected;   /* only this peer will do; 0: any node of the cluster but ourselves */
	const uint8_t *first; /* what the caller has read from @fd already, at most NET_BULK_FIRST_BYTES_MAX */
	size_t n_first;
	usec_t deadline; /* boottime; for all of it */
};

/* [worker] Do the handshake and fill all of @ret, a secret to be wiped by the caller. Any number of threads may share
 * @id. When it failed the peer was sent an alert if there is one, and the socket is good for nothing but close().
 * -ETIMEDOUT. -ECONNRESET: the peer closed. -EPROTO: TLS says no (a wrong CA, no certificate, another protocol).
 * -EACCES: the peer is no node of this cluster, or not the expected one. Or what the socket says. */
int net_bulk_handshake(struct net_bulk_identity *id, const struct net_bulk_handshake *h, struct bulk_handover *ret,
		       struct err *e) KEDGE_MUST_CHECK;

#endif
