/* SPDX-License-Identifier: Apache-2.0
 * What a node tells its engine and the cluster of a replica that was given up. Engine, leader and the node's decisions
 * are the test's; the state is a real one. */
#include "agent/agent.h"
#include "agent/engine_link.h"
#include "tests/unit/store_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID "000102030405060708090a0b0c0d0e0f"

static struct fixture f;
static struct agent agent;
static struct engine_link_callbacks engine;
static struct store_volume *rows;
static bool knows;
static unsigned n_rows_told, n_drops, n_submits;
static char submitted[32];
static ctl_done done;
static void *done_ctx;

/* ---- the engine's end ---- */

int engine_link_open(const struct engine_link_config *config KEDGE_UNUSED, const struct engine_link_callbacks *cb,
		     struct engine_link **ret, struct err *e KEDGE_UNUSED)
{
	engine = *cb;
	*ret = (struct engine_link *)&engine;
	return 0;
}

void engine_link_step(struct engine_link *l KEDGE_UNUSED)
{
}

bool engine_link_is_connected(const struct engine_link *l KEDGE_UNUSED)
{
	return true;
}

bool engine_link_is_unsound(struct engine_link *l KEDGE_UNUSED)
{
	return false;
}

const char *engine_link_version(const struct engine_link *l KEDGE_UNUSED)
{
	return "";
}

bool engine_link_row(struct engine_link *l KEDGE_UNUSED, const struct engine_row *row KEDGE_UNUSED)
{
	n_rows_told++;
	return true;
}

bool engine_link_drop(struct engine_link *l KEDGE_UNUSED, const char *id)
{
	assert_string_equal(id, ID);
	n_drops++;
	return true;
}

bool engine_link_verify(struct engine_link *l KEDGE_UNUSED, const char *id KEDGE_UNUSED, bool primary_wins KEDGE_UNUSED)
{
	return true;
}

void engine_link_proposed(struct engine_link *l KEDGE_UNUSED, uint64_t seq KEDGE_UNUSED, int rc KEDGE_UNUSED)
{
}

void engine_link_peer(struct engine_link *l KEDGE_UNUSED, node_id_t node KEDGE_UNUSED, const char *address KEDGE_UNUSED)
{
}

void engine_link_accept(struct engine_link *l KEDGE_UNUSED, int fd KEDGE_UNUSED, const uint8_t *first KEDGE_UNUSED,
			size_t n KEDGE_UNUSED)
{
}

struct engine_link *engine_link_close(struct engine_link *l KEDGE_UNUSED)
{
	return NULL;
}

/* ---- the cluster ---- */

void ctl_submit(struct ctl *ctl KEDGE_UNUSED, const char *method, const struct buf *params KEDGE_UNUSED, ctl_done cb,
		void *ctx)
{
	assert_null(done); /* one at a time */
	(void)snprintf(submitted, sizeof submitted, "%s", method);
	done = cb;
	done_ctx = ctx;
	n_submits++;
}

/* The leader's answer, or, with an error, that there is none. */
static void answer(bool taken)
{
	ctl_done cb = done;
	struct buf b = {0};
	struct pack p = {.out = &b};

	pack_array(&p);
	pack_u64(&p, 1);
	pack_u64(&p, 1);
	if (taken) {
		pack_nil(&p);
	} else {
		pack_map(&p);
		pack_key(&p, "code");
		pack_i64(&p, PROTO_E_NO_LEADER);
		pack_end(&p);
	}
	pack_nil(&p);
	pack_end(&p);
	done = NULL;
	cb(done_ctx, b.data, b.len);
	buf_free(&b);
}

int net_peer_send(struct net *net KEDGE_UNUSED, node_id_t node KEDGE_UNUSED, const void *p KEDGE_UNUSED,
		  size_t n KEDGE_UNUSED)
{
	return 0;
}

/* ---- the node ---- */

const struct store_volume *node_volumes(const struct node *n KEDGE_UNUSED, size_t *ret_n)
{
	*ret_n = store_volumes(f.s, rows, VOLUMES_MAX);
	return rows;
}

const struct store_volume *node_disks(const struct node *n KEDGE_UNUSED, const struct store_vm *row KEDGE_UNUSED,
				      size_t *ret_n)
{
	*ret_n = 0;
	return NULL;
}

bool node_knows(const struct node *n KEDGE_UNUSED)
{
	return knows;
}

