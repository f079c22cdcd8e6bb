/* SPDX-License-Identifier: Apache-2.0
 * Whether a node's volume engine can be relied on. */
#include "agent/engine_health.h"

#include <string.h>

void engine_health_died(struct engine_health *h, usec_t now)
{
	usec_t first;

	memmove(&h->deaths[1], &h->deaths[0], sizeof h->deaths - sizeof h->deaths[0]);
	h->deaths[0] = now;
	first = h->deaths[ENGINE_DEATHS_MAX - 1];
	h->died_often |= first && now - first <= ENGINE_DEATHS_WITHIN;
}

void engine_health_present(struct engine_health *h, bool is_there, usec_t now)
{
	if (is_there)
		h->absent_since = 0;
	else if (h->absent_since == 0)
		h->absent_since = now;
}

bool engine_health_is_unsound(struct engine_health *h, usec_t now)
{
	if (h->died_often && now - h->deaths[0] > ENGINE_DEATHS_WITHIN)
		h->died_often = false;
	return h->died_often || (h->absent_since && now - h->absent_since > ENGINE_ABSENT_MAX);
}
