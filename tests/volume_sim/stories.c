/* SPDX-License-Identifier: Apache-2.0
 * Stories: several faults in the order in which they hurt, for those mistakes that chance alone hardly meets. A story
 * is a list of steps; each waits until the one before has had its effect, which is looked for after each event. */
#include "tests/volume_sim/sim.h"

#define TOLD_WITHIN (8 * USEC_PER_SEC)
#define STEPS_MAX   14 /* and at least one that is empty */

struct step {
	bool (*when)(struct sim *s);
	void (*then)(struct sim *s);
};

/* ---- what a step waits for ---- */

static struct volume_core_status status(const struct sim *s, unsigned node)
{
	struct volume_core_status st = {0};

	if (s->nodes[node].up)
		volume_core_status(s->nodes[node].core, &st);
	return st;
}

static bool leads(const struct sim *s, unsigned node)
{
	struct volume_core_status st = status(s, node);

	return s->row.primary == node && st.role == VOLUME_LEADING && st.lead.epoch == s->row.epoch;
}

static bool in_sync(struct sim *s, unsigned node)
{
	return store_member(s, node)->in_sync;
}

static bool at_once(struct sim *s)
{
	(void)s;
	return true;
}

static bool soon(struct sim *s)
{
	return s->now >= s->story.at;
}

static bool a_leads(struct sim *s)
{
	return leads(s, s->story.a);
}

static bool b_leads(struct sim *s)
{
	return leads(s, s->story.b);
}

static bool c_leads(struct sim *s)
{
	return leads(s, s->story.c);
}

static bool b_is_out(struct sim *s)
{
	return !in_sync(s, s->story.b) && a_leads(s);
}

static bool c_is_out(struct sim *s)
{
	return !in_sync(s, s->story.c) && a_leads(s);
}

static bool b_and_c_are_out(struct sim *s)
{
	return b_is_out(s) && !in_sync(s, s->story.c);
}

static bool b_is_in(struct sim *s)
{
	return in_sync(s, s->story.b) && a_leads(s) && status(s, s->story.a).need_blocks == 0;
}

static bool all_are_in(struct sim *s)
{
	for (unsigned n = 1; n <= NODES; n++)
		if (!s->nodes[n].up || !in_sync(s, n))
			return false;
	return leads(s, s->row.primary) && status(s, s->row.primary).need_blocks == 0;
}

/* The members let all intents go. */
static bool intents_are_off(struct sim *s)
{
	for (unsigned n = 1; n <= NODES; n++)
		if (in_sync(s, n) && (!s->nodes[n].up || status(s, n).intents))
			return false;
	return leads(s, s->row.primary) && status(s, s->row.primary).need_blocks == 0;
}

static bool is_calm(struct sim *s)
{
	return s->guest.client && guest_idle(s) && all_are_in(s) && intents_are_off(s);
}

static bool is_written(struct sim *s)
{
	return guest_idle(s);
}

static bool has_it(const struct sim *s, unsigned node)
{
	return s->nodes[node].disk.cached[s->story.hot] == s->guest.next_value;
}

static bool a_has_it(struct sim *s)
{
	return has_it(s, s->story.a);
}

static bool b_has_it(struct sim *s)
{
	return has_it(s, s->story.b);
}

static bool b_and_c_have_it(struct sim *s)
{
	return has_it(s, s->story.b) && has_it(s, s->story.c);
}

static bool b_intends_it(struct sim *s)
{
	return status(s, s->story.b).intents > 0 && s->now >= s->story.at;
}

static bool a_knows_b(struct sim *s)
{
	return a_leads(s) && volume_core_known(s->nodes[s->story.a].core, s->story.b);
}

static bool a_has_proposed(struct sim *s)
{
	return status(s, s->story.a).join == 4;
}

static bool b_is_settled(struct sim *s)
{
	return a_knows_b(s) && status(s, s->story.a).need_blocks == 0 &&
	       volume_ballot_compare(status(s, s->story.b).active, status(s, s->story.a).lead) == 0;
}

static bool b_is_active_in_the_next_epoch(struct sim *s)
{
	return s->row.epoch > s->story.epoch && status(s, s->story.b).active.epoch == s->row.epoch;
}

