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

/* Write the row back, as a new version. */
static void put(struct store *s, struct store_volume *v)
{
	bool whole = count_in_sync(v) >= v->replicas;

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

static bool must_find_name(struct store *s, const char *name, struct store_volume *ret, struct store_result *r)
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
	put(s, &v);
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

static void add_member(struct store *s, struct store_volume *v, struct store_replica *m, uint64_t incarnation,
		       struct store_result *r)
{
	struct store_node room;

	if (m->in_sync || m->leaving || m->reported != incarnation) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s': the replica on node %u %s", v->name, m->node,
			     m->in_sync   ? "is in sync already"
			     : m->leaving ? "is being removed"
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
		put(s, &v);
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
	if (strcmp(m->replica, c->replica) == 0 && m->reported == c->incarnation)
		return;
	if (strcmp(m->replica, c->replica) != 0)
		exchange(s, &v, m, c->replica);
	m->reported = c->incarnation;
	if (m->in_sync && m->incarnation == 0) /* CREATE: its first opening */
		m->incarnation = c->incarnation;
	put(s, &v);
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
	put(s, &v);
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
	put(s, &v);
	store_event_add(s, "volume", v.name, "%s %s a replica: %s", node_name(s, c->node, &room),
			c->add ? "gets" : "gives up", c->reason);
}

static void delete_volume(struct store *s, const struct store_volume *v)
{
	CHECK(sql_run(&s->q, "DELETE FROM replicas WHERE volume=?", "s", v->id) == 0);
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
		delete_volume(s, &v);
	else
		put(s, &v);
}

/* ---- what administrators want ---- */

void store_apply_volume_set(struct store *s, const struct command_volume_set *c, struct store_result *r)
{
	struct store_volume v;

	if (!must_find_name(s, c->name, &v, r))
		return;
	if (c->replicas < 1 || c->replicas > REPLICAS_MAX) {
		store_refuse(r, PROTO_E_INVALID, "volume '%s': from 1 to %d replicas", c->name, REPLICAS_MAX);
		return;
	}
	v.replicas = c->replicas;
	put(s, &v);
	store_event_add(s, "volume", c->name, "%u replicas wanted by %s", c->replicas, s->actor);
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
	put(s, &v);
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

	if (!must_find_name(s, c->volume, &v, r))
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
	put(s, &v);
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

/* ---- exports ---- */

static void end_export(struct store *s, const char *name, struct store_result *r)
{
	struct command_vm_delete c = {0};

	(void)snprintf(c.name, sizeof c.name, "%s", name);
	store_apply_vm_delete(s, &c, r);
}

static void begin_export(struct store *s, struct store_volume *v, const char *name, uint32_t node,
			 struct store_result *r)
{
	if (sql_run(&s->q, "INSERT INTO vms VALUES('default',?,0,0,1,'','','',0,?,'','',?,1,?)", "ssuu", name, name,
		    s->wall, (uint64_t)node) < 0) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' is exported already", v->name);
		return;
	}
	CHECK(sql_run(&s->q, "INSERT INTO placements VALUES('default',?,0,?,1,0,1,0,0,0,?,'',0,1)", "suu", name,
		      store_next_gen(s), s->wall) == 0);
	(void)snprintf(v->vm, sizeof v->vm, "%s", name);
	put(s, v);
}

/* It ends where it is, and is placed on the other node then. */
static void move_export(struct store *s, const char *name, uint32_t node)
{
	CHECK(sql_run(&s->q, "UPDATE vms SET run=1, node=? WHERE tenant='default' AND name=?", "us", (uint64_t)node,
		      name) == 0);
	CHECK(sql_run(&s->q, "UPDATE placements SET end_gen=gen, deleting=0 WHERE tenant='default' AND vm=?", "s",
		      name) == 0);
}

/* May it begin, move or end? */
static void check_export(struct store *s, const struct command_export *c, const struct store_volume *v, bool exported,
			 struct store_result *r)
{
	struct store_node room;

	if (v->vm[0] && !exported)
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' is a disk of VM '%s'", c->volume, v->vm);
	else if (c->node == 0 && !exported)
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' is not exported", c->volume);
	else if (!exported && store_count_vms(s) >= VMS_MAX)
		store_refuse(r, PROTO_E_TOO_MANY, "a cluster has at most %d VMs and exports", VMS_MAX);
	else if (c->node && v->filling)
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' is being filled from image '%s': wait for that",
			     c->volume, v->image);
	else if (c->node && !store_volume_on(v, c->node))
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' has no replica on %s", c->volume,
			     node_name(s, c->node, &room));
}

void store_apply_export(struct store *s, const struct command_export *c, struct store_result *r)
{
	char name[NAME_BYTES_MAX];
	struct store_node room;
	struct store_volume v;
	bool exported;

	if (!must_find_name(s, c->volume, &v, r))
		return;
	if (snprintf(name, sizeof name, STORE_EXPORT "%s", c->volume) >= (int)sizeof name) {
		store_refuse(r, PROTO_E_INVALID, "volume '%s': its name is too long to be exported", c->volume);
		return;
	}
	exported = strcmp(v.vm, name) == 0;
	check_export(s, c, &v, exported, r);
	if (r->code)
		return;
	if (c->node == 0)
		end_export(s, name, r);
	else if (exported)
		move_export(s, name, c->node);
	else
		begin_export(s, &v, name, c->node, r);
	if (r->code == 0)
		store_event_add(s, "volume", c->volume, "%s%s by %s", c->node ? "export on " : "end of the export",
				c->node ? node_name(s, c->node, &room) : "", s->actor);
}
