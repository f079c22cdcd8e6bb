/* SPDX-License-Identifier: Apache-2.0
 * V25: a replica notices when cached writes may be gone, and only then; a lost one is blanked whole. */
#include "tests/unit/volume_help.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct change {
	const char *what;
	void (*make)(void);
	unsigned losses;
};

static void other_boot(void)
{
	where.boot[0] ^= 1;
}

static void other_mount(void)
{
	where.mount++;
}

static void other_kind(void)
{
	where.mount_kind = 3;
}

static void other_device(void)
{
	where.device++;
}

static void other_boot_and_device(void)
{
	other_boot();
	other_device();
}

static void nothing(void)
{
}

static int late_error(int fd)
{
	(void)fd;
	errno = EIO;
	return -1;
}

static void write_back_failed(void)
{
	fake.late_error = late_error;
}

static void mark_failed(void)
{
	struct volume_replica *r = open_with(false);

	volume_replica_mark_failed(r);
	r = volume_replica_close(r);
}

static void test_incarnation_changes_when_it_must(void **arg)
{
	static const struct change changes[] = {
		{"a restart of the engine", nothing, 0},
		{"another boot", other_boot, VOLUME_LOSS_BOOT},
		{"another mount", other_mount, VOLUME_LOSS_MOUNT},
		{"another way to tell mounts apart", other_kind, VOLUME_LOSS_MOUNT},
		{"another device", other_device, VOLUME_LOSS_MOUNT},
		{"another boot, devices in another order", other_boot_and_device, VOLUME_LOSS_BOOT},
		{"a failed write-back", write_back_failed, VOLUME_LOSS_ERROR},
		{"a failure that an engine was told, and died", mark_failed, VOLUME_LOSS_ERROR},
	};

	(void)arg;
	create();
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		struct volume_replica *r = open_with(false);
		uint64_t was = volume_replica_state(r)->incarnation, is;

		promise(r, 1 + (uint32_t)i, 0);
		r = volume_replica_close(r);
		changes[i].make();
		r = open_with(false);
		is = volume_replica_state(r)->incarnation;
		fake.late_error = volume_sys_kernel.late_error;
		if (volume_replica_losses(r) != changes[i].losses || (is != was) != (changes[i].losses != 0) || is == 0)
			fail_msg("%s: losses %x", changes[i].what, volume_replica_losses(r));
		assert_int_equal(volume_replica_state(r)->promised.epoch, 1 + i); /* V1 */
		assert_false(volume_replica_state(r)->lost);
		r = volume_replica_close(r);
		r = open_with(false); /* it was durable: the next one finds nothing new */
		assert_int_equal(volume_replica_losses(r), 0);
		assert_int_equal(volume_replica_state(r)->incarnation, is);
		r = volume_replica_close(r);
	}
}

static void test_forced_incarnation(void **arg)
{
	struct volume_replica *r;
	uint64_t was;

	(void)arg;
	create();
	r = open_with(false);
	was = volume_replica_state(r)->incarnation;
	r = volume_replica_close(r);
	r = open_with(true);
	assert_int_equal(volume_replica_losses(r), VOLUME_LOSS_FORCED);
	assert_int_not_equal(volume_replica_state(r)->incarnation, was);
	r = volume_replica_close(r);
}

/* A fresh incarnation that cannot be made durable is none: open fails, and the next one sees the loss again. */
static void test_a_loss_is_not_forgotten(void **arg)
{
	struct volume_replica_options o = {.sys = &fake};
	struct volume_replica *r = NULL;
	uint64_t was;
	long n = 0;

	(void)arg;
	create();
	r = open_with(false);
	was = volume_replica_state(r)->incarnation;
	r = volume_replica_close(r);
	other_boot();
	for (;; n++) {
		struct err e = {0};

		calls_left = n;
		if (volume_replica_open(dir, &o, &r, &e) == 0)
			break;
		assert_true(e.text[0]);
	}
	assert_true(n > 3);
	calls_left = -1;
	assert_int_not_equal(volume_replica_state(r)->incarnation, was);
	r = volume_replica_close(r);
	r = open_with(false);
	assert_int_not_equal(volume_replica_state(r)->incarnation, was);
	r = volume_replica_close(r);
}