static bool a_waits(struct sim *s)
{
	return status(s, s->story.a).waiting > 0;
}

/* ---- what it does ---- */

static void nothing(struct sim *s)
{
	(void)s;
}

static void set_cut(struct sim *s, unsigned a, unsigned b, bool on)
{
	s->cut_until[a][b] = s->cut_until[b][a] = on ? s->now + 60 * USEC_PER_SEC : 0;
	if (on)
		link_break(s, a, b);
}

static void part_a_b(struct sim *s)
{
	set_cut(s, s->story.a, s->story.b, true);
}

static void join_a_b(struct sim *s)
{
	set_cut(s, s->story.a, s->story.b, false);
}

static void cut_b(struct sim *s)
{
	part_a_b(s);
	set_cut(s, s->story.c, s->story.b, true);
}

static void cut_c(struct sim *s)
{
	set_cut(s, s->story.a, s->story.c, true);
	set_cut(s, s->story.b, s->story.c, true);
}

static void cut_b_and_c(struct sim *s)
{
	cut_b(s);
	cut_c(s);
}

static void join_all(struct sim *s)
{
	for (unsigned a = 1; a <= NODES; a++)
		for (unsigned b = a + 1; b <= NODES; b++)
			set_cut(s, a, b, false);
}

/* The guest writes, and its node is the only one that may answer it. */
static void write_it(struct sim *s)
{
	(void)guest_issue(s, VOLUME_WRITE, s->story.hot);
}

static void zero_it(struct sim *s)
{
	(void)guest_issue(s, VOLUME_ZERO, s->story.hot);
}

static void read_it(struct sim *s)
{
	(void)guest_issue(s, VOLUME_READ, s->story.hot);
}

static void flush(struct sim *s)
{
	(void)guest_issue(s, VOLUME_FLUSH, 0);
}

static void write_alone(struct sim *s)
{
	part_a_b(s);
	write_it(s);
}

/* What it asked for and was not told stays unknown to its node, for it does not come back. */
static void hold_guest(struct sim *s)
{
	s->guest.held = true;
}

static void restart(struct sim *s, unsigned node)
{
	node_crash(s, node);
	node_start(s, node);
}

static void restart_a(struct sim *s)
{
	restart(s, s->story.a);
}

static void restart_b(struct sim *s)
{
	restart(s, s->story.b);
}

static void ask_late_for_b(struct sim *s)
{
	s->nodes[s->story.a].ask_lag = USEC_PER_SEC;
	join_all(s);
}

static void wait_for_the_answer(struct sim *s)
{
	s->story.at = s->now + 1200 * USEC_PER_MS;
}

static void restart_a_without_b(struct sim *s)
{
	s->nodes[s->story.a].ask_lag = 0;
	cut_b(s);
	restart_a(s);
}

static void restart_a_held(struct sim *s)
{
	hold_guest(s);
	restart_a(s);
}

static void restart_a_near_b(struct sim *s)
{
	join_a_b(s);
	restart_a_held(s);
}

static void power_off_a(struct sim *s)
{
	hold_guest(s);
	node_power_off(s, s->story.a);
}

static void power_on(struct sim *s, unsigned node)
{
	s->nodes[node].power = true;
	s->nodes[node].boot++;
	node_start(s, node);
}

static void power_on_a(struct sim *s)
{
	power_on(s, s->story.a);
	join_all(s);
}

static void power_cut_b(struct sim *s)
{
	node_power_off(s, s->story.b);
	power_on(s, s->story.b);
}

/* The takeover by another, which the guest's death comes before. */
static void move(struct sim *s, unsigned to, bool keep_old)
{
	const struct volume_member *m = store_member(s, to);

	if (!m->in_sync || m->reported != m->incarnation) { /* a fault came between */
		s->story.until = s->now;
		return;
	}
	guest_kill(s);
	store_move(s, to, keep_old);
}

static void move_to_b(struct sim *s)
{
	hold_guest(s);
	move(s, s->story.b, s->nodes[s->story.a].up);
}

