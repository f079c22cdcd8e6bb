/* SPDX-License-Identifier: Apache-2.0
 * The store: entries applied once and all or nothing, generations, tokens, snapshots, the hash. */
#include "store/store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define WALL 1000000

struct fixture {
	struct store *s;
	uint64_t index;
	usec_t later; /* than WALL */
};

static struct store_result apply_as(struct fixture *f, uint64_t session, uint64_t num, const struct message_type *t,
				    const void *body)
{
	struct command_head head = {
		.session = session, .num = num, .wall = WALL + f->later, .actor = "test", .bodies = 1};
	struct store_result r;
	struct buf entry = {0};

	command_begin(&head, &entry);
	message_encode(t, body, &entry);
	store_apply(f->s, ++f->index, entry.data, entry.len, &r);
	store_commit(f->s);
	buf_free(&entry);
	return r;
}

static int apply(struct fixture *f, const struct message_type *t, const void *body)
{
	return apply_as(f, 0, 0, t, body).code;
}

static int put(struct fixture *f, const char *name)
{
	struct command_vm_put c = {.vcpus = 1, .memory_bytes = 64 << 20, .run = true, .machine = "m"};

	(void)snprintf(c.name, sizeof c.name, "%s", name);
	(void)snprintf(c.uuid, sizeof c.uuid, "00000000-0000-4000-8000-00000000000%.1s", name);
	return apply(f, &command_vm_put_type, &c);
}

static int move(struct fixture *f, const char *vm, uint32_t to, uint64_t gen)
{
	struct command_move c = {.to = to, .gen = gen};

	(void)snprintf(c.vm, sizeof c.vm, "%s", vm);
	return apply(f, &command_move_type, &c);
}

static struct store_vm vm_of(struct fixture *f, const char *name)
{
	struct store_vm v;

	assert_true(store_vm(f->s, name, &v));
	return v;
}

static void found(struct fixture *f)
{
	struct command_genesis g = {.cluster = "c1", .name = "kedge"};

	assert_int_equal(apply(f, &command_genesis_type, &g), 0);
	for (uint32_t i = 1; i <= 3; i++) {
		struct command_token_add t = {.role = "node", .expires = WALL + 1};
		struct command_node_add n = {.node = i, .role = "node"};

		(void)snprintf(n.name, sizeof n.name, "n%u", i);
		(void)snprintf(n.address, sizeof n.address, "127.0.0.%u:7443", i);
		if (i > 1) {
			(void)snprintf(t.id, sizeof t.id, "t%u", i);
			memset(t.secret, 'a', 64);
			assert_int_equal(apply(f, &command_token_add_type, &t), 0);
			(void)snprintf(n.token, sizeof n.token, "t%u", i);
		}
		assert_int_equal(apply(f, &command_node_add_type, &n), 0);
	}
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);
	struct err e;

	assert_int_equal(store_open(":memory:", &f->s, &e), 0);
	found(f);
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

static void token_opens_once(void **state)
{
	struct fixture *f = *state;
	struct command_token_add t = {.id = "t9", .role = "node", .expires = WALL + 1}, out;
	struct command_node_add n = {.node = 4, .name = "n4", .address = "127.0.0.4:1", .role = "node", .token = "t9"};

	memset(t.secret, 'b', 64);
	assert_int_equal(apply(f, &command_token_add_type, &t), 0);
	assert_true(store_token(f->s, "t9", WALL, &out));
	assert_false(store_token(f->s, "t9", WALL + 2, &out)); /* expired */
	assert_int_equal(apply(f, &command_node_add_type, &n), 0);
	assert_false(store_token(f->s, "t9", WALL, &out)); /* used */
	n.node = 5;
	(void)snprintf(n.name, sizeof n.name, "n5");
	assert_true(apply(f, &command_node_add_type, &n) < 0);
	assert_int_equal(store_nodes(f->s, (struct store_node[8]){0}, 8), 4);
}

static void a_run_that_was_long_begins_a_new_row_of_fails(void **state)
{
	struct fixture *f = *state;
	struct command_move c = {.to = 1, .vm = "a"};

	assert_int_equal(put(f, "a"), 0);
	for (uint32_t fails = 0; fails <= 3; fails++) {
		c.gen = vm_of(f, "a").gen;
		assert_int_equal(apply(f, &command_move_type, &c), 0);
		assert_int_equal(vm_of(f, "a").fails, fails);
		c.failed = true;
	}
	f->later = STORE_STABLE;
	c.gen = vm_of(f, "a").gen;
	assert_int_equal(apply(f, &command_move_type, &c), 0);
	assert_int_equal(vm_of(f, "a").fails, 1);
}

