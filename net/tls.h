/* SPDX-License-Identifier: Apache-2.0
 * TLS 1.2 over memory: bytes of the wire go in and come out, mbedTLS sees no socket. The one file that knows which of
 * mbedTLS 2.28 and 3.6 it is built with is tls.c.
 */
#ifndef KEDGE_NET_TLS_H
#define KEDGE_NET_TLS_H

#include "net/net.h"

#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

/* What a session speaks; each has its own rule about who is let in. */
enum tls_protocol { TLS_PEER, TLS_CTL, TLS_JOIN, TLS_BULK, TLS_PROTOCOLS };

extern const char *const tls_alpn[TLS_PROTOCOLS];

/* Certificates and key of this end. Not shared between threads without the caller's lock: mbedTLS caches inside keys.
 */
struct tls_identity {
	mbedtls_x509_crt ca;
	mbedtls_x509_crt cert;
	mbedtls_pk_context key;
};

/* What the keys of a session are derived from, and how (RFC 5246, section 6.3). A secret. */
struct tls_secrets {
	bool known;
	mbedtls_tls_prf_types prf;
	uint8_t master[48];
	uint8_t randoms[64]; /* the server's, the client's */
};

struct tls {
	mbedtls_ssl_context ssl;
	mbedtls_ssl_config conf;
	enum tls_protocol protocol;
	struct buf in;  /* from the wire, not yet read by mbedTLS */
	struct buf out; /* for the wire */
	char psk_id[40];
	uint8_t psk[32];
	bool psk_known;             /* psk belongs to psk_id */
	struct tls_secrets secrets; /* TLS_BULK only, from the handshake on */
};

/* [any] Call once per process before anything else here. */
void tls_global_init(void);

/* [any] Random bytes in mbedTLS's form. */
int tls_random(void *ctx, unsigned char *p, size_t n);

/* [worker] Read the three PEM files. */
int tls_identity_load(struct tls_identity *id, const char *ca, const char *cert, const char *key,
		      struct err *e) KEDGE_MUST_CHECK;
void tls_identity_free(struct tls_identity *id);

/* [any] Who this end is. -EACCES when its own certificate names no role. */
int tls_identity_self(const struct tls_identity *id, struct net_identity *ret) KEDGE_MUST_CHECK;

/* [any] One end of a session. @id is NULL for TLS_JOIN, whose client sets psk_id, psk and psk_known before; the server
 * sets them once it has seen the client's identity. @id must outlive @t. */
int tls_init(struct tls *t, enum tls_protocol protocol, bool is_client, struct tls_identity *id,
	     struct err *e) KEDGE_MUST_CHECK;
void tls_free(struct tls *t);

/* [any] One at a time per session, and per identity. 0: done. -EAGAIN: more bytes are needed. Else it failed: what is
 * in out (an alert) is for the peer. */
int tls_handshake(struct tls *t, struct err *e) KEDGE_MUST_CHECK;

/* [any] Plain bytes: the count, -EAGAIN, 0 at the end, -EPROTO. */
long tls_read(struct tls *t, uint8_t *p, size_t n) KEDGE_MUST_CHECK;

/* [any] Encrypt all of @p into out. -EPROTO. */
int tls_write(struct tls *t, const void *p, size_t n) KEDGE_MUST_CHECK;
void tls_close_notify(struct tls *t);

/* [any] Who is at the other end, after the handshake. -EACCES when its certificate names no role. */
int tls_peer_identity(const struct tls *t, struct net_identity *ret) KEDGE_MUST_CHECK;

/* [any] The first @n bytes of the key block of a TLS_BULK session, after the handshake. -EPROTO. */
int tls_key_block(const struct tls *t, uint8_t *ret, size_t n) KEDGE_MUST_CHECK;

/* [any] mbedTLS's words for @code. */
void tls_error(int code, char *ret, size_t size);

/* ---- reading what is sent in the clear (hello.c) ---- */

/* [any] Which protocol does the ClientHello at @p ask for? -EAGAIN: more bytes are needed. -EBADMSG: no ClientHello.
 * -ENOPROTOOPT: none of ours. RFC 5246, 7.4.1.2; RFC 7301. */
int hello_protocol(const uint8_t *p, size_t n, enum tls_protocol *ret) KEDGE_MUST_CHECK;

/* [any] The PSK identity in the ClientKeyExchange at @p. Errors as above. RFC 4279, section 2. */
int hello_psk_identity(const uint8_t *p, size_t n, char *ret, size_t size) KEDGE_MUST_CHECK;

#endif
