/* SPDX-License-Identifier: Apache-2.0
 * NBD connections: how they begin and end, and what the engine hears of it. */
#include "tests/unit/test_volume_nbd_help.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static uint8_t buffer[DISK_BYTES];

static struct nbd_limits limits_of(unsigned requests)
{
	struct nbd_limits l = nbd_limits_default;

	l.requests = requests;
	return l;
}

static struct nbd_status status(const struct fixture *f)
{
	struct nbd_status s;

	nbd_server_status(f->server, &s);
	return s;
}

static void wait_connections(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; status(f).connections != n && i < 100000; i++)
		turn(f);
	turns(f, 2);
	assert_int_equal(status(f).connections, n);
}

static void writes(struct fixture *f, int fd, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		client_request(f, fd, 0, NBD_CMD_WRITE, i, i * 4096ULL, 4096, buffer);
}

/* ---- ends ---- */

static void a_lost_connection_is_told_once_and_its_buffers_stay(void **state)
{
	struct fixture f;
	int fd;

	(void)state;
	fixture_begin(&f, ENGINE_HOLD, NULL);
	fd = client_open(&f, "a", 0);
	memset(buffer, 5, sizeof buffer);
	writes(&f, fd, 3);
	wait_pending(&f, 3);
	client_close(fd);
	wait_connections(&f, 0);
	assert_int_equal(f.engine.gone, 1);
	assert_true(f.engine.last_gone == f.engine.last_client);
	assert_int_equal(status(&f).lingering, 1);
	assert_int_equal(status(&f).bytes, 3 * 4096);
	assert_memory_equal(f.engine.pending[2]->req.data, buffer, 4096);
	engine_answer(&f, 2, 0);
	engine_answer(&f, 0, -EIO);
	engine_drop(&f, 0);
	turns(&f, 2);
	assert_int_equal(status(&f).lingering, 0);
	assert_int_equal(status(&f).bytes, 0);
	assert_int_equal(f.engine.gone, 1);
	fixture_end(&f);
}

static void what_was_not_read_dies_before_the_next_begins(void **state)
{
	const struct nbd_limits l = limits_of(2);

	(void)state;
	for (unsigned half = 0; half < 2; half++) {
		struct fixture f;
		uint64_t first;
		int a, b;

		fixture_begin(&f, ENGINE_HOLD, &l);
		a = client_open(&f, "a", 0);
		writes(&f, a, 10); /* two begin, the rest stays in the socket */
		wait_pending(&f, 2);
		first = f.engine.last_client;
		assert_int_equal(status(&f).waiting, 1);
		if (half) { /* then the server has no reason to watch it any more */
			assert_int_equal(shutdown(a, SHUT_WR), 0);
			turns(&f, 3);
			assert_int_equal(f.engine.gone, 0);
		}
		b = client_open(&f, "b", 0); /* another volume is no reason to look */
		client_close(b);
		wait_connections(&f, 1);
		assert_int_equal(f.engine.gone, 1);
		client_close(a);
		b = client_open(&f, "a", 0);
		client_request(&f, b, 0, NBD_CMD_FLUSH, 1, 0, 0, NULL);
		wait_pending(&f, 3);
		assert_int_equal(f.engine.gone, 2);
		assert_int_equal(f.engine.gone_before, 2); /* told before the flush came */
		assert_true(f.engine.last_gone == first && f.engine.last_client != first);
		while (f.engine.n_pending > 0)
			engine_answer(&f, 0, 0);
		turns(&f, 5);
		assert_int_equal(f.engine.submitted, 3);
		client_close(b);
		fixture_end(&f);
	}
}

static void disc_lets_what_is_out_end(void **state)
{
	struct fixture f;
	struct answer a;
	uint8_t byte;
	int fd;

	(void)state;
	fixture_begin(&f, ENGINE_HOLD, NULL);
	fd = client_open(&f, "a", 0);
	writes(&f, fd, 3);
	client_request(&f, fd, 0, NBD_CMD_DISC, 9, 0, 0, NULL);
	client_request(&f, fd, 0, NBD_CMD_FLUSH, 10, 0, 0, NULL); /* nobody reads this any more */
	wait_pending(&f, 3);
	for (unsigned i = 3; i-- > 0;) {
		assert_int_equal(f.engine.gone, 0);
		engine_answer(&f, i, 0);
		client_answer(&f, fd, 0, &a, NULL, 0);
		assert_true(a.cookie == i && a.error == 0);
	}
	assert_false(client_recv(&f, fd, &byte, 1));
	turns(&f, 2);
	assert_int_equal(f.engine.gone, 1);
	client_close(fd);
	assert_int_equal(f.engine.submitted, 3);
	fixture_end(&f);
}

