/* SPDX-License-Identifier: Apache-2.0
 * Unaligned NBD writes: what the engine gets for them, that they wait for each other, and that no update of a sector
 * that several connections share is ever lost, although the engine here keeps no order at all. */
#include "tests/unit/test_volume_nbd_help.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <cmocka.h>

static uint8_t bytes_1[DISK_BYTES], bytes_2[DISK_BYTES], buffer[DISK_BYTES];

/* The server's calls of the socket: while this is not 0 they are cut short, interrupted and put off. */
static uint32_t torn;

ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __real_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags);

/* 0: as it came; 1: cut to its first bytes; -1 with errno: not at all. */
static int tear(const struct msghdr *m, struct iovec *iov, struct msghdr *ret)
{
	uint32_t dice = torn ? next_random(&torn) : 0;
	size_t left = 1 + dice / 16 % 6000;

	if (dice % 4 == 0)
		return 0;
	if (dice % 16 < 3) {
		errno = dice % 16 == 1 ? EINTR : EAGAIN;
		return -1;
	}
	*ret = *m;
	ret->msg_iov = iov;
	for (ret->msg_iovlen = 0; left > 0 && ret->msg_iovlen < m->msg_iovlen; ret->msg_iovlen++) {
		struct iovec *v = &iov[ret->msg_iovlen];

		*v = m->msg_iov[ret->msg_iovlen];
		v->iov_len = v->iov_len < left ? v->iov_len : left;
		left -= v->iov_len;
	}
	return 1;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
	struct iovec iov[64];
	struct msghdr cut;
	int rc = tear(m, iov, &cut);

	return rc < 0 ? rc : __real_sendmsg(fd, rc > 0 ? &cut : m, flags);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags)
{
	struct iovec iov[64];
	struct msghdr cut;
	int rc = tear(m, iov, &cut);

	return rc < 0 ? rc : __real_recvmsg(fd, rc > 0 ? &cut : m, flags);
}

static int set_up(void **state)
{
	static struct fixture f;

	fixture_begin(&f, ENGINE_HOLD, NULL);
	memset(f.engine.disks[0].data, 9, DISK_BYTES);
	memset(bytes_1, 1, sizeof bytes_1);
	memset(bytes_2, 2, sizeof bytes_2);
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	fixture_end(*state);
	return 0;
}

/* The newest request that is out is this one. */
static void expect_out(struct fixture *f, size_t n, enum volume_request_kind kind, uint64_t offset, uint64_t length)
{
	const struct volume_request *v;

	wait_pending(f, n);
	v = &f->engine.pending[n - 1]->req;
	assert_int_equal(v->kind, kind);
	assert_int_equal(v->offset, offset);
	assert_int_equal(v->length, length);
}

static void expect_done(struct fixture *f, int fd, uint64_t cookie, uint32_t error)
{
	struct answer a;

	client_answer(f, fd, 0, &a, NULL, 0);
	assert_true(a.cookie == cookie);
	assert_int_equal(a.error, error);
}

static void expect_bytes(const struct fixture *f, uint64_t from, uint64_t to, uint8_t value)
{
	for (uint64_t i = from; i < to; i++)
		assert_int_equal(f->engine.disks[0].data[i], value);
}

/* ---- what the engine gets ---- */

static void a_write_reads_its_edges_only(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f, "a", 0);

	client_request(f, fd, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 1, 4000, 9000, bytes_1);
	expect_out(f, 1, VOLUME_READ, 0, 4096);
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_READ, 12288, 4096);
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_WRITE, 0, 16384);
	assert_true(f->engine.pending[0]->req.fua);
	engine_answer(f, 0, 0);
	expect_done(f, fd, 1, 0);
	expect_bytes(f, 0, 4000, 9);
	expect_bytes(f, 4000, 13000, 1);
	expect_bytes(f, 13000, DISK_BYTES, 9);
	client_request(f, fd, 0, NBD_CMD_WRITE, 2, 8192, 5000, bytes_2); /* the head is whole */
	expect_out(f, 1, VOLUME_READ, 12288, 4096);
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_WRITE, 8192, 8192);
	engine_answer(f, 0, 0);
	expect_done(f, fd, 2, 0);
	client_request(f, fd, 0, NBD_CMD_WRITE, 3, 4100, 4092, bytes_2); /* the tail is */
	expect_out(f, 1, VOLUME_READ, 4096, 4096);
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_WRITE, 4096, 4096);
	engine_answer(f, 0, 0);
	expect_done(f, fd, 3, 0);
	expect_bytes(f, 4000, 4100, 1);
	expect_bytes(f, 4100, 13192, 2);
	expect_bytes(f, 13192, 14000, 9);
	client_close(fd);
}

