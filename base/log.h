/* SPDX-License-Identifier: Apache-2.0
 * Log lines of the processes. Library folders never log: whoever decides logs, once. */
#ifndef KEDGE_BASE_LOG_H
#define KEDGE_BASE_LOG_H

#include "base/types.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* [any] Lines above @level are dropped. Default: info. @journal: print the "<N>" priority prefix of sd-daemon(3)
 * instead of the time. Call before any thread is started. */
void log_setup(enum log_level level, bool journal);

/* [any] One line on stderr, with the time; a newline is added. */
void log_line(enum log_level level, const char *fmt, ...) KEDGE_PRINTF(2, 3);

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
