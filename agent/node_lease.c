/* SPDX-License-Identifier: Apache-2.0
 * The node's own lease: asking for it, raising the guard's deadline, and standing in for a guard that is gone. */
#include "agent/node_internal.h"

static usec_t now_of(const struct node *n)
{
	return n->env.now(n->env.ctx);
}

bool node_guard_lives(const struct node *n)
{
	usec_t beat = atomic_load(&n->config.page->beat), now = now_of(n);

	return beat != 0 && (now < beat || now - beat < GUARD_LATE);
}

bool node_lease_valid(const struct node *n)
{
	return now_of(n) < atomic_load(&n->config.page->deadline);
}

static bool is_out_of_hold(const struct guard_slot *s)
{
	return s->vm[0] && atomic_load(&s->guarded) && atomic_load(&s->state) == GUARD_RUNNING;
}

static bool all_held(const struct node *n)
{
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (is_out_of_hold(&n->config.page->slots[i]))
			return false;
	return true;
}

static void hold_all(struct node *n)
{
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (n->config.page->slots[i].vm[0] && atomic_load(&n->config.page->slots[i].guarded))
			atomic_store(&n->config.page->slots[i].order, 0);
	n->env.guard_kick(n->env.ctx);
}

void node_lease_granted(struct node *n, const struct peer_lease_grant *grant)
{
	struct guard_page *page = n->config.page;
	usec_t now = now_of(n), deadline;

	if (!node_guard_lives(n)) /* L18: nobody would keep the promise that a raised deadline is */
		return;
	if (!lease_node_grant(&n->lease, grant, now, &deadline))
		return;
	if (now >= atomic_load(&page->deadline) && !all_held(n)) {
		/* L11: a raised deadline must not hide a lapse that the guard has not seen. */
		n->raise_to = deadline;
		hold_all(n);
		return;
	}
	if (deadline > atomic_load(&page->deadline))
		atomic_store(&page->deadline, deadline);
	n->env.guard_kick(n->env.ctx);
}

static void raise_step(struct node *n)
{
	if (n->raise_to == 0 || !all_held(n) || !node_guard_lives(n))
		return;
	if (n->raise_to > now_of(n) && n->raise_to > atomic_load(&n->config.page->deadline)) {
		atomic_store(&n->config.page->deadline, n->raise_to);
		n->env.guard_kick(n->env.ctx);
	}
	n->raise_to = 0;
}

/* L18: while the guard is gone or late, the agent freezes at the deadline instead. It never thaws. */
static void stand_in_step(struct node *n)
{
	struct guard_page *page = n->config.page;
	usec_t deadline = atomic_load(&page->deadline);

	if (node_guard_lives(n) || now_of(n) < deadline || n->frozen_at == deadline)
		return;
	n->frozen_at = deadline;
	for (size_t i = 0; i < SLOTS_MAX; i++)
		if (page->slots[i].vm[0] && atomic_load(&page->slots[i].guarded))
			n->env.freeze(n->env.ctx, i);
}

void node_lease_step(struct node *n, const struct consensus_view *raft)
{
	struct peer_lease_req req;

	stand_in_step(n);
	raise_step(n);
	if (!node_guard_lives(n) || !lease_node_due(&n->lease, raft->leader, now_of(n)))
		return;
	lease_node_ask(&n->lease, raft->leader, now_of(n), &req); /* L1: the clock is read, then it is sent */
	node_send(n, raft->leader, &peer_lease_req_type, &req);
}