static void a_move_is_compare_and_set(void **state)
{
	struct fixture *f = *state;
	struct store_vm v;
	uint64_t gen;

	assert_int_equal(put(f, "a"), 0);
	gen = vm_of(f, "a").gen;
	assert_int_equal(move(f, "a", 1, gen), 0);
	v = vm_of(f, "a");
	assert_int_equal(v.owner, 1);
	assert_true(v.gen > gen && v.movable);
	assert_true(move(f, "a", 2, gen) < 0); /* the generation is gone */
	assert_int_equal(vm_of(f, "a").owner, 1);
	assert_true(move(f, "a", 9, v.gen) < 0); /* nobody is 9 */
	assert_int_equal(vm_of(f, "a").owner, 1);
}

/* A generation is never used again, not even by a VM of the same name after a deletion. */
static void generations_are_never_reused(void **state)
{
	struct fixture *f = *state;
	struct command_vm_delete d = {.name = "a"};
	struct store_vm v;
	uint64_t seen;

	assert_int_equal(put(f, "a"), 0);
	assert_int_equal(move(f, "a", 1, vm_of(f, "a").gen), 0);
	seen = vm_of(f, "a").gen;
	assert_int_equal(apply(f, &command_vm_delete_type, &d), 0);
	v = vm_of(f, "a"); /* it runs: shut down first */
	assert_true(v.deleting && !v.spec.run && v.owner == 1);
	assert_int_equal(move(f, "a", 0, v.gen), 0);
	assert_false(store_vm(f->s, "a", &v));
	assert_int_equal(put(f, "a"), 0);
	assert_int_equal(move(f, "a", 2, vm_of(f, "a").gen), 0);
	assert_true(vm_of(f, "a").gen > seen);
}

static void a_session_applies_once(void **state)
{
	struct fixture *f = *state;
	struct command_vm_restart c = {.name = "a"};
	struct store_result first, again;
	uint64_t hash;

	assert_int_equal(put(f, "a"), 0);
	c.name[0] = 'x'; /* refused: there is no x */
	first = apply_as(f, 7, 1, &command_vm_restart_type, &c);
	assert_true(first.code < 0);
	hash = vm_of(f, "a").gen;
	c.name[0] = 'a'; /* the same number: the first answer, not a new command */
	again = apply_as(f, 7, 1, &command_vm_restart_type, &c);
	assert_int_equal(again.code, first.code);
	assert_string_equal(again.text, first.text);
	assert_true(vm_of(f, "a").gen == hash && vm_of(f, "a").end_gen == 0);
}

/* A new leader's clock is hours ahead, and another client comes before the first one asks again. */
static void a_wrong_clock_forgets_no_session(void **state)
{
	struct fixture *f = *state;
	struct command_vm_restart c = {.name = "a"};
	struct store_result first, again;

	first = apply_as(f, 7, 1, &command_vm_restart_type, &c); /* refused: there is no a */
	assert_true(first.code < 0);
	assert_int_equal(put(f, "a"), 0);
	f->later = 3 * 3600 * USEC_PER_SEC;
	(void)apply_as(f, 8, 1, &command_vm_restart_type, &c);
	again = apply_as(f, 7, 1, &command_vm_restart_type, &c);
	assert_int_equal(again.code, first.code);
}

/* And there is room for no other session: the one that was idle for longest is the only one that goes. */
static void a_wrong_clock_forgets_the_oldest_session(void **state)
{
	struct fixture *f = *state;
	struct command_vm_restart c = {.name = "a"};
	struct store_result r;

	for (uint64_t i = 1; i <= SESSIONS_MAX; i++) {
		f->later = i;
		(void)apply_as(f, i, 1, &command_vm_restart_type, &c); /* refused: there is no a */
	}
	r = apply_as(f, SESSIONS_MAX + 1, 1, &command_vm_restart_type, &c);
	assert_int_equal(r.code, PROTO_E_TOO_MANY);
	assert_int_equal(put(f, "a"), 0);
	f->later = 3 * 3600 * USEC_PER_SEC;
	r = apply_as(f, SESSIONS_MAX + 1, 1, &command_vm_restart_type, &c);
	assert_int_equal(r.code, 0);
	r = apply_as(f, 2, 1, &command_vm_restart_type, &c);
	assert_int_equal(r.code, PROTO_E_NOT_FOUND); /* as it was told before */
	r = apply_as(f, 1, 2, &command_vm_restart_type, &c);
	assert_int_equal(r.code, PROTO_E_OLD_REQUEST); /* it is not known any more */
}

