/* SPDX-License-Identifier: Apache-2.0
 * Random bytes from the kernel, for identities and secrets. */
#include "base/random.h"

#include "base/check.h"

#include <errno.h>
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
