/* SPDX-License-Identifier: Apache-2.0
 * The core's life: rows, the start as primary, new epochs, stepping down, and what is asked of the store. */
#include "volume/core_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MINOR_MAX UINT32_MAX
#define TICK_LATE (REPLICA_LOST / 2) /* our own thread stalled: silence proves nothing then */

uint64_t bits_count(const uint64_t *v, uint64_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < bit_words(n); i++)
		sum += (uint64_t)__builtin_popcountll(v[i]);
	return sum;
}

int core_self(const struct volume_core *c)
{
	for (size_t i = 0; i < c->row.n_members; i++)
		if (c->row.members[i].node == c->config.self)
			return (int)i;
	return -1;
}

const struct volume_member *core_member(const struct volume_core *c, node_id_t node)
{
	for (size_t i = 0; i < c->row.n_members; i++)
		if (c->row.members[i].node == node)
			return &c->row.members[i];
	return NULL;
}

/* V4: what is done in the name of a ballot is done only while no newer epoch is known. */
bool core_acting(const struct volume_core *c)
{
	return c->start == START_DONE && !c->nacked && c->lead.epoch == c->seen;
}

uint8_t core_in_sync(const struct volume_core *c)
{
	uint8_t mask = 0;

	for (unsigned i = 0; i < PEERS_MAX; i++) {
		const struct volume_member *m = c->peers[i].node ? core_member(c, c->peers[i].node) : NULL;

		if (m && m->in_sync)
			mask |= (uint8_t)(1u << i);
	}
	return mask;
}

/* V7: whose acknowledgement a write and a flush need. */
uint8_t core_required(const struct volume_core *c)
{
	uint8_t mask = core_in_sync(c);

	if (c->join >= JOIN_JOINT && !PLANTED(add_without_joint))
		mask |= (uint8_t)(1u << c->joiner);
	return mask;
}

bool core_all_known(const struct volume_core *c)
{
	uint8_t in_sync = core_in_sync(c);

	for (unsigned i = 0; i < PEERS_MAX; i++)
		if ((in_sync >> i & 1) && !c->peers[i].known)
			return false;
	return true;
}

void core_io(struct volume_core *c, struct volume_io *io)
{
	c->ios++;
	c->fx.io(c->fx.ctx, io);
}

/* ---- asking the store ---- */

bool core_ask(struct volume_core *c, enum volume_change_kind kind, node_id_t node, uint64_t incarnation)
{
	if (c->asking || c->now < c->ask_again || !c->has_row)
		return false;
	c->asked =
		(struct volume_change){.kind = kind, .epoch = c->row.epoch, .node = node, .incarnation = incarnation};
	c->asking = true;
	c->fx.propose(c->fx.ctx, &c->asked);
	return true;
}

void volume_core_proposed(struct volume_core *c, const struct volume_change *change, int rc)
{
	if (!c->asking || change->kind != c->asked.kind || change->epoch != c->asked.epoch)
		return;
	c->asking = false;
	c->ask_again = c->now + (rc == 0 ? REPLICA_PING : PROPOSE_AGAIN);
	core_step(c);
}

/* ---- stepping down (V29) ---- */

void core_step_down(struct volume_core *c)
{
	if (c->start == START_NONE)
		return;
	c->start = START_NONE;
	c->nacked = false;
	c->join = JOIN_NONE;
	c->fx.drop_clients(c->fx.ctx);
	guest_drop_all(c);
	copy_cancel_all(c);
	flush_drop_client(c, 0, true);
	c->flush.running = c->flush.ended = false; /* a sync that runs ends by itself */
	c->flush_wanted = c->flush_early = false;
	volume_core_scrub_stop(c);
	peers_forget(c);
	free(c->cold_set);
	c->cold_set = NULL;
}

void core_break(struct volume_core *c, int rc)
{
	if (c->broken)
		return;
	core_step_down(c);
	c->broken = true;
	c->fx.broken(c->fx.ctx, rc);
}

void volume_core_end(struct volume_core *c)
{
	core_step_down(c);
	c->broken = true;
}

/* ---- starting (section 1, V2, V17) ---- */

/* V27: what a guest may have read after a power cut must not vanish with the next one. */
static void cold_begin(struct volume_core *c)
{
	if (c->row.cold == 0 || c->state.cold_done >= c->row.cold || PLANTED(cold_read_unflushed))
		return;
	c->cold_set = xcalloc(bit_words(c->n_extents), sizeof *c->cold_set);
	memcpy(c->cold_set, c->intents, bit_words(c->n_extents) * sizeof *c->cold_set);
}