static void after_disc_nobody_need_wait_for_the_end(void **state)
{
	struct fixture f;
	int fd;

	(void)state;
	fixture_begin(&f, ENGINE_HOLD, NULL);
	fd = client_open(&f, "a", 0);
	memset(buffer, 6, 8192);
	client_request(&f, fd, 0, NBD_CMD_WRITE, 1, 4096, 4096, buffer);
	client_request(&f, fd, 0, NBD_CMD_WRITE, 2, 100, 4096, buffer); /* of several steps, and behind the first */
	client_request(&f, fd, 0, NBD_CMD_DISC, 9, 0, 0, NULL);
	wait_pending(&f, 1);
	client_close(fd);
	for (unsigned i = 0; i < 4; i++) {
		wait_pending(&f, 1);
		assert_int_equal(f.engine.gone, 0);
		engine_answer(&f, 0, 0);
	}
	wait_connections(&f, 0);
	assert_int_equal(f.engine.gone, 1);
	assert_memory_equal(f.engine.disks[0].data + 100, buffer, 8092);
	assert_int_equal(f.engine.disks[0].data[99], 0);
	fixture_end(&f);
}

static void a_dropped_volume_loses_its_clients_at_once(void **state)
{
	struct fixture f;
	int a, b, other;

	(void)state;
	fixture_begin(&f, ENGINE_HOLD, NULL);
	a = client_open(&f, "a", 0);
	b = client_open(&f, "a", 0);
	other = client_open(&f, "b", 0);
	assert_int_equal(nbd_server_clients(f.server, &f.engine.disks[0]), 2);
	writes(&f, a, 2);
	writes(&f, b, 1);
	wait_pending(&f, 3);
	engine_answer(&f, 0, 0); /* not yet on its way: it is not told either */
	nbd_server_drop(f.server, &f.engine.disks[0]);
	assert_int_equal(nbd_server_clients(f.server, &f.engine.disks[0]), 0);
	assert_int_equal(f.engine.gone, 0); /* not from inside */
	expect_end(&f, a);
	expect_end(&f, b);
	turns(&f, 2);
	assert_int_equal(f.engine.gone, 2);
	assert_int_equal(status(&f).lingering, 2);
	client_request(&f, other, 0, NBD_CMD_FLUSH, 1, 0, 0, NULL);
	wait_pending(&f, 3);
	engine_answer(&f, 2, 0);
	engine_drop(&f, 1);
	engine_answer(&f, 0, 0);
	turns(&f, 3);
	assert_int_equal(status(&f).lingering, 0);
	assert_int_equal(status(&f).connections, 1);
	client_close(other);
	fixture_end(&f);
}

static void a_request_without_an_answer_ends_its_connection(void **state)
{
	struct fixture f;
	int a, b;

	(void)state;
	fixture_begin(&f, ENGINE_HOLD, NULL);
	a = client_open(&f, "a", 0);
	b = client_open(&f, "a", 0);
	writes(&f, a, 2);
	wait_pending(&f, 2);
	engine_drop(&f, 1);
	expect_end(&f, a);
	assert_int_equal(status(&f).connections, 1);
	engine_answer(&f, 0, 0);
	f.engine.mode = ENGINE_AT_ONCE;
	assert_int_equal(client_do(&f, b, 0, NBD_CMD_FLUSH, 0, 0, NULL, NULL), 0);
	client_close(b);
	fixture_end(&f);
}

static void closing_waits_for_what_is_out(void **state)
{
	struct fixture f;
	int fd;

	(void)state;
	fixture_begin(&f, ENGINE_HOLD, NULL);
	fd = client_open(&f, "a", 0);
	writes(&f, fd, 5);
	wait_pending(&f, 5);
	client_send(&f, fd, "half a head", 11);
	f.fds++;         /* ours */
	fixture_end(&f); /* which drops what is pending, and finds nothing left */
	assert_int_equal(f.engine.gone, 1);
	client_close(fd);
}

static void half_an_end_without_disc_is_one(void **state)
{
	struct fixture f;
	int fd;

	(void)state;
	fixture_begin(&f, ENGINE_HOLD, NULL);
	fd = client_open(&f, "a", 0);
	writes(&f, fd, 2);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	expect_end(&f, fd);
	turns(&f, 2);
	assert_int_equal(f.engine.gone, 1);
	assert_int_equal(f.engine.n_pending, 2); /* what was sent before it was read */
	fixture_end(&f);
}

/* ---- from inside of callbacks ---- */

