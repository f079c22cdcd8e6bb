/* SPDX-License-Identifier: Apache-2.0
 * The definition of a domain. What the guest sees comes from the VM's row, so that it is the same on every node; only
 * with KVM its CPU is the one of the machine, which a guest that boots anew can bear.
 */
#include "hypervisor/domain_xml.h"

#include <libxml/tree.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES (CMDLINE_BYTES_MAX + 16)

/* A child with text, or without when @fmt is NULL; libxml2 escapes it. */
static xmlNodePtr child(xmlNodePtr parent, const char *name, const char *fmt, ...) KEDGE_PRINTF(3, 4);

static xmlNodePtr child(xmlNodePtr parent, const char *name, const char *fmt, ...)
{
	char text[TEXT_BYTES] = "";
	va_list ap;

	if (fmt) {
		va_start(ap, fmt);
		(void)vsnprintf(text, sizeof text, fmt, ap);
		va_end(ap);
	}
	return xmlNewTextChild(parent, NULL, BAD_CAST name, fmt ? BAD_CAST text : NULL);
}

static void attribute(xmlNodePtr node, const char *name, const char *value)
{
	(void)xmlNewProp(node, BAD_CAST name, BAD_CAST value);
}

static void add_identity(xmlNodePtr domain, const struct hypervisor_vm *vm, const struct domain_place *place)
{
	xmlNodePtr memory;

	attribute(domain, "type", place->type);
	(void)child(domain, "name", "%s", vm->name);
	(void)child(domain, "uuid", "%s", vm->uuid);
	(void)child(domain, "title", "%s", place->title);
	memory = child(domain, "memory", "%llu", (unsigned long long)vm->memory_bytes);
	attribute(memory, "unit", "bytes");
	(void)child(domain, "vcpu", "%u", vm->vcpus);
}

static void add_boot(xmlNodePtr domain, const struct hypervisor_vm *vm)
{
	xmlNodePtr os = child(domain, "os", NULL), type = child(os, "type", "hvm");

	attribute(type, "arch", "x86_64");
	attribute(type, "machine", vm->machine);
	if (vm->kernel[0])
		(void)child(os, "kernel", "%s", vm->kernel);
	if (vm->initrd[0])
		(void)child(os, "initrd", "%s", vm->initrd);
	if (vm->cmdline[0])
		(void)child(os, "cmdline", "%s", vm->cmdline);
	if (!vm->kernel[0])
		attribute(child(os, "boot", NULL), "dev", "hd");
}

/* ACPI and APIC: without them virtio disks hang in the guest, and the power button reaches nobody. */
static void add_hardware(xmlNodePtr domain, bool is_kvm)
{
	xmlNodePtr features = child(domain, "features", NULL), cpu, clock;

	(void)child(features, "acpi", NULL);
	(void)child(features, "apic", NULL);
	if (is_kvm) {
		cpu = child(domain, "cpu", NULL);
		attribute(cpu, "mode", "host-passthrough");
		attribute(cpu, "migratable", "on");
	}
	clock = child(domain, "clock", NULL);
	attribute(clock, "offset", "utc");
	(void)child(domain, "on_poweroff", "destroy");
	(void)child(domain, "on_reboot", "restart");
	(void)child(domain, "on_crash", "destroy");
}

/* An error, and there is one only where the engine is gone, pauses the guest, which never hears of it. libvirt from 9.2
 * on lets QEMU's client connect anew by itself, an older one takes no notice of that. */
