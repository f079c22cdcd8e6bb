/* SPDX-License-Identifier: Apache-2.0
 * A growing byte buffer: append at the end, consume at the front. */
#ifndef KEDGE_BASE_BUF_H
#define KEDGE_BASE_BUF_H

#include "base/types.h"

/* Zero-initialise; buf_free() at the end. data[0..len) is the content; may move at each append. */
struct buf {
	uint8_t *data;
	size_t len;
	size_t cap; /* private */
};

/* [any] Append @n bytes. A failed allocation ends the process; bound @n before (limits.h). */
void buf_append(struct buf *b, const void *p, size_t n);

/* [any] Append printf text, without its terminating zero. */
void buf_printf(struct buf *b, const char *fmt, ...) KEDGE_PRINTF(2, 3);

/* [any] Make room for @n more bytes and return where they go; the caller then adds what it wrote to b->len. */
uint8_t *buf_reserve(struct buf *b, size_t n);

/* [any] Drop the first @n bytes (n <= len). */
void buf_consume(struct buf *b, size_t n);

/* [any] Free the memory; @b is empty and usable again. */
void buf_free(struct buf *b);

#endif
