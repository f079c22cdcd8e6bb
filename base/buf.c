/* SPDX-License-Identifier: Apache-2.0
 * A growing byte buffer. */
#include "base/buf.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t *buf_reserve(struct buf *b, size_t n)
{
	CHECK(b->len <= b->cap && n < SIZE_MAX / 4);
	if (b->cap - b->len < n) {
		size_t cap = b->cap ? b->cap * 2 : 256;

		while (cap - b->len < n)
			cap *= 2;
		b->data = xrealloc(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_append(struct buf *b, const void *p, size_t n)
{
	if (n == 0)
		return;
	memcpy(buf_reserve(b, n), p, n);
	b->len += n;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	size_t room = 128;

	for (;;) {
		va_list ap;
		int n;

		va_start(ap, fmt);
		n = vsnprintf((char *)buf_reserve(b, room), room, fmt, ap);
		va_end(ap);
		CHECK(n >= 0);
		if ((size_t)n < room) {
			b->len += (size_t)n;
			return;
		}
		room = (size_t)n + 1;
	}
}

void buf_consume(struct buf *b, size_t n)
{
	CHECK(n <= b->len);
	if (n < b->len)
		memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}

void buf_free(struct buf *b)
{
	free(b->data);
	*b = (struct buf){0};
}
