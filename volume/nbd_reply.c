/* SPDX-License-Identifier: Apache-2.0
 * Answers: their heads, and their way into the socket, as many as are ready in one call. A read's data goes from the
 * buffer that the engine filled. */
#include "volume/nbd_internal.h"

#include <errno.h>
#include <sys/socket.h>

#define IOV_MAX_SENT 64

uint32_t nbd_reply_error(int rc)
{
	static const struct {
		int code;
		uint32_t error;
	} errors[] = {
		{0, 0},        {-EPERM, 1},   {-EACCES, 1},  {-EROFS, 1},  {-EIO, 5},        {-ENOMEM, 12},
		{-EINVAL, 22}, {-ENOSPC, 28}, {-EDQUOT, 28}, {-EFBIG, 28}, {-EOVERFLOW, 75}, {-ENOTSUP, 95},
	};

	for (size_t i = 0; i < ARRAY_LEN(errors); i++)
		if (errors[i].code == rc)
			return errors[i].error;
	return 5;
}

static uint8_t *head_simple(struct nbd_op *op, uint32_t error)
{
	uint8_t *p = nbd_put32(op->reply, NBD_MAGIC_SIMPLE);

	p = nbd_put32(p, error);
	return nbd_put64(p, op->head.cookie);
}

/* One chunk, which is the whole answer. */
static uint8_t *head_chunk(struct nbd_op *op, uint16_t type, size_t length)
{
	uint8_t *p = nbd_put32(op->reply, NBD_MAGIC_STRUCTURED);

	p = nbd_put16(p, NBD_REPLY_FLAG_DONE);
	p = nbd_put16(p, type);
	p = nbd_put64(p, op->head.cookie);
	return nbd_put32(p, (uint32_t)length);
}

static uint8_t *head_error(struct nbd_op *op, uint32_t error)
{
	uint8_t *p;

	if (!op->conn->hs.structured)
		return head_simple(op, error);
	p = nbd_put32(head_chunk(op, NBD_REPLY_TYPE_ERROR, 6), error);
	return nbd_put16(p, 0); /* no text */
}

static uint8_t *head_read(struct nbd_op *op)
{
	if (op->head.length == 0 && op->conn->hs.structured)
		return head_chunk(op, NBD_REPLY_TYPE_NONE, 0);
	op->body = op->head.length > 0 ? nbd_op_payload(op) : NULL;
	op->body_bytes = op->head.length;
	if (!op->conn->hs.structured)
		return head_simple(op, 0);
	return nbd_put64(head_chunk(op, NBD_REPLY_TYPE_OFFSET_DATA, op->body_bytes + 8), op->head.offset);
}

static uint8_t *head_status(struct nbd_op *op)
{
	op->body = op->buffer;
	op->body_bytes = (size_t)op->n_descriptors * 8;
	return nbd_put32(head_chunk(op, NBD_REPLY_TYPE_BLOCK_STATUS, op->body_bytes + 4), NBD_CONTEXT_ALLOCATION_ID);
}

void nbd_reply(struct nbd_op *op, int rc)
{
	struct nbd_conn *c = op->conn;
	uint8_t *end;

	CHECK(c->state != NBD_CONN_ENDED && op->state != NBD_OP_OUT && op->state != NBD_OP_REPLYING);
	if (rc < 0)
		end = head_error(op, nbd_reply_error(rc));
	else if (op->head.command == NBD_CMD_READ)
		end = head_read(op);
	else if (op->head.command == NBD_CMD_BLOCK_STATUS)
		end = head_status(op);
	else
		end = head_simple(op, 0);
	op->reply_bytes = (size_t)(end - op->reply);
	CHECK(op->reply_bytes <= sizeof op->reply);
	op->state = NBD_OP_REPLYING;
	if (!nbd_list_first(&c->out.replies))
		c->out.progress_ms = uv_now(c->server->loop);
	nbd_list_add(&c->out.replies, &op->queue);
	nbd_list_add(&c->server->output, &c->output);
}

