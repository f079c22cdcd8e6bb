/* SPDX-License-Identifier: Apache-2.0
 * What is left of guests when a case failed. */
#include "tests/unit/guest_help.h"

#include "agent/process.h"

#include <signal.h>

#define GUESTS 64

unsigned guests_end_below(const char *folder)
{
	int32_t pids[GUESTS];
	size_t n = process_find_guests(folder, pids, GUESTS);

	for (size_t i = 0; i < n; i++)
		(void)kill(pids[i], SIGKILL);
	return (unsigned)n;
}
