/* SPDX-License-Identifier: Apache-2.0
 * Files of images in DIR/images, each named by the SHA-256 of what is in it. What is being written is called *.part;
 * it gets its name when all of it is there, right, and on the disk. */
#ifndef KEDGE_AGENT_IMAGE_FILE_H
#define KEDGE_AGENT_IMAGE_FILE_H

#include "net/net.h"

#include <stdatomic.h>

#define IMAGE_PATH_MAX (PATH_BYTES_MAX + 80)

struct image_writer;

/* What is in an image. */
struct image_info {
	char format[8]; /* raw | qcow2 */
	uint64_t size;  /* of the disk in it */
};

/* [any] */
bool image_is_digest(const char *text);
void image_path(const char *folder, const char *digest, char ret[IMAGE_PATH_MAX]);

/* [worker] A new, empty file. */
int image_writer_open(const char *folder, struct image_writer **ret, struct err *e) KEDGE_MUST_CHECK;
/* [worker] Append; what is zero becomes a hole. */
int image_writer_add(struct image_writer *w, const void *p, size_t n, struct err *e) KEDGE_MUST_CHECK;
/* [any] */
uint64_t image_writer_bytes(const struct image_writer *w);
const char *image_writer_path(const struct image_writer *w);
/* [worker] All is there: sync it, and compare. -EBADMSG: it is not what @digest names. */
int image_writer_finish(struct image_writer *w, const char *digest, struct err *e) KEDGE_MUST_CHECK;
/* [worker] After that: give it its name, which lasts. */
int image_writer_keep(struct image_writer *w, struct err *e) KEDGE_MUST_CHECK;
/* [worker] What was not kept is removed. NULL is allowed; returns NULL. */
struct image_writer *image_writer_free(struct image_writer *w);

/* [worker] What is in the file at @path, by its first bytes, and, for qcow2, by `qemu-img check`. -EINVAL: nothing that
 * a volume can be filled from, with the reason. -ECANCELED, at once, when @cancel becomes true; it may be NULL. */
int image_inspect(const char *path, const _Atomic bool *cancel, struct image_info *ret, struct err *e) KEDGE_MUST_CHECK;

/* [worker] Read all of it again. -EBADMSG: it is not what its name says; -ECANCELED; or another negative errno. */
int image_verify(const char *folder, const char *digest, const _Atomic bool *cancel) KEDGE_MUST_CHECK;

/* [worker] Append at most @max bytes at @offset to @ret. */
int image_read(const char *folder, const char *digest, uint64_t offset, size_t max, struct buf *ret,
	       uint64_t *ret_total) KEDGE_MUST_CHECK;

/* [any] Take the name from the file; what is left is removed by image_remove_part(). */
bool image_drop(const char *folder, const char *digest, char ret_part[IMAGE_PATH_MAX]);

/* [worker] Remove what was being written; call @found for every file that has its name. */
void image_scan(const char *folder, void (*found)(void *ctx, const char *digest), void *ctx);

#endif
