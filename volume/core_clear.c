/* SPDX-License-Identifier: Apache-2.0
 * Letting intents go at the primary (V15): when all in-sync members have the extent durably, and nothing goes on in it.
 */
#include "volume/core_internal.h"

/* Nothing under way and nothing needed there. */
static bool is_quiet(const struct volume_core *c, uint32_t extent)
{
	uint64_t offset = (uint64_t)extent * VOLUME_EXTENT_BYTES, length = VOLUME_EXTENT_BYTES;
	uint8_t in_sync = core_in_sync(c);

	for (const struct op *op = c->ops; op; op = op->next)
		if (op->kind != OP_READ && op->offset < offset + length && offset < op->offset + op->length)
			return false;
	if (c->config.size - offset < length)
		length = c->config.size - offset;
	for (unsigned i = 0; i < PEERS_MAX; i++)
		if ((in_sync >> i & 1) && peer_needs(&c->peers[i], offset, length))
			return false;
	return true;
}

static void let_go(struct volume_core *c, uint32_t extent)
{
	uint8_t in_sync = core_in_sync(c);
	bool all = true;

	disk_clear(c, extent);
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		struct volume_frame f = {.kind = VOLUME_F_CLEAR, .offset = extent};

		if (!(in_sync >> i & 1))
			continue;
		if (peer_connected(&c->peers[i]))
			peer_send(c, i, &f);
		else
			all = false;
	}
	if (all)
		bit_clear(c->remote, extent);
}

void clear_step(struct volume_core *c)
{
	bool many;

	if (c->now < c->clear_again || !core_all_known(c))
		return;
	c->clear_again = c->now + CLEAR_EVERY;
	many = bits_count(c->intents, c->n_extents) > c->config.intents_cap;
	for (uint32_t e = 0; e < c->n_extents; e++) {
		if ((!bit_get(c->intents, e) && !bit_get(c->remote, e)) || bit_get(c->clearing, e))
			continue;
		if (!many && c->now - c->touched[e] < c->config.clear_after)
			continue;
		if (!is_quiet(c, e))
			continue;
		if (bit_get(c->unflushed, e) && !PLANTED(clear_unflushed))
			c->flush_wanted = true;
		else
			let_go(c, e);
	}
}
