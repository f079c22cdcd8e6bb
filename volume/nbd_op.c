/* SPDX-License-Identifier: Apache-2.0
 * The life of one request of a client: the requests of whole sectors that the engine gets for it, one after the other,
 * and what becomes of it when it comes back. */
#include "volume/nbd_internal.h"

#include <errno.h>
#include <stdlib.h>

static bool is_write(const struct nbd_head *h)
{
	return h->command == NBD_CMD_WRITE || h->command == NBD_CMD_WRITE_ZEROES || h->command == NBD_CMD_TRIM;
}

static bool is_unaligned(const struct nbd_head *h)
{
	return h->offset % VOLUME_SECTOR_BYTES != 0 || h->length % VOLUME_SECTOR_BYTES != 0;
}

static uint64_t sectors_bytes(const struct nbd_head *h)
{
	return nbd_sector_up(h->offset + h->length) - nbd_sector_down(h->offset);
}

uint64_t nbd_op_bytes(const struct nbd_head *h)
{
	if (h->length == 0)
		return 0;
	switch (h->command) {
	case NBD_CMD_READ:
		return sectors_bytes(h);
	case NBD_CMD_WRITE: /* and a scratch sector behind */
		return sectors_bytes(h) + (is_unaligned(h) ? VOLUME_SECTOR_BYTES : 0);
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		return is_unaligned(h) ? VOLUME_SECTOR_BYTES : 0;
	case NBD_CMD_BLOCK_STATUS:
		return NBD_DESCRIPTORS_MAX * 8;
	default:
		return 0;
	}
}

struct nbd_op *nbd_op_new(struct nbd_conn *c, const struct nbd_head *h, void *buffer, uint64_t capacity)
{
	struct nbd_op *op = xcalloc(1, sizeof *op);
	struct nbd_server *s = c->server;

	*op = (struct nbd_op){.r = {.volume = c->export.volume},
			      .conn = c,
			      .head = *h,
			      .unaligned = is_write(h) && is_unaligned(h),
			      .at = h->offset,
			      .buffer = buffer,
			      .capacity = capacity};
	nbd_list_add(&c->ops, &op->link);
	c->n_ops++;
	s->status.requests++;
	s->status.bytes += capacity;
	s->status.shared_bytes += nbd_shared_part(s, c->bytes + capacity) - nbd_shared_part(s, c->bytes);
	c->bytes += capacity;
	return op;
}

void nbd_op_free(struct nbd_op *op)
{
	struct nbd_conn *c = op->conn;
	struct nbd_server *s = c->server;

	CHECK(op->state != NBD_OP_OUT && c->n_ops > 0 && c->bytes >= op->capacity);
	nbd_order_leave(op);
	nbd_list_remove(&op->queue);
	nbd_list_remove(&op->link);
	nbd_pool_put(&s->pool, op->buffer, op->capacity);
	c->n_ops--;
	s->status.requests--;
	s->status.bytes -= op->capacity;
	s->status.shared_bytes -= nbd_shared_part(s, c->bytes) - nbd_shared_part(s, c->bytes - op->capacity);
	c->bytes -= op->capacity;
	s->has_released = true;
	free(op);
	nbd_conn_try_free(c);
}

uint8_t *nbd_op_payload(struct nbd_op *op)
{
	return op->buffer + op->head.offset % VOLUME_SECTOR_BYTES;
}

/* ---- to the engine ---- */

static void out(struct nbd_op *op, enum nbd_stage stage, const struct volume_request *req)
{
	struct nbd_conn *c = op->conn;

	CHECK(c->volume && req->offset % VOLUME_SECTOR_BYTES == 0 && req->length % VOLUME_SECTOR_BYTES == 0);
	CHECK(req->offset <= c->export.size && req->length <= c->export.size - req->offset);
	op->r.req = *req;
	op->r.req.client = c->id;
	op->r.req.epoch = c->export.epoch;
	op->stage = stage;
	op->state = NBD_OP_OUT;
	if (op->head.command == NBD_CMD_BLOCK_STATUS)
		c->server->cb.extents(c->server->cb.ctx, &op->r);
	else
		c->server->cb.submit(c->server->cb.ctx, &op->r);
}

static bool has_fua(const struct nbd_op *op)
{
	return op->head.flags & NBD_CMD_FLAG_FUA;
}

