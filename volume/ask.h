/* SPDX-License-Identifier: Apache-2.0
 * Asking a running engine, from another process. */
#ifndef KEDGE_VOLUME_ASK_H
#define KEDGE_VOLUME_ASK_H

#include "base/base.h"

#include <stdio.h>

/* [any] What the engine of the folder @dir says of its volumes, as JSON, to @out. Blocks. -ECONNREFUSED: no engine runs
 * there; -ETIMEDOUT: it does not answer. */
int volume_ask_status(const char *dir, FILE *out, struct err *e) KEDGE_MUST_CHECK;

/* [any] Have the volume @name compared on all its replicas, with progress to @progress (NULL: none), and the result as
 * one line, or as JSON, to @out. Blocks until it is done; a caller that is killed leaves it running. -EBADMSG: copies
 * were wrong, see @out; -EINVAL: the engine refused, with the reason; or as above. */
int volume_ask_verify(const char *dir, const char *name, bool primary_wins, bool json, FILE *out, FILE *progress,
		      struct err *e) KEDGE_MUST_CHECK;

#endif
