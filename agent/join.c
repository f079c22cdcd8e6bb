/* SPDX-License-Identifier: Apache-2.0
 * Who came with a token: the leader logs the new node, this node signs its certificate. */
#include "agent/agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CERT_DAYS      3650
#define JOIN_BYTES_MAX (32u << 10)

/* One joining machine: a request comes in, is logged, signed on a worker, answered. */
enum join_state { JOIN_READING, JOIN_ADDING, JOIN_SIGNING, JOIN_OVER };

struct join {
	struct agent *agent;
	struct net_conn *conn; /* NULL: it went away */
	enum join_state state;
	struct buf in;
	uint64_t msgid;
	char token[40];
	struct buf request; /* for the certificate, PEM */
	uint64_t node;
	char role[16];
	char cluster_name[NAME_BYTES_MAX];
	uv_work_t work;
	struct buf cert;
	struct err error;
	int rc;
};

static void join_free(struct join *j)
{
	if (j->conn || j->state == JOIN_ADDING || j->state == JOIN_SIGNING)
		return; /* somebody still has it */
	buf_free(&j->in);
	buf_free(&j->request);
	buf_free(&j->cert);
	free(j);
}

/* The last answer on the connection. */
static void answer(struct join *j, const struct buf *response)
{
	j->state = JOIN_OVER;
	if (j->conn) {
		(void)!net_conn_send(j->conn, response->data, response->len);
		net_conn_close(j->conn);
	}
	join_free(j);
}

static void refuse(struct join *j, int code, const char *text)
{
	struct buf response = {0};

	log_warning("a join was refused: %s", text);
	ctl_pack_error(&response, j->msgid, code, text);
	answer(j, &response);
	buf_free(&response);
}

/* ---- signing ---- */

static void sign_cb(uv_work_t *work)
{
	struct join *j = work->data;
	struct agent *agent = j->agent;
	char name[32];

	(void)snprintf(name, sizeof name, "node:%llu", (unsigned long long)j->node);
	j->rc = net_pki_sign(&agent->ca_key, &agent->ca_cert, &j->request, name, agent->config.cluster, CERT_DAYS,
			     &j->cert, &j->error);
}

static void welcome(struct join *j)
{
	const struct agent *agent = j->agent;
	struct buf response = {0};
	struct pack p = {.out = &response};

	pack_array(&p);
	pack_u64(&p, 1);
	pack_u64(&p, j->msgid);
	pack_nil(&p);
	pack_map(&p);
	pack_kv_u64(&p, "node", j->node);
	pack_kv_str(&p, "cluster", agent->config.cluster);
	pack_kv_str(&p, "cluster_name", j->cluster_name);
	pack_kv_str(&p, "role", j->role);
	pack_key(&p, "ca_cert");
	pack_bin(&p, agent->ca_cert.data, agent->ca_cert.len);
	pack_key(&p, "cert");
	pack_bin(&p, j->cert.data, j->cert.len);
	if (strcmp(j->role, "witness") != 0) {
		pack_key(&p, "ca_key");
		pack_bin(&p, agent->ca_key.data, agent->ca_key.len);
	}
	pack_end(&p);
	pack_end(&p);
	log_info("node %llu joined", (unsigned long long)j->node);
	answer(j, &response);
	explicit_bzero(response.data, response.len);
	buf_free(&response);
}

static void signed_cb(uv_work_t *work, int status)
{
	struct join *j = work->data;

	(void)status;
	CHECK(j->state == JOIN_SIGNING);
	if (j->rc < 0)
		refuse(j, PROTO_E_INVALID, j->error.text);
	else
		welcome(j);
}

/* ---- adding ---- */

static void added(void *ctx, const uint8_t *response, size_t n)
{
	struct join *j = ctx;
	struct unpack u;
	const struct msgpack_object *error, *result;
	char text[256] = "the node could not be added";
	int64_t code = PROTO_E_INTERNAL;

	CHECK(j->state == JOIN_ADDING && unpack_open(&u, response, n) == 0);
	error = unpack_at(u.root, 2);
	result = unpack_at(u.root, 3);
	if (unpack_is_nil(error) && unpack_u64(unpack_key(result, "node"), &j->node) &&
	    unpack_str(unpack_key(result, "role"), j->role, sizeof j->role) &&
	    unpack_str(unpack_key(result, "cluster_name"), j->cluster_name, sizeof j->cluster_name)) {
		j->state = JOIN_SIGNING;
		j->work.data = j;
		CHECK(uv_queue_work(&j->agent->loop, &j->work, sign_cb, signed_cb) == 0);
	} else {
		(void)unpack_i64(unpack_key(error, "code"), &code);
		(void)unpack_str(unpack_key(error, "text"), text, sizeof text);
		refuse(j, (int)code, text);
	}
	unpack_free(&u);
}

