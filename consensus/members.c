/* SPDX-License-Identifier: Apache-2.0
 * Who votes: every node of the store becomes a member, up to a number of them voters. One change at a time. */
#include "consensus/internal.h"

static const struct consensus_member *find(const struct consensus_view *v, node_id_t node)
{
	for (size_t i = 0; i < v->n_members; i++)
		if (v->members[i].node == node && v->members[i].role != CONSENSUS_NONE)
			return &v->members[i];
	return NULL;
}

static unsigned count_voters(const struct consensus_view *v)
{
	unsigned n = 0;

	for (size_t i = 0; i < v->n_members; i++)
		n += v->members[i].role == CONSENSUS_VOTER;
	return n;
}

static bool is_removed(const struct store_node *nodes, size_t n, node_id_t node_max, node_id_t node)
{
	for (size_t i = 0; i < n; i++)
		if (nodes[i].node == node)
			return false;
	return node <= node_max;
}

/* Numbers are never used again, so what had one once and is not there was removed. 0: nobody. */
static node_id_t find_removed(const struct consensus *c, const struct consensus_view *v, const struct store_node *nodes,
			      size_t n, node_id_t node_max)
{
	for (size_t i = 0; i < v->n_members; i++) {
		const struct consensus_member *m = &v->members[i];

		if (m->role != CONSENSUS_NONE && m->node != c->raft.id && is_removed(nodes, n, node_max, m->node))
			return m->node;
	}
	return 0;
}

bool consensus_members_step(struct consensus *c, const struct store_node *nodes, size_t n, node_id_t node_max,
			    unsigned voters_max, bool (*is_up)(void *ctx, node_id_t node), void *ctx)
{
	node_id_t removed;
	struct consensus_view v;
	unsigned voters;

	consensus_view(c, &v);
	if (c->raft.legacy.change != NULL || v.changing)
		return true;
	if (!v.is_leader)
		return false;
	removed = find_removed(c, &v, nodes, n, node_max);
	if (removed)
		return raft_remove(&c->raft, &c->change, removed, NULL) == 0;
	voters = count_voters(&v);
	for (size_t i = 0; i < n; i++) {
		const struct consensus_member *m = find(&v, nodes[i].node);

		if (!m)
			return raft_add(&c->raft, &c->change, nodes[i].node, nodes[i].address, NULL) == 0;
		if (m->role == CONSENSUS_SPARE &&
		    is_up(ctx, m->node)) /* a spare that is up catches up, then votes or stands by */
			return raft_assign(&c->raft, &c->change, m->node,
					   voters < voters_max ? RAFT_VOTER : RAFT_STANDBY, NULL) == 0;
		if (m->role == CONSENSUS_STANDBY && voters < voters_max && is_up(ctx, m->node))
			return raft_assign(&c->raft, &c->change, m->node, RAFT_VOTER, NULL) == 0;
	}
	return false;
}
