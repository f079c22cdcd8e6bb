/* SPDX-License-Identifier: Apache-2.0
 * The part of apply that is about volumes: which are made, for whom, and on which nodes. */
#ifndef KEDGE_AGENT_APPLY_VOLUME_H
#define KEDGE_AGENT_APPLY_VOLUME_H

#include "agent/methods.h"

/* Where replicas go, while one request is read: what it has placed already counts. */
struct apply_places {
	uint32_t replicas[NODES_MAX + 1];
	uint64_t bytes[NODES_MAX + 1];
	size_t created;
};

/* [loop] What is there now. */
void apply_places_begin(struct agent *agent, struct apply_places *ret);

/* [loop] A document of kind volume. Adds its bodies to @c; @ret_action: "create", "update", "none". 0 or a PROTO_E_*.
 */
int apply_volume(struct agent *agent, const struct msgpack_object *doc, const char *where, struct apply_places *places,
		 struct change *c, const char **ret_action, struct err *e);

/* [loop] The disks of VM @vm as its document says. The bodies go to @c, behind that of the VM itself; @ret_changed: is
 * there anything to do? */
int apply_disks(struct agent *agent, const struct msgpack_object *doc, const char *where, const char *vm,
		struct apply_places *places, struct change *c, bool *ret_changed, struct err *e);

/* [any] How many disks does the document name? */
size_t apply_disks_count(const struct msgpack_object *doc);

#endif
