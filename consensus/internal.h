/* SPDX-License-Identifier: Apache-2.0
 * What the files around libraft share. */
#ifndef KEDGE_CONSENSUS_INTERNAL_H
#define KEDGE_CONSENSUS_INTERNAL_H

#include "consensus/backend.h"

#define RAFT_FRAME_BYTES (512u << 10) /* an append message is split at this, a snapshot goes in pieces */

/* A command or barrier of ours. libraft calls back for a request only from inside its own uv backend, so no callback is
 * given: a request is over once its entry is applied, or once the leadership of its term is lost, and libraft forgets
 * it in the same step. */
struct proposal {
	struct proposal *next;
	uint64_t term;
	union {
		struct raft_apply apply;
		struct raft_barrier barrier;
	} req;
	bool is_barrier;
	size_t bytes;
	consensus_done done;
	void *ctx;
	struct store_result result;
};

/* A send that raft waits to hear of; the answer is given in the next step, never from inside io->send. */
struct send_done {
	struct raft_io_send *req;
	raft_io_send_cb cb;
	int status;
};

/* One message too big for a frame, on its way to or from a peer. */
struct bulk {
	node_id_t node;
	struct buf bytes;
	size_t at;
	size_t total;
	struct raft_io_send *req;
	raft_io_send_cb cb;
};

struct consensus {
	struct raft raft;
	struct raft_fsm fsm;
	struct raft_io *io;
	void (*io_closed)(struct raft_io *io);
	struct consensus_callbacks cb;
	struct store *store;
	node_id_t self;
	bool started;

	/* wrapped functions of io */
	int (*io_start)(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv);
	int (*io_set_term)(struct raft_io *io, raft_term term);
	int (*io_set_vote)(struct raft_io *io, raft_id id);
	int (*io_snapshot_get)(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb);
	raft_term got_term; /* of the snapshot that is being handed to libraft, else 0 */
	raft_io_recv_cb recv;

	struct proposal *proposals;
	size_t bytes_in_flight;
	struct {
		struct send_done *v;
		size_t n, cap;
	} sent;
	struct bulk out[NODES_MAX + 1], in[NODES_MAX + 1]; /* by node */
	bool snapshotting;                                 /* from fsm.snapshot to fsm.snapshot_finalize */
	struct {
		node_id_t from;
		struct buf frame;
	} held; /* an InstallSnapshot that came meanwhile */

	struct raft_change change;
	void (*close_cb)(void *ctx);
	void *close_ctx;
};

/* wire.c: @ret gets the frames of @message: one, or several appends. Returns the number of frames; ret_ends their ends
 * in @ret (at most @max). */
size_t wire_encode(const struct raft_message *message, struct buf *ret, size_t *ret_ends, size_t max);

/* wire.c: decode a frame and hand each message that it makes to @deliver, which owns what they point to. */
int wire_decode(node_id_t from, const char *address, const uint8_t *p, size_t n,
		void (*deliver)(void *ctx, struct raft_message *m), void *ctx);

/* wire.c: is it an InstallSnapshot? */
bool wire_is_snapshot(const uint8_t *p, size_t n);

/* links.c */
int links_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message, raft_io_send_cb cb);
void links_step(struct consensus *c);
void links_free(struct consensus *c);

/* fsm.c */
void fsm_init(struct consensus *c);

#endif