static void test_copied_files_are_a_lost_replica(void **arg)
{
	const struct volume_ballot never = {0, 0};
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
	struct volume_map_write map = {3, stamps};
	struct volume_replica *r;
	uint64_t was;
	char byte = 'x';

	(void)arg;
	create();
	r = open_with(false);
	promise(r, 4, 1);
	set_intents(r, (const uint32_t[]){3, 5}, 2);
	fill(stamps, 4);
	assert_int_equal(volume_replica_clear(r, &map, 1, NULL), 0);
	assert_int_equal(pwrite(volume_replica_data(r), &byte, 1, 100), 1);
	was = volume_replica_state(r)->incarnation;
	r = volume_replica_close(r);
	where.inodes[1]++;
	r = open_with(false);
	assert_int_equal(volume_replica_losses(r), VOLUME_LOSS_FILES);
	assert_true(volume_replica_state(r)->lost && volume_replica_state(r)->incarnation != was);
	r = volume_replica_close(r);
	r = open_with(false);
	assert_true(volume_replica_losses(r) == 0 && volume_replica_state(r)->lost); /* until it was blanked */
	assert_int_equal(volume_replica_blank(r, NULL), 0);
	r = volume_replica_close(r);
	r = open_with(false);
	assert_false(volume_replica_state(r)->lost);
	assert_int_equal(volume_replica_state(r)->promised.epoch, 4);
	assert_int_equal(volume_ballot_compare(volume_replica_state(r)->active, never), 0);
	assert_int_equal(pread(volume_replica_data(r), &byte, 1, 100), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(volume_replica_next_map(r, 0), EXTENTS);
	assert_false(volume_bit(volume_replica_intents(r), 5));
	r = volume_replica_close(r);
}

/* Blanking is cut short at each call in turn: it stays lost, and is done the next time. */
static void test_blanking_is_all_or_again(void **arg)
{
	struct volume_replica *r;
	int rc = -1;

	(void)arg;
	create();
	for (long n = 0; rc < 0; n++) {
		r = open_with(n > 0);
		set_intents(r, (const uint32_t[]){7}, 1);
		calls_left = n;
		rc = volume_replica_blank(r, NULL);
		assert_true(rc == 0 || rc == -EIO);
		calls_left = -1;
		r = volume_replica_close(r);
		r = open_with(true);
		assert_true(volume_replica_state(r)->lost || !volume_bit(volume_replica_intents(r), 7) || n < 2);
		r = volume_replica_close(r);
	}
	r = open_with(false);
	assert_false(volume_replica_state(r)->lost);
	r = volume_replica_close(r);
}

static int remounted(void)
{
	struct volume_replica_options o = {.sys = NULL};
	struct volume_replica *r;
	char image[40], at[40], cmd[400];
	uint64_t was;

	(void)snprintf(image, sizeof image, "%s/image", top);
	(void)snprintf(at, sizeof at, "%s/at", top);
	(void)snprintf(dir, sizeof dir, "%s/v", at);
	(void)snprintf(cmd, sizeof cmd,
		       "truncate -s 16M %s && mkfs.ext4 -q %s && mkdir %s && mount -o loop %s %s && mkdir %s/bind",
		       image, image, at, image, at, top);
	if (system(cmd) != 0)
		return SKIPPED;
	if (volume_replica_create(dir, volume, VOLUME_EXTENT_BYTES, NULL, NULL) < 0 ||
	    volume_replica_open(dir, &o, &r, NULL) < 0)
		return 1;
	was = volume_replica_state(r)->incarnation;
	r = volume_replica_close(r);
	/* the same mounted file system seen through another mount, as in a service's own namespace: no loss */
	(void)snprintf(cmd, sizeof cmd, "mount --bind %s %s/bind", at, top);
	(void)snprintf(dir, sizeof dir, "%s/bind/v", top);
	if (system(cmd) != 0 || volume_replica_open(dir, &o, &r, NULL) < 0)
		return 2;
	if (volume_replica_losses(r) != 0 || volume_replica_state(r)->incarnation != was)
		return 3;
	r = volume_replica_close(r);
	/* mounted anew, with the same device, inodes and mount id */
	(void)snprintf(cmd, sizeof cmd, "umount %s/bind && umount %s && mount -o loop %s %s", top, at, image, at);
	(void)snprintf(dir, sizeof dir, "%s/v", at);
	if (system(cmd) != 0 || volume_replica_open(dir, &o, &r, NULL) < 0)
		return 4;
	if (volume_replica_losses(r) != VOLUME_LOSS_MOUNT || volume_replica_state(r)->incarnation == was)
		return 5;
	r = volume_replica_close(r);
	(void)snprintf(cmd, sizeof cmd, "umount %s", at);
	return system(cmd) == 0 ? 0 : 6;
}

static void test_a_real_mount(void **arg)
{
	int rc = in_namespace(remounted);

	(void)arg;
	if (rc == SKIPPED) {
		print_message("skipped: a loop mount of ext4 needs root, loop devices and mkfs.ext4\n");
		skip();
	}
	assert_int_equal(rc, 0);
}

/* With nothing faked: a real boot id, real files. */
static void test_the_kernels_own_answers(void **arg)
{
	struct volume_replica_options o = {.sys = NULL};
	struct volume_replica *r = NULL;
	static const uint8_t no_boot[16];

	(void)arg;
	assert_int_equal(volume_replica_create(dir, volume, SIZE, NULL, NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(volume_replica_open(dir, &o, &r, NULL), 0);
		assert_int_equal(volume_replica_losses(r), 0);
		assert_memory_not_equal(volume_replica_state(r)->origin.boot, no_boot, sizeof no_boot);
		assert_int_not_equal(volume_replica_state(r)->origin.mount, 0);
		assert_int_equal(volume_replica_sync(r, NULL), 0);
		r = volume_replica_close(r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_incarnation_changes_when_it_must), TEST(test_forced_incarnation),
		TEST(test_a_loss_is_not_forgotten),          TEST(test_copied_files_are_a_lost_replica),
		TEST(test_blanking_is_all_or_again),         TEST(test_a_real_mount),
		TEST(test_the_kernels_own_answers),
	};

	return cmocka_run_group_tests_name("volume_incarnation", tests, NULL, NULL);
}
