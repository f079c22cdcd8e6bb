/* SPDX-License-Identifier: Apache-2.0
 * Every time that safety or failover speed rests on. One base per profile, the rest derived and asserted here.
 *
 * The worst case, walked for the profile lan (ms), owner and raft leader dying at 0 together; the same line is walked
 * by tests/unit/test_timing.c:
 *
 *      0  owner dies; its last grant may have been made up to INFLIGHT later than the instant we count from
 *    640  a voter is leader (ELECT 560 + POLL 50 + margin), 790 barrier and ages known: hidden behind TAKEOVER
 *   2140  HEAR 1500 after that: a node that lives has asked the new leader; hidden too (after an outage longer than
 *         TAKEOVER, when every guest stands still anyway, it is 5000: nodes and switches do not come back at once)
 *   2430  INFLIGHT 20 + TAKEOVER 2410 are over: no guest of the owner executes any more (P2)
 *   2480  decided (DECIDE 50)
 *   2580  MOVE committed (COMMIT 100)
 *   2640  applied at the destination (LEARN: one heartbeat and some)
 *   2790  disks promoted (PROMOTE 150)
 *   2840  `started` saved (SAVE 50)
 *   3740  QEMU runs (START 900)
 */
#ifndef KEDGE_BASE_TIMING_H
#define KEDGE_BASE_TIMING_H

#include "base/types.h"

#define DRIFT_PPM 1000 /* bound on the rate error of any node's clock */

#define GUARD_BEAT  (50 * USEC_PER_MS)  /* the guard shows that it lives */
#define ENGINE_HUNG (10 * USEC_PER_SEC) /* the volume engine is replaced when its I/O loop is silent for so long */
#define GUARD_LATE  (200 * USEC_PER_MS) /* without a beat for this long it counts as gone (L18) */

#define COLD_WAIT (120 * USEC_PER_SEC) /* after a power loss, for in-sync replicas that do not report (V27) */

/* profile lan */
#define LAN_ELECTION_MS   300
#define LAN_HEARTBEAT_MS  50
#define LAN_POLL_MS       50
#define LAN_RENEW_MS      200
#define LAN_G_MS          20
#define LAN_BARRIER_MS    100
#define LAN_LEASE_MS      2100
#define LAN_FREEZE_MAX_MS 300
#define LAN_ELECT_MS      1660 /* ROOM: the longest election that freezes nobody */
#define LAN_HEAR_MS       1500 /* about the longest until a link is dialled again */
#define LAN_HEAR_OUT_MS   5000 /* the same when every lease was over: nodes come back one after the other */
#define LAN_LEADER_MS     640  /* from the old leader's death, in the median */

/* Smallest whole number of ms with TAKEOVER >= (LEASE + FREEZE_MAX) * (1 + d) / (1 - d) + 1, up to the next 10. */
#define TIMING_TAKEOVER_MS(lease, freeze, ppm) \
	((((lease) + (freeze)) * (1000000ULL + (ppm)) / (1000000ULL - (ppm)) + 2 + 9) / 10 * 10)
#define LAN_TAKEOVER_MS TIMING_TAKEOVER_MS(LAN_LEASE_MS, LAN_FREEZE_MAX_MS, DRIFT_PPM)

#define TIMING_IS_SAFE(lease, freeze, takeover, ppm) \
	(((takeover)-1) * (1000000ULL - (ppm)) >= ((lease) + (freeze)) * (1000000ULL + (ppm)))
#define TIMING_BEARS_ELECTION(lease, renew, g, elect, poll, hb, barrier) \
	((lease) >= (renew) + (g) + (elect) + (poll) + (hb) + (barrier) + (g))

_Static_assert(TIMING_IS_SAFE(LAN_LEASE_MS, LAN_FREEZE_MAX_MS, LAN_TAKEOVER_MS, DRIFT_PPM), "lan: P2 would not hold");
_Static_assert(LAN_TAKEOVER_MS == 2410, "lan: as walked above");
_Static_assert(TIMING_BEARS_ELECTION(LAN_LEASE_MS, LAN_RENEW_MS, LAN_G_MS, LAN_ELECT_MS, LAN_POLL_MS, LAN_HEARTBEAT_MS,
				     LAN_BARRIER_MS),
	       "lan: a usual election would freeze healthy nodes");
_Static_assert(LAN_LEADER_MS + LAN_HEAR_MS <= LAN_TAKEOVER_MS, "lan: HEAR would make a usual failover slower");

/* All in microseconds but the two that go to libraft, which are in its milliseconds. */
struct timing {
	const char *profile;
	unsigned election_ms;
	unsigned heartbeat_ms;
	usec_t poll;        /* how often a change of raft's state is looked for */
	usec_t renew;       /* a node asks for its lease this often */
	usec_t lease;       /* counted from the sending of the request (L1) */
	usec_t freeze_max;  /* the guard freezes within this after the deadline */
	usec_t takeover;    /* the leader waits this long after the last grant (L8) */
	usec_t hear;        /* a new leader takes nothing from a node that had no time yet to ask it: not for safety */
	usec_t hear_outage; /* the same after so long without a majority that all nodes froze: a switch that reboots
			     * shall cost a pause and no restart */
	unsigned drift_ppm;
};

extern const struct timing timing_lan;

/* [any] True if @t keeps P2: takeover >= (lease + freeze_max) * (1+d)/(1-d) + 1 ms. */
bool timing_is_safe(const struct timing *t);

/* [any] The profile called @name, or NULL. */
const struct timing *timing_by_name(const char *name);

#endif
