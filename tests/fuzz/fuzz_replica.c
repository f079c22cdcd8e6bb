/* SPDX-License-Identifier: Apache-2.0
 * A replica's metadata: patches over whole files, with checksums that are right again, so that what is checked behind
 * them is reached. Inspecting and opening say what is wrong, and nothing worse. */
#include "tests/fuzz/fuzz.h"
#include "volume/inspect.h"
#include "volume/replica.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE     (2ULL * VOLUME_EXTENT_BYTES)
#define AT_CRC   8 /* docs/DISK.md */
#define PATCHES  16
#define MAP_PAGE 2 /* extents */

enum { META, EPOCHS, FILES };

static char folder[] = "/dev/shm/kf-replica-XXXXXX", dir[PATH_BYTES_MAX];
static const char *const names[] = {"meta", "epochs"};
static struct buf whole[FILES]; /* as they were made, with a map in `epochs` */
static FILE *nowhere;

static void remove_all(void)
{
	static const char *const files[] = {"data", "meta", "epochs"};
	char path[PATH_BYTES_MAX + 16];

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		(void)snprintf(path, sizeof path, "%s/%s", dir, files[i]);
		(void)unlink(path);
	}
	(void)rmdir(dir);
	(void)rmdir(folder);
}

static void read_whole(int i)
{
	char path[PATH_BYTES_MAX + 16];
	struct stat st;
	int fd;

	(void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && fstat(fd, &st) == 0);
	CHECK(read(fd, buf_reserve(&whole[i], (size_t)st.st_size), (size_t)st.st_size) == st.st_size);
	whole[i].len = (size_t)st.st_size;
	(void)close(fd);
}

void fuzz_begin(void)
{
	static const struct volume_replica_options options = {0};
	static const uint8_t volume[VOLUME_ID_BYTES] = {1, 2, 3};
	static struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS] = {{3, 4}};
	const struct volume_map_write map = {.extent = 1, .stamps = stamps};
	uint8_t bits[VOLUME_INTENTS_BYTES] = {3};
	struct volume_replica *r;
	struct err e = {0};

	CHECK(mkdtemp(folder) != NULL);
	(void)snprintf(dir, sizeof dir, "%s/replica", folder);
	(void)atexit(remove_all);
	nowhere = fopen("/dev/null", "we");
	CHECK(nowhere != NULL);
	CHECK(volume_replica_create(dir, volume, SIZE, NULL, &e) == 0);
	CHECK(volume_replica_open(dir, &options, &r, &e) == 0);
	CHECK(volume_replica_write_intents(r, bits, &e) == 0 && volume_replica_write_maps(r, &map, 1, true, &e) == 0);
	(void)volume_replica_close(r);
	for (int i = 0; i < FILES; i++)
		read_whole(i);
}

/* Input: patches of [file and page, offset / 8 (2 bytes), length, bytes]; the high bit leaves the checksum as it is. */
bool fuzz_seed(unsigned i, struct buf *ret)
{
	static const struct {
		uint8_t head[4], bytes[8];
	} patches[] = {
		{{0, 10, 0, 8}, {0, 0, 0, 0, 1}},         /* the superblock's size */
		{{1, 8, 0, 8}, {0xff, 0xff, 0xff, 0xff}}, /* promised, copy 0 */
		{{2, 2, 0, 8}, {9}},                      /* the number of copy 1 */
		{{3, 8, 0, 8}, {0xff}},                   /* intents of extents that are not there */
		{{0x43, 8, 0, 8}, {1}},                   /* stamps */
		{{0x81, 8, 0, 8}, {1}},                   /* a torn state */
	};

	if (i < ARRAY_LEN(patches))
		buf_append(ret, &patches[i], sizeof patches[i]);
	return i < ARRAY_LEN(patches);
}

static void mend(uint8_t *page)
{
	uint32_t crc;

	memset(page + AT_CRC, 0, 4);
	crc = htole32(crc32c(0, page, VOLUME_PAGE_BYTES));
	memcpy(page + AT_CRC, &crc, 4);
}

static void apply_patches(struct buf *files, const uint8_t *p, size_t n)
{
	for (unsigned i = 0; i < PATCHES && n >= 4; i++) {
		struct buf *file = &files[p[0] >> 6 & 1];
		size_t page = (p[0] & 0x3f) % (file->len / VOLUME_PAGE_BYTES), at = (p[1] | (size_t)p[2] << 8) * 8;
		size_t length = p[3] < n - 4 ? p[3] : n - 4;
		uint8_t *bytes = file->data + page * VOLUME_PAGE_BYTES;

		at %= VOLUME_PAGE_BYTES;
		if (length > VOLUME_PAGE_BYTES - at)
			length = VOLUME_PAGE_BYTES - at;
		memcpy(bytes + at, p + 4, length);
		if (!(p[0] & 0x80))
			mend(bytes);
		p += 4 + length;
		n -= 4 + length;
	}
}

static void write_files(const uint8_t *p, size_t n)
{
	struct buf files[FILES] = {{0}};
	char path[PATH_BYTES_MAX + 16];

	for (int i = 0; i < FILES; i++)
		buf_append(&files[i], whole[i].data, whole[i].len);
	apply_patches(files, p, n);
	for (int i = 0; i < FILES; i++) {
		int fd;

		(void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
		fd = open(path, O_WRONLY | O_CLOEXEC); /* the same inode: else it counts as a copy */
		CHECK(fd >= 0 && pwrite(fd, files[i].data, files[i].len, 0) == (ssize_t)files[i].len);
		(void)close(fd);
		buf_free(&files[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const struct volume_replica_options options = {0};
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
	struct volume_replica *r = NULL;
	struct err e = {0};
	int rc;

	write_files(p, n);
	rc = volume_inspect(dir, nowhere, n % 2 == 0, &e);
	CHECK(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
	rc = volume_replica_open(dir, &options, &r, &e);
	CHECK(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
	CHECK(rc == 0 || (e.text[0] && !strchr(e.text, '\n')));
	for (uint32_t i = 0; rc == 0 && i < volume_extents(volume_replica_super(r)->size) && i < MAP_PAGE; i++) {
		int map = volume_replica_read_map(r, i, stamps, &e);

		CHECK(map == 0 || map == -EBADMSG);
	}
	(void)volume_replica_close(r);
	return 0;
}
