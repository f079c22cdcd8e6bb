/* SPDX-License-Identifier: Apache-2.0
 * raft's messages on our links: its send contract, pieces of what is too big for a frame, and what is held back. */
#include "consensus/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PARTS_MAX    1024
#define BULK_MSG_MAX ((size_t)SNAPSHOT_BYTES_MAX + FRAME_BYTES_MAX)

/* A piece of a big frame. */
struct wire_piece {
	uint64_t total;
	uint64_t at;
	struct message_bin bytes;
};

#define WIRE_PIECE     (PEER_RAFT_FIRST + 16)
#define F(kind, field) MESSAGE_FIELD(struct wire_piece, kind, field)
static const struct message_field piece_fields[] = {F(U64, total), F(U64, at), F(BIN, bytes)};
static const struct message_type piece_type = {WIRE_PIECE, "piece", sizeof(struct wire_piece), ARRAY_LEN(piece_fields),
					       piece_fields};

/* raft is told in the next step: it must never hear of a send from inside it. */
static void sent_add(struct consensus *c, struct raft_io_send *req, raft_io_send_cb cb, int status)
{
	if (!cb)
		return; /* TimeoutNow */
	if (c->sent.n == c->sent.cap) {
		c->sent.cap = c->sent.cap ? c->sent.cap * 2 : 64;
		c->sent.v = xrealloc(c->sent.v, c->sent.cap * sizeof *c->sent.v);
	}
	c->sent.v[c->sent.n++] = (struct send_done){req, cb, status};
}

static void bulk_start(struct consensus *c, node_id_t to, struct buf *frame, struct raft_io_send *req,
		       raft_io_send_cb cb)
{
	struct bulk *b = &c->out[to];

	if (b->bytes.len) { /* one at a time: raft tries again */
		sent_add(c, req, cb, RAFT_NOCONNECTION);
		buf_free(frame);
		return;
	}
	*b = (struct bulk){.node = to, .bytes = *frame, .total = frame->len, .req = req, .cb = cb};
	*frame = (struct buf){0};
}

/* libraft refuses a pre-vote of a lower term with the asker's own term. Where the node with the longest log has the
 * lowest term, it then never learns why, nobody else may win, and the group stands without a leader for good. The true
 * term, which the asker's code is ready to take up (Raft dissertation, 3.3), ends that. */
static void tell_true_term(const struct raft *raft, struct raft_message *m)
{
	struct raft_request_vote_result *r = &m->request_vote_result;

	if (m->type == RAFT_REQUEST_VOTE_RESULT && r->pre_vote && r->vote_granted == 0 && r->term < raft->current_term)
		r->term = raft->current_term;
}

/* libraft chooses index and term of a snapshot before it reads one, and takes over only the index of what it read. A
 * newer one that was written in between would go out with the old term, and its receiver would refuse the log for good.
 */
static void tell_snapshot_term(const struct consensus *c, struct raft_message *m)
{
	if (m->type == RAFT_INSTALL_SNAPSHOT) {
		CHECK(c->got_term != 0);
		m->install_snapshot.last_term = c->got_term;
	}
}

/* libraft refuses entries that follow one which its own snapshot has swallowed, though what is committed is the same on
 * every leader. A leader whose snapshot is older than ours, and that knows no newer entry of us, then sends us that
 * snapshot and we refuse again, for as long as it takes no newer one. What we have for certain ends that (as etcd's
 * raft answers it). */
static void tell_committed(const struct raft *raft, struct raft_message *m)
{
	struct raft_append_entries_result *r = &m->append_entries_result;

	if (m->type == RAFT_APPEND_ENTRIES_RESULT && r->rejected > 0 && r->rejected <= raft->commit_index) {
		r->rejected = 0;
		r->last_log_index = raft->commit_index;
	}
}

int links_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message, raft_io_send_cb cb)
{
	struct raft *raft = io->data;
	struct consensus *c = raft->data;
	node_id_t to = (node_id_t)message->server_id;
	size_t ends[PARTS_MAX], n, from = 0;
	struct raft_message told = *message;
	struct buf frames = {0};
	int rc = 0;

	CHECK(to >= 1 && to <= NODES_MAX);
	tell_true_term(raft, &told);
	tell_committed(raft, &told);
	tell_snapshot_term(c, &told);
	n = wire_encode(&told, &frames, ends, PARTS_MAX);
	if (n == 1 && frames.len > RAFT_FRAME_BYTES * 3 / 2) {
		bulk_start(c, to, &frames, req, cb);
		return 0;
	}
	for (size_t i = 0; i < n && rc == 0; from = ends[i++])
		rc = c->cb.send(c->cb.ctx, to, frames.data + from, ends[i] - from);
	buf_free(&frames);
	/* A failed send makes raft probe the peer anew: back-pressure, and the way after a lost link. */
	sent_add(c, req, cb, rc == 0 ? 0 : RAFT_NOCONNECTION);
	return 0;
}

