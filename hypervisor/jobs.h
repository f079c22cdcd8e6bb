/* SPDX-License-Identifier: Apache-2.0
 * What can be done with one VM through libvirt. May hang in libvirt: on a lane only. */
#ifndef KEDGE_HYPERVISOR_JOBS_H
#define KEDGE_HYPERVISOR_JOBS_H

#include "hypervisor/internal.h"

/* [worker] Each fills kind, code, pid and text of @ev. */
void job_start(struct hypervisor *h, const struct hypervisor_vm *vm, struct hypervisor_event *ev);
void job_resume(struct hypervisor *h, const char *vm, struct hypervisor_event *ev);
void job_shutdown(struct hypervisor *h, const char *vm, struct hypervisor_event *ev);
void job_resize(struct hypervisor *h, const struct hypervisor_vm *vm, struct hypervisor_event *ev);
void job_forget(struct hypervisor *h, const char *vm, struct hypervisor_event *ev);

/* [worker] The process of @vm by libvirt's pid file, or 0. */
int32_t job_pid(const struct hypervisor *h, const char *vm);

/* [worker] Was @dom made by this node? A libvirtd may hold VMs of others, which are never touched. */
bool job_is_own(const struct hypervisor *h, virDomainPtr dom);

#endif
