/* SPDX-License-Identifier: Apache-2.0
 * Commands about VMs and their placements. */
#include "store/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t store_next_gen(struct store *s)
{
	sqlite3_stmt *st;
	uint64_t gen = 0;

	CHECK(sql_run(&s->q, "UPDATE meta SET gen_max = gen_max + 1", "") == 0);
	st = sql_query(&s->q, "SELECT gen_max FROM meta", "");
	while (sql_row(&s->q, st))
		gen = sql_u64(st, 0);
	return gen;
}

uint64_t store_count_vms(struct store *s)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT count(*) FROM vms", "");
	uint64_t n = 0;

	while (sql_row(&s->q, st))
		n = sql_u64(st, 0);
	return n;
}

/* A locally administered address made of the UUID's digits, so that it is as unique and as stable. */
static void mac_of(const char *uuid, char ret[18])
{
	char digits[13] = {0};
	size_t n = 0;

	for (const char *c = uuid; *c && n < 12; c++)
		if (*c != '-')
			digits[n++] = *c;
	CHECK(n == 12);
	(void)snprintf(ret, 18, "52:54:%.2s:%.2s:%.2s:%.2s", digits, digits + 2, digits + 4, digits + 6);
}

static bool must_find(struct store *s, const char *name, struct store_vm *ret, struct store_result *r)
{
	if (store_vm(s, name, ret))
		return true;
	store_refuse(r, PROTO_E_NOT_FOUND, "there is no VM '%s'", name);
	return false;
}

static bool may_change(const struct store_vm *vm, struct store_result *r)
{
	if (!vm->deleting)
		return true;
	store_refuse(r, PROTO_E_CONFLICT, "VM '%s' is being deleted: try again when it is gone", vm->spec.name);
	return false;
}

static void insert(struct store *s, const struct command_vm_put *c, struct store_result *r)
{
	char mac[18];

	if (store_count_vms(s) >= VMS_MAX) {
		store_refuse(r, PROTO_E_TOO_MANY, "a cluster has at most %d VMs", VMS_MAX);
		return;
	}
	if (strlen(c->uuid) != 36) {
		store_refuse(r, PROTO_E_INVALID, "VM '%s': no UUID was chosen", c->name);
		return;
	}
	mac_of(c->uuid, mac);
	if (sql_run(&s->q, "INSERT INTO vms VALUES('default',?,?,?,?,?,?,?,?,?,?,?,?,0,0)", "suuusssusssu", c->name,
		    (uint64_t)c->vcpus, c->memory_bytes, (uint64_t)c->run, c->kernel, c->initrd, c->cmdline,
		    (uint64_t)c->priority, c->uuid, mac, c->machine, s->wall) < 0) {
		store_refuse(r, PROTO_E_EXISTS, "VM '%s': name or UUID is taken", c->name);
		return;
	}
	CHECK(sql_run(&s->q, "INSERT INTO placements VALUES('default',?,0,?,1,0,1,0,0,0,?,'',0,1)", "suu", c->name,
		      store_next_gen(s), s->wall) == 0);
	store_event_add(s, "vm", c->name, "defined by %s", s->actor);
}

void store_apply_vm_put(struct store *s, const struct command_vm_put *c, struct store_result *r)
{
	struct store_vm old;

	if (!store_vm(s, c->name, &old)) {
		insert(s, c, r);
		return;
	}
	if (!may_change(&old, r))
		return;
	CHECK(sql_run(&s->q,
		      "UPDATE vms SET vcpus=?, memory=?, run=?, kernel=?, initrd=?, cmdline=?, priority=?"
		      " WHERE tenant='default' AND name=?",
		      "uuusssus", (uint64_t)c->vcpus, c->memory_bytes, (uint64_t)c->run, c->kernel, c->initrd,
		      c->cmdline, (uint64_t)c->priority, c->name) == 0);
	store_event_add(s, "vm", c->name, "definition changed by %s", s->actor);
}

