/* SPDX-License-Identifier: Apache-2.0
 * The handshake of a bulk link between two of our own ends: who is let in, what is handed over, and that it ends. */
#include "net/net.h"
#include "proto/proto.h"
#include "tests/unit/pki_help.h"
#include "volume/record.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#define PLENTY (20 * USEC_PER_SEC)

static char dir[64];

static struct net_bulk_identity *load(const char *ca, const char *name)
{
	struct net_bulk_identity *id = NULL;
	char ca_path[128], cert[128], key[128];
	struct err e = {0};

	(void)snprintf(ca_path, sizeof ca_path, "%s/%s.crt", dir, ca);
	(void)snprintf(cert, sizeof cert, "%s/%s.crt", dir, name);
	(void)snprintf(key, sizeof key, "%s/%s.key", dir, name);
	if (net_bulk_identity_load(ca_path, cert, key, &id, &e) < 0)
		fail_msg("%s", e.text);
	return id;
}

static int set_up(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/kt-bulk-XXXXXX");
	assert_non_null(mkdtemp(dir));
	pki_ca(dir, "ca", PKI_CLUSTER);
	pki_ca(dir, "ca2", PKI_CLUSTER);
	pki_identity(dir, "ca", "node:1", PKI_CLUSTER, "n1");
	pki_identity(dir, "ca", "node:2", PKI_CLUSTER, "n2");
	pki_identity(dir, "ca2", "node:2", PKI_CLUSTER, "n2-of-ca2");
	pki_ca(dir, "ca3", "another-cluster");
	pki_identity(dir, "ca3", "node:2", "another-cluster", "n2-elsewhere");
	pki_identity(dir, "ca", "admin:root", PKI_CLUSTER, "admin");
	return 0;
}

static int tear_down(void **state)
{
	char command[96];

	(void)state;
	(void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command);
}

/* ---- two ends ---- */

struct end {
	struct net_bulk_identity *id;
	struct net_bulk_handshake h;
	struct bulk_handover got;
	pthread_t thread;
	int rc;
	struct err e;
};

static void *run(void *ctx)
{
	struct end *end = ctx;

	end->rc = net_bulk_handshake(end->id, &end->h, &end->got, &end->e);
	if (end->rc < 0)
		(void)shutdown(end->h.fd, SHUT_RDWR); /* as close() would, for the other one */
	return NULL;
}

static void begin(struct end *end, const char *ca, const char *name, bool is_client, int fd)
{
	*end = (struct end){.id = load(ca, name)};
	end->h = (struct net_bulk_handshake){.fd = fd, .is_client = is_client, .deadline = clock_boottime() + PLENTY};
}

static void start(struct end *end)
{
	assert_int_equal(pthread_create(&end->thread, NULL, run, end), 0);
}

static void finish(struct end *end)
{
	assert_int_equal(pthread_join(end->thread, NULL), 0);
}

static void drop(struct end *end)
{
	end->id = net_bulk_identity_free(end->id);
	(void)close(end->h.fd);
}

static void pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static struct record *session(const struct bulk_handover *h)
{
	struct record *r = NULL;

	assert_int_equal(record_new(h, &r, NULL), 0);
	return r;
}

static void talk(struct record *from, struct record *to, const char *text)
{
	const struct iovec v = {(void *)text, strlen(text)};
	struct buf wire = {0}, plain = {0};

	assert_int_equal(record_seal(from, &v, 1, &wire), 0);
	assert_int_equal(record_open(to, wire.data, wire.len, &plain), strlen(text));
	assert_memory_equal(plain.data, text, strlen(text));
	buf_free(&wire);
	buf_free(&plain);
}

static void check_handed_over(const struct end *client, const struct end *server)
{
	const struct bulk_handover *c = &client->got, *s = &server->got;
	struct record *rc = session(c), *rs = session(s);

	assert_true(c->is_client == 1 && s->is_client == 0);
	assert_true(c->peer == 2 && s->peer == 1);
	assert_true(c->cipher == BULK_AES_128_GCM && s->cipher == BULK_AES_128_GCM);
	assert_memory_equal(c->write_key, s->read_key, sizeof c->write_key);
	assert_memory_equal(s->write_key, c->read_key, sizeof c->write_key);
	assert_memory_not_equal(c->write_key, c->read_key, sizeof c->write_key);
	talk(rc, rs, "from the one that dialled");
	talk(rs, rc, "from the one that listened");
	rc = record_free(rc);
	rs = record_free(rs);
}