static void add_node(struct join *j, const struct msgpack_object *asked)
{
	static const char *const keys[] = {"name", "address", "zone"};
	struct buf params = {0};
	struct pack p = {.out = &params};

	pack_map(&p);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		char text[ADDRESS_BYTES_MAX] = "";

		(void)unpack_str(unpack_key(asked, keys[i]), text, sizeof text);
		pack_kv_str(&p, keys[i], text);
	}
	pack_kv_str(&p, "token", j->token);
	pack_kv_u64(&p, "session", random_u64());
	pack_kv_u64(&p, "num", 1);
	pack_end(&p);
	j->state = JOIN_ADDING;
	ctl_submit(j->agent->ctl, "node.add", &params, added, j);
	buf_free(&params);
}

static void take_request(struct join *j, size_t n)
{
	const struct msgpack_object *asked;
	struct unpack u;
	const uint8_t *pem;
	size_t pem_n;
	char method[16], ca[65];

	if (unpack_open(&u, j->in.data, n) < 0) {
		unpack_free(&u);
		refuse(j, PROTO_E_INVALID, "the request is not msgpack");
		return;
	}
	asked = unpack_at(unpack_at(u.root, 3), 0);
	(void)unpack_u64(unpack_at(u.root, 1), &j->msgid);
	if (!unpack_str(unpack_at(u.root, 2), method, sizeof method) || strcmp(method, "join") != 0 ||
	    !unpack_bin(unpack_key(asked, "request"), &pem, &pem_n)) {
		refuse(j, PROTO_E_INVALID, "with a token, only join can be asked for");
	} else if (!unpack_str(unpack_key(asked, "ca"), ca, sizeof ca) || strcmp(ca, j->agent->ca_fingerprint) != 0) {
		refuse(j, PROTO_E_DENIED, "the token names another CA than this cluster's");
	} else if (j->agent->ca_key.len == 0) {
		refuse(j, PROTO_E_CONFLICT, "this node has no CA key: join by another one");
	} else {
		buf_append(&j->request, pem, pem_n);
		add_node(j, asked);
	}
	unpack_free(&u);
}

/* ---- the connection ---- */

void join_open(struct agent *agent, struct net_conn *conn)
{
	struct join *j = xcalloc(1, sizeof *j);

	j->agent = agent;
	j->conn = conn;
	(void)snprintf(j->token, sizeof j->token, "%s", net_conn_token(conn));
	net_conn_set_data(conn, j);
}

void join_data(struct agent *agent, struct net_conn *conn, const uint8_t *p, size_t n)
{
	struct join *j = net_conn_data(conn);
	size_t used;
	int rc;

	(void)agent;
	if (j->state != JOIN_READING)
		return;
	buf_append(&j->in, p, n);
	rc = unpack_scan(j->in.data, j->in.len, &used);
	if (rc == 0)
		take_request(j, used);
	else if (rc == -EBADMSG || j->in.len > JOIN_BYTES_MAX)
		refuse(j, PROTO_E_INVALID, "the request is not msgpack");
}

void join_closed(struct agent *agent, struct net_conn *conn)
{
	struct join *j = net_conn_data(conn);

	(void)agent;
	j->conn = NULL;
	join_free(j);
}

/* 64 hexadecimal digits. */
static bool parse_secret(const char *hex, uint8_t ret[32])
{
	for (size_t i = 0; i < 32; i++) {
		unsigned byte;

		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			return false;
		ret[i] = (uint8_t)byte;
	}
	return hex[64] == '\0';
}

bool join_secret(struct agent *agent, const char *id, uint8_t ret[32])
{
	struct command_token_add token;

	return store_token(agent->store, id, clock_wall(), &token) && parse_secret(token.secret, ret);
}
