/* SPDX-License-Identifier: Apache-2.0
 * A node leaves the cluster for good: what its rows were needed for is looked at first, then they go in one entry. */
#include "store/internal.h"

#include <stdlib.h>
#include <string.h>

static bool find_node(struct store *s, const char *name, struct store_node *ret)
{
	struct store_node nodes[NODES_MAX];
	size_t n = store_nodes(s, nodes, NODES_MAX);

	for (size_t i = 0; i < n; i++)
		if (strcmp(nodes[i].name, name) == 0) {
			*ret = nodes[i];
			return true;
		}
	return false;
}

/* ---- VMs ---- */

/* P2: what may still run there keeps it a member, until its end is known or an administrator vouches for it. */
static void check_vms(struct store *s, const struct store_node *node, struct store_result *r)
{
	struct store_vm *vms = xcalloc(VMS_MAX, sizeof *vms);
	size_t n = store_vms(s, vms, VMS_MAX);

	for (size_t i = 0; i < n && r->code == 0; i++) {
		const char *name = vms[i].spec.name;

		if (vms[i].is_export && vms[i].node == node->node)
			store_refuse(r, PROTO_E_CONFLICT, "node '%s': volume '%s' is exported on it: unexport it first",
				     node->name, name + strlen(STORE_EXPORT));
		else if (vms[i].owner == node->node)
			store_refuse(r, PROTO_E_CONFLICT,
				     "node '%s': VM '%s' is placed on it, and may run there: if the node is off for "
				     "good: kedge node fence-ack %s",
				     node->name, name, node->name);
	}
	free(vms);
}

/* ---- volumes ---- */

/* Has another node what @gone has? One that lost power is as good as another that did. */
static bool is_spared(const struct store_volume *v, const struct store_replica *gone)
{
	for (size_t i = 0; i < v->n_members; i++) {
		const struct store_replica *m = &v->members[i];

		if (m->node == gone->node || m->leaving)
			continue;
		if (store_replica_is_good(m) || (!store_replica_is_good(gone) && store_replica_lost_power(m)))
			return true;
	}
	return false;
}

static void check_volume(const struct store_volume *v, const struct store_replica *m, const struct store_node *node,
			 struct store_result *r)
{
	if (v->deleting || m->leaving)
		return;
	if (m->in_sync && !is_spared(v, m))
		store_refuse(
			r, PROTO_E_CONFLICT,
			"node '%s': what volume '%s' has is nowhere else: wait until another replica is in sync; if "
			"the node is gone for good: kedge volume force, or kedge delete volume",
			node->name, v->name);
	else if (v->primary == node->node)
		store_refuse(r, PROTO_E_CONFLICT, "node '%s': it leads volume '%s': wait until another node leads it",
			     node->name, v->name);
}

/* REMOVE where it is in sync, which nobody leads by, then MEMBER -x, and nobody waits for its files. */
static void leave(struct store *s, struct store_volume *v, size_t member)
{
	v->epoch += v->members[member].in_sync && !v->members[member].leaving;
	v->members[member] = v->members[--v->n_members];
	if (v->deleting && v->n_members == 0)
		store_volume_delete(s, v);
	else
		store_volume_put(s, v);
}

static void leave_volumes(struct store *s, const struct store_node *node, struct store_result *r)
{
	struct store_volume *rows = xcalloc(VOLUMES_MAX, sizeof *rows);
	size_t n = store_volumes(s, rows, VOLUMES_MAX);

	for (size_t i = 0; i < n && r->code == 0; i++) {
		const struct store_replica *m = store_volume_on(&rows[i], node->node);

		if (!m)
			continue;
		check_volume(&rows[i], m, node, r);
		if (r->code == 0)
			leave(s, &rows[i], (size_t)(m - rows[i].members));
	}
	free(rows);
}

/* ---- files ---- */

/* A file that something refers to and no other node has: what needs it would never start. */
static void check_files(struct store *s, const struct store_node *node, struct store_result *r)
{
	sqlite3_stmt *st =
		sql_query(&s->q,
			  "SELECT digest FROM holders WHERE node=? AND NOT EXISTS (SELECT 1 FROM holders AS others"
			  " WHERE others.digest = holders.digest AND others.node <> holders.node) ORDER BY digest",
			  "u", (uint64_t)node->node);
	char only[DIGEST_BYTES_MAX] = "", digest[DIGEST_BYTES_MAX];

	while (sql_row(&s->q, st)) {
		sql_str(st, 0, digest, sizeof digest);
		if (only[0] == '\0' && store_file_is_used(s, digest))
			memcpy(only, digest, sizeof only);
	}
	if (only[0])
		store_refuse(r, PROTO_E_CONFLICT,
			     "node '%s': no other node has the file %.16s... of an image or a VM: kedge image rm, or "
			     "apply the VM again; or wait until another node has it",
			     node->name, only);
}

/* ---- the node ---- */

void store_apply_node_remove(struct store *s, const struct command_node_remove *c, struct store_result *r)
{
	struct store_node node;

	if (!find_node(s, c->name, &node)) {
		store_refuse(r, PROTO_E_NOT_FOUND, "there is no node '%s'", c->name);
		return;
	}
	check_vms(s, &node, r);
	if (r->code == 0)
		check_files(s, &node, r);
	if (r->code == 0)
		leave_volumes(s, &node, r);
	if (r->code)
		return;
	CHECK(sql_run(&s->q, "DELETE FROM wanted WHERE node=?", "u", (uint64_t)node.node) == 0);
	CHECK(sql_run(&s->q, "DELETE FROM holders WHERE node=?", "u", (uint64_t)node.node) == 0);
	CHECK(sql_run(&s->q, "DELETE FROM nodes WHERE node=?", "u", (uint64_t)node.node) == 0);
	store_event_add(s, "node", node.name, "removed by %s", s->actor);
}
