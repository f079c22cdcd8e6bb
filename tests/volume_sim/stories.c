/* SPDX-License-Identifier: Apache-2.0
 * Stories: several faults in the order in which they hurt, for those mistakes that chance alone hardly meets. A story
 * is a list of steps; each waits until the one before has had its effect, which is looked for after each event. */
#include "tests/volume_sim/story.h"

#define TOLD_WITHIN (8 * USEC_PER_SEC)
#define TOLD_FROM   128 /* the last story, in seeds from this on: histories that were recorded before are kept */
#define STEPS_MAX   14  /* and at least one that is empty */

struct vs_step {
	bool (*when)(struct vsim *s);
	void (*then)(struct vsim *s); /* NULL: nothing */
};

/* ---- what it does ---- */

static void set_cut(struct vsim *s, unsigned a, unsigned b, bool on)
{
	s->cut_until[a][b] = s->cut_until[b][a] = on ? s->now + 60 * USEC_PER_SEC : 0;
	if (on)
		vs_link_break(s, a, b);
}

static void part_a_b(struct vsim *s)
{
	set_cut(s, s->story.a, s->story.b, true);
}

static void join_a_b(struct vsim *s)
{
	set_cut(s, s->story.a, s->story.b, false);
}

static void cut_b(struct vsim *s)
{
	part_a_b(s);
	set_cut(s, s->story.c, s->story.b, true);
}

static void cut_c(struct vsim *s)
{
	set_cut(s, s->story.a, s->story.c, true);
	set_cut(s, s->story.b, s->story.c, true);
}

static void cut_b_and_c(struct vsim *s)
{
	cut_b(s);
	cut_c(s);
}

static void join_all(struct vsim *s)
{
	for (unsigned a = 1; a <= NODES; a++)
		for (unsigned b = a + 1; b <= NODES; b++)
			set_cut(s, a, b, false);
}

/* The guest writes, and its node is the only one that may answer it. */
static void write_it(struct vsim *s)
{
	(void)vs_guest_issue(s, VOLUME_WRITE, s->story.hot);
}

static void zero_it(struct vsim *s)
{
	(void)vs_guest_issue(s, VOLUME_ZERO, s->story.hot);
}

static void read_it(struct vsim *s)
{
	(void)vs_guest_issue(s, VOLUME_READ, s->story.hot);
}

static void flush(struct vsim *s)
{
	(void)vs_guest_issue(s, VOLUME_FLUSH, 0);
}

static void write_alone(struct vsim *s)
{
	part_a_b(s);
	write_it(s);
}

/* What it asked for and was not told stays unknown to its node, for it does not come back. */
static void hold_guest(struct vsim *s)
{
	s->guest.held = true;
}

static void restart(struct vsim *s, unsigned node)
{
	vs_node_crash(s, node);
	vs_node_start(s, node);
}

static void restart_a(struct vsim *s)
{
	restart(s, s->story.a);
}

/* Its engine settles first. */
static void restart_a_and_write(struct vsim *s)
{
	restart_a(s);
	write_it(s);
}

static void restart_b(struct vsim *s)
{
	restart(s, s->story.b);
}

static void ask_late_for_b(struct vsim *s)
{
	s->nodes[s->story.a].ask_lag = USEC_PER_SEC;
	join_all(s);
}

static void wait_for_the_answer(struct vsim *s)
{
	s->story.at = s->now + 1200 * USEC_PER_MS;
}

static void restart_a_without_b(struct vsim *s)
{
	s->nodes[s->story.a].ask_lag = 0;
	cut_b(s);
	restart_a(s);
}

static void restart_a_held(struct vsim *s)
{
	hold_guest(s);
	restart_a(s);
}

static void restart_a_near_b(struct vsim *s)
{
	join_a_b(s);
	restart_a_held(s);
}

static void power_off_a(struct vsim *s)
{
	hold_guest(s);
	vs_node_power_off(s, s->story.a);
}

static void power_on(struct vsim *s, unsigned node)
{
	s->nodes[node].power = true;
	s->nodes[node].boot++;
	vs_node_start(s, node);
}

static void power_on_a(struct vsim *s)
{
	power_on(s, s->story.a);
	join_all(s);
}

static void power_cut_b(struct vsim *s)
{
	vs_node_power_off(s, s->story.b);
	power_on(s, s->story.b);
}

static void power_cut_c(struct vsim *s)
{
	vs_node_power_off(s, s->story.c);
	power_on(s, s->story.c);
}

