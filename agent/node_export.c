/* SPDX-License-Identifier: Apache-2.0
 * Exports on this node: a slot of the page that the engine reads before it takes up and before it answers (L23). */
#include "agent/node_internal.h"

#include <string.h>

static struct export_slot *slot_of(const struct node *n, const struct instance *i)
{
	CHECK(i->slot < EXPORTS_MAX);
	return &n->config.page->exports[i->slot];
}

/* False: there is no slot free; it waits. */
bool node_export_begin(struct node *n, struct instance *i)
{
	for (size_t k = 0; k < EXPORTS_MAX; k++) {
		struct export_slot *s = &n->config.page->exports[k];

		if (atomic_load(&s->gen))
			continue;
		atomic_store(&s->valid_until, 0);
		memset(s->volume, 0, sizeof s->volume);
		memcpy(s->volume, i->vm + strlen(STORE_EXPORT), strlen(i->vm) - strlen(STORE_EXPORT));
		atomic_store(&s->gen, i->gen);
		i->slot = k;
		return true;
	}
	return false;
}

/* Nothing is answered from here on: the engine looks before each answer. */
void node_export_end(struct node *n, struct instance *i)
{
	struct export_slot *s = slot_of(n, i);

	atomic_store(&s->valid_until, 0);
	atomic_store(&s->gen, 0);
}

void node_export_order(struct node *n, const struct instance *i, usec_t valid_until)
{
	struct export_slot *s = slot_of(n, i);

	if (valid_until > atomic_load(&s->valid_until))
		atomic_store(&s->valid_until, valid_until);
}

bool node_export_is_ordered(const struct node *n, const struct instance *i)
{
	return n->env.now(n->env.ctx) < atomic_load(&slot_of(n, i)->valid_until);
}