static void out_sector(struct nbd_op *op, enum nbd_stage stage, enum volume_request_kind kind, uint64_t sector,
		       void *data)
{
	out(op, stage,
	    &(struct volume_request){.kind = kind,
				     .fua = kind == VOLUME_WRITE && has_fua(op),
				     .offset = sector,
				     .length = VOLUME_SECTOR_BYTES,
				     .data = data});
}

/* ---- WRITE: read what is beside the payload in its first and last sector, then write all at once ---- */

static uint8_t *scratch(struct nbd_op *op)
{
	return op->buffer + sectors_bytes(&op->head);
}

/* The scratch sector holds what is at @sector: put what is kept of it beside the payload. */
static void merge(struct nbd_op *op, uint64_t sector)
{
	uint64_t lo = nbd_sector_down(op->head.offset), end = nbd_op_end(op);
	const uint8_t *old = scratch(op);

	if (sector < op->head.offset)
		memcpy(op->buffer, old, op->head.offset - sector);
	if (sector + VOLUME_SECTOR_BYTES > end)
		memcpy(op->buffer + (end - lo), old + (end - sector), sector + VOLUME_SECTOR_BYTES - end);
}

/* The next request; false: all is written. */
static bool write_next(struct nbd_op *op)
{
	uint64_t lo = nbd_sector_down(op->head.offset), end = nbd_op_end(op);
	uint64_t last = nbd_sector_down(end - 1);
	bool keeps_head = op->head.offset > lo, keeps_tail = end < last + VOLUME_SECTOR_BYTES;

	if (op->stage == NBD_STAGE_BODY)
		return false;
	if (op->stage != NBD_STAGE_START)
		merge(op, op->r.req.offset);
	if (op->stage == NBD_STAGE_START && keeps_head) {
		out_sector(op, NBD_STAGE_READ_HEAD, VOLUME_READ, lo, scratch(op));
		return true;
	}
	if (op->stage != NBD_STAGE_READ_TAIL && keeps_tail && !(keeps_head && last == lo)) {
		out_sector(op, NBD_STAGE_READ_TAIL, VOLUME_READ, last, scratch(op));
		return true;
	}
	out(op, NBD_STAGE_BODY,
	    &(struct volume_request){.kind = VOLUME_WRITE,
				     .fua = has_fua(op),
				     .offset = lo,
				     .length = sectors_bytes(&op->head),
				     .data = op->buffer});
	return true;
}

/* ---- ZERO, TRIM: a part of a sector is read, zeroed and written, whole sectors go as they are ---- */

static enum volume_request_kind zero_kind(const struct nbd_op *op)
{
	bool keeps_space = op->head.command == NBD_CMD_WRITE_ZEROES && (op->head.flags & NBD_CMD_FLAG_NO_HOLE);

	return keeps_space ? VOLUME_ZERO : VOLUME_TRIM; /* which leaves zeroes too (V10) */
}

static bool zero_next(struct nbd_op *op)
{
	uint64_t end = nbd_op_end(op), sector = nbd_sector_down(op->at);

	if (op->stage == NBD_STAGE_READ_EDGE) {
		memset(op->buffer + (op->at - sector), 0, op->piece);
		out_sector(op, NBD_STAGE_WRITE_EDGE, VOLUME_WRITE, sector, op->buffer);
		return true;
	}
	op->at += op->piece;
	sector = nbd_sector_down(op->at);
	op->piece = nbd_sector_down(end) - sector;
	if (op->at == end)
		return false;
	if (op->at > sector || op->piece == 0) {
		uint64_t next = sector + VOLUME_SECTOR_BYTES;

		op->piece = (next < end ? next : end) - op->at;
		out_sector(op, NBD_STAGE_READ_EDGE, VOLUME_READ, sector, op->buffer);
		return true;
	}
	if (op->piece > NBD_PAYLOAD_MAX)
		op->piece = NBD_PAYLOAD_MAX;
	out(op, NBD_STAGE_BODY,
	    &(struct volume_request){.kind = zero_kind(op), .fua = has_fua(op), .offset = op->at, .length = op->piece});
	return true;
}

/* ---- BLOCK_STATUS: ask until the range is known, or there is no more room ---- */

static void status_next(struct nbd_op *op)
{
	uint64_t at = nbd_sector_down(op->at);

	out(op, NBD_STAGE_BODY,
	    &(struct volume_request){.kind = VOLUME_READ, .offset = at, .length = nbd_sector_up(nbd_op_end(op)) - at});
}