static void zeroes_merge_their_edges(void **state)
{
	struct fixture *f = *state;
	const uint16_t commands[] = {NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};
	int fd = client_open(f, "a", 0);

	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		memset(f->engine.disks[0].data, 9, DISK_BYTES);
		client_request(f, fd, NBD_CMD_FLAG_FUA, commands[i], 1, 4000, 9000, NULL);
		expect_out(f, 1, VOLUME_READ, 0, 4096);
		engine_answer(f, 0, 0);
		expect_out(f, 1, VOLUME_WRITE, 0, 4096);
		assert_true(f->engine.pending[0]->req.fua);
		engine_answer(f, 0, 0);
		expect_out(f, 1, VOLUME_TRIM, 4096, 8192);
		engine_answer(f, 0, 0);
		expect_out(f, 1, VOLUME_READ, 12288, 4096);
		engine_answer(f, 0, 0);
		expect_out(f, 1, VOLUME_WRITE, 12288, 4096);
		engine_answer(f, 0, 0);
		expect_done(f, fd, 1, 0);
		expect_bytes(f, 0, 4000, 9);
		expect_bytes(f, 4000, 13000, 0);
		expect_bytes(f, 13000, DISK_BYTES, 9);
	}
	client_request(f, fd, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_WRITE_ZEROES, 2, 16384, 4097, NULL);
	expect_out(f, 1, VOLUME_ZERO, 16384, 4096);
	client_close(fd);
}

static void an_error_at_any_step_is_the_answer(void **state)
{
	struct fixture *f = *state;
	int fd = client_open(f, "a", 0);

	for (unsigned step = 0; step < 3; step++) {
		client_request(f, fd, 0, NBD_CMD_WRITE, step, 4000, 9000, bytes_1);
		for (unsigned i = 0; i <= step; i++) {
			wait_pending(f, 1);
			engine_answer(f, 0, i == step ? -EIO : 0);
		}
		expect_done(f, fd, step, 5);
		expect_bytes(f, 0, DISK_BYTES, 9);
		wait_pending(f, 0);
	}
	client_close(fd);
}

/* ---- waiting ---- */

static void an_aligned_write_waits_for_an_unaligned_one(void **state)
{
	struct fixture *f = *state;
	int a = client_open(f, "a", 0), b = client_open(f, "a", 0);

	client_request(f, a, 0, NBD_CMD_WRITE, 1, 100, 100, bytes_1);
	expect_out(f, 1, VOLUME_READ, 0, 4096);
	client_request(f, b, 0, NBD_CMD_WRITE, 2, 0, 8192, bytes_2);
	wait_pending(f, 1);
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_WRITE, 0, 4096);
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_WRITE, 0, 8192);
	engine_answer(f, 0, 0);
	expect_done(f, a, 1, 0);
	expect_done(f, b, 2, 0);
	expect_bytes(f, 0, 8192, 2);
	client_close(a);
	client_close(b);
}

static void an_unaligned_write_waits_for_an_aligned_one(void **state)
{
	struct fixture *f = *state;
	int a = client_open(f, "a", 0), b = client_open(f, "a", 0);

	client_request(f, a, 0, NBD_CMD_WRITE_ZEROES, 1, 0, 8192, NULL);
	client_request(f, a, 0, NBD_CMD_WRITE, 2, 0, 4096, bytes_1); /* aligned ones are left to the engine */
	expect_out(f, 2, VOLUME_WRITE, 0, 4096);
	client_request(f, b, 0, NBD_CMD_WRITE, 3, 100, 100, bytes_2);
	wait_pending(f, 2);
	engine_answer(f, 0, 0);
	wait_pending(f, 1);
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_READ, 0, 4096);
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_WRITE, 0, 4096);
	engine_answer(f, 0, 0);
	expect_done(f, b, 3, 0);
	expect_bytes(f, 0, 100, 1);
	expect_bytes(f, 100, 200, 2);
	expect_bytes(f, 200, 4096, 1);
	expect_bytes(f, 4096, 8192, 0);
	client_close(a);
	client_close(b);
}

static void nobody_waits_for_other_sectors_or_volumes(void **state)
{
	struct fixture *f = *state;
	int a = client_open(f, "a", 0), b = client_open(f, "b", 0);

	client_request(f, a, 0, NBD_CMD_WRITE, 1, 100, 100, bytes_1);
	client_request(f, a, 0, NBD_CMD_WRITE, 2, 4096, 4096, bytes_1);
	client_request(f, a, 0, NBD_CMD_WRITE, 3, 8192, 100, bytes_1);
	client_request(f, a, 0, NBD_CMD_READ, 4, 0, 4096, NULL);
	client_request(f, b, 0, NBD_CMD_WRITE, 5, 0, 4096, bytes_1);
	wait_pending(f, 5);
	client_close(a);
	client_close(b);
}

