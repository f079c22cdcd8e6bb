/* SPDX-License-Identifier: Apache-2.0
 * Writing copies: on their way to the disk at once, and soon out of the page cache. One thread's. */
#ifndef KEDGE_VOLUME_DISK_COPY_H
#define KEDGE_VOLUME_DISK_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DISK_COPIES_KEPT 128

/* The last ones, which may still be on their way. */
struct disk_copies {
	struct disk_copy {
		int fd;
		off_t at;
		size_t n;
	} last[DISK_COPIES_KEPT];
	unsigned first, used;
	uint64_t bytes; /* of them */
};

/* As pwrite(); EOPNOTSUPP in errno: the kernel or the file system cannot. @d NULL: nothing is dropped. */
ssize_t disk_copy_write(struct disk_copies *d, int fd, const void *p, size_t n, off_t at);

#endif