static void delete_row(struct store *s, const char *name)
{
	CHECK(sql_run(&s->q, "DELETE FROM placements WHERE tenant='default' AND vm=?", "s", name) == 0);
	CHECK(sql_run(&s->q, "DELETE FROM vms WHERE tenant='default' AND name=?", "s", name) == 0);
	store_disks_release(s, name);
	store_vm_files_release(s, name);
	store_event_add(s, "vm", name, "deleted");
}

/* A row is deleted only at none (LEASE-PROTOCOL, section 1). */
void store_apply_vm_delete(struct store *s, const struct command_vm_delete *c, struct store_result *r)
{
	struct store_vm vm;

	if (!must_find(s, c->name, &vm, r))
		return;
	store_event_add(s, "vm", c->name, "delete asked for by %s", s->actor);
	if (vm.owner == 0) {
		delete_row(s, c->name);
		return;
	}
	CHECK(sql_run(&s->q, "UPDATE vms SET run=0 WHERE tenant='default' AND name=?", "s", c->name) == 0);
	CHECK(sql_run(&s->q, "UPDATE placements SET deleting=1 WHERE tenant='default' AND vm=?", "s", c->name) == 0);
}

void store_apply_vm_want(struct store *s, const struct command_vm_want *c, struct store_result *r)
{
	struct store_vm vm;

	if (!must_find(s, c->name, &vm, r) || (c->run && !may_change(&vm, r)))
		return;
	CHECK(sql_run(&s->q, "UPDATE vms SET run=? WHERE tenant='default' AND name=?", "us", (uint64_t)c->run,
		      c->name) == 0);
	CHECK(sql_run(&s->q, "UPDATE placements SET fails=0, end_hard=? WHERE tenant='default' AND vm=?", "us",
		      (uint64_t)(!c->run && c->hard), c->name) == 0);
	store_event_add(s, "vm", c->name, "%s by %s", c->run ? "started" : c->hard ? "killed" : "stopped", s->actor);
}

void store_apply_vm_restart(struct store *s, const struct command_vm_restart *c, struct store_result *r)
{
	struct store_vm vm;

	if (!must_find(s, c->name, &vm, r))
		return;
	if (!vm.spec.run) {
		store_refuse(r, PROTO_E_CONFLICT, "VM '%s' is stopped: 'kedge vm start %s' starts it", c->name,
			     c->name);
		return;
	}
	CHECK(sql_run(&s->q, "UPDATE placements SET end_gen=gen, end_hard=?, fails=0 WHERE tenant='default' AND vm=?",
		      "us", (uint64_t)c->hard, c->name) == 0);
	store_event_add(s, "vm", c->name, "restart asked for by %s", s->actor);
}

void store_apply_vm_end(struct store *s, const struct command_vm_end *c, struct store_result *r)
{
	struct store_vm vm;

	if (!must_find(s, c->vm, &vm, r))
		return;
	if (vm.gen != c->gen || vm.end_gen >= vm.gen || !vm.spec.run) {
		store_refuse(r, PROTO_E_CONFLICT, "VM '%s' ends already, or is at another generation", c->vm);
		return;
	}
	CHECK(sql_run(&s->q, "UPDATE placements SET end_gen=gen, end_hard=1 WHERE tenant='default' AND vm=?", "s",
		      c->vm) == 0);
	store_event_add(s, "vm", c->vm, "ended, to run on another node: %s", c->reason);
}

uint32_t store_fails_next(const struct store_vm *vm, usec_t wall)
{
	return wall > vm->since && wall - vm->since >= STORE_STABLE ? 1 : vm->fails + 1;
}

/* Its disks go with it, and are filled. */
static bool can_go(struct store *s, const struct command_move *c, struct store_node *to, struct store_result *r)
{
	char disk[NAME_BYTES_MAX];

	if (!store_node(s, c->to, to))
		store_refuse(r, PROTO_E_NOT_FOUND, "there is no node %u", c->to);
	else if (!store_disks_are_led(s, c->vm, c->to) && !PLANTED(splitmove))
		store_refuse(r, PROTO_E_CONFLICT, "VM '%s': %s does not lead its disks", c->vm, to->name);
	else if (store_disk_is_filling(s, c->vm, disk))
		store_refuse(r, PROTO_E_CONFLICT, "VM '%s': its disk '%s' is not filled yet", c->vm, disk);
	return r->code == 0;
}

