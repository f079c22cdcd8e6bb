/* SPDX-License-Identifier: Apache-2.0
 * Where VMs run. */
#include "scheduler/scheduler.h"

#include <stdio.h>
#include <string.h>

usec_t scheduler_backoff(uint32_t fails)
{
	if (fails <= 1)
		return 0;
	return fails >= 8 ? 60 * USEC_PER_SEC : USEC_PER_SEC << (fails - 2);
}

struct use {
	uint64_t memory_bytes;
	uint64_t vcpus;
};

/* What is placed on each node of the view, moves of this plan included. */
static struct use use_of(const struct scheduler_view *v, size_t node, const struct scheduler_move *moves, size_t n)
{
	node_id_t id = v->nodes[node].node;
	struct use u = {0};

	for (size_t i = 0; i < v->n_vms; i++) {
		const struct scheduler_vm *vm = &v->vms[i];
		node_id_t at = vm->owner;

		for (size_t m = 0; m < n; m++)
			if (moves[m].vm == i)
				at = moves[m].to;
		if (at != id)
			continue;
		u.memory_bytes += vm->memory_bytes;
		u.vcpus += vm->vcpus;
	}
	return u;
}

static bool fits(const struct scheduler_node *node, struct use u, const struct scheduler_vm *vm)
{
	if (vm->owner == node->node) /* it is counted there already */
		return true;
	return u.memory_bytes + vm->memory_bytes <= node->memory_bytes / 100 * SCHEDULER_MEMORY_PERCENT &&
	       u.vcpus + vm->vcpus <= (uint64_t)node->cpus * SCHEDULER_VCPUS_PER_CPU;
}

static bool can_hold(const struct scheduler_node *node, struct use u, const struct scheduler_vm *vm)
{
	if (vm->is_export)
		return node->is_up && node->node == vm->node;
	return node->can_run && fits(node, u, vm);
}

static bool can_lead_disks(const struct scheduler_vm *vm, node_id_t node)
{
	for (size_t i = 0; i < vm->n_disks; i++)
		if (vm->disks[i].filling || scheduler_lead(&vm->disks[i], node) == SCHEDULER_NO)
			return false;
	return true;
}

/* Where its first disk is led already it need not be moved for memory, unless that is wanted elsewhere. */
static bool may_stay(const struct scheduler_vm *vm, node_id_t node)
{
	const struct scheduler_disk *d = vm->disks;

	return vm->n_disks && d->primary == node && (d->nodes[0] == 0 || scheduler_is_named(d, node));
}

enum wish {
	WISH_SOUND = 1,     /* only where the engine can be relied on */
	WISH_ELSEWHERE = 2, /* not where it could not be started */
};

static bool is_wished(const struct scheduler_node *node, const struct scheduler_vm *vm, unsigned wishes)
{
	if (wishes & WISH_SOUND && node->unsound)
		return false;
	return node->node != vm->owner || !(vm->out == SCHEDULER_LAPSED || wishes & WISH_ELSEWHERE);
}

/* The node with the most free memory after taking @vm; the lower number on a tie; one that its first disk is wanted on
 * before others. A lapsed owner is left out. */
static node_id_t best_of(const struct scheduler_view *v, const struct scheduler_vm *vm,
			 const struct scheduler_move *moves, size_t n, unsigned wishes)
{
	node_id_t found = 0;
	uint64_t most_free = 0;
	bool found_named = false;

	for (size_t i = 0; i < v->n_nodes; i++) {
		const struct scheduler_node *node = &v->nodes[i];
		bool named = vm->n_disks && scheduler_is_named(vm->disks, node->node);
		struct use u = use_of(v, i, moves, n);
		uint64_t free_bytes;

		if (!can_hold(node, u, vm) || !can_lead_disks(vm, node->node) || !is_wished(node, vm, wishes))
			continue;
		if (may_stay(vm, node->node))
			return node->node;
		free_bytes = node->memory_bytes > u.memory_bytes ? node->memory_bytes - u.memory_bytes : 0;
		if (found == 0 || named > found_named || (named == found_named && free_bytes > most_free)) {
			found = node->node;
			found_named = named;
			most_free = free_bytes;
		}
	}
	return found;
}

