/* SPDX-License-Identifier: Apache-2.0
 * The table of what the control port can do: name, role, and how each request is answered or becomes an entry. */
#ifndef KEDGE_AGENT_METHODS_H
#define KEDGE_AGENT_METHODS_H

#include "agent/agent.h"

struct msgpack_object;

enum method_kind {
	METHOD_READ,   /* answered from the applied state */
	METHOD_STATUS, /* a read that is answered locally when there is no leader in time */
	METHOD_CHANGE, /* becomes an entry of the log */
	METHOD_LOCAL,  /* answered by the node that was asked, whoever leads: images_request() */
};

/* What a change becomes: bodies of one entry. None: there is nothing to do. */
struct change {
	struct buf bodies;
	uint32_t n_bodies;
	struct buf result; /* one packed value; empty: {} */
};

/* Both return 0 or a PROTO_E_*, with the text in @e. */
typedef int (*method_read)(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e);
typedef int (*method_change)(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e);

struct method {
	const char *name;
	enum method_kind kind;
	enum net_role role; /* the least that is needed; NODE: only other nodes */
	method_read read;
	method_change change;
	method_read applied; /* after a change was applied: its result. NULL: change->result */
};

/* NULL when there is none. */
const struct method *method_find(const char *name);

/* May @role call @m? */
bool method_is_allowed(const struct method *m, enum net_role role);

/* methods_node.c: what an administrator says of a node. */
int method_node_fence_ack(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e);
int method_node_remove(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e);

/* Session and number that a change carries. */
bool method_session(const struct msgpack_object *params, uint64_t *ret_session, uint64_t *ret_num);

#endif
