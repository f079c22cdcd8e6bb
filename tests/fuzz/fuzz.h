/* SPDX-License-Identifier: Apache-2.0
 * What a fuzzer of libFuzzer is made of here: one input, the inputs to begin with, and checks that end the process. */
#ifndef KEDGE_TESTS_FUZZ_FUZZ_H
#define KEDGE_TESTS_FUZZ_FUZZ_H

#include "base/base.h"

/* libFuzzer calls it with one input after the other. A crash, a sanitizer's finding or a failed CHECK() ends it. */
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* libFuzzer calls it first (fuzz.c): writes the seeds to the folder that KEDGE_FUZZ_SEEDS names, and sets up. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Each fuzzer's own: append valid input number @i, from 0, to @ret; false behind the last. */
bool fuzz_seed(unsigned i, struct buf *ret);

/* Each fuzzer's own: called once, before the first input and after the seeds. */
void fuzz_begin(void);

#endif
