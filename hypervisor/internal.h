/* SPDX-License-Identifier: Apache-2.0
 * What the module's files share: the instance, its events, and the threads that are inside it. */
#ifndef KEDGE_HYPERVISOR_INTERNAL_H
#define KEDGE_HYPERVISOR_INTERNAL_H

#include "hypervisor/hypervisor.h"

#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdatomic.h>

struct lane;
struct event_entry;

struct hypervisor {
	struct hypervisor_config config;
	bool is_embedded, is_test; /* by the URI */
	void (*notify)(void *ctx);
	void *notify_ctx;
	virConnectPtr conn;
	int timer;                  /* wakes libvirt's event loop */
	int lifecycle;              /* the events' number, negative: none come */
	_Atomic bool stopping;      /* close() was called: no new work, no notify */
	_Atomic bool loop_stopping; /* the event loop shall end */
	pthread_mutex_t lock;       /* of what follows */
	pthread_cond_t changed;
	bool is_looping; /* the event loop's thread lives */
	bool is_probed;  /* is_kvm is known */
	bool is_kvm;
	unsigned workers; /* threads that may be inside libvirt: lanes, probe, closing */
	struct event_entry *events, **events_end;
	struct lane *lanes;
};

/* threads.c */

/* [any] Lock and unlock @h. */
void hypervisor_lock(struct hypervisor *h);
void hypervisor_unlock(struct hypervisor *h);
/* [any] Run @work(@h, @ctx) on a thread of its own and count it as a worker while it runs. */
void hypervisor_work(struct hypervisor *h, void (*work)(struct hypervisor *h, void *ctx), void *ctx);
/* [any] Wait until @done(@h), asked under the lock, but not past @max. Returns what @done said last. */
bool hypervisor_wait(struct hypervisor *h, bool (*done)(const struct hypervisor *h), usec_t max);

/* events.c */

/* [any] Queue @ev and wake the agent. */
void hypervisor_tell(struct hypervisor *h, const struct hypervisor_event *ev);
/* [any] Take the next event. False when there is none. */
bool hypervisor_poll(struct hypervisor *h, struct hypervisor_event *ret);
/* [any] libvirt's last error on this thread, as one line. */
void hypervisor_error(char *ret, size_t size);

/* host.c: [worker] Find out what this machine can, then tell READY. */
void hypervisor_probe(struct hypervisor *h, void *unused);

#endif
