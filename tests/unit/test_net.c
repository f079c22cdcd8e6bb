/* SPDX-License-Identifier: Apache-2.0
 * Two real nodes' ends on loopback, blocking clients on threads: who is let in, what arrives, what closes a link. */
#include "net/internal.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define CLUSTER "11111111-1111-1111-1111-111111111111"
#define WAIT_S  20

struct end {
	struct net *net;
	unsigned up, down, frames, opened, closed;
	size_t bytes; /* of frames */
	uint64_t sum;
	struct buf got; /* last frame */
	bool stranger;  /* peer_known says no */
	char down_reason[128];
	enum net_protocol protocol;
	char token[40];
	struct net_identity identity;
};

static char dir[64];
static uv_loop_t loop;
static uint8_t secret[32];
static unsigned nets_closed;

static void write_file(const char *name, const struct buf *b)
{
	char path[128];

	(void)snprintf(path, sizeof path, "%s/%s", dir, name);
	assert_int_equal(file_replace(path, b->data, b->len, 0600, NULL), 0);
}

static const char *at(const char *name)
{
	static char paths[8][128];
	static unsigned next;
	char *path = paths[next++ % 8];

	(void)snprintf(path, 128, "%s/%s", dir, name);
	return path;
}

static void make_identity(const struct buf *ca_key, const struct buf *ca, const char *cn, const char *cluster,
			  const char *file)
{
	struct buf key = {0}, csr = {0}, cert = {0};
	char name[64];
	struct err e = {0};

	assert_int_equal(net_pki_make_request("whatever", &key, &csr, &e), 0);
	assert_int_equal(net_pki_sign(ca_key, ca, &csr, cn, cluster, 30, &cert, &e), 0);
	(void)snprintf(name, sizeof name, "%s.key", file);
	write_file(name, &key);
	(void)snprintf(name, sizeof name, "%s.crt", file);
	write_file(name, &cert);
	buf_free(&key);
	buf_free(&csr);
	buf_free(&cert);
}

static int set_up(void **state)
{
	struct buf key = {0}, ca = {0}, key2 = {0}, ca2 = {0};

	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/kt-net-XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(net_pki_make_ca(CLUSTER, &key, &ca, NULL), 0);
	assert_int_equal(net_pki_make_ca(CLUSTER, &key2, &ca2, NULL), 0);
	write_file("ca.crt", &ca);
	write_file("ca2.crt", &ca2);
	make_identity(&key, &ca, "node:1", CLUSTER, "n1");
	make_identity(&key, &ca, "node:2", CLUSTER, "n2");
	make_identity(&key, &ca, "admin:root", CLUSTER, "admin");
	make_identity(&key2, &ca2, "admin:root", CLUSTER, "admin2");
	make_identity(&key2, &ca2, "node:1", CLUSTER, "n1b");
	make_identity(&key, &ca, "node:1", "another-cluster", "n1c");
	random_bytes(secret, sizeof secret);
	buf_free(&key);
	buf_free(&ca);
	buf_free(&key2);
	buf_free(&ca2);
	return 0;
}

static int tear_down(void **state)
{
	char command[96];

	(void)state;
	(void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command);
}

/* ---- the ends ---- */

static void on_frame(void *ctx, node_id_t from, const uint8_t *p, size_t n)
{
	struct end *end = ctx;

	(void)from;
	end->frames++;
	end->bytes += n;
	for (size_t i = 0; i < n; i += 997)
		end->sum += p[i];
	end->got.len = 0;
	buf_append(&end->got, p, n);
}

static void on_up(void *ctx, node_id_t node)
{
	(void)node;
	((struct end *)ctx)->up++;
}

static void on_down(void *ctx, node_id_t node, const char *reason)
{
	struct end *end = ctx;

	(void)node;
	end->down++;
	(void)snprintf(end->down_reason, sizeof end->down_reason, "%s", reason);
}

static bool on_known(void *ctx, node_id_t node)
{
	(void)node;
	return !((struct end *)ctx)->stranger;
}

static void on_open(void *ctx, struct net_conn *conn, enum net_protocol protocol)
{
	struct end *end = ctx;

	end->opened++;
	end->protocol = protocol;
	end->identity = *net_conn_identity(conn);
	if (protocol == NET_JOIN)
		(void)snprintf(end->token, sizeof end->token, "%s", net_conn_token(conn));
}

static void on_data(void *ctx, struct net_conn *conn, const uint8_t *p, size_t n)
{
	(void)ctx;
	assert_int_equal(net_conn_send(conn, p, n), 0); /* an echo */
}

static void on_closed(void *ctx, struct net_conn *conn)
{
	(void)conn;
	((struct end *)ctx)->closed++;
}