/* False: not now, and not without a newer row. */
static bool choose_ballot(struct volume_core *c, struct volume_ballot *ret)
{
	uint32_t v = c->row.epoch;
	bool add_may_come = c->state.addmark == v && !PLANTED(late_add);

	if (c->state.promised.epoch > v || c->seen > v)
		return false;
	if (c->state.promised.epoch < v) {
		*ret = (struct volume_ballot){v, 0};
		return true;
	}
	if (PLANTED(same_ballot_restart)) {
		*ret = c->state.promised;
		return true;
	}
	if (add_may_come || c->state.promised.minor == MINOR_MAX) { /* V23: that ADD must find another epoch */
		(void)core_ask(c, VOLUME_BUMP, 0, 0);
		return false;
	}
	*ret = (struct volume_ballot){v, c->state.promised.minor + 1};
	return true;
}

static bool may_lead(const struct volume_core *c)
{
	const struct volume_member *me = core_member(c, c->config.self);

	return c->has_row && !c->broken && c->row.primary == c->config.self && me && grow_may_lead(c) &&
	       (me->incarnation == c->state.incarnation || PLANTED(cut_primary_leads)); /* V2 */
}

static void lead_begin(struct volume_core *c)
{
	c->start = START_DONE;
	c->nacked = false;
	c->next_session = 0;
	memset(c->unflushed, 0xff, bit_words(c->n_extents) * sizeof *c->unflushed);
	memset(c->remote, 0, bit_words(c->n_extents) * sizeof *c->remote);
	cold_begin(c);
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		c->peers[i].away_since = c->now;
		c->peers[i].known = c->resumed && (core_in_sync(c) >> i & 1);
	}
}

/* V1, V17: all of it durable before the first HELLO. */
static void take_ballot(struct volume_core *c)
{
	struct volume_ballot old_active = c->state.active;

	c->resumed = PLANTED(same_ballot_restart) && volume_ballot_compare(old_active, c->lead) == 0;
	c->state.promised = c->lead;
	if (c->state.addmark < c->row.epoch)
		c->state.addmark = 0;
	disk_restamp_intents(c, c->lead, old_active);
	c->state.active = c->lead;
	c->state_wait = c->promise_seq = disk_save(c);
	c->start = START_SAVE;
}

static void goes_on_in(struct volume_core *c, struct volume_ballot ballot)
{
	c->state.promised = c->state.active = ballot;
	if (c->state.addmark < c->row.epoch)
		c->state.addmark = 0;
	c->state_wait = c->promise_seq = disk_save(c);
	c->start = START_REBALLOT;
}

static void start_step(struct volume_core *c)
{
	struct volume_ballot ballot;

	if (c->start == START_NONE && may_lead(c) && !c->fence.pending && choose_ballot(c, &ballot)) {
		c->lead = ballot;
		c->start = START_DRAIN;
		replica_end_sessions(c);
	}
	if (c->start == START_DRAIN && replica_is_drained(c))
		take_ballot(c);
	if (c->start == START_SAVE && (c->state_written >= c->state_wait || PLANTED(early_lead))) /* V1 */
		lead_begin(c);
	if (c->start == START_REBALLOT && (c->state_written >= c->state_wait || PLANTED(early_reballot))) { /* V1, V5 */
		c->lead = c->state.promised;
		c->start = START_DONE;
		c->nacked = false;
		guest_reballot(c);
		flush_reballot(c);
		peers_reballot(c);
	}
}

/* V34: nothing in flight and nothing needed, so that a stamp tells on which side of the line a block was written. */
static bool is_quiet(const struct volume_core *c)
{
	uint8_t in_sync = core_in_sync(c);

	if (!core_all_known(c) || c->join >= JOIN_JOINT)
		return false;
	for (const struct op *op = c->ops; op; op = op->next)
		if (op->kind != OP_READ)
			return false;
	for (unsigned i = 0; i < PEERS_MAX; i++)
		if ((in_sync >> i & 1) && c->peers[i].n_need)
			return false;
	return true;
}