static void drop_a(struct fixture *f)
{
	nbd_server_drop(f->server, &f->engine.disks[0]);
}

/* An option that makes the engine look, then a request. */
static void poke(struct fixture *f, int fd, enum engine_call call)
{
	uint8_t data[64];

	if (call == ENGINE_LIST)
		client_option(f, fd, NBD_OPT_LIST, NULL, 0);
	client_option(f, fd, NBD_OPT_GO, data, (uint32_t)option_data(data, "a", NULL));
	client_request(f, fd, 0, NBD_CMD_WRITE, 1, 65636, 4096, buffer);
	client_request(f, fd, 0, NBD_CMD_WRITE, 2, 65536, 4096, buffer);
}

static void the_engine_may_end_it_from_inside(void **state)
{
	void (*const acts[])(struct fixture * f) = {drop_a, fixture_close};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LEN(acts) * (ENGINE_GONE + 1); i++) {
		enum engine_call call = (enum engine_call)(i % (ENGINE_GONE + 1));
		struct fixture f;
		int other, fd;

		fixture_begin(&f, i < ARRAY_LEN(acts) * (ENGINE_GONE + 1) ? ENGINE_AT_ONCE : ENGINE_HOLD, NULL);
		other = client_open(&f, "a", 0);
		writes(&f, other, 2);
		turns(&f, 3);
		fd = client_greeted(&f, 3);
		f.engine.inside = acts[i / (ENGINE_GONE + 1) % ARRAY_LEN(acts)];
		f.engine.inside_of = call;
		poke(&f, fd, call);
		client_close(other);
		turns(&f, 5);
		assert_null(f.engine.inside);
		f.fds++; /* ours */
		fixture_end(&f);
		client_close(fd);
		assert_true(f.engine.gone == 1 || f.engine.gone == 2);
	}
}

static void answers_that_are_ready_leave_together(void **state)
{
	struct fixture f;
	int fd;

	(void)state;
	fixture_begin(&f, ENGINE_HOLD, NULL);
	fd = client_open(&f, "a", 0);
	for (unsigned i = 0; i < 8; i++)
		client_request(&f, fd, 0, NBD_CMD_FLUSH, i, 0, 0, NULL);
	wait_pending(&f, 8);
	while (f.engine.n_pending > 0)
		engine_answer(&f, 0, 0);
	turn(&f);
	assert_int_equal(recv(fd, buffer, sizeof buffer, 0), 8 * NBD_SIMPLE_BYTES);
	client_close(fd);
	fixture_end(&f);
}

/* ---- beginning ---- */

static void what_cannot_be_listened_on(void **state)
{
	struct nbd_limits l = nbd_limits_default;
	struct nbd_callbacks cb;
	struct nbd_server *s;
	struct fixture f;
	struct stat st;
	struct err e = {0};
	char path[300];

	(void)state;
	fixture_begin(&f, ENGINE_AT_ONCE, NULL);
	assert_int_equal(stat(f.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	memset(&cb, 1, sizeof cb); /* never called */
	(void)snprintf(path, sizeof path, "%s/%0150d", f.folder, 0);
	assert_int_equal(nbd_server_new(&f.loop, path, &cb, NULL, &s, &e), -ENAMETOOLONG);
	(void)snprintf(path, sizeof path, "%s/no/such", f.folder);
	assert_int_equal(nbd_server_new(&f.loop, path, &cb, NULL, &s, &e), -ENOENT);
	assert_non_null(strstr(e.text, path));
	l.shared_bytes = NBD_PAYLOAD_MAX;
	(void)snprintf(path, sizeof path, "%s/other", f.folder);
	assert_int_equal(nbd_server_new(&f.loop, path, &cb, &l, &s, NULL), -EINVAL);
	assert_int_equal(access(path, F_OK), -1);
	fixture_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lost_connection_is_told_once_and_its_buffers_stay),
		cmocka_unit_test(what_was_not_read_dies_before_the_next_begins),
		cmocka_unit_test(disc_lets_what_is_out_end),
		cmocka_unit_test(after_disc_nobody_need_wait_for_the_end),
		cmocka_unit_test(a_dropped_volume_loses_its_clients_at_once),
		cmocka_unit_test(a_request_without_an_answer_ends_its_connection),
		cmocka_unit_test(closing_waits_for_what_is_out),
		cmocka_unit_test(half_an_end_without_disc_is_one),
		cmocka_unit_test(the_engine_may_end_it_from_inside),
		cmocka_unit_test(answers_that_are_ready_leave_together),
		cmocka_unit_test(what_cannot_be_listened_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
