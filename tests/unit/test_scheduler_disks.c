/* SPDX-License-Identifier: Apache-2.0
 * Where disks allow a VM to be, who leads a volume that nobody uses, and how many replicas it has where. */
#include "scheduler/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GIB (1ULL << 30)

static struct scheduler_node nodes[4];
static struct scheduler_disk disk;
static struct scheduler_vm vm;
static struct scheduler_move moves[4];
static struct scheduler_view view;

/* A VM with one disk, in sync on 1 (primary) and 2, of 4 nodes. */
static int set_up(void **state)
{
	*state = NULL;
	for (size_t i = 0; i < 4; i++)
		nodes[i] = (struct scheduler_node){.node = (node_id_t)i + 1,
						   .is_up = true,
						   .can_run = true,
						   .has_engine = true,
						   .disk_free = GIB,
						   .replicas = 1,
						   .memory_bytes = 4 * GIB,
						   .cpus = 2};
	disk = (struct scheduler_disk){
		.name = "a.root",
		.primary = 1,
		.size = GIB / 2,
		.wanted = 2,
		.n_replicas = 2,
		.replicas = {{.node = 1, .good = true, .in_sync = true}, {.node = 2, .good = true, .in_sync = true}}};
	vm = (struct scheduler_vm){.name = "a",
				   .run = true,
				   .gen = 1,
				   .memory_bytes = GIB,
				   .vcpus = 1,
				   .priority = 100,
				   .n_disks = 1,
				   .disks = &disk};
	view = (struct scheduler_view){.now = 1000, .n_nodes = 4, .nodes = nodes, .n_vms = 1, .vms = &vm};
	return 0;
}

static void lose(size_t i)
{
	disk.replicas[i].good = false;
	disk.replicas[i].lost_power = true;
}

static void leave(size_t i)
{
	disk.replicas[i].good = disk.replicas[i].in_sync = false;
}

static node_id_t placed(void)
{
	return scheduler_plan(&view, moves, 4) == 1 ? moves[0].to : 0;
}

static void a_vm_waits_until_its_disk_is_filled(void **state KEDGE_UNUSED)
{
	char why[REASON_BYTES_MAX];

	disk.filling = true;
	assert_int_equal(placed(), 0);
	scheduler_explain(&view, 0, why);
	assert_non_null(strstr(why, "filled"));
	disk.filling = false;
	assert_in_range(placed(), 1, 2);
}

static void a_vm_goes_where_its_disk_is_in_sync(void **state KEDGE_UNUSED)
{
	nodes[2].memory_bytes = 64 * GIB;
	assert_in_range(placed(), 1, 2);
	nodes[0].can_run = false;
	assert_int_equal(placed(), 2);
	leave(1);
	assert_int_equal(placed(), 0);
}

static void it_waits_for_the_node_that_has_it(void **state KEDGE_UNUSED)
{
	char why[REASON_BYTES_MAX];

	leave(1);
	nodes[0].is_up = nodes[0].can_run = false;
	assert_int_equal(placed(), 0);
	scheduler_explain(&view, 0, why);
	assert_non_null(strstr(why, "'a.root' is in sync only on nodes that are silent"));
}

static void stopped_without_a_place_it_lets_go_of_its_disks(void **state KEDGE_UNUSED)
{
	vm.owner = 1;
	lose(0);
	nodes[1].can_run = false;
	vm.out = SCHEDULER_LAPSED; /* it may be thawed in place */
	assert_int_equal(scheduler_plan(&view, moves, 4), 0);
	vm.out = SCHEDULER_STOPPED;
	assert_int_equal(scheduler_plan(&view, moves, 4), 1);
	assert_int_equal(moves[0].to, 0);
}

static void cold_when_all_have_reported(void **state KEDGE_UNUSED)
{
	lose(0);
	assert_int_equal(placed(), 2); /* one lost nothing */
	assert_int_equal(scheduler_lead(&disk, 2), SCHEDULER_TAKEOVER);
	lose(1);
	assert_int_equal(scheduler_lead(&disk, 1), SCHEDULER_COLD);
	assert_in_range(placed(), 1, 2);
}

