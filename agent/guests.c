/* SPDX-License-Identifier: Apache-2.0
 * The guests of this node as processes. */
#include "agent/guests.h"

#include "agent/process.h"
#include "agent/spawn.h"
#include "agent/volumes.h"
#include "hypervisor/hypervisor.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define RESUME_EVERY (500 * USEC_PER_MS)
#define RESUME_FOR   (5 * USEC_PER_SEC)
#define RESIZE_EVERY (USEC_PER_SEC)

/* One QEMU that this agent knows: made by it, or adopted. */
struct guest {
	struct guests *all;
	struct guest *next;
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
	int32_t pid;
	int pidfd;
	uv_poll_t poll;
	bool gone;
	/* QEMU paused it, since its disk was not served: it is resumed until this time, again and again, because
	 * libvirt can take a resume for done that the next error has undone. 0: it was not paused */
	usec_t resume_until;
	usec_t next_resume;
	bool resumed;                 /* it ran: logged once */
	uint64_t sizes[VM_DISKS_MAX]; /* of its disks, as its QEMU knows them; 0: not known (adopted) */
	bool resizing;
	usec_t next_resize;
};

struct guests {
	uv_loop_t *loop;
	struct node *node;
	struct guard_page *page;
	struct guard_link *guard;
	const struct hypervisor_ops *ops; /* NULL: this node runs no VMs */
	void *module;
	struct hypervisor *hypervisor;
	uv_async_t wake;
	struct guest *list;
	char root[PATH_BYTES_MAX + 16]; /* what every guest's command line holds; "": not known */
	struct peer_node_info info;
};

/* ---- guests ---- */

static struct guest *find(struct guests *g, const char *vm, uint64_t gen)
{
	for (struct guest *i = g->list; i; i = i->next)
		if (!i->gone && i->gen == gen && strcmp(i->vm, vm) == 0)
			return i;
	return NULL;
}

static struct guest *find_slot(struct guests *g, size_t slot)
{
	const struct guard_slot *s = &g->page->slots[slot];

	return find(g, s->vm, atomic_load(&s->gen));
}

static void poll_closed_cb(uv_handle_t *handle)
{
	struct guest *guest = handle->data, **at = &guest->all->list;

	while (*at != guest)
		at = &(*at)->next;
	*at = guest->next;
	(void)close(guest->pidfd);
	free(guest);
}

static void guest_release(struct guest *guest)
{
	if (guest->gone)
		return;
	guest->gone = true;
	uv_close((uv_handle_t *)&guest->poll, poll_closed_cb);
}

static void gone_cb(uv_poll_t *poll, int status, int events)
{
	struct guest *guest = poll->data;

	(void)status;
	(void)events;
	log_info("vm %s: process %d is gone (generation %llu)", guest->vm, (int)guest->pid,
		 (unsigned long long)guest->gen);
	guest_release(guest);
	node_vm_ended(guest->all->node, guest->vm, guest->gen, "its process ended");
}

/* NULL: there is no such process any more. Takes @pidfd. */
static struct guest *guest_add(struct guests *g, const char *vm, uint64_t gen, int32_t pid, int pidfd)
{
	struct guest *guest;

	if (pidfd < 0)
		return NULL;
	guest = xcalloc(1, sizeof *guest);
	*guest = (struct guest){.all = g, .next = g->list, .gen = gen, .pid = pid, .pidfd = pidfd};
	(void)snprintf(guest->vm, sizeof guest->vm, "%s", vm);
	g->list = guest;
	CHECK(uv_poll_init(g->loop, &guest->poll, pidfd) == 0);
	guest->poll.data = guest;
	CHECK(uv_poll_start(&guest->poll, UV_READABLE, gone_cb) == 0);
	return guest;
}

/* ---- events of the module ---- */

