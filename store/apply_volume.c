/* SPDX-License-Identifier: Apache-2.0
 * Commands about volumes: the table of VOLUME-PROTOCOL, section 1. Each change is a compare-and-set on the epoch. */
#include "store/internal.h"

#include <stdio.h>
#include <string.h>

enum change_kind { CHANGE_REMOVE, CHANGE_ADD, CHANGE_BUMP }; /* as the engine numbers them */

/* ---- rows ---- */

static struct store_replica *member(struct store_volume *v, uint32_t node)
{
	for (size_t i = 0; i < v->n_members; i++)
		if (v->members[i].node == node)
			return &v->members[i];
	return NULL;
}

static unsigned count_in_sync(const struct store_volume *v)
{
	unsigned n = 0;

	for (size_t i = 0; i < v->n_members; i++)
		n += v->members[i].in_sync && !v->members[i].leaving;
	return n;
}

static void put_members(struct store *s, const struct store_volume *v)
{
	CHECK(sql_run(&s->q, "DELETE FROM replicas WHERE volume = ?", "s", v->id) == 0);
	for (size_t i = 0; i < v->n_members; i++) {
		const struct store_replica *r = &v->members[i];

		CHECK(sql_run(&s->q, "INSERT INTO replicas VALUES(?,?,?,?,?,?,?,?)", "susuuuuu", v->id,
			      (uint64_t)r->node, r->replica, (uint64_t)r->in_sync, r->incarnation, r->reported,
			      (uint64_t)r->lost, (uint64_t)r->leaving) == 0);
	}
}

static void put_growth(struct store *s, const struct store_volume *v)
{
	CHECK(sql_run(&s->q, "DELETE FROM growing WHERE volume = ?", "s", v->id) == 0);
	CHECK(sql_run(&s->q, "DELETE FROM rooms WHERE volume = ?", "s", v->id) == 0);
	if (v->grow_to)
		CHECK(sql_run(&s->q, "INSERT INTO growing VALUES(?,?)", "su", v->id, v->grow_to) == 0);
	for (size_t i = 0; i < v->n_members; i++)
		if (v->members[i].room)
			CHECK(sql_run(&s->q, "INSERT INTO rooms VALUES(?,?,?)", "suu", v->id,
				      (uint64_t)v->members[i].node, v->members[i].room) == 0);
}

static void put_wanted(struct store *s, const struct store_volume *v)
{
	CHECK(sql_run(&s->q, "DELETE FROM wanted WHERE volume = ?", "s", v->id) == 0);
	for (size_t i = 0; i < REPLICAS_MAX && v->nodes[i]; i++)
		CHECK(sql_run(&s->q, "INSERT INTO wanted VALUES(?,?,?)", "suu", v->id, (uint64_t)i,
			      (uint64_t)v->nodes[i]) == 0);
}

/* So whoever is in sync has room for all that may ever be written (decision 0018). */
static void try_to_grow(struct store *s, struct store_volume *v)
{
	if (v->grow_to == 0)
		return;
	for (size_t i = 0; i < v->n_members; i++)
		if (v->members[i].in_sync && v->members[i].room < v->grow_to)
			return;
	v->size = v->grow_to;
	v->grow_to = 0;
	v->epoch++; /* whoever leads by an older row knows that it is one */
	store_event_add(s, "volume", v->name, "it has %llu MiB now", (unsigned long long)(v->size >> 20));
}

