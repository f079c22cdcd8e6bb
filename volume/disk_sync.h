/* SPDX-License-Identifier: Apache-2.0
 * fdatasync() that does not wait, by the kernel's AIO. One loop's: all of it is [loop]. */
#ifndef KEDGE_VOLUME_DISK_SYNC_H
#define KEDGE_VOLUME_DISK_SYNC_H

#include "base/base.h"

struct disk_syncs {
	unsigned long context; /* 0: none */
	int event;
	unsigned under_way;
};

/* @event is an eventfd: one is added to it whenever a sync has ended. False: the kernel gives no more AIO
 * (fs.aio-max-nr), or none; then disk_sync_begin() takes nothing. */
bool disk_syncs_open(struct disk_syncs *s, int event);

/* None may be under way. */
void disk_syncs_close(struct disk_syncs *s);

/* Begin to sync @fd. False: not now, or not this file; another way must be found. */
bool disk_sync_begin(struct disk_syncs *s, int fd, void *tag);

/* The @tag of one that has ended, with 0 or a negative errno in @ret; NULL: none has. */
void *disk_sync_ended(struct disk_syncs *s, int *ret);

#endif