int volume_core_checkpoint(struct volume_core *c, const struct volume_row *row, struct volume_ballot *ret)
{
	if (!core_acting(c) || row->epoch != c->lead.epoch || row->primary != c->config.self)
		return -EPERM;
	if (!is_quiet(c) || c->lead.minor == MINOR_MAX)
		return -EBUSY;
	*ret = c->lead;
	if (!PLANTED(backup_without_bump))
		goes_on_in(c, (struct volume_ballot){c->lead.epoch, c->lead.minor + 1});
	core_step(c);
	return 0;
}

/* ---- rows ---- */

/* V5: the same primary in a newer epoch. */
static void learn_epoch(struct volume_core *c)
{
	const struct volume_member *me = core_member(c, c->config.self);
	bool goes_on = c->row.primary == c->config.self && c->row.primary_since <= c->lead.epoch && me &&
		       (me->incarnation == c->state.incarnation || PLANTED(cut_primary_leads));

	if (!goes_on || c->start == START_DRAIN || c->start == START_SAVE) {
		core_step_down(c);
		return;
	}
	goes_on_in(c, (struct volume_ballot){c->row.epoch, 0});
}

void volume_core_row(struct volume_core *c, const struct volume_row *row)
{
	uint32_t before = c->row.epoch;

	CHECK(row->n_members <= VOLUME_MEMBERS_MAX);
	if (c->has_row && row->version <= c->row.version)
		return;
	c->row = *row;
	c->has_row = true;
	if (row->epoch > c->seen)
		c->seen = row->epoch;
	if (row->epoch > before)
		c->ask_again = c->now;
	peers_row(c);
	if (c->start != START_NONE && row->epoch > c->lead.epoch)
		learn_epoch(c);
	core_step(c);
}

/* ---- turning ---- */

#define PACE_BURST (100 * USEC_PER_MS)

bool core_pace(const struct volume_core *c, usec_t *next, uint64_t rate, uint64_t bytes)
{
	if (rate == 0)
		return true;
	if (c->now < *next)
		return false;
	if (*next + PACE_BURST < c->now)
		*next = c->now - PACE_BURST;
	*next += bytes * USEC_PER_SEC / rate;
	return true;
}

void core_step(struct volume_core *c)
{
	if (c->stepping || c->broken)
		return;
	c->stepping = true;
	replica_step(c);
	start_step(c);
	if (core_acting(c)) {
		peers_step(c);
		guest_step(c);
		copy_step(c);
		scrub_step(c);
		flush_step(c);
		guest_step(c);
		clear_step(c);
	}
	if (!c->broken)
		disk_step(c);
	c->stepping = false;
}

void volume_core_tick(struct volume_core *c, usec_t now)
{
	bool was_late = now > c->now + TICK_LATE;

	c->now = now;
	peers_tick(c, was_late);
	core_step(c);
}

void volume_core_io_done(struct volume_core *c, struct volume_io *io, int rc)
{
	CHECK(c->ios > 0);
	c->ios--;
	io->done(c, io, rc);
	core_step(c);
}

/* ---- life ---- */

static void load(struct volume_core *c, const struct volume_config *config)
{
	size_t words = bit_words(c->n_extents);

	for (uint32_t e = 0; e < c->n_extents; e++)
		if (config->intents[e / 8] >> (e % 8) & 1) {
			bit_set(c->intents, e);
			bit_set(c->durable, e);
		}
	for (uint32_t e = 0; e < c->n_extents; e++)
		map_load(c, e, &config->stamps[(size_t)e * VOLUME_EXTENT_BLOCKS]);
	if (!PLANTED(map_lost)) /* V30 */
		disk_restamp_intents(c, c->state.promised, (struct volume_ballot){0, 0});
	memset(c->unflushed, 0xff, words * sizeof *c->unflushed);
}

