/* SPDX-License-Identifier: Apache-2.0
 * From documents (what an administrator wants) to one log entry. */
#ifndef KEDGE_AGENT_APPLY_H
#define KEDGE_AGENT_APPLY_H

#include "agent/methods.h"

/* A method_change. Checks every document against the limits and the cluster, and compares it with what is there. */
int apply_documents(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e);

#endif