static void cold_without_the_silent_only_after_the_wait(void **state KEDGE_UNUSED)
{
	char why[REASON_BYTES_MAX];

	lose(0);
	nodes[1].is_up = nodes[1].can_run = false;
	assert_int_equal(placed(), 0);
	assert_true(scheduler_waits_for_silent(&view, &disk));
	scheduler_explain(&view, 0, why);
	assert_non_null(strstr(why, "waits for another to report"));
	disk.waited = true;
	assert_int_equal(scheduler_lead(&disk, 1), SCHEDULER_COLD_SILENT);
	assert_int_equal(placed(), 1);
	nodes[1].is_up = true; /* it is back, and lost nothing */
	assert_false(scheduler_waits_for_silent(&view, &disk));
}

static void what_is_out_of_sync_never_leads(void **state KEDGE_UNUSED)
{
	leave(1);
	disk.waited = true;
	assert_int_equal(scheduler_lead(&disk, 2), SCHEDULER_NO);
	assert_int_equal(scheduler_lead(&disk, 3), SCHEDULER_NO);
}

static void a_volume_that_nobody_uses(void **state KEDGE_UNUSED)
{
	assert_int_equal(scheduler_volume(&view, &disk, false), 0);
	assert_int_equal(scheduler_volume(&view, &disk, true), 2);
	nodes[1].is_up = false;
	assert_int_equal(scheduler_volume(&view, &disk, true), 0); /* the primary itself is good: it goes on */
	lose(0);
	lose(1);
	assert_int_equal(scheduler_volume(&view, &disk, true), 1); /* COLD, where it was led */
}

static void an_export_is_for_one_node(void **state KEDGE_UNUSED)
{
	vm.is_export = true;
	vm.memory_bytes = 0;
	vm.vcpus = 0;
	vm.node = 2;
	nodes[1].can_run = false; /* it needs no hypervisor */
	assert_int_equal(placed(), 2);
	vm.node = 3;
	assert_int_equal(placed(), 0);
}

static void only_its_owner_can_run_it(void **state KEDGE_UNUSED)
{
	vm.owner = 1;
	assert_true(scheduler_other_could_run(&view, &vm));
	nodes[1].is_up = false; /* it may come back while nobody can be asked */
	assert_true(scheduler_other_could_run(&view, &vm));
	lose(1); /* it is removed soon, or it is all that is left */
	assert_true(scheduler_other_could_run(&view, &vm));
	leave(1);
	assert_false(scheduler_other_could_run(&view, &vm));
	vm.n_disks = 0;
	assert_true(scheduler_other_could_run(&view, &vm));
}

static void a_replica_is_placed_anew(void **state KEDGE_UNUSED)
{
	node_id_t node;

	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP);
	leave(1);
	nodes[1].is_up = false;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP); /* it may come back */
	nodes[1].is_away = true;
	nodes[2].replicas = 5;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_ADD);
	assert_int_equal(node, 4);
	disk.replicas[2] = (struct scheduler_replica){.node = 4};
	disk.n_replicas = 3;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP); /* it is not in sync yet */
	disk.replicas[2].good = disk.replicas[2].in_sync = true;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_DROP);
	assert_int_equal(node, 2);
}

static void fewer_are_wanted(void **state KEDGE_UNUSED)
{
	node_id_t node;

	disk.wanted = 1;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_DROP);
	assert_int_equal(node, 2); /* never the primary */
	lose(0);
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP); /* it is the last good one */
}

static void no_room_is_no_place(void **state KEDGE_UNUSED)
{
	node_id_t node;

	disk.wanted = 3;
	for (size_t i = 0; i < 4; i++)
		nodes[i].disk_free = 1;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP);
	nodes[2].disk_free = GIB;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_ADD);
	assert_int_equal(node, 3);
	nodes[2].has_engine = false;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP);
}

