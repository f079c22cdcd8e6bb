/* SPDX-License-Identifier: Apache-2.0
 * How a bulk link is handed to the volume engine: whoever holds the node's private key has done the TLS 1.2 handshake
 * of ALPN kedge-bulk/1 and has checked the peer; the engine gets the socket and the keys, and never the private key.
 *
 * One SOCK_SEQPACKET datagram of exactly sizeof(struct bulk_handover) bytes with the TCP socket attached (base/fdpass).
 * Both ends are processes of one node and of one build: native byte order, no padding. The socket has O_NONBLOCK and
 * TCP_NODELAY set. It is a secret: zero it before it is filled, explicit_bzero() once it was sent or taken.
 */
#ifndef KEDGE_PROTO_BULK_H
#define KEDGE_PROTO_BULK_H

#include "base/base.h"

#define BULK_MAGIC           0x4b45424cu /* "KEBL" */
#define BULK_VERSION         1u
#define BULK_EARLY_BYTES_MAX 32768u

enum bulk_cipher {
	BULK_AES_128_GCM = 1, /* TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 */
	BULK_AES_256_GCM = 2, /* TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 */
};

struct bulk_handover {
	uint32_t magic;
	uint32_t version;
	node_id_t peer;     /* from its certificate, 1 to NODES_MAX */
	uint32_t cipher;    /* enum bulk_cipher */
	uint32_t is_client; /* 1: this end dialled, 0: it accepted */
	uint32_t n_early;
	uint64_t write_seq; /* of the next record in each direction */
	uint64_t read_seq;
	uint8_t write_key[32]; /* 16 bytes with BULK_AES_128_GCM, the rest is 0 */
	uint8_t read_key[32];
	uint8_t write_iv[4]; /* the salt: first part of each nonce (RFC 5288, section 3) */
	uint8_t read_iv[4];
	uint8_t early[BULK_EARLY_BYTES_MAX]; /* what was read from the socket after the handshake: it comes first */
};

_Static_assert(sizeof(struct bulk_handover) == 112 + BULK_EARLY_BYTES_MAX, "no padding: all of it is sent");

#endif
