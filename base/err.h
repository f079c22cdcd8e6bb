/* SPDX-License-Identifier: Apache-2.0
 * Errors: a negative errno-style code for the machine, one line of text for the human. */
#ifndef KEDGE_BASE_ERR_H
#define KEDGE_BASE_ERR_H

#include "base/types.h"

/* A caller that wants the text passes a struct err (zeroed), one that does not passes NULL.
 * The text reads "what: why (what to do)"; code is negative, 0 while nothing failed. */
struct err {
	int code;
	char text[480];
};

/* [any] Set @e (may be NULL) and return @code, so that `return err_set(e, -EINVAL, "...")` is one line. */
int err_set(struct err *e, int code, const char *fmt, ...) KEDGE_PRINTF(3, 4);

/* [any] Put "context: " before the text that is there; @e may be NULL. Returns e->code, or @code when @e is NULL. */
int err_wrap(struct err *e, int code, const char *fmt, ...) KEDGE_PRINTF(3, 4);

#endif
