/* SPDX-License-Identifier: Apache-2.0
 * Virtual time: the heap of events, and randomness from the seed. */
#include "tests/volume_sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *planted_bug;

/* xorshift64* (Vigna 2016) */
uint64_t sim_random(struct sim *s, uint64_t below)
{
	s->random ^= s->random >> 12;
	s->random ^= s->random << 25;
	s->random ^= s->random >> 27;
	return below ? (s->random * 2685821657736338717ULL >> 11) % below : 0;
}

bool sim_chance(struct sim *s, unsigned permille)
{
	return sim_random(s, 1000) < permille;
}

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void push(struct sim *s, struct event *e)
{
	size_t i;

	if (s->n_heap == s->cap_heap) {
		s->cap_heap = s->cap_heap ? s->cap_heap * 2 : 1024;
		s->heap = xrealloc(s->heap, s->cap_heap * sizeof(struct event *));
	}
	for (i = s->n_heap++; i > 0 && before(e, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = e;
}

struct event *sim_after(struct sim *s, usec_t delay, event_fn fn, unsigned node)
{
	struct event *e = xcalloc(1, sizeof *e);

	*e = (struct event){.at = s->now + delay, .seq = ++s->seq, .fn = fn, .node = node};
	e->life = s->nodes[node].life;
	push(s, e);
	return e;
}

static struct event *pop(struct sim *s)
{
	struct event *top = s->heap[0], *last = s->heap[--s->n_heap];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= s->n_heap)
			break;
		if (child + 1 < s->n_heap && before(s->heap[child + 1], s->heap[child]))
			child++;
		if (before(last, s->heap[child]))
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	s->heap[i] = last;
	return top;
}

static void event_free(struct event *e)
{
	free(e->p);
	free(e);
}

void sim_run(struct sim *s, usec_t until)
{
	while (s->n_heap > 0 && s->heap[0]->at <= until && !s->violation) {
		struct event *e = pop(s);
		struct node *n = &s->nodes[e->node];

		s->now = e->at;
		if (e->node && e->life == n->life && s->now < n->stopped_until) { /* SIGSTOP: later, in its old place */
			e->at = n->stopped_until;
			push(s, e);
			continue;
		}
		if (!e->node || e->life == n->life) {
			e->fn(s, e);
			s->events++;
			check_step(s);
			if (s->story.next)
				stories_step(s);
		}
		event_free(e);
	}
	if (!s->violation)
		s->now = until;
}

/* ---- memory that a core holds, and nobody any more once its process was killed ---- */

struct lent {
	struct lent *next, **at;
};

void *sim_alloc(struct sim *s, size_t n, size_t bytes)
{
	struct lent *l = xcalloc(1, sizeof *l + n * bytes);

	*l = (struct lent){.next = s->lent, .at = &s->lent};
	if (l->next)
		l->next->at = &l->next;
	s->lent = l;
	return l + 1;
}

void sim_free(void *p)
{
	struct lent *l = p ? (struct lent *)p - 1 : NULL;

	if (!l)
		return;
	*l->at = l->next;
	if (l->next)
		l->next->at = l->at;
	free(l);
}

void sim_end(struct sim *s)
{
	while (s->n_heap > 0)
		event_free(s->heap[--s->n_heap]);
	free(s->heap);
	s->heap = NULL;
	s->cap_heap = 0;
	while (s->lent)
		sim_free(s->lent + 1);
}

void sim_log(struct sim *s, const char *fmt, ...)
{
	va_list args;

	if (!s->verbose)
		return;
	va_start(args, fmt);
	printf("%10.6f ", (double)s->now / 1e6);
	(void)vprintf(fmt, args);
	printf("\n");
	va_end(args);
}

void sim_violate(struct sim *s, const char *what, const char *fmt, ...)
{
	va_list args;

	if (s->violation)
		return;
	s->violation = what;
	va_start(args, fmt);
	(void)vsnprintf(s->detail, sizeof s->detail, fmt, args);
	va_end(args);
	sim_log(s, "VIOLATION %s: %s", what, s->detail);
}