static void started(struct guests *g, const struct hypervisor_event *ev)
{
	struct guest *guest = guest_add(g, ev->vm, ev->gen, ev->pid, process_open(ev->pid));
	uint64_t start_time = process_start_time(ev->pid);

	if (!guest || start_time == 0) {
		if (guest)
			guest_release(guest);
		node_vm_ended(g->node, ev->vm, ev->gen, "its process ended at once");
		return;
	}
	memcpy(guest->sizes, ev->sizes, sizeof guest->sizes);
	log_info("vm %s: created, process %d (generation %llu)", ev->vm, (int)ev->pid, (unsigned long long)ev->gen);
	node_vm_started(g->node, ev->vm, ev->gen, ev->pid, start_time);
}

/* A guest that libvirt cannot continue would stand for ever: it is ended, and starts again. */
static void resumed(struct guests *g, const struct hypervisor_event *ev)
{
	struct guest *guest = find(g, ev->vm, ev->gen);

	if (ev->code == 0) {
		if (guest && !guest->resumed)
			log_info("vm %s: runs", ev->vm);
		if (guest)
			guest->resumed = true;
		return;
	}
	log_error("vm %s: cannot be continued: %s", ev->vm, ev->text);
	guests_kill(g, ev->vm, ev->gen);
}

static void ready(struct guests *g, const struct hypervisor_event *ev)
{
	if (ev->code < 0) {
		log_error("hypervisor: this node runs no VMs: %s", ev->text);
		return;
	}
	g->info.runs_vms = true;
	memcpy(g->info.accel, ev->accel, sizeof g->info.accel);
	memcpy(g->info.version, ev->version, sizeof g->info.version);
	log_info("hypervisor: %s, accelerator %s%s%s", ev->version, ev->accel, ev->text[0] ? ": " : "", ev->text);
}

static bool has_disks(const struct guests *g, const char *vm)
{
	struct store_vm row = {0};
	size_t n;

	(void)snprintf(row.spec.name, sizeof row.spec.name, "%s", vm);
	(void)node_disks(g->node, &row, &n);
	return n > 0;
}

static void resized(struct guests *g, const struct hypervisor_event *ev)
{
	struct guest *guest = find(g, ev->vm, ev->gen);

	if (!guest)
		return;
	guest->resizing = false;
	if (ev->code == 0)
		memcpy(guest->sizes, ev->sizes, sizeof guest->sizes);
	else
		log_info("vm %s: its QEMU does not take the new size of a disk yet: %s", ev->vm, ev->text);
}

/* The generation is not in the event: the one that runs is meant. */
static void paused(struct guests *g, const struct hypervisor_event *ev)
{
	for (struct guest *i = g->list; i; i = i->next)
		if (!i->gone && strcmp(i->vm, ev->vm) == 0 && has_disks(g, ev->vm)) {
			if (i->resumed)
				log_warning("vm %s: paused, since a disk is not served", i->vm);
			i->resume_until = USEC_INFINITY;
		}
}

static void handle(struct guests *g, const struct hypervisor_event *ev)
{
	switch (ev->kind) {
	case HYPERVISOR_READY:
		ready(g, ev);
		break;
	case HYPERVISOR_STARTED:
		started(g, ev);
		break;
	case HYPERVISOR_START_FAILED:
		log_error("vm %s: cannot be started: %s", ev->vm, ev->text);
		node_vm_ended(g->node, ev->vm, ev->gen, ev->text);
		break;
	case HYPERVISOR_RESUMED:
		resumed(g, ev);
		break;
	case HYPERVISOR_SHUTDOWN:
		if (ev->code < 0)
			log_warning("vm %s: its power button cannot be pressed: %s", ev->vm, ev->text);
		break;
	case HYPERVISOR_PAUSED:
		paused(g, ev);
		break;
	case HYPERVISOR_RESIZED:
		resized(g, ev);
		break;
	case HYPERVISOR_FORGOTTEN:
		break;
	}
}

static void wake_cb(uv_async_t *wake)
{
	struct guests *g = wake->data;
	struct hypervisor_event ev;

	while (g->ops->poll(g->hypervisor, &ev))
		handle(g, &ev);
}

/* [any] */
static void notify(void *ctx)
{
	(void)uv_async_send(&((struct guests *)ctx)->wake);
}