static void who_sends_slowly_makes_nobody_wait(void **state)
{
	struct fixture *f = *state;
	int a = client_open(f, "a", 0), b = client_open(f, "a", 0);

	client_request(f, a, 0, NBD_CMD_WRITE, 1, 100, 3000, NULL);
	client_send(f, a, bytes_1, 2999);
	turns(f, 5);
	client_request(f, b, 0, NBD_CMD_WRITE, 2, 0, 4096, bytes_2);
	expect_out(f, 1, VOLUME_WRITE, 0, 4096);
	client_send(f, a, bytes_1, 1);
	wait_pending(f, 1); /* now it is the one that waits */
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_READ, 0, 4096);
	client_close(a);
	client_close(b);
}

static void who_ended_is_no_longer_in_the_way(void **state)
{
	struct fixture *f = *state;
	int a = client_open(f, "a", 0), b = client_open(f, "a", 0), c = client_open(f, "a", 0);

	client_request(f, a, 0, NBD_CMD_WRITE, 1, 100, 100, bytes_1);
	wait_pending(f, 1);
	client_request(f, b, 0, NBD_CMD_WRITE, 2, 150, 100, bytes_1);
	turns(f, 3);
	client_request(f, c, 0, NBD_CMD_WRITE, 3, 200, 100, bytes_2);
	wait_pending(f, 1);
	client_close(a); /* at its reading */
	client_close(b); /* waiting */
	turns(f, 5);
	assert_int_equal(f->engine.gone, 2);
	wait_pending(f, 1); /* what is out is still in the way */
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_READ, 0, 4096);
	assert_true(f->engine.pending[0]->req.client == f->engine.last_client);
	engine_answer(f, 0, 0);
	expect_out(f, 1, VOLUME_WRITE, 0, 4096);
	engine_answer(f, 0, 0);
	expect_done(f, c, 3, 0);
	expect_bytes(f, 0, 200, 9);
	expect_bytes(f, 200, 300, 2);
	client_close(c);
}

/* ---- against a model: who owns a byte knows what it must be, whatever happens to its neighbours ---- */

#define CLIENTS      4
#define OPS          6
#define MODEL_BYTES  (48u << 10)
#define SEGMENTS_MAX 64

struct model_op {
	bool is_out;
	uint16_t command;
	uint32_t offset, length;
	uint8_t fill;
};

struct model {
	struct fixture f;
	uint32_t seed;
	uint8_t bytes[MODEL_BYTES];
	bool is_known[MODEL_BYTES];        /* false after an error or a lost connection, until written again */
	uint32_t bounds[SEGMENTS_MAX + 1]; /* segment i belongs to client i % CLIENTS */
	unsigned n_segments;
	int fds[CLIENTS];
	struct model_op ops[CLIENTS][OPS];
	unsigned checked, failed, lost;
};

static void divide(struct model *m)
{
	while (m->n_segments < SEGMENTS_MAX && m->bounds[m->n_segments] < MODEL_BYTES) {
		uint32_t to = m->bounds[m->n_segments] + 1 + next_random(&m->seed) % 3000;

		m->bounds[++m->n_segments] = to < MODEL_BYTES ? to : MODEL_BYTES;
	}
	assert_true(m->n_segments > 2 * CLIENTS);
}

static bool is_free(const struct model *m, unsigned client, uint32_t offset, uint32_t length)
{
	for (unsigned i = 0; i < OPS; i++) {
		const struct model_op *op = &m->ops[client][i];

		if (op->is_out && offset < op->offset + op->length && op->offset < offset + length)
			return false;
	}
	return true;
}

static void begin_op(struct model *m, unsigned client, unsigned slot)
{
	static const uint16_t commands[] = {NBD_CMD_WRITE, NBD_CMD_WRITE, NBD_CMD_READ,
					    NBD_CMD_TRIM,  NBD_CMD_READ,  NBD_CMD_WRITE_ZEROES};
	unsigned segment = client + CLIENTS * (next_random(&m->seed) % (m->n_segments / CLIENTS));
	uint32_t from = m->bounds[segment], n = m->bounds[segment + 1] - from, skip = next_random(&m->seed) % n;
	struct model_op op = {.is_out = true,
			      .command = commands[next_random(&m->seed) % ARRAY_LEN(commands)],
			      .offset = from + skip,
			      .length = 1 + next_random(&m->seed) % (n - skip),
			      .fill = (uint8_t)next_random(&m->seed)};

	if (!is_free(m, client, op.offset, op.length))
		return;
	m->ops[client][slot] = op;
	memset(buffer, op.fill, op.length);
	client_request(&m->f, m->fds[client], next_random(&m->seed) % 4 == 0, op.command, slot, op.offset, op.length,
		       op.command == NBD_CMD_WRITE ? buffer : NULL);
}

