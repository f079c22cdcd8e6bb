/* SPDX-License-Identifier: Apache-2.0
 * Virtual time: the heap of events, each node's clock, randomness from the seed. */
#include "tests/sim/disks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *planted_bug;

/* xorshift64* (Vigna 2016) */
uint64_t sim_random(struct world *w, uint64_t below)
{
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return below ? (w->random * 2685821657736338717ULL >> 11) % below : 0;
}

bool sim_chance(struct world *w, unsigned permille)
{
	return sim_random(w, 1000) < permille;
}

usec_t sim_local(const struct world *w, unsigned node)
{
	const struct host *h = &w->hosts[node];

	return h->offset + (usec_t)((__int128)w->now * (1000000 + h->rate_ppm) / 1000000);
}

usec_t sim_virtual_of(const struct world *w, unsigned node, usec_t local)
{
	const struct host *h = &w->hosts[node];
	usec_t since = local > h->offset ? local - h->offset : 0;

	if (local == USEC_INFINITY)
		return USEC_INFINITY;
	return (usec_t)((__int128)since * 1000000 / (1000000 + h->rate_ppm)) + 1;
}

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void push(struct world *w, struct event *e)
{
	size_t i;

	if (w->n_heap == w->cap_heap) {
		w->cap_heap = w->cap_heap ? w->cap_heap * 2 : 1024;
		w->heap = xrealloc(w->heap, w->cap_heap * sizeof(struct event *));
	}
	for (i = w->n_heap++; i > 0 && before(e, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = e;
}

static struct event *pop(struct world *w)
{
	struct event *top = w->heap[0], *last = w->heap[--w->n_heap];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= w->n_heap)
			break;
		if (child + 1 < w->n_heap && before(w->heap[child + 1], w->heap[child]))
			child++;
		if (before(last, w->heap[child]))
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return top;
}

static uint64_t life_of(const struct host *h, enum event_owner owner)
{
	switch (owner) {
	case OWNER_AGENT:
		return h->agent_life;
	case OWNER_MACHINE:
		return h->boot;
	case OWNER_GUARD:
		return h->guard_life;
	default:
		return 0;
	}
}

struct event *sim_after(struct world *w, usec_t delay, event_fn fn, enum event_owner owner, unsigned node)
{
	struct event *e = xcalloc(1, sizeof *e);

	e->at = w->now + delay;
	e->seq = w->seq++;
	e->fn = fn;
	e->owner = owner;
	e->node = node;
	e->life = life_of(&w->hosts[node], owner);
	push(w, e);
	return e;
}

static bool is_alive(const struct host *h, const struct event *e)
{
	if (e->owner == OWNER_WORLD)
		return true;
	if (e->outlives)
		return h->agent_up;
	if (!h->up || e->life != life_of(h, e->owner))
		return false;
	if (e->owner == OWNER_AGENT)
		return h->agent_up;
	return e->owner != OWNER_GUARD || h->guard_up;
}

static void do_next(struct world *w)
{
	struct event *e = pop(w);
	struct host *h = &w->hosts[e->node];

	CHECK(e->at >= w->now);
	w->now = e->at;
	sim_disks_now(w);
	if (is_alive(h, e) && e->owner == OWNER_AGENT && h->hung) {
		e->at = w->now + 5 * USEC_PER_MS; /* it waits in the socket; the order is kept by seq */
		push(w, e);
		return;
	}
	if (is_alive(h, e)) {
		e->fn(w, e);
		if (e->owner == OWNER_AGENT && is_alive(h, e))
			sim_turn(w, e->node);
		sim_check_step(w);
		w->steps++;
	}
	free(e->p);
	free(e);
}

void sim_run(struct world *w, usec_t until)
{
	while (!w->violation) {
		usec_t next = w->n_heap > 0 ? w->heap[0]->at : USEC_INFINITY;
		struct vsim *disk = sim_disks_next(w);

		if (disk && vs_next(disk) < next && vs_next(disk) <= until) {
			w->now = vs_next(disk);
			sim_disks_now(w);
			sim_disks_step(w, disk);
		} else if (next <= until) {
			do_next(w);
		} else {
			break;
		}
	}
	if (!w->violation) {
		w->now = until;
		sim_disks_now(w);
	}
}

void sim_drop_events(struct world *w)
{
	for (size_t i = 0; i < w->n_heap; i++) {
		free(w->heap[i]->p);
		free(w->heap[i]);
	}
	free(w->heap);
	w->heap = NULL;
	w->n_heap = w->cap_heap = 0;
}

void sim_violate(struct world *w, const char *what, const char *fmt, ...)
{
	va_list ap;

	if (w->violation)
		return;
	w->violation = what;
	va_start(ap, fmt);
	(void)vsnprintf(w->detail, sizeof w->detail, fmt, ap);
	va_end(ap);
}

void sim_log(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!w->verbose)
		return;
	printf("%10.3f ", (double)w->now / 1e6);
	va_start(ap, fmt);
	(void)vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}
