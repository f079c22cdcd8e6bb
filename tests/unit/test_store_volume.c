/* SPDX-License-Identifier: Apache-2.0
 * Volumes in the store: the table of VOLUME-PROTOCOL, section 1, row by row, and that a VM moves with its disks only.
 */
#include "tests/unit/store_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID "000102030405060708090a0b0c0d0e0f"
#define RA "aa0102030405060708090a0b0c0d0e0f"
#define RB "bb0102030405060708090a0b0c0d0e0f"

enum { REMOVE, ADD, BUMP };

static struct store_volume row(struct fixture *f)
{
	struct store_volume v;

	assert_true(store_volume_by_id(f->s, ID, &v));
	return v;
}

static const struct store_replica *on(const struct store_volume *v, uint32_t node)
{
	const struct store_replica *r = store_volume_on(v, node);

	assert_non_null(r);
	return r;
}

static int report(struct fixture *f, uint32_t node, const char *replica, uint64_t incarnation)
{
	struct command_volume_report c = {.id = ID, .node = node, .incarnation = incarnation};

	(void)snprintf(c.replica, sizeof c.replica, "%s", replica);
	return apply(f, &command_volume_report_type, &c);
}

static int change(struct fixture *f, uint32_t from, uint32_t kind, uint32_t epoch, uint32_t node, uint64_t incarnation)
{
	struct command_volume_change c = {
		.id = ID, .from = from, .kind = kind, .epoch = epoch, .node = node, .incarnation = incarnation};

	return apply(f, &command_volume_change_type, &c);
}

static int takeover(struct fixture *f, uint32_t kind, uint32_t node, bool confirmed, bool silent)
{
	struct command_volume_takeover c = {
		.id = ID, .kind = kind, .epoch = row(f).epoch, .node = node, .confirmed = confirmed, .silent = silent};

	return apply(f, &command_volume_takeover_type, &c);
}

static int grow(struct fixture *f, uint64_t size)
{
	struct command_volume_grow c = {.name = "disk", .size = size};

	return apply(f, &command_volume_grow_type, &c);
}

static int report_room(struct fixture *f, uint32_t node, const char *replica, uint64_t incarnation, uint64_t room)
{
	struct command_volume_report c = {.id = ID, .node = node, .incarnation = incarnation, .room = room};

	(void)snprintf(c.replica, sizeof c.replica, "%s", replica);
	return apply(f, &command_volume_report_type, &c);
}

/* Nodes 1 to 3, a volume with replicas on 1 (primary) and 2, both opened. */
static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);
	struct command_genesis g = {.cluster = "c1", .name = "kedge"};
	struct command_volume_create c = {.id = ID, .name = "disk", .size = 1 << 20, .replicas = 2, .nodes = {1, 2}};
	struct err e;

	assert_int_equal(store_open(":memory:", &f->s, &e), 0);
	assert_int_equal(apply(f, &command_genesis_type, &g), 0);
	for (uint32_t i = 1; i <= 3; i++) {
		struct command_token_add t = {.role = "node", .expires = WALL + 1};
		struct command_node_add n = {.node = i, .role = "node"};

		(void)snprintf(n.name, sizeof n.name, "n%u", i);
		(void)snprintf(n.address, sizeof n.address, "127.0.0.%u:7443", i);
		(void)snprintf(t.id, sizeof t.id, "t%u", i);
		memset(t.secret, 'a', 64);
		assert_int_equal(apply(f, &command_token_add_type, &t), 0);
		if (i > 1)
			memcpy(n.token, t.id, sizeof n.token);
		assert_int_equal(apply(f, &command_node_add_type, &n), 0);
	}
	assert_int_equal(apply(f, &command_volume_create_type, &c), 0);
	assert_int_equal(report(f, 1, RA, 11), 0);
	assert_int_equal(report(f, 2, RB, 21), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	f->s = store_close(f->s);
	free(f);
	return 0;
}

static void add_second(struct fixture *f)
{
	assert_int_equal(change(f, 1, ADD, row(f).epoch, 2, 21), 0);
}

static void created(void **state)
{
	struct store_volume v = row(*state);

	assert_int_equal(v.epoch, 1);
	assert_int_equal(v.primary, 1);
	assert_int_equal(v.n_members, 2);
	assert_true(store_replica_is_good(on(&v, 1))); /* its first report is the incarnation in which it is in sync */
	assert_int_equal(on(&v, 1)->incarnation, 11);
	assert_false(on(&v, 2)->in_sync);
	assert_true(v.degraded != 0);
}

