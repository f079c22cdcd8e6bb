/* SPDX-License-Identifier: Apache-2.0
 * Requests from the wire: what is valid, and when there is room for it. */
#include "volume/nbd_internal.h"

#include <errno.h>

/* ---- what is valid ---- */

static uint16_t flags_of(uint16_t command)
{
	switch (command) {
	case NBD_CMD_READ:
		return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF;
	case NBD_CMD_WRITE_ZEROES:
		return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
	case NBD_CMD_BLOCK_STATUS:
		return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
	default:
		return NBD_CMD_FLAG_FUA;
	}
}

static bool is_beyond(const struct nbd_conn *c, const struct nbd_head *h)
{
	return h->offset > c->export.size || h->length > c->export.size - h->offset;
}

static int check_read(const struct nbd_conn *c, const struct nbd_head *h)
{
	if ((h->flags & NBD_CMD_FLAG_DF) && !c->hs.structured)
		return -EINVAL;
	if (h->length > NBD_PAYLOAD_MAX)
		return c->hs.structured ? -EOVERFLOW : -EINVAL;
	return is_beyond(c, h) ? -EINVAL : 0;
}

static int check_write(const struct nbd_conn *c, const struct nbd_head *h)
{
	if (c->export.read_only)
		return -EPERM;
	if (h->command == NBD_CMD_WRITE && h->length > NBD_PAYLOAD_MAX)
		return -EINVAL;
	if (is_beyond(c, h))
		return h->command == NBD_CMD_TRIM ? -EINVAL : -ENOSPC;
	return 0;
}

/* 0 or the negative errno that answers it. */
static int check(const struct nbd_conn *c, const struct nbd_head *h)
{
	if (h->flags & ~flags_of(h->command))
		return -EINVAL;
	switch (h->command) {
	case NBD_CMD_READ:
		return check_read(c, h);
	case NBD_CMD_WRITE:
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		return check_write(c, h);
	case NBD_CMD_FLUSH:
		return h->offset == 0 && h->length == 0 ? 0 : -EINVAL;
	case NBD_CMD_CACHE:
		return is_beyond(c, h) ? -EINVAL : 0;
	case NBD_CMD_BLOCK_STATUS:
		return c->hs.has_context && h->length > 0 && !is_beyond(c, h) ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

/* ---- room ---- */

/* Is another connection waiting longer for shared bytes? */
static bool is_behind(const struct nbd_conn *c)
{
	const struct nbd_server *s = c->server;

	for (struct nbd_link *l = nbd_list_first(&s->stalled); l && l != &c->stalled; l = nbd_list_next(&s->stalled, l))
		if (CONTAINER_OF(l, struct nbd_conn, stalled)->is_hungry)
			return true;
	return false;
}

/* Own bytes are always there; the shared ones go to those who wait, in the order in which they came. */
static bool has_room(struct nbd_conn *c, uint64_t capacity)
{
	const struct nbd_server *s = c->server;
	uint64_t more = nbd_shared_part(s, c->bytes + capacity) - nbd_shared_part(s, c->bytes);

	c->is_hungry = false;
	if (c->n_ops >= s->limits.requests || c->bytes + capacity > s->limits.connection_bytes)
		return false;
	if (more == 0 || (!is_behind(c) && s->status.shared_bytes + more <= s->limits.shared_bytes))
		return true;
	c->is_hungry = true;
	return false;
}

/* NULL: not now, it is among the stalled. */
static struct nbd_op *admit(struct nbd_conn *c, const struct nbd_head *h, int rc)
{
	struct nbd_server *s = c->server;
	uint64_t capacity = rc < 0 ? 0 : nbd_pool_capacity(nbd_op_bytes(h));
	void *buffer = NULL;
	bool has = has_room(c, capacity);

	if (has && capacity > 0) {
		buffer = nbd_pool_get(&s->pool, capacity);
		has = buffer != NULL; /* memory is short: the timer tries again */
	}
	if (has)
		return nbd_op_new(c, h, buffer, capacity);
	nbd_list_add(&s->stalled, &c->stalled);
	return NULL;
}

/* ---- the way in ---- */

static struct nbd_head parse(const uint8_t *p)
{
	return (struct nbd_head){.flags = nbd_get16(p + 4),
				 .command = nbd_get16(p + 6),
				 .cookie = nbd_get64(p + 8),
				 .offset = nbd_get64(p + 16),
				 .length = nbd_get32(p + 24)};
}

static void begin(struct nbd_conn *c, struct nbd_op *op, int rc)
{
	const struct nbd_head *h = &op->head;

	if (rc == 0 && h->command == NBD_CMD_WRITE && h->length > 0) {
		c->receiving = op;
		nbd_conn_expect(c, NBD_CONN_PAYLOAD, nbd_op_payload(op), h->length);
		return;
	}
	nbd_conn_expect(c, NBD_CONN_COMMAND, c->in.head, NBD_REQUEST_BYTES);
	if (rc < 0) {
		c->in.skip = h->command == NBD_CMD_WRITE ? h->length : 0;
		nbd_reply(op, rc);
	} else {
		nbd_op_begin(op);
	}
}

bool nbd_command_head(struct nbd_conn *c)
{
	struct nbd_head h = parse(c->in.head);
	struct nbd_op *op;
	int rc;

	CHECK(c->state == NBD_CONN_COMMAND && c->in.want == 0);
	if (nbd_get32(c->in.head) != NBD_MAGIC_REQUEST) {
		nbd_conn_end(c); /* nobody knows where the next request begins */
		return true;
	}
	if (h.command == NBD_CMD_DISC) {
		nbd_conn_drain(c);
		return true;
	}
	rc = check(c, &h);
	op = admit(c, &h, rc);
	if (!op)
		return false;
	nbd_list_remove(&c->stalled);
	begin(c, op, rc);
	return true;
}

void nbd_command_payload(struct nbd_conn *c)
{
	struct nbd_op *op = c->receiving;

	CHECK(c->state == NBD_CONN_PAYLOAD && op && op->state == NBD_OP_RECEIVING);
	c->receiving = NULL;
	nbd_conn_expect(c, NBD_CONN_COMMAND, c->in.head, NBD_REQUEST_BYTES);
	nbd_op_begin(op);
}
