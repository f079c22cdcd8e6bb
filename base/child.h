/* SPDX-License-Identifier: Apache-2.0
 * A program that is run for what it prints. */
#ifndef KEDGE_BASE_CHILD_H
#define KEDGE_BASE_CHILD_H

#include "base/buf.h"

#include <stdatomic.h>

struct child {
	const char *const *argv; /* ends with NULL; argv[0] is looked for in PATH */
	usec_t patience;
	const _Atomic bool *cancel;                          /* kill it when this becomes true; may be NULL */
	void (*told)(void *ctx, const char *part, size_t n); /* what it prints, as it comes; may be NULL */
	void *ctx;
};

/* [worker] Run @c, append what it prints (bounded) and a zero to @text. It dies with us. Returns its exit status, 127
 * when it cannot be run, -ETIME when it had to be killed, -ECANCELED, -ECHILD when a signal ended it, or another
 * negative errno. */
int child_run(const struct child *c, struct buf *text);

#endif
