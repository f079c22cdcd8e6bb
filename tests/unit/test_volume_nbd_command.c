/* SPDX-License-Identifier: Apache-2.0
 * NBD requests one by one: what each does, what is refused and how, and the two kinds of answers. */
#include "tests/unit/test_volume_nbd_help.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { EPERM_N = 1, EIO_N = 5, EINVAL_N = 22, ENOSPC_N = 28, EOVERFLOW_N = 75 }; /* NBD's numbers */

static uint8_t buffer[DISK_BYTES], expected[DISK_BYTES];

static int set_up(void **state)
{
	static struct fixture f;

	fixture_begin(&f, ENGINE_RANDOM, NULL);
	for (size_t i = 0; i < DISK_BYTES; i++)
		expected[i] = f.engine.disks[0].data[i] = (uint8_t)(i * 7 + i / 4096);
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	fixture_end(*state);
	return 0;
}

static void reads_of_any_alignment(void **state)
{
	struct fixture *f = *state;
	const struct {
		uint32_t offset, length;
	} ranges[] = {{0, 4096},   {0, DISK_BYTES}, {1, 1},    {4095, 2},  {4096, 8192},
		      {513, 5000}, {8191, 4098},    {0, 4097}, {12288, 1}, {DISK_BYTES - 1, 1}};

	for (unsigned with = 0; with <= WITH_STRUCTURED; with++) {
		int fd = client_open(f, "a", with);

		for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
			struct answer a;

			client_request(f, fd, 0, NBD_CMD_READ, i, ranges[i].offset, ranges[i].length, NULL);
			client_answer(f, fd, ranges[i].length, &a, buffer, sizeof buffer);
			assert_int_equal(a.error, 0);
			assert_true(a.is_structured == (with == WITH_STRUCTURED) && a.cookie == i);
			assert_true(a.offset == (a.is_structured ? ranges[i].offset : 0));
			assert_int_equal(a.n, ranges[i].length);
			assert_memory_equal(buffer, expected + ranges[i].offset, a.n);
		}
		client_close(fd);
	}
}

static void flags_reach_the_engine(void **state)
{
	struct fixture *f = *state;
	struct engine *e = &f->engine;
	int fd = client_open(f, "a", 0);

	memset(buffer, 1, 8192);
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_WRITE, 4096, 8192, buffer, NULL), 0);
	assert_int_equal(e->fua, 0);
	assert_int_equal(client_do(f, fd, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 4096, 8192, buffer, NULL), 0);
	assert_int_equal(e->fua, 1);
	assert_memory_equal(e->disks[0].data + 4096, buffer, 8192);
	assert_int_equal(e->submitted, 2); /* no sector was read for them */
	assert_int_equal(client_do(f, fd, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 4097, 1, buffer, NULL), 0);
	assert_int_equal(e->fua, 2);
	assert_int_equal(e->submitted, 4);
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_FLUSH, 0, 0, NULL, NULL), 0);
	assert_int_equal(e->flushes, 1);
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_WRITE_ZEROES, 0, 4096, NULL, NULL), 0);
	assert_int_equal(e->trims, 1);
	assert_int_equal(
		client_do(f, fd, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FUA, NBD_CMD_WRITE_ZEROES, 0, 4096, NULL, NULL),
		0);
	assert_int_equal(e->zeroes, 1);
	assert_int_equal(e->fua, 3);
	assert_int_equal(client_do(f, fd, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_WRITE_ZEROES, 0, 4096, NULL, NULL), 0);
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_TRIM, 8192, 4096, NULL, NULL), 0);
	assert_int_equal(e->trims, 3);
	assert_int_equal(e->last_epoch, 7);
	e->submitted = 0;
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_CACHE, 0, DISK_BYTES, NULL, NULL), 0);
	assert_int_equal(e->submitted, 0);
	client_close(fd);
}

struct refusal {
	uint16_t flags, command;
	uint64_t offset;
	uint32_t length;
	uint32_t error;
};