static void power_cut_all(struct vsim *s)
{
	s->story.led = true;
	for (unsigned n = 1; n <= NODES; n++)
		vs_node_power_off(s, n);
	for (unsigned n = 1; n <= NODES; n++)
		power_on(s, n);
}

/* The takeover by another, which the guest's death comes before. */
static void move(struct vsim *s, unsigned to, bool keep_old)
{
	const struct volume_member *m = vs_member(s, to);

	if (!m->in_sync || m->reported != m->incarnation) { /* a fault came between */
		s->story.until = s->now;
		return;
	}
	vs_guest_kill(s);
	store_move(s, to, keep_old);
}

static void move_to_b(struct vsim *s)
{
	hold_guest(s);
	move(s, s->story.b, s->nodes[s->story.a].up);
}

static void move_to_c(struct vsim *s)
{
	hold_guest(s);
	move(s, s->story.c, vs_chance(s, 500));
}

static void a_dies_and_b_takes_over(struct vsim *s)
{
	power_off_a(s);
	move_to_b(s);
}

static void b_takes_over_from_a(struct vsim *s)
{
	join_all(s);
	move(s, s->story.b, false);
}

static void write_without_c(struct vsim *s)
{
	set_cut(s, s->story.a, s->story.c, true);
	write_it(s);
}

/* What a node promises reaches its disk late. A does not hear of the takeover. */
static void b_takes_over(struct vsim *s, unsigned slow)
{
	struct vs_node *n = &s->nodes[slow];

	n->stall[W_STATE] = 4 * USEC_PER_SEC;
	n->stall_until[W_STATE] = s->now + 2 * USEC_PER_SEC;
	s->nodes[s->story.a].no_store_until = s->now + 5 * USEC_PER_SEC;
	part_a_b(s);
	move(s, s->story.b, false);
}

static void b_takes_over_and_c_is_slow(struct vsim *s)
{
	b_takes_over(s, s->story.c);
}

static void b_takes_over_and_is_slow(struct vsim *s)
{
	b_takes_over(s, s->story.b);
}

/* It forgets what is not on its disk, and meets the old primary first. */
static void restart_near_a(struct vsim *s, unsigned node)
{
	set_cut(s, s->story.b, s->story.c, true);
	s->nodes[node].no_store_until = s->now + USEC_PER_SEC;
	restart(s, node);
	set_cut(s, s->story.a, node, false);
}

static void restart_c_near_a(struct vsim *s)
{
	restart_near_a(s, s->story.c);
}

static void restart_b_near_a(struct vsim *s)
{
	restart_near_a(s, s->story.b);
}

static void force(struct vsim *s, unsigned node)
{
	struct volume_member *m = vs_member(s, node);

	if (m->in_sync || !m->reported) {
		s->story.until = s->now;
		return;
	}
	vs_guest_kill(s);
	store_force(s, m);
}

static void force_b(struct vsim *s)
{
	hold_guest(s);
	force(s, s->story.b);
}

static void force_b_behind_a(struct vsim *s)
{
	s->nodes[s->story.a].no_store_until = s->story.until;
	force_b(s);
}

static void force_a_behind_b(struct vsim *s)
{
	s->nodes[s->story.b].no_store_until = s->story.until;
	s->guest.held = false;
	force(s, s->story.a);
}

static void stall(struct vsim *s, unsigned node, enum vs_write_kind kind)
{
	s->nodes[node].stall[kind] = 4 * USEC_PER_SEC;
	s->nodes[node].stall_until[kind] = s->story.until;
}

static void write_not_at_a(struct vsim *s)
{
	stall(s, s->story.a, W_INTENTS);
	write_it(s);
}

static void write_without_c_not_at_a(struct vsim *s)
{
	cut_c(s);
	write_not_at_a(s);
}

static void write_late_at_b(struct vsim *s)
{
	stall(s, s->story.b, W_DATA);
	s->nodes[s->story.b].stall[W_DATA] = 700 * USEC_PER_MS;
	write_not_at_a(s);
}

/* C joins while B, whose disk is slow, settles the same blocks. */
static void restart_a_near_slow_b(struct vsim *s)
{
	stall(s, s->story.b, W_DATA);
	join_all(s);
	restart_a_held(s);
}

static void write_alone_at_the_end(struct vsim *s)
{
	s->story.hot = 3 * PER_BLOCK + 1; /* of an extent: who joins is there before it is copied */
	write_alone(s);
}

/* A new epoch comes, and what A promises in it reaches its disk late. */
static void cut_c_and_a_is_slow(struct vsim *s)
{
	stall(s, s->story.a, W_STATE);
	cut_c(s);
}

