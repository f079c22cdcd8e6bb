/* SPDX-License-Identifier: Apache-2.0
 * Virtual time: the heap of events, and randomness from the seed. */
#include "tests/volume_sim/vsim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* xorshift64* (Vigna 2016) */
uint64_t vs_random(struct vsim *s, uint64_t below)
{
	s->random ^= s->random >> 12;
	s->random ^= s->random << 25;
	s->random ^= s->random >> 27;
	return below ? (s->random * 2685821657736338717ULL >> 11) % below : 0;
}

bool vs_chance(struct vsim *s, unsigned permille)
{
	return vs_random(s, 1000) < permille;
}

void vs_init(struct vsim *s, uint64_t seed, const struct vs_around *around)
{
	memset(s, 0, sizeof *s);
	s->around = around;
	s->seed = seed;
	s->random = seed * 0x9e3779b97f4a7c15ULL + 1;
	for (int i = 0; i < 8; i++)
		(void)vs_random(s, 2);
	for (unsigned h = 0; h < HOT; h++) {
		vs_set_only(&s->allowed[h], 0);
		vs_set_only(&s->flushed[h], 0);
	}
	for (unsigned n = 1; n <= NODES; n++) {
		s->nodes[n].sim = s;
		s->nodes[n].id = n;
		for (unsigned b = 1; b <= NODES; b++)
			s->link_life[n][b] = s->lives = 1;
	}
	s->guest_every = 20 * USEC_PER_MS;
	s->guest.to_check = HOT;
	s->guest.size = SIZE;
}

void vs_add_replica(struct vsim *s, unsigned node)
{
	struct vs_node *n = &s->nodes[node];

	n->is_member = n->power = true;
	n->disk.state.incarnation = vs_random(s, UINT64_MAX) | 1;
	n->disk.size = SIZE;
}

static bool before(const struct vs_event *a, const struct vs_event *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void push(struct vsim *s, struct vs_event *e)
{
	size_t i;

	if (s->n_heap == s->cap_heap) {
		s->cap_heap = s->cap_heap ? s->cap_heap * 2 : 1024;
		s->heap = xrealloc(s->heap, s->cap_heap * sizeof(struct vs_event *));
	}
	for (i = s->n_heap++; i > 0 && before(e, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = e;
}

struct vs_event *vs_after(struct vsim *s, usec_t delay, vs_event_fn fn, unsigned node)
{
	struct vs_event *e = xcalloc(1, sizeof *e);

	*e = (struct vs_event){.at = s->now + delay, .seq = ++s->seq, .fn = fn, .node = node};
	e->life = s->nodes[node].life;
	push(s, e);
	return e;
}

static struct vs_event *pop(struct vsim *s)
{
	struct vs_event *top = s->heap[0], *last = s->heap[--s->n_heap];
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

static void event_free(struct vs_event *e)
{
	free(e->p);
	free(e);
}

usec_t vs_next(const struct vsim *s)
{
	return s->n_heap > 0 && !s->violation ? s->heap[0]->at : USEC_INFINITY;
}

void vs_do_next(struct vsim *s)
{
	struct vs_event *e = pop(s);
	struct vs_node *n = &s->nodes[e->node];

	s->now = e->at;
	if (e->node && e->life == n->life && s->now < n->stopped_until) { /* SIGSTOP: later, in its old place */
		e->at = n->stopped_until;
		push(s, e);
		return;
	}
	if (!e->node || e->life == n->life) {
		e->fn(s, e);
		s->events++;
		vs_check_step(s);
		s->around->stepped(s, e->node);
	}
	event_free(e);
}

void vs_run(struct vsim *s, usec_t until)
{
	while (vs_next(s) <= until)
		vs_do_next(s);
	if (!s->violation)
		s->now = until;
}

/* ---- memory that a core holds, and nobody any more once its process was killed ---- */

struct vs_lent {
	struct vs_lent *next, **at;
};

void *vs_alloc(struct vsim *s, size_t n, size_t bytes)
{
	struct vs_lent *l = xcalloc(1, sizeof *l + n * bytes);

	*l = (struct vs_lent){.next = s->lent, .at = &s->lent};
	if (l->next)
		l->next->at = &l->next;
	s->lent = l;
	return l + 1;
}

void vs_free(void *p)
{
	struct vs_lent *l = p ? (struct vs_lent *)p - 1 : NULL;

	if (!l)
		return;
	*l->at = l->next;
	if (l->next)
		l->next->at = l->at;
	free(l);
}

void vs_end(struct vsim *s)
{
	while (s->n_heap > 0)
		event_free(s->heap[--s->n_heap]);
	free(s->heap);
	s->heap = NULL;
	s->cap_heap = 0;
	while (s->lent)
		vs_free(s->lent + 1);
}

void vs_log(struct vsim *s, const char *fmt, ...)
{
	va_list args;

	if (!s->verbose)
		return;
	va_start(args, fmt);
	printf("%10.6f %s", (double)s->now / 1e6, s->name ? s->name : "");
	(void)vprintf(fmt, args);
	printf("\n");
	va_end(args);
}

void vs_violate(struct vsim *s, const char *what, const char *fmt, ...)
{
	va_list args;

	if (s->violation)
		return;
	s->violation = what;
	va_start(args, fmt);
	(void)vsnprintf(s->detail, sizeof s->detail, fmt, args);
	va_end(args);
	vs_log(s, "VIOLATION %s: %s", what, s->detail);
}
