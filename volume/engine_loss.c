/* SPDX-License-Identifier: Apache-2.0
 * Errors of the disk that an engine may have been told as it was killed (V13). The kernel tells each descriptor that
 * was open of a failed write-back, but none that is opened once somebody was told. The file system keeps an account of
 * its own, though, which only syncfs() looks at: the engine after one that did not end well asks there before it opens
 * a replica, and marks them all where something failed. */
#include "volume/engine_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t looking = PTHREAD_MUTEX_INITIALIZER;

static void mark_path(const struct engine *g, char ret[PATH_BYTES_MAX + 32])
{
	(void)snprintf(ret, PATH_BYTES_MAX + 32, "%s/run/vol.open", g->dir);
}

/* The lock of the folder is taken: whatever the engine before was doing in the kernel has ended. */
void loss_begin(struct engine *g)
{
	char path[PATH_BYTES_MAX + 32];
	int fd;

	mark_path(g, path);
	g->looks_for_losses = access(path, F_OK) == 0;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)close(fd);
}

void loss_end(const struct engine *g)
{
	char path[PATH_BYTES_MAX + 32];

	mark_path(g, path);
	(void)unlink(path);
}

static void mark_all(int folder)
{
	DIR *d = fdopendir(folder);
	const struct dirent *entry;

	while (d && (entry = readdir(d))) {
		char name[sizeof entry->d_name + 16];
		int fd;

		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(name, sizeof name, "%s/" VOLUME_FAILED_MARK, entry->d_name);
		fd = openat(folder, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd >= 0)
			(void)close(fd);
	}
	if (d)
		(void)closedir(d);
	else
		(void)close(folder);
}

static void look(const struct engine *g)
{
	char path[PATH_BYTES_MAX + 32];
	int fd;

	(void)snprintf(path, sizeof path, "%s/volumes", g->dir);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (syncfs(fd) == 0) {
		(void)close(fd);
		return;
	}
	log_error("the engine before did not end well, and '%s' could not be synced since it began: %s: its replicas "
		  "count as "
		  "ones that lost power",
		  path, strerror(errno));
	mark_all(fd);
}

void loss_look(struct engine *g)
{
	CHECK(pthread_mutex_lock(&looking) == 0);
	if (g->looks_for_losses)
		look(g);
	g->looks_for_losses = false;
	CHECK(pthread_mutex_unlock(&looking) == 0);
}
