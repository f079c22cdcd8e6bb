/* SPDX-License-Identifier: Apache-2.0
 * Numbers as people write them: sizes with units, durations, addresses. */
#ifndef KEDGE_CLI_SIZE_H
#define KEDGE_CLI_SIZE_H

#include "base/base.h"

/* [any] "512MiB", "1GB", "65536" (bytes). False: no size, or above 64 bits. */
bool size_parse(const char *text, uint64_t *ret);

/* [any] "30s", "10m", "1h", "2d" in seconds. */
bool duration_parse(const char *text, uint64_t *ret_seconds);

/* [any] Bytes in the largest unit that leaves at least 1: "512 MiB". */
void size_format(uint64_t bytes, char *ret, size_t size);

#endif
