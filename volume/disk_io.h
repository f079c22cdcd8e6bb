/* SPDX-License-Identifier: Apache-2.0
 * I/O on the data of replicas, by io_uring and AIO, or by libuv's threads where the kernel has none for us. One per
 * loop.
 *
 * Everything is [loop]; done() is called from the loop, never from inside disk_io_begin(). */
#ifndef KEDGE_VOLUME_DISK_IO_H
#define KEDGE_VOLUME_DISK_IO_H

#include "volume/core.h"

struct uv_loop_s;
struct disk_io;

typedef void (*disk_io_done)(void *ctx, struct volume_io *io, int rc);

enum disk_io_mode {
	DISK_IO_BUFFERED, /* writes go to the page cache at once where it takes them */
	DISK_IO_DIRECT,   /* all descriptors are O_DIRECT */
	DISK_IO_THREADS,  /* do not even ask for io_uring */
};

struct disk_io *disk_io_new(struct uv_loop_s *loop, enum disk_io_mode mode);

/* Nothing may be under way. NULL is fine; @cb when its handles are closed and its memory is freed. */
void disk_io_close(struct disk_io *d, void (*cb)(void *ctx), void *ctx);

/* Do @io on @fd. WRITE and READ are whole or an error. @io and its data belong to it until done(ctx, io, rc), with 0 or
 * a negative errno. */
void disk_io_begin(struct disk_io *d, int fd, struct volume_io *io, disk_io_done done, void *ctx);

/* @fd is going to be closed, and nothing of it is under way: the next file that has its number is another. */
void disk_io_forget(struct disk_io *d, int fd);

#endif