static void test_two_ends(void **state)
{
	struct end client, server;
	int fds[2];

	(void)state;
	pair(fds);
	begin(&client, "ca", "n1", true, fds[0]);
	begin(&server, "ca", "n2", false, fds[1]);
	client.h.expected = 2;
	assert_int_equal(net_bulk_identity_node(client.id), 1);
	start(&client);
	start(&server);
	finish(&client);
	finish(&server);
	assert_int_equal(client.rc, 0);
	assert_int_equal(server.rc, 0);
	check_handed_over(&client, &server);
	drop(&client);
	drop(&server);
}

/* ---- who is not let in ---- */

/* The end that is "n1" and believes the CA @believes meets one that believes "ca" and is @name. */
static void meet(bool is_client, const char *believes, const char *name, node_id_t expected, int rc)
{
	struct end judge, other;
	int fds[2];

	pair(fds);
	begin(&judge, believes, "n1", is_client, fds[0]);
	begin(&other, "ca", name, !is_client, fds[1]);
	judge.h.expected = expected;
	start(&judge);
	start(&other);
	finish(&judge);
	finish(&other);
	assert_int_equal(judge.rc, rc);
	drop(&judge);
	drop(&other);
}

static void test_who_is_refused(void **state)
{
	(void)state;
	for (int is_client = 0; is_client < 2; is_client++) {
		meet(is_client, "ca", "n2", 0, 0); /* the control */
		meet(is_client, "ca", "n2", 2, 0);
		meet(is_client, "ca", "n2", 3, -EACCES);
		meet(is_client, "ca", "n1", 0, -EACCES); /* ourselves */
		meet(is_client, "ca", "n2-of-ca2", 0, -EPROTO);
		meet(is_client, "ca", "n2-elsewhere", 0, -EPROTO);
		meet(is_client, "ca3", "n2-elsewhere", 0, -EACCES);
	}
}

static void test_only_a_node_has_an_identity(void **state)
{
	struct net_bulk_identity *id = NULL;
	char cert[128], key[128];
	struct err e = {0};

	(void)state;
	(void)snprintf(cert, sizeof cert, "%s/admin.crt", dir);
	(void)snprintf(key, sizeof key, "%s/admin.key", dir);
	assert_int_equal(net_bulk_identity_load(cert, cert, key, &id, &e), -EACCES);
	assert_int_equal(net_bulk_identity_load(cert, cert, "/nowhere", &id, &e), -EINVAL);
	assert_null(id);
	assert_null(net_bulk_identity_free(NULL));
}

/* ---- that it ends ---- */

static void test_silence_ends_it(void **state)
{
	struct end server;
	int fds[2];

	(void)state;
	pair(fds);
	begin(&server, "ca", "n2", false, fds[1]);
	server.h.deadline = clock_boottime() + 50 * USEC_PER_MS;
	(void)run(&server);
	assert_int_equal(server.rc, -ETIMEDOUT);
	(void)close(fds[0]);
	drop(&server);
}

/* A byte now and then does not put the end off: a record that never becomes whole. */
static void test_trickling_ends_it(void **state)
{
	static const uint8_t head[] = {22, 3, 1, 0x20, 0};
	struct end server;
	usec_t since = clock_boottime();
	int fds[2];

	(void)state;
	pair(fds);
	begin(&server, "ca", "n2", false, fds[1]);
	server.h.deadline = since + 200 * USEC_PER_MS;
	start(&server);
	assert_int_equal(send(fds[0], head, sizeof head, 0), sizeof head);
	while (send(fds[0], "", 1, MSG_NOSIGNAL) == 1 && clock_boottime() < since + PLENTY)
		(void)poll(NULL, 0, 5);
	finish(&server);
	assert_int_equal(server.rc, -ETIMEDOUT);
	(void)close(fds[0]);
	drop(&server);
}

