/* SPDX-License-Identifier: Apache-2.0
 * Commands about the cluster itself: genesis, nodes, tokens. */
#include "store/internal.h"

void store_apply_genesis(struct store *s, const struct command_genesis *c, struct store_result *r)
{
	struct store_cluster now;

	store_cluster(s, &now);
	if (now.cluster[0]) {
		store_refuse(r, PROTO_E_EXISTS, "the cluster is founded already");
		return;
	}
	CHECK(sql_run(&s->q, "UPDATE meta SET cluster = ?, name = ?", "ss", c->cluster, c->name) == 0);
	store_event_add(s, "cluster", c->name, "cluster %s founded", c->cluster);
}

static bool use_token(struct store *s, const struct command_node_add *c, struct store_result *r)
{
	struct command_token_add token;

	if (c->token[0] == '\0')
		return true;
	if (!store_token(s, c->token, s->wall, &token)) {
		store_refuse(r, PROTO_E_DENIED,
			     "the token is unknown, used or expired: make a new one by 'kedge token'");
		return false;
	}
	CHECK(sql_run(&s->q, "UPDATE tokens SET used = 1 WHERE id = ?", "s", c->token) == 0);
	return true;
}

void store_apply_node_add(struct store *s, const struct command_node_add *c, struct store_result *r)
{
	struct store_cluster now;

	store_cluster(s, &now);
	if (c->node != now.node_max + 1) {
		store_refuse(r, PROTO_E_CONFLICT, "another node joined meanwhile: try again");
		return;
	}
	if (c->node > NODES_MAX) {
		store_refuse(r, PROTO_E_TOO_MANY,
			     "%d nodes have joined this cluster in its life, and their numbers are not given again",
			     NODES_MAX);
		return;
	}
	if (!use_token(s, c, r))
		return;
	if (sql_run(&s->q, "INSERT INTO nodes VALUES(?,?,?,?,?,?,?)", "ussssuu", (uint64_t)c->node, c->name, c->address,
		    c->zone, c->role, (uint64_t)c->node, s->wall) < 0) {
		store_refuse(r, PROTO_E_EXISTS, "a node with the name '%s' or the address %s exists", c->name,
			     c->address);
		return;
	}
	CHECK(sql_run(&s->q, "UPDATE meta SET node_max = ?", "u", (uint64_t)c->node) == 0);
	store_event_add(s, "node", c->name, "node joined at %s", c->address);
}

void store_apply_token_add(struct store *s, const struct command_token_add *c, struct store_result *r)
{
	CHECK(sql_run(&s->q, "DELETE FROM tokens WHERE expires < ?", "u", s->wall) == 0);
	if (sql_run(&s->q, "INSERT INTO tokens VALUES(?,?,?,?,0)", "sssu", c->id, c->secret, c->role, c->expires) < 0)
		store_refuse(r, PROTO_E_EXISTS, "a token with this id exists");
}

void store_apply_node_engine(struct store *s, const struct command_node_engine *c, struct store_result *r)
{
	struct store_node node;

	if (!store_node(s, c->node, &node))
		store_refuse(r, PROTO_E_NOT_FOUND, "there is no node %u", c->node);
	else if (c->unsound)
		store_event_add(
			s, "node", node.name,
			"its volume engine died again and again, or does not come: VMs with disks run elsewhere "
			"where they can");
	else
		store_event_add(s, "node", node.name, "its volume engine is sound again");
}
