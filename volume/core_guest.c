/* SPDX-License-Identifier: Apache-2.0
 * The guest's reads and writes at the primary. */
#include "volume/core_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define JOINER_PATIENCE (500 * USEC_PER_MS)

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static enum op_kind op_kind_of(const struct volume_request *r)
{
	return r->kind == VOLUME_READ ? OP_READ : OP_WRITE;
}

/* V24, V33 and the lock of section 1: may the two not be under way at once? Reads bear copies and each other. */
static bool exclude(enum op_kind a, enum op_kind b)
{
	if (a == OP_READ || b == OP_READ)
		return (a == OP_WRITE || b == OP_WRITE) && !PLANTED(read_through_write);
	return true;
}

/* Is something under way that excludes an operation of @kind on the range? */
bool guest_busy(const struct volume_core *c, uint64_t offset, uint64_t length, enum op_kind kind)
{
	for (const struct op *op = c->ops; op; op = op->next)
		if (!op->cancelled && overlap(offset, length, op->offset, op->length) && exclude(kind, op->kind))
			return true;
	return false;
}

/* ---- may it begin? ---- */

static bool needed(const struct volume_core *c, uint64_t offset, uint64_t length)
{
	uint8_t in_sync = core_in_sync(c);

	for (unsigned i = 0; i < PEERS_MAX; i++)
		if ((in_sync >> i & 1) && peer_needs(&c->peers[i], offset, length))
			return true;
	return false;
}

/* V27 */
static bool is_cold(const struct volume_core *c, const struct volume_request *r)
{
	if (!c->cold_set || r->kind != VOLUME_READ)
		return false;
	for (uint64_t e = r->offset / VOLUME_EXTENT_BYTES; e <= (r->offset + r->length - 1) / VOLUME_EXTENT_BYTES; e++)
		if (bit_get(c->cold_set, e))
			return true;
	return false;
}

/* V6, V19 */
static bool servable(const struct volume_core *c, const struct volume_request *r)
{
	if (PLANTED(serve_before_hello) || (PLANTED(read_before_settle) && r->kind == VOLUME_READ))
		return true;
	return core_all_known(c) && !needed(c, r->offset, r->length) && !is_cold(c, r);
}

/* Nothing overtakes an earlier request that it would exclude. */
static bool is_behind(const struct volume_core *c, const struct volume_request *r)
{
	for (const struct volume_request *q = c->waiting; q != r; q = q->next)
		if (overlap(q->offset, q->length, r->offset, r->length) && exclude(op_kind_of(q), op_kind_of(r)))
			return true;
	return false;
}

/* ---- operations ---- */

void guest_op_free(struct volume_core *c, struct op *op)
{
	struct op **at = &c->ops;

	while (*at != op)
		at = &(*at)->next;
	*at = op->next;
	if (op->kind != OP_READ)
		c->flush.fresh = false;
	if (op->buffer)
		c->fx.buffer_free(c->fx.ctx, op->buffer, op->buffer_bytes);
	free(op);
}

static void op_over(struct volume_core *c, struct op *op, int rc)
{
	struct volume_request *r = op->req;
	bool orphan = op->orphan, was_write = op->kind == OP_WRITE;

	guest_op_free(c, op);
	if (was_write)
		flush_write_over(c);
	if (orphan) {
		c->fx.drop(c->fx.ctx, r);
	} else if (r->fua && rc == 0 && r->kind != VOLUME_READ) { /* V11 */
		r->next = c->flush_waiting;
		c->flush_waiting = r;
	} else {
		c->fx.reply(c->fx.ctx, r, rc);
	}
}

static void io_done(struct volume_core *c, struct volume_io *io, int rc)
{
	struct op *op = CONTAINER_OF(io, struct op, io);

	if (op->cancelled) { /* of an earlier life as primary */
		struct volume_request *r = op->req;

		guest_op_free(c, op);
		c->fx.drop(c->fx.ctx, r);
		return;
	}
	if (rc < 0 && op->kind == OP_WRITE && core_in_sync(c) == 0) { /* V13: the last one waits */
		op->step = OP_INTENT;
		c->retry_at = c->now + WRITE_AGAIN;
		return;
	}
	if (rc < 0) {
		op->step = OP_ACKS; /* no I/O of it is left: its request is dropped with the others' */
		core_break(c, rc);
		return;
	}
	op->local = true;
	op->step = OP_ACKS;
}

