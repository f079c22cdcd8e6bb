/* SPDX-License-Identifier: Apache-2.0
 * What the tests of a replica's folder share. */
#include "tests/unit/volume_help.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

char top[32], dir[64];
struct volume_sys fake;
struct volume_origin where;
long calls_left;
int calls_error;

static bool call_fails(void)
{
	if (calls_left < 0 || calls_left-- > 0)
		return false;
	calls_left = 0; /* and so do all that follow */
	errno = calls_error;
	return true;
}

static ssize_t fake_pwrite(int fd, const void *p, size_t n, off_t at)
{
	return call_fails() ? -1 : pwrite(fd, p, n, at);
}

static int fake_fdatasync(int fd)
{
	return call_fails() ? -1 : fdatasync(fd);
}

static int fake_fsync(int fd)
{
	return call_fails() ? -1 : fsync(fd);
}

static int fake_ftruncate(int fd, off_t bytes)
{
	return call_fails() ? -1 : ftruncate(fd, bytes);
}

static int fake_origin(int data, int meta, int epochs, struct volume_origin *ret, struct err *e)
{
	(void)data;
	(void)meta;
	(void)epochs;
	if (call_fails())
		return err_set(e, -calls_error, "no boot id");
	*ret = where;
	return 0;
}

static int remove_cb(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

int setup(void **arg)
{
	(void)arg;
	(void)snprintf(top, sizeof top, "/tmp/kedge-replica-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	(void)snprintf(dir, sizeof dir, "%s/v", top);
	fake = volume_sys_kernel;
	fake.pwrite = fake_pwrite;
	fake.fdatasync = fake_fdatasync;
	fake.fsync = fake_fsync;
	fake.ftruncate = fake_ftruncate;
	fake.origin = fake_origin;
	where = (struct volume_origin){
		.boot = "boot-one", .mount_kind = 1, .device = 2, .mount = 3, .inodes = {4, 5, 6}};
	calls_left = -1;
	calls_error = EIO;
	return 0;
}

int teardown(void **arg)
{
	(void)arg;
	return nftw(top, remove_cb, 16, FTW_DEPTH | FTW_PHYS);
}

void create(void)
{
	struct err e = {0};
	int rc = volume_replica_create(dir, volume, SIZE, &fake, &e);

	if (rc < 0)
		fail_msg("%s", e.text);
}

struct volume_replica *open_with(bool force)
{
	struct volume_replica_options o = {.force = force, .sys = &fake};
	struct volume_replica *r = NULL;
	struct err e = {0};

	if (volume_replica_open(dir, &o, &r, &e) < 0)
		fail_msg("%s", e.text);
	return r;
}

void refuse_open(int code, const char *words[], size_t n)
{
	struct volume_replica_options o = {.sys = &fake};
	struct volume_replica *r = NULL;
	struct err e = {0};

	assert_int_equal(volume_replica_open(dir, &o, &r, &e), code);
	assert_null(r);
	assert_null(strchr(e.text, '\n'));
	for (size_t i = 0; i < n; i++)
		if (!strstr(e.text, words[i]))
			fail_msg("'%s' is not in: %s", words[i], e.text);
}

void poke(const char *file, off_t at, const void *p, size_t n)
{
	char path[96];
	int fd;

	(void)snprintf(path, sizeof path, "%s/%s", dir, file);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0 && pwrite(fd, p, n, at) == (ssize_t)n);
	(void)close(fd);
}

bool is_there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

void set_intents(struct volume_replica *r, const uint32_t *extents, size_t n)
{
	uint8_t bits[2 * VOLUME_INTENTS_BYTES];
	size_t bytes = volume_bits_bytes(volume_replica_super(r)->size);

	assert_true(bytes <= sizeof bits);
	memcpy(bits, volume_replica_intents(r), bytes);
	for (size_t i = 0; i < n; i++)
		volume_bit_set(bits, extents[i], true);
	assert_int_equal(volume_replica_write_intents(r, bits, NULL), 0);
}

void promise(struct volume_replica *r, uint32_t epoch, uint32_t minor)
{
	struct volume_state s = *volume_replica_state(r);

	s.promised = (struct volume_ballot){epoch, minor};
	assert_int_equal(volume_replica_write_state(r, &s, NULL), 0);
}

void fill(struct volume_ballot *stamps, uint32_t epoch)
{
	for (uint32_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		stamps[i] = (struct volume_ballot){epoch, i};
}

/* In a child with a mount namespace of its own. Returns its exit code. */
int in_namespace(int (*run)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
			_exit(SKIPPED);
		_exit(run());
	}
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}
