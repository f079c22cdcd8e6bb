/* SPDX-License-Identifier: Apache-2.0
 * What the limits of the NBD server hold back, and that nobody is held back by what another one does not read. */
#include "tests/unit/test_volume_nbd_help.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cmocka.h>

static uint8_t buffer[DISK_BYTES];

/* Every allocation of a buffer comes by here. */
static unsigned failing; /* so many fail before the next succeeds */

void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	if (failing > 0) {
		failing--;
		return NULL;
	}
	return __real_aligned_alloc(alignment, size);
}

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

static void a_request_waits_for_memory(void **state)
{
	struct nbd_limits l = limits_of(8);
	struct fixture f;
	int a, b;

	(void)state;
	l.stall = 40 * USEC_PER_MS; /* looks again after a quarter of it */
	fixture_begin(&f, ENGINE_AT_ONCE, &l);
	a = client_open(&f, "a", 0);
	b = client_open(&f, "a", 0);
	memset(buffer, 3, sizeof buffer);
	failing = 5;
	client_request(&f, a, 0, NBD_CMD_WRITE, 1, 100, 70000, buffer);
	turns(&f, 5);
	assert_int_equal(status(&f).waiting, 1);
	assert_int_equal(client_do(&f, b, 0, NBD_CMD_FLUSH, 0, 0, NULL, NULL), 0); /* needs none */
	for (unsigned i = 0; status(&f).waiting > 0 && i < 2000000; i++)
		turn(&f);
	assert_int_equal(failing, 0);
	{
		struct answer answer;

		client_answer(&f, a, 0, &answer, NULL, 0);
		assert_int_equal(answer.error, 0);
	}
	assert_memory_equal(f.engine.disks[0].data + 100, buffer, 70000);
	client_close(a);
	client_close(b);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_more_requests_than_allowed),
		cmocka_unit_test(who_does_not_read_is_not_read_from),
		cmocka_unit_test(the_unread_starve_nobody),
		cmocka_unit_test(shared_bytes_go_by_age),
		cmocka_unit_test(a_request_waits_for_memory),
		cmocka_unit_test(connections_are_limited),
		cmocka_unit_test(descriptors_that_are_short_come_back),
		cmocka_unit_test(a_handshake_has_a_deadline),
		cmocka_unit_test(options_wait_for_their_answers_to_be_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
