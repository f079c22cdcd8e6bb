/* SPDX-License-Identifier: Apache-2.0
 * Clocks. */
#include "base/clock.h"

#include "base/check.h"

#include <stdio.h>
#include <time.h>

static usec_t clock_read(clockid_t id)
{
	struct timespec ts;

	CHECK(clock_gettime(id, &ts) == 0);
	return (usec_t)ts.tv_sec * USEC_PER_SEC + (usec_t)ts.tv_nsec / 1000;
}

usec_t clock_boottime(void)
{
	return clock_read(CLOCK_BOOTTIME);
}

usec_t clock_wall(void)
{
	return clock_read(CLOCK_REALTIME);
}

void clock_format(usec_t wall, char *ret, size_t size)
{
	time_t secs = (time_t)(wall / USEC_PER_SEC);
	struct tm tm;
	char day[24];

	CHECK(size >= 32);
	CHECK(gmtime_r(&secs, &tm) != NULL);
	(void)strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(ret, size, "%s.%03uZ", day, (unsigned)(wall / USEC_PER_MS % 1000));
}