/* It goes on from what its disk has. */
static void restart_a_that_is_no_more_slow(struct vsim *s)
{
	s->nodes[s->story.a].stall_until[W_STATE] = 0;
	restart_a_held(s);
}

static void reconnect(struct vsim *s)
{
	vs_guest_reconnect(s);
}

/* ---- the stories ---- */

static const struct {
	const char *name;
	struct vs_step steps[STEPS_MAX];
} stories[] = {
	/* A copy is lost with the power before any flush. */
	{"copy_is_cut",
	 {{when_calm, write_alone},
	  {when_a_has_it, restart_a_near_b},
	  {when_b_is_settled, power_cut_b},
	  {when_b_is_out, NULL},
	  {when_all_are_in, NULL}}},
	/* The comparison is done, the copying is not. */
	{"copying_breaks",
	 {{when_calm, write_alone},
	  {when_a_has_it, restart_a_near_b},
	  {when_a_knows_b, part_a_b},
	  {when_b_is_out, join_a_b},
	  {when_all_are_in, NULL}}},
	/* A write that one has, in a ballot that differs from that of the others by its minor alone. */
	{"same_epoch",
	 {{when_calm, write_alone},
	  {when_a_has_it, restart_a_held},
	  {when_b_is_out, join_a_b},
	  {when_all_are_in, NULL}}},
	/* A write in flight keeps its stamp over a new epoch, in which its replica is active already. */
	{"older_than_active",
	 {{when_calm, write_without_c_not_at_a},
	  {when_b_has_it, NULL},
	  {when_b_is_active_in_the_next_epoch, a_dies_and_b_takes_over},
	  {when_b_leads, power_on_a},
	  {when_all_are_in, NULL}}},
	/* The stamps of a restarted replica reach its disk with the clearing. */
	{"stamps_of_a_restarted_one",
	 {{when_calm, cut_c},
	  {when_c_is_out, write_it},
	  {when_written, restart_b},
	  {when_intents_are_off, move_to_b},
	  {when_b_leads, join_all},
	  {when_all_are_in, NULL}}},
	/* Two takeovers, and the third one's stamp is of a copy that sent no data. */
	{"stamp_of_equal_data",
	 {{when_calm, write_not_at_a},
	  {when_b_and_c_have_it, a_dies_and_b_takes_over},
	  {when_b_leads, NULL},
	  {when_intents_are_off, move_to_c},
	  {when_c_leads, power_on_a},
	  {when_all_are_in, NULL}}},
	/* B joins by a block that has become again what it was. */
	{"equal_again",
	 {{when_calm, zero_it},
	  {when_calm, cut_b},
	  {when_b_is_out, write_it},
	  {when_written, NULL},
	  {when_intents_are_off, cut_b_and_c},
	  {when_b_and_c_are_out, zero_it},
	  {when_written, NULL},
	  {when_intents_are_off, join_a_b},
	  {when_b_is_in, restart_b},
	  {when_soon, move_to_b},
	  {when_b_leads, join_all},
	  {when_all_are_in, NULL}}},
	/* The winner of a FORCE lacks what the others flushed and cleared. */
	{"forced",
	 {{when_calm, cut_b},
	  {when_b_is_out, write_it},
	  {when_written, NULL},
	  {when_intents_are_off, force_b},
	  {when_b_leads, join_all},
	  {when_all_are_in, NULL}}},
	/* A VM comes back to an engine that has not heard of what was between. */
	{"forced_twice",
	 {{when_calm, cut_b_and_c},
	  {when_b_and_c_are_out, force_b_behind_a},
	  {when_b_leads, force_a_behind_b},
	  {when_soon, write_it},
	  {when_soon, flush},
	  {when_soon, join_a_b},
	  {when_soon, NULL},
	  {when_soon, join_all}}},
	/* A copy goes to two; one of them has it and loses its power, before the other has it. */
	{"copy_to_two",
	 {{when_calm, cut_c},
	  {when_c_is_out, write_alone_at_the_end},
	  {when_a_has_it, restart_a_near_slow_b},
	  {when_c_has_it, power_cut_c},
	  {when_all_are_in, NULL}}},
	/* A request waits for the settling when its connection breaks; the guest goes on over the next one. */
	{"reconnects",
	 {{when_calm, write_it},
	  {when_written, restart_a_and_write},
	  {when_a_waits, reconnect},
	  {when_written, write_it},
	  {when_written, flush},
	  {when_written, NULL},
	  {when_soon, NULL}}},
	/* A frame of the old primary is still on its way to the disk of the new one. */
	{"late_frame",
	 {{when_calm, write_late_at_b},
	  {when_b_intends_it, a_dies_and_b_takes_over},
	  {when_soon, power_on_a},
	  {when_all_are_in, NULL}}},
	/* A promise that is told before it is kept (V1): C welcomes B, forgets, and obeys A, whose write it had not
	   got. */
	{"early_welcome",
	 {{when_calm, write_without_c},
	  {when_a_has_it, b_takes_over_and_c_is_slow},
	  {when_b_leads, write_it},
	  {when_written, restart_c_near_a},
	  {when_soon, NULL},
	  {when_soon, NULL},
	  {when_soon, join_all},
	  {when_all_are_in, NULL}}},
	/* B leads before its own promise is kept, and obeys A afterwards. */
	{"early_lead",
	 {{when_calm, write_alone},
	  {when_a_has_it, b_takes_over_and_is_slow},
	  {when_b_leads, write_it},
	  {when_written, restart_b_near_a},
	  {when_soon, NULL},
	  {when_soon, NULL},
	  {when_soon, join_all},
	  {when_all_are_in, NULL}}},
	/* What one read must still be there when another takes over. */
	{"read_in_flight",
	 {{when_calm, write_alone},
	  {when_a_has_it, read_it},
	  {when_soon, b_takes_over_from_a},
	  {when_b_leads, read_it},
	  {when_written, NULL}}},
	/* What was read after a cold start must be there after the next. */
	{"cold_twice",
	 {{when_calm, write_it},
	  {when_written, power_cut_all},
	  {when_it_is_served, read_it},
	  {when_written, power_cut_all},
	  {when_it_is_served, read_it},
	  {when_all_are_in, NULL}}},
	/* An ADD is under way when its primary restarts and goes on without the one that it adds. */
	{"late_answer",
	 {{when_calm, cut_b},
	  {when_b_is_out, ask_late_for_b},
	  {when_a_has_proposed, restart_a_without_b},
	  {when_a_leads, write_it},
	  {when_written, flush},
	  {when_written, wait_for_the_answer},
	  {when_soon, join_all},
	  {when_all_are_in, NULL}}},
	/* A goes on into an epoch before its promise is kept: B is active in that ballot, and A takes it once more, for
	   a write that B has not got. */
	{"early_reballot",
	 {{when_calm, cut_c_and_a_is_slow},
	  {when_b_is_active_in_the_next_epoch, write_alone},
	  {when_a_has_it, restart_a_that_is_no_more_slow},
	  {when_b_is_out, join_all},
	  {when_all_are_in, NULL}}},
};

