/* SPDX-License-Identifier: Apache-2.0
 * What must hold: A and D after each step, E at each comparison, and in the end three equal replicas. */
#include "tests/volume_sim/vsim.h"

#include <string.h>

/* An empty set is "anything": so it is after a FORCE. */
bool vs_set_has(const struct vs_set *set, uint32_t v)
{
	for (unsigned i = 0; i < set->n; i++)
		if (set->v[i] == v)
			return true;
	return set->n == 0;
}

void vs_set_add(struct vs_set *set, uint32_t v)
{
	if (vs_set_has(set, v))
		return;
	CHECK(set->n < SET_MAX);
	set->v[set->n++] = v;
}

void vs_set_only(struct vs_set *set, uint32_t v)
{
	set->n = 1;
	set->v[0] = v;
}

struct volume_member *vs_member(struct vsim *s, unsigned node)
{
	for (size_t i = 0; i < s->row.n_members; i++)
		if (s->row.members[i].node == node)
			return &s->row.members[i];
	return NULL;
}

/* A: a member of the in-sync set has what a FLUSH covered, in its cache and on its disk. */
static void check_flushed(struct vsim *s)
{
	for (size_t i = 0; i < s->row.n_members; i++) {
		const struct volume_member *m = &s->row.members[i];
		const struct vs_disk *d = &s->nodes[m->node].disk;

		for (unsigned h = 0; m->in_sync && h < HOT; h++) {
			if (!vs_set_has(&s->flushed[h], d->durable[h]))
				vs_violate(s, "A", "node %u is in sync and has %u on its disk in sector %llu", m->node,
					   d->durable[h], (unsigned long long)vs_disk_sector(h));
			if (!vs_set_has(&s->flushed[h], d->cached[h]))
				vs_violate(s, "A", "node %u is in sync and has %u in sector %llu", m->node,
					   d->cached[h], (unsigned long long)vs_disk_sector(h));
		}
	}
}

static bool leads_truly(struct vsim *s, struct vs_node *p)
{
	struct volume_core_status st;

	if (!p->up || vs_member(s, p->id)->incarnation != p->disk.state.incarnation)
		return false;
	volume_core_status(p->core, &st);
	return st.role == VOLUME_LEADING && st.lead.epoch == s->row.epoch;
}

/* D: settled, idle blocks of in-sync replicas are equal. */
static void check_equal(struct vsim *s)
{
	struct vs_node *p = &s->nodes[s->row.primary];

	for (size_t i = 0; i < s->row.n_members; i++) {
		const struct volume_member *m = &s->row.members[i];
		const struct vs_node *x = &s->nodes[m->node];

		if (memcmp(p->disk.cached, x->disk.cached, sizeof p->disk.cached) == 0 || !leads_truly(s, p) ||
		    !m->in_sync || x == p || m->incarnation != x->disk.state.incarnation ||
		    !volume_core_known(p->core, m->node))
			continue;
		for (unsigned h = 0; h < HOT; h++) {
			uint64_t offset = vs_disk_sector(h) * SECTOR;

			if (p->disk.cached[h] == x->disk.cached[h] || volume_core_busy(p->core, offset, SECTOR) ||
			    (offset < p->disk.size && volume_core_needs(p->core, m->node, offset / VOLUME_BLOCK_BYTES)))
				continue;
			vs_violate(s, "D", "sector %llu is %u on primary %u and %u on %u",
				   (unsigned long long)offset / SECTOR, p->disk.cached[h], p->id, x->disk.cached[h],
				   m->node);
		}
	}
}

/* E: what a comparison leaves out is equal. */
void vs_check_known(struct vsim *s, struct vs_node *n)
{
	for (unsigned x = 1; x <= NODES; x++) {
		const struct vs_node *o = &s->nodes[x];

		if (x == n->id || !volume_core_known(n->core, x) || n->was_known[x])
			continue;
		n->was_known[x] = true;
		s->settles++;
		if (!leads_truly(s, n))
			continue;
		for (unsigned h = 0; h < HOT; h++) {
			uint64_t offset = vs_disk_sector(h) * SECTOR;

			if (n->disk.cached[h] == o->disk.cached[h] || volume_core_busy(n->core, offset, SECTOR) ||
			    (offset < n->disk.size && volume_core_needs(n->core, x, offset / VOLUME_BLOCK_BYTES)))
				continue;
			vs_violate(s, "E", "the comparison of %u with %u misses sector %llu (%u and %u)", n->id, x,
				   (unsigned long long)offset / SECTOR, n->disk.cached[h], o->disk.cached[h]);
		}
	}
}

void vs_check_step(struct vsim *s)
{
	bool touched = s->touched;

	s->touched = false;
	for (unsigned n = 1; n <= NODES; n++)
		for (unsigned x = 1; s->nodes[n].up && x <= NODES; x++)
			if (!volume_core_known(s->nodes[n].core, x))
				s->nodes[n].was_known[x] = false;
	if (touched)
		check_flushed(s);
	if (s->events % 4 == 0)
		check_equal(s);
}

void vs_check_end(struct vsim *s)
{
	struct vs_node *p = &s->nodes[s->row.primary];

	if (!leads_truly(s, p)) {
		vs_violate(s, "P6", "after healing nobody leads epoch %u", s->row.epoch);
		return;
	}
	for (size_t i = 0; i < s->row.n_members; i++) {
		const struct volume_member *m = &s->row.members[i];

		if (m->node == s->dead)
			continue;
		if (!m->in_sync)
			vs_violate(s, "P6", "after healing node %u is not in sync", m->node);
		for (unsigned h = 0; h < HOT; h++)
			if (s->nodes[m->node].disk.cached[h] != p->disk.cached[h])
				vs_violate(s, "D", "after healing sector %llu differs on %u",
					   (unsigned long long)vs_disk_sector(h), m->node);
	}
	if (!vs_guest_idle(s))
		vs_violate(s, "P6", "after healing a request of the guest has no answer");
	if (!s->dead && s->row.grow_to)
		vs_violate(s, "P6", "after healing it has not grown to %llu bytes", (unsigned long long)s->row.grow_to);
}
