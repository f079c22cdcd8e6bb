/* SPDX-License-Identifier: Apache-2.0
 * What an engine does for a volume that grows below its guest (decision 0018). */
#include "tests/volume_sim/vsim.h"

#define ROOM_MAX (300 * USEC_PER_MS) /* until an engine has made room */

static void grown_event(struct vsim *s, struct vs_event *e)
{
	struct vs_node *n = &s->nodes[e->node];

	n->growing = 0;
	if (!s->healing && vs_chance(s, 150)) {
		vs_log(s, "node %u has no room now", e->node);
		return;
	}
	n->disk.size = e->a;
	vs_log(s, "node %u has room for %llu bytes", e->node, (unsigned long long)e->a);
	volume_core_grown(n->core, e->a);
	s->around->grown(s, e->node);
}

/* QEMU is made to connect anew, where it learns the size. */
static void tell_guest(struct vsim *s, unsigned node)
{
	struct vs_guest *g = &s->guest;

	if (g->node == node && g->client && volume_core_size(s->nodes[node].core) > g->size && vs_chance(s, 300))
		vs_guest_reconnect(s);
}

void vs_grow_tick(struct vsim *s, unsigned node)
{
	struct vs_node *n = &s->nodes[node];

	tell_guest(s, node);
	if (n->growing || n->wanted <= n->disk.size)
		return;
	n->growing = n->wanted;
	vs_after(s, vs_random(s, ROOM_MAX), grown_event, node)->a = n->growing;
}
