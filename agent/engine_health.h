/* SPDX-License-Identifier: Apache-2.0
 * Whether a node's volume engine can be relied on: one that dies or hangs again and again, or does not come, cannot
 * (DESIGN, section 2). It heals by itself. A pure decision: events and the time go in. */
#ifndef KEDGE_AGENT_ENGINE_HEALTH_H
#define KEDGE_AGENT_ENGINE_HEALTH_H

#include "base/base.h"

#define ENGINE_DEATHS_MAX    3
#define ENGINE_DEATHS_WITHIN (600 * USEC_PER_SEC)
/* A new engine listens within a second, also on a slow machine; and a guest has waited for its disk all the while. */
#define ENGINE_ABSENT_MAX (60 * USEC_PER_SEC)

/* Times are of the boot time's clock. All zeroes but absent_since: an engine of which nothing is known. */
struct engine_health {
	usec_t deaths[ENGINE_DEATHS_MAX]; /* the last ones, the latest first; 0: none */
	bool died_often;                  /* until none has died for ENGINE_DEATHS_WITHIN */
	usec_t absent_since;              /* 0: it is there */
};

/* [any] The engine died or hung, not by our own will. */
void engine_health_died(struct engine_health *h, usec_t now);

/* [any] It is there, or it is not; again and again, or once. */
void engine_health_present(struct engine_health *h, bool is_there, usec_t now);

/* [any] Shall VMs with disks be elsewhere? */
bool engine_health_is_unsound(struct engine_health *h, usec_t now);

#endif
