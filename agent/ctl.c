/* SPDX-License-Identifier: Apache-2.0
 * Requests: from administrators on a connection, from other nodes that forwarded them, from this node itself. Each is
 * one struct with one state; its tick goes on whenever something may have changed. A request that meets no leader, or
 * loses it, looks for one again until its deadline: reads may be repeated, and changes carry session and number. */
#include "agent/methods.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_MAX_TIME (10 * USEC_PER_SEC)
#define STATUS_MAX_TIME  (1500 * USEC_PER_MS) /* then this node tells what it knows itself */
#define RESEND_EVERY     (100 * USEC_PER_MS)
#define REQUESTS_MAX     1024

enum request_state {
	REQUEST_LOOKING,   /* for a leader */
	REQUEST_READING,   /* this node leads; a majority has to confirm it */
	REQUEST_PROPOSED,  /* the entry is logged; request_applied() follows in any case */
	REQUEST_FORWARDED, /* the leader answers, or its link breaks */
	REQUEST_LOCAL,     /* ctl_answer() follows in any case */
	REQUEST_ANSWERED,
	REQUEST_STATES,
};

struct request {
	struct request *next;
	struct ctl *ctl;
	enum request_state state;
	uint64_t number; /* of this node, names it in PEER_FORWARD */
	/* whose it is: one of these */
	struct net_conn *conn;
	node_id_t from;
	uint64_t from_number;
	ctl_done done;
	void *ctx;

	enum net_role role;
	char actor[NAME_BYTES_MAX];
	struct buf raw;
	struct unpack unpacked;
	uint64_t msgid;
	const struct msgpack_object *params;
	const struct method *method;
	struct change change;
	struct node_read read;
	node_id_t asked;
	usec_t deadline, not_before;
	struct buf response; /* REQUEST_ANSWERED */
};

/* What came on one connection and is no whole request yet. */
struct client {
	struct buf in;
};

struct ctl {
	struct agent *agent;
	struct request *requests;
	size_t n_requests;
	uint64_t numbers;
};

static void request_tick(struct request *r);

/* ---- answers ---- */

static void move(struct request *r, enum request_state to)
{
	static const bool legal[REQUEST_STATES][REQUEST_STATES] = {
		[REQUEST_LOOKING] = {[REQUEST_READING] = true,
				     [REQUEST_PROPOSED] = true,
				     [REQUEST_FORWARDED] = true,
				     [REQUEST_LOCAL] = true,
				     [REQUEST_ANSWERED] = true},
		[REQUEST_READING] = {[REQUEST_LOOKING] = true, [REQUEST_ANSWERED] = true},
		[REQUEST_PROPOSED] = {[REQUEST_ANSWERED] = true},
		[REQUEST_LOCAL] = {[REQUEST_ANSWERED] = true},
		[REQUEST_FORWARDED] = {[REQUEST_LOOKING] = true, [REQUEST_ANSWERED] = true},
	};

	CHECK(legal[r->state][to]);
	r->state = to;
	CHECK(to != REQUEST_ANSWERED || r->response.len > 0);
	CHECK(to != REQUEST_FORWARDED || r->asked != 0);
}

void ctl_pack_error(struct buf *out, uint64_t msgid, int code, const char *text)
{
	struct pack p = {.out = out};

	pack_array(&p);
	pack_u64(&p, 1);
	pack_u64(&p, msgid);
	pack_map(&p);
	pack_key(&p, "code");
	pack_i64(&p, code);
	pack_kv_str(&p, "symbol", proto_error_symbol(code));
	pack_kv_str(&p, "text", text[0] ? text : proto_error_text(code));
	pack_end(&p);
	pack_nil(&p);
	pack_end(&p);
}

static void fail(struct request *r, int code, const char *text)
{
	ctl_pack_error(&r->response, r->msgid, code, text);
	move(r, REQUEST_ANSWERED);
}

