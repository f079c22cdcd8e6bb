/* SPDX-License-Identifier: Apache-2.0
 * Settling and resync at the primary (V19, V20, V22, V24): blocks that others need are compared by hash and sent. The
 * range is held from the hash to the last acknowledgement. */
#include "volume/core_internal.h"

#include <stdlib.h>
#include <string.h>

#define GUEST_IS_BUSY (200 * USEC_PER_MS) /* after its last read or write */

#define BUSY_RUN     4  /* blocks in a run while a guest is busy: its next write may be to any of them */
#define HINT_EXTENTS 32 /* so far ahead of copies their extents are announced: one durable write for many of them */

_Static_assert(VOLUME_COPY_BYTES % VOLUME_BLOCK_BYTES == 0 && VOLUME_EXTENT_BYTES % VOLUME_COPY_BYTES == 0, "whole");

/* The last block may be a short one. */
static uint64_t run_length(const struct volume_core *c, uint64_t block, unsigned n)
{
	uint64_t left = volume_core_size(c) - block * VOLUME_BLOCK_BYTES;

	return left < (uint64_t)n * VOLUME_BLOCK_BYTES ? left : (uint64_t)n * VOLUME_BLOCK_BYTES;
}

static unsigned run_blocks(uint64_t length)
{
	return (unsigned)((length + VOLUME_BLOCK_BYTES - 1) / VOLUME_BLOCK_BYTES);
}

static uint8_t who_needs(const struct volume_core *c, uint64_t block)
{
	uint8_t mask = 0;

	for (unsigned i = 0; i < PEERS_MAX; i++)
		if (peer_connected(&c->peers[i]) && bit_get(c->peers[i].need, block))
			mask |= (uint8_t)(1u << i);
	return mask;
}

/* ---- ends ---- */

void copy_end(struct volume_core *c, struct op *op)
{
	c->copies -= run_blocks(op->length);
	guest_op_free(c, op);
}

/* No I/O of it runs: gone; else it goes when that ends. */
static void copy_cancel(struct volume_core *c, struct op *op)
{
	if (op->scrub && op->step == OP_IO && op->io.kind == VOLUME_IO_WRITE)
		return; /* it holds its range to the end: a guest's write that began beside it could be overwritten */
	if (op->scrub)
		scrub_cancelled(c);
	if (op->step == OP_IO) {
		op->cancelled = true;
		c->copies -= run_blocks(op->length);
		return;
	}
	copy_end(c, op);
}

void copy_cancel_all(struct volume_core *c)
{
	struct op *next;

	for (struct op *op = c->ops; op; op = next) {
		next = op->next;
		if (op->kind == OP_COPY && !op->cancelled)
			copy_cancel(c, op);
	}
}

static void finish_for_the_others(struct volume_core *c, struct op *op)
{
	uint64_t block = op->offset / VOLUME_BLOCK_BYTES;

	if (op->targets & ~op->acked)
		return;
	for (unsigned i = 0; i < PEERS_MAX; i++)
		for (unsigned b = 0; (op->targets >> i & 1) && b < run_blocks(op->length); b++)
			peer_got(c, &c->peers[i], block + b);
	copy_cancel(c, op);
}

/* ---- one copy: our hash and theirs, then data or SAME, then their acknowledgements ---- */

static void read_done(struct volume_core *c, struct volume_io *io, int rc);

void copy_io(struct volume_core *c, struct op *op, enum volume_io_kind kind)
{
	op->step = OP_IO;
	op->io = (struct volume_io){
		.kind = kind, .offset = op->offset, .length = op->length, .data = op->buffer, .done = read_done};
	core_io(c, &op->io);
}