static void add_is_a_compare_and_set(void **state)
{
	struct fixture *f = *state;
	struct store_volume v;

	assert_int_equal(change(f, 1, ADD, 2, 2, 21), PROTO_E_CONFLICT); /* another epoch */
	assert_int_equal(change(f, 2, ADD, 1, 2, 21), PROTO_E_CONFLICT); /* not the primary */
	assert_int_equal(change(f, 1, ADD, 1, 2, 22), PROTO_E_CONFLICT); /* opened anew since */
	assert_int_equal(change(f, 1, ADD, 1, 3, 0), PROTO_E_CONFLICT);  /* no member */
	assert_int_equal(change(f, 1, ADD, 1, 2, 21), 0);
	v = row(f);
	assert_int_equal(v.epoch, 2);
	assert_true(store_replica_is_good(on(&v, 2)));
	assert_true(v.degraded == 0);
	assert_int_equal(change(f, 1, ADD, 2, 2, 21), PROTO_E_CONFLICT); /* is in sync */
}

static void remove_never_takes_the_primary(void **state)
{
	struct fixture *f = *state;

	add_second(f);
	assert_int_equal(change(f, 1, REMOVE, 2, 1, 0), PROTO_E_CONFLICT);
	assert_int_equal(change(f, 1, REMOVE, 1, 2, 0), PROTO_E_CONFLICT); /* `blind-removal` */
	assert_int_equal(change(f, 1, REMOVE, 2, 2, 0), 0);
	assert_int_equal(row(f).epoch, 3);
	assert_true(row(f).degraded != 0);
	assert_int_equal(change(f, 1, BUMP, 3, 0, 0), 0);
	assert_int_equal(row(f).epoch, 4);
}

static void takeover_only_by_one_that_is_in_sync_and_lost_nothing(void **state)
{
	struct fixture *f = *state;
	struct store_volume v;

	assert_int_equal(takeover(f, VOLUME_TAKEOVER, 2, false, false), PROTO_E_CONFLICT);
	add_second(f);
	assert_int_equal(report(f, 2, RB, 22), 0); /* a power loss */
	assert_int_equal(takeover(f, VOLUME_TAKEOVER, 2, false, false), PROTO_E_CONFLICT);
	assert_int_equal(report(f, 2, RB, 21), 0);
	assert_int_equal(takeover(f, VOLUME_TAKEOVER, 2, false, false), 0);
	v = row(f);
	assert_int_equal(v.primary, 2);
	assert_int_equal(v.primary_since, v.epoch);
	assert_int_equal(v.vm_epoch, v.epoch);
	assert_false(on(&v, 1)->in_sync); /* it did not confirm its stop */
}

static void the_old_primary_stays_where_it_confirmed(void **state)
{
	struct fixture *f = *state;
	struct store_volume v;

	add_second(f);
	assert_int_equal(takeover(f, VOLUME_TAKEOVER, 2, true, false), 0);
	v = row(f);
	assert_true(store_replica_is_good(on(&v, 1)));
	assert_int_equal(report(f, 2, RB, 23), 0); /* the new one loses power */
	assert_int_equal(takeover(f, VOLUME_TAKEOVER, 1, true, false), 0);
	v = row(f);
	assert_false(on(&v, 2)->in_sync); /* confirmed, but it lost what it had */
}

static void cold_needs_all_of_them(void **state)
{
	struct fixture *f = *state;
	struct store_volume v;

	add_second(f);
	assert_int_equal(takeover(f, VOLUME_COLD, 1, false, false), PROTO_E_CONFLICT); /* it lost nothing */
	assert_int_equal(report(f, 1, RA, 12), 0);
	assert_int_equal(takeover(f, VOLUME_COLD, 1, false, false), PROTO_E_CONFLICT); /* `eager-cold` */
	assert_int_equal(report(f, 2, RB, 22), 0);
	assert_int_equal(takeover(f, VOLUME_COLD, 1, false, false), 0);
	v = row(f);
	assert_int_equal(v.cold, v.epoch);
	assert_true(store_replica_is_good(on(&v, 1)) && store_replica_is_good(on(&v, 2)));
}

static void cold_without_the_silent_leaves_them_out(void **state)
{
	struct fixture *f = *state;
	struct store_volume v;

	add_second(f);
	assert_int_equal(report(f, 1, RA, 12), 0);
	assert_int_equal(takeover(f, VOLUME_COLD, 1, false, true), 0);
	v = row(f);
	assert_true(store_replica_is_good(on(&v, 1)));
	assert_false(on(&v, 2)->in_sync);
}

