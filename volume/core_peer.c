/* SPDX-License-Identifier: Apache-2.0
 * The other replicas as the primary sees them: the handshake, what they need, who is lost, and the one that joins. */
#include "volume/core_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int peer_slot(const struct volume_core *c, node_id_t node)
{
	for (unsigned i = 0; i < PEERS_MAX; i++)
		if (c->peers[i].node == node)
			return (int)i;
	return -1;
}

bool peer_connected(const struct peer *p)
{
	return p->linked && p->hello == HELLO_DONE;
}

static bool is_in_sync(const struct volume_core *c, unsigned slot)
{
	return core_in_sync(c) >> slot & 1;
}

/* ---- what it needs ---- */

void peer_need(struct volume_core *c, struct peer *p, uint64_t block)
{
	CHECK(block < c->n_blocks);
	if (bit_get(p->need, block))
		return;
	bit_set(p->need, block);
	if (p->n_need++ == 0) {
		p->need_total = 0;
		p->need_since = c->now;
	}
	if (p->need_total < p->n_need)
		p->need_total = p->n_need;
}

void peer_got(struct volume_core *c, struct peer *p, uint64_t block)
{
	CHECK(block < c->n_blocks);
	if (!bit_get(p->need, block))
		return;
	bit_clear(p->need, block);
	p->n_need--;
}

bool peer_needs(const struct peer *p, uint64_t offset, uint64_t length)
{
	if (p->n_need == 0)
		return false;
	for (uint64_t b = offset / VOLUME_BLOCK_BYTES; b <= (offset + length - 1) / VOLUME_BLOCK_BYTES; b++)
		if (bit_get(p->need, b))
			return true;
	return false;
}

bool peer_needs_extent(const struct volume_core *c, const struct peer *p, uint64_t extent)
{
	uint64_t offset = extent * VOLUME_EXTENT_BYTES, left = c->config.size - offset;

	return peer_needs(p, offset, left < VOLUME_EXTENT_BYTES ? left : VOLUME_EXTENT_BYTES);
}

static void forget(struct volume_core *c, struct peer *p)
{
	p->known = false;
	p->cursor = p->hinted = 0;
	if (p->n_need) /* else the bits are clear, and may not even have memory yet */
		memset(p->need, 0, bit_words(c->n_blocks) * sizeof *p->need);
	p->n_need = 0;
}

/* ---- links ---- */

void peer_send(struct volume_core *c, unsigned slot, struct volume_frame *f)
{
	struct peer *p = &c->peers[slot];

	f->ballot = c->lead;
	f->session = p->session;
	c->fx.send(c->fx.ctx, p->node, f);
}

/* V18: it keeps what it needs and what it acknowledged; the rest is sent again. */
static void disconnect(struct volume_core *c, unsigned slot)
{
	struct peer *p = &c->peers[slot];
	uint8_t mask = (uint8_t)(1u << slot);

	if (p->hello == HELLO_DONE || p->away_since == 0)
		p->away_since = c->now;
	p->hello = HELLO_NONE;
	p->active_sent = false;
	p->hinted = 0;
	for (struct op *op = c->ops; op; op = op->next)
		op->sent &= (uint8_t)~mask;
	c->flush.sent &= (uint8_t)~mask;
	copy_cancel_peer(c, slot);
	if (c->join != JOIN_NONE && c->joiner == slot)
		c->join_seq = 0;
}

/* Its slot is another replica's now, or it has lost what it acknowledged. A copy that it had acknowledged would wait
 * for ever: copies are not sent again. */
static void void_acks(struct volume_core *c, unsigned slot)
{
	uint8_t mask = (uint8_t)(1u << slot);

	for (struct op *op = c->ops; op; op = op->next)
		op->acked &= (uint8_t)~mask;
	c->flush.acked &= (uint8_t)~mask;
	copy_cancel_peer(c, slot);
}

void peer_lost(struct volume_core *c, unsigned slot)
{
	disconnect(c, slot);
	c->peers[slot].linked = c->links[c->peers[slot].node] = false;
	c->fx.unlink(c->fx.ctx, c->peers[slot].node);
}

void volume_core_link_up(struct volume_core *c, node_id_t node)
{
	int slot = peer_slot(c, node);

	CHECK(node >= 1 && node <= NODES_MAX);
	c->links[node] = true;
	if (slot < 0)
		return;
	if (c->peers[slot].linked)
		disconnect(c, (unsigned)slot);
	c->peers[slot].linked = true;
	c->peers[slot].heard_at = c->now;
	core_step(c);
}