static const struct refusal refusals[] = {
	{0, NBD_CMD_READ, DISK_BYTES, 1, EINVAL_N},
	{0, NBD_CMD_READ, DISK_BYTES - 1, 2, EINVAL_N},
	{0, NBD_CMD_READ, UINT64_MAX, 4096, EINVAL_N},
	{0, NBD_CMD_READ, UINT64_MAX - 4095, 4096, EINVAL_N},
	{0, NBD_CMD_WRITE, DISK_BYTES, 1, ENOSPC_N},
	{0, NBD_CMD_WRITE, UINT64_MAX - 1, 4096, ENOSPC_N},
	{0, NBD_CMD_WRITE, DISK_BYTES - 4096, 8192, ENOSPC_N},
	{0, NBD_CMD_WRITE_ZEROES, DISK_BYTES, UINT32_MAX, ENOSPC_N},
	{0, NBD_CMD_TRIM, 4096, DISK_BYTES, EINVAL_N},
	{0, NBD_CMD_CACHE, DISK_BYTES, 1, EINVAL_N},
	{0, NBD_CMD_FLUSH, 1, 0, EINVAL_N},
	{0, NBD_CMD_FLUSH, 0, 1, EINVAL_N},
	{0, NBD_CMD_BLOCK_STATUS, 0, DISK_BYTES + 1, EINVAL_N},
	{0, NBD_CMD_BLOCK_STATUS, 0, 0, EINVAL_N},
	{0, 8, 0, 4096, EINVAL_N}, /* RESIZE */
	{0, 999, 0, 4096, EINVAL_N},
	{NBD_CMD_FLAG_NO_HOLE, NBD_CMD_READ, 0, 1, EINVAL_N},
	{NBD_CMD_FLAG_DF, NBD_CMD_WRITE, 0, 4096, EINVAL_N},
	{1 << 15, NBD_CMD_WRITE, 0, 10000, EINVAL_N},
	{NBD_CMD_FLAG_REQ_ONE, NBD_CMD_TRIM, 0, 4096, EINVAL_N},
	{NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_TRIM, 0, 4096, EINVAL_N},
	{1 << 5, NBD_CMD_FLUSH, 0, 0, EINVAL_N},
};

static void what_is_not_valid_is_refused(void **state)
{
	struct fixture *f = *state;

	for (unsigned with = 0; with <= WITH_CONTEXT; with++) {
		int fd = client_open(f, "a", with);

		for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
			const struct refusal *r = &refusals[i];
			const void *payload = r->command == NBD_CMD_WRITE ? buffer : NULL;
			struct answer a;

			client_request(f, fd, r->flags, r->command, i, r->offset, r->length, payload);
			client_answer(f, fd, 0, &a, buffer, 0);
			assert_int_equal(a.error, r->error);
			assert_true(a.is_structured == (with != 0) && a.cookie == i);
		}
		assert_int_equal(f->engine.submitted, 0);
		client_close(fd);
	}
	assert_memory_equal(f->engine.disks[0].data, expected, DISK_BYTES);
}

static void too_long_ones_are_refused_and_their_payload_skipped(void **state)
{
	struct fixture *f = *state;
	uint8_t *payload = calloc(1, NBD_PAYLOAD_MAX + 1);
	int fd;

	assert_non_null(payload);
	f->engine.disks[0].size = 1ULL << 40; /* nothing of it is touched here */
	for (unsigned with = 0; with <= WITH_STRUCTURED; with++) {
		fd = client_open(f, "a", with);
		assert_int_equal(client_do(f, fd, 0, NBD_CMD_READ, 0, NBD_PAYLOAD_MAX + 1, NULL, NULL),
				 with ? EOVERFLOW_N : EINVAL_N);
		assert_int_equal(client_do(f, fd, 0, NBD_CMD_READ, 0, UINT32_MAX, NULL, NULL),
				 with ? EOVERFLOW_N : EINVAL_N);
		assert_int_equal(client_do(f, fd, 0, NBD_CMD_WRITE, 0, NBD_PAYLOAD_MAX + 1, payload, NULL), EINVAL_N);
		assert_int_equal(client_do(f, fd, 0, NBD_CMD_READ, 1, 100, NULL, buffer), 0);
		assert_memory_equal(buffer, expected + 1, 100);
		client_close(fd);
	}
	f->engine.disks[0].size = DISK_BYTES;
	free(payload);
}

