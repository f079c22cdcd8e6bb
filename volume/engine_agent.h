/* SPDX-License-Identifier: Apache-2.0
 * What the two files of cluster mode share: what kedged says (engine_agent.c), and what it is told (engine_tell.c). */
#ifndef KEDGE_VOLUME_ENGINE_AGENT_H
#define KEDGE_VOLUME_ENGINE_AGENT_H

#include "volume/engine_internal.h"

#include "proto/proto.h"

struct agent_store {
	struct caller *caller; /* kedged, the newest */
	bool is_greeted;       /* by this caller */
	const struct guard_page *page;
	uint64_t proposals; /* so far */
	bool has_left;      /* that this engine ends was told */
};

/* engine_tell.c */
void tell(struct engine *g, const struct message_type *type, const void *msg); /* nobody there: not told */
void tell_all(struct engine *g, usec_t now);                                   /* to one who knows nothing */
void tell_about(struct engine *g, bool leaving);
void tell_due(struct vol *v, usec_t now);
void agent_moved(struct vol *v);
void agent_linked(struct engine *g, node_id_t node, bool up, bool worn);
void agent_found(struct vol *v, const struct volume_finding *f);
bool agent_allows(const struct vol *v);

#endif