struct volume_core *volume_core_new(const struct volume_config *config, const struct volume_effects *effects,
				    usec_t now)
{
	struct volume_core *c = xcalloc(1, sizeof *c);
	size_t words;

	CHECK(config->size > 0 && config->size <= VOLUME_SIZE_MAX && config->size % VOLUME_SECTOR_BYTES == 0);
	c->config = *config;
	c->fx = *effects;
	c->now = now;
	c->state = config->state;
	c->n_extents = volume_extents(config->size);
	c->n_blocks = volume_blocks(config->size);
	words = bit_words(c->n_extents);
	c->intents = xcalloc(words, 8);
	c->durable = xcalloc(words, 8);
	c->writing = xcalloc(words, 8);
	c->clearing = xcalloc(words, 8);
	c->mapped = xcalloc(words, 8);
	c->unflushed = xcalloc(words, 8);
	c->remote = xcalloc(words, 8);
	c->restamped = xcalloc(words, 8);
	c->flush.fset = xcalloc(words, 8);
	c->intent_bytes = xcalloc(words, 8);
	c->touched = xcalloc(c->n_extents, sizeof *c->touched);
	c->map_writes = xcalloc(c->n_extents, sizeof *c->map_writes);
	c->stamps = xcalloc(c->n_extents, sizeof *c->stamps);
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		c->peers[i].need = xcalloc(bit_words(c->n_blocks), 8);
		c->peers[i].seen = xcalloc(words, 8);
	}
	c->waiting_end = &c->waiting;
	load(c, config);
	return c;
}

struct volume_core *volume_core_free(struct volume_core *c)
{
	if (!c)
		return NULL;
	guest_free(c);
	replica_free(c);
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		free(c->peers[i].need);
		free(c->peers[i].seen);
	}
	free(c->intents);
	free(c->durable);
	free(c->writing);
	free(c->clearing);
	free(c->mapped);
	free(c->unflushed);
	free(c->remote);
	free(c->restamped);
	free(c->flush.fset);
	free(c->intent_bytes);
	free(c->touched);
	free(c->map_writes);
	map_free(c);
	free(c->cold_set);
	free(c);
	return NULL;
}

/* ---- asking ---- */

static void status_peer(const struct volume_core *c, unsigned slot, struct volume_core_status *ret)
{
	const struct peer *p = &c->peers[slot];

	if (p->node == 0)
		return;
	ret->need_blocks += p->n_need;
	ret->peers[ret->n_peers++] = (struct volume_peer_status){.node = p->node,
								 .in_sync = core_in_sync(c) >> slot & 1,
								 .connected = peer_connected(p),
								 .known = p->known,
								 .need_blocks = p->n_need,
								 .need_total = p->need_total,
								 .since = p->need_since};
}

enum volume_role volume_core_role(const struct volume_core *c)
{
	if (c->start == START_DONE || c->start == START_REBALLOT)
		return VOLUME_LEADING;
	return c->start == START_NONE ? VOLUME_IDLE : VOLUME_STARTING;
}

bool volume_core_serves(const struct volume_core *c)
{
	return volume_core_role(c) == VOLUME_LEADING && c->lead.epoch >= c->row.vm_epoch; /* V32 */
}

void volume_core_status(const struct volume_core *c, struct volume_core_status *ret)
{
	*ret = (struct volume_core_status){
		.role = volume_core_role(c),
		.lead = c->lead,
		.promised = c->state.promised,
		.active = c->state.active,
		.serves = volume_core_serves(c),
		.join = c->join,
		.joiner = c->join ? c->peers[c->joiner].node : 0,
		.intents = bits_count(c->intents, c->n_extents),
		.unflushed = bits_count(c->unflushed, c->n_extents),
	};
	for (unsigned i = 0; i < PEERS_MAX && ret->role != VOLUME_IDLE; i++)
		status_peer(c, i, ret);
	ret->n_blocks = core_blocks(c);
	ret->scrub = c->scrub.status;
	for (const struct volume_request *r = c->waiting; r; r = r->next)
		ret->waiting++;
}

struct volume_ballot volume_core_stamp(const struct volume_core *c, uint64_t block)
{
	CHECK(block < c->n_blocks);
	return map_get(c, block);
}

bool volume_core_intent(const struct volume_core *c, uint32_t extent)
{
	CHECK(extent < c->n_extents);
	return bit_get(c->intents, extent);
}

bool volume_core_needs(const struct volume_core *c, node_id_t node, uint64_t block)
{
	int slot = peer_slot(c, node);

	CHECK(block < c->n_blocks);
	return slot >= 0 && bit_get(c->peers[slot].need, block);
}

bool volume_core_known(const struct volume_core *c, node_id_t node)
{
	int slot = peer_slot(c, node);

	return slot >= 0 && c->peers[slot].known;
}

bool volume_core_busy(const struct volume_core *c, uint64_t offset, uint64_t length)
{
	return guest_busy(c, offset, length, OP_READ) || guest_busy(c, offset, length, OP_COPY);
}
