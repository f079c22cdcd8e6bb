/* SPDX-License-Identifier: Apache-2.0
 * The order of writes to one volume, where some of them touch only a part of a sector.
 *
 * Such a write first reads the sectors at its edges. Between that and its own write nothing else may change them, and
 * what was written before must be in what it reads. So each write of a volume, over all connections, stands in one
 * list, in the order in which it was complete, until the engine is done with it; and it begins only when no earlier one
 * in the list touches one of its sectors, if one of the two is unaligned. Waiting goes by age alone, so it cannot turn
 * in a circle, and nobody is overtaken for ever. As long as a volume sees aligned writes only, all this costs is a
 * place in the list: those may overlap as they like, the engine has its own rules for them (V6).
 *
 * A write whose payload is still on its way stands in no list: a client that sends slowly makes nobody wait. One whose
 * connection ended stays in it until the engine gave it back. */
#include "volume/nbd_internal.h"

static struct nbd_op *op_of(struct nbd_link *l)
{
	return CONTAINER_OF(l, struct nbd_op, write);
}

static bool exclude(const struct nbd_op *a, const struct nbd_op *b)
{
	if (!a->unaligned && !b->unaligned)
		return false;
	return nbd_sector_down(a->head.offset) < nbd_sector_up(nbd_op_end(b)) &&
	       nbd_sector_down(b->head.offset) < nbd_sector_up(nbd_op_end(a));
}

static bool must_wait(const struct nbd_volume *v, const struct nbd_op *op)
{
	for (struct nbd_link *l = nbd_list_first(&v->writes); l && l != &op->write; l = nbd_list_next(&v->writes, l))
		if (exclude(op_of(l), op))
			return true;
	return false;
}

bool nbd_order_enter(struct nbd_op *op)
{
	struct nbd_volume *v = op->conn->volume;

	CHECK(!nbd_is_linked(&op->write));
	nbd_list_add(&v->writes, &op->write);
	v->unaligned += op->unaligned;
	if (v->unaligned == 0 || !must_wait(v, op))
		return true;
	op->state = NBD_OP_WAITING;
	v->waiting++;
	return false;
}

/* Nothing leaves the list meanwhile: what comes back from inside is only noted. */
static void begin_waiting(struct nbd_volume *v)
{
	for (struct nbd_link *l = nbd_list_first(&v->writes); l && v->waiting > 0; l = nbd_list_next(&v->writes, l)) {
		struct nbd_op *op = op_of(l);

		if (op->state != NBD_OP_WAITING || op->conn->state == NBD_CONN_ENDED || must_wait(v, op))
			continue;
		v->waiting--;
		nbd_op_run(op);
	}
}

void nbd_order_leave(struct nbd_op *op)
{
	struct nbd_volume *v = op->conn->volume;

	if (!nbd_is_linked(&op->write))
		return;
	nbd_list_remove(&op->write);
	CHECK(v->unaligned >= op->unaligned);
	v->unaligned -= op->unaligned;
	if (op->state == NBD_OP_WAITING) {
		CHECK(v->waiting > 0);
		v->waiting--;
	}
	if (v->waiting > 0)
		begin_waiting(v);
}
