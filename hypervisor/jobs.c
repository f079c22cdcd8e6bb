/* SPDX-License-Identifier: Apache-2.0
 * What can be done with one VM through libvirt. */
#include "hypervisor/jobs.h"

#include "hypervisor/domain_xml.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REMOVE_TRIES   10
#define REMOVE_PAUSE   (200 * USEC_PER_MS)
#define PROBE_PATIENCE (120 * USEC_PER_SEC)

int32_t job_pid(const struct hypervisor *h, const char *vm)
{
	char path[PATH_BYTES_MAX + NAME_BYTES_MAX + 32];
	struct buf text = {0};
	int32_t pid = 0;

	if (h->is_embedded)
		(void)snprintf(path, sizeof path, "%s/run/qemu/%s.pid", h->config.root, vm);
	else
		(void)snprintf(path, sizeof path, "/run/libvirt/qemu/%s.pid", vm);
	if (!h->is_test && file_read(path, 64, &text, NULL) == 0) {
		buf_append(&text, "", 1);
		pid = (int32_t)strtol((char *)text.data, NULL, 10);
	}
	buf_free(&text);
	return pid;
}

/* ---- whose ---- */

static void make_title(const struct hypervisor *h, char ret[DOMAIN_TITLE_BYTES_MAX])
{
	(void)snprintf(ret, DOMAIN_TITLE_BYTES_MAX, "kedge %s", h->config.root);
}

bool job_is_own(const struct hypervisor *h, virDomainPtr dom)
{
	char title[DOMAIN_TITLE_BYTES_MAX];
	char *found;
	bool own;

	if (h->is_embedded) /* the root is ours alone */
		return true;
	found = virDomainGetMetadata(dom, VIR_DOMAIN_METADATA_TITLE, NULL, VIR_DOMAIN_AFFECT_CURRENT);
	make_title(h, title);
	own = found && strcmp(found, title) == 0;
	free(found);
	return own;
}

/* The domain of @vm, or NULL: -ENOENT when there is none, -EEXIST when it is somebody else's, -EIO. */
static virDomainPtr find(const struct hypervisor *h, const char *vm, struct hypervisor_event *ev)
{
	virDomainPtr dom = virDomainLookupByName(h->conn, vm);
	const virError *error;

	ev->code = 0;
	if (!dom) {
		error = virGetLastError();
		ev->code = error && error->code == VIR_ERR_NO_DOMAIN ? -ENOENT : -EIO;
		hypervisor_error(ev->text, sizeof ev->text);
		return NULL;
	}
	if (job_is_own(h, dom))
		return dom;
	ev->code = -EEXIST;
	(void)snprintf(ev->text, sizeof ev->text, "libvirt has a VM '%s' that is not of this node (rename one of them)",
		       vm);
	(void)virDomainFree(dom);
	return NULL;
}

/* ---- the end ---- */

static void pause_for(usec_t usec)
{
	struct timespec t = {.tv_nsec = (long)usec * 1000};

	(void)nanosleep(&t, NULL);
}

/* The domains are transient: destroyed is forgotten. libvirt may be doing the same by itself, and then we fail. */
static void remove_domain(struct hypervisor *h, const char *vm, struct hypervisor_event *ev)
{
	for (int i = 0; i < REMOVE_TRIES && !h->stopping; i++) {
		virDomainPtr dom = find(h, vm, ev);

		if (!dom)
			break;
		if (virDomainDestroy(dom) < 0) {
			ev->code = -EBUSY;
			hypervisor_error(ev->text, sizeof ev->text);
		}
		(void)virDomainFree(dom);
		if (ev->code == 0)
			break;
		pause_for(REMOVE_PAUSE);
	}
	if (ev->code == -ENOENT)
		ev->code = 0;
	if (ev->code == 0)
		ev->text[0] = '\0';
}

void job_forget(struct hypervisor *h, const char *vm, struct hypervisor_event *ev)
{
	ev->kind = HYPERVISOR_FORGOTTEN;
	remove_domain(h, vm, ev);
}

/* ---- the beginning ---- */

static bool is_probed(const struct hypervisor *h)
{
	return h->is_probed || h->stopping;
}