void store_volume_put(struct store *s, struct store_volume *v)
{
	bool whole = count_in_sync(v) >= v->replicas;

	try_to_grow(s, v);
	v->version++;
	if (whole && v->degraded)
		store_event_add(s, "volume", v->name, "all %u replicas are in sync", v->replicas);
	v->degraded = whole ? 0 : v->degraded ? v->degraded : s->wall;
	CHECK(sql_run(&s->q,
		      "UPDATE volumes SET size=?, replicas=?, vm=?, disk=?, version=?, epoch=?, primary_node=?,"
		      " primary_since=?, fork=?, cold=?, vm_epoch=?, deleting=?, degraded=? WHERE id=?",
		      "uusuuuuuuuuuus", v->size, (uint64_t)v->replicas, v->vm, (uint64_t)v->disk, v->version,
		      (uint64_t)v->epoch, (uint64_t)v->primary, (uint64_t)v->primary_since, (uint64_t)v->fork,
		      (uint64_t)v->cold, (uint64_t)v->vm_epoch, (uint64_t)v->deleting, v->degraded, v->id) == 0);
	put_members(s, v);
	put_growth(s, v);
	put_wanted(s, v);
}

static const char *node_name(struct store *s, uint32_t node, struct store_node *room)
{
	return store_node(s, node, room) ? room->name : "a node that is gone";
}

static bool must_find(struct store *s, const char *id, struct store_volume *ret, struct store_result *r)
{
	if (store_volume_by_id(s, id, ret))
		return true;
	store_refuse(r, PROTO_E_NOT_FOUND, "there is no such volume");
	return false;
}

bool store_volume_must_find(struct store *s, const char *name, struct store_volume *ret, struct store_result *r)
{
	if (!store_volume(s, name, ret))
		store_refuse(r, PROTO_E_NOT_FOUND, "there is no volume '%s'", name);
	else if (ret->deleting)
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' is being deleted: try again when it is gone", name);
	return r->code == 0;
}

/* The compare-and-set that every change of leadership and of the in-sync set rests on (V2). */
static bool is_epoch(const struct store_volume *v, uint32_t epoch, struct store_result *r)
{
	if (v->epoch == epoch)
		return true;
	store_refuse(r, PROTO_E_CONFLICT, "volume '%s' is in epoch %u, not %u", v->name, v->epoch, epoch);
	return false;
}

/* A VM that has an owner may be using it. */
static bool is_free(struct store *s, const struct store_volume *v, struct store_result *r)
{
	struct store_vm vm;

	if (v->vm[0] && store_vm(s, v->vm, &vm) && vm.owner)
		store_refuse(r, PROTO_E_CONFLICT,
			     "volume '%s' is in use by '%s': stop it first; if its node is off for good: kedge node "
			     "fence-ack",
			     v->name, v->vm);
	return r->code == 0;
}

/* ---- CREATE ---- */

static uint64_t count_volumes(struct store *s)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT count(*) FROM volumes", "");
	uint64_t n = 0;

	while (sql_row(&s->q, st))
		n = sql_u64(st, 0);
	return n;
}

/* Which nodes, primary first. False: they make no sense. */
static bool add_members(struct store *s, const struct command_volume_create *c, struct store_volume *v)
{
	struct store_node node;

	for (size_t i = 0; i < REPLICAS_MAX && c->nodes[i]; i++) {
		if (!store_node(s, c->nodes[i], &node) || member(v, c->nodes[i]))
			return false;
		v->members[v->n_members++] = (struct store_replica){.node = c->nodes[i], .in_sync = i == 0};
	}
	return v->n_members > 0 && v->n_members <= c->replicas && c->replicas <= REPLICAS_MAX;
}

void store_apply_volume_create(struct store *s, const struct command_volume_create *c, struct store_result *r)
{
	struct store_volume v = {.size = c->size,
				 .replicas = c->replicas,
				 .epoch = 1,
				 .primary = c->nodes[0],
				 .primary_since = 1,
				 .vm_epoch = 1};

	memcpy(v.id, c->id, sizeof v.id);
	memcpy(v.name, c->name, sizeof v.name);
	if (count_volumes(s) >= VOLUMES_MAX) {
		store_refuse(r, PROTO_E_TOO_MANY, "a cluster has at most %d volumes", VOLUMES_MAX);
		return;
	}
	if (strlen(c->id) != VOLUME_NAME_ID - 1 || c->size == 0 || !add_members(s, c, &v)) {
		store_refuse(r, PROTO_E_INVALID, "volume '%s': its nodes or its size make no sense", c->name);
		return;
	}
	if (sql_run(&s->q, "INSERT INTO volumes VALUES('default',?,?,0,0,'',0,0,0,0,0,0,0,0,0,0,?)", "ssu", c->name,
		    c->id, s->wall) < 0) {
		store_refuse(r, PROTO_E_EXISTS, "volume '%s': the name or its id is taken", c->name);
		return;
	}
	store_volume_put(s, &v);
	store_event_add(s, "volume", c->name, "created by %s: %llu MiB, %u replicas", s->actor,
			(unsigned long long)(c->size >> 20), c->replicas);
}