void volume_core_link_down(struct volume_core *c, node_id_t node)
{
	int slot = peer_slot(c, node);

	CHECK(node >= 1 && node <= NODES_MAX);
	c->links[node] = false;
	replica_link_down(c, node);
	if (slot >= 0 && c->peers[slot].linked) {
		disconnect(c, (unsigned)slot);
		c->peers[slot].linked = false;
	}
	core_step(c);
}

/* ---- rows ---- */

static void drop_slot(struct volume_core *c, unsigned slot)
{
	struct peer *p = &c->peers[slot];
	uint64_t *need = p->need, *seen = p->seen;

	if (c->join != JOIN_NONE && c->joiner == slot)
		c->join = JOIN_NONE;
	disconnect(c, slot);
	void_acks(c, slot);
	forget(c, p);
	memset(seen, 0, bit_words(c->n_extents) * sizeof *seen);
	*p = (struct peer){.need = need, .seen = seen};
}

/* The slots follow the members. */
void peers_row(struct volume_core *c)
{
	for (unsigned i = 0; i < PEERS_MAX; i++)
		if (c->peers[i].node && !core_member(c, c->peers[i].node))
			drop_slot(c, i);
	for (size_t m = 0; m < c->row.n_members; m++) {
		node_id_t node = c->row.members[m].node;
		int slot;

		if (node == c->config.self || peer_slot(c, node) >= 0)
			continue;
		slot = peer_slot(c, 0);
		CHECK(slot >= 0);
		c->peers[slot].node = node;
		c->peers[slot].linked = c->links[node];
		c->peers[slot].heard_at = c->peers[slot].away_since = c->now;
	}
}

void peers_forget(struct volume_core *c)
{
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		c->peers[i].hello = HELLO_NONE;
		c->peers[i].active_sent = c->peers[i].lost_power = false;
		forget(c, &c->peers[i]);
	}
}

/* V5: HELLO to all; members of the in-sync set keep what is known of them, and the join ends, by success or not. */
void peers_reballot(struct volume_core *c)
{
	c->join = JOIN_NONE;
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		struct peer *p = &c->peers[i];

		if (!p->node)
			continue;
		disconnect(c, i);
		p->lost_power = false;
		p->away_since = c->now;
		if (!is_in_sync(c, i))
			forget(c, p);
	}
}

/* ---- the handshake ---- */

static bool may_greet(const struct volume_core *c, unsigned slot)
{
	const struct peer *p = &c->peers[slot];

	if (!p->node || !p->linked || p->hello != HELLO_NONE || p->lost_power)
		return false;
	if (is_in_sync(c, slot))
		return true;
	if (core_member(c, p->node)->reported ==
	    0) /* its engine is not there yet: a HELLO would be lost, and waited for */
		return false;
	if (!grow_may_join(c, core_member(c, p->node)))
		return false;
	return c->join == JOIN_NONE ? core_all_known(c) : c->joiner == slot; /* V24 */
}

static void greet(struct volume_core *c, unsigned slot)
{
	struct peer *p = &c->peers[slot];
	struct volume_frame f = {.kind = VOLUME_F_HELLO};

	memcpy(f.replica, c->config.replica, sizeof f.replica);
	p->session = ++c->next_session;
	p->hello = HELLO_SENT;
	p->heard_at = c->now;
	peer_send(c, slot, &f);
}

static bool frame_intent(const struct volume_frame *f, uint64_t extent)
{
	return extent < f->n_intents && f->intents[extent / 8] >> (extent % 8) & 1;
}

static void need_extent(struct volume_core *c, struct peer *p, uint64_t extent)
{
	uint64_t blocks = core_blocks(c);

	for (uint64_t b = extent * VOLUME_EXTENT_BLOCKS; b < (extent + 1) * VOLUME_EXTENT_BLOCKS && b < blocks; b++)
		peer_need(c, p, b);
}

/* V18: P's data wins. */
static void need_of_in_sync(struct volume_core *c, struct peer *p, const struct volume_frame *f)
{
	for (uint32_t e = 0; e < c->n_extents && !PLANTED(no_settle); e++) {
		if (!bit_get(c->intents, e) && !frame_intent(f, e))
			continue;
		need_extent(c, p, e);
		if (c->cold_set)
			bit_set(c->cold_set, e);
	}
}

static bool lacks(const struct volume_core *c, const struct volume_frame *f, struct volume_ballot stamp,
		  struct volume_ballot base)
{
	if (c->row.fork && f->active.epoch < c->row.fork && !PLANTED(fork_by_map))
		return true;
	return volume_ballot_compare(stamp, base) > 0;
}

