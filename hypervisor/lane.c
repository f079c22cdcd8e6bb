/* SPDX-License-Identifier: Apache-2.0
 * One thread and one queue per VM. A lane whose queue is empty ends; the next job makes a new one. */
#include "hypervisor/lane.h"

#include "hypervisor/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
	struct job *next;
	enum lane_job kind;
	uint64_t gen;
	struct hypervisor_vm spec; /* LANE_START, LANE_RESIZE */
};

/* All of it is under the lock of the hypervisor. */
struct lane {
	struct lane *next;
	char vm[NAME_BYTES_MAX];
	struct job *jobs, **end;
};

static void run(struct hypervisor *h, const char *vm, const struct job *job)
{
	struct hypervisor_event ev = {.gen = job->gen};

	(void)snprintf(ev.vm, sizeof ev.vm, "%s", vm);
	for (size_t i = 0; i < job->spec.n_disks; i++)
		ev.sizes[i] = job->spec.disks[i].size;
	switch (job->kind) {
	case LANE_START:
		job_start(h, &job->spec, &ev);
		break;
	case LANE_RESUME:
		job_resume(h, vm, &ev);
		break;
	case LANE_SHUTDOWN:
		job_shutdown(h, vm, &ev);
		break;
	case LANE_RESIZE:
		job_resize(h, &job->spec, &ev);
		break;
	case LANE_FORGET:
		job_forget(h, vm, &ev);
		break;
	}
	hypervisor_tell(h, &ev);
}

static struct job *take(struct lane *l)
{
	struct job *job = l->jobs;

	if (!job)
		return NULL;
	l->jobs = job->next;
	if (!l->jobs)
		l->end = &l->jobs;
	return job;
}

static void unlink_lane(struct hypervisor *h, struct lane *l)
{
	struct lane **at = &h->lanes;

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
}

static void lane_work(struct hypervisor *h, void *ctx)
{
	struct lane *l = ctx;
	struct job *job;

	hypervisor_lock(h);
	while ((job = take(l))) {
		hypervisor_unlock(h);
		if (!h->stopping)
			run(h, l->vm, job);
		free(job);
		hypervisor_lock(h);
	}
	unlink_lane(h, l);
	hypervisor_unlock(h);
	free(l);
}

static struct lane *find(struct hypervisor *h, const char *vm)
{
	for (struct lane *l = h->lanes; l; l = l->next)
		if (strcmp(l->vm, vm) == 0)
			return l;
	return NULL;
}

static struct lane *lane_new(struct hypervisor *h, const char *vm)
{
	struct lane *l = xcalloc(1, sizeof *l);

	(void)snprintf(l->vm, sizeof l->vm, "%s", vm);
	l->end = &l->jobs;
	l->next = h->lanes;
	h->lanes = l;
	return l;
}

void lane_add(struct hypervisor *h, enum lane_job kind, const char *vm, uint64_t gen, const struct hypervisor_vm *spec)
{
	struct job *job = xcalloc(1, sizeof *job);
	struct lane *l;
	bool is_new;

	job->kind = kind;
	job->gen = gen;
	if (spec)
		job->spec = *spec;
	hypervisor_lock(h);
	l = find(h, vm);
	is_new = !l;
	if (is_new)
		l = lane_new(h, vm);
	*l->end = job;
	l->end = &job->next;
	hypervisor_unlock(h);
	if (is_new)
		hypervisor_work(h, lane_work, l);
}