/* Paused from its first instruction on (L13); the test driver cannot. False: @ev says why not. */
static bool create(struct hypervisor *h, const struct hypervisor_vm *vm, struct hypervisor_event *ev)
{
	struct domain_place place = {.type = h->is_test  ? "test"
					     : h->is_kvm ? "kvm"
							 : "qemu",
				     .nbd_socket = h->config.nbd_socket,
				     .reconnect = h->config.reconnect};
	virDomainPtr dom;
	char *xml;

	make_title(h, place.title);
	(void)snprintf(place.console, sizeof place.console, "%s/%s.log", h->config.console_dir, vm->name);
	xml = domain_xml(vm, &place);
	if (!xml) {
		(void)snprintf(
			ev->text, sizeof ev->text,
			"a path or the kernel command line is no text: UTF-8 without control characters is expected");
		return false;
	}
	dom = virDomainCreateXML(h->conn, xml, h->is_test ? 0 : VIR_DOMAIN_START_PAUSED);
	if (!dom)
		hypervisor_error(ev->text, sizeof ev->text);
	free(xml);
	if (!dom)
		return false;
	(void)virDomainFree(dom);
	ev->pid = job_pid(h, vm->name);
	if (ev->pid > 0 || h->is_test)
		return true;
	(void)snprintf(ev->text, sizeof ev->text, "it ended at once: libvirt has no process of it");
	return false;
}

/* What libvirt may still list under the name is an old instance whose process is gone. */
void job_start(struct hypervisor *h, const struct hypervisor_vm *vm, struct hypervisor_event *ev)
{
	struct hypervisor_event rest = {0};

	ev->kind = HYPERVISOR_START_FAILED;
	if (!hypervisor_wait(h, is_probed, PROBE_PATIENCE) || h->stopping) {
		ev->code = -EAGAIN;
		(void)snprintf(ev->text, sizeof ev->text, "it is not known yet whether KVM works here");
		return;
	}
	remove_domain(h, vm->name, ev);
	if (ev->code < 0)
		return;
	if (create(h, vm, ev)) {
		ev->kind = HYPERVISOR_STARTED;
		return;
	}
	ev->code = -EIO;
	ev->pid = 0;
	remove_domain(h, vm->name, &rest);
}

/* ---- in between ---- */

void job_resume(struct hypervisor *h, const char *vm, struct hypervisor_event *ev)
{
	virDomainPtr dom = find(h, vm, ev);
	int state = VIR_DOMAIN_NOSTATE;

	ev->kind = HYPERVISOR_RESUMED;
	if (!dom)
		return;
	(void)virDomainGetState(dom, &state, NULL, 0);
	if (state != VIR_DOMAIN_RUNNING && virDomainResume(dom) < 0) {
		ev->code = -EIO;
		hypervisor_error(ev->text, sizeof ev->text);
	}
	(void)virDomainFree(dom);
}

void job_shutdown(struct hypervisor *h, const char *vm, struct hypervisor_event *ev)
{
	virDomainPtr dom = find(h, vm, ev);

	ev->kind = HYPERVISOR_SHUTDOWN;
	if (!dom)
		return;
	if (virDomainShutdown(dom) < 0) {
		ev->code = -EIO;
		hypervisor_error(ev->text, sizeof ev->text);
	}
	(void)virDomainFree(dom);
}

/* A QEMU that has not connected anew since refuses, and is asked again. */
void job_resize(struct hypervisor *h, const struct hypervisor_vm *vm, struct hypervisor_event *ev)
{
	virDomainPtr dom = find(h, vm->name, ev);

	ev->kind = HYPERVISOR_RESIZED;
	if (!dom)
		return;
	for (size_t i = 0; i < vm->n_disks && ev->code == 0; i++) {
		const char target[] = {'v', 'd', (char)('a' + i), '\0'};

		if (virDomainBlockResize(dom, target, vm->disks[i].size, VIR_DOMAIN_BLOCK_RESIZE_BYTES) == 0)
			continue;
		if (virGetLastErrorCode() == VIR_ERR_INVALID_ARG)
			continue; /* the VM got this disk while it ran, and its guest will see it after the next start
				   */
		ev->code = -EIO;
		hypervisor_error(ev->text, sizeof ev->text);
	}
	(void)virDomainFree(dom);
}