/* ---- opening ---- */

static int load_module(struct guests *g, struct err *e)
{
	char path[PATH_BYTES_MAX];
	int rc = spawn_beside(HYPERVISOR_MODULE, path, e);

	if (rc < 0)
		return rc;
	g->module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!g->module)
		return err_set(e, -ENOENT, "load the hypervisor module: %s", dlerror());
	g->ops = dlsym(g->module, HYPERVISOR_SYMBOL);
	if (!g->ops || g->ops->version != HYPERVISOR_VERSION)
		return err_set(e, -EINVAL, "load the hypervisor module: '%s' is of another release", path);
	return 0;
}

static int connect_hypervisor(struct guests *g, const struct config *config, struct err *e)
{
	struct hypervisor_config hc = {0};

	memcpy(hc.uri, config->uri, sizeof hc.uri);
	memcpy(hc.accel, config->accel, sizeof hc.accel);
	(void)snprintf(hc.root, sizeof hc.root, "%.900s/libvirt", config->dir);
	volumes_socket(config, hc.nbd_socket);
	hc.reconnect = config->reconnect;
	(void)snprintf(hc.console_dir, sizeof hc.console_dir, "%.900s/console", config->dir);
	if (strncmp(config->uri, "qemu:///embed", strlen("qemu:///embed")) == 0)
		(void)snprintf(g->root, sizeof g->root, "%s/", hc.root);
	return g->ops->open(&hc, notify, g, &g->hypervisor, e);
}

int guests_open(struct uv_loop_s *loop, const struct config *config, struct guard_page *page, struct guard_link *guard,
		struct guests **ret, struct err *e)
{
	struct guests *g = xcalloc(1, sizeof *g);
	int rc = 0;

	g->loop = loop;
	g->page = page;
	g->guard = guard;
	CHECK(uv_async_init(loop, &g->wake, wake_cb) == 0);
	g->wake.data = g;
	*ret = g;
	if (strcmp(config->uri, "none") == 0)
		return 0;
	g->info.memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	g->info.cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	rc = load_module(g, e);
	return rc < 0 ? rc : connect_hypervisor(g, config, e);
}

/* ---- L17 ---- */

static bool has_slot(const struct guests *g, int32_t pid)
{
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (g->page->slots[i].vm[0] && atomic_load(&g->page->slots[i].pid) == (uint64_t)pid)
			return true;
	return false;
}

static void end_stray(struct guests *g, int32_t pid)
{
	int pidfd = has_slot(g, pid) ? -1 : process_open(pid);

	if (pidfd < 0)
		return;
	log_warning("process %d runs a guest without a slot of the guard: ended", (int)pid);
	(void)process_signal(pidfd, SIGKILL);
	(void)close(pidfd);
}

/* By the list of libvirt, and by /proc: a QEMU may have been made just before the agent died. */
static void end_strays(struct guests *g)
{
	struct hypervisor_found *found = xcalloc(VMS_MAX, sizeof *found);
	int32_t *pids = xcalloc(VMS_MAX, sizeof *pids);
	size_t n = g->ops->found(g->hypervisor, found, VMS_MAX);

	for (size_t i = 0; i < n; i++) {
		if (!has_slot(g, found[i].pid))
			g->ops->forget(g->hypervisor, found[i].vm, 0);
		end_stray(g, found[i].pid);
	}
	n = g->root[0] ? process_find_guests(g->root, pids, VMS_MAX) : 0;
	for (size_t i = 0; i < n; i++)
		end_stray(g, pids[i]);
	free(found);
	free(pids);
}

static void give_back(struct guests *g, size_t slot)
{
	struct guard_slot *s = &g->page->slots[slot];

	if (g->ops)
		g->ops->forget(g->hypervisor, s->vm, atomic_load(&s->gen));
	guard_link_drop(g->guard, slot);
	atomic_store(&s->order, 0);
	memset(s->vm, 0, sizeof s->vm);
}