/* ---- one after the other ---- */

static void next_story(struct vsim *s, struct vs_event *e)
{
	struct vs_story *t = &s->story;
	size_t kind = vs_random(s, ARRAY_LEN(stories) - (s->seed < TOLD_FROM));

	(void)e;
	if (s->healing)
		return;
	faults_end(s);
	*t = (struct vs_story){.name = stories[kind].name, .next = stories[kind].steps, .until = s->now + TOLD_WITHIN};
	t->hot = (unsigned)vs_random(s, HOT);
	s->guest.quiet = true;
}

void stories_start(struct vsim *s)
{
	vs_after(s, vs_random(s, 2 * USEC_PER_SEC), next_story, 0);
}

static void end_story(struct vsim *s, const char *how)
{
	vs_log(s, "story %s ends: %s", s->story.name, how);
	s->story = (struct vs_story){0};
	faults_end(s);
	stories_start(s);
}

/* Who is who is known when the story begins. */
static void cast(struct vsim *s)
{
	struct vs_story *t = &s->story;

	t->begun = true;
	t->a = s->row.primary;
	t->b = t->a % NODES + 1;
	t->c = t->b % NODES + 1;
	if (vs_chance(s, 500)) {
		t->b = t->c;
		t->c = t->a % NODES + 1;
	}
	vs_log(s, "story %s: a %u, b %u, c %u, sector %llu", t->name, t->a, t->b, t->c,
	       (unsigned long long)vs_disk_sector(t->hot));
}

void stories_step(struct vsim *s)
{
	struct vs_story *t = &s->story;

	if (s->now >= t->until) {
		end_story(s, "it cannot go on");
		return;
	}
	while (t->next->when && s->now < t->until && t->next->when(s)) {
		void (*then)(struct vsim * s) = t->next->then;

		if (!t->begun)
			cast(s);
		t->epoch = s->row.epoch;
		t->at = s->now + 20 * USEC_PER_MS + vs_random(s, 200 * USEC_PER_MS);
		t->next++;
		if (then)
			then(s);
	}
	if (!t->next->when)
		end_story(s, "told");
}