/* MOVE applies only at its generation (the compare-and-set that every takeover rests on). */
void store_apply_move(struct store *s, const struct command_move *c, struct store_result *r)
{
	struct store_vm vm;
	struct store_node to = {0};
	uint64_t fails;

	if (!must_find(s, c->vm, &vm, r))
		return;
	if (c->gen != vm.gen && !PLANTED(nocas)) {
		store_refuse(r, PROTO_E_CONFLICT, "VM '%s' is at generation %llu, not %llu", c->vm,
			     (unsigned long long)vm.gen, (unsigned long long)c->gen);
		return;
	}
	if (c->to && !can_go(s, c, &to, r))
		return;
	fails = c->failed ? store_fails_next(&vm, s->wall) : c->to || vm.spec.run ? vm.fails : 0;
	CHECK(sql_run(&s->q,
		      "UPDATE placements SET owner=?, gen=?, movable=1, mver=mver+1, fails=?, since=?, reason=?,"
		      " confirmed=? WHERE tenant='default' AND vm=?",
		      "uuuusus", (uint64_t)c->to, store_next_gen(s), fails, s->wall, c->reason, (uint64_t)c->confirmed,
		      c->vm) == 0);
	if (c->to)
		store_event_add(s, "vm", c->vm, "placed on %s: %s", to.name, c->reason);
	else
		store_event_add(s, "vm", c->vm, "stopped: %s", c->reason);
	if (vm.deleting && c->to == 0)
		delete_row(s, c->vm);
}

/* L20, L21: at this version only, so that every ASK before a withdrawal is void. */
void store_apply_movable(struct store *s, const struct command_movable *c, struct store_result *r)
{
	struct store_vm vm;

	if (!must_find(s, c->vm, &vm, r))
		return;
	if ((vm.mver != c->mver && !PLANTED(movnover)) || vm.movable == c->movable) {
		store_refuse(r, PROTO_E_CONFLICT, "VM '%s' is %smovable at version %llu", c->vm,
			     vm.movable ? "" : "not ", (unsigned long long)vm.mver);
		return;
	}
	CHECK(sql_run(&s->q, "UPDATE placements SET movable=?, mver=mver+1 WHERE tenant='default' AND vm=?", "us",
		      (uint64_t)c->movable, c->vm) == 0);
}

void store_apply_want_movable(struct store *s, const struct command_want_movable *c, struct store_result *r)
{
	struct store_vm vm;

	if (!must_find(s, c->vm, &vm, r))
		return;
	CHECK(sql_run(&s->q, "UPDATE placements SET want_movable=? WHERE tenant='default' AND vm=?", "us",
		      (uint64_t)c->want, c->vm) == 0);
	store_event_add(s, "vm", c->vm,
			c->want ? "another node can run it"
				: "no other node can run it: it is not frozen without a lease");
}

/* Each by MOVE at the generation that it has now. */
static void fence_vms(struct store *s, uint32_t node, struct store_result *r)
{
	struct store_vm *vms = xcalloc(VMS_MAX, sizeof *vms);
	size_t n = store_vms(s, vms, VMS_MAX);

	for (size_t i = 0; i < n && r->code == 0; i++) {
		struct command_move c = {.gen = vms[i].gen, .reason = "its node is off, as an administrator says"};

		if (vms[i].owner != node)
			continue;
		memcpy(c.vm, vms[i].spec.name, sizeof c.vm);
		store_apply_move(s, &c, r);
	}
	free(vms);
}

void store_apply_node_fence(struct store *s, const struct command_node_fence *c, struct store_result *r)
{
	struct store_node nodes[NODES_MAX];
	size_t n = store_nodes(s, nodes, NODES_MAX);

	for (size_t i = 0; i < n; i++) {
		if (strcmp(nodes[i].name, c->name) != 0)
			continue;
		store_event_add(s, "node", c->name, "OFF, as %s says: its VMs may run elsewhere", s->actor);
		fence_vms(s, nodes[i].node, r);
		return;
	}
	store_refuse(r, PROTO_E_NOT_FOUND, "there is no node '%s'", c->name);
}
