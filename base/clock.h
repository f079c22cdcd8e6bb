/* SPDX-License-Identifier: Apache-2.0
 * Clocks. Decisions take the time as an argument; only shells read one of these. */
#ifndef KEDGE_BASE_CLOCK_H
#define KEDGE_BASE_CLOCK_H

#include "base/types.h"

/* [any] CLOCK_BOOTTIME: counts suspend, never jumps. Every lease and deadline is in it. Comparable between the
 * processes of one boot, never between machines or boots. */
usec_t clock_boottime(void);

/* [any] Wall clock since 1970, for display and for entries the leader stamps. May jump; never decides anything. */
usec_t clock_wall(void);

/* [any] Write @wall as RFC 3339 in UTC, "2026-01-02T03:04:05.678Z", into @ret (at least 32 bytes). */
void clock_format(usec_t wall, char *ret, size_t size);

#endif