void node_set_volumes(struct node *n KEDGE_UNUSED, const void *p KEDGE_UNUSED, size_t len KEDGE_UNUSED)
{
}

/* ---- cases ---- */

/* Node 1 of two has a replica, and the engine was told so. */
static int set_up(void **state KEDGE_UNUSED)
{
	struct command_genesis g = {.cluster = "c1", .name = "kedge"};
	struct command_volume_create c = {.id = ID, .name = "disk", .size = 1 << 20, .replicas = 2, .nodes = {1, 2}};

	f = (struct fixture){0};
	n_rows_told = n_drops = n_submits = 0;
	done = NULL;
	knows = true;
	rows = xcalloc(VOLUMES_MAX, sizeof *rows);
	assert_int_equal(store_open(":memory:", &f.s, NULL), 0);
	assert_int_equal(apply(&f, &command_genesis_type, &g), 0);
	for (uint32_t i = 1; i <= 2; i++) {
		struct command_node_add n = {.node = i, .role = "node"};

		(void)snprintf(n.name, sizeof n.name, "n%u", i);
		(void)snprintf(n.address, sizeof n.address, "127.0.0.%u:7443", i);
		assert_int_equal(apply(&f, &command_node_add_type, &n), 0);
	}
	assert_int_equal(apply(&f, &command_volume_create_type, &c), 0);
	agent.store = f.s;
	agent.config.id = 1;
	agent.ctl = (struct ctl *)(void *)&agent; /* somebody can be asked */
	assert_int_equal(volumes_open(&agent, -1, &agent.volumes, NULL), 0);
	engine.connected(engine.ctx);
	volumes_step(agent.volumes);
	assert_int_equal(n_rows_told, 1);
	return 0;
}

static int tear_down(void **state KEDGE_UNUSED)
{
	volumes_close(agent.volumes);
	agent.volumes = volumes_free(agent.volumes);
	f.s = store_close(f.s);
	free(rows);
	return 0;
}

static void give_up(void)
{
	struct command_volume_delete c = {.name = "disk"};

	assert_int_equal(apply(&f, &command_volume_delete_type, &c), 0);
}

static void it_says_that_they_are_gone(void)
{
	const struct engine_drop m = {.id = ID};

	engine.dropped(engine.ctx, &m);
}

/* The state of a node that was away may be from before the replica was wanted anew: L6 holds for files as for starts.
 */
static void files_are_erased_only_by_a_state_that_is_not_old(void **state KEDGE_UNUSED)
{
	knows = false;
	give_up();
	for (unsigned i = 0; i < 5; i++)
		volumes_step(agent.volumes);
	assert_int_equal(n_drops, 0);
	knows = true; /* nothing else changed */
	volumes_step(agent.volumes);
	assert_int_equal(n_drops, 1);
	volumes_step(agent.volumes);
	assert_int_equal(n_drops, 1);
}

/* That nobody led at that moment must not keep the row for ever. */
static void erased_is_said_again(void **state KEDGE_UNUSED)
{
	usec_t end = clock_boottime() + 20 * USEC_PER_SEC;

	give_up();
	volumes_step(agent.volumes);
	assert_int_equal(n_drops, 1);
	it_says_that_they_are_gone();
	assert_string_equal(submitted, "volume.erased");
	it_says_that_they_are_gone(); /* while the first one is under way */
	assert_int_equal(n_submits, 1);
	answer(false);
	while (n_drops < 2 && clock_boottime() < end)
		volumes_step(agent.volumes);
	assert_int_equal(n_drops, 2);
	it_says_that_they_are_gone();
	assert_int_equal(n_submits, 2);
	answer(true);
}

/* Once the row is gone the engine is told nothing more. */
static void and_then_no_more(void **state KEDGE_UNUSED)
{
	struct command_volume_erased c = {.id = ID, .node = 1};
	usec_t end;

	give_up();
	volumes_step(agent.volumes);
	it_says_that_they_are_gone();
	assert_int_equal(apply(&f, &command_volume_erased_type, &c), 0);
	answer(true);
	end = clock_boottime() + 1500 * USEC_PER_MS;
	while (clock_boottime() < end)
		volumes_step(agent.volumes);
	assert_int_equal(n_drops, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(files_are_erased_only_by_a_state_that_is_not_old),
		T(erased_is_said_again),
		T(and_then_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
