/* SPDX-License-Identifier: Apache-2.0
 * The positive control of all fuzzers: a reader with a mistake, which must be found. It trusts a length. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

bool fuzz_seed(unsigned i, struct buf *ret)
{
	if (i == 0)
		buf_append(ret, "key\4\4abcd", 9);
	return i == 0;
}

void fuzz_begin(void)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	char copy[256];

	if (n < 5 || memcmp(p, "kedg", 4) != 0)
		return 0;
	memcpy(copy, p + 5, p[4]); /* not held against what is left */
	return copy[0] == 'x' ? 0 : -1;
}