static void adopt_slot(struct guests *g, size_t slot)
{
	struct guard_slot *s = &g->page->slots[slot];
	int32_t pid = (int32_t)atomic_load(&s->pid);
	int pidfd = process_open(pid);
	struct guest *guest;

	if (pidfd < 0 || process_start_time(pid) != atomic_load(&s->start_time)) {
		if (pidfd >= 0)
			(void)close(pidfd);
		give_back(g, slot);
		return;
	}
	guest = guest_add(g, s->vm, atomic_load(&s->gen), pid, pidfd);
	CHECK(guest != NULL);
	guard_link_keep(g->guard, slot, pidfd);
	node_adopt(g->node, slot, pid);
	log_info("vm %s: process %d goes on (generation %llu)", guest->vm, (int)pid, (unsigned long long)guest->gen);
}

void guests_adopt(struct guests *g, struct node *node)
{
	g->node = node;
	if (g->ops)
		end_strays(g);
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (g->page->slots[i].vm[0])
			adopt_slot(g, i);
}

void guests_info(const struct guests *g, struct peer_node_info *ret)
{
	*ret = g->info;
	ret->guard_realtime = guard_link_is_realtime(g->guard);
	(void)snprintf(ret->agent_version, sizeof ret->agent_version, "%s", version_own());
	guard_link_version(g->guard, ret->guard_version, sizeof ret->guard_version);
}

/* ---- effects ---- */

/* A disk is called by what stands behind the VM's name. */
static void add_disks(const struct guests *g, const struct store_vm *vm, const struct volumes *volumes,
		      struct hypervisor_vm *ret)
{
	size_t n;
	const struct store_volume *disks = node_disks(g->node, vm, &n);

	for (size_t i = 0; i < n && i < VM_DISKS_MAX; i++) {
		const char *dot = strrchr(disks[i].name, '.');
		struct hypervisor_disk *d = &ret->disks[ret->n_disks++];

		memcpy(d->volume, disks[i].name, sizeof d->volume);
		(void)snprintf(d->serial, sizeof d->serial, "%.20s", dot ? dot + 1 : disks[i].name);
		d->size = volumes_size(volumes, &disks[i]);
	}
}

void guests_start(struct guests *g, const struct store_vm *vm, const char *seed, const struct volumes *volumes)
{
	struct hypervisor_vm v = {.vcpus = vm->spec.vcpus, .memory_bytes = vm->spec.memory_bytes};

	CHECK(g->ops != NULL); /* the leader places nothing on a node without runs_vms */
	memcpy(v.name, vm->spec.name, sizeof v.name);
	memcpy(v.uuid, vm->spec.uuid, sizeof v.uuid);
	memcpy(v.machine, vm->spec.machine, sizeof v.machine);
	memcpy(v.kernel, vm->spec.kernel, sizeof v.kernel);
	memcpy(v.initrd, vm->spec.initrd, sizeof v.initrd);
	memcpy(v.cmdline, vm->spec.cmdline, sizeof v.cmdline);
	(void)snprintf(v.seed, sizeof v.seed, "%s", seed);
	add_disks(g, vm, volumes, &v);
	log_info("vm %s: starting generation %llu", v.name, (unsigned long long)vm->gen);
	g->ops->start(g->hypervisor, &v, vm->gen);
}

void guests_resume(struct guests *g, const char *vm, uint64_t gen)
{
	if (g->ops)
		g->ops->resume(g->hypervisor, vm, gen);
}

static bool may_resume(const struct guests *g, const struct guest *guest, const struct volumes *volumes)
{
	struct store_vm row = {0};

	for (size_t i = 0; i < SLOTS_MAX; i++) {
		const struct guard_slot *s = &g->page->slots[i];

		if (strcmp(s->vm, guest->vm) != 0 || atomic_load(&s->gen) != guest->gen)
			continue;
		memcpy(row.spec.name, guest->vm, sizeof row.spec.name);
		return atomic_load(&s->state) == GUARD_RUNNING && volumes_serve(volumes, &row);
	}
	return false;
}

