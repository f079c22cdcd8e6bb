/* SPDX-License-Identifier: Apache-2.0
 * What is read of a TLS handshake before mbedTLS reads it: the protocol that is asked for, and the name of a join
 * token. */
#include "net/tls.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>

static void put_vector(struct buf *b, unsigned bytes, const void *p, size_t n)
{
	uint8_t head[3];

	for (unsigned i = 0; i < bytes; i++)
		head[i] = (uint8_t)(n >> 8 * (bytes - 1 - i));
	buf_append(b, head, bytes);
	buf_append(b, p, n);
}

/* A handshake message in a record. */
static void put_record(struct buf *ret, uint8_t type, const struct buf *body)
{
	struct buf message = {0};

	buf_append(&message, &type, 1);
	put_vector(&message, 3, body->data, body->len);
	buf_append(ret, "\x16\x03\x01", 3);
	put_vector(ret, 2, message.data, message.len);
	buf_free(&message);
}

static void put_client_hello(struct buf *ret, const char *protocol)
{
	struct buf body = {0}, list = {0}, alpn = {0}, extensions = {0};
	static const uint8_t version_and_random[34] = {3, 3};

	buf_append(&body, version_and_random, sizeof version_and_random);
	put_vector(&body, 1, "session", 7);
	put_vector(&body, 2, "\xc0\x2b\xc0\x2f", 4);
	put_vector(&body, 1, "", 1);
	put_vector(&list, 1, "h2", 2);
	put_vector(&list, 1, protocol, strlen(protocol));
	put_vector(&alpn, 2, list.data, list.len);
	buf_append(&extensions, "\x00\x17\x00\x00\x00\x10", 6);
	put_vector(&extensions, 2, alpn.data, alpn.len);
	put_vector(&body, 2, extensions.data, extensions.len);
	put_record(ret, 1, &body);
	buf_free(&body);
	buf_free(&list);
	buf_free(&alpn);
	buf_free(&extensions);
}

bool fuzz_seed(unsigned i, struct buf *ret)
{
	struct buf body = {0};

	if (i < TLS_PROTOCOLS) {
		put_client_hello(ret, tls_alpn[i]);
	} else if (i == TLS_PROTOCOLS) {
		put_vector(&body, 2, "token", 5);
		put_record(ret, 16, &body);
		buf_free(&body);
	}
	return i <= TLS_PROTOCOLS;
}

void fuzz_begin(void)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	enum tls_protocol protocol = (enum tls_protocol)TLS_PROTOCOLS;
	char identity[64];
	int rc = hello_protocol(p, n, &protocol);

	CHECK(rc == 0 || rc == -EAGAIN || rc == -EBADMSG || rc == -ENOPROTOOPT);
	CHECK((rc == 0) == (protocol < TLS_PROTOCOLS));
	rc = hello_psk_identity(p, n, identity, sizeof identity);
	CHECK(rc == 0 || rc == -EAGAIN || rc == -EBADMSG);
	CHECK(rc != 0 || strlen(identity) < sizeof identity);
	return 0;
}