/* @result: one packed value, or nothing for {}. */
static void succeed(struct request *r, const struct buf *result)
{
	struct pack p = {.out = &r->response};

	pack_array(&p);
	pack_u64(&p, 1);
	pack_u64(&p, r->msgid);
	pack_nil(&p);
	if (result->len > 0) {
		pack_raw(&p, result->data, result->len);
	} else {
		pack_map(&p);
		pack_end(&p);
	}
	pack_end(&p);
	move(r, REQUEST_ANSWERED);
}

static void run_read(struct request *r, method_read read)
{
	struct buf result = {0};
	struct pack p = {.out = &result};
	struct err e = {0};
	int rc = read(r->ctl->agent, r->params, &p, &e);

	if (rc < 0)
		fail(r, rc, e.text);
	else
		succeed(r, &result);
	buf_free(&result);
}

static void tell_local_status(struct request *r)
{
	struct buf result = {0};
	struct pack p = {.out = &result};

	view_status(r->ctl->agent, &p, true, false);
	succeed(r, &result);
	buf_free(&result);
}

/* ---- the life of a request ---- */

static struct request *request_new(struct ctl *ctl, enum net_role role, const char *actor)
{
	struct request *r = xcalloc(1, sizeof *r);

	r->ctl = ctl;
	r->number = ++ctl->numbers;
	r->role = role;
	(void)snprintf(r->actor, sizeof r->actor, "%s", actor);
	r->next = ctl->requests;
	ctl->requests = r;
	ctl->n_requests++;
	return r;
}

static void request_free(struct request *r)
{
	struct request **at = &r->ctl->requests;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	r->ctl->n_requests--;
	unpack_free(&r->unpacked);
	buf_free(&r->raw);
	buf_free(&r->change.bodies);
	buf_free(&r->change.result);
	buf_free(&r->response);
	free(r);
}

static void hand_out(struct request *r)
{
	struct agent *agent = r->ctl->agent;

	CHECK(r->state == REQUEST_ANSWERED);
	if (r->conn && net_conn_send(r->conn, r->response.data, r->response.len) < 0)
		net_conn_close(r->conn);
	if (r->from) {
		struct peer_answer answer = {r->from_number, {r->response.data, r->response.len}};
		struct buf frame = {0};

		message_encode(&peer_answer_type, &answer, &frame);
		if (net_peer_send(agent->net, r->from, frame.data, frame.len) < 0)
			log_debug("an answer to node %u is lost: it asks again", r->from);
		buf_free(&frame);
	}
	if (r->done)
		r->done(r->ctx, r->response.data, r->response.len);
}

static bool is_stale(const struct request *r)
{
	bool stale = false;

	(void)unpack_bool(unpack_key(r->params, "stale"), &stale);
	return stale && r->method->kind != METHOD_CHANGE;
}

/* [0, msgid, method, [params]]. False: an answer that says why is there. */
static bool parse(struct request *r)
{
	const struct msgpack_object *root;
	char name[32], text[80];
	uint64_t session, num;

	if (unpack_open(&r->unpacked, r->raw.data, r->raw.len) < 0) {
		fail(r, PROTO_E_INVALID, "the request is not msgpack");
		return false;
	}
	root = r->unpacked.root;
	(void)unpack_u64(unpack_at(root, 1), &r->msgid);
	r->params = unpack_at(unpack_at(root, 3), 0);
	if (unpack_count(root) != 4 || !unpack_is_map(r->params) ||
	    !unpack_str(unpack_at(root, 2), name, sizeof name)) {
		fail(r, PROTO_E_INVALID, "a request is [0, id, method, [params]] with params a map");
		return false;
	}
	r->method = method_find(name);
	if (!r->method) {
		(void)snprintf(text, sizeof text, "this agent does not know the method '%s'", name);
		fail(r, PROTO_E_UNKNOWN_METHOD, text);
	} else if (!method_is_allowed(r->method, r->role)) {
		fail(r, PROTO_E_DENIED, "");
	} else if (r->method->kind == METHOD_CHANGE && !method_session(r->params, &session, &num)) {
		fail(r, PROTO_E_INVALID, "a change needs session and num");
	}
	return r->state != REQUEST_ANSWERED;
}

