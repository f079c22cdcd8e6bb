/* SPDX-License-Identifier: Apache-2.0
 * Small files that must be there whole after a crash: written aside, synced, renamed. */
#ifndef KEDGE_BASE_FILE_H
#define KEDGE_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

/* [worker] Replace @path by @n bytes of @p with permissions @mode: write aside, fsync, rename, fsync the folder.
 * After any crash the old or the new content is there. Blocks on the disk. Returns 0 or a negative errno. */
int file_replace(const char *path, const void *p, size_t n, unsigned mode, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Append the content of @path to @ret. -EFBIG above @bytes_max, -ENOENT when it is not there. */
int file_read(const char *path, size_t bytes_max, struct buf *ret, struct err *e) KEDGE_MUST_CHECK;

/* [worker] mkdir -p with mode @mode for the last folder. 0 or a negative errno. */
int file_make_folder(const char *path, unsigned mode, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Take an exclusive flock on @path (created). Returns the descriptor to keep open, -EWOULDBLOCK when another
 * process holds it, or another negative errno. */
int file_lock(const char *path, struct err *e) KEDGE_MUST_CHECK;

#endif
