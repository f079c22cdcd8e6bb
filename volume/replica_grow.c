/* SPDX-License-Identifier: Apache-2.0
 * Making the files of an open replica larger: they first, then the size that says how much of them counts. */
#include "volume/replica_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failed(const struct volume_replica *r, struct err *e, int rc, const char *what)
{
	return err_set(e, rc, "grow replica '%s': %s: %s (%s)", r->label, what, strerror(-rc),
		       rc == -EFBIG ? "its file system has no files that large"
				    : "free some space on its file system; the old size holds until then");
}

static int open_data(const struct volume_replica *r, struct err *e)
{
	int fd = openat(r->folder, "data", O_RDWR | O_CLOEXEC);

	return fd < 0 ? failed(r, e, -errno, "data") : fd;
}

int volume_replica_write_back(const struct volume_replica *r, struct err *e)
{
	int fd = open_data(r, e), rc = 0;

	if (fd < 0)
		return fd;
	if (r->sys->fsync(fd) < 0)
		rc = failed(r, e, -EIO, "data");
	(void)close(fd);
	return rc;
}

/* What lies behind the old size was never written, by nobody: it reads as zeroes. */
static int grow_file(struct volume_replica *r, int fd, uint64_t bytes, const char *what, struct err *e)
{
	if (r->sys->ftruncate(fd, (off_t)bytes) < 0)
		return failed(r, e, -errno, what);
	return r->sys->fsync(fd) < 0 ? replica_poison(r, e, -errno, what) : 0;
}

/* Not by the descriptor of its I/O, whose errors are for those who flush. */
static int grow_data(struct volume_replica *r, uint64_t bytes, struct err *e)
{
	int fd = open_data(r, e), rc;

	if (fd < 0)
		return fd;
	rc = grow_file(r, fd, bytes, "data", e);
	(void)close(fd);
	return rc;
}

static int more_pairs(struct volume_replica *r, uint32_t pages, uint64_t size)
{
	struct pair *pairs = realloc(r->pairs, (1 + pages) * sizeof *pairs);
	uint8_t *intents;

	if (!pairs)
		return -ENOMEM;
	r->pairs = pairs;
	intents = realloc(r->intents, volume_bits_bytes(size));
	if (!intents)
		return -ENOMEM;
	r->intents = intents;
	memset(&pairs[1 + r->pages], 0, (pages - r->pages) * sizeof *pairs);
	memset(intents + (size_t)r->pages * VOLUME_INTENTS_BYTES, 0, (size_t)(pages - r->pages) * VOLUME_INTENTS_BYTES);
	return 0;
}

/* Both copies of each new page of intents, without a bit. */
static int grow_meta(struct volume_replica *r, uint64_t size, struct err *e)
{
	uint32_t pages = volume_intent_pages(size);
	uint8_t page[VOLUME_PAGE_BYTES];
	int rc;

	if (pages == r->pages)
		return 0;
	rc = more_pairs(r, pages, size);
	for (uint32_t pair = 1 + r->pages; rc == 0 && pair < 1 + pages; pair++) {
		r->pairs[pair].seq = 1;
		replica_pair_encode(r, pair, 1, page);
		rc = sys_write_all(r->sys, r->meta, page, sizeof page, VOLUME_META_OFFSET(pair));
		if (rc == 0)
			rc = sys_write_all(r->sys, r->meta, page, sizeof page,
					   VOLUME_META_OFFSET(pair) + VOLUME_PAGE_BYTES);
	}
	if (rc < 0)
		return failed(r, e, rc, "meta");
	return r->sys->fsync(r->meta) < 0 ? replica_poison(r, e, -errno, "sync meta") : 0;
}

int volume_replica_grow(struct volume_replica *r, uint64_t size, struct err *e)
{
	struct volume_state s = r->state;
	int rc = replica_check_usable(r, e);

	CHECK(volume_size_is_valid(size) && size >= r->super.size);
	if (rc < 0 || size == r->super.size)
		return rc;
	s.growing = size > s.growing ? size : s.growing; /* from here on open() bears files of other sizes */
	rc = replica_put_state(r, &s, e);
	if (rc == 0)
		rc = grow_data(r, size, e);
	if (rc == 0)
		rc = grow_file(r, r->epochs, (uint64_t)volume_extents(size) * VOLUME_PAGE_BYTES, "epochs", e);
	if (rc == 0)
		rc = grow_meta(r, size, e);
	if (rc < 0)
		return rc;
	s.size = size;
	s.growing = 0;
	rc = replica_put_state(r, &s, e);
	if (rc < 0)
		return rc;
	r->super.size = size;
	r->extents = volume_extents(size);
	r->pages = volume_intent_pages(size);
	return 0;
}
