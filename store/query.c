/* SPDX-License-Identifier: Apache-2.0
 * Reading the state. */
#include "store/internal.h"

#include <string.h>

void store_cluster(struct store *s, struct store_cluster *ret)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT cluster, name, node_max, wall, event_max, gen_max FROM meta", "");

	while (sql_row(&s->q, st)) {
		sql_str(st, 0, ret->cluster, sizeof ret->cluster);
		sql_str(st, 1, ret->name, sizeof ret->name);
		ret->node_max = (uint32_t)sql_u64(st, 2);
		ret->wall = sql_u64(st, 3);
		ret->event_max = sql_u64(st, 4);
		ret->gen_max = sql_u64(st, 5);
	}
}

static void read_node(sqlite3_stmt *st, struct store_node *ret)
{
	ret->node = (uint32_t)sql_u64(st, 0);
	sql_str(st, 1, ret->name, sizeof ret->name);
	sql_str(st, 2, ret->address, sizeof ret->address);
	sql_str(st, 3, ret->zone, sizeof ret->zone);
	sql_str(st, 4, ret->role, sizeof ret->role);
}

size_t store_nodes(struct store *s, struct store_node *ret, size_t max)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT node, name, address, zone, role FROM nodes ORDER BY node", "");
	size_t n = 0;

	while (sql_row(&s->q, st))
		if (n < max)
			read_node(st, &ret[n++]);
	return n;
}

bool store_node(struct store *s, uint32_t node, struct store_node *ret)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT node, name, address, zone, role FROM nodes WHERE node = ?", "u",
				     (uint64_t)node);
	bool found = false;

	while (sql_row(&s->q, st)) {
		read_node(st, ret);
		found = true;
	}
	return found;
}

#define VM_COLUMNS                                                                                                    \
	"SELECT v.name, vcpus, memory, run, kernel, initrd, cmdline, priority, uuid, machine, mac, owner, gen,"       \
	" movable, mver, end_gen, end_hard, fails, since, reason, deleting, confirmed, is_export, node, "             \
	"want_movable, "                                                                                              \
	"coalesce(kernel_digest, ''), coalesce(initrd_digest, ''), length(user_data) + length(meta_data) FROM vms v " \
	"JOIN placements p ON p.tenant "                                                                              \
	"= v.tenant"                                                                                                  \
	" AND p.vm = v.name LEFT JOIN vm_files f ON f.tenant = v.tenant AND f.vm = v.name "

static void read_placement(sqlite3_stmt *st, struct store_vm *ret)
{
	ret->owner = (uint32_t)sql_u64(st, 11);
	ret->gen = sql_u64(st, 12);
	ret->movable = sql_u64(st, 13);
	ret->mver = sql_u64(st, 14);
	ret->end_gen = sql_u64(st, 15);
	ret->end_hard = sql_u64(st, 16);
	ret->fails = (uint32_t)sql_u64(st, 17);
	ret->since = sql_u64(st, 18);
	sql_str(st, 19, ret->reason, sizeof ret->reason);
	ret->deleting = sql_u64(st, 20);
	ret->confirmed = sql_u64(st, 21);
	ret->is_export = sql_u64(st, 22);
	ret->node = (uint32_t)sql_u64(st, 23);
	ret->want_movable = sql_u64(st, 24);
	sql_str(st, 25, ret->kernel_digest, sizeof ret->kernel_digest);
	sql_str(st, 26, ret->initrd_digest, sizeof ret->initrd_digest);
	ret->has_seed = sql_u64(st, 27) > 0;
}

static void read_vm(sqlite3_stmt *st, struct store_vm *ret)
{
	struct command_vm_put *v = &ret->spec;

	memset(ret, 0, sizeof *ret);
	sql_str(st, 0, v->name, sizeof v->name);
	v->vcpus = (uint32_t)sql_u64(st, 1);
	v->memory_bytes = sql_u64(st, 2);
	v->run = sql_u64(st, 3);
	sql_str(st, 4, v->kernel, sizeof v->kernel);
	sql_str(st, 5, v->initrd, sizeof v->initrd);
	sql_str(st, 6, v->cmdline, sizeof v->cmdline);
	v->priority = (uint32_t)sql_u64(st, 7);
	sql_str(st, 8, v->uuid, sizeof v->uuid);
	sql_str(st, 9, v->machine, sizeof v->machine);
	sql_str(st, 10, ret->mac, sizeof ret->mac);
	read_placement(st, ret);
}

size_t store_vms(struct store *s, struct store_vm *ret, size_t max)
{
	sqlite3_stmt *st = sql_query(&s->q, VM_COLUMNS "ORDER BY v.tenant, v.name", "");
	size_t n = 0;

	while (sql_row(&s->q, st))
		if (n < max)
			read_vm(st, &ret[n++]);
	return n;
}

bool store_vm(struct store *s, const char *name, struct store_vm *ret)
{
	sqlite3_stmt *st = sql_query(&s->q, VM_COLUMNS "WHERE v.tenant = 'default' AND v.name = ?", "s", name);
	bool found = false;

	while (sql_row(&s->q, st)) {
		read_vm(st, ret);
		found = true;
	}
	return found;
}

bool store_token(struct store *s, const char *id, uint64_t wall, struct command_token_add *ret)
{
	sqlite3_stmt *st = sql_query(
		&s->q, "SELECT id, secret, role, expires FROM tokens WHERE id = ? AND used = 0 AND expires > ?", "su",
		id, wall);
	bool found = false;

	while (sql_row(&s->q, st)) {
		sql_str(st, 0, ret->id, sizeof ret->id);
		sql_str(st, 1, ret->secret, sizeof ret->secret);
		sql_str(st, 2, ret->role, sizeof ret->role);
		ret->expires = sql_u64(st, 3);
		found = true;
	}
	return found;
}

size_t store_events(struct store *s, uint64_t after, struct store_event *ret, size_t max)
{
	sqlite3_stmt *st =
		sql_query(&s->q, "SELECT id, wall, kind, object, text FROM events WHERE id > ? ORDER BY id LIMIT ?",
			  "uu", after, (uint64_t)max);
	size_t n = 0;

	while (sql_row(&s->q, st)) {
		ret[n].id = sql_u64(st, 0);
		ret[n].wall = sql_u64(st, 1);
		sql_str(st, 2, ret[n].kind, sizeof ret[n].kind);
		sql_str(st, 3, ret[n].object, sizeof ret[n].object);
		sql_str(st, 4, ret[n].text, sizeof ret[n].text);
		n++;
	}
	return n;
}