static bool on_secret(void *ctx, const char *id, uint8_t ret[32])
{
	(void)ctx;
	if (strcmp(id, "token-1") != 0)
		return false;
	memcpy(ret, secret, 32);
	return true;
}

static void start(struct end *end, node_id_t self, const char *listen, const char *identity)
{
	char cert[16], key[16];
	struct net_config config = {.self = self, .listen = listen, .cluster = CLUSTER, .ca_cert = at("ca.crt")};
	const struct net_callbacks cb = {.ctx = end,
					 .peer_frame = on_frame,
					 .peer_up = on_up,
					 .peer_down = on_down,
					 .peer_known = on_known,
					 .conn_open = on_open,
					 .conn_data = on_data,
					 .conn_closed = on_closed,
					 .join_secret = on_secret};
	struct err e = {0};

	(void)snprintf(cert, sizeof cert, "%s.crt", identity);
	(void)snprintf(key, sizeof key, "%s.key", identity);
	config.cert = at(cert);
	config.key = at(key);
	config.ctl_sock = self == 2 ? at("ctl.sock") : NULL;
	if (net_new(&loop, &config, &cb, &end->net, &e) < 0 || net_listen(end->net, &e) < 0)
		fail_msg("%s", e.text);
}

static void on_net_closed(void *ctx)
{
	(void)ctx;
	nets_closed++;
}

static void turn_until(bool (*done)(void *), void *ctx)
{
	usec_t end = clock_boottime() + WAIT_S * USEC_PER_SEC;

	while (!done(ctx)) {
		if (clock_boottime() > end)
			fail_msg("not in time");
		(void)uv_run(&loop, UV_RUN_ONCE);
	}
}

static void stop(struct end *a, struct end *b)
{
	net_close(a->net, on_net_closed, NULL);
	net_close(b->net, on_net_closed, NULL);
	(void)uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(nets_closed >= 2);
	nets_closed = 0;
	assert_int_equal(uv_loop_close(&loop), 0);
	buf_free(&a->got);
	buf_free(&b->got);
}

static bool both_up(void *ctx)
{
	struct end *ends = ctx;

	return ends[0].up > ends[0].down && ends[1].up > ends[1].down;
}

static void pair(struct end ends[2], const char *identity1)
{
	memset(ends, 0, 2 * sizeof *ends);
	assert_int_equal(uv_loop_init(&loop), 0);
	start(&ends[0], 1, "127.0.0.1:17401", identity1);
	start(&ends[1], 2, "127.0.0.2:17401", "n2");
	assert_int_equal(net_peer_add(ends[0].net, 2, "127.0.0.2:17401", NULL), 0);
	assert_int_equal(net_peer_add(ends[1].net, 1, "127.0.0.1:17401", NULL), 0);
}

/* ---- links ---- */

static bool second_has_frame(void *ctx)
{
	return ((struct end *)ctx)[1].frames > 0;
}

static bool second_has_50(void *ctx)
{
	return ((struct end *)ctx)[1].frames == 50;
}

static void frames_arrive_whole(void **state)
{
	static uint8_t big[200000];
	struct end ends[2];

	(void)state;
	pair(ends, "n1");
	assert_int_equal(net_peer_send(ends[0].net, 2, "x", 1), -ENOTCONN);
	turn_until(both_up, ends);
	assert_int_equal(net_peer_send(ends[0].net, 2, "hello", 5), 0);
	turn_until(second_has_frame, ends);
	assert_int_equal(ends[1].got.len, 5);
	assert_memory_equal(ends[1].got.data, "hello", 5);
	random_bytes(big, sizeof big);
	for (int i = 1; i < 50; i++) {
		while (net_peer_send(ends[0].net, 2, big, sizeof big) == -EAGAIN)
			(void)uv_run(&loop, UV_RUN_ONCE);
	}
	turn_until(second_has_50, ends);
	assert_int_equal(ends[1].bytes, 5 + 49 * sizeof big);
	assert_memory_equal(ends[1].got.data, big, sizeof big);
	stop(&ends[0], &ends[1]);
}

static void full_queue_is_backpressure(void **state)
{
	static uint8_t big[FRAME_BYTES_MAX + 1];
	struct end ends[2];
	int rc = 0, n = 0;

	(void)state;
	pair(ends, "n1");
	turn_until(both_up, ends);
	assert_int_equal(net_peer_send(ends[0].net, 2, big, sizeof big), -EMSGSIZE);
	while (rc == 0 && n++ < 100)
		rc = net_peer_send(ends[0].net, 2, big, FRAME_BYTES_MAX);
	assert_int_equal(rc, -EAGAIN);
	stop(&ends[0], &ends[1]);
}

