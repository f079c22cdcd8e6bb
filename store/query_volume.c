/* SPDX-License-Identifier: Apache-2.0
 * Reading volumes. */
#include "store/internal.h"

#include <string.h>

const struct store_replica *store_volume_on(const struct store_volume *v, uint32_t node)
{
	for (size_t i = 0; i < v->n_members; i++)
		if (v->members[i].node == node)
			return &v->members[i];
	return NULL;
}

bool store_replica_is_good(const struct store_replica *r)
{
	return r->in_sync && !r->leaving && !r->lost && r->reported == r->incarnation;
}

bool store_replica_lost_power(const struct store_replica *r)
{
	return r->in_sync && !r->leaving && !r->lost && r->reported != r->incarnation;
}

#define COLUMNS                                                                                                        \
	"SELECT id, name, volumes.size, replicas, vm, disk, version, epoch, primary_node, primary_since, fork, cold, " \
	"vm_epoch, deleting, degraded, coalesce(image, ''), coalesce(digest, ''), coalesce(format, ''), filled, "      \
	"growing.size FROM volumes LEFT JOIN sources ON sources.volume = volumes.id "                                  \
	"LEFT JOIN growing ON growing.volume = volumes.id "

static void read_members(struct store *s, struct store_volume *v)
{
	sqlite3_stmt *st =
		sql_query(&s->q,
			  "SELECT replicas.node, replica, in_sync, incarnation, reported, lost, leaving, size"
			  " FROM replicas LEFT JOIN rooms USING(volume, node) WHERE volume = ? ORDER BY 1",
			  "s", v->id);

	while (sql_row(&s->q, st)) {
		struct store_replica *r = &v->members[v->n_members++];

		CHECK(v->n_members <= ENGINE_REPLICAS_MAX);
		r->node = (uint32_t)sql_u64(st, 0);
		sql_str(st, 1, r->replica, sizeof r->replica);
		r->in_sync = sql_u64(st, 2);
		r->incarnation = sql_u64(st, 3);
		r->reported = sql_u64(st, 4);
		r->lost = sql_u64(st, 5);
		r->leaving = sql_u64(st, 6);
		r->room = sql_u64(st, 7); /* NULL: 0 */
	}
}

static void read_wanted(struct store *s, struct store_volume *v)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT node FROM wanted WHERE volume = ? ORDER BY number", "s", v->id);
	size_t n = 0;

	while (sql_row(&s->q, st)) {
		CHECK(n < REPLICAS_MAX);
		v->nodes[n++] = (uint32_t)sql_u64(st, 0);
	}
}

static void read_volume(sqlite3_stmt *st, struct store_volume *ret)
{
	memset(ret, 0, sizeof *ret);
	sql_str(st, 0, ret->id, sizeof ret->id);
	sql_str(st, 1, ret->name, sizeof ret->name);
	ret->size = sql_u64(st, 2);
	ret->replicas = (uint32_t)sql_u64(st, 3);
	sql_str(st, 4, ret->vm, sizeof ret->vm);
	ret->disk = (uint32_t)sql_u64(st, 5);
	ret->version = sql_u64(st, 6);
	ret->epoch = (uint32_t)sql_u64(st, 7);
	ret->primary = (uint32_t)sql_u64(st, 8);
	ret->primary_since = (uint32_t)sql_u64(st, 9);
	ret->fork = (uint32_t)sql_u64(st, 10);
	ret->cold = (uint32_t)sql_u64(st, 11);
	ret->vm_epoch = (uint32_t)sql_u64(st, 12);
	ret->deleting = sql_u64(st, 13);
	ret->degraded = sql_u64(st, 14);
	sql_str(st, 15, ret->image, sizeof ret->image);
	sql_str(st, 16, ret->digest, sizeof ret->digest);
	sql_str(st, 17, ret->format, sizeof ret->format);
	ret->filling = ret->image[0] && sql_u64(st, 18) == 0;
	ret->grow_to = sql_u64(st, 19);
}

size_t store_volumes(struct store *s, struct store_volume *ret, size_t max)
{
	sqlite3_stmt *st = sql_query(&s->q, COLUMNS "ORDER BY tenant, vm, disk, name", "");
	size_t n = 0;

	while (sql_row(&s->q, st))
		if (n < max)
			read_volume(st, &ret[n++]);
	for (size_t i = 0; i < n; i++) {
		read_members(s, &ret[i]);
		read_wanted(s, &ret[i]);
	}
	return n;
}

static bool read_one(struct store *s, sqlite3_stmt *st, struct store_volume *ret)
{
	bool found = false;

	while (sql_row(&s->q, st)) {
		read_volume(st, ret);
		found = true;
	}
	if (found) {
		read_members(s, ret);
		read_wanted(s, ret);
	}
	return found;
}

bool store_volume(struct store *s, const char *name, struct store_volume *ret)
{
	return read_one(s, sql_query(&s->q, COLUMNS "WHERE tenant = 'default' AND name = ?", "s", name), ret);
}

bool store_volume_by_id(struct store *s, const char *id, struct store_volume *ret)
{
	return read_one(s, sql_query(&s->q, COLUMNS "WHERE id = ?", "s", id), ret);
}
