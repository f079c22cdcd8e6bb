/* SPDX-License-Identifier: Apache-2.0
 * Flushing at the primary (V11, V12): all members at once, one at a time. Whoever comes meanwhile shares the next, or
 * the one that runs, or the last, if nothing was written since that began. */
#include "volume/core_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- guests that flush often ---- */

/* Before a flush: more is better sent to the disk by the kernel, in its own time and order. */
#define LITTLE (1u << 20)

/* Does one come after each single write? Such a guest waits for little else, so its flush begins when the write is
 * over, before the guest has asked. */
static bool flush_is_next(const struct volume_core *c)
{
	return c->flush_each >= c->config.flush_habit;
}

/* Does one come whenever little was written? Then it is good to send that on its way to the disk. */
bool flush_is_soon(const struct volume_core *c)
{
	return c->flush_little >= c->config.flush_habit;
}

void flush_saw_write(struct volume_core *c, uint64_t length)
{
	if (c->writes == 1)
		c->flush_each = 0;
	c->writes = c->writes ? 2 : 1;
	c->written += length;
	if (c->written > LITTLE)
		c->flush_little = 0;
}

void flush_saw_flush(struct volume_core *c)
{
	if (c->writes == 1 && c->flush_each < c->config.flush_habit)
		c->flush_each++;
	if (c->writes > 0 && c->written <= LITTLE && c->flush_little < c->config.flush_habit)
		c->flush_little++;
	c->writes = 0;
	c->written = 0;
}

void flush_write_over(struct volume_core *c)
{
	if (c->flush_waiting || c->waiting || !flush_is_next(c))
		return;
	for (const struct op *op = c->ops; op; op = op->next)
		if (op->kind == OP_WRITE)
			return;
	c->flush_early = true;
}

/* V11: what runs, or has run in this ballot, covers a flush only if nothing was written since it began. */
static bool has_covered(const struct flush *f)
{
	return f->ended && (f->fresh || PLANTED(old_flush_covers));
}

void flush_submit(struct volume_core *c, struct volume_request *r)
{
	struct flush *f = &c->flush;
	bool rides = f->running && (f->fresh || PLANTED(ride_any_flush));
	struct volume_request **list = rides ? &c->flush_riding : &c->flush_waiting;

	flush_saw_flush(c);
	if (f->early && !rides && !has_covered(f))
		c->flush_each = 0; /* it was in vain: the guest takes its time */
	f->early = false;
	r->next = *list;
	*list = r;
}

/* ---- one flush ---- */

/* V12: a write or copy in the range makes the extent unflushed, for a flush that runs as well. */
void flush_touch(struct volume_core *c, uint64_t offset, uint64_t length)
{
	c->flush.fresh = false;
	for (uint64_t e = offset / VOLUME_EXTENT_BYTES; e <= (offset + length - 1) / VOLUME_EXTENT_BYTES; e++) {
		bit_set(c->unflushed, e);
		bit_clear(c->flush.fset, e);
		bit_set(c->remote, e);
		c->touched[e] = c->now;
	}
}

/* V12: the extents that this flush will have covered. */
static void choose_fset(struct volume_core *c)
{
	uint8_t in_sync = core_in_sync(c);

	memset(c->flush.fset, 0, bit_words(c->n_extents) * sizeof *c->flush.fset);
	if (!core_all_known(c))
		return;
	for (uint32_t e = 0; e < c->n_extents; e++)
		bit_set(c->flush.fset, e);
	for (const struct op *op = c->ops; op; op = op->next)
		for (uint64_t e = op->offset / VOLUME_EXTENT_BYTES;
		     op->kind != OP_READ && e <= (op->offset + op->length - 1) / VOLUME_EXTENT_BYTES; e++)
			bit_clear(c->flush.fset, e);
	for (unsigned i = 0; i < PEERS_MAX; i++)
		for (uint64_t b = 0; (in_sync >> i & 1) && c->peers[i].n_need && b < c->n_blocks; b++)
			if (bit_get(c->peers[i].need, b))
				bit_clear(c->flush.fset, b / VOLUME_EXTENT_BLOCKS);
}

