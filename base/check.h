/* SPDX-License-Identifier: Apache-2.0
 * Assertions that stay on in production. A broken invariant ends the process: any crash restarts by itself (P7),
 * going on with broken state does not. */
#ifndef KEDGE_BASE_CHECK_H
#define KEDGE_BASE_CHECK_H

#include "base/types.h"

#define CHECK(cond)                                              \
	do {                                                     \
		if (__builtin_expect(!(cond), 0))                \
			check_failed(__FILE__, __LINE__, #cond); \
	} while (0)

/* [any] Print the place and the condition to stderr and abort(). */
_Noreturn void check_failed(const char *file, int line, const char *condition);

/* [any] malloc family for small internal allocations: a failure ends the process. Free with free(). What a peer or an
 * admin sizes uses malloc() itself and reports -ENOMEM. */
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);

#endif