/* ---- what engines ask for ---- */

static void remove_member(struct store *s, struct store_volume *v, struct store_replica *m, struct store_result *r)
{
	struct store_node room;

	if (!m->in_sync || m->node == v->primary) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s': node %u is %s", v->name, m->node,
			     m->in_sync ? "its primary" : "not in sync");
		return;
	}
	m->in_sync = m->lost = false;
	v->epoch++;
	store_event_add(s, "volume", v->name, "the replica on %s is out of sync", node_name(s, m->node, &room));
}

/* Engines of before volumes could grow do not tell, nor do they take part. */
static bool has_no_room(const struct store_volume *v, const struct store_replica *m)
{
	bool told = false;

	for (size_t i = 0; i < v->n_members; i++)
		told |= v->members[i].room != 0;
	return told && m->room < v->size;
}

static void add_member(struct store *s, struct store_volume *v, struct store_replica *m, uint64_t incarnation,
		       struct store_result *r)
{
	struct store_node room;

	if (m->in_sync || m->leaving || m->reported != incarnation || has_no_room(v, m)) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s': the replica on node %u %s", v->name, m->node,
			     m->in_sync                   ? "is in sync already"
			     : m->leaving                 ? "is being removed"
			     : m->reported == incarnation ? "has no room for all of it yet"
							  : "was opened anew meanwhile");
		return;
	}
	m->in_sync = true;
	m->incarnation = incarnation;
	v->epoch++;
	store_event_add(s, "volume", v->name, "the replica on %s is in sync", node_name(s, m->node, &room));
}

void store_apply_volume_change(struct store *s, const struct command_volume_change *c, struct store_result *r)
{
	struct store_replica *m;
	struct store_volume v;

	if (!must_find(s, c->id, &v, r) || !is_epoch(&v, c->epoch, r))
		return;
	m = member(&v, c->node);
	if (v.primary != c->from || (c->kind != CHANGE_BUMP && !m) || c->kind > CHANGE_BUMP) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s': not for node %u to ask", v.name, c->from);
		return;
	}
	if (c->kind == CHANGE_BUMP)
		v.epoch++;
	else if (c->kind == CHANGE_REMOVE)
		remove_member(s, &v, m, r);
	else
		add_member(s, &v, m, c->incarnation, r);
	if (r->code == 0)
		store_volume_put(s, &v);
}

/* V25: a replica of another id is a blank or foreign one: what was in sync is lost. */
static void exchange(struct store *s, struct store_volume *v, struct store_replica *m, const char *replica)
{
	struct store_node room;

	if (m->in_sync && m->replica[0]) {
		store_event_add(s, "volume", v->name, "the files of the replica on %s are others: its data is lost",
				node_name(s, m->node, &room));
		m->lost = true;
		if (m->node != v->primary) {
			m->in_sync = m->lost = false;
			v->epoch++;
		}
	}
	memcpy(m->replica, replica, sizeof m->replica);
}

