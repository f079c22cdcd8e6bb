/* SPDX-License-Identifier: Apache-2.0
 * Scrubbing at the primary: the copies of each block are compared by hash while its range is held, as for a copy. What
 * is wrong at another replica is then a block that it needs; what is wrong here is fetched from one that is right. Who
 * is right: the majority; where a copy cannot be read, the others; else nobody can tell. */
#include "volume/core_internal.h"

#include <errno.h>
#include <string.h>

#define SKIP_AFTER (2 * USEC_PER_SEC)
#define SELF       PEERS_MAX /* our own copy among the copies */

static const uint8_t unreadable[VOLUME_HASH_BYTES];

/* ---- judging ---- */

/* The copies of a block: those of the peers, and SELF. */
struct copies {
	uint8_t mask;
	const uint8_t *hash[PEERS_MAX + 1];
};

static bool is_readable(const struct copies *s, unsigned i)
{
	return memcmp(s->hash[i], unreadable, sizeof unreadable) != 0;
}

static uint8_t equals_of(const struct copies *s, unsigned i)
{
	uint8_t mask = 0;

	for (unsigned k = 0; k <= SELF; k++)
		if ((s->mask >> k & 1) && memcmp(s->hash[i], s->hash[k], VOLUME_HASH_BYTES) == 0)
			mask |= (uint8_t)(1u << k);
	return mask;
}

static uint8_t readables_of(const struct copies *s)
{
	uint8_t mask = 0;

	for (unsigned i = 0; i <= SELF; i++)
		if ((s->mask >> i & 1) && is_readable(s, i))
			mask |= (uint8_t)(1u << i);
	return mask;
}

/* Those who are right; 0: nobody can tell. */
static uint8_t right_ones(const struct copies *s, bool primary_wins)
{
	uint8_t readable = readables_of(s);

	for (unsigned i = 0; i <= SELF; i++) {
		uint8_t equal = equals_of(s, i);

		if (!(readable >> i & 1))
			continue;
		if (equal == readable || 2 * __builtin_popcount(equal) > __builtin_popcount(s->mask))
			return equal;
	}
	return primary_wins && (readable >> SELF & 1) ? equals_of(s, SELF) : 0;
}

/* ---- what follows ---- */

static void report(struct volume_core *c, const struct op *op, enum volume_verdict verdict, node_id_t node,
		   bool is_lost)
{
	struct volume_finding f = {
		.verdict = verdict, .node = node, .unreadable = is_lost, .offset = op->offset, .length = op->length};

	c->scrub.status.wrong += verdict == VOLUME_WRONG;
	c->scrub.status.undecided += verdict == VOLUME_UNDECIDED;
	c->scrub.status.lost += verdict == VOLUME_LOST;
	c->fx.found(c->fx.ctx, &f);
}

/* Our own copy is wrong. The block is compared again afterwards, so that the others' turn comes too. */
static void repair_self(struct volume_core *c, struct op *op, const struct copies *s, uint8_t right)
{
	unsigned from = (unsigned)__builtin_ctz(right);
	struct volume_frame f = {.kind = VOLUME_F_FETCH, .seq = op->seq, .offset = op->offset, .length = op->length};

	report(c, op, VOLUME_WRONG, c->config.self, !is_readable(s, SELF));
	op->targets = (uint8_t)(1u << from);
	op->step = OP_FETCH;
	flush_touch(c, op->offset, op->length);
	disk_want_intents(c, op->offset, op->length); /* V14 */
	peer_send(c, from, &f);
}

static void repair_peers(struct volume_core *c, const struct op *op, const struct copies *s, uint8_t right)
{
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		if (!(s->mask >> i & 1) || (right >> i & 1))
			continue;
		report(c, op, VOLUME_WRONG, c->peers[i].node, !is_readable(s, i));
		peer_need(c, &c->peers[i], op->offset / VOLUME_BLOCK_BYTES);
	}
}

