/* SPDX-License-Identifier: Apache-2.0
 * Small files that must be there whole after a crash. */
#include "base/file.h"

#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const void *p, size_t n)
{
	const uint8_t *at = p;

	while (n > 0) {
		ssize_t put = write(fd, at, n);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		at += put;
		n -= (size_t)put;
	}
	return 0;
}

static int sync_folder_of(const char *path)
{
	char copy[PATH_BYTES_MAX];
	int fd, rc = 0;

	(void)snprintf(copy, sizeof copy, "%s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		rc = -errno;
	(void)close(fd);
	return rc;
}

static int write_aside(const char *path, const void *p, size_t n, unsigned mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, (mode_t)mode), rc;

	if (fd < 0)
		return -errno;
	rc = write_all(fd, p, n);
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	if (close(fd) < 0 && rc == 0)
		rc = -errno;
	return rc;
}

int file_replace(const char *path, const void *p, size_t n, unsigned mode, struct err *e)
{
	char aside[PATH_BYTES_MAX];
	int rc;

	if ((size_t)snprintf(aside, sizeof aside, "%s.new", path) >= sizeof aside)
		return err_set(e, -ENAMETOOLONG, "write '%s': path too long", path);
	rc = write_aside(aside, p, n, mode);
	if (rc == 0 && rename(aside, path) < 0)
		rc = -errno;
	if (rc == 0)
		rc = sync_folder_of(path);
	if (rc == 0)
		return 0;
	(void)unlink(aside);
	return err_set(e, rc, "write '%s': %s", path, strerror(-rc));
}

int file_read(const char *path, size_t bytes_max, struct buf *ret, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	size_t before = ret->len;
	ssize_t got;

	if (fd < 0) {
		rc = -errno;
		return err_set(e, rc, "read '%s': %s", path, strerror(-rc));
	}
	do {
		got = read(fd, buf_reserve(ret, 4096), 4096);
		if (got > 0)
			ret->len += (size_t)got;
		if (got < 0 && errno != EINTR)
			rc = -errno;
		if (ret->len - before > bytes_max)
			rc = -EFBIG;
	} while (rc == 0 && got != 0);
	(void)close(fd);
	if (rc == 0)
		return 0;
	ret->len = before;
	return err_set(e, rc, "read '%s': %s", path, strerror(-rc));
}

int file_make_folder(const char *path, unsigned mode, struct err *e)
{
	char copy[PATH_BYTES_MAX];

	if ((size_t)snprintf(copy, sizeof copy, "%s", path) >= sizeof copy)
		return err_set(e, -ENAMETOOLONG, "make folder '%s': path too long", path);
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return err_set(e, -errno, "make folder '%s': %s", copy, strerror(errno));
		*slash = '/';
	}
	if (mkdir(copy, (mode_t)mode) < 0 && errno != EEXIST)
		return err_set(e, -errno, "make folder '%s': %s", copy, strerror(errno));
	return 0;
}

int file_lock(const char *path, struct err *e)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_set(e, -errno, "lock '%s': %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int rc = -errno;

		(void)close(fd);
		return err_set(e, rc, "lock '%s': %s", path, strerror(-rc));
	}
	return fd;
}