void store_apply_volume_report(struct store *s, const struct command_volume_report *c, struct store_result *r)
{
	struct store_replica *m;
	struct store_volume v;

	if (!must_find(s, c->id, &v, r))
		return;
	m = member(&v, c->node);
	if (!m || m->leaving) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s': node %u has no replica", v.name, c->node);
		return;
	}
	if (strcmp(m->replica, c->replica) == 0 && m->reported == c->incarnation && m->room == c->room)
		return;
	if (strcmp(m->replica, c->replica) != 0)
		exchange(s, &v, m, c->replica);
	m->reported = c->incarnation;
	m->room = c->room;
	if (m->in_sync && m->incarnation == 0) /* CREATE: its first opening */
		m->incarnation = c->incarnation;
	store_volume_put(s, &v);
}

/* ---- TAKEOVER, COLD, FORCE ---- */

static const char *why_no_takeover(const struct store_replica *b)
{
	return store_replica_is_good(b) ? NULL : "it is not in sync, or lost power";
}

/* V27: every in-sync member lost power, or is silent and that is accepted. */
static const char *why_no_cold(const struct store_volume *v, const struct store_replica *b, bool silent)
{
	if (!store_replica_lost_power(b))
		return "it is not one that was in sync and lost power";
	for (size_t i = 0; i < v->n_members; i++)
		if (store_replica_is_good(&v->members[i]) && !silent)
			return "another replica is in sync";
	return NULL;
}

static const char *why_no_force(const struct store_replica *b)
{
	if (b->in_sync && !b->lost)
		return "it is in sync: nothing need be lost"; /* V31 */
	return b->reported ? NULL : "it was never opened";
}

/* Who stays in sync besides the new primary? */
static bool stays(const struct store_volume *v, const struct command_volume_takeover *c, const struct store_replica *m)
{
	if (!m->in_sync || m->lost || c->kind == VOLUME_FORCE)
		return false;
	if (c->kind == VOLUME_COLD)
		return store_replica_lost_power(m);
	return m->node != v->primary || (c->confirmed && store_replica_is_good(m));
}

static void lead(struct store_volume *v, const struct command_volume_takeover *c)
{
	for (size_t i = 0; i < v->n_members; i++) {
		struct store_replica *m = &v->members[i];

		m->in_sync = m->node == c->node || stays(v, c, m);
		m->lost = false;
		if (m->in_sync && c->kind != VOLUME_TAKEOVER)
			m->incarnation = m->reported;
	}
	v->epoch++;
	v->primary = c->node;
	v->primary_since = v->vm_epoch = v->epoch;
	if (c->kind == VOLUME_COLD)
		v->cold = v->epoch;
	if (c->kind == VOLUME_FORCE)
		v->fork = v->epoch;
}

void store_apply_volume_takeover(struct store *s, const struct command_volume_takeover *c, struct store_result *r)
{
	const struct store_replica *b;
	const char *why = "it has no replica";
	struct store_node room;
	struct store_volume v;

	if (!must_find(s, c->id, &v, r) || !is_epoch(&v, c->epoch, r))
		return;
	if (c->kind == VOLUME_FORCE && !is_free(s, &v, r)) /* P2: its VM is known to be dead */
		return;
	b = member(&v, c->node);
	if (b && !b->leaving)
		why = c->kind == VOLUME_TAKEOVER ? why_no_takeover(b)
		      : c->kind == VOLUME_COLD   ? why_no_cold(&v, b, c->silent)
						 : why_no_force(b);
	if (why) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s': node %u cannot lead: %s", v.name, c->node, why);
		return;
	}
	if (v.primary != c->node || c->kind != VOLUME_TAKEOVER)
		store_event_add(s, "volume", v.name, "%s leads%s: %s", node_name(s, c->node, &room),
				c->kind == VOLUME_COLD    ? " after a power loss of all replicas"
				: c->kind == VOLUME_FORCE ? ", DATA IS LOST"
							  : "",
				c->reason);
	lead(&v, c);
	store_volume_put(s, &v);
}

/* ---- members ---- */

static const char *why_no_member(struct store *s, const struct store_volume *v, uint32_t node)
{
	struct store_node room;

	if (!store_node(s, node, &room))
		return "there is no such node";
	if (store_volume_on(v, node))
		return "it has a replica";
	return v->n_members == ENGINE_REPLICAS_MAX ? "there are as many as can be" : NULL;
}

