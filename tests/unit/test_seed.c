/* SPDX-License-Identifier: Apache-2.0
 * The disk for cloud-init, read by another program: blkid knows it by its label, and both files are in it. */
#include "agent/seed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void known_by_its_label(void **state)
{
	const char *argv[] = {"blkid", "-p", "-o", "export", NULL, NULL};
	char path[] = "/tmp/kt-seed-XXXXXX";
	struct buf user = {0}, meta = {0}, disk = {0}, text = {0};
	const struct child blkid = {.argv = argv, .patience = 10 * USEC_PER_SEC};
	int fd = mkstemp(path);

	(void)state;
	buf_printf(&user, "#cloud-config\n");
	buf_printf(&meta, "instance-id: x\n");
	seed_make(&user, &meta, &disk);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, disk.data, disk.len), (ssize_t)disk.len);
	argv[4] = path;
	assert_int_equal(child_run(&blkid, &text), 0);
	assert_non_null(strstr((char *)text.data, "LABEL=cidata\n"));
	assert_non_null(strstr((char *)text.data, "TYPE=iso9660\n"));
	(void)close(fd);
	(void)unlink(path);
	buf_free(&user);
	buf_free(&meta);
	buf_free(&disk);
	buf_free(&text);
}

static uint32_t le(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The file called @name, by the records of the folder that the descriptor names. */
static const uint8_t *find(const struct buf *disk, const char *name, size_t *ret_n)
{
	const uint8_t *root = disk->data + (size_t)le(disk->data + 16 * 2048 + 156 + 2) * 2048;

	for (const uint8_t *at = root; at < root + 2048 && at[0]; at += at[0])
		if (at[32] == strlen(name) && memcmp(at + 33, name, at[32]) == 0) {
			*ret_n = le(at + 10);
			assert_true((size_t)le(at + 2) * 2048 + *ret_n <= disk->len);
			return disk->data + (size_t)le(at + 2) * 2048;
		}
	return NULL;
}

static void holds_both_files(void **state)
{
	static const size_t sizes[] = {0, 1, 2047, 2048, 2049, SEED_BYTES_MAX};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct buf user = {0}, meta = {0}, disk = {0};
		const uint8_t *at;
		size_t n;

		memset(buf_reserve(&user, sizes[i] + 1), 'u', sizes[i]);
		user.len = sizes[i];
		memset(buf_reserve(&meta, sizes[i] + 1), 'm', sizes[i]);
		meta.len = sizes[i];
		seed_make(&user, &meta, &disk);
		assert_int_equal(disk.len % 2048, 0);
		at = find(&disk, "USER-DATA.;1", &n);
		assert_non_null(at);
		assert_int_equal(n, sizes[i]);
		assert_memory_equal(at, user.data, n);
		at = find(&disk, "META-DATA.;1", &n);
		assert_non_null(at);
		assert_int_equal(n, sizes[i]);
		assert_memory_equal(at, meta.data, n);
		buf_free(&user);
		buf_free(&meta);
		buf_free(&disk);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(known_by_its_label), cmocka_unit_test(holds_both_files)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
