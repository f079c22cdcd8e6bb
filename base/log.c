/* SPDX-License-Identifier: Apache-2.0
 * Log lines of the processes. */
#include "base/log.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>

static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_journal;

void log_setup(enum log_level level, bool journal)
{
	log_max = level;
	log_journal = journal;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	static const int priorities[] = {3, 4, 6, 7};
	char text[2048], now[32];
	va_list ap;

	if (level > log_max)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (log_journal) {
		(void)fprintf(stderr, "<%d>%s\n", priorities[level], text);
		return;
	}
	clock_format(clock_wall(), now, sizeof now);
	(void)fprintf(stderr, "%s %s %s\n", now, names[level], text);
}
