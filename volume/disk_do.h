/* SPDX-License-Identifier: Apache-2.0
 * I/O on the data of a replica by whoever calls, who waits for it. Any thread. */
#ifndef KEDGE_VOLUME_DISK_DO_H
#define KEDGE_VOLUME_DISK_DO_H

#include "volume/core.h"
#include "volume/disk_copy.h"

/* Do @io on @fd, which is @direct or not. Of copies that it writes, @copies drops what is on the disk; NULL: nobody
 * does. All of it is done, or a negative errno. */
int disk_do(int fd, struct volume_io *io, bool direct, struct disk_copies *copies);

/* V10: ZERO and TRIM leave zeroes; only ZERO keeps the room. */
int disk_falloc_mode(const struct volume_io *io);

#endif