static void send_copies(struct volume_core *c, struct op *op)
{
	struct volume_ballot stamp = map_get(c, op->offset / VOLUME_BLOCK_BYTES); /* all of a run have the same */

	op->step = OP_ACKS;
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		bool same = op->same >> i & 1;
		struct volume_frame f = {.kind = VOLUME_F_COPY,
					 .seq = op->seq,
					 .offset = op->offset,
					 .length = op->length,
					 .stamp = stamp, /* V20 */
					 .same = same,
					 .data = same ? NULL : op->buffer};

		if (op->targets >> i & 1)
			peer_send(c, i, &f);
	}
}

/* Both hashes are here. */
static void compare(struct volume_core *c, struct op *op)
{
	bool differs = false;

	if (!op->has_hash || (op->targets & ~op->hashed))
		return;
	if (op->scrub) {
		scrub_judge(c, op);
		return;
	}
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		if (!(op->targets >> i & 1))
			continue;
		if (memcmp(op->hash, op->peer_hash[i], sizeof op->hash) == 0 ||
		    (PLANTED(skip_equal_stamps) && (op->stamped >> i & 1)))
			op->same |= (uint8_t)(1u << i);
		else
			differs = true;
	}
	if (differs)
		copy_io(c, op, VOLUME_IO_READ);
	else
		send_copies(c, op);
}

static void begin_comparison(struct volume_core *c, struct op *op)
{
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		struct volume_frame f = {
			.kind = VOLUME_F_HASH, .seq = op->seq, .offset = op->offset, .length = op->length};

		if (op->targets >> i & 1)
			peer_send(c, i, &f);
	}
	copy_io(c, op, VOLUME_IO_HASH);
}

static bool is_zero(const struct volume_core *c, const struct op *op, uint64_t at)
{
	uint64_t left = op->length - at;

	return c->fx.is_zero(c->fx.ctx, op->buffer, at, left < VOLUME_BLOCK_BYTES ? left : VOLUME_BLOCK_BYTES);
}

/* A run is zeroes, or has no block of zeroes: where that changes it ends, and the rest's turn comes again. */
static bool begins_with_zeroes(struct volume_core *c, struct op *op)
{
	bool first = is_zero(c, op, 0);
	uint64_t block = op->offset / VOLUME_BLOCK_BYTES, at = VOLUME_BLOCK_BYTES;

	while (at < op->length && is_zero(c, op, at) == first)
		at += VOLUME_BLOCK_BYTES;
	if (at >= op->length)
		return first;
	c->copies -= run_blocks(op->length - at);
	op->length = at;
	for (unsigned i = 0; i < PEERS_MAX; i++)
		if (op->targets >> i & 1)
			c->peers[i].cursor = block + run_blocks(at);
	return first;
}

static void read_done(struct volume_core *c, struct volume_io *io, int rc)
{
	struct op *op = CONTAINER_OF(io, struct op, io);

	if (op->cancelled) {
		guest_op_free(c, op);
		return;
	}
	if (rc < 0 && !(op->scrub && io->kind == VOLUME_IO_HASH)) {
		core_break(c, rc); /* V13 */
		return;
	}
	op->step = OP_HASH;
	if (op->direct && begins_with_zeroes(c, op)) {
		op->direct = false; /* a hole there too, likely: it shall stay one */
		begin_comparison(c, op);
		return;
	}
	if (io->kind == VOLUME_IO_READ) {
		send_copies(c, op);
		return;
	}
	if (io->kind == VOLUME_IO_WRITE) {
		scrub_repaired(c);
		return;
	}
	if (rc == 0)
		memcpy(op->hash, io->hash, sizeof op->hash);
	op->has_hash = true;
	compare(c, op);
}

void copy_cancel_peer(struct volume_core *c, unsigned slot)
{
	uint8_t mask = (uint8_t)(1u << slot);
	struct op *next;

	for (struct op *op = c->ops; op; op = next) {
		next = op->next;
		if (op->kind != OP_COPY || op->cancelled || !(op->targets & mask) || (op->acked & mask))
			continue;
		op->targets &= (uint8_t)~mask;
		if (op->scrub)
			copy_cancel(c, op);
		else if (op->targets && op->step == OP_HASH)
			compare(c, op); /* perhaps nobody else's hash is awaited */
		else
			finish_for_the_others(c, op);
	}
}

