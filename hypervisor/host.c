/* SPDX-License-Identifier: Apache-2.0
 * What this machine can: asked once, on a thread of its own, before READY. */
#include "hypervisor/internal.h"

#include "hypervisor/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_MAX   (20 * USEC_PER_SEC)
#define VERSION_MAX (5 * USEC_PER_SEC)

static bool choose_kvm(struct hypervisor *h, char *why, size_t size)
{
	struct probe p = {.accel = "kvm", .machine = HYPERVISOR_MACHINE, .patience = PROBE_MAX, .cancel = &h->stopping};
	char reason[200];

	if (strcmp(h->config.accel, "auto") != 0 || h->is_test)
		return strcmp(h->config.accel, "kvm") == 0;
	if (probe_kvm(&p, reason, sizeof reason))
		return true;
	(void)snprintf(why, size, "no KVM: %s", reason);
	return false;
}

/* libvirt asks QEMU what it can at the first time, for seconds: better now than in a failover. Returns the XML that
 * tells it, or NULL. */
static char *warm_capabilities(struct hypervisor *h, bool is_kvm, struct hypervisor_event *ev)
{
	const char *type = is_kvm ? "kvm" : "qemu";
	char *xml = virConnectGetDomainCapabilities(h->conn, NULL, "x86_64", HYPERVISOR_MACHINE, type, 0);
	char reason[200];

	if (xml)
		return xml;
	ev->code = -ENOTSUP;
	hypervisor_error(reason, sizeof reason);
	(void)snprintf(ev->text, sizeof ev->text, "no VMs: %s", reason);
	return NULL;
}

/* "10.0.2". virConnectGetVersion() would probe the QEMUs of other architectures too, for seconds. */
static void qemu_version(const char *capabilities, char *ret, size_t size)
{
	static const char tag[] = "<path>", words[] = "emulator version ";
	const char *at = strstr(capabilities, tag);
	char path[PATH_BYTES_MAX];
	const char *const argv[] = {path, "--version", NULL};
	struct child c = {.argv = argv, .patience = VERSION_MAX};
	struct buf out = {0};

	(void)snprintf(ret, size, "?");
	if (!at)
		return;
	at += strlen(tag);
	(void)snprintf(path, sizeof path, "%.*s", (int)strcspn(at, "<"), at);
	if (child_run(&c, &out) == 0 && (at = strstr((char *)out.data, words))) {
		at += strlen(words);
		(void)snprintf(ret, size, "%.*s", (int)strspn(at, "0123456789."), at);
	}
	buf_free(&out);
}

static void describe(const char *capabilities, struct hypervisor_event *ev)
{
	unsigned long libvirt = 0;
	char qemu[24] = "-";

	if (capabilities)
		qemu_version(capabilities, qemu, sizeof qemu);
	(void)virGetVersion(&libvirt, NULL, NULL);
	(void)snprintf(ev->version, sizeof ev->version, "QEMU %s, libvirt %lu.%lu.%lu", qemu, libvirt / 1000000,
		       libvirt / 1000 % 1000, libvirt % 1000);
}

void hypervisor_probe(struct hypervisor *h, void *unused)
{
	struct hypervisor_event ev = {.kind = HYPERVISOR_READY};
	bool is_kvm = choose_kvm(h, ev.text, sizeof ev.text);
	char *capabilities = h->is_test ? NULL : warm_capabilities(h, is_kvm, &ev);

	(void)unused;
	(void)snprintf(ev.accel, sizeof ev.accel, "%s", is_kvm ? "kvm" : "tcg");
	describe(capabilities, &ev);
	free(capabilities);
	hypervisor_lock(h);
	h->is_kvm = is_kvm;
	h->is_probed = true;
	CHECK(pthread_cond_broadcast(&h->changed) == 0);
	hypervisor_unlock(h);
	hypervisor_tell(h, &ev);
}
