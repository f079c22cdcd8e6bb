/* SPDX-License-Identifier: Apache-2.0
 * A loop that is asked again and again looks for the next event some microseconds before it sleeps.
 *
 * To wake a thread whose CPU halts meanwhile takes tens of microseconds, more than all else that an answer from the
 * page cache needs, and two replicas need four wakes for a write. QEMU's event loop does the same (its adaptive
 * polling); here it is not how long to look that adapts, but whether to look at all. Everything is [loop].
 */
#ifndef KEDGE_VOLUME_SPIN_H
#define KEDGE_VOLUME_SPIN_H

#include "base/base.h"

#include <uv.h>

struct spin {
	uv_prepare_t before;
	uv_idle_t awake;    /* while it runs, the loop does not sleep */
	unsigned requests;  /* of guests, to be answered */
	unsigned disk;      /* I/O under way */
	bool waited;        /* since the last event */
	bool had_requests;  /* when it began to wait */
	uint8_t history[2]; /* without requests and with: a bit for each of the last eight waits, set if it was short */
	uint64_t last;      /* ns: the last event */
	uint64_t not_until; /* ns: others want the CPU */
	uint64_t pause;     /* ns: for so long, when that is found once more */
};

/* @s must stay until spin_close() calls @closed, which it does twice, for two handles with @data. */
void spin_open(struct spin *s, uv_loop_t *loop);
void spin_close(struct spin *s, uv_close_cb closed, void *data);

/* Something came that may soon be followed by more. */
void spin_note(struct spin *s);

#endif
