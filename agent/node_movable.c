/* SPDX-License-Identifier: Apache-2.0
 * Movability (L20 to L22): a VM that only its owner may run needs no lease to go on; what others may take over is
 * guarded first. */
#include "agent/node_internal.h"

#include <stdlib.h>
#include <string.h>

#define ASK_EVERY      (300 * USEC_PER_MS) /* a lost ASK is said again */
#define PLANS_PER_STEP 8

static usec_t now_of(const struct node *n)
{
	return n->env.now(n->env.ctx);
}

/* ---- the owner ---- */

/* The order's end comes first: a guarded slot must never have one that outlasts the deadline. */
static void guard_it(struct node *n, struct instance *i, struct guard_slot *s, uint64_t gver)
{
	atomic_store(&s->order, atomic_load(&n->config.page->deadline));
	atomic_store(&s->gver, gver);
	atomic_store(&s->guarded, 1);
	i->guarded_at = now_of(n);
	n->env.guard_kick(n->env.ctx);
}

static void ask(struct node *n, struct instance *i, const struct store_vm *row, const struct consensus_view *raft)
{
	struct peer_ask m = {.mver = row->mver};

	if (atomic_load(&n->config.page->beat) <= i->guarded_at || !raft->leader || now_of(n) < i->next_ask)
		return; /* the guard has not looked since */
	i->next_ask = now_of(n) + ASK_EVERY;
	memcpy(m.vm, i->vm, sizeof m.vm);
	node_send(n, raft->leader, &peer_ask_type, &m);
}

/* @row is the applied state of the generation that runs. An ASK that was begun is gone on with although the wish is
 * withdrawn meanwhile: the version that it makes lets the slot be unguarded again. */
void node_movable_step(struct node *n, struct instance *i, const struct store_vm *row,
		       const struct consensus_view *raft)
{
	struct guard_slot *s = &n->config.page->slots[i->slot];
	bool guarded = atomic_load(&s->guarded), asks = guarded && atomic_load(&s->gver) == row->mver + 1;

	if (row->movable)
		return;
	if (guarded && ((row->mver >= atomic_load(&s->gver) && !row->want_movable) ||
			(PLANTED(movunguard) && i->next_ask))) { /* L22 */
		atomic_store(&s->guarded, 0);
		return;
	}
	if (!asks && row->want_movable) { /* L20 */
		guard_it(n, i, s, row->mver + 1);
		asks = true;
	}
	if (asks)
		ask(n, i, row, raft);
}

/* ---- the leader ---- */

struct plan_ctx {
	struct node *node;
	uint64_t number;
};

static void plan_done(void *ctx, int status, const struct store_result *result)
{
	struct plan_ctx *p = ctx;

	(void)status;
	(void)result;
	p->node->next_plan = 0;
	for (size_t i = 0; i < p->node->n_vms; i++)
		if (p->node->leader_vms[i].busy == p->number)
			p->node->leader_vms[i].busy = 0;
	free(p);
}

/* Takes @bodies. */
static void submit(struct node *n, struct leader_vm *v, struct buf *bodies, uint32_t count)
{
	struct command_head head = {.wall = n->env.wall(n->env.ctx), .actor = "leader", .bodies = count};
	struct plan_ctx *p = xcalloc(1, sizeof *p);
	struct buf entry = {0};

	command_begin(&head, &entry);
	buf_append(&entry, bodies->data, bodies->len);
	*p = (struct plan_ctx){n, ++n->busy_count};
	v->busy = p->number;
	if (consensus_propose(n->config.consensus, entry.data, entry.len, plan_done, p) != 0) {
		v->busy = 0;
		free(p);
	}
	buf_free(&entry);
	buf_free(bodies);
}

static void add_movable(const struct store_vm *row, bool movable, struct buf *bodies)
{
	struct command_movable c = {.mver = row->mver, .movable = movable};

	memcpy(c.vm, row->spec.name, sizeof c.vm);
	message_encode(&command_movable_type, &c, bodies);
}

static void add_want(const struct store_vm *row, bool want, struct buf *bodies)
{
	struct command_want_movable c = {.want = want};

	memcpy(c.vm, row->spec.name, sizeof c.vm);
	message_encode(&command_want_movable_type, &c, bodies);
}

/* Sender owns the VM; not movable; @mver is current; nothing in flight (section 2). */
void node_movable_receive(struct node *n, node_id_t from, const struct peer_ask *m)
{
	const struct store_vm *row = node_find_vm(n, m->vm);
	struct leader_vm *v = row ? &n->leader_vms[row - n->vms] : NULL;
	struct buf bodies = {0};

	if (!n->leader.leading || !n->leader.barrier_done || !row || v->busy)
		return;
	if (row->owner != from || row->movable || (row->mver != m->mver && !PLANTED(movnover)))
		return;
	add_movable(row, true, &bodies);
	submit(n, v, &bodies, 1);
}

static bool plan_one(struct node *n, size_t i, const struct scheduler_view *view)
{
	const struct store_vm *row = &n->vms[i];
	struct leader_vm *v = &n->leader_vms[i];
	struct buf bodies = {0};
	uint32_t count = 0;
	bool want;

	if (row->owner == 0 || v->busy || !node_lease_is_fresh(n, row->owner))
		return false; /* a withdrawal helps only an owner that lives; any other's VM could never be taken over
			       */
	want = scheduler_other_could_run(view, &view->vms[i]);
	if (want != row->want_movable) {
		add_want(row, want, &bodies);
		count++;
	}
	if ((!want && row->movable) || (want && !row->movable && PLANTED(movleader))) { /* L21 */
		add_movable(row, want, &bodies);
		count++;
	}
	if (count)
		submit(n, v, &bodies, count);
	return count > 0;
}

void node_movable_plan(struct node *n, const struct scheduler_view *view)
{
	unsigned left = PLANS_PER_STEP;

	for (size_t i = 0; i < n->n_vms && left > 0; i++)
		left -= plan_one(n, i, view);
}
