/* SPDX-License-Identifier: Apache-2.0
 * Adaptive polling of a libuv loop. */
#include "volume/spin.h"

#include <sched.h>

#define SHORT     (150 * 1000u)         /* ns: an answer over a network nearby */
#define OFTEN     4                     /* of the last eight waits */
#define CONTESTED (300 * 1000u)         /* ns: a yield takes so long only where somebody else computes */
#define PAUSE_MIN (20ull * 1000 * 1000) /* ns */
#define PAUSE_MAX (2000ull * 1000 * 1000)

static void awake_cb(uv_idle_t *idle)
{
	(void)idle;
}

static bool is_often(uint8_t history)
{
	unsigned n = 0;

	for (; history; history &= (uint8_t)(history - 1))
		n++;
	return n >= OFTEN;
}

/* A disk takes its time, and is better served by a CPU that halts: looking for what it reads made that slower. */
static bool is_worth_it(const struct spin *s, uint64_t now)
{
	return s->disk == 0 && is_often(s->history[s->had_requests]) && now - s->last <= SHORT && now >= s->not_until;
}

/* Whoever wants this CPU gets it. If somebody has work for it, it does not halt, so that a wake is quick, and a loop
 * that sleeps is preferred to one that does not. */
static void give_way(struct spin *s, uint64_t now)
{
	uint64_t later;

	(void)sched_yield();
	later = uv_hrtime();
	if (later - now > CONTESTED) {
		s->pause = s->pause == 0 ? PAUSE_MIN : s->pause < PAUSE_MAX ? 2 * s->pause : s->pause;
		s->not_until = later + s->pause;
	} else if (now - s->not_until > PAUSE_MIN) {
		s->pause = 0;
	}
}

static void before_cb(uv_prepare_t *before)
{
	struct spin *s = before->data;
	uint64_t now = uv_hrtime();

	s->waited = true;
	s->had_requests = s->requests > 0;
	if (is_worth_it(s, now)) {
		(void)uv_idle_start(&s->awake, awake_cb);
		give_way(s, now);
	} else {
		(void)uv_idle_stop(&s->awake);
	}
}

void spin_note(struct spin *s)
{
	uint64_t now = uv_hrtime();
	uint8_t *history = &s->history[s->had_requests];

	if (s->waited)
		*history = (uint8_t)(*history << 1 | (now - s->last <= SHORT));
	s->waited = false;
	s->last = now;
}

void spin_open(struct spin *s, uv_loop_t *loop)
{
	*s = (struct spin){0};
	CHECK(uv_prepare_init(loop, &s->before) == 0 && uv_idle_init(loop, &s->awake) == 0);
	s->before.data = s;
	CHECK(uv_prepare_start(&s->before, before_cb) == 0);
}

void spin_close(struct spin *s, uv_close_cb closed, void *data)
{
	s->before.data = s->awake.data = data;
	uv_close((uv_handle_t *)&s->before, closed);
	uv_close((uv_handle_t *)&s->awake, closed);
}
