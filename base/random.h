/* SPDX-License-Identifier: Apache-2.0
 * Random bytes from the kernel, for identities and secrets. */
#ifndef KEDGE_BASE_RANDOM_H
#define KEDGE_BASE_RANDOM_H

#include "base/types.h"

/* [any] Fill @p with @n bytes from getrandom(2). Never fails: an error ends the process. */
void random_bytes(void *p, size_t n);

/* [any] 64 random bits, never 0. */
uint64_t random_u64(void);

/* [any] A random UUID as text (RFC 4122, version 4). */
void random_uuid(char ret[40]);

#endif
