/* SPDX-License-Identifier: Apache-2.0
 * NBD connections: how they end and what the engine hears of it, and what the limits hold back. */
#include "tests/unit/test_volume_nbd_help.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
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

/* ---- limits ---- */

static void no_more_requests_than_allowed(void **state)
{
	const struct nbd_limits l = limits_of(4);
	struct fixture f;
	struct answer a;
	int fd;

	(void)state;
	fixture_begin(&f, ENGINE_HOLD, &l);
	fd = client_open(&f, "a", 0);
	writes(&f, fd, 20);
	for (unsigned i = 0; i < 20; i++) {
		wait_pending(&f, i <= 16 ? 4 : 20 - i);
		assert_int_equal(status(&f).waiting, i < 16);
		engine_answer(&f, 0, 0);
		client_answer(&f, fd, 0, &a, NULL, 0);
		assert_true(a.cookie == i);
	}
	assert_int_equal(f.engine.pending_max, 4);
	client_close(fd);
	fixture_end(&f);
}

static void who_does_not_read_is_not_read_from(void **state)
{
	struct nbd_limits l = limits_of(8);
	struct fixture f;
	int lazy, busy;

	(void)state;
	l.connection_bytes = NBD_PAYLOAD_MAX + 4 * 4096;
	fixture_begin(&f, ENGINE_RANDOM, &l);
	lazy = client_open(&f, "a", WITH_STRUCTURED);
	busy = client_open(&f, "a", 0);
	for (size_t i = 0; i < DISK_BYTES; i++)
		f.engine.disks[0].data[i] = (uint8_t)(i % 251);
	for (unsigned i = 0; i < 200; i++)
		client_request(&f, lazy, 0, NBD_CMD_READ, i, 0, DISK_BYTES, NULL);
	turns(&f, 50);
	assert_int_equal(status(&f).requests, 8);
	assert_int_equal(status(&f).waiting, 1);
	assert_true(status(&f).bytes <= l.connection_bytes);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(client_do(&f, busy, 0, NBD_CMD_READ, i * 100, 5000, NULL, buffer), 0);
	for (unsigned i = 0; i < 200; i++) {
		struct answer a;

		client_answer(&f, lazy, 0, &a, buffer, sizeof buffer);
		assert_true(a.n == DISK_BYTES && a.cookie < 200);
		for (size_t k = 0; k < DISK_BYTES; k += 1021)
			assert_int_equal(buffer[k], k % 251);
	}
	turns(&f, 2);
	assert_int_equal(status(&f).bytes, 0);
	client_close(lazy);
	client_close(busy);
	fixture_end(&f);
}

static void the_unread_starve_nobody(void **state)
{
	struct nbd_limits l = limits_of(8);
	struct fixture f;
	int lazy, busy;

	(void)state;
	l.shared_bytes = NBD_PAYLOAD_MAX + 4 * 4096;
	l.stall = 200 * USEC_PER_MS;
	fixture_begin(&f, ENGINE_AT_ONCE, &l);
	disk_resize(&f.engine.disks[0], NBD_PAYLOAD_MAX);
	lazy = client_open(&f, "a", 0);
	busy = client_open(&f, "a", 0);
	client_request(&f, lazy, 0, NBD_CMD_READ, 1, 0, NBD_PAYLOAD_MAX, NULL);
	turns(&f, 20);
	assert_true(status(&f).shared_bytes > NBD_PAYLOAD_MAX / 2);
	/* what fits into its own bytes goes on */
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(client_do(&f, busy, 0, NBD_CMD_READ, i * 4096, 200000, NULL, buffer), 0);
	assert_int_equal(status(&f).connections, 2);
	/* more waits, until the other one has not read for too long */
	client_request(&f, busy, 0, NBD_CMD_READ, 2, 0, NBD_PAYLOAD_MAX, NULL);
	turns(&f, 20);
	assert_int_equal(status(&f).waiting, 1);
	{
		uint8_t *all = malloc(NBD_PAYLOAD_MAX);
		struct answer a;

		client_answer(&f, busy, NBD_PAYLOAD_MAX, &a, all, NBD_PAYLOAD_MAX);
		assert_true(a.error == 0 && a.cookie == 2);
		free(all);
	}
	assert_int_equal(status(&f).expired, 1);
	assert_int_equal(status(&f).connections, 1);
	client_close(lazy);
	client_close(busy);
	fixture_end(&f);
}