void copy_hashed(struct volume_core *c, unsigned slot, const struct volume_frame *f)
{
	for (struct op *op = c->ops; op; op = op->next) {
		if (op->kind != OP_COPY || op->cancelled || op->seq != f->seq)
			continue;
		memcpy(op->peer_hash[slot], f->hash, sizeof f->hash);
		op->hashed |= (uint8_t)(1u << slot);
		if (volume_ballot_compare(f->stamp, map_get(c, op->offset / VOLUME_BLOCK_BYTES)) == 0)
			op->stamped |= (uint8_t)(1u << slot);
		if (op->step == OP_HASH)
			compare(c, op);
		return;
	}
}

void copy_ack(struct volume_core *c, struct op *op, unsigned slot)
{
	op->acked |= (uint8_t)(1u << slot);
	finish_for_the_others(c, op);
}

/* It was written since the peer was active, and nothing came to the peer there since: comparing would be in vain. */
static bool surely_differs(const struct volume_core *c, uint64_t block, uint8_t targets)
{
	uint64_t extent = block / VOLUME_EXTENT_BLOCKS;

	if (bit_get(c->restamped, extent))
		return false;
	for (unsigned i = 0; i < PEERS_MAX; i++)
		if ((targets >> i & 1) && (bit_get(c->peers[i].seen, extent) ||
					   volume_ballot_compare(map_get(c, block), c->peers[i].active) <= 0))
			return false;
	return true;
}

/* May block @b go with those before it, of which @first is one? With their stamp (V20), and held like them (V24). */
static bool goes_along(const struct volume_core *c, uint64_t first, uint64_t b, uint8_t targets)
{
	if (b >= core_blocks(c) || b % VOLUME_EXTENT_BLOCKS == 0 || who_needs(c, b) != targets)
		return false;
	if (!surely_differs(c, b, targets))
		return false;
	if (volume_ballot_compare(map_get(c, first), map_get(c, b)) != 0)
		return false;
	return !guest_busy(c, b * VOLUME_BLOCK_BYTES, run_length(c, b, 1), OP_COPY) || PLANTED(run_through_write);
}

/* Blocks side by side that all go without a comparison, in one frame with one stamp. */
static unsigned run_of(const struct volume_core *c, uint64_t block, uint8_t targets, unsigned max)
{
	unsigned n = 1;

	while (n < max && goes_along(c, block, block + n, targets))
		n++;
	return n;
}

static struct op *begin(struct volume_core *c, uint64_t block, uint8_t targets, struct op like)
{
	struct op *op;

	like.buffer = c->fx.buffer(c->fx.ctx, like.length);
	if (!like.buffer)
		return NULL;
	op = xcalloc(1, sizeof *op);
	*op = like;
	op->kind = OP_COPY;
	op->next = c->ops;
	op->offset = block * VOLUME_BLOCK_BYTES;
	op->buffer_bytes = op->length;
	op->seq = ++c->next_seq;
	op->since = c->now;
	op->targets = targets;
	c->ops = op;
	c->copies += run_blocks(op->length);
	return op;
}

/* A block is compared at @targets, and copied there unless it is only a scrub; with it go up to @max in all that need
 * no comparison. NULL: it is not free, or there is no buffer now. */
struct op *copy_begin(struct volume_core *c, uint64_t block, unsigned max, uint8_t targets, bool scrub)
{
	struct op like = {.scrub = scrub, .direct = !scrub && surely_differs(c, block, targets)};
	struct op *op;

	like.length = run_length(c, block, 1);
	if (guest_busy(c, block * VOLUME_BLOCK_BYTES, like.length, OP_COPY))
		return NULL;
	if (like.direct)
		like.length = run_length(c, block, run_of(c, block, targets, max));
	op = begin(c, block, targets, like);
	if (!op)
		return NULL;
	if (!scrub)
		flush_touch(c, op->offset, op->length);
	if (op->direct)
		copy_io(c, op, VOLUME_IO_READ);
	else
		begin_comparison(c, op);
	return op;
}

