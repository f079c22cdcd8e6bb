/* SPDX-License-Identifier: Apache-2.0
 * What is kept of the highest generations begun on a node, and what may go. */
#include "agent/node_internal.h"
#include "tests/unit/store_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct fixture f;
static struct guard_page page;
static struct node *n;
static unsigned saves;

static usec_t now_cb(void *ctx KEDGE_UNUSED)
{
	return 1000;
}

static void save_cb(void *ctx KEDGE_UNUSED, uint64_t seq KEDGE_UNUSED)
{
	saves++;
}

static int set_up(void **state KEDGE_UNUSED)
{
	const struct node_env env = {.now = now_cb, .started_save = save_cb};
	struct node_config config = {.self = 1, .timing = &timing_lan, .page = &page, .session = 1};

	f = (struct fixture){0};
	saves = 0;
	assert_int_equal(store_open(":memory:", &f.s, NULL), 0);
	config.store = f.s;
	n = node_new(&config, &env);
	return 0;
}

static int tear_down(void **state KEDGE_UNUSED)
{
	n = node_free(n);
	f.s = store_close(f.s);
	return 0;
}

static void define(const char *name)
{
	struct command_vm_put c = {.vcpus = 1, .memory_bytes = 64 << 20, .priority = 100, .machine = "pc"};

	(void)snprintf(c.name, sizeof c.name, "%s", name);
	(void)snprintf(c.uuid, sizeof c.uuid, "00000000-0000-4000-8000-%012x", (unsigned)f.index);
	assert_int_equal(apply(&f, &command_vm_put_type, &c), 0);
}

static void delete (const char *name)
{
	struct command_vm_delete c = {0};

	(void)snprintf(c.name, sizeof c.name, "%s", name);
	assert_int_equal(apply(&f, &command_vm_delete_type, &c), 0);
}

static uint64_t drawn(void)
{
	struct store_cluster cluster = {0};

	store_cluster(f.s, &cluster);
	return cluster.gen_max;
}

static void save(void)
{
	n->n_vms = store_vms(f.s, n->vms, VMS_MAX);
	n->save_seq++;
	node_started_step(n);
	assert_true(n->saving);
	node_started_saved(n, n->saving_seq);
}

static void the_entry_of_a_deleted_vm_goes(void **state KEDGE_UNUSED)
{
	define("stays");
	define("goes");
	node_started_load(n, "stays", 1);
	node_started_load(n, "goes", 2);
	save();
	assert_int_equal(n->n_started, 2);
	delete ("goes");
	save();
	assert_int_equal(n->n_started, 1);
	assert_int_equal(node_started_gen(n, "stays"), 1);
	assert_int_equal(node_started_gen(n, "goes"), 0);
	define("goes"); /* again, and what it gets was never begun here */
	assert_true(drawn() > 2);
}

/* After a power cut the state is older than the file: the row is not there yet, and comes back with this generation. */
static void the_entry_of_a_vm_to_come_stays(void **state KEDGE_UNUSED)
{
	define("early");
	node_started_load(n, "late", drawn() + 1);
	save();
	assert_int_equal(node_started_gen(n, "late"), drawn() + 1);
}

static void the_entry_of_an_instance_stays(void **state KEDGE_UNUSED)
{
	struct instance i = {.vm = "old", .gen = 1, .state = INSTANCE_ENDED};

	define("old");
	node_started_load(n, "old", 1);
	delete ("old");
	n->instances = xcalloc(1, sizeof i);
	n->instances[0] = i;
	n->n_instances = n->cap_instances = 1;
	save();
	assert_int_equal(node_started_gen(n, "old"), 1);
	n->n_instances = 0;
	save();
	assert_int_equal(node_started_gen(n, "old"), 0);
}

/* As many VMs as live at a time, however many there ever were. */
static void it_does_not_grow(void **state KEDGE_UNUSED)
{
	for (unsigned i = 0; i < 200; i++) {
		char name[32];

		(void)snprintf(name, sizeof name, "vm-%u", i);
		define(name);
		node_started_load(n, name, drawn());
		save();
		delete (name);
	}
	assert_int_equal(n->n_started, 1);
	assert_int_equal(saves, 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_entry_of_a_deleted_vm_goes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_entry_of_a_vm_to_come_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_entry_of_an_instance_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(it_does_not_grow, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
