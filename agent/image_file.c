/* SPDX-License-Identifier: Apache-2.0
 * Files of images in DIR/images. */
#include "agent/image_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define HOLE_BYTES  4096
#define READ_BYTES  (256u << 10)
#define PART        ".part"
#define SPARE_BYTES (256u << 20) /* that stay free: the cluster's log is on that disk too */

struct image_writer {
	char folder[PATH_BYTES_MAX], part[IMAGE_PATH_MAX];
	char digest[DIGEST_BYTES_MAX]; /* once it is finished */
	int fd;
	uint64_t bytes;
	struct net_digest *sum;
	bool kept;
};

bool image_is_digest(const char *text)
{
	return strlen(text) == DIGEST_BYTES_MAX - 1 && strspn(text, "0123456789abcdef") == DIGEST_BYTES_MAX - 1;
}

void image_path(const char *folder, const char *digest, char ret[IMAGE_PATH_MAX])
{
	CHECK(image_is_digest(digest));
	(void)snprintf(ret, IMAGE_PATH_MAX, "%.1000s/%s", folder, digest);
}

/* ---- writing ---- */

int image_writer_open(const char *folder, struct image_writer **ret, struct err *e)
{
	struct image_writer *w = xcalloc(1, sizeof *w);

	(void)snprintf(w->folder, sizeof w->folder, "%.1000s", folder);
	(void)snprintf(w->part, sizeof w->part, "%.1000s/%016llx" PART, folder, (unsigned long long)random_u64());
	w->fd = open(w->part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (w->fd < 0) {
		int rc = err_set(e, -errno, "write %s: %s", w->part, strerror(errno));

		free(w);
		return rc;
	}
	w->sum = net_digest_new();
	*ret = w;
	return 0;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int write_at(struct image_writer *w, const uint8_t *p, size_t n, struct err *e)
{
	uint64_t at = w->bytes;

	while (n > 0) {
		ssize_t done = pwrite(w->fd, p, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return err_set(e, done < 0 ? -errno : -EIO, "write %s: %s", w->part,
				       strerror(done < 0 ? errno : EIO));
		p += done;
		n -= (size_t)done;
		at += (uint64_t)done;
	}
	return 0;
}

int image_writer_add(struct image_writer *w, const void *p, size_t n, struct err *e)
{
	const uint8_t *at = p;
	struct statvfs st;
	int rc = 0;

	if (fstatvfs(w->fd, &st) == 0 && (uint64_t)st.f_bavail * st.f_frsize < SPARE_BYTES + n)
		return err_set(e, -ENOSPC, "write %s: less than %u MiB would be left on the disk", w->part,
			       SPARE_BYTES >> 20);
	net_digest_add(w->sum, p, n);
	while (n > 0 && rc == 0) {
		size_t part = n < HOLE_BYTES ? n : HOLE_BYTES;

		if (!is_zero(at, part))
			rc = write_at(w, at, part, e);
		w->bytes += part;
		at += part;
		n -= part;
	}
	return rc;
}

uint64_t image_writer_bytes(const struct image_writer *w)
{
	return w->bytes;
}

const char *image_writer_path(const struct image_writer *w)
{
	return w->part;
}

int image_writer_finish(struct image_writer *w, const char *digest, struct err *e)
{
	if (ftruncate(w->fd, (off_t)w->bytes) < 0 || fsync(w->fd) < 0)
		return err_set(e, -errno, "write %s: %s", w->part, strerror(errno));
	net_digest_end(w->sum, w->digest);
	if (strcmp(w->digest, digest) != 0)
		return err_set(e, -EBADMSG, "what arrived has another digest than what was sent");
	return 0;
}

int image_writer_keep(struct image_writer *w, struct err *e)
{
	char path[IMAGE_PATH_MAX];
	int fd, rc = 0;

	image_path(w->folder, w->digest, path);
	if (rename(w->part, path) < 0)
		return err_set(e, -errno, "rename to %s: %s", path, strerror(errno));
	w->kept = true;
	fd = open(w->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		rc = err_set(e, -errno, "sync %s: %s", w->folder, strerror(errno));
	if (fd >= 0)
		(void)close(fd);
	return rc;
}

struct image_writer *image_writer_free(struct image_writer *w)
{
	if (!w)
		return NULL;
	(void)close(w->fd);
	if (!w->kept)
		(void)unlink(w->part);
	(void)net_digest_free(w->sum);
	free(w);
	return NULL;
}

/* ---- reading ---- */

int image_verify(const char *folder, const char *digest, const _Atomic bool *cancel)
{
	char path[IMAGE_PATH_MAX], found[DIGEST_BYTES_MAX];
	struct net_digest *sum;
	uint8_t *room;
	ssize_t n = 0;
	int fd, rc = 0;

	image_path(folder, digest, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	sum = net_digest_new();
	room = xcalloc(1, READ_BYTES);
	while (rc == 0 && (n = read(fd, room, READ_BYTES)) != 0) {
		if (n > 0)
			net_digest_add(sum, room, (size_t)n);
		else if (errno != EINTR)
			rc = -errno;
		if (cancel && atomic_load(cancel))
			rc = -ECANCELED;
	}
	net_digest_end(sum, found);
	if (rc == 0 && strcmp(found, digest) != 0)
		rc = -EBADMSG;
	free(room);
	(void)net_digest_free(sum);
	(void)close(fd);
	return rc;
}

int image_read(const char *folder, const char *digest, uint64_t offset, size_t max, struct buf *ret,
	       uint64_t *ret_total)
{
	char path[IMAGE_PATH_MAX];
	struct stat st;
	ssize_t n;
	int fd, rc = 0;

	image_path(folder, digest, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = pread(fd, buf_reserve(ret, max), max, (off_t)offset);
	if (n < 0 || fstat(fd, &st) < 0)
		rc = -errno;
	(void)close(fd);
	if (rc < 0)
		return rc;
	ret->len += (size_t)n;
	*ret_total = (uint64_t)st.st_size;
	return 0;
}

/* ---- the folder ---- */

bool image_drop(const char *folder, const char *digest, char ret_part[IMAGE_PATH_MAX])
{
	char path[IMAGE_PATH_MAX];

	image_path(folder, digest, path);
	(void)snprintf(ret_part, IMAGE_PATH_MAX, "%.1000s/%016llx" PART, folder, (unsigned long long)random_u64());
	return rename(path, ret_part) == 0;
}

void image_scan(const char *folder, void (*found)(void *ctx, const char *digest), void *ctx)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		size_t n = strlen(entry->d_name);

		if (n > strlen(PART) && strcmp(entry->d_name + n - strlen(PART), PART) == 0)
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
		else if (image_is_digest(entry->d_name))
			found(ctx, entry->d_name);
	}
	if (dir)
		(void)closedir(dir);
}
