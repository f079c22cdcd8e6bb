/* SPDX-License-Identifier: Apache-2.0
 * Processes of the machine, by /proc and pidfd. */
#ifndef KEDGE_AGENT_PROCESS_H
#define KEDGE_AGENT_PROCESS_H

#include "base/base.h"

/* [any] A descriptor for @pid: -ESRCH when there is no such process. */
int process_open(int32_t pid) KEDGE_MUST_CHECK;

/* [any] Send @number. 0 or a negative errno. */
int process_signal(int pidfd, int number);

/* [any] Field 22 of /proc/PID/stat; 0 when it is gone, or only a zombie is left. With the pid it names a process for
 * good. */
uint64_t process_start_time(int32_t pid);

/* [any] Every QEMU that runs a guest (`-name guest=...`) with @path in its command line; at most @max. */
size_t process_find_guests(const char *path, int32_t *ret, size_t max);

#endif