static bool came_back(void *ctx)
{
	struct end *ends = ctx;

	return ends[0].up >= 2 && ends[1].up >= 2;
}

static void broken_link_comes_back(void **state)
{
	struct end ends[2];

	(void)state;
	pair(ends, "n1");
	turn_until(both_up, ends);
	net_peer_drop(ends[1].net, 1, "test");
	turn_until(came_back, ends);
	assert_int_equal(ends[0].down, 1);
	assert_string_equal(ends[1].down_reason, "test");
	stop(&ends[0], &ends[1]);
}

static bool second_is_told(void *ctx)
{
	struct end *ends = ctx;

	return ends[1].down > 0 && ends[1].up > 1 && ends[1].frames > 0;
}

/* A node's new process comes while its old link still looks whole: that one ends before a byte of the new one is read,
 * or an answer of the past could overtake one of the present. */
static void newer_link_ends_the_older(void **state)
{
	struct end ends[2], again = {0};

	(void)state;
	pair(ends, "n1");
	turn_until(both_up, ends);
	start(&again, 1, "127.0.0.3:17401", "n1");
	assert_int_equal(net_peer_add(again.net, 2, "127.0.0.2:17401", NULL), 0);
	while (net_peer_send(again.net, 2, "new", 3) != 0)
		(void)uv_run(&loop, UV_RUN_ONCE);
	turn_until(second_is_told, ends);
	assert_string_equal(ends[1].down_reason, "replaced by a newer link");
	assert_int_equal(ends[1].up, ends[1].down + 1);
	net_close(again.net, on_net_closed, NULL);
	stop(&ends[0], &ends[1]);
}

/* Frames whose length is beyond the limit: written past the API, as a hostile peer would. */
static bool second_down(void *ctx)
{
	return ((struct end *)ctx)[1].down > 0;
}

static void oversized_frame_closes(void **state)
{
	static const uint8_t head[] = {0xff, 0xff, 0xff, 0xff};
	struct net_counters counters;
	struct end ends[2];

	(void)state;
	pair(ends, "n1");
	turn_until(both_up, ends);
	assert_int_equal(session_send(peer_find(ends[0].net, 2)->active, head, sizeof head, 100), 0);
	turn_until(second_down, ends);
	net_counters(ends[1].net, &counters);
	assert_int_equal(counters.closed_oversize, 1);
	stop(&ends[0], &ends[1]);
}

/* A peer that says nothing more (its process hangs): found without its help. */
static void silent_link_closes(void **state)
{
	struct net_counters counters;
	struct end ends[2];

	(void)state;
	pair(ends, "n1");
	turn_until(both_up, ends);
	(void)uv_timer_stop(&ends[0].net->timer);
	turn_until(second_down, ends);
	net_counters(ends[1].net, &counters);
	assert_int_equal(counters.closed_silent, 1);
	stop(&ends[0], &ends[1]);
}

static bool three_failures(void *ctx)
{
	struct end *ends = ctx;

	return ends[0].net->counters.handshakes_failed + ends[1].net->counters.handshakes_failed >= 3;
}

static void refused_link(const char *identity, bool stranger)
{
	struct end ends[2];

	pair(ends, identity);
	ends[1].stranger = stranger;
	turn_until(three_failures, ends);
	assert_int_equal(ends[1].up, 0);
	stop(&ends[0], &ends[1]);
}

static void foreign_ca_is_no_peer(void **state)
{
	(void)state;
	refused_link("n1b", false);
}

static void other_cluster_is_no_peer(void **state)
{
	(void)state;
	refused_link("n1c", false);
}

static void admin_is_no_peer(void **state)
{
	(void)state;
	refused_link("admin", false);
}

static void stranger_is_no_peer(void **state)
{
	(void)state;
	refused_link("n1", true);
}

/* ---- clients ---- */

enum how { HOW_LOCAL, HOW_TLS, HOW_FOREIGN, HOW_JOIN, HOW_WRONG_SECRET, HOW_WRONG_TOKEN, HOW_WRONG_CA };

struct visit {
	enum how how;
	struct end *ends;
	int rc;
	struct err e;
	struct buf got;
	_Atomic bool done;
};

