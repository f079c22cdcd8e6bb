/* SPDX-License-Identifier: Apache-2.0
 * Files of images: nothing gets its name unless it is whole and right, and nothing is taken for an image that is none.
 */
#include "agent/image_file.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* FIPS 180-2, "abc". */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static char folder[] = "/tmp/kt-image-XXXXXX";

static int set_up(void **state)
{
	(void)state;
	memcpy(folder, "/tmp/kt-image-XXXXXX", sizeof folder);
	return mkdtemp(folder) ? 0 : -1;
}

static size_t entries(bool clean)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	size_t n = 0;

	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		n++;
		if (clean)
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
	}
	(void)closedir(dir);
	return n;
}

static int tear_down(void **state)
{
	(void)state;
	(void)entries(true);
	return rmdir(folder);
}

static struct image_writer *writer(const void *p, size_t n)
{
	struct image_writer *w;

	assert_int_equal(image_writer_open(folder, &w, NULL), 0);
	assert_int_equal(image_writer_add(w, p, n, NULL), 0);
	return w;
}

static void kept_when_it_is_right(void **state)
{
	struct image_writer *w = writer("a", 1);
	struct buf back = {0};
	uint64_t total = 0;

	(void)state;
	assert_int_equal(image_writer_add(w, "bc", 2, NULL), 0);
	assert_int_equal(image_writer_bytes(w), 3);
	assert_int_equal(image_writer_finish(w, ABC, NULL), 0);
	assert_int_equal(image_verify(folder, ABC, NULL), -ENOENT);
	assert_int_equal(image_writer_keep(w, NULL), 0);
	w = image_writer_free(w);
	assert_int_equal(entries(false), 1);
	assert_int_equal(image_verify(folder, ABC, NULL), 0);
	assert_int_equal(image_read(folder, ABC, 1, 10, &back, &total), 0);
	assert_int_equal(total, 3);
	assert_int_equal(back.len, 2);
	assert_memory_equal(back.data, "bc", 2);
	buf_free(&back);
}

static void nothing_is_left_otherwise(void **state)
{
	struct image_writer *w = writer("abd", 3);

	(void)state;
	assert_int_equal(image_writer_finish(w, ABC, NULL), -EBADMSG);
	w = image_writer_free(w);
	w = writer("ab", 2); /* cut off */
	w = image_writer_free(w);
	assert_int_equal(entries(false), 0);
}

static void holes_count(void **state)
{
	static uint8_t zeros[1 << 20];
	char digest[DIGEST_BYTES_MAX], path[IMAGE_PATH_MAX];
	struct net_digest *sum = net_digest_new();
	struct image_writer *w = writer(zeros, sizeof zeros);
	struct stat st;

	(void)state;
	net_digest_add(sum, zeros, sizeof zeros);
	net_digest_end(sum, digest);
	sum = net_digest_free(sum);
	assert_int_equal(image_writer_finish(w, digest, NULL), 0);
	assert_int_equal(image_writer_keep(w, NULL), 0);
	w = image_writer_free(w);
	assert_int_equal(image_verify(folder, digest, NULL), 0);
	image_path(folder, digest, path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, sizeof zeros);
	assert_true(st.st_blocks < 16);
}

