/* SPDX-License-Identifier: Apache-2.0
 * One request on the data of a replica, by system calls that wait. */
#include "volume/disk_do.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#define PIECE (64u << 10) /* of a buffered write */

/* What one call writes, the page cache may keep as one folio, and each later write into it, and its write-back, looks
 * at all of its blocks: small writes into folios of 2 MiB took three times as long. */
static ssize_t write_piece(int fd, const char *p, size_t n, off_t at, bool direct)
{
	size_t room = PIECE - (size_t)at % PIECE;

	return pwrite(fd, p, direct || n < room ? n : room, at);
}

static ssize_t write_copy(int fd, const char *p, size_t n, off_t at, bool direct, struct disk_copies *copies)
{
	ssize_t done = disk_copy_write(copies, fd, p, n, at);

	if (done >= 0 || errno != EOPNOTSUPP)
		return done;
	done = write_piece(fd, p, n, at, direct);
	if (done > 0 && !direct)
		(void)sync_file_range(fd, at, done, SYNC_FILE_RANGE_WRITE);
	return done;
}

static int do_all(int fd, struct volume_io *io, bool direct, struct disk_copies *copies)
{
	for (uint64_t done = 0; done < io->length;) {
		char *p = (char *)io->data + done;
		size_t left = io->length - done;
		off_t at = (off_t)(io->offset + done);
		ssize_t n;

		if (io->kind == VOLUME_IO_READ)
			n = pread(fd, p, left, at);
		else if (io->is_copy)
			n = write_copy(fd, p, left, at, direct, copies);
		else
			n = write_piece(fd, p, left, at, direct);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (uint64_t)n;
	}
	return 0;
}

int disk_falloc_mode(const struct volume_io *io)
{
	return io->kind == VOLUME_IO_ZERO ? FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
					  : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
}

static int write_zeroes(int fd, const struct volume_io *io)
{
	static const char zeroes[64 << 10] __attribute__((aligned(VOLUME_SECTOR_BYTES))); /* for O_DIRECT */

	for (uint64_t at = 0; at < io->length;) {
		size_t n = io->length - at < sizeof zeroes ? (size_t)(io->length - at) : sizeof zeroes;
		ssize_t done = pwrite(fd, zeroes, n, (off_t)(io->offset + at));

		if (done <= 0 && errno != EINTR)
			return -errno;
		at += done > 0 ? (uint64_t)done : 0;
	}
	return 0;
}

/* Nothing was ever written there: it need not be read. */
static bool is_hole(int fd, const struct volume_io *io)
{
	off_t data = lseek(fd, (off_t)io->offset, SEEK_DATA);

	return data < 0 ? errno == ENXIO : (uint64_t)data >= io->offset + io->length;
}

static int do_hash(int fd, struct volume_io *io)
{
	char block[64 << 10] __attribute__((aligned(VOLUME_SECTOR_BYTES)));
	gnutls_hash_hd_t h;
	uint64_t at = 0;
	int rc = gnutls_hash_init(&h, GNUTLS_DIG_SHA256) < 0 ? -ENOMEM : 0;
	bool hole = is_hole(fd, io);

	if (hole)
		memset(block, 0, sizeof block);
	while (rc == 0 && at < io->length) {
		size_t n = io->length - at < sizeof block ? (size_t)(io->length - at) : sizeof block;
		ssize_t got = hole ? (ssize_t)n : pread(fd, block, n, (off_t)(io->offset + at));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			rc = got < 0 ? -errno : -EIO;
		else
			(void)gnutls_hash(h, block, (size_t)got);
		at += got > 0 ? (uint64_t)got : 0;
	}
	if (rc != -ENOMEM)
		gnutls_hash_deinit(h, io->hash);
	return rc;
}

int disk_do(int fd, struct volume_io *io, bool direct, struct disk_copies *copies)
{
	switch (io->kind) {
	case VOLUME_IO_READ:
	case VOLUME_IO_WRITE:
		return do_all(fd, io, direct, copies);
	case VOLUME_IO_SYNC:
		return fdatasync(fd) < 0 ? -errno : 0;
	case VOLUME_IO_HASH:
		return do_hash(fd, io);
	default:
		if (fallocate(fd, disk_falloc_mode(io), (off_t)io->offset, (off_t)io->length) == 0)
			return 0;
		return errno == EOPNOTSUPP ? write_zeroes(fd, io) : -errno;
	}
}
