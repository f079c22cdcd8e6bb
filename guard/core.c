/* SPDX-License-Identifier: Apache-2.0
 * When the guard stops and continues guests. */
#include "guard/core.h"

#include <errno.h>

void guard_core_init(struct guard_core *g, const struct guard_ops *ops)
{
	*g = (struct guard_core){.ops = *ops};
}

void guard_core_attach(struct guard_core *g, struct guard_page *page)
{
	CHECK(page->magic == GUARD_PAGE_MAGIC && page->version == GUARD_PAGE_VERSION);
	g->page = page;
}

static struct guard_slot *slot_at(struct guard_core *g, size_t slot)
{
	CHECK(g->page && slot < SLOTS_MAX);
	return &g->page->slots[slot];
}

void guard_core_gone(struct guard_core *g, size_t slot)
{
	atomic_store(&slot_at(g, slot)->state, GUARD_GONE);
}

/* A process that cannot be stopped is ended. */
static void hold(struct guard_core *g, size_t slot)
{
	struct guard_slot *s = slot_at(g, slot);
	int rc = g->ops.signal_stop(g->ops.ctx, slot);

	if (rc == 0) {
		atomic_store(&s->state, GUARD_HELD);
		return;
	}
	if (rc != -ESRCH)
		(void)g->ops.signal_kill(g->ops.ctx, slot);
	atomic_store(&s->state, GUARD_GONE);
}

void guard_core_watch(struct guard_core *g, size_t slot)
{
	CHECK(slot_at(g, slot)->vm[0] != '\0');
	g->watched[slot] = true;
	hold(g, slot); /* L13 */
}

void guard_core_drop(struct guard_core *g, size_t slot)
{
	g->watched[slot] = false;
	atomic_store(&slot_at(g, slot)->state, GUARD_FREE);
}

/* L12: only before the order's end, and the clock is read again after SIGCONT. */
static void thaw(struct guard_core *g, size_t slot, usec_t valid_until)
{
	struct guard_slot *s = slot_at(g, slot);

	if (g->ops.signal_cont(g->ops.ctx, slot) != 0) {
		atomic_store(&s->state, GUARD_GONE);
		return;
	}
	atomic_store(&s->state, GUARD_RUNNING);
	if (g->ops.now(g->ops.ctx) >= valid_until)
		hold(g, slot);
}

static void freeze_at_deadline(struct guard_core *g, size_t slot)
{
	if (PLANTED(guardoff))
		return;
	if (PLANTED(kill))
		(void)g->ops.signal_kill(g->ops.ctx, slot);
	hold(g, slot); /* L11 */
}

static void slot_step(struct guard_core *g, size_t slot, usec_t now, usec_t deadline)
{
	struct guard_slot *s = slot_at(g, slot);
	uint64_t state = atomic_load(&s->state);
	usec_t order = atomic_load(&s->order);
	bool is_over = atomic_load(&s->guarded) && now >= deadline;

	if (state == GUARD_RUNNING && order == 0)
		hold(g, slot);
	else if (state == GUARD_RUNNING && is_over)
		freeze_at_deadline(g, slot);
	else if (state == GUARD_HELD && (!is_over || PLANTED(startnolease)) && now < order)
		thaw(g, slot, order);
}

usec_t guard_core_step(struct guard_core *g)
{
	usec_t now = g->ops.now(g->ops.ctx), deadline;

	if (!g->page)
		return now + GUARD_BEAT;
	deadline = atomic_load(&g->page->deadline);
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (g->watched[i])
			slot_step(g, i, now, deadline);
	atomic_store(&g->page->beat, now);
	return deadline > now && deadline < now + GUARD_BEAT ? deadline : now + GUARD_BEAT;
}