static void put(const char *name, size_t at, const void *p, size_t n, char ret[IMAGE_PATH_MAX])
{
	FILE *f;

	(void)snprintf(ret, IMAGE_PATH_MAX, "%s/%s", folder, name);
	f = fopen(ret, access(ret, F_OK) == 0 ? "r+" : "w");
	assert_non_null(f);
	assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
	assert_int_equal(fwrite(p, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void damage_is_seen(void **state)
{
	char path[IMAGE_PATH_MAX];

	(void)state;
	put(ABC, 0, "abc", 3, path);
	assert_int_equal(image_verify(folder, ABC, NULL), 0);
	put(ABC, 1, "x", 1, path);
	assert_int_equal(image_verify(folder, ABC, NULL), -EBADMSG);
	put(ABC, 0, "abcd", 4, path);
	assert_int_equal(image_verify(folder, ABC, NULL), -EBADMSG);
	assert_true(image_drop(folder, ABC, path));
	assert_int_equal(image_verify(folder, ABC, NULL), -ENOENT);
}

static void count_cb(void *ctx, const char *digest)
{
	assert_string_equal(digest, ABC);
	++*(int *)ctx;
}

static void a_start_removes_what_was_cut_off(void **state)
{
	char path[IMAGE_PATH_MAX];
	int found = 0;

	(void)state;
	put(ABC, 0, "abc", 3, path);
	put("0123.part", 0, "abc", 3, path);
	image_scan(folder, count_cb, &found);
	assert_int_equal(found, 1);
	assert_int_equal(entries(false), 1);
}

/* ---- what is in it ---- */

static int qemu_img(const char *const *argv)
{
	const struct child child = {.argv = argv, .patience = 20 * USEC_PER_SEC};
	struct buf text = {0};
	int rc = child_run(&child, &text);

	buf_free(&text);
	return rc;
}

static void make_qcow2(char ret[IMAGE_PATH_MAX])
{
	static uint8_t noise[512 << 10];
	char raw[IMAGE_PATH_MAX];

	random_bytes(noise, sizeof noise);
	put("raw", 0, noise, sizeof noise, raw);
	(void)snprintf(ret, IMAGE_PATH_MAX, "%s/qcow2", folder);
	assert_int_equal(qemu_img((const char *const[]){"qemu-img", "convert", "-O", "qcow2", raw, ret, NULL}), 0);
}

static void formats_are_told_apart(void **state)
{
	char path[IMAGE_PATH_MAX];
	struct image_info info;
	struct err e = {0};

	(void)state;
	make_qcow2(path);
	assert_int_equal(image_inspect(path, NULL, &info, NULL), 0);
	assert_string_equal(info.format, "qcow2");
	assert_int_equal(info.size, 512 << 10);
	(void)snprintf(path, sizeof path, "%s/raw", folder);
	assert_int_equal(image_inspect(path, NULL, &info, NULL), 0);
	assert_string_equal(info.format, "raw");
	assert_int_equal(info.size, 512 << 10);
	put("empty", 0, "", 0, path);
	assert_int_equal(image_inspect(path, NULL, &info, &e), -EINVAL);
	put("gz", 0, "\x1f\x8b\x08\0\0\0", 6, path);
	assert_int_equal(image_inspect(path, NULL, &info, &e), -EINVAL);
	assert_non_null(strstr(e.text, "unpack"));
}

static void truncated_is_refused(void **state)
{
	char path[IMAGE_PATH_MAX];
	struct image_info info;
	struct err e = {0};
	struct stat st;

	(void)state;
	make_qcow2(path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(truncate(path, st.st_size - 65536), 0); /* one cluster: qemu-img lets that pass */
	assert_int_equal(image_inspect(path, NULL, &info, &e), -EINVAL);
	for (off_t n = st.st_size - 65536; n >= 0; n -= 65536 * 3) {
		assert_int_equal(truncate(path, n > 0 ? n : 50), 0);
		assert_int_equal(image_inspect(path, NULL, &info, &e), -EINVAL);
	}
	assert_non_null(strstr(e.text, "not whole"));
}

static void backing_files_are_refused(void **state)
{
	char path[IMAGE_PATH_MAX], over[IMAGE_PATH_MAX];
	struct image_info info;
	struct err e = {0};

	(void)state;
	make_qcow2(path);
	(void)snprintf(over, sizeof over, "%s/over", folder);
	assert_int_equal(qemu_img((const char *const[]){"qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", path,
							over, NULL}),
			 0);
	assert_int_equal(image_inspect(over, NULL, &info, &e), -EINVAL);
	assert_non_null(strstr(e.text, "backing file"));
}

/* A stop of the agent does not wait for a check, however long that takes. */
static void a_check_ends_with_the_agent(void **state KEDGE_UNUSED)
{
	static const char slow[] = "#!/bin/sh\nexec sleep 30\n";
	uint8_t head[104] = "QFI\xfb";
	char path[IMAGE_PATH_MAX], tool[IMAGE_PATH_MAX], paths[IMAGE_PATH_MAX];
	const _Atomic bool stopping = true;
	struct image_info info;
	char *before = strdup(getenv("PATH"));

	head[7] = 3;   /* version */
	head[23] = 16; /* cluster bits */
	head[29] = 1;  /* size: 64 KiB */
	put("long", 0, (const char *)head, sizeof head, path);
	put("qemu-img", 0, slow, sizeof slow - 1, tool);
	assert_int_equal(chmod(tool, 0700), 0);
	(void)snprintf(paths, sizeof paths, "%s:%s", folder, before);
	assert_int_equal(setenv("PATH", paths, 1), 0);
	assert_int_equal(image_inspect(path, &stopping, &info, NULL), -ECANCELED);
	assert_int_equal(setenv("PATH", before, 1), 0);
	free(before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(kept_when_it_is_right, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_is_left_otherwise, set_up, tear_down),
		cmocka_unit_test_setup_teardown(holes_count, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_check_ends_with_the_agent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(damage_is_seen, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_start_removes_what_was_cut_off, set_up, tear_down),
		cmocka_unit_test_setup_teardown(formats_are_told_apart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(truncated_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(backing_files_are_refused, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