/* Only for who is connected here: what is uploaded belongs to the connection. */
static void run_local(struct request *r)
{
	if (!r->conn) {
		fail(r, PROTO_E_INVALID, "ask the node itself");
		return;
	}
	move(r, REQUEST_LOCAL);
	images_request(r->ctl->agent->images, r, r->method->name, r->params);
}

static void begin(struct request *r)
{
	if (r->ctl->n_requests > REQUESTS_MAX) {
		fail(r, PROTO_E_TOO_MANY, "too many requests at once");
		return;
	}
	if (!parse(r))
		return;
	r->deadline = clock_boottime() + (r->method->kind == METHOD_STATUS ? STATUS_MAX_TIME : REQUEST_MAX_TIME);
	if (r->method->kind == METHOD_LOCAL)
		run_local(r);
	else if (is_stale(r))
		run_read(r, r->method->read);
	else
		request_tick(r);
}

/* ---- as leader ---- */

static void request_applied(void *ctx, int status, const struct store_result *result)
{
	struct request *r = ctx;

	if (status != 0)
		fail(r, status, "");
	else if (result->code != 0)
		fail(r, result->code, result->text);
	else if (r->method->applied)
		run_read(r, r->method->applied);
	else
		succeed(r, &r->change.result);
}

static void propose(struct request *r)
{
	struct agent *agent = r->ctl->agent;
	struct command_head head = {.wall = clock_wall(), .bodies = r->change.n_bodies};
	struct buf entry = {0};
	int rc;

	CHECK(method_session(r->params, &head.session, &head.num));
	memcpy(head.actor, r->actor, sizeof head.actor);
	command_begin(&head, &entry);
	buf_append(&entry, r->change.bodies.data, r->change.bodies.len);
	rc = entry.len > ENTRY_BYTES_MAX
		     ? PROTO_E_TOO_MANY
		     : consensus_propose(agent->consensus, entry.data, entry.len, request_applied, r);
	buf_free(&entry);
	if (rc == 0)
		move(r, REQUEST_PROPOSED);
	else if (rc == PROTO_E_TOO_MANY)
		fail(r, rc, "");
	else /* -EAGAIN, or no leader any more: in a moment */
		r->not_before = clock_boottime() + RESEND_EVERY;
}

static void change(struct request *r)
{
	struct err e = {0};
	int rc;

	buf_free(&r->change.bodies);
	buf_free(&r->change.result);
	r->change.n_bodies = 0;
	rc = r->method->change(r->ctl->agent, r->params, &r->change, &e);
	if (rc < 0)
		fail(r, rc, e.text);
	else if (r->change.n_bodies == 0)
		succeed(r, &r->change.result);
	else
		propose(r);
}

static void reading(struct request *r)
{
	switch (node_read_poll(r->ctl->agent->node, &r->read)) {
	case NODE_READ_READY:
		run_read(r, r->method->read);
		break;
	case NODE_READ_LOST:
		move(r, REQUEST_LOOKING);
		break;
	case NODE_READ_WAIT:
		break;
	}
}

/* ---- elsewhere ---- */

static bool forward(struct request *r, node_id_t leader)
{
	struct peer_forward f = {.id = r->number, .role = (uint32_t)r->role, .request = {r->raw.data, r->raw.len}};
	struct buf frame = {0};
	int rc;

	memcpy(f.actor, r->actor, sizeof f.actor);
	message_encode(&peer_forward_type, &f, &frame);
	rc = net_peer_send(r->ctl->agent->net, leader, frame.data, frame.len);
	buf_free(&frame);
	return rc == 0;
}

