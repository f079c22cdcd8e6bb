/* SPDX-License-Identifier: Apache-2.0
 * Buffers for payloads: page-aligned, in powers of two that are kept for the next one, so that no request pays for
 * fresh pages. How many may be out is decided in nbd_command.c. */
#include "volume/nbd_internal.h"

#include <stdlib.h>

#define PAGE_BYTES     4096u
#define CACHED_MAX     (16u << 20)
#define CLASS_BYTES(i) ((uint64_t)PAGE_BYTES << (i))

/* NBD_POOL_CLASSES: of none. */
static unsigned class_of(uint64_t bytes)
{
	unsigned i = 0;

	while (i < NBD_POOL_CLASSES && CLASS_BYTES(i) < bytes)
		i++;
	return i;
}

uint64_t nbd_pool_capacity(uint64_t bytes)
{
	unsigned class = class_of(bytes);

	if (bytes == 0)
		return 0;
	return class < NBD_POOL_CLASSES ? CLASS_BYTES(class) : (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

void *nbd_pool_get(struct nbd_pool *p, uint64_t capacity)
{
	unsigned class = class_of(capacity);
	void *buffer;

	CHECK(capacity > 0 && capacity == nbd_pool_capacity(capacity));
	if (class < NBD_POOL_CLASSES && p->free[class]) {
		buffer = p->free[class];
		memcpy(&p->free[class], buffer, sizeof p->free[class]);
		p->cached -= capacity;
		return buffer;
	}
	return aligned_alloc(PAGE_BYTES, capacity);
}

void nbd_pool_put(struct nbd_pool *p, void *buffer, uint64_t capacity)
{
	unsigned class = class_of(capacity);

	if (!buffer)
		return;
	if (class == NBD_POOL_CLASSES || p->cached + capacity > CACHED_MAX) {
		free(buffer);
		return;
	}
	memcpy(buffer, &p->free[class], sizeof p->free[class]);
	p->free[class] = buffer;
	p->cached += capacity;
}

void nbd_pool_free(struct nbd_pool *p)
{
	for (unsigned i = 0; i < NBD_POOL_CLASSES; i++)
		while (p->free[i]) {
			void *buffer = p->free[i];

			memcpy(&p->free[i], buffer, sizeof p->free[i]);
			free(buffer);
		}
	p->cached = 0;
}
