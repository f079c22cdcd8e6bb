/* SPDX-License-Identifier: Apache-2.0
 * Non-blocking sockets used as if they blocked, until a deadline: for threads that may wait. */
#ifndef KEDGE_NET_BLOCKING_H
#define KEDGE_NET_BLOCKING_H

#include "base/base.h"

/* [worker] Wait until boottime @deadline for one of poll(2)'s @events. 0, -ETIMEDOUT or another negative errno. */
int blocking_wait(int fd, short events, usec_t deadline) KEDGE_MUST_CHECK;

/* [worker] Send all of @p. 0, -ETIMEDOUT or another negative errno. */
int blocking_send(int fd, const uint8_t *p, size_t n, usec_t deadline) KEDGE_MUST_CHECK;

/* [worker] Bytes that are there within the time: the count, 0 at the end, -ETIMEDOUT or another negative errno. */
long blocking_recv(int fd, uint8_t *p, size_t n, usec_t deadline) KEDGE_MUST_CHECK;

#endif
