/* SPDX-License-Identifier: Apache-2.0
 * Timing profiles. */
#include "base/timing.h"

#include <string.h>

const struct timing timing_lan = {
	.profile = "lan",
	.election_ms = LAN_ELECTION_MS,
	.heartbeat_ms = LAN_HEARTBEAT_MS,
	.poll = LAN_POLL_MS * USEC_PER_MS,
	.renew = LAN_RENEW_MS * USEC_PER_MS,
	.lease = LAN_LEASE_MS * USEC_PER_MS,
	.freeze_max = LAN_FREEZE_MAX_MS * USEC_PER_MS,
	.takeover = LAN_TAKEOVER_MS * USEC_PER_MS,
	.hear = LAN_HEAR_MS * USEC_PER_MS,
	.hear_outage = LAN_HEAR_OUT_MS * USEC_PER_MS,
	.drift_ppm = DRIFT_PPM,
};

bool timing_is_safe(const struct timing *t)
{
	usec_t frozen = t->lease + t->freeze_max;

	if (t->takeover < USEC_PER_MS || t->drift_ppm >= 500000)
		return false;
	return (t->takeover - USEC_PER_MS) * (1000000ULL - t->drift_ppm) >= frozen * (1000000ULL + t->drift_ppm);
}

const struct timing *timing_by_name(const char *name)
{
	return strcmp(name, timing_lan.profile) == 0 ? &timing_lan : NULL;
}
