/* SPDX-License-Identifier: Apache-2.0
 * libvirt itself, and the event loop that it needs. */
#include "hypervisor/loop.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>

#define TIMER_MS      1000
#define LOOP_PATIENCE (2 * USEC_PER_SEC)

static void silence_cb(void *ctx, virErrorPtr error)
{
	(void)ctx; /* every error is reported where it happens */
	(void)error;
}

static void timer_cb(int timer, void *ctx)
{
	(void)timer; /* only so that the loop comes round and sees that it shall end */
	(void)ctx;
}

static void *loop_thread(void *ctx)
{
	struct hypervisor *h = ctx;

	while (!h->loop_stopping)
		(void)virEventRunDefaultImpl();
	hypervisor_lock(h);
	h->is_looping = false;
	CHECK(pthread_cond_broadcast(&h->changed) == 0);
	hypervisor_unlock(h);
	return NULL;
}

int loop_start(struct hypervisor *h)
{
	pthread_t thread;

	virSetErrorFunc(NULL, silence_cb);
	(void)setenv("LIBVIRT_DEBUG", "error", 0); /* no warnings on our stderr, unless the admin wants them */
	if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0)
		return -EIO;
	h->timer = virEventAddTimeout(TIMER_MS, timer_cb, NULL, NULL);
	h->is_looping = true;
	CHECK(pthread_create(&thread, NULL, loop_thread, h) == 0);
	CHECK(pthread_detach(thread) == 0);
	return 0;
}

static bool loop_ended(const struct hypervisor *h)
{
	return !h->is_looping;
}

bool loop_stop(struct hypervisor *h)
{
	h->loop_stopping = true;
	virEventUpdateTimeout(h->timer, 0);
	if (!hypervisor_wait(h, loop_ended, LOOP_PATIENCE))
		return false;
	(void)virEventRemoveTimeout(h->timer);
	return true;
}