static int visit_connect(struct visit *v, struct net_client **ret)
{
	const char *to = "127.0.0.2:17401";
	uint8_t wrong[32] = {1};

	switch (v->how) {
	case HOW_LOCAL:
		return net_client_local(at("ctl.sock"), ret, &v->e);
	case HOW_TLS:
		return net_client_tls(to, at("ca.crt"), at("admin.crt"), at("admin.key"), 10 * USEC_PER_SEC, ret,
				      &v->e);
	case HOW_FOREIGN:
		return net_client_tls(to, at("ca.crt"), at("admin2.crt"), at("admin2.key"), 10 * USEC_PER_SEC, ret,
				      &v->e);
	case HOW_WRONG_CA:
		return net_client_tls(to, at("ca2.crt"), at("admin.crt"), at("admin.key"), 10 * USEC_PER_SEC, ret,
				      &v->e);
	case HOW_JOIN:
		return net_client_join(to, "127.0.0.3", "token-1", secret, 10 * USEC_PER_SEC, ret, &v->e);
	case HOW_WRONG_SECRET:
		return net_client_join(to, NULL, "token-1", wrong, 10 * USEC_PER_SEC, ret, &v->e);
	default:
		return net_client_join(to, NULL, "token-2", secret, 10 * USEC_PER_SEC, ret, &v->e);
	}
}

static void *visit_thread(void *ctx)
{
	struct visit *v = ctx;
	struct net_client *c = NULL;

	v->rc = visit_connect(v, &c);
	if (v->rc == 0)
		v->rc = net_client_send(c, "ping", 4, &v->e);
	while (v->rc == 0 && v->got.len < 4) {
		long n = net_client_recv(c, clock_boottime() + 10 * USEC_PER_SEC, &v->got, &v->e);

		if (n <= 0)
			v->rc = n < 0 ? (int)n : -ECONNRESET;
	}
	(void)net_client_close(c);
	v->done = true;
	return NULL;
}

static bool visit_done(void *ctx)
{
	struct visit *v = ctx;

	return v->done && v->ends[1].closed == v->ends[1].opened;
}

static void visit(enum how how, bool is_welcome)
{
	struct end ends[2];
	struct visit v = {.how = how, .ends = ends};
	pthread_t thread;

	pair(ends, "n1");
	assert_int_equal(pthread_create(&thread, NULL, visit_thread, &v), 0);
	turn_until(visit_done, &v);
	assert_int_equal(pthread_join(thread, NULL), 0);
	if (is_welcome) {
		assert_int_equal(v.rc, 0);
		assert_memory_equal(v.got.data, "ping", 4);
		assert_int_equal(ends[1].opened, 1);
		assert_int_equal(ends[1].protocol, how == HOW_JOIN ? NET_JOIN : NET_CTL);
		assert_string_equal(how == HOW_JOIN ? ends[1].token : ends[1].identity.name,
				    how == HOW_JOIN ? "token-1" : "root");
	} else {
		assert_true(v.rc < 0);
		assert_int_equal(v.got.len, 0);
		assert_int_equal(ends[1].opened, 0);
		assert_true(v.e.text[0] != '\0' || v.rc == -ECONNRESET);
	}
	buf_free(&v.got);
	stop(&ends[0], &ends[1]);
}

static void clients(void **state)
{
	(void)state;
	visit(HOW_LOCAL, true);
	visit(HOW_TLS, true);
	visit(HOW_JOIN, true);
	visit(HOW_FOREIGN, false);
	visit(HOW_WRONG_CA, false);
	visit(HOW_WRONG_SECRET, false);
	visit(HOW_WRONG_TOKEN, false);
}

/* ---- the clear part of the handshake ---- */

static void hello_survives_garbage(void **state)
{
	enum tls_protocol protocol;
	char identity[40];
	uint8_t bytes[300];

	(void)state;
	for (int i = 0; i < 20000; i++) {
		size_t n;

		random_bytes(bytes, sizeof bytes);
		n = bytes[0];
		bytes[0] = 22;
		bytes[1] = 3;
		bytes[3] = 0;
		bytes[4] = (uint8_t)(n > 5 ? n - 5 : 0);
		bytes[5] = i % 2 ? 1 : 16;
		bytes[6] = bytes[7] = 0;
		bytes[8] = (uint8_t)(n > 9 ? n - 9 : 0);
		assert_int_not_equal(hello_protocol(bytes, n, &protocol), 0);
		if (hello_psk_identity(bytes, n, identity, sizeof identity) == 0)
			assert_true(strlen(identity) < sizeof identity);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_arrive_whole),
		cmocka_unit_test(full_queue_is_backpressure),
		cmocka_unit_test(newer_link_ends_the_older),
		cmocka_unit_test(broken_link_comes_back),
		cmocka_unit_test(oversized_frame_closes),
		cmocka_unit_test(silent_link_closes),
		cmocka_unit_test(foreign_ca_is_no_peer),
		cmocka_unit_test(other_cluster_is_no_peer),
		cmocka_unit_test(admin_is_no_peer),
		cmocka_unit_test(stranger_is_no_peer),
		cmocka_unit_test(clients),
		cmocka_unit_test(hello_survives_garbage),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
