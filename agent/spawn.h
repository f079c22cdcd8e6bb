/* SPDX-License-Identifier: Apache-2.0
 * Starting the node's other processes where no service manager does. */
#ifndef KEDGE_AGENT_SPAWN_H
#define KEDGE_AGENT_SPAWN_H

#include "base/base.h"

#define SPAWN_OPTIONS_MAX 8

/* [any] Start @program, which lies beside this one, with `--dir @dir` and @options (at most SPAWN_OPTIONS_MAX, then
 * NULL; NULL: none): detached, so that it outlives the agent. A second one of its kind ends by itself. -EACCES, -ENOENT
 * and the like: it cannot be started; -EAGAIN: no process to be had. */
int spawn_detached(const char *program, const char *dir, const char *const *options, struct err *e) KEDGE_MUST_CHECK;

/* [any] The path of @file in the folder of this program. */
int spawn_beside(const char *file, char ret[PATH_BYTES_MAX], struct err *e) KEDGE_MUST_CHECK;

#endif