static void op_io(struct volume_core *c, struct op *op)
{
	static const enum volume_io_kind kinds[] = {[VOLUME_READ] = VOLUME_IO_READ,
						    [VOLUME_WRITE] = VOLUME_IO_WRITE,
						    [VOLUME_ZERO] = VOLUME_IO_ZERO,
						    [VOLUME_TRIM] = VOLUME_IO_TRIM};

	if (op->kind == OP_WRITE)
		disk_stamp(c, op->offset, op->length, c->lead);
	op->step = OP_IO;
	op->io = (struct volume_io){.kind = kinds[op->req->kind],
				    .offset = op->offset,
				    .length = op->length,
				    .hurries = flush_is_soon(c),
				    .data = op->req->data,
				    .done = io_done};
	core_io(c, &op->io);
}

/* V8: not to a joiner that needs a block of it; V18: what is unacknowledged is sent again. */
static uint8_t recipients(const struct volume_core *c, const struct op *op)
{
	uint8_t mask = core_required(c), to = 0;

	if (c->join != JOIN_NONE)
		mask |= (uint8_t)(1u << c->joiner);
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		const struct peer *p = &c->peers[i];

		if (!(mask >> i & 1) || !peer_connected(p))
			continue;
		if (!PLANTED(write_marks_copied) && peer_needs(p, op->offset, op->length))
			continue;
		to |= (uint8_t)(1u << i);
	}
	return to;
}

void guest_send(struct volume_core *c, struct op *op)
{
	static const enum volume_frame_kind kinds[] = {
		[VOLUME_WRITE] = VOLUME_F_WRITE, [VOLUME_ZERO] = VOLUME_F_ZERO, [VOLUME_TRIM] = VOLUME_F_TRIM};
	uint8_t to = recipients(c, op) & (uint8_t) ~(op->sent | op->acked);

	if (!to)
		return;
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		struct volume_frame f = {.kind = kinds[op->req->kind],
					 .seq = op->seq,
					 .offset = op->offset,
					 .length = op->length,
					 .data = op->req->data};

		if (to >> i & 1)
			peer_send(c, i, &f);
	}
	op->sent |= to;
}

static struct op *op_begin(struct volume_core *c, struct volume_request *r)
{
	struct op *op = xcalloc(1, sizeof *op);

	c->guest_at = c->now;
	*op = (struct op){.next = c->ops,
			  .kind = op_kind_of(r),
			  .req = r,
			  .offset = r->offset,
			  .length = r->length,
			  .seq = ++c->next_seq,
			  .since = c->now};
	c->ops = op;
	return op;
}

static void request_begin(struct volume_core *c, struct volume_request *r)
{
	struct op *op = op_begin(c, r);

	if (op->kind == OP_READ) {
		op_io(c, op);
		return;
	}
	flush_touch(c, op->offset, op->length);
	disk_want_intents(c, op->offset, op->length); /* V14, each member for itself; V6: all at once */
	guest_send(c, op);
}

/* V8: a joiner that did not get it will need it, and that is noted before anybody is told that it is over. */
static void note_missed(struct volume_core *c, const struct op *op)
{
	struct peer *p = &c->peers[c->joiner];

	if (c->join == JOIN_NONE || c->join >= JOIN_JOINT || !p->known)
		return;
	if ((op->acked >> c->joiner & 1) || PLANTED(forget_missed_write))
		return;
	for (uint64_t b = op->offset / VOLUME_BLOCK_BYTES; b <= (op->offset + op->length - 1) / VOLUME_BLOCK_BYTES; b++)
		peer_need(c, p, b);
}

/* A joiner that got the write is waited for, though nobody must: else each write would make it need the block again,
 * and beside a busy guest it would never have all. */
static bool is_worth_waiting(const struct volume_core *c, const struct op *op)
{
	return c->join == JOIN_COPYING && (op->sent & ~op->acked) >> c->joiner & 1 &&
	       c->now - op->since < JOINER_PATIENCE;
}

static bool write_is_over(const struct volume_core *c, const struct op *op)
{
	if (op->step != OP_ACKS || is_worth_waiting(c, op))
		return false;
	return (core_required(c) & ~op->acked) == 0 || PLANTED(ack_before_slowest);
}