/* V22. Equal stamps prove nothing. */
static void need_of_joiner(struct volume_core *c, struct peer *p, const struct volume_frame *f)
{
	struct volume_ballot base = f->active;

	if (PLANTED(base_promised))
		base = f->promised;
	if (PLANTED(base_store_epoch))
		base = (struct volume_ballot){f->active.epoch, UINT32_MAX};
	for (uint64_t b = 0; b < core_blocks(c); b++)
		if (lacks(c, f, map_get(c, b), base) || frame_intent(f, b / VOLUME_EXTENT_BLOCKS))
			peer_need(c, p, b);
}

static void welcome_in_sync(struct volume_core *c, unsigned slot, const struct volume_frame *f)
{
	const struct volume_member *m = core_member(c, c->peers[slot].node);
	struct peer *p = &c->peers[slot];
	bool same = m->incarnation == f->incarnation && memcmp(m->replica, f->replica, sizeof f->replica) == 0;

	if (!same && !PLANTED(cut_as_reconnect) && !PLANTED(cut_settle_in_place)) { /* V26 */
		p->lost_power = true;
		p->hello = HELLO_NONE;
		return;
	}
	if (!same && PLANTED(cut_settle_in_place))
		forget(c, p);
	if (!p->known)
		need_of_in_sync(c, p, f);
	for (uint32_t e = 0; e < c->n_extents; e++)
		if (frame_intent(f, e))
			bit_set(c->remote, e);
	p->known = true;
	p->hello = HELLO_DONE;
}

static void welcome_joiner(struct volume_core *c, unsigned slot, const struct volume_frame *f)
{
	const struct volume_member *m = core_member(c, c->peers[slot].node);
	struct peer *p = &c->peers[slot];

	if (memcmp(m->replica, f->replica, sizeof f->replica) != 0 || f->incarnation == 0)
		return; /* not the replica that the store means; the timeout ends the link */
	if (p->known && p->incarnation != f->incarnation) {
		if (c->join >= JOIN_JOINT) { /* its acknowledgements are void: it may not be added as it is */
			p->hello = HELLO_NONE;
			p->lost_power = true;
			return;
		}
		forget(c, p);
		void_acks(c, slot);
	}
	if (!p->known) {
		need_of_joiner(c, p, f);
		c->join = JOIN_COPYING;
		c->joiner = slot;
		c->join_seq = 0;
	}
	p->known = true;
	p->incarnation = f->incarnation;
	p->hello = HELLO_DONE;
}

static bool may_join(const struct volume_core *c, unsigned slot)
{
	return c->join == JOIN_NONE || c->joiner == slot; /* V24 */
}

static void welcome(struct volume_core *c, unsigned slot, const struct volume_frame *f)
{
	struct peer *p = &c->peers[slot];

	if (p->hello != HELLO_SENT || !core_acting(c) || !f->intents)
		return;
	p->active = f->active;
	if (!p->known) /* what it got before that was cleared is in its map, and not above its `active` */
		memset(p->seen, 0, bit_words(c->n_extents) * sizeof *p->seen);
	for (uint32_t e = 0; e < c->n_extents; e++)
		if (frame_intent(f, e))
			bit_set(p->seen, e);
	if (is_in_sync(c, slot))
		welcome_in_sync(c, slot, f);
	else if (may_join(c, slot))
		welcome_joiner(c, slot, f);
}

/* ---- the join (V23) ---- */

/* Allowed as long as no ADD can be on its way. */
void join_abandon(struct volume_core *c)
{
	struct peer *p = &c->peers[c->joiner];
	unsigned slot = c->joiner;

	CHECK(c->join != JOIN_NONE && c->join < JOIN_PROPOSED);
	c->join = JOIN_NONE;
	void_acks(c, slot);
	p->lost_power = false;
	if (p->linked)
		peer_lost(c, slot);
	forget(c, p);
}

static void join_flush(struct volume_core *c)
{
	struct volume_frame f = {.kind = VOLUME_F_FLUSH};

	if (c->join_seq)
		return;
	c->join_seq = f.seq = ++c->next_seq;
	peer_send(c, c->joiner, &f);
}

static void join_propose(struct volume_core *c)
{
	if (c->state.addmark != c->row.epoch) {
		c->state.addmark = c->row.epoch;
		c->join_wait = disk_save(c);
	}
	if (c->state_written < c->join_wait || c->row.epoch != c->lead.epoch)
		return;
	if (core_ask(c, VOLUME_ADD, c->peers[c->joiner].node, c->peers[c->joiner].incarnation))
		c->join = JOIN_PROPOSED;
}

