/* SPDX-License-Identifier: Apache-2.0
 * Starting the node's other processes where no service manager does. */
#ifndef KEDGE_AGENT_SPAWN_H
#define KEDGE_AGENT_SPAWN_H

#include "base/base.h"

/* [any] Start @program, which lies beside this one, with `--dir @dir`: detached, so that it outlives the agent. A
 * second one of its kind ends by itself. */
int spawn_detached(const char *program, const char *dir, struct err *e) KEDGE_MUST_CHECK;

/* [any] The path of @file in the folder of this program. */
int spawn_beside(const char *file, char ret[PATH_BYTES_MAX], struct err *e) KEDGE_MUST_CHECK;

#endif
