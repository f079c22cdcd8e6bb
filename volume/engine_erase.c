/* SPDX-License-Identifier: Apache-2.0
 * The files of a replica that was given up: renamed first, so that after any crash they are whole or no replica at all;
 * what a crash left half removed goes at the next start. */
#include "volume/engine_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GONE        ".gone"
#define ERASE_AGAIN (USEC_PER_SEC)

/* ---- files ---- */

static int remove_files(int folder)
{
	DIR *d = fdopendir(folder);
	const struct dirent *entry;
	int rc = 0;

	if (!d) {
		rc = -errno;
		(void)close(folder);
		return rc;
	}
	while (rc == 0 && (entry = readdir(d))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (unlinkat(dirfd(d), entry->d_name, 0) < 0 && errno != ENOENT)
			rc = -errno;
	}
	(void)closedir(d);
	return rc;
}

/* A folder of files, if it is there. */
static int remove_folder(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	rc = remove_files(fd);
	if (rc == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		rc = -errno;
	return rc;
}

static int open_parent(const char *dir)
{
	char path[PATH_BYTES_MAX + 32];
	int fd;

	(void)snprintf(path, sizeof path, "%s/volumes", dir);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int erase(int parent, const char *id)
{
	char aside[VOLUME_ID_TEXT + sizeof GONE];
	int rc;

	(void)snprintf(aside, sizeof aside, "%s" GONE, id);
	rc = remove_folder(parent, aside); /* of an earlier time: it would be in the way */
	if (rc == 0 && renameat(parent, id, parent, aside) < 0 && errno != ENOENT)
		rc = -errno;
	if (rc == 0 && fsync(parent) < 0)
		rc = -errno;
	return rc < 0 ? rc : remove_folder(parent, aside);
}

/* ---- a volume's ---- */

struct erase_job {
	struct job job;
	struct vol *v;
	int rc;
};

static void erase_run(struct job *j)
{
	struct erase_job *x = CONTAINER_OF(j, struct erase_job, job);
	int parent = open_parent(x->v->g->dir);
	char id[VOLUME_ID_TEXT];

	volume_id_text(x->v->id, id);
	x->rc = parent < 0 ? parent : erase(parent, id);
	if (parent >= 0)
		(void)close(parent);
}

static void erase_done(struct job *j)
{
	struct erase_job *x = CONTAINER_OF(j, struct erase_job, job);
	struct vol *v = x->v;

	v->jobs--;
	if (x->rc < 0) {
		log_error("%s: erase the replica that was given up: %s", v->name, strerror(-x->rc));
		v->again = clock_boottime() + ERASE_AGAIN;
	} else {
		v->step = VOL_ERASED;
		v->g->store->erased(v);
	}
	free(x);
}

void vol_erase(struct vol *v)
{
	struct erase_job *x = xcalloc(1, sizeof *x);

	CHECK(v->step == VOL_CLOSED && !v->core && !v->replica && v->jobs == 0);
	*x = (struct erase_job){.job = {.run = erase_run, .done = erase_done}, .v = v};
	v->jobs++;
	job_begin(v->g, &x->job);
}

/* ---- at the start ---- */

struct sweep_job {
	struct job job;
	char dir[PATH_BYTES_MAX];
};

static bool is_leftover(const char *name)
{
	size_t n = strlen(name);

	return n > strlen(GONE) && strcmp(name + n - strlen(GONE), GONE) == 0;
}

static void sweep_run(struct job *j)
{
	struct sweep_job *s = CONTAINER_OF(j, struct sweep_job, job);
	int parent = open_parent(s->dir);
	DIR *d = parent < 0 ? NULL : fdopendir(parent);
	const struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (is_leftover(entry->d_name) && remove_folder(dirfd(d), entry->d_name) < 0)
			log_warning("%s/volumes/%s cannot be removed, ignoring it", s->dir, entry->d_name);
	if (d)
		(void)closedir(d);
	else if (parent >= 0)
		(void)close(parent);
}

static void sweep_done(struct job *j)
{
	free(CONTAINER_OF(j, struct sweep_job, job));
}

/* Knows no engine while it runs: that may end meanwhile. */
void erase_leftovers(struct engine *g)
{
	struct sweep_job *s = xcalloc(1, sizeof *s);

	s->job = (struct job){.run = sweep_run, .done = sweep_done};
	memcpy(s->dir, g->dir, sizeof s->dir);
	job_begin(g, &s->job);
}
