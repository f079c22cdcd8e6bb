/* SPDX-License-Identifier: Apache-2.0
 * Making a replica's folder, all or nothing: built aside, synced, renamed. */
#include "volume/replica_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const file_names[] = {"data", "meta", "epochs"};

enum { DATA, META, EPOCHS, FILES };

struct making {
	const char *dir;
	char aside[PATH_BYTES_MAX];
	char parent[PATH_BYTES_MAX];
	char label[LABEL_BYTES];
	const struct volume_sys *sys;
	int folder;
	int fds[FILES];
	struct err *e;
};

static int failed(const struct making *m, int rc, const char *what, const char *remedy)
{
	return err_set(m->e, rc, "create replica '%s': %s: %s%s", m->label, what, strerror(-rc), remedy);
}

static const char *remedy_of(int rc)
{
	switch (rc) {
	case -ENOSPC:
	case -EDQUOT:
		return " (free some space on its file system)";
	case -EFBIG:
		return " (the file system, or the limit on file sizes, does not allow a file as large as the volume)";
	case -EACCES:
	case -EPERM:
	case -EROFS:
		return " (the folder above must be writable for the engine)";
	case -ENOENT:
		return " (the folder above must be there)";
	default:
		return "";
	}
}

/* Only what a replica consists of; anything else that lies there is not ours to remove. */
static void remove_folder(const char *path)
{
	char file[PATH_BYTES_MAX + 16];

	for (size_t i = 0; i < FILES; i++) {
		(void)snprintf(file, sizeof file, "%s/%s", path, file_names[i]);
		(void)unlink(file);
	}
	(void)rmdir(path);
}

static int check_wish(struct making *m, uint64_t size)
{
	struct stat st;
	char copy[PATH_BYTES_MAX];
	size_t n = strlen(m->dir);

	while (n > 1 && m->dir[n - 1] == '/')
		n--;
	if (!volume_size_is_valid(size))
		return err_set(m->e, -EINVAL,
			       "create replica '%s': size %llu is not possible (a multiple of %u, from %u to %llu)",
			       m->label, (unsigned long long)size, VOLUME_SECTOR_BYTES, VOLUME_SECTOR_BYTES,
			       (unsigned long long)VOLUME_SIZE_MAX);
	if ((size_t)snprintf(m->aside, sizeof m->aside, "%.*s.new", (int)n, m->dir) >= sizeof m->aside)
		return failed(m, -ENAMETOOLONG, "its path", " (use a shorter one)");
	(void)snprintf(copy, sizeof copy, "%s", m->dir);
	(void)snprintf(m->parent, sizeof m->parent, "%s", dirname(copy));
	if (lstat(m->dir, &st) == 0)
		return failed(m, -EEXIST, "the folder", " (open it, or remove it first)");
	return errno == ENOENT ? 0 : failed(m, -errno, "look for it", remedy_of(-errno));
}

static int make_files(struct making *m)
{
	remove_folder(m->aside);
	if (mkdir(m->aside, 0700) < 0)
		return failed(m, -errno, "make the folder", remedy_of(-errno));
	m->folder = open(m->aside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (m->folder < 0)
		return failed(m, -errno, "open the folder", "");
	for (size_t i = 0; i < FILES; i++) {
		m->fds[i] = openat(m->folder, file_names[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (m->fds[i] < 0)
			return failed(m, -errno, file_names[i], remedy_of(-errno));
	}
	return 0;
}

static int size_files(struct making *m, uint64_t size)
{
	if (m->sys->ftruncate(m->fds[DATA], (off_t)size) < 0)
		return failed(m, -errno, "set the size of data", remedy_of(-errno));
	if (m->sys->ftruncate(m->fds[EPOCHS], (off_t)volume_extents(size) * VOLUME_PAGE_BYTES) < 0)
		return failed(m, -errno, "set the size of epochs", remedy_of(-errno));
	return 0;
}

/* Every page is written, so that later ones never need room, and a page of zeroes is damage. */
static int write_meta(struct making *m, const uint8_t *volume, uint64_t size)
{
	static const uint8_t no_bits[VOLUME_INTENTS_BYTES];
	struct volume_super super = {.size = size};
	struct volume_state state = {.incarnation = random_u64()};
	uint8_t page[VOLUME_PAGE_BYTES];
	uint64_t at = 0;
	int rc = m->sys->origin(m->fds[DATA], m->fds[META], m->fds[EPOCHS], &state.origin, m->e);

	if (rc < 0)
		return err_wrap(m->e, rc, "create replica '%s'", m->label);
	memcpy(super.volume, volume, sizeof super.volume);
	random_bytes(super.replica, sizeof super.replica);
	volume_super_encode(&super, page);
	rc = sys_write_all(m->sys, m->fds[META], page, sizeof page, at);
	for (uint32_t pair = 0; rc == 0 && pair < 1 + volume_intent_pages(size); pair++) {
		if (pair == 0)
			volume_state_encode(&state, super.replica, 1, page);
		else
			volume_intents_encode(no_bits, pair - 1, super.replica, 1, page);
		at = VOLUME_META_OFFSET(pair);
		rc = sys_write_all(m->sys, m->fds[META], page, sizeof page, at);
		if (rc == 0)
			rc = sys_write_all(m->sys, m->fds[META], page, sizeof page, at + VOLUME_PAGE_BYTES);
	}
	return rc == 0 ? 0 : failed(m, rc, "write meta", remedy_of(rc));
}

static int sync_all(struct making *m)
{
	for (size_t i = 0; i < FILES; i++)
		if (m->sys->fsync(m->fds[i]) < 0)
			return failed(m, -errno, "sync its files", remedy_of(-errno));
	return m->sys->fsync(m->folder) < 0 ? failed(m, -errno, "sync the folder", "") : 0;
}

static int publish(struct making *m)
{
	int parent = open(m->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (parent < 0)
		return failed(m, -errno, "open the folder above", "");
	if (rename(m->aside, m->dir) < 0) {
		rc = failed(m, -errno, "rename it to its place", "");
	} else if (m->sys->fsync(parent) < 0) {
		rc = failed(m, -errno, "sync the folder above", "");
		remove_folder(m->dir);
	}
	(void)close(parent);
	return rc;
}

int volume_replica_create(const char *dir, const uint8_t volume[VOLUME_ID_BYTES], uint64_t size,
			  const struct volume_sys *sys, struct err *e)
{
	struct making m = {
		.dir = dir, .sys = sys ? sys : &volume_sys_kernel, .folder = -1, .fds = {-1, -1, -1}, .e = e};
	int rc;

	replica_label(dir, m.label);
	rc = check_wish(&m, size);
	if (rc < 0)
		return rc;
	rc = make_files(&m);
	if (rc == 0)
		rc = size_files(&m, size);
	if (rc == 0)
		rc = write_meta(&m, volume, size);
	if (rc == 0)
		rc = sync_all(&m);
	if (rc == 0)
		rc = publish(&m);
	for (size_t i = 0; i < FILES; i++)
		if (m.fds[i] >= 0)
			(void)close(m.fds[i]);
	if (m.folder >= 0)
		(void)close(m.folder);
	if (rc < 0)
		remove_folder(m.aside);
	return rc;
}