static void force_is_for_those_out_of_sync(void **state)
{
	struct fixture *f = *state;
	struct store_volume v;

	assert_int_equal(takeover(f, VOLUME_FORCE, 1, false, false), PROTO_E_CONFLICT); /* V31 */
	assert_int_equal(takeover(f, VOLUME_FORCE, 2, false, false), 0);
	v = row(f);
	assert_int_equal(v.fork, v.epoch);
	assert_int_equal(on(&v, 2)->incarnation, 21);
	assert_true(store_replica_is_good(on(&v, 2)));
	assert_false(on(&v, 1)->in_sync);
}

static void other_files_are_a_lost_replica(void **state)
{
	struct fixture *f = *state;
	struct store_volume v;

	add_second(f);
	assert_int_equal(report(f, 2, "cc0102030405060708090a0b0c0d0e0f", 31), 0);
	v = row(f);
	assert_false(on(&v, 2)->in_sync); /* removed: the primary goes on */
	assert_int_equal(v.epoch, 3);
	assert_int_equal(report(f, 1, "dd0102030405060708090a0b0c0d0e0f", 41), 0);
	v = row(f);
	assert_true(on(&v, 1)->lost);
	assert_int_equal(takeover(f, VOLUME_TAKEOVER, 1, false, false), PROTO_E_CONFLICT);
	assert_int_equal(takeover(f, VOLUME_COLD, 1, false, true), PROTO_E_CONFLICT); /* V25: never COLD's choice */
}

static void who_leaves_is_erased_first(void **state)
{
	struct fixture *f = *state;
	struct command_volume_member m = {.id = ID, .node = 2};
	struct command_volume_erased erased = {.id = ID, .node = 2};

	add_second(f);
	assert_int_equal(apply(f, &command_volume_member_type, &m), PROTO_E_CONFLICT); /* in sync */
	assert_int_equal(change(f, 1, REMOVE, 2, 2, 0), 0);
	assert_int_equal(apply(f, &command_volume_erased_type, &erased), PROTO_E_CONFLICT);
	assert_int_equal(apply(f, &command_volume_member_type, &m), 0);
	assert_int_equal(row(f).n_members, 2);
	assert_int_equal(change(f, 1, ADD, 3, 2, 21), PROTO_E_CONFLICT);
	assert_int_equal(apply(f, &command_volume_erased_type, &erased), 0);
	assert_int_equal(row(f).n_members, 1);
	m = (struct command_volume_member){.id = ID, .node = 3, .add = true};
	assert_int_equal(apply(f, &command_volume_member_type, &m), 0);
	assert_int_equal(apply(f, &command_volume_member_type, &m), PROTO_E_CONFLICT);
}

static void deleting_waits_for_every_node(void **state)
{
	struct fixture *f = *state;
	struct command_volume_delete d = {.name = "disk"};
	struct command_volume_erased erased = {.id = ID, .node = 1};
	struct store_volume v;

	assert_int_equal(apply(f, &command_volume_delete_type, &d), 0);
	assert_int_equal(apply(f, &command_volume_erased_type, &erased), 0);
	assert_true(store_volume(f->s, "disk", &v) && v.deleting);
	erased.node = 2;
	assert_int_equal(apply(f, &command_volume_erased_type, &erased), 0);
	assert_false(store_volume(f->s, "disk", &v));
	assert_int_equal(apply(f, &command_volume_erased_type, &erased), 0); /* said again */
}

/* ---- VMs ---- */

static void put_vm(struct fixture *f)
{
	struct command_vm_put c = {.name = "vm",
				   .vcpus = 1,
				   .memory_bytes = 64 << 20,
				   .run = true,
				   .uuid = "00000000-0000-4000-8000-000000000001",
				   .machine = "m"};
	struct command_disk d = {.volume = "disk", .vm = "vm"};

	assert_int_equal(apply(f, &command_vm_put_type, &c), 0);
	assert_int_equal(apply(f, &command_disk_type, &d), 0);
}

static uint64_t gen_of(struct fixture *f, const char *name)
{
	struct store_vm vm;

	assert_true(store_vm(f->s, name, &vm));
	return vm.gen;
}

static int move_with_disk(struct fixture *f, uint32_t to, uint32_t epoch)
{
	struct command_move m = {.vm = "vm", .to = to, .gen = gen_of(f, "vm")};
	struct command_volume_takeover t = {.id = ID, .epoch = epoch, .node = to};
	const struct body both[] = {{&command_volume_takeover_type, &t}, {&command_move_type, &m}};

	return apply_all(f, both, 2);
}

