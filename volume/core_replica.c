/* SPDX-License-Identifier: Apache-2.0
 * A replica that obeys another primary: the fence of HELLO (V1, V3), and the frames in their order. */
#include "volume/core_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void answer(struct volume_core *c, node_id_t to, const struct volume_frame *f, struct volume_frame *reply)
{
	reply->ballot = f->ballot;
	reply->session = f->session;
	reply->seq = f->seq;
	c->fx.send(c->fx.ctx, to, reply);
}

static void ack(struct volume_core *c, node_id_t to, const struct volume_frame *f, int rc)
{
	struct volume_frame reply = {.kind = VOLUME_F_ACK, .result = rc};

	answer(c, to, f, &reply);
}

static void nack(struct volume_core *c, node_id_t to, const struct volume_frame *f)
{
	struct volume_frame reply = {.kind = VOLUME_F_NACK, .promised = c->state.promised};

	answer(c, to, f, &reply);
}

static void op_free(struct volume_core *c, struct replica_op *op)
{
	struct replica_op **at = &c->replica_ops;

	while (*at != op)
		at = &(*at)->next;
	*at = op->next;
	if (op->f.data)
		c->fx.data_free(c->fx.ctx, op->f.data);
	if (op->buffer)
		c->fx.buffer_free(c->fx.ctx, op->buffer, op->f.length);
	free(op);
}

/* ---- the fence ---- */

/* V3: frames of older sessions that have not begun never will. */
void replica_end_sessions(struct volume_core *c)
{
	struct replica_op *next;

	if (PLANTED(old_session_frame))
		return;
	c->life++;
	c->leader = 0;
	for (struct replica_op *op = c->replica_ops; op; op = next) {
		next = op->next;
		if (!op->in_io && !PLANTED(no_drain_at_hello))
			op_free(c, op);
	}
}

static void welcome(struct volume_core *c)
{
	struct volume_frame *hello = &c->fence.f;
	struct volume_frame reply = {.kind = VOLUME_F_WELCOME,
				     .incarnation = c->state.incarnation,
				     .active = c->state.active,
				     .promised = c->state.promised,
				     .intents = c->intent_bytes,
				     .n_intents = c->n_extents};

	memcpy(reply.replica, c->config.replica, sizeof reply.replica);
	for (uint32_t e = 0; e < bit_words(c->n_extents) * 8; e++)
		c->intent_bytes[e] = (uint8_t)(c->intents[e / 8] >> (e % 8 * 8));
	c->leader = c->fence.from;
	c->session = hello->session;
	c->session_ballot = hello->ballot;
	c->fence.pending = false;
	answer(c, c->fence.from, hello, &reply);
}

static void hello(struct volume_core *c, node_id_t from, const struct volume_frame *f)
{
	if (PLANTED(collect_without_fence)) {
		c->fence = (struct fence){.pending = true, .from = from, .f = *f};
		welcome(c);
		return;
	}
	core_step_down(c);
	replica_end_sessions(c);
	c->fence = (struct fence){.pending = true, .from = from, .f = *f};
	c->hello_ballot = f->ballot;
	c->hello_session = f->session;
}

/* V3, V17: has all local I/O of before ended? */
bool replica_is_drained(const struct volume_core *c)
{
	unsigned ios = c->ios;

	if (PLANTED(no_drain_at_hello))
		ios -= c->replica_ios;
	if (PLANTED(no_drain_at_stepdown))
		ios = c->replica_ios;
	return ios == 0;
}

static void fence_step(struct volume_core *c)
{
	struct fence *fence = &c->fence;

	if (!fence->pending || !replica_is_drained(c))
		return;
	if (volume_ballot_compare(c->state.promised, fence->f.ballot) < 0) {
		c->state.promised = fence->f.ballot;
		c->promise_seq = disk_save(c);
	}
	if (c->state_written >= c->promise_seq || PLANTED(early_welcome)) /* V1 */
		welcome(c);
}

/* ---- frames ---- */

static bool is_current(const struct volume_core *c, node_id_t from, const struct volume_frame *f)
{
	if (PLANTED(old_session_frame) || PLANTED(accept_old_ballot))
		return true;
	return c->leader == from && c->session == f->session &&
	       volume_ballot_compare(c->session_ballot, f->ballot) == 0;
}