static const char *why_not_leave(const struct store_volume *v, const struct store_replica *m)
{
	if (!m || m->leaving)
		return "it has no replica";
	if (m->node == v->primary)
		return "it is the primary";
	return m->in_sync ? "it is in sync" : NULL;
}

void store_apply_volume_member(struct store *s, const struct command_volume_member *c, struct store_result *r)
{
	struct store_replica *m;
	struct store_node room;
	struct store_volume v;
	const char *why;

	if (!must_find(s, c->id, &v, r))
		return;
	m = member(&v, c->node);
	why = c->add ? why_no_member(s, &v, c->node) : why_not_leave(&v, m);
	if (why) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s', node %u: %s", v.name, c->node, why);
		return;
	}
	if (c->add)
		v.members[v.n_members++] = (struct store_replica){.node = c->node};
	else
		m->leaving = true;
	store_volume_put(s, &v);
	store_event_add(s, "volume", v.name, "%s %s a replica: %s", node_name(s, c->node, &room),
			c->add ? "gets" : "gives up", c->reason);
}

void store_volume_delete(struct store *s, const struct store_volume *v)
{
	CHECK(sql_run(&s->q, "DELETE FROM replicas WHERE volume=?", "s", v->id) == 0);
	CHECK(sql_run(&s->q, "DELETE FROM rooms WHERE volume=?", "s", v->id) == 0);
	CHECK(sql_run(&s->q, "DELETE FROM growing WHERE volume=?", "s", v->id) == 0);
	CHECK(sql_run(&s->q, "DELETE FROM wanted WHERE volume=?", "s", v->id) == 0);
	CHECK(sql_run(&s->q, "DELETE FROM volumes WHERE id=?", "s", v->id) == 0);
	store_event_add(s, "volume", v->name, "deleted");
}

void store_apply_volume_erased(struct store *s, const struct command_volume_erased *c, struct store_result *r)
{
	struct store_replica *m;
	struct store_volume v;

	if (!store_volume_by_id(s, c->id, &v))
		return; /* said again */
	m = member(&v, c->node);
	if (!m || !m->leaving) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s', node %u: nothing was to be erased", v.name, c->node);
		return;
	}
	*m = v.members[--v.n_members];
	if (v.deleting && v.n_members == 0)
		store_volume_delete(s, &v);
	else
		store_volume_put(s, &v);
}

/* ---- what administrators want ---- */

static const char *why_not_there(struct store *s, const struct command_volume_set *c)
{
	struct store_node room;
	size_t n = 0;

	for (; n < REPLICAS_MAX && c->nodes[n]; n++) {
		for (size_t i = 0; i < n; i++)
			if (c->nodes[i] == c->nodes[n])
				return "a node is named twice";
		if (!store_node(s, c->nodes[n], &room))
			return "a node is not there";
		if (strcmp(room.role, "witness") == 0)
			return "a witness has no replicas";
	}
	return n > c->replicas ? "more nodes are named than replicas are wanted" : NULL;
}

void store_apply_volume_set(struct store *s, const struct command_volume_set *c, struct store_result *r)
{
	const char *why;
	struct store_volume v;

	if (!store_volume_must_find(s, c->name, &v, r))
		return;
	if (c->replicas < 1 || c->replicas > REPLICAS_MAX) {
		store_refuse(r, PROTO_E_INVALID, "volume '%s': from 1 to %d replicas", c->name, REPLICAS_MAX);
		return;
	}
	why = c->has_nodes ? why_not_there(s, c) : NULL;
	if (!c->has_nodes && c->replicas < REPLICAS_MAX && v.nodes[c->replicas])
		why = "more nodes are named for it than replicas are wanted";
	if (why) {
		store_refuse(r, PROTO_E_INVALID, "volume '%s': %s", c->name, why);
		return;
	}
	v.replicas = c->replicas;
	if (c->has_nodes)
		memcpy(v.nodes, c->nodes, sizeof v.nodes);
	store_volume_put(s, &v);
	store_event_add(s, "volume", c->name, "%u replicas wanted%s by %s", c->replicas,
			c->has_nodes && c->nodes[0] ? ", on nodes that were named," : "", s->actor);
}