/* ---- sending ---- */

/* Point at what is to be sent next; returns the number of pieces and their sum. */
static size_t gather(struct nbd_conn *c, struct iovec *iov, size_t *ret_bytes)
{
	size_t n = 0, skip = c->out.sent, bytes = c->out.plain.len;
	struct nbd_link *l;

	if (bytes > 0)
		iov[n++] = (struct iovec){c->out.plain.data, bytes};
	for (l = nbd_list_first(&c->out.replies); l && n + 2 <= IOV_MAX_SENT && bytes < NBD_TURN_BYTES;
	     l = nbd_list_next(&c->out.replies, l), skip = 0) {
		struct nbd_op *op = CONTAINER_OF(l, struct nbd_op, queue);
		size_t head = skip < op->reply_bytes ? op->reply_bytes - skip : 0;
		size_t body = op->reply_bytes + op->body_bytes - skip - head;

		if (head > 0)
			iov[n++] = (struct iovec){op->reply + skip, head};
		if (body > 0)
			iov[n++] = (struct iovec){(void *)(op->body + (op->body_bytes - body)), body};
		bytes += head + body;
	}
	*ret_bytes = bytes;
	return n;
}

/* @n bytes are on their way: what is complete is done with. */
static void sent(struct nbd_conn *c, size_t n)
{
	size_t plain = n < c->out.plain.len ? n : c->out.plain.len;
	struct nbd_link *l;

	buf_consume(&c->out.plain, plain);
	c->out.sent += n - plain;
	while ((l = nbd_list_first(&c->out.replies)) != NULL) {
		struct nbd_op *op = CONTAINER_OF(l, struct nbd_op, queue);
		size_t all = op->reply_bytes + op->body_bytes;

		if (c->out.sent < all)
			break;
		c->out.sent -= all;
		nbd_op_free(op);
	}
}

static void failed(struct nbd_conn *c)
{
	if (c->state != NBD_CONN_DRAINING) {
		nbd_conn_end(c);
		return;
	}
	c->out.is_mute = true; /* it said goodbye: what it asked for before is still done */
}

static void mute(struct nbd_conn *c)
{
	struct nbd_link *l;

	buf_consume(&c->out.plain, c->out.plain.len);
	while ((l = nbd_list_first(&c->out.replies)) != NULL)
		nbd_op_free(CONTAINER_OF(l, struct nbd_op, queue));
	c->out.sent = 0;
}

static bool may_answer(const struct nbd_conn *c)
{
	const struct nbd_callbacks *cb = &c->server->cb;

	return !c->volume || !cb->may_answer || cb->may_answer(cb->ctx, c->volume->volume);
}

/* False: nothing more can be sent now. */
static bool send_some(struct nbd_conn *c, size_t *budget)
{
	struct iovec iov[IOV_MAX_SENT];
	struct msghdr m = {.msg_iov = iov};
	size_t bytes;
	ssize_t n;

	m.msg_iovlen = gather(c, iov, &bytes);
	if (bytes == 0)
		return false;
	if (!may_answer(c)) {
		failed(c);
		return false;
	}
	do
		n = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		failed(c);
		return false;
	}
	if (n > 0) {
		c->out.progress_ms = uv_now(c->server->loop);
		sent(c, (size_t)n);
		*budget -= (size_t)n < *budget ? (size_t)n : *budget;
	}
	c->out.is_blocked = n < 0 || (size_t)n < bytes || *budget == 0;
	return !c->out.is_blocked;
}

void nbd_reply_flush(struct nbd_conn *c)
{
	size_t budget = NBD_TURN_BYTES;

	while (!c->out.is_mute && !c->out.is_blocked && send_some(c, &budget))
		;
	if (c->out.is_mute)
		mute(c);
	if (c->state == NBD_CONN_DRAINING && c->n_ops == 0 && c->out.plain.len == 0)
		nbd_conn_end(c);
	else
		nbd_conn_poll(c);
}