static void look_for_leader(struct request *r)
{
	struct agent *agent = r->ctl->agent;
	struct consensus_view raft;

	if (clock_boottime() < r->not_before)
		return;
	if (!r->conn && !r->from && !r->done) { /* who asked is gone */
		fail(r, PROTO_E_UNREACHABLE, "");
		return;
	}
	if (node_leads(agent->node)) {
		if (r->method->kind == METHOD_CHANGE)
			change(r);
		else if (node_read_begin(agent->node, &r->read))
			move(r, REQUEST_READING);
		return;
	}
	if (r->from) { /* forwarded once already: its sender looks further */
		fail(r, PROTO_E_NO_LEADER, "");
		return;
	}
	consensus_view(agent->consensus, &raft);
	if (raft.leader && raft.leader != agent->config.id && forward(r, raft.leader)) {
		r->asked = raft.leader;
		move(r, REQUEST_FORWARDED);
	}
}

static void time_out(struct request *r)
{
	static const char *const words[] = {[REQUEST_LOOKING] = "",
					    [REQUEST_READING] = "no majority confirmed the leader in time",
					    [REQUEST_FORWARDED] = "the leader did not answer in time"};

	if (r->method->kind == METHOD_STATUS)
		tell_local_status(r);
	else
		fail(r, r->state == REQUEST_LOOKING ? PROTO_E_NO_LEADER : PROTO_E_TIMED_OUT, words[r->state]);
}

static void request_tick(struct request *r)
{
	enum request_state before;

	do {
		before = r->state;
		if (r->state == REQUEST_LOOKING)
			look_for_leader(r);
		else if (r->state == REQUEST_READING)
			reading(r);
	} while (r->state != before && r->state != REQUEST_ANSWERED);
	if (r->state != REQUEST_ANSWERED && r->state != REQUEST_PROPOSED && r->state != REQUEST_LOCAL &&
	    clock_boottime() >= r->deadline)
		time_out(r);
}

void ctl_step(struct ctl *ctl)
{
	for (struct request *r = ctl->requests, *next; r; r = next) {
		next = r->next;
		if (r->state != REQUEST_ANSWERED)
			request_tick(r);
		if (r->state == REQUEST_ANSWERED) {
			hand_out(r);
			next = r->next; /* done() may have added one */
			request_free(r);
		}
	}
}

/* ---- other nodes ---- */

static void receive_forward(struct ctl *ctl, node_id_t from, const struct peer_forward *f)
{
	struct request *r = request_new(ctl, (enum net_role)f->role, f->actor);

	r->from = from;
	r->from_number = f->id;
	buf_append(&r->raw, f->request.p, f->request.n);
	begin(r);
}

/* "No leader" from whom we took for one is no answer yet. */
static bool says_no_leader(const struct peer_answer *a)
{
	struct unpack u;
	int64_t code = 0;

	if (unpack_open(&u, a->response.p, a->response.n) == 0)
		(void)unpack_i64(unpack_key(unpack_at(u.root, 2), "code"), &code);
	unpack_free(&u);
	return code == PROTO_E_NO_LEADER;
}

static void receive_answer(struct ctl *ctl, node_id_t from, const struct peer_answer *a)
{
	for (struct request *r = ctl->requests; r; r = r->next) {
		if (r->number != a->id || r->state != REQUEST_FORWARDED || r->asked != from)
			continue;
		if (says_no_leader(a) || a->response.n == 0) {
			r->not_before = clock_boottime() + RESEND_EVERY;
			move(r, REQUEST_LOOKING);
			return;
		}
		buf_append(&r->response, a->response.p, a->response.n);
		move(r, REQUEST_ANSWERED);
		return;
	}
}