static bool overlap(const struct volume_frame *a, const struct volume_frame *b)
{
	return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

static bool changes_data(const struct volume_frame *f)
{
	return f->kind == VOLUME_F_WRITE || f->kind == VOLUME_F_ZERO || f->kind == VOLUME_F_TRIM ||
	       f->kind == VOLUME_F_COPY;
}

static bool touches(const struct volume_core *c, uint32_t extent)
{
	struct volume_frame range = {.offset = (uint64_t)extent * VOLUME_EXTENT_BYTES, .length = VOLUME_EXTENT_BYTES};

	for (const struct replica_op *op = c->replica_ops; op; op = op->next)
		if (changes_data(&op->f) && overlap(&op->f, &range))
			return true;
	return false;
}

/* A range of the volume, with the data that its kind needs. */
static bool range_is_sane(const struct volume_core *c, const struct volume_frame *f)
{
	bool of_blocks = f->kind == VOLUME_F_COPY || f->kind == VOLUME_F_HASH || f->kind == VOLUME_F_FETCH;

	if (f->length == 0 || f->offset > c->config.size || f->length > c->config.size - f->offset)
		return false;
	if (of_blocks && (f->offset % VOLUME_BLOCK_BYTES || f->length > VOLUME_COPY_BYTES))
		return false;
	return f->data || !(f->kind == VOLUME_F_WRITE || (f->kind == VOLUME_F_COPY && !f->same));
}

/* Can it be executed at all, and without leaving the volume? */
static bool is_sane(const struct volume_core *c, const struct volume_frame *f)
{
	switch (f->kind) {
	case VOLUME_F_CLEAR:
		return f->offset < c->n_extents;
	case VOLUME_F_FLUSH:
	case VOLUME_F_ACTIVE:
		return true;
	default:
		return (changes_data(f) || f->kind == VOLUME_F_HASH || f->kind == VOLUME_F_FETCH ||
			f->kind == VOLUME_F_INTENT) &&
		       range_is_sane(c, f);
	}
}

static bool wants_intent(const struct volume_frame *f)
{
	if (f->kind == VOLUME_F_COPY && (PLANTED(copy_without_intent) || (PLANTED(same_without_intent) && f->same)))
		return false;
	return changes_data(f);
}

static void accept_frame(struct volume_core *c, node_id_t from, const struct volume_frame *f)
{
	struct replica_op *op = xcalloc(1, sizeof *op), **at = &c->replica_ops;

	*op = (struct replica_op){.f = *f, .from = from, .life = c->life};
	while (*at)
		at = &(*at)->next;
	*at = op;
	if (f->kind == VOLUME_F_FLUSH)
		flush_saw_flush(c);
	else if (changes_data(f) && f->kind != VOLUME_F_COPY)
		flush_saw_write(c, f->length);
	if (wants_intent(f))
		disk_want_intents(c, f->offset, f->length);
}

/* True: taken, with its data. */
static bool take(struct volume_core *c, node_id_t from, const struct volume_frame *f)
{
	if (!is_sane(c, f)) {
		c->fx.unlink(c->fx.ctx, from);
		return false;
	}
	switch (f->kind) {
	case VOLUME_F_CLEAR: /* V15, V16; the primary has nothing on its way there */
		if (!touches(c, (uint32_t)f->offset))
			disk_clear(c, (uint32_t)f->offset);
		return false;
	case VOLUME_F_INTENT: /* an intent may always stay, and goes when the primary clears its extent (V15) */
		if (!PLANTED(copy_without_intent) && !PLANTED(same_without_intent))
			disk_want_intents(c, f->offset, f->length);
		return false;
	case VOLUME_F_ACTIVE: /* V21 */
		c->state.active = f->ballot;
		(void)disk_save(c);
		return false;
	default:
		accept_frame(c, from, f);
		return true;
	}
}

/* A primary counts its sessions. Two links may stand beside each other, and the older one be the slower. */
static bool is_overtaken(const struct volume_core *c, const struct volume_frame *hello)
{
	return volume_ballot_compare(hello->ballot, c->hello_ballot) == 0 && hello->session < c->hello_session;
}

bool volume_core_obeys(const struct volume_core *c, const struct volume_frame *hello)
{
	return volume_ballot_compare(hello->ballot, c->state.promised) >= 0 && !is_overtaken(c, hello);
}

/* Returns true when the frame's data was taken. */
static bool obey(struct volume_core *c, node_id_t from, const struct volume_frame *f)
{
	if (volume_ballot_compare(f->ballot, c->state.promised) < 0 && !PLANTED(accept_old_ballot)) {
		nack(c, from, f);
		return false;
	}
	if (f->kind == VOLUME_F_HELLO) {
		if (!is_overtaken(c, f) || PLANTED(same_ballot_restart)) /* which counts anew */
			hello(c, from, f);
		return false;
	}
	if (!is_current(c, from, f) || c->fence.pending)
		return false;
	if (f->kind == VOLUME_F_PING) {
		struct volume_frame reply = {.kind = VOLUME_F_ACK};

		answer(c, from, f, &reply);
		return false;
	}
	return take(c, from, f);
}

static bool is_answer(enum volume_frame_kind kind)
{
	return kind == VOLUME_F_WELCOME || kind == VOLUME_F_NACK || kind == VOLUME_F_ACK || kind == VOLUME_F_HASHED ||
	       kind == VOLUME_F_FETCHED;
}

void volume_core_frame(struct volume_core *c, node_id_t from, const struct volume_frame *f)
{
	int slot = peer_slot(c, from);
	bool taken = false;

	if (!c->broken && is_answer(f->kind)) {
		if (slot >= 0 && c->start == START_DONE)
			peer_frame(c, (unsigned)slot, f);
	} else if (!c->broken) {
		taken = obey(c, from, f);
	}
	if (!taken && f->data)
		c->fx.data_free(c->fx.ctx, f->data);
	core_step(c);
}

/* ---- execution ---- */

/* A block that cannot be read has no hash, and so differs; the copy that follows writes it anew. */
static void reply(struct volume_core *c, const struct replica_op *op, int rc)
{
	struct volume_frame r = {.kind = VOLUME_F_HASHED, .offset = op->f.offset, .length = op->f.length};

	switch (op->f.kind) {
	case VOLUME_F_HASH:
		if (rc == 0)
			memcpy(r.hash, op->io.hash, sizeof r.hash);
		r.stamp = map_get(c, op->f.offset / VOLUME_BLOCK_BYTES);
		answer(c, op->from, &op->f, &r);
		return;
	case VOLUME_F_FETCH:
		r.kind = VOLUME_F_FETCHED;
		r.data = op->buffer;
		if (rc == 0)
			answer(c, op->from, &op->f, &r);
		return;
	default:
		ack(c, op->from, &op->f, 0);
	}
}

static void op_done(struct volume_core *c, struct volume_io *io, int rc)
{
	struct replica_op *op = CONTAINER_OF(io, struct replica_op, io);
	struct volume_frame *f = &op->f;

	c->replica_ios--;
	if (rc < 0 && f->kind != VOLUME_F_HASH && f->kind != VOLUME_F_FETCH) {
		op_free(c, op);
		core_break(c, rc); /* V13 */
		return;
	}
	if (changes_data(f))
		disk_stamp(c, f->offset, f->length, f->kind == VOLUME_F_COPY ? f->stamp : f->ballot);
	if (op->life == c->life)
		reply(c, op, rc);
	if (PLANTED(clear_by_replica) && f->kind == VOLUME_F_FLUSH)
		for (uint32_t e = 0; e < c->n_extents; e++)
			disk_clear(c, e);
	op_free(c, op);
}

static void op_begin(struct volume_core *c, struct replica_op *op)
{
	static const enum volume_io_kind kinds[] = {
		[VOLUME_F_WRITE] = VOLUME_IO_WRITE, [VOLUME_F_ZERO] = VOLUME_IO_ZERO,  [VOLUME_F_TRIM] = VOLUME_IO_TRIM,
		[VOLUME_F_COPY] = VOLUME_IO_WRITE,  [VOLUME_F_FLUSH] = VOLUME_IO_SYNC, [VOLUME_F_HASH] = VOLUME_IO_HASH,
		[VOLUME_F_FETCH] = VOLUME_IO_READ};
	bool is_hole = op->f.kind == VOLUME_F_COPY && c->fx.is_zero(c->fx.ctx, op->f.data, 0, op->f.length);

	if (op->f.kind == VOLUME_F_FETCH) {
		op->buffer = c->fx.buffer(c->fx.ctx, op->f.length);
		if (!op->buffer)
			return; /* later */
	}
	op->in_io = true;
	op->io = (struct volume_io){.kind = is_hole ? VOLUME_IO_TRIM : kinds[op->f.kind],
				    .is_copy = op->f.kind == VOLUME_F_COPY,
				    .hurries = op->f.kind == VOLUME_F_WRITE && flush_is_soon(c),
				    .offset = op->f.offset,
				    .length = op->f.length,
				    .data = op->buffer ? op->buffer : op->f.data,
				    .done = op_done};
	c->replica_ios++;
	core_io(c, &op->io);
}

/* Overlapping frames keep their order. */
static bool is_behind(const struct volume_core *c, const struct replica_op *op)
{
	for (const struct replica_op *q = c->replica_ops; q != op; q = q->next)
		if (op->f.kind != VOLUME_F_FLUSH && q->f.kind != VOLUME_F_FLUSH && overlap(&q->f, &op->f))
			return true;
	return false;
}

/* V20: equal data gets its stamp and its intent all the same. */
static void same_done(struct volume_core *c, struct replica_op *op)
{
	disk_stamp(c, op->f.offset, op->f.length,
		   PLANTED(stamp_not_carried) ? map_get(c, op->f.offset / VOLUME_BLOCK_BYTES) : op->f.stamp);
	if (op->life == c->life)
		ack(c, op->from, &op->f, 0);
	op_free(c, op);
}

void replica_step(struct volume_core *c)
{
	struct replica_op *next;

	for (struct replica_op *op = c->replica_ops; op; op = next) {
		next = op->next;
		if (op->in_io || is_behind(c, op))
			continue;
		if (wants_intent(&op->f) && !disk_has_intents(c, op->f.offset, op->f.length))
			continue; /* V14 */
		if (op->f.kind == VOLUME_F_COPY && op->f.same)
			same_done(c, op);
		else
			op_begin(c, op);
	}
	fence_step(c);
}

/* Its frames that came are executed; nobody can be told. A link that comes again begins with HELLO. */
void replica_link_down(struct volume_core *c, node_id_t node)
{
	if (c->fence.pending && c->fence.from == node)
		c->fence.pending = false;
}

void replica_free(struct volume_core *c)
{
	while (c->replica_ops)
		op_free(c, c->replica_ops);
}
