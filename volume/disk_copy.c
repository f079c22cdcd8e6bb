/* SPDX-License-Identifier: Apache-2.0
 * A resync would throw everything else out of the page cache, stop when the kernel holds it back, and end with a long
 * flush. RWF_DONTCACHE sends what is written on its way; the kernel then lets its pages go by itself only where the
 * blocks were new to the file, so they are also dropped here, once they should be on the disk. The next copies find the
 * memory of the last ones, and none that must be searched for. */
#include "volume/disk_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/uio.h>

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80
#endif

#define BYTES_KEPT (8u << 20)

/* Pages that are not on the disk yet stay. A descriptor may be another file's by now, which loses nothing by it. */
static void drop_first(struct disk_copies *d)
{
	const struct disk_copy *c = &d->last[d->first];

	(void)posix_fadvise(c->fd, c->at, (off_t)c->n, POSIX_FADV_DONTNEED);
	d->bytes -= c->n;
	d->first = (d->first + 1) % DISK_COPIES_KEPT;
	d->used--;
}

ssize_t disk_copy_write(struct disk_copies *d, int fd, const void *p, size_t n, off_t at)
{
	static _Atomic bool refused;
	const struct iovec v = {(void *)p, n};
	ssize_t done;

	errno = EOPNOTSUPP;
	done = refused ? -1 : pwritev2(fd, &v, 1, at, RWF_DONTCACHE);
	if (done < 0 && errno == EOPNOTSUPP)
		refused = true;
	if (done <= 0 || !d)
		return done;
	if (d->used == DISK_COPIES_KEPT)
		drop_first(d);
	d->last[(d->first + d->used++) % DISK_COPIES_KEPT] = (struct disk_copy){fd, at, (size_t)done};
	for (d->bytes += (uint64_t)done; d->bytes > BYTES_KEPT && d->used > 1;)
		drop_first(d);
	return done;
}
