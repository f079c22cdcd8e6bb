/* SPDX-License-Identifier: Apache-2.0
 * The trial of KVM that `auto` decides by. */
#ifndef KEDGE_HYPERVISOR_PROBE_H
#define KEDGE_HYPERVISOR_PROBE_H

#include "base/base.h"

#include <stdatomic.h>

struct probe {
	const char *accel;          /* kvm; tests try tcg too */
	const char *machine;        /* QEMU's name of it */
	const char *kernel;         /* NULL: the newest in /boot */
	usec_t patience;            /* for the guest to come up */
	const _Atomic bool *cancel; /* give up when it becomes true */
};

/* [worker] Can guests run by KVM here? Opens /dev/kvm, then boots a kernel. False: @why says why not. */
bool probe_kvm(const struct probe *p, char *why, size_t size);

/* [worker] Boot p->kernel with nothing else and see whether it gets as far as missing its root. */
bool probe_boot(const struct probe *p, char *why, size_t size);

#endif
