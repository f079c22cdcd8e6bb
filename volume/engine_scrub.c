/* SPDX-License-Identifier: Apache-2.0
 * Scrubs of the engine: each volume in its turn every so many days, or when somebody asks. When a volume was scrubbed
 * last is the time of a file in its replica's folder. */
#include "volume/engine_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PASSES_EVERY (500 * USEC_PER_MS)
#define LOOK_EVERY   (60 * USEC_PER_SEC)
#define DAY_SECONDS  (24 * 60 * 60)

static void path_of(const struct vol *v, char ret[PATH_BYTES_MAX + 80])
{
	char folder[PATH_BYTES_MAX + 64];

	vol_path(v, folder);
	(void)snprintf(ret, PATH_BYTES_MAX + 80, "%s/scrubbed", folder);
}

struct note_job {
	struct job job;
	struct vol *v;
	char path[PATH_BYTES_MAX + 80];
};

static void note_run(struct job *j)
{
	struct note_job *n = CONTAINER_OF(j, struct note_job, job);
	int fd = open(n->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || futimens(fd, NULL) < 0)
		log_warning("%s: %s", n->path, strerror(errno));
	if (fd >= 0)
		(void)close(fd);
}

static void note_done(struct job *j)
{
	struct note_job *n = CONTAINER_OF(j, struct note_job, job);

	n->v->jobs--;
	free(n);
}

static void note(struct vol *v)
{
	struct note_job *n = xcalloc(1, sizeof *n);

	n->job = (struct job){.run = note_run, .done = note_done};
	n->v = v;
	path_of(v, n->path);
	v->jobs++;
	job_begin(v->g, &n->job);
}

int scrub_begin(struct vol *v, bool primary_wins)
{
	int rc;

	if (v->step != VOL_OPEN)
		return -EPERM;
	rc = volume_core_scrub(v->core, 0, primary_wins);
	if (rc == 0)
		v->n_findings = 0;
	return rc;
}

void scrub_found(struct vol *v, const struct volume_finding *f)
{
	unsigned long long offset = f->offset;

	switch (f->verdict) {
	case VOLUME_WRONG:
		log_error("%s: the block at %llu %s on node %u; it is repaired from the others", v->name, offset,
			  f->unreadable ? "cannot be read" : "is wrong", f->node);
		break;
	case VOLUME_UNDECIDED:
		log_error("%s: the block at %llu differs, and with these copies nobody can tell whose is right",
			  v->name, offset);
		break;
	case VOLUME_LOST:
		log_error("%s: the block at %llu cannot be read anywhere", v->name, offset);
		break;
	}
	if (v->n_findings < FINDINGS_MAX)
		v->findings[v->n_findings++] = *f;
	v->g->store->found(v, f);
}

/* One at a time on a node: the disk is shared. */
static bool any_runs(const struct engine *g)
{
	struct volume_core_status st;

	for (const struct vol *v = g->vols; v; v = v->next) {
		if (v->step != VOL_OPEN)
			continue;
		volume_core_status(v->core, &st);
		if (st.scrub.on)
			return true;
	}
	return false;
}

static bool is_due(const struct vol *v)
{
	char path[PATH_BYTES_MAX + 80];
	struct stat st;

	path_of(v, path);
	if (stat(path, &st) < 0) { /* never yet: its turn comes a whole period after it was made */
		vol_path(v, path);
		if (stat(path, &st) < 0)
			return false;
	}
	return clock_wall() / USEC_PER_SEC > (usec_t)st.st_mtim.tv_sec + (usec_t)v->g->config.scrub_days * DAY_SECONDS;
}

void scrub_turn(struct vol *v, usec_t now)
{
	struct volume_core_status st;

	if (now < v->next_passes_look)
		return;
	v->next_passes_look = now + PASSES_EVERY;
	volume_core_status(v->core, &st);
	if (st.scrub.passes > v->passes) {
		v->passes = st.scrub.passes;
		log_info("%s: scrubbed: %llu blocks were wrong, %llu undecided, %llu lost, %llu skipped", v->name,
			 (unsigned long long)st.scrub.wrong, (unsigned long long)st.scrub.undecided,
			 (unsigned long long)st.scrub.lost, (unsigned long long)st.scrub.skipped);
		note(v);
	} else if (st.scrub.passes < v->passes) { /* another core */
		v->passes = st.scrub.passes;
	}
	if (now < v->next_scrub_look)
		return;
	v->next_scrub_look = now + LOOK_EVERY;
	if (v->g->config.scrub_days == 0 || st.role != VOLUME_LEADING || any_runs(v->g) || !is_due(v))
		return;
	v->n_findings = 0;
	(void)volume_core_scrub(v->core, v->g->config.scrub_rate, false);
}