/* Note what came back; true: that is enough. */
static bool status_note(struct nbd_op *op)
{
	uint64_t to = op->r.req.offset + op->extent, end = nbd_op_end(op);
	uint32_t flags = op->is_hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
	uint8_t *next = op->buffer + (size_t)op->n_descriptors * 8;
	uint32_t length;

	if (op->extent > op->r.req.length)
		to = op->r.req.offset + op->r.req.length;
	if (to > end)
		to = end;
	CHECK(to > op->at);
	length = (uint32_t)(to - op->at);
	if (op->n_descriptors > 0 && nbd_get32(next - 4) == flags) {
		(void)nbd_put32(next - 8, nbd_get32(next - 8) + length);
	} else {
		(void)nbd_put32(nbd_put32(next, length), flags);
		op->n_descriptors++;
	}
	op->at = to;
	return to == end || (op->head.flags & NBD_CMD_FLAG_REQ_ONE) || op->n_descriptors == NBD_DESCRIPTORS_MAX;
}

/* ---- the way ---- */

void nbd_op_run(struct nbd_op *op)
{
	bool is_out = op->head.command == NBD_CMD_WRITE ? write_next(op) : zero_next(op);

	CHECK(is_out);
}

void nbd_op_begin(struct nbd_op *op)
{
	const struct nbd_head *h = &op->head;

	if (h->command == NBD_CMD_FLUSH) {
		out(op, NBD_STAGE_BODY, &(struct volume_request){.kind = VOLUME_FLUSH});
	} else if (h->length == 0 || h->command == NBD_CMD_CACHE) {
		nbd_reply(op, 0);
	} else if (h->command == NBD_CMD_READ) {
		out(op, NBD_STAGE_BODY,
		    &(struct volume_request){.kind = VOLUME_READ,
					     .offset = nbd_sector_down(h->offset),
					     .length = sectors_bytes(h),
					     .data = op->buffer});
	} else if (h->command == NBD_CMD_BLOCK_STATUS) {
		status_next(op);
	} else if (nbd_order_enter(op)) {
		nbd_op_run(op);
	}
}

/* A request of it came back with success. True: all of it is done. */
static bool is_over(struct nbd_op *op)
{
	switch (op->head.command) {
	case NBD_CMD_WRITE:
		return !write_next(op);
	case NBD_CMD_WRITE_ZEROES:
	case NBD_CMD_TRIM:
		return !zero_next(op);
	case NBD_CMD_BLOCK_STATUS:
		if (status_note(op))
			return true;
		status_next(op);
		return false;
	default:
		return true;
	}
}

void nbd_op_advance(struct nbd_op *op)
{
	CHECK(op->state == NBD_OP_BACK);
	if (op->is_dropped)
		nbd_conn_end(op->conn);
	if (op->conn->state == NBD_CONN_ENDED) { /* what it had still to do never runs (V32) */
		nbd_op_free(op);
		return;
	}
	if (op->rc == 0 && !is_over(op))
		return;
	nbd_order_leave(op);
	if (op->conn->state == NBD_CONN_ENDED) /* by what began in its place: buried soon, and this with it */
		return;
	nbd_reply(op, op->head.command == NBD_CMD_BLOCK_STATUS && op->n_descriptors > 0 ? 0 : op->rc);
}

/* ---- from the engine ---- */

static void back(struct nbd_request *r, int rc)
{
	struct nbd_op *op = CONTAINER_OF(r, struct nbd_op, r);

	CHECK(op->state == NBD_OP_OUT);
	op->state = NBD_OP_BACK;
	op->rc = rc < 0 ? rc : 0;
	nbd_list_add(&op->conn->server->back, &op->queue);
}

void nbd_request_done(struct nbd_request *r, int rc)
{
	back(r, rc);
}

void nbd_request_dropped(struct nbd_request *r)
{
	struct nbd_op *op = CONTAINER_OF(r, struct nbd_op, r);

	op->is_dropped = true;
	back(r, -ECANCELED);
}

void nbd_extent_done(struct nbd_request *r, int rc, bool hole, uint64_t length)
{
	struct nbd_op *op = CONTAINER_OF(r, struct nbd_op, r);

	CHECK(rc < 0 || (length > 0 && length % VOLUME_SECTOR_BYTES == 0));
	op->is_hole = hole;
	op->extent = length;
	back(r, rc);
}