static void join_step(struct volume_core *c)
{
	struct peer *p = &c->peers[c->joiner];

	if (c->join == JOIN_NONE)
		return;
	if (c->join == JOIN_PROPOSED) {
		if (p->lost_power) /* only another epoch voids that ADD */
			(void)core_ask(c, VOLUME_BUMP, 0, 0);
		else
			join_propose(c);
		return;
	}
	if (p->lost_power) {
		join_abandon(c);
		return;
	}
	if (!peer_connected(p))
		return;
	if (c->join == JOIN_COPYING && p->n_need == 0) {
		if (PLANTED(add_without_fsync))
			c->join = JOIN_SYNCED;
		else if (PLANTED(fsync_before_joint))
			join_flush(c);
		else
			c->join = JOIN_JOINT;
	}
	if (c->join == JOIN_JOINT)
		join_flush(c);
	if (c->join == JOIN_SYNCED)
		join_propose(c);
}

/* ---- frames from it ---- */

static void acked(struct volume_core *c, unsigned slot, const struct volume_frame *f)
{
	if (f->result < 0) {
		peer_lost(c, slot); /* it is broken and will come in another incarnation */
		return;
	}
	if (c->join != JOIN_NONE && slot == c->joiner && c->join_seq && f->seq == c->join_seq) {
		c->join = JOIN_SYNCED;
		c->join_seq = 0;
		return;
	}
	if (!flush_ack(c, slot, f))
		guest_ack(c, slot, f);
}

void peer_frame(struct volume_core *c, unsigned slot, const struct volume_frame *f)
{
	struct peer *p = &c->peers[slot];

	p->heard_at = c->now;
	if (f->kind == VOLUME_F_NACK) { /* V4: somebody else may lead already */
		if (volume_ballot_compare(f->promised, c->lead) > 0) {
			c->nacked = true;
			if (f->promised.epoch > c->seen)
				c->seen = f->promised.epoch;
			c->fx.look(c->fx.ctx);
		}
		return;
	}
	if (volume_ballot_compare(f->ballot, c->lead) != 0 || f->session != p->session)
		return;
	if (f->kind == VOLUME_F_WELCOME)
		welcome(c, slot, f);
	else if (f->kind == VOLUME_F_ACK && p->hello == HELLO_DONE)
		acked(c, slot, f);
	else if (f->kind == VOLUME_F_HASHED && p->hello == HELLO_DONE)
		copy_hashed(c, slot, f);
	else if (f->kind == VOLUME_F_FETCHED && p->hello == HELLO_DONE)
		scrub_fetched(c, f);
}

/* ---- time ---- */

static bool is_slow(const struct volume_core *c, unsigned slot)
{
	for (const struct op *op = c->ops; op; op = op->next)
		if (op->kind == OP_WRITE && !(op->acked >> slot & 1) && c->now - op->since > REPLICA_SLOW)
			return true;
	return c->flush.running && !(c->flush.acked >> slot & 1) && c->now - c->flush.since > REPLICA_SLOW;
}

/* V7: a failed or slow member is removed by the store first, never skipped. */
static void watch(struct volume_core *c, unsigned slot)
{
	struct peer *p = &c->peers[slot];
	bool gone = p->hello != HELLO_DONE && c->now - p->away_since > REPLICA_LOST;

	if (is_in_sync(c, slot)) {
		if (p->lost_power || gone || is_slow(c, slot))
			(void)core_ask(c, VOLUME_REMOVE, p->node, 0);
	} else if (c->join != JOIN_NONE && c->joiner == slot && (gone || (c->join >= JOIN_JOINT && is_slow(c, slot)))) {
		if (c->join < JOIN_PROPOSED)
			join_abandon(c);
		else
			(void)core_ask(c, VOLUME_BUMP, 0, 0);
	}
}

void peers_step(struct volume_core *c)
{
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		struct peer *p = &c->peers[i];

		if (!p->node)
			continue;
		if (may_greet(c, i))
			greet(c, i);
		if (is_in_sync(c, i) && peer_connected(p) && !p->active_sent &&
		    (p->n_need == 0 || PLANTED(active_at_hello))) { /* V21 */
			struct volume_frame f = {.kind = VOLUME_F_ACTIVE};

			peer_send(c, i, &f);
			p->active_sent = true;
		}
		watch(c, i);
	}
	join_step(c);
}

void peers_tick(struct volume_core *c, bool was_late)
{
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		struct peer *p = &c->peers[i];
		struct volume_frame f = {.kind = VOLUME_F_PING};

		if (!p->node || !p->linked || p->hello == HELLO_NONE || !core_acting(c))
			continue;
		if (was_late)
			p->heard_at = c->now;
		if (c->now - p->heard_at > REPLICA_LOST) {
			peer_lost(c, i);
		} else if (p->hello == HELLO_DONE && c->now - p->pinged_at >= REPLICA_PING) {
			p->pinged_at = c->now;
			peer_send(c, i, &f);
		}
	}
}