/* ---- which block next ---- */

/* V19: what the guest waits for comes first. */
static void copy_for_guest(struct volume_core *c)
{
	for (const struct volume_request *r = c->waiting; r && c->copies < c->config.copies_max; r = r->next) {
		uint64_t last = (r->offset + r->length - 1) / VOLUME_BLOCK_BYTES;

		for (uint64_t b = r->offset / VOLUME_BLOCK_BYTES; b <= last && c->copies < c->config.copies_max; b++)
			if (who_needs(c, b))
				(void)copy_begin(c, b, 1, who_needs(c, b), false);
	}
}

/* Its intents can be durable when the copies come (V14), one write for many of them. */
static void announce(struct volume_core *c, unsigned slot, uint64_t extent)
{
	struct peer *p = &c->peers[slot];
	uint64_t n = volume_extents(volume_core_size(c)), end = extent + HINT_EXTENTS < n ? extent + HINT_EXTENTS : n;

	if (extent + HINT_EXTENTS / 2 < p->hinted || p->hinted >= end)
		return;
	for (uint64_t e = extent > p->hinted ? extent : p->hinted; e < end; e++) {
		struct volume_frame f = {.kind = VOLUME_F_INTENT, .offset = e * VOLUME_EXTENT_BYTES};

		if (!peer_needs_extent(c, p, e))
			continue;
		f.length = volume_core_size(c) - f.offset < VOLUME_EXTENT_BYTES ? volume_core_size(c) - f.offset
										: VOLUME_EXTENT_BYTES;
		bit_set(c->remote, e);
		peer_send(c, slot, &f);
	}
	p->hinted = end;
}

static unsigned run_max(const struct volume_core *c)
{
	unsigned left = c->config.copies_max - c->copies, run = VOLUME_COPY_BYTES / VOLUME_BLOCK_BYTES;

	if (c->now - c->guest_at < GUEST_IS_BUSY)
		run = BUSY_RUN;
	return left < run ? left : run;
}

/* Returns how many blocks go; 0: none can now. */
static unsigned copy_next(struct volume_core *c, unsigned slot)
{
	struct peer *p = &c->peers[slot];
	uint64_t blocks = core_blocks(c);

	for (uint64_t tries = 0; tries < blocks; tries++) {
		uint64_t b = p->cursor;
		struct op *op = NULL;
		unsigned n;

		if (b % 64 == 0 && p->need[b / 64] == 0 && b + 64 <= blocks) { /* nothing in this word */
			p->cursor = b + 64 < blocks ? b + 64 : 0;
			tries += 63;
			continue;
		}
		if (bit_get(p->need, b)) {
			announce(c, slot, b / VOLUME_EXTENT_BLOCKS);
			op = copy_begin(c, b, run_max(c), who_needs(c, b), false);
		}
		n = op ? run_blocks(op->length) : 1;
		p->cursor = b + n < blocks ? b + n : 0;
		if (op)
			return n;
	}
	return 0;
}

static bool may_begin(const struct volume_core *c)
{
	return c->copies < c->config.copies_max && (c->now - c->guest_at >= GUEST_IS_BUSY || c->copy_at <= c->now);
}

void copy_step(struct volume_core *c)
{
	if (c->copies >= c->config.copies_max)
		return;
	copy_for_guest(c);
	for (unsigned i = 0; i < PEERS_MAX; i++)
		while (peer_connected(&c->peers[i]) && c->peers[i].n_need && may_begin(c)) {
			unsigned n = copy_next(c, i);

			if (n == 0)
				break;
			(void)core_pace(c, &c->copy_at, c->config.copy_rate, (uint64_t)n * VOLUME_BLOCK_BYTES);
		}
}