static void shared_bytes_go_by_age(void **state)
{
	struct nbd_limits l = limits_of(8);
	struct fixture f;
	int fds[3];

	(void)state;
	l.shared_bytes = NBD_PAYLOAD_MAX + 4 * 4096;
	l.own_bytes = 0;
	fixture_begin(&f, ENGINE_HOLD, &l);
	disk_resize(&f.engine.disks[0], NBD_PAYLOAD_MAX);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = client_open(&f, "a", 0);
	client_request(&f, fds[0], 0, NBD_CMD_READ, 0, 0, NBD_PAYLOAD_MAX / 2, NULL);
	wait_pending(&f, 1);
	client_request(&f, fds[1], 0, NBD_CMD_READ, 1, 0, NBD_PAYLOAD_MAX, NULL);
	turns(&f, 5);
	client_request(&f, fds[2], 0, NBD_CMD_READ, 2, 0, 4096, NULL); /* would fit, but is younger */
	wait_pending(&f, 1);
	assert_int_equal(status(&f).waiting, 2);
	client_close(fds[0]);
	wait_connections(&f, 2);
	engine_answer(&f, 0, 0);
	wait_pending(&f, 2);
	assert_int_equal(f.engine.pending[0]->req.length, NBD_PAYLOAD_MAX);
	client_close(fds[1]);
	client_close(fds[2]);
	fixture_end(&f);
}

static void connections_are_limited(void **state)
{
	struct nbd_limits l = nbd_limits_default;
	struct fixture f;
	int a, b;

	(void)state;
	l.connections = 2;
	fixture_begin(&f, ENGINE_AT_ONCE, &l);
	a = client_open(&f, "a", 0);
	b = client_open(&f, "a", 0);
	expect_end(&f, client_connect(&f));
	assert_int_equal(status(&f).refused, 1);
	assert_int_equal(client_do(&f, a, 0, NBD_CMD_FLUSH, 0, 0, NULL, NULL), 0);
	client_close(a);
	wait_connections(&f, 1);
	a = client_open(&f, "a", 0);
	client_close(a);
	client_close(b);
	fixture_end(&f);
}

static void descriptors_that_are_short_come_back(void **state)
{
	struct nbd_limits l = nbd_limits_default;
	struct rlimit before, none;
	struct fixture f;
	int fd;

	(void)state;
	l.stall = 40 * USEC_PER_MS; /* looks again after a quarter of it */
	fixture_begin(&f, ENGINE_AT_ONCE, &l);
	fd = client_connect(&f);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	turns(&f, 20);
	assert_int_equal(status(&f).accepted, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(client_recv(&f, fd, buffer, NBD_GREETING_BYTES));
	client_close(fd);
	fixture_end(&f);
}

static void a_handshake_has_a_deadline(void **state)
{
	struct nbd_limits l = nbd_limits_default;
	struct fixture f;
	int slow, ready;
	uint8_t greeting[NBD_GREETING_BYTES];

	(void)state;
	l.handshake = 100 * USEC_PER_MS;
	fixture_begin(&f, ENGINE_AT_ONCE, &l);
	ready = client_open(&f, "a", 0);
	slow = client_connect(&f);
	assert_true(client_recv(&f, slow, greeting, sizeof greeting));
	expect_end(&f, slow);
	assert_int_equal(status(&f).expired, 1);
	assert_int_equal(client_do(&f, ready, 0, NBD_CMD_FLUSH, 0, 0, NULL, NULL), 0);
	client_close(ready);
	fixture_end(&f);
}

static void options_wait_for_their_answers_to_be_read(void **state)
{
	struct fixture f;
	uint8_t head[NBD_OPTION_HEAD_BYTES];
	unsigned sent = 0;
	int fd;

	(void)state;
	fixture_begin(&f, ENGINE_AT_ONCE, NULL);
	fd = client_greeted(&f, 3);
	(void)nbd_put32(nbd_put32(nbd_put64(head, NBD_MAGIC_OPTION), NBD_OPT_LIST), 0);
	for (unsigned idle = 0; idle < 20 && sent < 1000000; idle++) { /* until no more is taken */
		while (send(fd, head, sizeof head, MSG_NOSIGNAL) == (ssize_t)sizeof head) {
			sent++;
			idle = 0;
		}
		turn(&f);
	}
	assert_true(sent < 1000000);
	client_close(fd);
	wait_connections(&f, 0);
	fixture_end(&f);
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
		cmocka_unit_test(no_more_requests_than_allowed),
		cmocka_unit_test(who_does_not_read_is_not_read_from),
		cmocka_unit_test(the_unread_starve_nobody),
		cmocka_unit_test(shared_bytes_go_by_age),
		cmocka_unit_test(connections_are_limited),
		cmocka_unit_test(descriptors_that_are_short_come_back),
		cmocka_unit_test(a_handshake_has_a_deadline),
		cmocka_unit_test(options_wait_for_their_answers_to_be_read),
		cmocka_unit_test(answers_that_are_ready_leave_together),
		cmocka_unit_test(what_cannot_be_listened_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
