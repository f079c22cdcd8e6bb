/* SPDX-License-Identifier: Apache-2.0
 * Images in the store: names, holders, what is in use, and that nobody uses a volume before it is filled. */
#include "tests/unit/store_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID  "000102030405060708090a0b0c0d0e0f"
#define RA  "aa0102030405060708090a0b0c0d0e0f"
#define D1  "1111111111111111111111111111111111111111111111111111111111111111"
#define D2  "2222222222222222222222222222222222222222222222222222222222222222"
#define MIB (1ULL << 20)

static int setup(void **state)
{
	struct command_genesis genesis = {.cluster = "c", .name = "test"};
	struct fixture *f = xcalloc(1, sizeof *f);

	assert_int_equal(store_open(":memory:", &f->s, NULL), 0);
	assert_int_equal(apply(f, &command_genesis_type, &genesis), 0);
	for (uint32_t i = 1; i <= 3; i++) {
		struct command_node_add node = {.node = i, .role = "node"};

		(void)snprintf(node.name, sizeof node.name, "n%u", i);
		(void)snprintf(node.address, sizeof node.address, "127.0.0.%u:7443", i);
		assert_int_equal(apply(f, &command_node_add_type, &node), 0);
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	f->s = store_close(f->s);
	free(f);
	return 0;
}

static int add_image(struct fixture *f, const char *name, const char *digest, uint64_t size)
{
	struct command_image_add c = {.bytes = 1000, .size = size, .format = "qcow2", .copies = 2, .node = 1};

	(void)snprintf(c.name, sizeof c.name, "%s", name);
	(void)snprintf(c.digest, sizeof c.digest, "%s", digest);
	return apply(f, &command_image_add_type, &c);
}

static int remove_image(struct fixture *f, const char *name)
{
	struct command_image_rm c = {0};

	(void)snprintf(c.name, sizeof c.name, "%s", name);
	return apply(f, &command_image_rm_type, &c);
}

static int held(struct fixture *f, const char *digest, uint32_t node, bool is, bool unused)
{
	struct command_image_held c = {.node = node, .held = is, .unused = unused};

	(void)snprintf(c.digest, sizeof c.digest, "%s", digest);
	return apply(f, &command_image_held_type, &c);
}

static size_t n_files(struct fixture *f)
{
	struct store_file files[8];

	return store_files(f->s, files, ARRAY_LEN(files));
}

static void images_are_named_once(void **state)
{
	struct fixture *f = *state;
	struct store_image image;

	assert_int_equal(add_image(f, "a", D1, MIB), 0);
	assert_int_equal(add_image(f, "a", D2, MIB), PROTO_E_EXISTS);
	assert_int_equal(store_holders(f->s, D2), 0); /* refused as a whole */
	assert_int_equal(add_image(f, "b", D1, MIB), 0);
	assert_int_equal(n_files(f), 1);
	assert_true(store_image(f->s, "a", &image));
	assert_string_equal(image.digest, D1);
	assert_string_equal(image.format, "qcow2");
	assert_int_equal(image.size, MIB);
	assert_int_equal(add_image(f, "c", "11", MIB), PROTO_E_INVALID);
	assert_int_equal(add_image(f, "../c", D1, MIB), PROTO_E_INVALID);
	assert_int_equal(add_image(f, "c", D1, 0), PROTO_E_INVALID);
	assert_int_equal(remove_image(f, "a"), 0);
	assert_int_equal(remove_image(f, "a"), PROTO_E_NOT_FOUND);
	assert_int_equal(n_files(f), 1);
	assert_int_equal(remove_image(f, "b"), 0);
	assert_int_equal(n_files(f), 0);
}

static void holders_are_known(void **state)
{
	struct fixture *f = *state;
	struct store_file files[4];

	assert_int_equal(add_image(f, "a", D1, MIB), 0);
	assert_int_equal(store_holders(f->s, D1), 1);
	assert_int_equal(held(f, D1, 3, true, false), 0);
	assert_int_equal(held(f, D1, 3, true, false), 0); /* said again */
	assert_int_equal(store_holders(f->s, D1), 5);
	assert_int_equal(store_held_by(f->s, 3, files, 4), 1);
	assert_int_equal(held(f, D1, 9, true, false), PROTO_E_INVALID);
	/* what is in use goes only where it is lost */
	assert_int_equal(held(f, D1, 3, false, true), PROTO_E_CONFLICT);
	assert_int_equal(held(f, D1, 3, false, false), 0);
	assert_int_equal(store_holders(f->s, D1), 1);
	assert_int_equal(remove_image(f, "a"), 0);
	assert_int_equal(held(f, D1, 1, false, true), 0);
	assert_int_equal(store_holders(f->s, D1), 0);
}

static int put_vm(struct fixture *f, const char *kernel, const char *user_data, size_t n)
{
	struct command_vm_put vm = {.name = "till",
				    .vcpus = 1,
				    .memory_bytes = 64 * MIB,
				    .run = true,
				    .kernel = "/k",
				    .uuid = "01234567-89ab-cdef-0123-456789abcdef",
				    .machine = "q"};
	struct command_vm_files files = {.vm = "till", .user_data = {(const uint8_t *)user_data, n}};

	(void)snprintf(files.kernel, sizeof files.kernel, "%s", kernel);
	return apply_all(f, (struct body[]){{&command_vm_put_type, &vm}, {&command_vm_files_type, &files}}, 2);
}

static void files_of_a_vm(void **state)
{
	struct fixture *f = *state;
	struct command_vm_delete delete = {.name = "till"};
	struct buf user = {0}, meta = {0}, large = {0};
	struct store_file files[4];
	struct store_vm vm;

	assert_int_equal(put_vm(f, D1, "", 0), PROTO_E_CONFLICT); /* nobody has it */
	assert_false(store_vm(f->s, "till", &vm));
	assert_int_equal(held(f, D1, 2, true, false), 0);
	assert_int_equal(put_vm(f, D1, "#cloud-config\n", 14), 0);
	assert_true(store_vm(f->s, "till", &vm));
	assert_string_equal(vm.kernel_digest, D1);
	assert_string_equal(vm.initrd_digest, "");
	assert_true(vm.has_seed);
	assert_true(store_vm_seed(f->s, "till", &user, &meta));
	assert_int_equal(user.len, 14);
	assert_memory_equal(user.data, "#cloud-config\n", 14);
	assert_int_equal(meta.len, 0);
	assert_int_equal(store_files(f->s, files, 4), 1);
	assert_int_equal(files[0].copies, NODES_MAX);
	assert_int_equal(held(f, D1, 2, false, true), PROTO_E_CONFLICT);
	assert_int_equal(put_vm(f, D1, "a\0b", 3), PROTO_E_INVALID);
	memset(buf_reserve(&large, SEED_BYTES_MAX + 1), 'x', SEED_BYTES_MAX + 1);
	assert_int_equal(put_vm(f, D1, (char *)large.data, SEED_BYTES_MAX), 0);
	assert_int_equal(put_vm(f, D1, (char *)large.data, SEED_BYTES_MAX + 1), PROTO_E_INVALID);
	assert_int_equal(apply(f, &command_vm_delete_type, &delete), 0);
	assert_int_equal(n_files(f), 0);
	assert_int_equal(held(f, D1, 2, false, true), 0);
	buf_free(&large);
	buf_free(&user);
	buf_free(&meta);
}

/* ---- filling ---- */

static int create(struct fixture *f, const char *image, uint64_t size)
{
	struct command_volume_create v = {.id = ID, .name = "till.root", .size = size, .replicas = 2, .nodes = {1, 2}};
	struct command_volume_image c = {.id = ID};

	(void)snprintf(c.image, sizeof c.image, "%s", image);
	return apply_all(f, (struct body[]){{&command_volume_create_type, &v}, {&command_volume_image_type, &c}}, 2);
}

static int filled(struct fixture *f, uint32_t primary_since)
{
	struct command_volume_filled c = {.id = ID, .primary_since = primary_since};

	return apply(f, &command_volume_filled_type, &c);
}

static struct store_volume row(struct fixture *f)
{
	struct store_volume v;

	assert_true(store_volume_by_id(f->s, ID, &v));
	return v;
}

static void refused_before_anything_changes(void **state)
{
	struct fixture *f = *state;
	struct store_volume v;

	assert_int_equal(add_image(f, "a", D1, 8 * MIB), 0);
	assert_int_equal(create(f, "b", 8 * MIB), PROTO_E_NOT_FOUND);
	assert_int_equal(create(f, "a", 8 * MIB - 4096), PROTO_E_INVALID);
	assert_false(store_volume_by_id(f->s, ID, &v));
	assert_int_equal(create(f, "a", 8 * MIB), 0);
}

static void nobody_uses_it_before_it_is_filled(void **state)
{
	struct fixture *f = *state;
	struct command_disk disk = {.volume = "till.root", .vm = "till"};
	struct command_export export = {.volume = "till.root", .node = 1};
	struct command_move move = {.vm = "till", .to = 1};
	struct store_vm vm;

	assert_int_equal(add_image(f, "a", D1, 8 * MIB), 0);
	assert_int_equal(create(f, "a", 16 * MIB), 0);
	assert_true(row(f).filling);
	assert_string_equal(row(f).digest, D1);
	assert_int_equal(remove_image(f, "a"), PROTO_E_CONFLICT);
	assert_int_equal(apply(f, &command_export_type, &export), PROTO_E_CONFLICT);
	assert_int_equal(put_vm(f, "", "", 0), 0);
	assert_int_equal(apply(f, &command_disk_type, &disk), 0);
	assert_true(store_vm(f->s, "till", &vm));
	move.gen = vm.gen;
	assert_int_equal(apply(f, &command_move_type, &move), PROTO_E_CONFLICT);
	assert_int_equal(filled(f, 1), 0);
	assert_int_equal(filled(f, 1), 0); /* said again */
	assert_false(row(f).filling);
	assert_string_equal(row(f).image, "a");
	assert_int_equal(apply(f, &command_move_type, &move), 0);
	assert_int_equal(remove_image(f, "a"), 0);
}

/* What was written under another primary does not count. */
static void another_primary_begins_anew(void **state)
{
	struct fixture *f = *state;
	struct command_volume_report report = {.id = ID, .node = 1, .replica = RA, .incarnation = 1};
	struct command_volume_takeover takeover = {.id = ID, .epoch = 1, .node = 1};

	assert_int_equal(add_image(f, "a", D1, 8 * MIB), 0);
	assert_int_equal(create(f, "a", 16 * MIB), 0);
	assert_int_equal(apply(f, &command_volume_report_type, &report), 0);
	assert_int_equal(apply(f, &command_volume_takeover_type, &takeover), 0);
	assert_int_equal(filled(f, 1), PROTO_E_CONFLICT);
	assert_true(row(f).filling);
	assert_int_equal(filled(f, row(f).primary_since), 0);
	assert_false(row(f).filling);
}

static void a_deleted_volume_frees_its_image(void **state)
{
	struct fixture *f = *state;
	struct command_volume_delete delete = {.name = "till.root"};

	assert_int_equal(add_image(f, "a", D1, 8 * MIB), 0);
	assert_int_equal(create(f, "a", 16 * MIB), 0);
	assert_int_equal(remove_image(f, "a"), PROTO_E_CONFLICT);
	assert_int_equal(apply(f, &command_volume_delete_type, &delete), 0);
	assert_int_equal(filled(f, 1), PROTO_E_NOT_FOUND);
	assert_int_equal(remove_image(f, "a"), 0);
	assert_int_equal(n_files(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(images_are_named_once, setup, teardown),
		cmocka_unit_test_setup_teardown(holders_are_known, setup, teardown),
		cmocka_unit_test_setup_teardown(files_of_a_vm, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_before_anything_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_uses_it_before_it_is_filled, setup, teardown),
		cmocka_unit_test_setup_teardown(another_primary_begins_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(a_deleted_volume_frees_its_image, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
