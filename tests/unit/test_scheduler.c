/* SPDX-License-Identifier: Apache-2.0
 * Placement: by free memory and CPU, only where a guest may run, important ones first, with growing back-off. */
#include "scheduler/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define GIB (1ULL << 30)

static struct scheduler_node nodes[3];
static struct scheduler_vm vms[2];
static struct scheduler_move moves[4];

static struct scheduler_view view_of(size_t n_vms)
{
	return (struct scheduler_view){.now = 1000, .n_nodes = 3, .nodes = nodes, .n_vms = n_vms, .vms = vms};
}

static int set_up(void **state)
{
	*state = NULL;
	for (size_t i = 0; i < 3; i++)
		nodes[i] = (struct scheduler_node){.node = (node_id_t)i + 1,
						   .is_up = true,
						   .can_run = true,
						   .has_engine = true,
						   .disk_free = GIB,
						   .memory_bytes = 4 * GIB,
						   .cpus = 2};
	for (size_t i = 0; i < 2; i++)
		vms[i] = (struct scheduler_vm){
			.name = i ? "b" : "a", .run = true, .gen = 1, .memory_bytes = GIB, .vcpus = 1, .priority = 100};
	return 0;
}

static void a_vm_goes_where_most_is_free(void **state KEDGE_UNUSED)
{
	struct scheduler_view v = view_of(1);

	nodes[1].memory_bytes = 8 * GIB;
	assert_int_equal(scheduler_plan(&v, moves, 4), 1);
	assert_int_equal(moves[0].to, 2);
	nodes[1].can_run = false;
	assert_int_equal(scheduler_plan(&v, moves, 4), 1);
	assert_int_equal(moves[0].to, 1);
}

static void two_are_spread(void **state KEDGE_UNUSED)
{
	struct scheduler_view v = view_of(2);

	assert_int_equal(scheduler_plan(&v, moves, 4), 2);
	assert_int_not_equal(moves[0].to, moves[1].to);
}

static void important_ones_first(void **state KEDGE_UNUSED)
{
	struct scheduler_view v = view_of(2);

	nodes[1].can_run = nodes[2].can_run = false;
	vms[0].memory_bytes = vms[1].memory_bytes = 3 * GIB; /* one of them fits */
	vms[1].priority = 900;
	assert_int_equal(scheduler_plan(&v, moves, 4), 1);
	assert_int_equal(moves[0].vm, 1);
}

/* P2: without proof that the owner is out, nothing moves, however long it is silent. */
static void nothing_moves_without_proof(void **state KEDGE_UNUSED)
{
	struct scheduler_view v = view_of(1);

	vms[0].owner = 1;
	nodes[0].can_run = false;
	v.now = USEC_INFINITY / 2;
	assert_int_equal(scheduler_plan(&v, moves, 4), 0);
	vms[0].out = SCHEDULER_LAPSED;
	assert_int_equal(scheduler_plan(&v, moves, 4), 1);
	assert_int_not_equal(moves[0].to, 1);
	vms[0].busy = true; /* one command at a time */
	assert_int_equal(scheduler_plan(&v, moves, 4), 0);
}

static void what_ended_by_itself_waits(void **state KEDGE_UNUSED)
{
	struct scheduler_view v = view_of(1);
	char why[REASON_BYTES_MAX];

	vms[0].owner = 1;
	vms[0].out = SCHEDULER_STOPPED;
	vms[0].failed = true;
	vms[0].not_before = v.now + 1;
	assert_int_equal(scheduler_plan(&v, moves, 4), 0);
	scheduler_explain(&v, 0, why);
	assert_true(why[0] != '\0');
	v.now++;
	assert_int_equal(scheduler_plan(&v, moves, 4), 1);
	assert_true(moves[0].failed);
	for (uint32_t i = 1; i < 100; i++)
		assert_true(scheduler_backoff(i + 1) >= scheduler_backoff(i));
	assert_true(scheduler_backoff(1) == 0 && scheduler_backoff(100) == 60 * USEC_PER_SEC);
}

static void no_room_is_said(void **state KEDGE_UNUSED)
{
	struct scheduler_view v = view_of(1);
	char why[REASON_BYTES_MAX];

	vms[0].memory_bytes = 4 * GIB; /* the host keeps its share */
	assert_int_equal(scheduler_plan(&v, moves, 4), 0);
	scheduler_explain(&v, 0, why);
	assert_true(why[0] != '\0');
	vms[0].memory_bytes = GIB;
	vms[0].vcpus = 2 * SCHEDULER_VCPUS_PER_CPU + 1;
	assert_int_equal(scheduler_plan(&v, moves, 4), 0);
}

static void who_shall_not_run_goes_to_nobody(void **state KEDGE_UNUSED)
{
	struct scheduler_view v = view_of(1);

	vms[0].owner = 2;
	vms[0].run = false;
	vms[0].out = SCHEDULER_STOPPED;
	assert_int_equal(scheduler_plan(&v, moves, 4), 1);
	assert_int_equal(moves[0].to, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, set_up)
	const struct CMUnitTest tests[] = {
		TEST(a_vm_goes_where_most_is_free),
		TEST(two_are_spread),
		TEST(important_ones_first),
		TEST(nothing_moves_without_proof),
		TEST(what_ended_by_itself_waits),
		TEST(no_room_is_said),
		TEST(who_shall_not_run_goes_to_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
