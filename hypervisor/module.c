/* SPDX-License-Identifier: Apache-2.0
 * The module as kedged sees it: opening, the operations, closing. */
#include "hypervisor/internal.h"

#include "hypervisor/jobs.h"
#include "hypervisor/lane.h"
#include "hypervisor/loop.h"

#include <errno.h>
#include <libxml/parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLOSE_PATIENCE (5 * USEC_PER_SEC)

/* For one-machine clusters and tests: no cgroups, no security driver, no virtlogd. */
static const char qemu_conf[] = "stdio_handler = \"file\"\n"
				"cgroup_controllers = []\n"
				"security_driver = \"none\"\n"
				"remember_owner = 0\n"
				"namespaces = []\n"
				"user = \"root\"\n"
				"group = \"root\"\n";

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* ---- opening ---- */

static int furnish_root(const struct hypervisor_config *c, struct err *e)
{
	char path[PATH_BYTES_MAX + 32];
	int rc = file_make_folder(c->console_dir, 0700, e);

	if (rc < 0 || !begins(c->uri, "qemu:///embed"))
		return rc;
	(void)snprintf(path, sizeof path, "%s/etc", c->root);
	rc = file_make_folder(path, 0700, e);
	if (rc < 0)
		return rc;
	(void)snprintf(path, sizeof path, "%s/etc/qemu.conf", c->root);
	return access(path, F_OK) == 0 ? 0 : file_replace(path, qemu_conf, strlen(qemu_conf), 0600, e);
}

static struct hypervisor *hypervisor_new(const struct hypervisor_config *config)
{
	struct hypervisor *h = xcalloc(1, sizeof *h);
	pthread_condattr_t attr;

	h->config = *config;
	h->is_embedded = begins(config->uri, "qemu:///embed");
	h->is_test = begins(config->uri, "test:");
	h->events_end = &h->events;
	CHECK(pthread_mutex_init(&h->lock, NULL) == 0);
	CHECK(pthread_condattr_init(&attr) == 0);
	CHECK(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
	CHECK(pthread_cond_init(&h->changed, &attr) == 0);
	CHECK(pthread_condattr_destroy(&attr) == 0);
	return h;
}

static void hypervisor_delete(struct hypervisor *h)
{
	struct hypervisor_event ev;

	while (hypervisor_poll(h, &ev))
		;
	CHECK(pthread_cond_destroy(&h->changed) == 0);
	CHECK(pthread_mutex_destroy(&h->lock) == 0);
	free(h);
}

/* [loop thread of libvirt] QEMU has paused a guest: nobody asks for that but a disk that failed. The reason is not
 * looked at, since newer QEMUs tell errors at most once per second, and libvirt then knows none. */
static void lifecycle_cb(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *ctx)
{
	struct hypervisor_event ev = {.kind = HYPERVISOR_PAUSED};
	struct hypervisor *h = ctx;

	(void)conn;
	(void)detail;
	if (event != VIR_DOMAIN_EVENT_SUSPENDED)
		return;
	(void)snprintf(ev.vm, sizeof ev.vm, "%s", virDomainGetName(dom));
	hypervisor_tell(h, &ev);
}

static int connect_now(struct hypervisor *h, struct err *e)
{
	char why[256];

	xmlInitParser(); /* before there are threads */
	if (loop_start(h) < 0) {
		hypervisor_error(why, sizeof why);
		return err_set(e, -EIO, "start libvirt: %s", why);
	}
	h->conn = virConnectOpen(h->config.uri);
	if (h->conn) {
		/* libvirt's macro casts between types that differ, which clang 19 allows from this one only */
		h->lifecycle = virConnectDomainEventRegisterAny(h->conn, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
								VIR_DOMAIN_EVENT_CALLBACK((void (*)(void))lifecycle_cb),
								h, NULL);
		return 0;
	}
	hypervisor_error(why, sizeof why);
	(void)loop_stop(h);
	return err_set(e, -EIO, "connect to '%s': %s", h->config.uri, why);
}

static int op_open(const struct hypervisor_config *config, void (*notify)(void *ctx), void *ctx,
		   struct hypervisor **ret, struct err *e)
{
	struct hypervisor *h;
	int rc = furnish_root(config, e);

	if (rc < 0)
		return rc;
	h = hypervisor_new(config);
	h->notify = notify;
	h->notify_ctx = ctx;
	rc = connect_now(h, e);
	if (rc < 0) {
		if (!h->is_looping)
			hypervisor_delete(h);
		return rc;
	}
	hypervisor_work(h, hypervisor_probe, NULL);
	*ret = h;
	return 0;
}

static size_t op_found(struct hypervisor *h, struct hypervisor_found *ret, size_t max)
{
	virDomainPtr *list = NULL;
	int count = virConnectListAllDomains(h->conn, &list, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
	size_t n = 0;

	for (int i = 0; i < count; i++) {
		if (n < max && job_is_own(h, list[i])) {
			struct hypervisor_found *f = &ret[n++];

			*f = (struct hypervisor_found){0};
			(void)snprintf(f->vm, sizeof f->vm, "%s", virDomainGetName(list[i]));
			(void)virDomainGetUUIDString(list[i], f->uuid);
			f->pid = job_pid(h, f->vm);
		}
		(void)virDomainFree(list[i]);
	}
	free(list);
	return n;
}

/* ---- requests ---- */

static void op_start(struct hypervisor *h, const struct hypervisor_vm *vm, uint64_t gen)
{
	lane_add(h, LANE_START, vm->name, gen, vm);
}

static void op_resume(struct hypervisor *h, const char *vm, uint64_t gen)
{
	lane_add(h, LANE_RESUME, vm, gen, NULL);
}

static void op_shutdown(struct hypervisor *h, const char *vm, uint64_t gen)
{
	lane_add(h, LANE_SHUTDOWN, vm, gen, NULL);
}

static void op_resize(struct hypervisor *h, const struct hypervisor_vm *vm, uint64_t gen)
{
	lane_add(h, LANE_RESIZE, vm->name, gen, vm);
}

static void op_forget(struct hypervisor *h, const char *vm, uint64_t gen)
{
	lane_add(h, LANE_FORGET, vm, gen, NULL);
}

/* ---- closing ---- */

static bool is_idle(const struct hypervisor *h)
{
	return h->workers == 0;
}

static void disconnect(struct hypervisor *h, void *unused)
{
	(void)unused;
	if (h->lifecycle >= 0)
		(void)virConnectDomainEventDeregisterAny(h->conn, h->lifecycle);
	(void)virConnectClose(h->conn);
}

/* Threads that hang in libvirt, and then all that they use, are left to the end of the process. */
static void op_close(struct hypervisor *h)
{
	hypervisor_lock(h);
	h->stopping = true;
	CHECK(pthread_cond_broadcast(&h->changed) == 0);
	hypervisor_unlock(h);
	if (!hypervisor_wait(h, is_idle, CLOSE_PATIENCE))
		return;
	hypervisor_work(h, disconnect, NULL);
	if (hypervisor_wait(h, is_idle, CLOSE_PATIENCE) && loop_stop(h))
		hypervisor_delete(h);
}

extern const struct hypervisor_ops kedge_hypervisor;

__attribute__((visibility("default"))) const struct hypervisor_ops kedge_hypervisor = {
	.version = HYPERVISOR_VERSION,
	.open = op_open,
	.poll = hypervisor_poll,
	.found = op_found,
	.start = op_start,
	.resume = op_resume,
	.shutdown = op_shutdown,
	.resize = op_resize,
	.forget = op_forget,
	.close = op_close,
};