/* A wish that cannot be met is given up: an engine that dies now and then is better than none (P6). */
static node_id_t best(const struct scheduler_view *v, const struct scheduler_vm *vm, const struct scheduler_move *moves,
		      size_t n)
{
	unsigned all = (vm->n_disks ? WISH_SOUND : 0) | (vm->elsewhere ? WISH_ELSEWHERE : 0);
	const unsigned masks[] = {WISH_SOUND | WISH_ELSEWHERE, WISH_ELSEWHERE, WISH_SOUND, 0};
	node_id_t found = 0;

	for (size_t i = 0; i < ARRAY_LEN(masks) && found == 0; i++)
		found = best_of(v, vm, moves, n, all & masks[i]);
	return found;
}

/* Is there something to decide about @vm at all? */
static bool is_due(const struct scheduler_view *v, const struct scheduler_vm *vm)
{
	if (vm->busy)
		return false;
	if (vm->owner == 0)
		return vm->run && v->now >= vm->not_before;
	if (vm->out == SCHEDULER_IN)
		return false;
	return !vm->run || v->now >= vm->not_before;
}

static const char *why(const struct scheduler_vm *vm)
{
	if (!vm->run)
		return "stop asked for";
	if (vm->owner == 0)
		return "shall run";
	if (vm->out == SCHEDULER_LAPSED)
		return "the lease of its node has ended";
	if (vm->elsewhere)
		return "its kernel or initrd could not be had on its node";
	return vm->failed ? "its process ended" : "restart";
}

static bool decide(const struct scheduler_view *v, size_t i, const struct scheduler_move *moves, size_t n,
		   struct scheduler_move *ret)
{
	const struct scheduler_vm *vm = &v->vms[i];

	if (!is_due(v, vm))
		return false;
	*ret = (struct scheduler_move){.vm = i, .failed = vm->run && vm->out == SCHEDULER_STOPPED && vm->failed};
	(void)snprintf(ret->reason, sizeof ret->reason, "%s", why(vm));
	if (!vm->run)
		return true;
	ret->to = best(v, vm, moves, n);
	/* Without an owner its disks can be led by who has them, and get in sync where it may run. */
	return ret->to != 0 || (vm->out == SCHEDULER_STOPPED && vm->n_disks > 0);
}

size_t scheduler_plan(const struct scheduler_view *v, struct scheduler_move *ret, size_t max)
{
	size_t n = 0;
	uint64_t below = (uint64_t)UINT32_MAX + 1;

	while (n < max) { /* one round per priority, highest first */
		uint64_t level = 0;
		bool any = false;

		for (size_t i = 0; i < v->n_vms; i++)
			if (v->vms[i].priority < below && (!any || v->vms[i].priority > level)) {
				level = v->vms[i].priority;
				any = true;
			}
		if (!any)
			break;
		for (size_t i = 0; i < v->n_vms && n < max; i++)
			if (v->vms[i].priority == level && decide(v, i, ret, n, &ret[n]))
				n++;
		below = level;
	}
	return n;
}

/* ---- an engine that cannot be relied on ---- */

static const struct scheduler_node *node_of(const struct scheduler_view *v, node_id_t node)
{
	for (size_t i = 0; i < v->n_nodes; i++)
		if (v->nodes[i].node == node)
			return &v->nodes[i];
	return NULL;
}

static bool may_leave(const struct scheduler_view *v, const struct scheduler_vm *vm)
{
	const struct scheduler_node *owner = vm->owner ? node_of(v, vm->owner) : NULL;

	return owner && owner->is_up && owner->unsound && vm->n_disks > 0 && vm->run && !vm->is_export && !vm->busy &&
	       !vm->ending && vm->out == SCHEDULER_IN;
}

/* What nobody but the owner has in sync goes on there, however badly. */
static bool all_in_sync_on(const struct scheduler_vm *vm, node_id_t node)
{
	for (size_t i = 0; i < vm->n_disks; i++)
		if (scheduler_lead(&vm->disks[i], node) != SCHEDULER_TAKEOVER)
			return false;
	return true;
}

