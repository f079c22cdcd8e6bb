/* SPDX-License-Identifier: Apache-2.0
 * SHA-256 of what comes piece by piece. */
#include "net/digest.h"

#include <mbedtls/sha256.h>
#include <mbedtls/version.h>
#include <stdio.h>
#include <stdlib.h>

#if MBEDTLS_VERSION_MAJOR < 3
#define mbedtls_sha256_starts mbedtls_sha256_starts_ret
#define mbedtls_sha256_update mbedtls_sha256_update_ret
#define mbedtls_sha256_finish mbedtls_sha256_finish_ret
#endif

struct net_digest {
	mbedtls_sha256_context sha;
};

struct net_digest *net_digest_new(void)
{
	struct net_digest *d = xcalloc(1, sizeof *d);

	mbedtls_sha256_init(&d->sha);
	CHECK(mbedtls_sha256_starts(&d->sha, 0) == 0);
	return d;
}

void net_digest_add(struct net_digest *d, const void *p, size_t n)
{
	CHECK(mbedtls_sha256_update(&d->sha, p, n) == 0);
}

void net_digest_end(struct net_digest *d, char ret[DIGEST_BYTES_MAX])
{
	uint8_t hash[32];

	CHECK(mbedtls_sha256_finish(&d->sha, hash) == 0);
	for (size_t i = 0; i < sizeof hash; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", hash[i]);
}

struct net_digest *net_digest_free(struct net_digest *d)
{
	if (d)
		mbedtls_sha256_free(&d->sha);
	free(d);
	return NULL;
}