static void a_vm_moves_with_its_disks_only(void **state)
{
	struct fixture *f = *state;
	struct command_move alone = {.vm = "vm", .to = 2};
	struct store_vm vm;

	add_second(f);
	put_vm(f);
	alone.gen = gen_of(f, "vm");
	assert_int_equal(apply(f, &command_move_type, &alone), PROTO_E_CONFLICT); /* `splitmove` */
	assert_int_equal(move_with_disk(f, 2, 1), PROTO_E_CONFLICT);              /* all or nothing */
	assert_true(store_vm(f->s, "vm", &vm) && vm.owner == 0 && row(f).primary == 1);
	assert_int_equal(move_with_disk(f, 2, row(f).epoch), 0);
	assert_true(store_vm(f->s, "vm", &vm) && vm.owner == 2 && row(f).primary == 2);
	assert_int_equal(row(f).vm_epoch, row(f).epoch);
}

static void a_disk_in_use_stays(void **state)
{
	struct fixture *f = *state;
	struct command_disk d = {.volume = "disk", .vm = "", .from = "vm"};
	struct command_volume_delete del = {.name = "disk"};
	struct command_vm_delete gone = {.name = "vm"};
	struct command_move stop = {.vm = "vm"};

	put_vm(f);
	assert_int_equal(apply(f, &command_volume_delete_type, &del), PROTO_E_CONFLICT);
	assert_int_equal(move_with_disk(f, 1, row(f).epoch), 0);
	assert_int_equal(apply(f, &command_disk_type, &d), PROTO_E_CONFLICT);
	assert_int_equal(apply(f, &command_vm_delete_type, &gone), 0);
	stop.gen = gen_of(f, "vm");
	assert_int_equal(apply(f, &command_move_type, &stop), 0);
	assert_string_equal(row(f).vm, ""); /* the VM is gone, its data is not */
	assert_false(row(f).deleting);
}

static void an_export_is_a_placement(void **state)
{
	struct fixture *f = *state;
	struct command_export c = {.volume = "disk", .node = 3};
	struct command_disk late = {.volume = "disk", .from = STORE_EXPORT "disk"};
	struct command_move m = {.vm = STORE_EXPORT "disk"};
	struct store_vm vm;

	assert_int_equal(apply(f, &command_export_type, &c), PROTO_E_CONFLICT); /* no replica there */
	c.node = 1;
	assert_int_equal(apply(f, &command_export_type, &c), 0);
	assert_true(store_vm(f->s, STORE_EXPORT "disk", &vm) && vm.is_export && vm.node == 1 && vm.owner == 0);
	assert_string_equal(row(f).vm, STORE_EXPORT "disk");
	assert_int_equal(apply(f, &command_disk_type, &late), PROTO_E_CONFLICT); /* decided before it was exported */
	(void)snprintf(late.from, sizeof late.from, "vm");
	assert_int_equal(apply(f, &command_disk_type, &late), PROTO_E_CONFLICT);
	m.to = 1;
	m.gen = vm.gen;
	assert_int_equal(apply(f, &command_move_type, &m), 0);
	c.node = 2; /* ends here, begins there */
	assert_int_equal(apply(f, &command_export_type, &c), 0);
	assert_true(store_vm(f->s, STORE_EXPORT "disk", &vm) && vm.node == 2 && vm.end_gen == vm.gen && vm.owner == 1);
	c.node = 0;
	assert_int_equal(apply(f, &command_export_type, &c), 0);
	m.to = 0;
	m.gen = vm.gen;
	assert_int_equal(apply(f, &command_move_type, &m), 0);
	assert_false(store_vm(f->s, STORE_EXPORT "disk", &vm));
	assert_string_equal(row(f).vm, "");
	assert_int_equal(apply(f, &command_export_type, &c), PROTO_E_CONFLICT); /* not exported */
}

/* In sync is only who has room for all of it. */
static void it_grows_when_all_in_sync_have_room(void **state)
{
	struct fixture *f = *state;
	const uint64_t old = 1 << 20, more = 4 << 20;

	add_second(f);
	assert_int_equal(grow(f, old), PROTO_E_CONFLICT); /* it has that */
	assert_int_equal(grow(f, old / 2), PROTO_E_CONFLICT);
	assert_int_equal(grow(f, more), 0);
	assert_int_equal(row(f).epoch, 2);
	assert_true(row(f).size == old && row(f).grow_to == more);
	assert_int_equal(report_room(f, 1, RA, 11, more), 0);
	assert_int_equal(report_room(f, 2, RB, 21, old), 0); /* opened, and not grown yet */
	assert_int_equal(row(f).size, old);
	assert_int_equal(grow(f, 2 << 20), PROTO_E_CONFLICT); /* less than it is to get */
	assert_int_equal(report_room(f, 2, RB, 21, more), 0);
	assert_true(row(f).size == more && row(f).grow_to == 0);
	assert_int_equal(row(f).epoch, 3); /* the size goes with the epoch */
	assert_int_equal(report_room(f, 2, RB, 21, more), 0);
}