static void end_op(struct model *m, struct model_op *op, uint32_t error)
{
	op->is_out = false;
	m->failed += error != 0;
	for (uint32_t i = 0; i < op->length; i++) {
		uint32_t at = op->offset + i;

		if (op->command != NBD_CMD_READ) {
			m->is_known[at] = error == 0;
			m->bytes[at] = op->command == NBD_CMD_WRITE ? op->fill : 0;
		} else if (m->is_known[at] && error == 0) {
			assert_int_equal(buffer[i], m->bytes[at]);
			m->checked++;
		}
	}
}

static void answers(struct model *m, unsigned client)
{
	struct pollfd p = {.fd = m->fds[client], .events = POLLIN};
	struct answer a;

	while (poll(&p, 1, 0) > 0) {
		client_answer(&m->f, m->fds[client], 0, &a, buffer, sizeof buffer);
		assert_true(a.cookie < OPS && m->ops[client][a.cookie].is_out);
		end_op(m, &m->ops[client][a.cookie], a.error);
	}
}

static void lose(struct model *m, unsigned client)
{
	struct nbd_status s;

	client_close(m->fds[client]);
	for (unsigned i = 0; i < OPS; i++)
		if (m->ops[client][i].is_out)
			end_op(m, &m->ops[client][i], m->ops[client][i].command == NBD_CMD_READ ? 5 : 1);
	do { /* this engine does not keep old and new writes apart, as the real one does */
		turn(&m->f);
		nbd_server_status(m->f.server, &s);
	} while (s.connections + s.lingering == CLIENTS || s.lingering > 0);
	m->fds[client] = client_open(&m->f, "a", WITH_STRUCTURED);
	m->lost++;
}

static void run_model(uint32_t seed, unsigned errors, bool with_losses)
{
	static struct model m;

	m = (struct model){.seed = seed};
	fixture_begin(&m.f, ENGINE_RANDOM, NULL);
	m.f.engine.seed = seed * 7;
	m.f.engine.errors = errors;
	memset(m.is_known, 1, sizeof m.is_known);
	divide(&m);
	for (unsigned i = 0; i < CLIENTS; i++)
		m.fds[i] = client_open(&m.f, "a", WITH_STRUCTURED);
	for (unsigned step = 0; step < 6000; step++) {
		unsigned client = next_random(&m.seed) % CLIENTS, slot = next_random(&m.seed) % OPS;

		answers(&m, client);
		if (!m.ops[client][slot].is_out)
			begin_op(&m, client, slot);
		if (next_random(&m.seed) % 2)
			turn(&m.f);
		if (with_losses && next_random(&m.seed) % 300 == 0)
			lose(&m, client);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		while (!is_free(&m, i, 0, MODEL_BYTES)) {
			turn(&m.f);
			answers(&m, i);
		}
		client_close(m.fds[i]);
	}
	for (size_t i = 0; i < MODEL_BYTES; i++)
		assert_true(!m.is_known[i] || m.bytes[i] == m.f.engine.disks[0].data[i]);
	assert_true(m.checked > 10000);
	assert_true((m.failed > 0) == (errors > 0 || with_losses) && (m.lost > 0) == with_losses);
	fixture_end(&m.f);
}

static void no_update_is_lost(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 12; seed++)
		run_model(seed, 0, false);
}

static void no_byte_is_lost_in_torn_calls(void **state)
{
	(void)state;
	for (uint32_t seed = 301; seed <= 308; seed++) {
		torn = seed;
		run_model(seed, 0, seed % 2);
		torn = 0;
	}
}

static void no_update_is_lost_beside_errors(void **state)
{
	(void)state;
	for (uint32_t seed = 101; seed <= 108; seed++)
		run_model(seed, 100, false);
}

static void no_update_is_lost_beside_lost_connections(void **state)
{
	(void)state;
	for (uint32_t seed = 201; seed <= 208; seed++)
		run_model(seed, seed % 2 * 50, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_write_reads_its_edges_only, set_up, tear_down),
		cmocka_unit_test_setup_teardown(zeroes_merge_their_edges, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_error_at_any_step_is_the_answer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_aligned_write_waits_for_an_unaligned_one, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_unaligned_write_waits_for_an_aligned_one, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nobody_waits_for_other_sectors_or_volumes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(who_sends_slowly_makes_nobody_wait, set_up, tear_down),
		cmocka_unit_test_setup_teardown(who_ended_is_no_longer_in_the_way, set_up, tear_down),
		cmocka_unit_test(no_update_is_lost),
		cmocka_unit_test(no_byte_is_lost_in_torn_calls),
		cmocka_unit_test(no_update_is_lost_beside_errors),
		cmocka_unit_test(no_update_is_lost_beside_lost_connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
