/* SPDX-License-Identifier: Apache-2.0
 * A generation that cannot be started on its node is given back, and only then. */
#include "agent/node_internal.h"
#include "tests/unit/store_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define T0 (1000 * USEC_PER_SEC)

static struct fixture f;
static struct guard_page page;
static struct node *n;
static struct consensus_view raft;
static usec_t now, progress;
static bool ready;
static unsigned starts, reports;
static struct peer_stopped stopped;

static usec_t now_cb(void *ctx KEDGE_UNUSED)
{
	return now;
}

static void save_cb(void *ctx KEDGE_UNUSED, uint64_t seq KEDGE_UNUSED)
{
}

static void send_cb(void *ctx KEDGE_UNUSED, node_id_t to KEDGE_UNUSED, const void *p, size_t len)
{
	if (message_decode(&peer_stopped_type, p, len, &stopped, NULL) == 0)
		reports++;
}

static bool serve_cb(void *ctx KEDGE_UNUSED, const struct store_vm *vm KEDGE_UNUSED)
{
	return ready;
}

static usec_t progress_cb(void *ctx KEDGE_UNUSED, const struct store_vm *vm KEDGE_UNUSED)
{
	return progress;
}

static void start_cb(void *ctx KEDGE_UNUSED, const struct store_vm *vm KEDGE_UNUSED)
{
	starts++;
}

static void turn(void)
{
	atomic_store(&page.deadline, now + USEC_PER_SEC);
	n->n_vms = store_vms(f.s, n->vms, VMS_MAX);
	node_instances_step(n, &raft);
	if (n->saving)
		node_started_saved(n, n->saving_seq);
	node_instances_step(n, &raft);
}

/* A VM that was placed on node 2, whose lease is valid. */
static int set_up(void **state KEDGE_UNUSED)
{
	const struct node_env env = {.now = now_cb,
				     .send = send_cb,
				     .started_save = save_cb,
				     .disks_serve = serve_cb,
				     .files_progress = progress_cb,
				     .vm_start = start_cb};
	struct node_config config = {.self = 2, .timing = &timing_lan, .page = &page, .session = 1};
	struct command_genesis g = {.cluster = "c1", .name = "kedge"};
	struct command_vm_put vm = {.name = "a",
				    .vcpus = 1,
				    .memory_bytes = 64 << 20,
				    .run = true,
				    .machine = "m",
				    .uuid = "00000000-0000-4000-8000-000000000001"};
	struct command_move move = {.vm = "a", .to = 2, .gen = 1};
	struct peer_lease_grant grant = {.term = 1, .session = 1};
	struct peer_lease_req req;
	usec_t deadline;

	f = (struct fixture){0};
	now = progress = T0;
	ready = false;
	starts = reports = 0;
	assert_int_equal(store_open(":memory:", &f.s, NULL), 0);
	assert_int_equal(apply(&f, &command_genesis_type, &g), 0);
	for (uint32_t i = 1; i <= 2; i++) {
		struct command_node_add add = {.node = i, .role = "node"};

		(void)snprintf(add.name, sizeof add.name, "n%u", i);
		(void)snprintf(add.address, sizeof add.address, "127.0.0.%u:7443", i);
		assert_int_equal(apply(&f, &command_node_add_type, &add), 0);
	}
	assert_int_equal(apply(&f, &command_vm_put_type, &vm), 0);
	assert_int_equal(apply(&f, &command_move_type, &move), 0);
	config.store = f.s;
	n = node_new(&config, &env);
	raft = (struct consensus_view){.term = 1, .leader = 1, .applied = f.index};
	lease_node_ask(&n->lease, 1, now, &req);
	grant.num = req.num;
	assert_true(lease_node_grant(&n->lease, &grant, now, &deadline));
	turn();
	assert_non_null(node_instance(n, "a"));
	return 0;
}

static int tear_down(void **state KEDGE_UNUSED)
{
	n = node_free(n);
	f.s = store_close(f.s);
	return 0;
}

static void after(usec_t time)
{
	now += time;
	turn();
}

static void without_its_files_it_is_given_back(void **state KEDGE_UNUSED)
{
	after(FILES_WAIT - 1);
	assert_int_equal(reports, 0);
	after(1);
	assert_int_equal(reports, 1);
	assert_int_equal(starts, 0);
	assert_int_equal(stopped.gen, 2);
	assert_true(stopped.failed && stopped.elsewhere);
	assert_non_null(strstr(stopped.reason, "kernel"));
}

static void what_comes_slowly_is_waited_for(void **state KEDGE_UNUSED)
{
	for (unsigned i = 0; i < 20; i++) {
		after(FILES_WAIT - 1);
		progress = now;
	}
	assert_int_equal(reports, 0);
	progress = 0;
	ready = true;
	after(1);
	assert_int_equal(starts, 1);
}

/* Its engine or its disk has other remedies. */
static void a_disk_is_waited_for(void **state KEDGE_UNUSED)
{
	progress = 0;
	after(100 * FILES_WAIT);
	assert_int_equal(reports, 0);
	ready = true;
	after(1);
	assert_int_equal(starts, 1);
}

/* END, or an administrator's restart, while it waits. */
static void one_that_shall_end_is_given_back(void **state KEDGE_UNUSED)
{
	struct command_vm_end end = {.vm = "a", .gen = 2};

	assert_int_equal(apply(&f, &command_vm_end_type, &end), 0);
	after(1);
	assert_int_equal(reports, 1);
	assert_false(stopped.failed || stopped.elsewhere);
	ready = true;
	after(1);
	assert_int_equal(starts, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(without_its_files_it_is_given_back),
		T(what_comes_slowly_is_waited_for),
		T(a_disk_is_waited_for),
		T(one_that_shall_end_is_given_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