static void op_over(struct volume_core *c, struct op *op)
{
	c->scrub.op = NULL;
	copy_end(c, op);
}

/* All hashes are here. */
void scrub_judge(struct volume_core *c, struct op *op)
{
	struct copies s = {.mask = (uint8_t)(op->targets | 1u << SELF)};
	uint8_t right;

	for (unsigned i = 0; i < PEERS_MAX; i++)
		s.hash[i] = op->peer_hash[i];
	s.hash[SELF] = op->hash;
	right = right_ones(&s, c->scrub.primary_wins);
	if (right && !(right >> SELF & 1)) {
		repair_self(c, op, &s, right);
		return;
	}
	if (right)
		repair_peers(c, op, &s, right);
	else
		report(c, op, readables_of(&s) ? VOLUME_UNDECIDED : VOLUME_LOST, 0, false);
	c->scrub.status.block++;
	op_over(c, op);
}

/* ---- our own copy ---- */

void scrub_fetched(struct volume_core *c, const struct volume_frame *f)
{
	struct op *op = c->scrub.op;

	if (!op || op->step != OP_FETCH || f->seq != op->seq || f->length != op->length || !f->data)
		return;
	memcpy(op->buffer, f->data, op->length);
	op->step = OP_INTENT;
}

void scrub_repaired(struct volume_core *c)
{
	op_over(c, c->scrub.op);
}

/* Its peer is gone, or another ballot began: the block's turn comes again. */
void scrub_cancelled(struct volume_core *c)
{
	c->scrub.op = NULL;
}

/* ---- the pass ---- */

int volume_core_scrub(struct volume_core *c, uint64_t rate, bool primary_wins)
{
	struct scrub *s = &c->scrub;

	if (!core_acting(c))
		return -EPERM;
	if (s->status.on)
		return -EALREADY;
	s->status = (struct volume_scrub_status){.on = true, .passes = s->status.passes};
	s->rate = rate;
	s->primary_wins = primary_wins;
	core_step(c);
	return 0;
}

void volume_core_scrub_stop(struct volume_core *c)
{
	c->scrub.status.on = false;
}

/* All in-sync replicas, when they are all there. */
static bool all_can_be_compared(const struct volume_core *c, uint64_t block, uint8_t *ret)
{
	*ret = core_in_sync(c);
	for (unsigned i = 0; i < PEERS_MAX; i++)
		if ((*ret >> i & 1) &&
		    (!c->peers[i].known || !peer_connected(&c->peers[i]) || bit_get(c->peers[i].need, block)))
			return false;
	return true;
}

/* A block that the guest writes all the time is in no need of being looked at. */
static void skip(struct volume_core *c)
{
	struct scrub *s = &c->scrub;

	if (s->busy_since == 0)
		s->busy_since = c->now;
	if (c->now - s->busy_since < SKIP_AFTER)
		return;
	s->busy_since = 0;
	s->status.skipped++;
	s->status.block++;
}

static void next(struct volume_core *c)
{
	struct scrub *s = &c->scrub;
	uint8_t who;

	if (!all_can_be_compared(c, s->status.block, &who) || c->now < c->scrub_at)
		return;
	s->op = copy_begin(c, s->status.block, 1, who, true);
	if (s->op) {
		s->busy_since = 0;
		(void)core_pace(c, &c->scrub_at, s->rate, VOLUME_BLOCK_BYTES);
	} else {
		skip(c);
	}
}

void scrub_step(struct volume_core *c)
{
	struct scrub *s = &c->scrub;

	if (s->op && s->op->step == OP_INTENT && disk_has_intents(c, s->op->offset, s->op->length))
		copy_io(c, s->op, VOLUME_IO_WRITE);
	if (!s->status.on || s->op)
		return;
	if (s->status.block < core_blocks(c)) {
		next(c);
	} else {
		s->status.on = false;
		s->status.passes++;
	}
}
