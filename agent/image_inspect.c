/* SPDX-License-Identifier: Apache-2.0
 * What is in an image. Its format is decided once, here: nobody guesses at it again, since a guest could write into a
 * raw disk what looks like another format, with a path of the host in it. */
#include "agent/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_BYTES      128
#define CHECK_PATIENCE  (300 * USEC_PER_SEC)
#define QCOW2_DATA_FILE 4 /* bit 2 of the incompatible features */
#define CHECK_LEAKS     3 /* exit codes of `qemu-img check`: there are clusters that nobody uses */

/* What a raw disk never begins with. */
static const struct magic {
	const char *bytes;
	size_t n, at;
	const char *what;
} magics[] = {
	{"KDMV", 4, 0, "a VMDK image: convert it with 'qemu-img convert -O qcow2'"},
	{"# Disk Descriptor", 17, 0, "a VMDK descriptor: convert it with 'qemu-img convert -O qcow2'"},
	{"vhdxfile", 8, 0, "a VHDX image: convert it with 'qemu-img convert -O qcow2'"},
	{"conectix", 8, 0, "a VHD image: convert it with 'qemu-img convert -O qcow2'"},
	{"QED", 4, 0, "a QED image: convert it with 'qemu-img convert -O qcow2'"},
	{"\x7f\x10\xda\xbe", 4, 64, "a VDI image: convert it with 'qemu-img convert -O qcow2'"},
	{"\x1f\x8b", 2, 0, "compressed by gzip: unpack it first"},
	{"\xfd"
	 "7zXZ",
	 6, 0, "compressed by xz: unpack it first"},
	{"\x28\xb5\x2f\xfd", 4, 0, "compressed by zstd: unpack it first"},
};

static uint64_t big_endian(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

/* The first line that says what is wrong; without it, "". */
static void find_reason(const char *text, char ret[120])
{
	const char *line = strstr(text, "ERROR");

	if (!line)
		line = strstr(text, "qemu-img: ");
	(void)snprintf(ret, 120, "%s%.*s", line ? ": " : "", line ? (int)strcspn(line, "\n") : 0, line ? line : "");
}

/* `check` lets one missing cluster pass: the last one must at least begin in the file. */
static bool ends_early(const char *text, uint64_t bytes, uint64_t cluster)
{
	static const char key[] = "\"image-end-offset\": ";
	const char *at = strstr(text, key);

	return !at || strtoull(at + strlen(key), NULL, 10) >= bytes + cluster;
}

static int check_qcow2(const char *path, uint64_t bytes, uint64_t cluster, const _Atomic bool *cancel, struct err *e)
{
	const char *const argv[] = {"qemu-img", "check", "--output=json", "-f", "qcow2", path, NULL};
	const struct child child = {.argv = argv, .patience = CHECK_PATIENCE, .cancel = cancel};
	struct buf text = {0};
	char reason[120];
	int rc = child_run(&child, &text);

	find_reason((char *)text.data, reason);
	if (rc == 127)
		rc = err_set(e, -ENOENT, "qemu-img cannot be run: install the package qemu-utils on this node");
	else if (rc == -ECANCELED)
		rc = err_set(e, rc, "the agent is stopping");
	else if (rc != 0 && rc != CHECK_LEAKS)
		rc = err_set(e, -EINVAL, "the qcow2 image is damaged or not whole%s", reason);
	else if (ends_early((char *)text.data, bytes, cluster))
		rc = err_set(e, -EINVAL, "the qcow2 image is not whole: its end is missing");
	else
		rc = 0;
	buf_free(&text);
	return rc;
}

/* Its header: docs/interop/qcow2.txt of QEMU. */
static int inspect_qcow2(const char *path, const uint8_t *head, size_t n, uint64_t bytes, const _Atomic bool *cancel,
			 struct image_info *ret, struct err *e)
{
	uint64_t version = big_endian(head + 4, 4), cluster_bits = big_endian(head + 20, 4);
	const char *wrong = NULL;

	if (n < 72 || (version != 2 && version != 3) || (version == 3 && n < 104) || cluster_bits < 9 ||
	    cluster_bits > 21)
		wrong = "the qcow2 image is damaged or not whole: its header makes no sense";
	else if (big_endian(head + 8, 8) != 0)
		wrong = "the qcow2 image has a backing file: make it whole with 'qemu-img convert -O qcow2'";
	else if (big_endian(head + 32, 4) != 0)
		wrong = "the qcow2 image is encrypted";
	else if (version == 3 && big_endian(head + 72, 8) & QCOW2_DATA_FILE)
		wrong = "the qcow2 image has its data in another file: make it whole with 'qemu-img convert -O qcow2'";
	else if (big_endian(head + 24, 8) == 0)
		wrong = "the disk in it has no size";
	if (wrong)
		return err_set(e, -EINVAL, "%s", wrong);
	memcpy(ret->format, "qcow2", sizeof "qcow2");
	ret->size = big_endian(head + 24, 8);
	return check_qcow2(path, bytes, 1ULL << cluster_bits, cancel, e);
}

static int inspect_head(const char *path, const uint8_t *head, size_t n, uint64_t bytes, const _Atomic bool *cancel,
			struct image_info *ret, struct err *e)
{
	if (n >= 4 && memcmp(head, "QFI\xfb", 4) == 0)
		return inspect_qcow2(path, head, n, bytes, cancel, ret, e);
	for (size_t i = 0; i < ARRAY_LEN(magics); i++)
		if (n >= magics[i].at + magics[i].n && memcmp(head + magics[i].at, magics[i].bytes, magics[i].n) == 0)
			return err_set(e, -EINVAL, "it is %s", magics[i].what);
	memcpy(ret->format, "raw", sizeof "raw");
	ret->size = bytes;
	return bytes ? 0 : err_set(e, -EINVAL, "it is empty");
}

int image_inspect(const char *path, const _Atomic bool *cancel, struct image_info *ret, struct err *e)
{
	uint8_t head[HEAD_BYTES] = {0};
	struct image_info info = {0};
	struct stat st = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
	ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);

	if (n < 0 || fstat(fd, &st) < 0) {
		rc = err_set(e, -errno, "read %s: %s", path, strerror(errno));
	} else {
		rc = inspect_head(path, head, (size_t)n, (uint64_t)st.st_size, cancel, &info, e);
	}
	if (fd >= 0)
		(void)close(fd);
	if (rc == 0)
		*ret = info;
	return rc;
}
