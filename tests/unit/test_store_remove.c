/* SPDX-License-Identifier: Apache-2.0
 * A node that is removed: what it is needed for keeps it, and what it had goes with it. */
#include "tests/unit/store_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID     "000102030405060708090a0b0c0d0e0f"
#define RA     "aa0102030405060708090a0b0c0d0e0f"
#define RB     "bb0102030405060708090a0b0c0d0e0f"
#define DIGEST "00000000000000000000000000000000000000000000000000000000000000aa"

static struct fixture f;

static void join(uint32_t i)
{
	struct command_token_add t = {.role = "node", .expires = WALL + 1};
	struct command_node_add n = {.node = i, .role = "node"};

	(void)snprintf(n.name, sizeof n.name, "n%u", i);
	(void)snprintf(n.address, sizeof n.address, "127.0.0.%u:7443", i);
	(void)snprintf(t.id, sizeof t.id, "t%u", i);
	memset(t.secret, 'a', 64);
	assert_int_equal(apply(&f, &command_token_add_type, &t), 0);
	memcpy(n.token, t.id, sizeof n.token);
	assert_int_equal(apply(&f, &command_node_add_type, &n), 0);
}

static void report(uint32_t node, const char *replica, uint64_t incarnation)
{
	struct command_volume_report c = {.id = ID, .node = node, .incarnation = incarnation};

	(void)snprintf(c.replica, sizeof c.replica, "%s", replica);
	assert_int_equal(apply(&f, &command_volume_report_type, &c), 0);
}

static struct store_volume row(void)
{
	struct store_volume v;

	assert_true(store_volume_by_id(f.s, ID, &v));
	return v;
}

/* Nodes 1 to 3, a volume that is in sync on 1 (primary) and 2. */
static int set_up(void **state KEDGE_UNUSED)
{
	struct command_genesis g = {.cluster = "c1", .name = "kedge"};
	struct command_volume_create c = {.id = ID, .name = "disk", .size = 1 << 20, .replicas = 2, .nodes = {1, 2}};
	struct command_volume_change add = {.id = ID, .from = 1, .kind = 1, .epoch = 1, .node = 2, .incarnation = 21};

	f = (struct fixture){0};
	assert_int_equal(store_open(":memory:", &f.s, NULL), 0);
	assert_int_equal(apply(&f, &command_genesis_type, &g), 0);
	for (uint32_t i = 1; i <= 3; i++)
		join(i);
	assert_int_equal(apply(&f, &command_volume_create_type, &c), 0);
	report(1, RA, 11);
	report(2, RB, 21);
	assert_int_equal(apply(&f, &command_volume_change_type, &add), 0);
	return 0;
}

static int tear_down(void **state KEDGE_UNUSED)
{
	f.s = store_close(f.s);
	return 0;
}

static int remove_node(const char *name)
{
	struct command_node_remove c = {0};

	(void)snprintf(c.name, sizeof c.name, "%s", name);
	return apply(&f, &command_node_remove_type, &c);
}

static void its_replica_leaves_at_once(void **state KEDGE_UNUSED)
{
	struct store_node room;
	struct store_volume v;

	assert_int_equal(remove_node("n2"), 0);
	v = row();
	assert_int_equal(v.n_members, 1);
	assert_int_equal(v.epoch, 3); /* REMOVE */
	assert_true(v.degraded != 0);
	assert_false(store_node(f.s, 2, &room));
	assert_int_equal(remove_node("n2"), PROTO_E_NOT_FOUND);
	join(4); /* its number is never used again */
	assert_true(store_node(f.s, 4, &room));
}

static void out_of_sync_changes_no_epoch(void **state KEDGE_UNUSED)
{
	struct command_volume_change out = {.id = ID, .from = 1, .epoch = 2, .node = 2};

	assert_int_equal(apply(&f, &command_volume_change_type, &out), 0);
	assert_int_equal(remove_node("n2"), 0);
	assert_int_equal(row().epoch, 3);
	assert_int_equal(row().n_members, 1);
}

/* The primary lost power: what the other one has is nowhere else. And who leads stays. */
static void what_only_it_has_keeps_it(void **state KEDGE_UNUSED)
{
	assert_int_equal(remove_node("n1"), PROTO_E_CONFLICT); /* it leads */
	report(1, RA, 12);
	assert_int_equal(remove_node("n2"), PROTO_E_CONFLICT);
	report(2, RB, 22); /* now both lost power, and either is as good */
	assert_int_equal(remove_node("n2"), 0);
	assert_int_equal(row().primary, 1);
	assert_int_equal(remove_node("n1"), PROTO_E_CONFLICT); /* the last one */
	assert_int_equal(row().n_members, 1);
}

static void a_deleted_volume_waits_for_it_no_more(void **state KEDGE_UNUSED)
{
	struct command_volume_delete c = {.name = "disk"};
	struct command_volume_erased erased = {.id = ID, .node = 1};
	struct store_volume v;

	assert_int_equal(apply(&f, &command_volume_delete_type, &c), 0);
	assert_int_equal(apply(&f, &command_volume_erased_type, &erased), 0);
	assert_int_equal(row().n_members, 1);
	assert_int_equal(remove_node("n2"), 0);
	assert_false(store_volume_by_id(f.s, ID, &v));
}

static void a_vm_on_it_keeps_it(void **state KEDGE_UNUSED)
{
	struct command_vm_put vm = {.name = "a",
				    .vcpus = 1,
				    .memory_bytes = 64 << 20,
				    .run = true,
				    .machine = "m",
				    .uuid = "00000000-0000-4000-8000-000000000001"};
	struct command_move move = {.vm = "a", .to = 3};
	struct command_node_fence fence = {.name = "n3"};
	struct store_vm v;

	assert_int_equal(apply(&f, &command_vm_put_type, &vm), 0);
	assert_true(store_vm(f.s, "a", &v));
	move.gen = v.gen;
	assert_int_equal(apply(&f, &command_move_type, &move), 0);
	assert_int_equal(remove_node("n3"), PROTO_E_CONFLICT);
	assert_int_equal(apply(&f, &command_node_fence_type, &fence), 0); /* the remedy */
	assert_int_equal(remove_node("n3"), 0);
}

static void what_it_held_is_forgotten(void **state KEDGE_UNUSED)
{
	struct command_image_add c = {
		.name = "i", .digest = DIGEST, .bytes = 1, .size = 1, .format = "raw", .copies = 2, .node = 3};
	struct command_image_held held = {.digest = DIGEST, .node = 2, .held = true};

	assert_int_equal(apply(&f, &command_image_add_type, &c), 0);
	assert_int_equal(apply(&f, &command_image_held_type, &held), 0);
	assert_int_equal(remove_node("n3"), 0);
	assert_true(store_holders(f.s, DIGEST) == 1 << 1);
	held.node = 3; /* said before it was removed, read after */
	assert_int_not_equal(apply(&f, &command_image_held_type, &held), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(its_replica_leaves_at_once), T(out_of_sync_changes_no_epoch),
		T(what_only_it_has_keeps_it),  T(a_deleted_volume_waits_for_it_no_more),
		T(a_vm_on_it_keeps_it),        T(what_it_held_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