/* Two bodies, the second refused: nothing of the first is there. */
static void an_entry_is_all_or_nothing(void **state)
{
	struct fixture *f = *state;
	struct command_head head = {.wall = WALL, .actor = "test", .bodies = 2};
	struct command_vm_put good = {.name = "good",
				      .vcpus = 1,
				      .memory_bytes = 64 << 20,
				      .uuid = "00000000-0000-4000-8000-000000000009",
				      .machine = "m"};
	struct command_vm_delete bad = {.name = "nobody"};
	struct store_result r;
	struct store_vm v;
	struct buf entry = {0};

	command_begin(&head, &entry);
	message_encode(&command_vm_put_type, &good, &entry);
	message_encode(&command_vm_delete_type, &bad, &entry);
	store_apply(f->s, ++f->index, entry.data, entry.len, &r);
	store_commit(f->s);
	assert_true(r.code < 0);
	assert_false(store_vm(f->s, "good", &v));
	assert_true(store_applied(f->s) == f->index);
	buf_free(&entry);
}

static void garbage_is_refused_alike(void **state)
{
	struct fixture *f = *state;
	struct store_result r;
	uint64_t hash;

	store_apply(f->s, ++f->index, "\x93\xc1\xc1\xc1", 4, &r);
	store_commit(f->s);
	assert_true(r.code < 0);
	hash = store_hash(f->s);
	store_apply(f->s, f->index, "\x93\xc1\xc1\xc1", 4, &r); /* delivered again */
	store_commit(f->s);
	assert_true(store_hash(f->s) == hash);
}

static void a_snapshot_is_the_same_state(void **state)
{
	struct fixture *f = *state;
	struct store *other;
	struct err e;
	void *image;
	size_t n;
	uint64_t index;
	char cluster[40];

	assert_int_equal(put(f, "a"), 0);
	store_snapshot(f->s, &image, &n);
	assert_int_equal(store_open(":memory:", &other, &e), 0);
	assert_true(store_hash(other) != store_hash(f->s)); /* the control */
	assert_int_equal(store_image_index(image, n, cluster, &index), 0);
	assert_string_equal(cluster, "c1");
	assert_true(index == f->index);
	assert_int_equal(store_restore(other, image, n / 2), -EBADMSG);
	assert_int_equal(store_restore(other, image, n), 0);
	assert_true(store_hash(other) == store_hash(f->s));
	assert_true(store_applied(other) == f->index);
	free(image);
	other = store_close(other);
}

/* What was committed is there when the file is opened again; what was not yet, is not. */
static void a_commit_is_durable(void **state KEDGE_UNUSED)
{
	char path[] = "/tmp/kedge-unit-XXXXXX", wal[64];
	struct fixture f = {0};
	struct store_vm v;
	struct err e;
	uint64_t hash;
	int fd = mkstemp(path);

	assert_true(fd >= 0 && close(fd) == 0 && unlink(path) == 0);
	assert_int_equal(store_open(path, &f.s, &e), 0);
	found(&f);
	assert_int_equal(put(&f, "a"), 0);
	hash = store_hash(f.s);
	f.s = store_close(f.s);
	assert_int_equal(store_open(path, &f.s, &e), 0);
	assert_true(store_vm(f.s, "a", &v));
	assert_true(store_hash(f.s) == hash && store_applied(f.s) == f.index);
	f.s = store_close(f.s);
	for (size_t i = 0; i < 3; i++) {
		(void)snprintf(wal, sizeof wal, "%s%s", path, (const char *[]){"", "-wal", "-shm"}[i]);
		(void)unlink(wal);
	}
}

/* Only the instance that was meant, and once. */
static void an_end_is_compare_and_set(void **state)
{
	struct fixture *f = *state;
	struct command_move move = {.vm = "a", .to = 1};
	struct command_vm_end end = {.vm = "a", .reason = "because"};
	struct store_vm v;

	assert_int_equal(put(f, "a"), 0);
	assert_true(store_vm(f->s, "a", &v));
	move.gen = v.gen;
	assert_int_equal(apply(f, &command_move_type, &move), 0);
	end.gen = v.gen; /* of before the move */
	assert_int_equal(apply(f, &command_vm_end_type, &end), PROTO_E_CONFLICT);
	assert_true(store_vm(f->s, "a", &v));
	assert_true(v.end_gen < v.gen);
	end.gen = v.gen;
	assert_int_equal(apply(f, &command_vm_end_type, &end), 0);
	assert_true(store_vm(f->s, "a", &v));
	assert_true(v.end_gen == v.gen && v.end_hard && v.spec.run);
	assert_int_equal(apply(f, &command_vm_end_type, &end), PROTO_E_CONFLICT); /* said again */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(token_opens_once),
		TEST(a_move_is_compare_and_set),
		TEST(a_run_that_was_long_begins_a_new_row_of_fails),
		TEST(generations_are_never_reused),
		TEST(an_end_is_compare_and_set),
		TEST(a_session_applies_once),
		TEST(a_wrong_clock_forgets_no_session),
		TEST(a_wrong_clock_forgets_the_oldest_session),
		TEST(an_entry_is_all_or_nothing),
		TEST(garbage_is_refused_alike),
		TEST(a_snapshot_is_the_same_state),
		cmocka_unit_test(a_commit_is_durable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
