/* SPDX-License-Identifier: Apache-2.0
 * libvirt itself, and the event loop that it needs. */
#ifndef KEDGE_HYPERVISOR_LOOP_H
#define KEDGE_HYPERVISOR_LOOP_H

#include "hypervisor/internal.h"

/* [loop] Initialise libvirt, keep it off our stderr, and run its event loop on a thread. 0 or a negative errno. */
int loop_start(struct hypervisor *h);

/* [loop] End the thread. False: it still runs, and uses @h. */
bool loop_stop(struct hypervisor *h);

#endif