void store_apply_volume_grow(struct store *s, const struct command_volume_grow *c, struct store_result *r)
{
	struct store_volume v;

	if (!store_volume_must_find(s, c->name, &v, r))
		return;
	if (c->size <= v.size || c->size < v.grow_to) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' has, or gets, %llu MiB already, and never shrinks",
			     c->name, (unsigned long long)((v.grow_to ? v.grow_to : v.size) >> 20));
		return;
	}
	if (v.filling) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' is being filled from image '%s': wait for that", c->name,
			     v.image);
		return;
	}
	v.grow_to = c->size;
	store_event_add(s, "volume", c->name, "it shall grow to %llu MiB, asked for by %s",
			(unsigned long long)(c->size >> 20), s->actor);
	store_volume_put(s, &v);
}

void store_apply_volume_delete(struct store *s, const struct command_volume_delete *c, struct store_result *r)
{
	struct store_volume v;

	if (!store_volume(s, c->name, &v)) {
		store_refuse(r, PROTO_E_NOT_FOUND, "there is no volume '%s'", c->name);
		return;
	}
	if (v.vm[0]) {
		bool exported = strncmp(v.vm, STORE_EXPORT, strlen(STORE_EXPORT)) == 0;

		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' is %s%s: %s first", c->name,
			     exported ? "exported" : "a disk of VM ", exported ? "" : v.vm,
			     exported ? "unexport it" : "delete the VM, or take the disk from it");
		return;
	}
	store_source_release(s, v.id);
	v.deleting = true;
	v.epoch++; /* whoever leads it stops */
	for (size_t i = 0; i < v.n_members; i++) {
		v.members[i].in_sync = false;
		v.members[i].leaving = true;
	}
	store_volume_put(s, &v);
	store_event_add(s, "volume", c->name, "delete asked for by %s", s->actor);
}

static bool is_export(const char *vm)
{
	return strncmp(vm, STORE_EXPORT, strlen(STORE_EXPORT)) == 0;
}

void store_apply_disk(struct store *s, const struct command_disk *c, struct store_result *r)
{
	struct store_volume v;
	struct store_vm vm;

	if (!store_volume_must_find(s, c->volume, &v, r))
		return;
	if (strcmp(v.vm, c->vm) == 0 && v.disk == c->disk)
		return;
	if (c->vm[0] && !store_vm(s, c->vm, &vm)) {
		store_refuse(r, PROTO_E_NOT_FOUND, "there is no VM '%s'", c->vm);
		return;
	}
	if (strcmp(v.vm, c->vm) != 0 && (strcmp(v.vm, c->from) != 0 || is_export(v.vm))) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' belongs to '%s' by now", c->volume, v.vm);
		return;
	}
	if (!is_free(s, &v, r))
		return;
	memcpy(v.vm, c->vm, sizeof v.vm);
	v.disk = c->disk;
	store_volume_put(s, &v);
}

bool store_disks_are_led(struct store *s, const char *vm, uint32_t node)
{
	sqlite3_stmt *st =
		sql_query(&s->q, "SELECT count(*) FROM volumes WHERE tenant='default' AND vm=? AND primary_node<>?",
			  "su", vm, (uint64_t)node);
	uint64_t others = 0;

	while (sql_row(&s->q, st))
		others = sql_u64(st, 0);
	return others == 0;
}

void store_disks_release(struct store *s, const char *vm)
{
	CHECK(sql_run(&s->q, "UPDATE volumes SET vm='', disk=0, version=version+1 WHERE tenant='default' AND vm=?", "s",
		      vm) == 0);
}
