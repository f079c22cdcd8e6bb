/* SPDX-License-Identifier: Apache-2.0
 * One thread and one queue per VM: a libvirt call that hangs on one guest holds up nothing else. */
#ifndef KEDGE_HYPERVISOR_LANE_H
#define KEDGE_HYPERVISOR_LANE_H

#include "hypervisor/internal.h"

enum lane_job { LANE_START, LANE_RESUME, LANE_SHUTDOWN, LANE_RESIZE, LANE_FORGET };

/* [loop] Queue @job on the lane of @vm; its result comes as an event. @spec: of LANE_START and LANE_RESIZE, else NULL.
 */
void lane_add(struct hypervisor *h, enum lane_job job, const char *vm, uint64_t gen, const struct hypervisor_vm *spec);

#endif
