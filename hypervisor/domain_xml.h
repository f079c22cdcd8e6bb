/* SPDX-License-Identifier: Apache-2.0
 * The definition of a domain. */
#ifndef KEDGE_HYPERVISOR_DOMAIN_XML_H
#define KEDGE_HYPERVISOR_DOMAIN_XML_H

#include "hypervisor/hypervisor.h"

#define DOMAIN_TITLE_BYTES_MAX (PATH_BYTES_MAX + 16)

/* What of a domain depends on the node. */
struct domain_place {
	const char *type;                                  /* kvm | qemu | test */
	char title[DOMAIN_TITLE_BYTES_MAX];                /* whose domain it is: one libvirtd may serve others too */
	char console[PATH_BYTES_MAX + NAME_BYTES_MAX + 8]; /* the file that the serial console is appended to */
	const char *nbd_socket;                            /* where its disks are served */
	uint32_t reconnect;                                /* seconds, 0: not at all */
};

/* [any] The definition of @vm for libvirt, to be freed. NULL when it cannot be written, being no UTF-8, or with
 * control characters. */
char *domain_xml(const struct hypervisor_vm *vm, const struct domain_place *place);

#endif
