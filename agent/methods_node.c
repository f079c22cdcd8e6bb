/* SPDX-License-Identifier: Apache-2.0
 * What an administrator says of a node: that it is off, or that it is no member any more. */
#include "agent/methods.h"

#include <stdlib.h>
#include <string.h>

/* 0: there is none. */
static node_id_t find(struct agent *agent, const char *name)
{
	struct store_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
	size_t n = store_nodes(agent->store, nodes, NODES_MAX);
	node_id_t found = 0;

	for (size_t i = 0; i < n; i++)
		if (strcmp(nodes[i].name, name) == 0)
			found = nodes[i].node;
	free(nodes);
	return found;
}

static int get_name(const struct msgpack_object *params, char ret[NAME_BYTES_MAX], struct err *e)
{
	if (!unpack_str(unpack_key(params, "name"), ret, NAME_BYTES_MAX))
		return err_set(e, PROTO_E_INVALID, "the request needs a node's name");
	return 0;
}

int method_node_fence_ack(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_node_fence body = {0};
	struct node_peer_status s = {0};
	int rc = get_name(params, body.name, e);
	node_id_t node;

	if (rc < 0)
		return rc;
	node = find(agent, body.name);
	if (node)
		node_peer_status(agent->node, node, &s);
	if (s.lease)
		return err_set(e, PROTO_E_CONFLICT, "node '%s' is up: there is nothing to acknowledge", body.name);
	message_encode(&command_node_fence_type, &body, &c->bodies);
	c->n_bodies++;
	return 0;
}

/* A majority of those that vote then must be up, or nothing changes any more, this removal included. */
static bool keeps_quorum(struct agent *agent, node_id_t node)
{
	struct consensus_view raft;
	struct node_peer_status s;
	unsigned voters = 0, up = 0;

	consensus_view(agent->consensus, &raft);
	for (size_t i = 0; i < raft.n_members; i++) {
		const struct consensus_member *m = &raft.members[i];

		if (m->role != CONSENSUS_VOTER || m->node == node)
			continue;
		node_peer_status(agent->node, m->node, &s);
		voters++;
		up += m->node == agent->config.id || s.lease;
	}
	return up > voters / 2;
}

int method_node_remove(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_node_remove body = {0};
	struct node_peer_status s;
	int rc = get_name(params, body.name, e);
	node_id_t node;

	if (rc < 0)
		return rc;
	node = find(agent, body.name);
	if (node == 0)
		return err_set(e, PROTO_E_NOT_FOUND, "there is no node '%s'", body.name);
	node_peer_status(agent->node, node, &s);
	if (node == agent->config.id || s.lease || s.silent < agent->config.timing->takeover)
		return err_set(e, PROTO_E_CONFLICT, "node '%s' is up: stop its agent first, and wait until it is down",
			       body.name);
	if (!keeps_quorum(agent, node))
		return err_set(e, PROTO_E_CONFLICT,
			       "node '%s': without it no majority of the voters is up: wait for the others", body.name);
	message_encode(&command_node_remove_type, &body, &c->bodies);
	c->n_bodies++;
	return 0;
}