static void resume_step(struct guests *g, struct guest *i, const struct volumes *volumes, usec_t now)
{
	if (now >= i->resume_until || now < i->next_resume)
		return;
	i->next_resume = now + RESUME_EVERY;
	if (!may_resume(g, i, volumes))
		return;
	if (i->resume_until == USEC_INFINITY)
		i->resume_until = now + RESUME_FOR;
	g->ops->resume(g->hypervisor, i->vm, i->gen);
}

/* Has a disk grown since its QEMU was told? Then @ret has all their sizes. */
static bool has_grown(const struct guests *g, const struct guest *i, const struct volumes *volumes,
		      struct hypervisor_vm *ret)
{
	struct store_vm row = {0};
	size_t n;
	const struct store_volume *disks;
	bool grown = false;

	memcpy(row.spec.name, i->vm, sizeof row.spec.name);
	memcpy(ret->name, i->vm, sizeof ret->name);
	disks = node_disks(g->node, &row, &n);
	for (size_t k = 0; k < n && k < VM_DISKS_MAX; k++) {
		ret->disks[k].size = volumes_size(volumes, &disks[k]);
		if (ret->disks[k].size == 0)
			return false; /* the engine has not told it yet */
		ret->n_disks++;
		grown |= ret->disks[k].size > i->sizes[k];
	}
	return grown;
}

/* The engine made QEMU connect anew, where it learned the size; the guest learns it when QEMU is told. */
static void resize_step(struct guests *g, struct guest *i, const struct volumes *volumes, usec_t now)
{
	struct hypervisor_vm vm = {0};

	if (i->resizing || now < i->resume_until || now < i->next_resize)
		return;
	i->next_resize = now + RESIZE_EVERY;
	if (!may_resume(g, i, volumes) || !has_grown(g, i, volumes, &vm))
		return;
	i->resizing = true;
	g->ops->resize(g->hypervisor, &vm, i->gen);
}

void guests_step(struct guests *g, const struct volumes *volumes)
{
	usec_t now = clock_boottime();

	for (struct guest *i = g->list; i; i = i->next) {
		if (i->gone)
			continue;
		resume_step(g, i, volumes, now);
		resize_step(g, i, volumes, now);
	}
}

void guests_shutdown(struct guests *g, const char *vm, uint64_t gen)
{
	log_info("vm %s: asked to shut down", vm);
	if (g->ops)
		g->ops->shutdown(g->hypervisor, vm, gen);
}

void guests_kill(struct guests *g, const char *vm, uint64_t gen)
{
	struct guest *guest = find(g, vm, gen);

	if (!guest)
		return; /* gone already: its end is on the way */
	log_info("vm %s: ending process %d (generation %llu)", vm, (int)guest->pid, (unsigned long long)gen);
	(void)process_signal(guest->pidfd, SIGKILL);
}

void guests_forget(struct guests *g, const char *vm, uint64_t gen)
{
	if (g->ops)
		g->ops->forget(g->hypervisor, vm, gen);
}

void guests_watch(struct guests *g, size_t slot)
{
	struct guest *guest = find_slot(g, slot);

	CHECK(guest != NULL);
	guard_link_watch(g->guard, slot, guest->pidfd);
}

void guests_freeze(struct guests *g, size_t slot)
{
	struct guest *guest = find_slot(g, slot);

	if (!guest)
		return;
	log_warning("vm %s: frozen by the agent, the guard being gone", guest->vm);
	if (process_signal(guest->pidfd, SIGSTOP) < 0)
		(void)process_signal(guest->pidfd, SIGKILL);
}

void guests_close(struct guests *g)
{
	if (g->ops && g->hypervisor)
		g->ops->close(g->hypervisor);
	g->hypervisor = NULL;
	g->ops = NULL;
	for (struct guest *i = g->list; i; i = i->next)
		guest_release(i);
	uv_close((uv_handle_t *)&g->wake, NULL);
}

struct guests *guests_free(struct guests *g)
{
	if (g)
		CHECK(g->list == NULL);
	free(g); /* the module stays loaded: a lane may still hang in libvirt */
	return NULL;
}