static void test_a_peer_that_is_none(void **state)
{
	static const struct {
		const char *bytes;
		int rc;
	} cases[] = {{"", -ECONNRESET}, {"GET / HTTP/1.1\r\n\r\n", -EPROTO}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		for (int is_client = 0; is_client < 2; is_client++) {
			struct end end;
			int fds[2];

			pair(fds);
			begin(&end, "ca", "n2", is_client, fds[1]);
			(void)!write(fds[0], cases[i].bytes, strlen(cases[i].bytes));
			assert_int_equal(shutdown(fds[0], SHUT_WR), 0);
			(void)run(&end);
			assert_int_equal(end.rc, cases[i].rc);
			(void)close(fds[0]);
			drop(&end);
		}
}

/* ---- bytes that were read too early ---- */

/* Somebody between the ends who holds back what the server says at the handshake's end. */
struct relay {
	int to_client, to_server;
	struct buf held; /* the thread's until it has ended */
	atomic_size_t n_held;
	pthread_t thread;
	atomic_bool stop;
};

static void pass(int from, int to)
{
	uint8_t bytes[16384];
	ssize_t n = recv(from, bytes, sizeof bytes, MSG_DONTWAIT);

	if (n > 0)
		assert_int_equal(send(to, bytes, (size_t)n, MSG_NOSIGNAL), n);
}

/* ChangeCipherSpec, type 20, comes with the start of a write of mbedTLS's, or after other records of it. */
static bool ends_handshake(const uint8_t *p, size_t n)
{
	while (n >= 5) {
		size_t body = (size_t)p[3] << 8 | p[4];

		if (p[0] == 20)
			return true;
		if (n - 5 < body)
			return false;
		p += 5 + body;
		n -= 5 + body;
	}
	return false;
}

static void pass_or_hold(struct relay *r)
{
	uint8_t bytes[65536];
	ssize_t n = recv(r->to_server, bytes, sizeof bytes, MSG_DONTWAIT);

	if (n <= 0)
		return;
	if (r->held.len > 0 || ends_handshake(bytes, (size_t)n))
		buf_append(&r->held, bytes, (size_t)n);
	else
		assert_int_equal(send(r->to_client, bytes, (size_t)n, MSG_NOSIGNAL), n);
	atomic_store(&r->n_held, r->held.len);
}

static void *relay_run(void *ctx)
{
	struct relay *r = ctx;

	while (!atomic_load(&r->stop)) {
		struct pollfd fds[] = {{.fd = r->to_client, .events = POLLIN}, {.fd = r->to_server, .events = POLLIN}};

		if (poll(fds, 2, 10) <= 0)
			continue;
		if (fds[0].revents)
			pass(r->to_client, r->to_server);
		if (fds[1].revents)
			pass_or_hold(r);
	}
	return NULL;
}

/* The server has done its handshake and sends @n bytes at once; the client gets them together with the end of its
 * handshake. */
static void early_bytes(size_t n)
{
	struct end client, server;
	int c[2], s[2];
	struct relay r = {0};
	uint8_t *data = xcalloc(1, n);
	const struct iovec v = {data, n};
	struct buf wire = {0}, plain = {0};
	struct record *rs, *rc;

	pair(c);
	pair(s);
	r.to_client = c[1];
	r.to_server = s[1];
	random_bytes(data, n);
	begin(&client, "ca", "n1", true, c[0]);
	begin(&server, "ca", "n2", false, s[0]);
	assert_int_equal(pthread_create(&r.thread, NULL, relay_run, &r), 0);
	start(&client);
	start(&server);
	finish(&server);
	assert_int_equal(server.rc, 0);
	rs = session(&server.got);
	while (atomic_load(&r.n_held) < 51) /* 6 and 45 bytes */
		(void)poll(NULL, 0, 1);
	atomic_store(&r.stop, true);
	assert_int_equal(pthread_join(r.thread, NULL), 0);
	assert_int_equal(r.held.len, 51);
	/* mbedTLS counted its own nonce from 0 on: those of volume/record.c, from 1 on, are others. */
	assert_memory_equal(r.held.data + 6, "\x16\x03\x03\x00\x28\0\0\0\0\0\0\0\0", 13);

	assert_int_equal(record_seal(rs, &v, 1, &wire), 0);
	buf_append(&r.held, wire.data, wire.len);
	assert_int_equal(send(r.to_client, r.held.data, r.held.len, 0), r.held.len);
	finish(&client);
	assert_int_equal(client.rc, 0);
	assert_true(client.got.n_early > 0);
	rc = session(&client.got);
	assert_true(record_open(rc, client.got.early, client.got.n_early, &plain) >= 0);
	while (plain.len < n) {
		uint8_t rest[4096];
		ssize_t got = recv(c[0], rest, sizeof rest, 0);

		assert_true(got > 0);
		assert_true(record_open(rc, rest, (size_t)got, &plain) >= 0);
	}
	assert_memory_equal(plain.data, data, n);
	rc = record_free(rc);
	rs = record_free(rs);
	drop(&client);
	drop(&server);
	(void)close(r.to_client);
	(void)close(r.to_server);
	buf_free(&r.held);
	buf_free(&wire);
	buf_free(&plain);
	free(data);
}

static void test_early_bytes(void **state)
{
	(void)state;
	early_bytes(1);
	early_bytes(9000);
	early_bytes(60000); /* more than one read: the rest is still in the socket */
}

/* What a caller has read to see which protocol is asked for. */
static void test_first_bytes(void **state)
{
	static uint8_t hello[NET_BULK_FIRST_BYTES_MAX];
	struct end client, server;
	int fds[2];
	ssize_t n;

	(void)state;
	pair(fds);
	begin(&client, "ca", "n1", true, fds[0]);
	begin(&server, "ca", "n2", false, fds[1]);
	start(&client);
	n = recv(fds[1], hello, sizeof hello, 0);
	assert_true(n > 50);
	server.h.first = hello;
	server.h.n_first = (size_t)n;
	start(&server);
	finish(&client);
	finish(&server);
	assert_int_equal(client.rc, 0);
	assert_int_equal(server.rc, 0);
	check_handed_over(&client, &server);
	drop(&client);
	drop(&server);
}

/* ---- one identity, many threads ---- */

static void test_many_at_once(void **state)
{
	enum { N = 8 };
	struct net_bulk_identity *ids[2] = {load("ca", "n1"), load("ca", "n2")};
	struct end *ends = xcalloc(2 * (size_t)N, sizeof *ends);

	(void)state;
	for (int i = 0; i < N; i++) {
		int fds[2];

		pair(fds);
		for (int k = 0; k < 2; k++) {
			ends[2 * i + k].id = ids[k];
			ends[2 * i + k].h = (struct net_bulk_handshake){
				.fd = fds[k], .is_client = k == 0, .deadline = clock_boottime() + 2 * PLENTY};
			start(&ends[2 * i + k]);
		}
	}
	for (int i = 0; i < 2 * N; i++)
		finish(&ends[i]);
	for (int i = 0; i < N; i++) {
		assert_int_equal(ends[2 * i].rc, 0);
		assert_int_equal(ends[2 * i + 1].rc, 0);
		check_handed_over(&ends[2 * i], &ends[2 * i + 1]);
	}
	for (int i = 0; i < 2 * N; i++)
		(void)close(ends[i].h.fd);
	ids[0] = net_bulk_identity_free(ids[0]);
	ids[1] = net_bulk_identity_free(ids[1]);
	free(ends);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_ends),
		cmocka_unit_test(test_who_is_refused),
		cmocka_unit_test(test_only_a_node_has_an_identity),
		cmocka_unit_test(test_silence_ends_it),
		cmocka_unit_test(test_trickling_ends_it),
		cmocka_unit_test(test_a_peer_that_is_none),
		cmocka_unit_test(test_early_bytes),
		cmocka_unit_test(test_first_bytes),
		cmocka_unit_test(test_many_at_once),
	};

	return cmocka_run_group_tests_name("net_bulk", tests, set_up, tear_down);
}
