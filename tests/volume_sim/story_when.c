/* SPDX-License-Identifier: Apache-2.0
 * What the steps of stories wait for. */
#include "tests/volume_sim/story.h"

static struct volume_core_status status(const struct vsim *s, unsigned node)
{
	struct volume_core_status st = {0};

	if (s->nodes[node].up)
		volume_core_status(s->nodes[node].core, &st);
	return st;
}

static bool leads(const struct vsim *s, unsigned node)
{
	struct volume_core_status st = status(s, node);

	return s->row.primary == node && st.role == VOLUME_LEADING && st.lead.epoch == s->row.epoch;
}

static bool in_sync(struct vsim *s, unsigned node)
{
	return vs_member(s, node)->in_sync;
}

bool when_soon(struct vsim *s)
{
	return s->now >= s->story.at;
}

bool when_a_leads(struct vsim *s)
{
	return leads(s, s->story.a);
}

bool when_b_leads(struct vsim *s)
{
	return leads(s, s->story.b);
}

bool when_c_leads(struct vsim *s)
{
	return leads(s, s->story.c);
}

bool when_it_is_served(struct vsim *s)
{
	return leads(s, s->row.primary) && s->guest.client;
}

bool when_b_is_out(struct vsim *s)
{
	return !in_sync(s, s->story.b) && when_a_leads(s);
}

bool when_c_is_out(struct vsim *s)
{
	return !in_sync(s, s->story.c) && when_a_leads(s);
}

bool when_b_and_c_are_out(struct vsim *s)
{
	return when_b_is_out(s) && !in_sync(s, s->story.c);
}

bool when_b_is_in(struct vsim *s)
{
	return in_sync(s, s->story.b) && when_a_leads(s) && status(s, s->story.a).need_blocks == 0;
}

bool when_all_are_in(struct vsim *s)
{
	for (unsigned n = 1; n <= NODES; n++)
		if (!s->nodes[n].up || !in_sync(s, n))
			return false;
	return leads(s, s->row.primary) && status(s, s->row.primary).need_blocks == 0;
}

/* The members let all intents go. */
bool when_intents_are_off(struct vsim *s)
{
	for (unsigned n = 1; n <= NODES; n++)
		if (in_sync(s, n) && (!s->nodes[n].up || status(s, n).intents))
			return false;
	return leads(s, s->row.primary) && status(s, s->row.primary).need_blocks == 0;
}

bool when_calm(struct vsim *s)
{
	return s->guest.client && vs_guest_idle(s) && when_all_are_in(s) && when_intents_are_off(s);
}

bool when_written(struct vsim *s)
{
	return vs_guest_idle(s);
}

static bool has_it(const struct vsim *s, unsigned node)
{
	return s->nodes[node].disk.cached[s->story.hot] == s->guest.next_value;
}

bool when_a_has_it(struct vsim *s)
{
	return has_it(s, s->story.a);
}

bool when_b_has_it(struct vsim *s)
{
	return has_it(s, s->story.b);
}

bool when_c_has_it(struct vsim *s)
{
	return has_it(s, s->story.c);
}

bool when_b_and_c_have_it(struct vsim *s)
{
	return has_it(s, s->story.b) && has_it(s, s->story.c);
}

bool when_b_intends_it(struct vsim *s)
{
	return status(s, s->story.b).intents > 0 && s->now >= s->story.at;
}

bool when_a_knows_b(struct vsim *s)
{
	return when_a_leads(s) && volume_core_known(s->nodes[s->story.a].core, s->story.b);
}

bool when_a_has_proposed(struct vsim *s)
{
	return status(s, s->story.a).join == 4;
}

bool when_b_is_settled(struct vsim *s)
{
	return when_a_knows_b(s) && status(s, s->story.a).need_blocks == 0 &&
	       volume_ballot_compare(status(s, s->story.b).active, status(s, s->story.a).lead) == 0;
}

bool when_b_is_active_in_the_next_epoch(struct vsim *s)
{
	return s->row.epoch > s->story.epoch && status(s, s->story.b).active.epoch == s->row.epoch;
}

bool when_a_waits(struct vsim *s)
{
	return status(s, s->story.a).waiting > 0;
}