/* It is on its way from such a node, and does not show yet where it will take room. */
static bool is_leaving(const struct scheduler_view *v, const struct scheduler_vm *vm)
{
	const struct scheduler_node *owner = vm->owner ? node_of(v, vm->owner) : NULL;

	return owner && owner->unsound && vm->run && (vm->busy || vm->ending || vm->out != SCHEDULER_IN);
}

bool scheduler_leave(const struct scheduler_view *v, struct scheduler_move *ret)
{
	for (size_t i = 0; i < v->n_vms; i++)
		if (is_leaving(v, &v->vms[i]))
			return false;
	for (size_t i = 0; i < v->n_vms; i++) {
		node_id_t to = may_leave(v, &v->vms[i]) ? best_of(v, &v->vms[i], NULL, 0, WISH_SOUND) : 0;

		if (to == 0 || !all_in_sync_on(&v->vms[i], to))
			continue;
		*ret = (struct scheduler_move){.vm = i, .to = to};
		(void)snprintf(ret->reason, sizeof ret->reason, "the volume engine of its node is unsound");
		return true;
	}
	return false;
}

/* ---- why it waits ---- */

static bool any_can_run(const struct scheduler_view *v)
{
	for (size_t i = 0; i < v->n_nodes; i++)
		if (v->nodes[i].can_run)
			return true;
	return false;
}

static bool is_up(const struct scheduler_view *v, node_id_t node)
{
	const struct scheduler_node *found = node_of(v, node);

	return found && found->is_up;
}

/* NULL: some node that is up may lead it. */
static const char *why_no_disk(const struct scheduler_view *v, const struct scheduler_disk *d)
{
	bool any_lost = false, any_silent = false;

	if (d->filling)
		return "is being filled from its image";
	for (size_t i = 0; i < d->n_replicas; i++) {
		const struct scheduler_replica *r = &d->replicas[i];

		if (is_up(v, r->node) && scheduler_lead(d, r->node) != SCHEDULER_NO)
			return NULL;
		any_lost |= r->lost_power && is_up(v, r->node);
		any_silent |= (r->good || r->lost_power) && !is_up(v, r->node);
	}
	if (any_lost && any_silent)
		return "lost power on the nodes that are up, and waits for another to report";
	return any_silent ? "is in sync only on nodes that are silent" : "has no replica that is in sync";
}

static bool explain_disks(const struct scheduler_view *v, const struct scheduler_vm *vm, char ret[REASON_BYTES_MAX])
{
	for (size_t i = 0; i < vm->n_disks; i++) {
		const char *why = why_no_disk(v, &vm->disks[i]);

		if (!why)
			continue;
		(void)snprintf(ret, REASON_BYTES_MAX, "its disk '%s' %s", vm->disks[i].name, why);
		return true;
	}
	return false;
}

void scheduler_explain(const struct scheduler_view *v, size_t i, char ret[REASON_BYTES_MAX])
{
	const struct scheduler_vm *vm = &v->vms[i];

	ret[0] = '\0';
	if (!vm->run || vm->busy || (vm->owner && vm->out == SCHEDULER_IN))
		return;
	if (v->now < vm->not_before)
		(void)snprintf(ret, REASON_BYTES_MAX, "it ended by itself: starts again in %llu s",
			       (unsigned long long)((vm->not_before - v->now) / USEC_PER_SEC + 1));
	else if (!any_can_run(v) && !vm->is_export)
		(void)snprintf(ret, REASON_BYTES_MAX, "no node is able to run VMs");
	else if (best(v, vm, NULL, 0) != 0 || explain_disks(v, vm, ret))
		return;
	else if (vm->is_export)
		(void)snprintf(ret, REASON_BYTES_MAX, "its node is silent, or has no replica that is in sync");
	else if (vm->n_disks)
		(void)snprintf(ret, REASON_BYTES_MAX,
			       "no node with its disks has %llu MiB of memory and %u vCPUs to spare",
			       (unsigned long long)(vm->memory_bytes >> 20), vm->vcpus);
	else
		(void)snprintf(ret, REASON_BYTES_MAX, "no node that is up has %llu MiB of memory and %u vCPUs to spare",
			       (unsigned long long)(vm->memory_bytes >> 20), vm->vcpus);
}