static void move_to_c(struct sim *s)
{
	hold_guest(s);
	move(s, s->story.c, sim_chance(s, 500));
}

static void a_dies_and_b_takes_over(struct sim *s)
{
	power_off_a(s);
	move_to_b(s);
}

static void b_takes_over_from_a(struct sim *s)
{
	join_all(s);
	move(s, s->story.b, false);
}

static void force(struct sim *s, unsigned node)
{
	struct volume_member *m = store_member(s, node);

	if (m->in_sync || !m->reported) {
		s->story.until = s->now;
		return;
	}
	guest_kill(s);
	store_force(s, m);
}

static void force_b(struct sim *s)
{
	hold_guest(s);
	force(s, s->story.b);
}

static void force_b_behind_a(struct sim *s)
{
	s->nodes[s->story.a].no_store_until = s->story.until;
	force_b(s);
}

static void force_a_behind_b(struct sim *s)
{
	s->nodes[s->story.b].no_store_until = s->story.until;
	s->guest.held = false;
	force(s, s->story.a);
}

static void stall(struct sim *s, unsigned node, enum write_kind kind)
{
	s->nodes[node].stall[kind] = 4 * USEC_PER_SEC;
}

static void write_not_at_a(struct sim *s)
{
	stall(s, s->story.a, W_INTENTS);
	write_it(s);
}

static void write_without_c_not_at_a(struct sim *s)
{
	cut_c(s);
	write_not_at_a(s);
}

static void write_late_at_b(struct sim *s)
{
	s->nodes[s->story.b].stall[W_DATA] = 700 * USEC_PER_MS;
	write_not_at_a(s);
}

static void reconnect(struct sim *s)
{
	guest_reconnect(s);
}

/* ---- the stories ---- */

static const struct {
	const char *name;
	struct step steps[STEPS_MAX];
} stories[] = {
	/* A copy is lost with the power before any flush. */
	{"copy_is_cut",
	 {{is_calm, write_alone},
	  {a_has_it, restart_a_near_b},
	  {b_is_settled, power_cut_b},
	  {b_is_out, nothing},
	  {all_are_in, nothing}}},
	/* The comparison is done, the copying is not. */
	{"copying_breaks",
	 {{is_calm, write_alone},
	  {a_has_it, restart_a_near_b},
	  {a_knows_b, part_a_b},
	  {b_is_out, join_a_b},
	  {all_are_in, nothing}}},
	/* A write that one has, in a ballot that differs from that of the others by its minor alone. */
	{"same_epoch",
	 {{is_calm, write_alone}, {a_has_it, restart_a_held}, {b_is_out, join_a_b}, {all_are_in, nothing}}},
	/* A write in flight keeps its stamp over a new epoch, in which its replica is active already. */
	{"older_than_active",
	 {{is_calm, write_without_c_not_at_a},
	  {b_has_it, nothing},
	  {b_is_active_in_the_next_epoch, a_dies_and_b_takes_over},
	  {b_leads, power_on_a},
	  {all_are_in, nothing}}},
	/* The stamps of a restarted replica reach its disk with the clearing. */
	{"stamps_of_a_restarted_one",
	 {{is_calm, cut_c},
	  {c_is_out, write_it},
	  {is_written, restart_b},
	  {intents_are_off, move_to_b},
	  {b_leads, join_all},
	  {all_are_in, nothing}}},
	/* Two takeovers, and the third one's stamp is of a copy that sent no data. */
	{"stamp_of_equal_data",
	 {{is_calm, write_not_at_a},
	  {b_and_c_have_it, a_dies_and_b_takes_over},
	  {b_leads, nothing},
	  {intents_are_off, move_to_c},
	  {c_leads, power_on_a},
	  {all_are_in, nothing}}},
	/* B joins by a block that has become again what it was. */
	{"equal_again",
	 {{is_calm, zero_it},
	  {is_calm, cut_b},
	  {b_is_out, write_it},
	  {is_written, nothing},
	  {intents_are_off, cut_b_and_c},
	  {b_and_c_are_out, zero_it},
	  {is_written, nothing},
	  {intents_are_off, join_a_b},
	  {b_is_in, restart_b},
	  {soon, move_to_b},
	  {b_leads, join_all},
	  {all_are_in, nothing}}},
	/* The winner of a FORCE lacks what the others flushed and cleared. */
	{"forced",
	 {{is_calm, cut_b},
	  {b_is_out, write_it},
	  {is_written, nothing},
	  {intents_are_off, force_b},
	  {b_leads, join_all},
	  {all_are_in, nothing}}},
	/* A VM comes back to an engine that has not heard of what was between. */
	{"forced_twice",
	 {{is_calm, cut_b_and_c},
	  {b_and_c_are_out, force_b_behind_a},
	  {b_leads, force_a_behind_b},
	  {soon, write_it},
	  {soon, flush},
	  {soon, join_a_b},
	  {soon, nothing},
	  {soon, join_all}}},
	/* A request waits for the settling when its connection breaks; the guest goes on over the next one. */
	{"reconnects",
	 {{is_calm, write_it},
	  {is_written, restart_a},
	  {at_once, write_it},
	  {a_waits, reconnect},
	  {is_written, write_it},
	  {is_written, flush},
	  {is_written, nothing},
	  {soon, nothing}}},
	/* A frame of the old primary is still on its way to the disk of the new one. */
	{"late_frame",
	 {{is_calm, write_late_at_b},
	  {b_intends_it, a_dies_and_b_takes_over},
	  {soon, power_on_a},
	  {all_are_in, nothing}}},
	/* What one read must still be there when another takes over. */
	{"read_in_flight",
	 {{is_calm, write_alone},
	  {a_has_it, read_it},
	  {soon, b_takes_over_from_a},
	  {b_leads, read_it},
	  {is_written, nothing}}},
	/* An ADD is under way when its primary restarts and goes on without the one that it adds. */
	{"late_answer",
	 {{is_calm, cut_b},
	  {b_is_out, ask_late_for_b},
	  {a_has_proposed, restart_a_without_b},
	  {a_leads, write_it},
	  {is_written, flush},
	  {is_written, wait_for_the_answer},
	  {soon, join_all},
	  {all_are_in, nothing}}},
};

