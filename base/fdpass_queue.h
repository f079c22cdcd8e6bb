/* SPDX-License-Identifier: Apache-2.0
 * Datagrams that wait until the other end has read: they keep their order, and their sender never waits. */
#ifndef KEDGE_BASE_FDPASS_QUEUE_H
#define KEDGE_BASE_FDPASS_QUEUE_H

#include "base/types.h"

struct fdpass_waiting;

/* Zero-initialise; fdpass_queue_clear() at the end. */
struct fdpass_queue {
	struct fdpass_waiting *first, *last;
	size_t bytes; /* that wait */
};

/* [any] Send @n bytes of @p on @sock, behind those that wait, now or by a later flush. -ENOBUFS: more than @bytes_max
 * would wait. Or a negative errno of fdpass_send() that is the connection's end. */
int fdpass_queue_send(struct fdpass_queue *q, int sock, const void *p, size_t n, size_t bytes_max) KEDGE_MUST_CHECK;

/* [any] Send what waits. 0: nothing waits any more. -EAGAIN: something does. Or the connection's end. */
int fdpass_queue_flush(struct fdpass_queue *q, int sock) KEDGE_MUST_CHECK;

/* [any] Forget what waits. */
void fdpass_queue_clear(struct fdpass_queue *q);

#endif