static void who_has_no_room_leaves_or_waits_outside(void **state)
{
	struct fixture *f = *state;
	const uint64_t old = 1 << 20, more = 4 << 20;

	add_second(f);
	assert_int_equal(report_room(f, 1, RA, 11, old), 0);
	assert_int_equal(report_room(f, 2, RB, 21, old), 0);
	assert_int_equal(grow(f, more), 0);
	assert_int_equal(report_room(f, 1, RA, 11, more), 0);
	assert_int_equal(row(f).size, old);
	assert_int_equal(change(f, 1, REMOVE, 2, 2, 0), 0); /* it died: nobody waits for its room */
	assert_int_equal(row(f).size, more);
	assert_int_equal(change(f, 1, ADD, row(f).epoch, 2, 21), PROTO_E_CONFLICT);
	assert_int_equal(report_room(f, 2, RB, 21, more), 0);
	assert_int_equal(change(f, 1, ADD, row(f).epoch, 2, 21), 0);
}

static int want(struct fixture *f, uint32_t replicas, uint32_t a, uint32_t b, uint32_t c)
{
	struct command_volume_set set = {.name = "disk", .replicas = replicas, .has_nodes = true, .nodes = {a, b, c}};

	return apply(f, &command_volume_set_type, &set);
}

static void nodes_are_named(void **state)
{
	struct fixture *f = *state;
	struct command_volume_set only_count = {.name = "disk", .replicas = 3};

	assert_int_equal(want(f, 2, 3, 1, 0), 0);
	assert_true(row(f).nodes[0] == 3 && row(f).nodes[1] == 1 && row(f).nodes[2] == 0);
	assert_int_equal(want(f, 2, 1, 1, 0), PROTO_E_INVALID);
	assert_int_equal(want(f, 2, 1, 9, 0), PROTO_E_INVALID);
	assert_int_equal(want(f, 2, 1, 2, 3), PROTO_E_INVALID);
	assert_int_equal(apply(f, &command_volume_set_type, &only_count), 0);
	assert_true(row(f).nodes[0] == 3 && row(f).replicas == 3); /* as they were */
	only_count.replicas = 1;
	assert_int_equal(apply(f, &command_volume_set_type, &only_count), PROTO_E_INVALID); /* two are named */
	assert_int_equal(want(f, 3, 0, 0, 0), 0);
	assert_int_equal(row(f).nodes[0], 0);
}

static void a_snapshot_has_them(void **state)
{
	struct fixture *f = *state;
	struct store *other;
	struct store_volume v;
	struct err e;
	void *image;
	size_t n;

	add_second(f);
	assert_int_equal(grow(f, 4 << 20), 0);
	assert_int_equal(report_room(f, 1, RA, 11, 4 << 20), 0);
	store_snapshot(f->s, &image, &n);
	assert_int_equal(store_open(":memory:", &other, &e), 0);
	assert_int_equal(store_restore(other, image, n), 0);
	assert_true(store_volume(other, "disk", &v) && v.n_members == 2 && v.epoch == 2);
	assert_true(v.grow_to == 4 << 20 && on(&v, 1)->room == 4 << 20 && on(&v, 2)->room == 0);
	assert_true(store_hash(other) == store_hash(f->s));
	other = store_close(other);
	free(image);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(created),
		T(add_is_a_compare_and_set),
		T(remove_never_takes_the_primary),
		T(takeover_only_by_one_that_is_in_sync_and_lost_nothing),
		T(the_old_primary_stays_where_it_confirmed),
		T(cold_needs_all_of_them),
		T(cold_without_the_silent_leaves_them_out),
		T(force_is_for_those_out_of_sync),
		T(other_files_are_a_lost_replica),
		T(who_leaves_is_erased_first),
		T(deleting_waits_for_every_node),
		T(a_vm_moves_with_its_disks_only),
		T(a_disk_in_use_stays),
		T(an_export_is_a_placement),
		T(it_grows_when_all_in_sync_have_room),
		T(who_has_no_room_leaves_or_waits_outside),
		T(nodes_are_named),
		T(a_snapshot_has_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
