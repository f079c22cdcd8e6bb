/* SPDX-License-Identifier: Apache-2.0
 * Where a replica's files are: the boot and the mounted file system, so that V25 sees when cached writes may be gone.
 *
 * What names a mount is hard to find. st_dev is the device's and stays over umount and mount. statx's mount id is given
 * out again: the next mount mostly gets the same one. Its unique form (Linux 6.8) differs in every mount namespace, and
 * systemd may give a service a new one at each start, so that each restart of the engine would be a loss. What lives
 * exactly as long as the mounted file system, in all namespaces, is its own folder below /sys/fs; the kernel numbers
 * those inodes upwards and never uses one again within a boot. Where there is none, the mount id serves: a new
 * namespace or container is then a loss too, which costs a comparison and is never wrong. */
#include "volume/replica_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U /* of Linux 6.8; older kernels leave it out of the answer */
#endif

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_boot(const char *text, size_t n, uint8_t ret[16])
{
	size_t digits = 0;

	for (size_t i = 0; i < n && text[i] != '\n'; i++) {
		int digit = hex_digit(text[i]);

		if (text[i] == '-')
			continue;
		if (digit < 0 || digits == 32)
			return false;
		ret[digits / 2] = (uint8_t)(digits % 2 ? ret[digits / 2] | digit : digit << 4);
		digits++;
	}
	return digits == 32;
}

static int read_boot(uint8_t ret[16], struct err *e)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	struct buf text = {0};
	int rc = file_read(path, 64, &text, e);

	if (rc == 0 && !parse_boot((const char *)text.data, text.len, ret))
		rc = err_set(e, -EINVAL, "%s: is no boot id", path);
	buf_free(&text);
	return rc;
}

/* The inode of /sys/fs/TYPE/DEVICE, or 0. */
static uint64_t sysfs_folder(dev_t device)
{
	static const char *const types[] = {"ext4", "xfs", "f2fs"};
	char link[64], target[512], path[640];
	const char *name;
	struct stat st;
	ssize_t n;

	(void)snprintf(link, sizeof link, "/sys/dev/block/%u:%u", major(device), minor(device));
	n = readlink(link, target, sizeof target - 1);
	if (n <= 0)
		return 0;
	target[n] = '\0';
	name = strrchr(target, '/');
	for (size_t i = 0; name && i < ARRAY_LEN(types); i++) {
		(void)snprintf(path, sizeof path, "/sys/fs/%s%s", types[i], name);
		if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
			return st.st_ino;
	}
	return 0;
}

static int read_mount(int fd, dev_t device, struct volume_origin *ret, struct err *e)
{
	struct statx x;

	ret->device = device;
	ret->mount = sysfs_folder(device);
	ret->mount_kind = VOLUME_MOUNT_SYSFS;
	if (ret->mount != 0)
		return 0;
	memset(&x, 0, sizeof x);
	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_MNT_ID_UNIQUE, &x) < 0)
		return err_set(e, -errno, "ask for the mount: %s", strerror(errno));
	if (!(x.stx_mask & (STATX_MNT_ID | STATX_MNT_ID_UNIQUE)))
		return err_set(e, -ENOTSUP,
			       "ask for the mount: the kernel does not tell (Linux 5.8 or newer is needed)");
	ret->mount = x.stx_mnt_id;
	ret->mount_kind = x.stx_mask & STATX_MNT_ID_UNIQUE ? VOLUME_MOUNT_UNIQUE : VOLUME_MOUNT_ID;
	return 0;
}

static int origin_cb(int data, int meta, int epochs, struct volume_origin *ret, struct err *e)
{
	const int fds[] = {data, meta, epochs};
	struct volume_origin o = {0};
	struct stat st[ARRAY_LEN(fds)];
	int rc;

	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		if (fstat(fds[i], &st[i]) < 0)
			return err_set(e, -errno, "stat: %s", strerror(errno));
		if (st[i].st_dev != st[0].st_dev)
			return err_set(e, -EXDEV, "its files are on several file systems (put them on one)");
		o.inodes[i] = st[i].st_ino;
	}
	rc = read_boot(o.boot, e);
	if (rc == 0)
		rc = read_mount(data, st[0].st_dev, &o, e);
	if (rc == 0)
		*ret = o;
	return rc;
}

/* Waits for at most one page; what it is called for is that it looks whether a write-back of the file has failed. */
static int late_error_cb(int fd)
{
	return sync_file_range(fd, 0, 1, SYNC_FILE_RANGE_WAIT_BEFORE);
}

const struct volume_sys volume_sys_kernel = {pread, pwrite, fdatasync, fsync, ftruncate, late_error_cb, origin_cb};

int sys_read_all(const struct volume_sys *sys, int fd, void *p, size_t n, uint64_t at)
{
	uint8_t *to = p;

	while (n > 0) {
		ssize_t got = sys->pread(fd, to, n, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -ENODATA;
		to += got;
		at += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

int sys_write_all(const struct volume_sys *sys, int fd, const void *p, size_t n, uint64_t at)
{
	const uint8_t *from = p;

	while (n > 0) {
		ssize_t put = sys->pwrite(fd, from, n, (off_t)at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -ENOSPC;
		from += put;
		at += (uint64_t)put;
		n -= (size_t)put;
	}
	return 0;
}

void replica_label(const char *dir, char ret[LABEL_BYTES])
{
	size_t n = strlen(dir);

	if (n < LABEL_BYTES)
		memcpy(ret, dir, n + 1);
	else
		(void)snprintf(ret, LABEL_BYTES, "...%s", dir + n - (LABEL_BYTES - 4));
}

uint64_t replica_fresh_incarnation(uint64_t old)
{
	uint64_t fresh;

	do
		fresh = random_u64();
	while (fresh == old);
	return fresh;
}
