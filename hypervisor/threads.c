/* SPDX-License-Identifier: Apache-2.0
 * The module's threads are counted, not joined: one that hangs in libvirt is left to the end of the process. */
#include "hypervisor/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct work {
	struct hypervisor *h;
	void (*run)(struct hypervisor *h, void *ctx);
	void *ctx;
};

void hypervisor_lock(struct hypervisor *h)
{
	CHECK(pthread_mutex_lock(&h->lock) == 0);
}

void hypervisor_unlock(struct hypervisor *h)
{
	CHECK(pthread_mutex_unlock(&h->lock) == 0);
}

static void *work_thread(void *arg)
{
	struct work *w = arg;
	struct hypervisor *h = w->h;

	w->run(h, w->ctx);
	free(w);
	hypervisor_lock(h);
	h->workers--;
	CHECK(pthread_cond_broadcast(&h->changed) == 0);
	hypervisor_unlock(h);
	return NULL;
}

void hypervisor_work(struct hypervisor *h, void (*work)(struct hypervisor *h, void *ctx), void *ctx)
{
	struct work *w = xcalloc(1, sizeof *w);
	pthread_t thread;

	*w = (struct work){.h = h, .run = work, .ctx = ctx};
	hypervisor_lock(h);
	h->workers++;
	hypervisor_unlock(h);
	CHECK(pthread_create(&thread, NULL, work_thread, w) == 0);
	CHECK(pthread_detach(thread) == 0);
}

bool hypervisor_wait(struct hypervisor *h, bool (*done)(const struct hypervisor *h), usec_t max)
{
	struct timespec until;
	bool ok;

	CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0); /* the clock of h->changed */
	until.tv_sec += (time_t)(max / USEC_PER_SEC);
	hypervisor_lock(h);
	while (!(ok = done(h)) && pthread_cond_timedwait(&h->changed, &h->lock, &until) != ETIMEDOUT)
		;
	hypervisor_unlock(h);
	return ok;
}