static void synced(struct volume_core *c, struct volume_io *io, int rc)
{
	(void)io;
	c->flush.syncing = false;
	if (rc < 0) {
		core_break(c, rc); /* V13: a failed fsync is a power loss */
		return;
	}
	if (!c->flush.running) /* given up meanwhile; no other begins before this one ended */
		return;
	c->flush.local = true;
	if (PLANTED(clear_after_own_flush))
		memset(c->unflushed, 0, bit_words(c->n_extents) * sizeof *c->unflushed);
}

static bool anybody_needs(const struct volume_core *c)
{
	uint8_t in_sync = core_in_sync(c);

	for (unsigned i = 0; i < PEERS_MAX; i++)
		if ((in_sync >> i & 1) && (!c->peers[i].known || c->peers[i].n_need))
			return true;
	return false;
}

static void begin(struct volume_core *c)
{
	struct flush *f = &c->flush;

	f->running = true;
	f->ended = false;
	f->local = false;
	f->syncing = true;
	f->sent = f->acked = 0;
	f->seq = ++c->next_seq;
	f->since = c->now;
	f->settled = !anybody_needs(c);
	f->fresh = true;
	f->early = !c->flush_waiting && c->flush_early;
	c->flush_early = false;
	c->flush_riding = c->flush_waiting;
	c->flush_waiting = NULL;
	c->flush_wanted = false;
	choose_fset(c);
	f->io = (struct volume_io){.kind = VOLUME_IO_SYNC, .done = synced};
	core_io(c, &f->io);
}

static void send_it(struct volume_core *c)
{
	uint8_t to = core_required(c) & (uint8_t) ~(c->flush.sent | c->flush.acked);

	for (unsigned i = 0; i < PEERS_MAX; i++) {
		struct volume_frame f = {.kind = VOLUME_F_FLUSH, .seq = c->flush.seq};

		if (!(to >> i & 1) || !peer_connected(&c->peers[i]))
			continue;
		peer_send(c, i, &f);
		c->flush.sent |= (uint8_t)(1u << i);
	}
}

/* V27: what was settled is on all disks now, and may be read. */
static void cold_end(struct volume_core *c)
{
	if (!c->cold_set || !c->flush.settled)
		return;
	free(c->cold_set);
	c->cold_set = NULL;
	c->state.cold_done = c->row.cold;
	(void)disk_save(c);
}

static void answer(struct volume_core *c, struct volume_request **list)
{
	struct volume_request *r = *list, *next;

	*list = NULL;
	for (; r; r = next) {
		next = r->next;
		c->fx.reply(c->fx.ctx, r, 0);
	}
}

static void end(struct volume_core *c)
{
	for (size_t w = 0; w < bit_words(c->n_extents); w++)
		c->unflushed[w] &= ~c->flush.fset[w];
	c->flush.running = false;
	c->flush.ended = true;
	cold_end(c);
	answer(c, &c->flush_riding);
}

void flush_step(struct volume_core *c)
{
	if (c->cold_set && !anybody_needs(c))
		c->flush_wanted = true;
	if (c->flush.running)
		send_it(c);
	if (c->flush.running && c->flush.local && (core_required(c) & ~c->flush.acked) == 0)
		end(c);
	if (has_covered(&c->flush))
		answer(c, &c->flush_waiting);
	if (c->flush.running || c->flush.syncing)
		return;
	if (c->flush_waiting || c->flush_wanted || c->flush_early) { /* also what came while the last one ran */
		begin(c);
		send_it(c);
	}
}

/* V5 */
void flush_reballot(struct volume_core *c)
{
	c->flush.ended = false;
	if (PLANTED(keep_acks_over_epoch))
		return;
	c->flush.acked = c->flush.sent = 0;
	c->flush.since = c->now;
}

bool flush_ack(struct volume_core *c, unsigned slot, const struct volume_frame *f)
{
	if (!c->flush.running || f->seq != c->flush.seq)
		return false;
	c->flush.acked |= (uint8_t)(1u << slot);
	return true;
}

static void drop_from(struct volume_core *c, struct volume_request **at, uint64_t client, bool all)
{
	while (*at) {
		struct volume_request *r = *at;

		if (!all && r->client != client) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		c->fx.drop(c->fx.ctx, r);
	}
}

void flush_drop_client(struct volume_core *c, uint64_t client, bool all)
{
	drop_from(c, &c->flush_waiting, client, all);
	drop_from(c, &c->flush_riding, client, all);
}