/* ---- an engine that cannot be relied on ---- */

static void on_unsound_node(void)
{
	vm.owner = 1;
	nodes[0].unsound = true;
}

static void a_vm_leaves_an_unsound_engine(void **state KEDGE_UNUSED)
{
	on_unsound_node();
	assert_true(scheduler_leave(&view, moves));
	assert_int_equal(moves[0].vm, 0);
	assert_int_equal(moves[0].to, 2);
	assert_int_equal(scheduler_plan(&view, moves, 4), 0); /* not before it has stopped (P2) */
	vm.out = SCHEDULER_STOPPED;
	assert_false(scheduler_leave(&view, moves));
	assert_int_equal(placed(), 2); /* though 1 leads its disk */
	nodes[0].unsound = false;
	assert_int_equal(placed(), 1); /* the control */
}

/* It is not ended for nothing: no other node has its disk in sync, or room, or a sound engine. */
static void a_vm_that_nobody_can_take_stays(void **state KEDGE_UNUSED)
{
	on_unsound_node();
	leave(1);
	assert_false(scheduler_leave(&view, moves));
	set_up(state);
	on_unsound_node();
	lose(1);
	assert_false(scheduler_leave(&view, moves));
	set_up(state);
	on_unsound_node();
	nodes[1].unsound = true;
	assert_false(scheduler_leave(&view, moves));
	nodes[1].unsound = false;
	nodes[1].can_run = nodes[1].is_up = false;
	assert_false(scheduler_leave(&view, moves));
	nodes[1].can_run = nodes[1].is_up = true;
	nodes[1].memory_bytes = GIB / 2;
	assert_false(scheduler_leave(&view, moves));
	nodes[1].memory_bytes = GIB * 2;
	assert_true(scheduler_leave(&view, moves)); /* the control */
}

/* Where it stopped meanwhile and the others went away, it runs where it was: better than not at all (P6). */
static void an_unsound_engine_is_better_than_none(void **state KEDGE_UNUSED)
{
	node_id_t node;

	on_unsound_node();
	vm.out = SCHEDULER_STOPPED;
	nodes[1].can_run = nodes[1].is_up = false;
	assert_int_equal(placed(), 1);
	disk.wanted = 3;
	nodes[2].unsound = true;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_ADD);
	assert_int_equal(node, 4); /* rather than 3 */
	nodes[3].is_up = false;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_ADD);
	assert_int_equal(node, 3);
}

static void who_need_not_leave(void **state KEDGE_UNUSED)
{
	on_unsound_node();
	vm.ending = true;
	assert_false(scheduler_leave(&view, moves));
	vm.ending = false;
	vm.busy = true;
	assert_false(scheduler_leave(&view, moves));
	vm.busy = false;
	vm.run = false;
	assert_false(scheduler_leave(&view, moves));
	vm.run = true;
	vm.n_disks = 0; /* it needs no engine */
	assert_false(scheduler_leave(&view, moves));
	vm.n_disks = 1;
	nodes[0].is_up = false; /* its lease decides */
	assert_false(scheduler_leave(&view, moves));
	nodes[0].is_up = true;
	assert_true(scheduler_leave(&view, moves)); /* the control */
}

/* A kernel that cannot be had on its node: rather another one, and the same again if there is none. */
static void rather_elsewhere(void **state KEDGE_UNUSED)
{
	vm.owner = 1;
	vm.out = SCHEDULER_STOPPED;
	vm.failed = true;
	assert_int_equal(placed(), 1);
	vm.elsewhere = true;
	assert_int_equal(placed(), 2);
	leave(1);
	assert_int_equal(placed(), 1);
	vm.n_disks = 0;
	assert_in_range(placed(), 2, 4);
}

#define T(name) cmocka_unit_test_setup(name, set_up)

/* ---- where an administrator wants them ---- */

