/* SPDX-License-Identifier: Apache-2.0
 * Random bytes from the kernel, for identities and secrets. */
#include "base/random.h"

#include "base/check.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

void random_bytes(void *p, size_t n)
{
	uint8_t *at = p;

	while (n > 0) {
		ssize_t got = getrandom(at, n, 0);

		CHECK(got > 0 || errno == EINTR);
		if (got > 0) {
			at += got;
			n -= (size_t)got;
		}
	}
}

uint64_t random_u64(void)
{
	uint64_t v = 0;

	while (v == 0)
		random_bytes(&v, sizeof v);
	return v;
}

void random_uuid(char ret[40])
{
	uint8_t b[16];

	random_bytes(b, sizeof b);
	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	(void)snprintf(ret, 40, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		       b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}