static void add_disk(xmlNodePtr devices, const struct hypervisor_disk *disk, size_t i, const struct domain_place *place)
{
	char delay[16];
	xmlNodePtr node = child(devices, "disk", NULL), driver, source, host, target;
	const char name[] = {'v', 'd', (char)('a' + i), 0};

	attribute(node, "type", "network");
	attribute(node, "device", "disk");
	driver = child(node, "driver", NULL);
	attribute(driver, "name", "qemu");
	attribute(driver, "type", "raw");
	attribute(driver, "cache", "none");
	attribute(driver, "error_policy", "stop");
	attribute(driver, "rerror_policy", "stop");
	attribute(driver, "discard", "unmap");
	source = child(node, "source", NULL);
	attribute(source, "protocol", "nbd");
	attribute(source, "name", disk->volume);
	host = child(source, "host", NULL);
	attribute(host, "transport", "unix");
	attribute(host, "socket", place->nbd_socket);
	(void)snprintf(delay, sizeof delay, "%u", place->reconnect);
	if (place->reconnect)
		attribute(child(source, "reconnect", NULL), "delay", delay);
	target = child(node, "target", NULL);
	attribute(target, "dev", name);
	attribute(target, "bus", "virtio");
	(void)child(node, "serial", "%s", disk->serial);
}

/* On virtio too: kernels for clouds know no other disks. */
static void add_seed(xmlNodePtr devices, const char *path, size_t i)
{
	xmlNodePtr node = child(devices, "disk", NULL), driver, target;
	const char name[] = {'v', 'd', (char)('a' + i), 0};

	attribute(node, "type", "file");
	attribute(node, "device", "disk");
	driver = child(node, "driver", NULL);
	attribute(driver, "name", "qemu");
	attribute(driver, "type", "raw");
	attribute(child(node, "source", NULL), "file", path);
	target = child(node, "target", NULL);
	attribute(target, "dev", name);
	attribute(target, "bus", "virtio");
	(void)child(node, "readonly", NULL);
	(void)child(node, "serial", "cidata");
}

/* The serial port is the console (libvirt adds the alias); what libvirt would add by itself is said to be absent. */
static void add_devices(xmlNodePtr domain, const struct hypervisor_vm *vm, const struct domain_place *place)
{
	xmlNodePtr devices = child(domain, "devices", NULL), node, source;

	node = child(devices, "controller", NULL);
	attribute(node, "type", "usb");
	attribute(node, "model", "none");
	for (size_t i = 0; i < vm->n_disks; i++)
		add_disk(devices, &vm->disks[i], i, place);
	if (vm->seed[0])
		add_seed(devices, vm->seed, vm->n_disks);
	node = child(devices, "serial", NULL);
	attribute(node, "type", "file");
	source = child(node, "source", NULL);
	attribute(source, "path", place->console);
	attribute(source, "append", "on");
	attribute(child(node, "target", NULL), "port", "0");
	node = child(devices, "memballoon", NULL);
	attribute(node, "model", "none");
	node = child(devices, "video", NULL);
	attribute(child(node, "model", NULL), "type", "none");
}

/* libxml2 would write what is no text cut short, without saying so. */
static bool is_text(const char *s)
{
	for (const char *c = s; *c; c++)
		if ((unsigned char)*c < ' ' && *c != '\t' && *c != '\n')
			return false;
	return xmlCheckUTF8((const unsigned char *)s);
}

static bool can_be_written(const struct hypervisor_vm *vm, const struct domain_place *place)
{
	const char *const all[] = {vm->name,    vm->uuid, vm->machine,  vm->kernel,    vm->initrd,
				   vm->cmdline, vm->seed, place->title, place->console};

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (!is_text(all[i]))
			return false;
	return true;
}

char *domain_xml(const struct hypervisor_vm *vm, const struct domain_place *place)
{
	xmlDocPtr doc = can_be_written(vm, place) ? xmlNewDoc(BAD_CAST "1.0") : NULL;
	xmlNodePtr domain = doc ? xmlNewNode(NULL, BAD_CAST "domain") : NULL;
	xmlChar *text = NULL;
	char *ret = NULL;

	if (domain) {
		(void)xmlDocSetRootElement(doc, domain);
		add_identity(domain, vm, place);
		add_boot(domain, vm);
		add_hardware(domain, strcmp(place->type, "kvm") == 0);
		add_devices(domain, vm, place);
		xmlDocDumpMemory(doc, &text, NULL);
	}
	if (text)
		ret = strdup((char *)text);
	xmlFree(text);
	if (doc)
		xmlFreeDoc(doc);
	return ret;
}
