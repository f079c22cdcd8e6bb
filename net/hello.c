/* SPDX-License-Identifier: Apache-2.0
 * The two things in a TLS handshake that must be known before mbedTLS reads them: which protocol is asked for, since
 * each has its own rule about certificates, and which join token is meant, since the store is not for other threads. */
#include "net/tls.h"

#include <errno.h>
#include <string.h>

#define RECORD_HANDSHAKE    22
#define RECORD_BYTES_MAX    (1u << 14)
#define CLIENT_HELLO        1
#define CLIENT_KEY_EXCHANGE 16
#define EXTENSION_ALPN      16

/* A view that only shrinks: every read is held against what is left. */
struct view {
	const uint8_t *p;
	size_t n;
};

static bool take(struct view *v, size_t n, struct view *ret)
{
	if (n > v->n)
		return false;
	*ret = (struct view){v->p, n};
	v->p += n;
	v->n -= n;
	return true;
}

/* A vector with a length of @bytes before it. */
static bool take_vector(struct view *v, unsigned bytes, struct view *ret)
{
	struct view head;
	size_t n = 0;

	if (!take(v, bytes, &head))
		return false;
	for (unsigned i = 0; i < bytes; i++)
		n = n << 8 | head.p[i];
	return take(v, n, ret);
}

/* The body of the handshake message @type that the record at @p starts with; it may not span records. */
static int handshake_body(const uint8_t *p, size_t n, uint8_t type, struct view *ret)
{
	struct view rest = {p, n}, head, record;
	size_t length;

	if (n >= 1 && p[0] != RECORD_HANDSHAKE)
		return -EBADMSG;
	if (n >= 2 && p[1] != 3)
		return -EBADMSG;
	if (n < 5)
		return -EAGAIN;
	length = (size_t)p[3] << 8 | p[4];
	if (length > RECORD_BYTES_MAX)
		return -EBADMSG;
	(void)take(&rest, 5, &head);
	if (!take(&rest, length, &record))
		return -EAGAIN;
	if (!take(&record, 1, &head) || head.p[0] != type || !take_vector(&record, 3, ret))
		return -EBADMSG;
	return 0;
}

/* The list of extensions. */
static int hello_extensions(struct view hello, struct view *ret)
{
	struct view skipped;

	if (!take(&hello, 2 + 32, &skipped) || !take_vector(&hello, 1, &skipped) || !take_vector(&hello, 2, &skipped) ||
	    !take_vector(&hello, 1, &skipped))
		return -EBADMSG;
	if (hello.n == 0)
		return -ENOPROTOOPT;
	return take_vector(&hello, 2, ret) ? 0 : -EBADMSG;
}

static int pick_protocol(struct view extension, enum tls_protocol *ret)
{
	struct view list, name;

	if (!take_vector(&extension, 2, &list))
		return -EBADMSG;
	while (take_vector(&list, 1, &name))
		for (int i = 0; i < TLS_PROTOCOLS; i++)
			if (name.n == strlen(tls_alpn[i]) && memcmp(name.p, tls_alpn[i], name.n) == 0) {
				*ret = (enum tls_protocol)i;
				return 0;
			}
	return -ENOPROTOOPT;
}

int hello_protocol(const uint8_t *p, size_t n, enum tls_protocol *ret)
{
	struct view hello, extensions, type, extension;
	int rc = handshake_body(p, n, CLIENT_HELLO, &hello);

	if (rc < 0)
		return rc;
	rc = hello_extensions(hello, &extensions);
	if (rc < 0)
		return rc;
	while (take(&extensions, 2, &type) && take_vector(&extensions, 2, &extension))
		if (type.p[0] == 0 && type.p[1] == EXTENSION_ALPN)
			return pick_protocol(extension, ret);
	return -ENOPROTOOPT;
}

int hello_psk_identity(const uint8_t *p, size_t n, char *ret, size_t size)
{
	struct view body, identity;
	int rc = handshake_body(p, n, CLIENT_KEY_EXCHANGE, &body);

	if (rc < 0)
		return rc;
	if (!take_vector(&body, 2, &identity) || identity.n >= size || memchr(identity.p, 0, identity.n))
		return -EBADMSG;
	memcpy(ret, identity.p, identity.n);
	ret[identity.n] = '\0';
	return 0;
}
