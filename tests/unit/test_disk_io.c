/* SPDX-License-Identifier: Apache-2.0
 * I/O on a file while the kernel cannot send it on its way to the disk. */
#include "volume/disk_io.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

static struct disk_io *disk;
static int file, calls, calls_before_first_end, syncs, first_rc, second_rc;
static char data[VOLUME_SECTOR_BYTES];
static struct volume_io flush = {.kind = VOLUME_IO_SYNC};

/* In the place of the C library's. */
int sync_file_range(int fd KEDGE_UNUSED, off_t at KEDGE_UNUSED, off_t n KEDGE_UNUSED, unsigned flags KEDGE_UNUSED)
{
	calls++;
	errno = EIO;
	return -1;
}

static void synced(void *ctx KEDGE_UNUSED, struct volume_io *io, int rc)
{
	if (syncs++ == 0) {
		first_rc = rc;
		calls_before_first_end = calls;
		disk_io_begin(disk, file, io, synced, NULL);
	} else {
		second_rc = rc;
	}
}

/* As a flush that is expected: it begins in the turn of the write. */
static void written(void *ctx KEDGE_UNUSED, struct volume_io *io KEDGE_UNUSED, int rc)
{
	assert_int_equal(rc, 0);
	disk_io_begin(disk, file, &flush, synced, NULL);
}

static void closed(void *ctx KEDGE_UNUSED)
{
}

static void one_sync_tells_what_failed_on_its_way(void **state KEDGE_UNUSED)
{
	char path[] = "disk_io.XXXXXX";
	struct volume_io w = {.kind = VOLUME_IO_WRITE, .hurries = true, .data = data, .length = sizeof data};
	uv_loop_t loop;

	file = mkstemp(path);
	assert_true(file >= 0);
	(void)unlink(path);
	assert_int_equal(uv_loop_init(&loop), 0);
	disk = disk_io_new(&loop, DISK_IO_BUFFERED);
	disk_io_begin(disk, file, &w, written, NULL);
	while (syncs < 2)
		(void)uv_run(&loop, UV_RUN_NOWAIT);
	if (calls) { /* else there is no io_uring here */
		assert_int_equal(first_rc, calls_before_first_end ? -EIO : 0);
		assert_int_equal(second_rc, calls_before_first_end ? 0 : -EIO);
	}
	disk_io_close(disk, closed, NULL);
	(void)uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	(void)close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(one_sync_tells_what_failed_on_its_way)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