static void bulk_end(struct consensus *c, struct bulk *b, int status)
{
	sent_add(c, b->req, b->cb, status);
	buf_free(&b->bytes);
	*b = (struct bulk){0};
}

/* Pieces go out while the link has room, so raft's own small messages pass between them. */
static void bulk_push(struct consensus *c, struct bulk *b)
{
	while (b->bytes.len && b->at < b->total) {
		size_t n = b->total - b->at < SNAPSHOT_CHUNK_BYTES ? b->total - b->at : SNAPSHOT_CHUNK_BYTES;
		struct wire_piece w = {b->total, b->at, {b->bytes.data + b->at, n}};
		struct buf frame = {0};
		int rc;

		message_encode(&piece_type, &w, &frame);
		rc = c->cb.send(c->cb.ctx, b->node, frame.data, frame.len);
		buf_free(&frame);
		if (rc == -EAGAIN)
			return;
		if (rc < 0) {
			bulk_end(c, b, RAFT_NOCONNECTION);
			return;
		}
		b->at += n;
	}
	if (b->bytes.len)
		bulk_end(c, b, 0);
}

static void deliver(void *ctx, struct raft_message *m)
{
	struct consensus *c = ctx;

	c->recv(c->io, m);
}

static const char *address_of(struct consensus *c, node_id_t node)
{
	const struct raft_configuration *conf = &c->raft.configuration;

	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].id == node)
			return conf->servers[i].address;
	return "unknown";
}

static int receive_whole(struct consensus *c, node_id_t from, const uint8_t *p, size_t n)
{
	/* libraft 0.22 ignores a snapshot that comes while it installs one, and never frees it. */
	if (c->raft.snapshot.installing && wire_is_snapshot(p, n))
		return 0;
	/* libraft dereferences NULL when a snapshot arrives while it writes its own. */
	if (c->snapshotting && wire_is_snapshot(p, n)) {
		c->held.from = from;
		buf_free(&c->held.frame);
		buf_append(&c->held.frame, p, n);
		return 0;
	}
	return wire_decode(from, address_of(c, from), p, n, deliver, c);
}

static int receive_piece(struct consensus *c, node_id_t from, const uint8_t *p, size_t n)
{
	struct bulk *b = &c->in[from];
	struct wire_piece w;
	int rc = 0;

	if (message_decode(&piece_type, p, n, &w, NULL) < 0 || w.total > BULK_MSG_MAX || w.at > w.total ||
	    w.bytes.n > w.total - w.at)
		return -EBADMSG;
	if (w.at == 0) {
		buf_free(&b->bytes);
		b->total = w.total;
	}
	if (w.at != b->bytes.len || w.total != b->total)
		return -EBADMSG;
	buf_append(&b->bytes, w.bytes.p, w.bytes.n);
	if (b->bytes.len == b->total) {
		rc = receive_whole(c, from, b->bytes.data, b->bytes.len);
		buf_free(&b->bytes);
	}
	return rc;
}

int consensus_receive(struct consensus *c, node_id_t from, const uint8_t *p, size_t n)
{
	uint32_t id;

	CHECK(from >= 1 && from <= NODES_MAX);
	if (!c->recv)
		return 0; /* not started yet: as if lost */
	if (message_id(p, n, &id) == 0 && id == WIRE_PIECE)
		return receive_piece(c, from, p, n);
	return receive_whole(c, from, p, n);
}

void consensus_link_down(struct consensus *c, node_id_t node)
{
	CHECK(node >= 1 && node <= NODES_MAX);
	if (c->out[node].bytes.len)
		bulk_end(c, &c->out[node], RAFT_NOCONNECTION);
	buf_free(&c->in[node].bytes);
}

static void deliver_held(struct consensus *c)
{
	struct buf frame = c->held.frame;

	if (c->snapshotting || frame.len == 0)
		return;
	c->held.frame = (struct buf){0};
	(void)wire_decode(c->held.from, address_of(c, c->held.from), frame.data, frame.len, deliver, c);
	buf_free(&frame);
}

void links_step(struct consensus *c)
{
	struct send_done *v = c->sent.v;
	size_t n = c->sent.n;

	deliver_held(c);
	for (size_t i = 1; i <= NODES_MAX; i++)
		if (c->out[i].bytes.len)
			bulk_push(c, &c->out[i]);
	v = c->sent.v;
	n = c->sent.n;
	c->sent.v = NULL; /* callbacks may send again */
	c->sent.n = c->sent.cap = 0;
	for (size_t i = 0; i < n; i++)
		v[i].cb(v[i].req, v[i].status);
	free(v);
}

void links_free(struct consensus *c)
{
	for (size_t i = 0; i <= NODES_MAX; i++) {
		if (c->out[i].bytes.len)
			bulk_end(c, &c->out[i], RAFT_CANCELED);
		buf_free(&c->in[i].bytes);
	}
	buf_free(&c->held.frame);
	do
		links_step(c);
	while (c->sent.n > 0); /* a callback may have sent again: each has its answer before raft goes */
}
