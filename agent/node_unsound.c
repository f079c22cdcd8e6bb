/* SPDX-License-Identifier: Apache-2.0
 * The node as leader, where the volume engine of a node cannot be relied on: its VMs with disks are ended there, if
 * another node can take them, and move as any VM that stopped (L16, L10). */
#include "agent/node_internal.h"

#include <string.h>

static void end_instance(struct node *n, const struct store_vm *row, const char *reason)
{
	struct command_head head = {.wall = n->env.wall(n->env.ctx), .actor = "leader", .bodies = 1};
	struct command_vm_end c = {.gen = row->gen};
	struct buf entry = {0};

	memcpy(c.vm, row->spec.name, sizeof c.vm);
	memcpy(c.reason, reason, sizeof c.reason);
	command_begin(&head, &entry);
	message_encode(&command_vm_end_type, &c, &entry);
	node_leader_propose(n, row, &entry);
}

static void told(void *ctx, int status, const struct store_result *result)
{
	(void)ctx;
	(void)status; /* an event that is lost is missed by nobody but a reader */
	(void)result;
}

static void tell(struct node *n, node_id_t node, bool unsound)
{
	struct command_head head = {.wall = n->env.wall(n->env.ctx), .actor = "leader", .bodies = 1};
	struct command_node_engine c = {.node = node, .unsound = unsound};
	struct buf entry = {0};
	int rc;

	command_begin(&head, &entry);
	message_encode(&command_node_engine_type, &c, &entry);
	rc = consensus_propose(n->config.consensus, entry.data, entry.len, told, n);
	(void)rc;
	buf_free(&entry);
}

/* Only what changed while this leader looked: a new one has nothing to tell. */
static void look_at(struct node *n, const struct scheduler_node *node)
{
	struct leader_node *l = &n->leader_nodes[node->node];

	if (!node->is_up || (node->unsound ? l->was_unsound : l->was_sound))
		return;
	if (l->was_sound || l->was_unsound)
		tell(n, node->node, node->unsound);
	l->was_unsound = node->unsound;
	l->was_sound = !node->unsound;
}

void node_unsound_step(struct node *n, const struct scheduler_view *view, bool has_moved)
{
	struct scheduler_move move;

	if (!has_moved &&
	    scheduler_leave(view, &move)) /* what moves in this very turn takes room that is not counted yet */
		end_instance(n, &n->vms[move.vm], move.reason);
	for (size_t i = 0; i < view->n_nodes; i++)
		look_at(n, &view->nodes[i]);
}
