/* SPDX-License-Identifier: Apache-2.0
 * Exports: volumes that are served without a VM, by a placement like a VM's (L23). */
#include "store/internal.h"

#include <stdio.h>
#include <string.h>

static const char *name_of(struct store *s, uint32_t node, struct store_node *room)
{
	return store_node(s, node, room) ? room->name : "a node that is gone";
}

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
	store_volume_put(s, v);
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
			     name_of(s, c->node, &room));
}

void store_apply_export(struct store *s, const struct command_export *c, struct store_result *r)
{
	char name[NAME_BYTES_MAX];
	struct store_node room;
	struct store_volume v;
	bool exported;

	if (!store_volume_must_find(s, c->volume, &v, r))
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
				c->node ? name_of(s, c->node, &room) : "", s->actor);
}
