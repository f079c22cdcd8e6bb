/* SPDX-License-Identifier: Apache-2.0
 * Links that are made anew: two of them stand side by side, each in its own order, the streams move from the older to
 * the newer one by HELLO, what lingers in the older one comes after that, and then either ends. As engine_links.c. */
#include "tests/volume_sim/vsim.h"

static bool is_answer(enum volume_frame_kind kind)
{
	return kind == VOLUME_F_WELCOME || kind == VOLUME_F_ACK || kind == VOLUME_F_HASHED || kind == VOLUME_F_FETCHED;
}

/* Of the link on which @from sends @f. */
uint64_t renew_life_for(const struct vsim *s, unsigned from, unsigned to, const struct volume_frame *f)
{
	if (!s->renews || f->kind == VOLUME_F_NACK)
		return s->link_life[from][to];
	return is_answer(f->kind) ? s->in[from][to] : s->out[from][to];
}

bool renew_stands(const struct vsim *s, unsigned from, unsigned to, uint64_t life)
{
	return life == s->link_life[from][to] || (life && life == s->older[from][to]);
}

/* When it arrives: each link keeps its order. */
usec_t renew_queue(struct vsim *s, unsigned from, unsigned to, uint64_t life, usec_t at)
{
	bool is_newest = life == s->link_life[from][to];
	usec_t *last = is_newest ? &s->link_last[from][to] : &s->older_last[from][to];

	if (!is_newest)
		at += s->older_lag[from][to];
	if (at <= *last)
		at = *last + 1;
	*last = at;
	return at;
}

void renew_came(struct vsim *s, unsigned from, unsigned to, uint64_t life, const struct volume_frame *f)
{
	if (life == s->older[from][to])
		s->overtaken++;
	if (f->kind == VOLUME_F_HELLO && volume_core_obeys(s->nodes[to].core, f))
		s->in[to][from] = life;
}

/* The stream of @node as the primary begins on the newest link. */
void renew_begin(struct vsim *s, unsigned node, unsigned peer)
{
	s->out[node][peer] = s->link_life[node][peer];
	volume_core_link_up(s->nodes[node].core, peer);
}

static void begin_event(struct vsim *s, struct vs_event *e)
{
	if (s->link[e->node][e->a] && s->out[e->node][e->a] != s->link_life[e->node][e->a])
		renew_begin(s, e->node, (unsigned)e->a);
}

static void begin_soon(struct vsim *s, unsigned a, unsigned b, usec_t within)
{
	if (s->nodes[a].up)
		vs_after(s, vs_random(s, within), begin_event, a)->a = b;
	if (s->nodes[b].up)
		vs_after(s, vs_random(s, within), begin_event, b)->a = a;
}

/* What is on it is lost, or lingers. */
static void end_older(struct vsim *s, unsigned a, unsigned b)
{
	s->older[a][b] = s->older[b][a] = 0;
	begin_soon(s, a, b, 5 * USEC_PER_MS);
}

/* The newer one dies, and the older one is the newest again. */
static void end_newer(struct vsim *s, unsigned a, unsigned b)
{
	s->link_life[a][b] = s->link_life[b][a] = s->older[a][b];
	s->link_last[a][b] = s->older_last[a][b];
	s->link_last[b][a] = s->older_last[b][a];
	s->older[a][b] = s->older[b][a] = 0;
	begin_soon(s, a, b, 5 * USEC_PER_MS);
}

static usec_t lag(struct vsim *s)
{
	return vs_chance(s, 500) ? vs_random(s, 300 * USEC_PER_MS) : 0;
}

static void renew(struct vsim *s, unsigned a, unsigned b)
{
	vs_log(s, "the link of %u and %u is made anew", a, b);
	s->renewals++;
	s->older[a][b] = s->older[b][a] = s->link_life[a][b];
	s->older_last[a][b] = s->link_last[a][b];
	s->older_last[b][a] = s->link_last[b][a];
	s->older_lag[a][b] = lag(s);
	s->older_lag[b][a] = lag(s);
	s->link_life[a][b] = s->link_life[b][a] = ++s->lives;
	s->link_last[a][b] = s->link_last[b][a] = 0;
	begin_soon(s, a, b, 200 * USEC_PER_MS);
}

/* Of any two: another link, or the end of one of the two that they have. */
void renew_event(struct vsim *s, struct vs_event *e)
{
	unsigned a = 1 + (unsigned)vs_random(s, NODES), b = a % NODES + 1;
	bool is_whole = s->link[a][b] && !s->lossy[a][b] && !s->lossy[b][a];

	(void)e;
	if (is_whole && !s->older[a][b])
		renew(s, a, b);
	else if (is_whole && vs_chance(s, 250))
		end_newer(s, a, b);
	else if (is_whole)
		end_older(s, a, b);
	vs_after(s, vs_random(s, 300 * USEC_PER_MS), renew_event, 0);
}
