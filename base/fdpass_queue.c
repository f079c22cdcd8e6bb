/* SPDX-License-Identifier: Apache-2.0
 * Datagrams that wait until the other end has read. */
#include "base/fdpass_queue.h"

#include "base/check.h"
#include "base/fdpass.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct fdpass_waiting {
	struct fdpass_waiting *next;
	size_t n;
	uint8_t bytes[];
};

int fdpass_queue_send(struct fdpass_queue *q, int sock, const void *p, size_t n, size_t bytes_max)
{
	int rc = q->first ? -EAGAIN : fdpass_send(sock, p, n, -1);
	struct fdpass_waiting *w;

	if (rc != -EAGAIN)
		return rc;
	if (q->bytes + n > bytes_max)
		return -ENOBUFS;
	w = xcalloc(1, sizeof *w + n);
	w->n = n;
	memcpy(w->bytes, p, n);
	if (q->first)
		q->last->next = w;
	else
		q->first = w;
	q->last = w;
	q->bytes += n;
	return 0;
}

static void drop_first(struct fdpass_queue *q)
{
	struct fdpass_waiting *w = q->first;

	CHECK(q->bytes >= w->n);
	q->first = w->next;
	q->bytes -= w->n;
	free(w);
}

int fdpass_queue_flush(struct fdpass_queue *q, int sock)
{
	while (q->first) {
		int rc = fdpass_send(sock, q->first->bytes, q->first->n, -1);

		if (rc < 0)
			return rc;
		drop_first(q);
	}
	return 0;
}

void fdpass_queue_clear(struct fdpass_queue *q)
{
	while (q->first)
		drop_first(q);
	CHECK(q->bytes == 0);
}