/* On 2 and 3, and it is on 1 (primary) and 2. */
static void replicas_go_where_they_were_named(void **state KEDGE_UNUSED)
{
	node_id_t node;

	disk.nodes[0] = 2;
	disk.nodes[1] = 3;
	nodes[3].replicas = 0; /* nobody asked for 4 */
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_ADD);
	assert_int_equal(node, 3);
	nodes[2].is_up = false;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP); /* it is waited for */
	nodes[2].is_away = true;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP); /* there are as many as wanted */
	nodes[2] = (struct scheduler_node){.node = 3, .is_up = true, .can_run = true, .has_engine = true};
	disk.replicas[2] = (struct scheduler_replica){.node = 3, .good = true, .in_sync = true};
	disk.n_replicas = 3;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP); /* the one too many leads */
	disk.primary = 3;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_DROP);
	assert_int_equal(node, 1);
}

static void a_vm_is_placed_where_its_disk_was_named(void **state KEDGE_UNUSED)
{
	assert_int_equal(placed(), 1); /* where it is led */
	disk.nodes[0] = 2;
	assert_int_equal(placed(), 2);
	nodes[1].is_up = nodes[1].can_run = false;
	assert_int_equal(placed(), 1); /* better there than nowhere */
}

/* Two that could go, and room for one: the second waits until the first is there, and then stays. */
static void they_leave_one_by_one(void **state KEDGE_UNUSED)
{
	struct scheduler_vm two[2];

	vm.owner = 1;
	vm.memory_bytes = 2 * GIB;
	two[0] = two[1] = vm;
	two[1].name = "b";
	view.n_vms = 2;
	view.vms = two;
	view.n_nodes = 2;
	nodes[0].unsound = true;
	assert_true(scheduler_leave(&view, moves) && moves[0].vm == 0 && moves[0].to == 2);
	two[0].ending = true;
	assert_false(scheduler_leave(&view, moves));
	two[0].ending = false;
	two[0].owner = 2;
	assert_false(scheduler_leave(&view, moves)); /* there is no room for it */
	two[0].memory_bytes = GIB;
	two[1].memory_bytes = GIB;
	assert_true(scheduler_leave(&view, moves) && moves[0].vm == 1);
}

/* One that was named is up and full: another node stands in, and gives way once it can. */
static void who_was_named_and_cannot_is_stood_in_for(void **state KEDGE_UNUSED)
{
	node_id_t node;

	disk.nodes[0] = 1;
	disk.nodes[1] = 3;
	nodes[2].disk_free = 0;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP); /* there are two */
	disk.n_replicas = 1;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_ADD);
	assert_true(node != 3);
	nodes[2].is_up = false;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_KEEP); /* that may be a reboot */
	nodes[2].is_up = true;
	nodes[2].disk_free = GIB;
	assert_int_equal(scheduler_replicas(&view, &disk, &node), SCHEDULER_ADD);
	assert_int_equal(node, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(they_leave_one_by_one, set_up),
		cmocka_unit_test_setup(who_was_named_and_cannot_is_stood_in_for, set_up),
		cmocka_unit_test_setup(replicas_go_where_they_were_named, set_up),
		cmocka_unit_test_setup(a_vm_is_placed_where_its_disk_was_named, set_up),
		T(a_vm_waits_until_its_disk_is_filled),
		T(a_vm_goes_where_its_disk_is_in_sync),
		T(it_waits_for_the_node_that_has_it),
		T(stopped_without_a_place_it_lets_go_of_its_disks),
		T(cold_when_all_have_reported),
		T(cold_without_the_silent_only_after_the_wait),
		T(what_is_out_of_sync_never_leads),
		T(a_volume_that_nobody_uses),
		T(an_export_is_for_one_node),
		T(only_its_owner_can_run_it),
		T(a_replica_is_placed_anew),
		T(fewer_are_wanted),
		T(no_room_is_no_place),
		T(a_vm_leaves_an_unsound_engine),
		T(a_vm_that_nobody_can_take_stays),
		T(an_unsound_engine_is_better_than_none),
		T(who_need_not_leave),
		T(rather_elsewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