bool ctl_frame(struct ctl *ctl, node_id_t from, const uint8_t *p, size_t n)
{
	struct peer_forward forward_msg;
	struct peer_answer answer;
	uint32_t id;

	if (message_id(p, n, &id) < 0 || (id != PEER_FORWARD && id != PEER_ANSWER))
		return false;
	if (id == PEER_FORWARD && message_decode(&peer_forward_type, p, n, &forward_msg, NULL) == 0)
		receive_forward(ctl, from, &forward_msg);
	else if (id == PEER_ANSWER && message_decode(&peer_answer_type, p, n, &answer, NULL) == 0)
		receive_answer(ctl, from, &answer);
	return true;
}

void ctl_link_down(struct ctl *ctl, node_id_t node)
{
	for (struct request *r = ctl->requests; r; r = r->next) {
		if (r->from == node)
			r->from = 0; /* nobody waits for it any more */
		if (r->state == REQUEST_FORWARDED && r->asked == node)
			move(r, REQUEST_LOOKING);
	}
}

/* ---- connections ---- */

void ctl_open(struct ctl *ctl, struct net_conn *conn)
{
	(void)ctl;
	net_conn_set_data(conn, xcalloc(1, sizeof(struct client)));
}

void ctl_data(struct ctl *ctl, struct net_conn *conn, const uint8_t *p, size_t n)
{
	struct client *c = net_conn_data(conn);
	const struct net_identity *who = net_conn_identity(conn);
	size_t used;
	int rc;

	buf_append(&c->in, p, n);
	while ((rc = unpack_scan(c->in.data, c->in.len, &used)) == 0) {
		struct request *r = request_new(ctl, who->role, who->name);

		r->conn = conn;
		buf_append(&r->raw, c->in.data, used);
		buf_consume(&c->in, used);
		begin(r);
	}
	if (rc == -EBADMSG || c->in.len > FRAME_BYTES_MAX)
		net_conn_close(conn);
}

void ctl_closed(struct ctl *ctl, struct net_conn *conn)
{
	struct client *c = net_conn_data(conn);

	for (struct request *r = ctl->requests; r; r = r->next)
		if (r->conn == conn)
			r->conn = NULL; /* what is logged is logged; the answer goes nowhere */
	images_conn_closed(ctl->agent->images, conn);
	buf_free(&c->in);
	free(c);
}

/* ---- as a whole ---- */

struct net_conn *ctl_request_conn(const struct request *r)
{
	return r->conn;
}

const char *ctl_request_actor(const struct request *r)
{
	return r->actor;
}

void ctl_answer(struct request *r, int code, const char *text, const struct buf *result)
{
	static const struct buf nothing;

	CHECK(r->state == REQUEST_LOCAL);
	if (code < 0)
		fail(r, code, text);
	else
		succeed(r, result ? result : &nothing);
}

void ctl_submit(struct ctl *ctl, const char *method, const struct buf *params, ctl_done done, void *ctx)
{
	ctl_submit_as(ctl, ctl->agent->config.name, method, params, done, ctx);
}

void ctl_submit_as(struct ctl *ctl, const char *actor, const char *method, const struct buf *params, ctl_done done,
		   void *ctx)
{
	struct request *r = request_new(ctl, NET_ROLE_NODE, actor);
	struct pack p = {.out = &r->raw};

	r->done = done;
	r->ctx = ctx;
	pack_array(&p);
	pack_u64(&p, 0);
	pack_u64(&p, 0);
	pack_str(&p, method);
	pack_array(&p);
	pack_raw(&p, params->data, params->len);
	pack_end(&p);
	pack_end(&p);
	begin(r);
}

struct ctl *ctl_new(struct agent *agent)
{
	struct ctl *ctl = xcalloc(1, sizeof *ctl);

	ctl->agent = agent;
	return ctl;
}

struct ctl *ctl_free(struct ctl *ctl)
{
	if (!ctl)
		return NULL;
	while (ctl->requests) {
		CHECK(ctl->requests->state != REQUEST_PROPOSED);
		request_free(ctl->requests);
	}
	free(ctl);
	return NULL;
}
