/* SPDX-License-Identifier: Apache-2.0
 * What all fuzzers share: their seeds become files, which libFuzzer then begins with. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *folder = getenv("KEDGE_FUZZ_SEEDS");
	struct buf seed = {0};
	char path[PATH_BYTES_MAX];

	(void)argc;
	(void)argv;
	for (unsigned i = 0; folder && fuzz_seed(i, &seed); i++) {
		(void)snprintf(path, sizeof path, "%s/seed-%u", folder, i);
		CHECK(file_replace(path, seed.data, seed.len, 0600, NULL) == 0);
		seed.len = 0;
	}
	buf_free(&seed);
	fuzz_begin();
	return 0;
}