/* ---- one after the other ---- */

static void next_story(struct sim *s, struct event *e)
{
	struct story *t = &s->story;
	size_t kind = sim_random(s, ARRAY_LEN(stories));

	(void)e;
	if (s->healing)
		return;
	faults_end(s);
	*t = (struct story){.name = stories[kind].name, .next = stories[kind].steps, .until = s->now + TOLD_WITHIN};
	t->hot = (unsigned)sim_random(s, HOT);
	s->guest.quiet = true;
}

void stories_start(struct sim *s)
{
	sim_after(s, sim_random(s, 2 * USEC_PER_SEC), next_story, 0);
}

static void end_story(struct sim *s, const char *how)
{
	sim_log(s, "story %s ends: %s", s->story.name, how);
	s->story = (struct story){0};
	faults_end(s);
	stories_start(s);
}

/* Who is who is known when the story begins. */
static void cast(struct sim *s)
{
	struct story *t = &s->story;

	t->begun = true;
	t->a = s->row.primary;
	t->b = t->a % NODES + 1;
	t->c = t->b % NODES + 1;
	if (sim_chance(s, 500)) {
		t->b = t->c;
		t->c = t->a % NODES + 1;
	}
	sim_log(s, "story %s: a %u, b %u, c %u, sector %llu", t->name, t->a, t->b, t->c,
		(unsigned long long)disk_sector(t->hot));
}

void stories_step(struct sim *s)
{
	struct story *t = &s->story;

	if (s->now >= t->until) {
		end_story(s, "it cannot go on");
		return;
	}
	while (t->next->when && s->now < t->until && t->next->when(s)) {
		void (*then)(struct sim * s) = t->next->then;

		if (!t->begun)
			cast(s);
		t->epoch = s->row.epoch;
		t->at = s->now + 20 * USEC_PER_MS + sim_random(s, 200 * USEC_PER_MS);
		t->next++;
		then(s);
	}
	if (!t->next->when)
		end_story(s, "told");
}