static void the_largest_read_and_write(void **state)
{
	struct fixture *f = *state;
	struct disk *d = &f->engine.disks[0];
	uint8_t *payload = malloc(NBD_PAYLOAD_MAX), *back = malloc(NBD_PAYLOAD_MAX);
	uint32_t seed = 5;
	int fd;

	assert_true(payload && back);
	disk_resize(d, NBD_PAYLOAD_MAX + 8192);
	for (size_t i = 0; i < NBD_PAYLOAD_MAX; i += 4)
		(void)nbd_put32(payload + i, next_random(&seed));
	for (uint64_t offset = 0; offset <= 5000; offset += 5000) {
		fd = client_open(f, "a", WITH_STRUCTURED);
		assert_int_equal(client_do(f, fd, 0, NBD_CMD_WRITE, offset, NBD_PAYLOAD_MAX, payload, NULL), 0);
		assert_memory_equal(d->data + offset, payload, NBD_PAYLOAD_MAX);
		assert_int_equal(client_do(f, fd, NBD_CMD_FLAG_DF, NBD_CMD_READ, offset, NBD_PAYLOAD_MAX, NULL, back),
				 0);
		assert_memory_equal(back, payload, NBD_PAYLOAD_MAX);
		client_close(fd);
	}
	free(payload);
	free(back);
}

static void empty_requests_succeed(void **state)
{
	struct fixture *f = *state;
	const uint16_t commands[] = {NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};

	for (unsigned with = 0; with <= WITH_STRUCTURED; with++) {
		int fd = client_open(f, "a", with);

		for (size_t i = 0; i < ARRAY_LEN(commands); i++)
			assert_int_equal(client_do(f, fd, 0, commands[i], 77, 0, NULL, NULL), 0);
		client_close(fd);
	}
	assert_int_equal(f->engine.submitted, 0);
}

static void a_read_only_export_refuses_writes(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f, "ro", 0);

	assert_int_equal(client_do(f, fd, 0, NBD_CMD_WRITE, 0, 4096, buffer, NULL), EPERM_N);
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_TRIM, 0, 4096, NULL, NULL), EPERM_N);
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_WRITE_ZEROES, 0, 4096, NULL, NULL), EPERM_N);
	assert_int_equal(f->engine.submitted, 0);
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_FLUSH, 0, 0, NULL, NULL), 0);
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_READ, 0, 4096, NULL, buffer), 0);
	client_close(fd);
}

static void errors_of_the_engine_are_translated(void **state)
{
	struct fixture *f = *state;
	const struct {
		int rc;
		uint32_t error;
	} cases[] = {{-EIO, 5},      {-ENOSPC, 28},   {-EPERM, 1},   {-EINVAL, 22},   {-ENOMEM, 12}, {-EOVERFLOW, 75},
		     {-ENOTSUP, 95}, {-ESHUTDOWN, 5}, {-EDQUOT, 28}, {-ETIMEDOUT, 5}, {-1000, 5}};
	const uint16_t commands[] = {NBD_CMD_READ, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_BLOCK_STATUS};

	f->engine.mode = ENGINE_HOLD;
	for (unsigned with = 0; with <= WITH_CONTEXT; with += WITH_CONTEXT) {
		int fd = client_open(f, "a", with);

		for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(commands); i++) {
			uint16_t command = commands[i % ARRAY_LEN(commands)];
			uint32_t length = command == NBD_CMD_FLUSH ? 0 : 4096;
			struct answer a;

			if (command == NBD_CMD_BLOCK_STATUS && !with)
				continue;
			client_request(f, fd, 0, command, i, 0, length, NULL);
			wait_pending(f, 1);
			engine_answer(f, 0, cases[i / ARRAY_LEN(commands)].rc);
			client_answer(f, fd, length, &a, buffer, sizeof buffer);
			assert_int_equal(a.error, cases[i / ARRAY_LEN(commands)].error);
			assert_true(a.cookie == i);
		}
		client_close(fd);
	}
}

/* What the engine says in runs of @hole bytes, within the range. */
static void expect_status(struct fixture *f, int fd, uint16_t flags, uint64_t offset, uint32_t length)
{
	uint64_t at = offset, end = offset + length;
	struct answer a;

	client_request(f, fd, flags, NBD_CMD_BLOCK_STATUS, 3, offset, length, NULL);
	client_answer(f, fd, 0, &a, buffer, sizeof buffer);
	assert_int_equal(a.type, NBD_REPLY_TYPE_BLOCK_STATUS);
	assert_true(a.n >= 12 && a.n % 8 == 4);
	assert_int_equal(nbd_get32(buffer), NBD_CONTEXT_ALLOCATION_ID);
	for (size_t i = 4; i < a.n; i += 8) {
		uint64_t run = at / f->engine.hole, to = (run + 1) * f->engine.hole;

		assert_int_equal(nbd_get32(buffer + i), (to < end ? to : end) - at);
		assert_int_equal(nbd_get32(buffer + i + 4), run % 2 ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0);
		at = to < end ? to : end;
	}
	if (flags & NBD_CMD_FLAG_REQ_ONE)
		assert_int_equal(a.n, 12);
	else
		assert_true(at == end || a.n == 4 + 8 * 1024);
}