/* Runs while acting only (V4). */
static void op_step(struct volume_core *c, struct op *op)
{
	if (op->kind == OP_COPY || op->cancelled)
		return;
	if (op->kind == OP_READ) {
		if (op->step == OP_ACKS)
			op_over(c, op, 0);
		return;
	}
	guest_send(c, op);
	if (op->step == OP_INTENT && c->now >= c->retry_at && disk_has_intents(c, op->offset, op->length))
		op_io(c, op);
	if (write_is_over(c, op)) { /* V7 */
		note_missed(c, op);
		op_over(c, op, 0);
	}
}

void guest_ack(struct volume_core *c, unsigned slot, const struct volume_frame *f)
{
	for (struct op *op = c->ops; op; op = op->next) {
		if (op->seq != f->seq || op->cancelled)
			continue;
		if (op->kind == OP_COPY) {
			copy_ack(c, op, slot);
			return;
		}
		op->acked |= (uint8_t)(1u << slot);
		if (PLANTED(write_marks_copied))
			for (uint64_t b = op->offset / VOLUME_BLOCK_BYTES;
			     b <= (op->offset + op->length - 1) / VOLUME_BLOCK_BYTES; b++)
				peer_got(c, &c->peers[slot], b);
		return;
	}
}

/* ---- requests ---- */

void volume_core_submit(struct volume_core *c, struct volume_request *r)
{
	CHECK(r->kind == VOLUME_FLUSH || (r->length > 0 && r->offset + r->length <= c->config.size));
	r->next = NULL;
	if (c->broken || (c->start != START_DONE && c->start != START_REBALLOT) ||
	    (c->lead.epoch < r->epoch && !PLANTED(stale_vm_epoch))) { /* V32 */
		c->fx.drop(c->fx.ctx, r);
		return;
	}
	if (r->kind == VOLUME_FLUSH) {
		flush_submit(c, r);
	} else {
		if (r->kind != VOLUME_READ)
			flush_saw_write(c, r->length);
		*c->waiting_end = r;
		c->waiting_end = &r->next;
	}
	core_step(c);
}

static void unqueue(struct volume_core *c, struct volume_request **at)
{
	struct volume_request *r = *at;

	*at = r->next;
	if (c->waiting_end == &r->next)
		c->waiting_end = at;
	r->next = NULL;
}

void guest_step(struct volume_core *c)
{
	struct volume_request **at = &c->waiting;
	struct op *next;

	while (*at) {
		struct volume_request *r = *at;

		if (!servable(c, r) || guest_busy(c, r->offset, r->length, op_kind_of(r)) || is_behind(c, r)) {
			at = &r->next;
			continue;
		}
		unqueue(c, at);
		request_begin(c, r);
	}
	for (struct op *op = c->ops; op && !c->broken; op = next) {
		next = op->next;
		op_step(c, op);
	}
}

/* V5: no acknowledgement of before counts, and what is under way is stamped and sent anew. */
void guest_reballot(struct volume_core *c)
{
	copy_cancel_all(c);
	if (PLANTED(keep_acks_over_epoch))
		return;
	for (struct op *op = c->ops; op; op = op->next) {
		if (op->kind != OP_WRITE || op->cancelled)
			continue;
		op->acked = op->sent = 0;
		op->since = c->now;
		if (op->step != OP_INTENT)
			disk_stamp(c, op->offset, op->length, c->lead);
	}
}

/* V32 */
void volume_core_client_gone(struct volume_core *c, uint64_t client)
{
	struct volume_request **at = &c->waiting;

	while (*at) {
		struct volume_request *r = *at;

		if (r->client != client) {
			at = &r->next;
			continue;
		}
		unqueue(c, at);
		c->fx.drop(c->fx.ctx, r);
	}
	for (struct op *op = c->ops; op; op = op->next)
		if (op->req && op->req->client == client)
			op->orphan = true;
	flush_drop_client(c, client, false);
	core_step(c);
}

/* V29: what has not begun on the disk never will; what has, ends without an answer. */
void guest_drop_all(struct volume_core *c)
{
	struct op *next;

	while (c->waiting) {
		struct volume_request *r = c->waiting;

		unqueue(c, &c->waiting);
		c->fx.drop(c->fx.ctx, r);
	}
	for (struct op *op = c->ops; op; op = next) {
		struct volume_request *r = op->req;

		next = op->next;
		if (op->kind == OP_COPY || op->cancelled)
			continue;
		if (op->step == OP_IO) {
			op->cancelled = true;
			continue;
		}
		guest_op_free(c, op);
		c->fx.drop(c->fx.ctx, r);
	}
}

void guest_free(struct volume_core *c)
{
	while (c->ops)
		guest_op_free(c, c->ops);
}