static void block_status_of_ranges(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f, "a", WITH_CONTEXT);

	for (unsigned mode = ENGINE_AT_ONCE; mode <= ENGINE_RANDOM; mode++) {
		f->engine.mode = (enum engine_mode)mode;
		expect_status(f, fd, 0, 0, DISK_BYTES);
		expect_status(f, fd, NBD_CMD_FLAG_REQ_ONE, 0, DISK_BYTES);
		expect_status(f, fd, NBD_CMD_FLAG_REQ_ONE, 16000, 1);
		expect_status(f, fd, 0, 16383, 2);
		expect_status(f, fd, 0, 5000, 100000);
		expect_status(f, fd, 0, DISK_BYTES - 1, 1);
	}
	/* more extents than go into one answer */
	f->engine.disks[0].size = 64u << 20;
	f->engine.hole = 4096;
	client_close(fd);
	fd = client_open(f, "a", WITH_CONTEXT);
	expect_status(f, fd, 0, 0, 64u << 20);
	f->engine.disks[0].size = DISK_BYTES;
	client_close(fd);
}

static void block_status_joins_what_is_alike(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f, "a", WITH_CONTEXT);
	struct answer a;

	f->engine.mode = ENGINE_HOLD;
	f->engine.hole = 1u << 30; /* all is data, told in small pieces */
	client_request(f, fd, 0, NBD_CMD_BLOCK_STATUS, 3, 100, 12288, NULL);
	for (unsigned i = 0; i < 4; i++) {
		struct nbd_request *r;

		wait_pending(f, 1);
		r = f->engine.pending[0];
		f->engine.n_pending = 0;
		nbd_extent_done(r, 0, false, 4096);
	}
	client_answer(f, fd, 0, &a, buffer, sizeof buffer);
	assert_int_equal(a.n, 12);
	assert_int_equal(nbd_get32(buffer + 4), 12288);
	client_close(fd);
}

static void huge_zeroes_come_in_slices(void **state)
{
	struct fixture *f = *state;
	const uint32_t length = UINT32_MAX - 4095;
	struct answer a;
	int fd;

	f->engine.disks[0].size = 8ULL << 30;
	f->engine.mode = ENGINE_HOLD;
	fd = client_open(f, "a", 0);
	client_request(f, fd, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_WRITE_ZEROES, 9, 4096, length, NULL);
	for (uint64_t at = 4096; at < 4096 + (uint64_t)length;) {
		struct nbd_request *r;

		wait_pending(f, 1);
		r = f->engine.pending[0];
		f->engine.n_pending = 0;
		assert_true(r->req.kind == VOLUME_TRIM && r->req.offset == at && r->req.length <= NBD_PAYLOAD_MAX);
		at += r->req.length;
		nbd_request_done(r, 0);
	}
	client_answer(f, fd, 0, &a, NULL, 0);
	assert_true(a.error == 0 && a.cookie == 9);
	f->engine.disks[0].size = DISK_BYTES;
	client_close(fd);
}

static void a_wrong_magic_ends_it(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f, "a", 0);
	uint8_t junk[NBD_REQUEST_BYTES] = {0x25, 0x60, 0x95, 0x14};

	client_send(f, fd, junk, sizeof junk);
	expect_end(f, fd);
	turns(f, 2);
	assert_int_equal(f->engine.gone, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(reads_of_any_alignment, set_up, tear_down),
		cmocka_unit_test_setup_teardown(flags_reach_the_engine, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_not_valid_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(too_long_ones_are_refused_and_their_payload_skipped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_largest_read_and_write, set_up, tear_down),
		cmocka_unit_test_setup_teardown(empty_requests_succeed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_read_only_export_refuses_writes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(errors_of_the_engine_are_translated, set_up, tear_down),
		cmocka_unit_test_setup_teardown(block_status_of_ranges, set_up, tear_down),
		cmocka_unit_test_setup_teardown(block_status_joins_what_is_alike, set_up, tear_down),
		cmocka_unit_test_setup_teardown(huge_zeroes_come_in_slices, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_wrong_magic_ends_it, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
