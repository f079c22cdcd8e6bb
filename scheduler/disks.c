/* SPDX-License-Identifier: Apache-2.0
 * Who may lead a volume: TAKEOVER, COLD and their conditions (VOLUME-PROTOCOL, section 1 and V27). */
#include "scheduler/scheduler.h"

static const struct scheduler_replica *replica_on(const struct scheduler_disk *d, node_id_t node)
{
	for (size_t i = 0; i < d->n_replicas; i++)
		if (d->replicas[i].node == node)
			return &d->replicas[i];
	return NULL;
}

static bool any_good(const struct scheduler_disk *d)
{
	for (size_t i = 0; i < d->n_replicas; i++)
		if (d->replicas[i].good)
			return true;
	return false;
}

enum scheduler_lead scheduler_lead(const struct scheduler_disk *d, node_id_t node)
{
	const struct scheduler_replica *r = replica_on(d, node);

	if (!r)
		return SCHEDULER_NO;
	if (r->good)
		return SCHEDULER_TAKEOVER;
	if (!r->lost_power)
		return SCHEDULER_NO;
	if (!any_good(d))
		return SCHEDULER_COLD;
	return d->waited || PLANTED(eager_cold) ? SCHEDULER_COLD_SILENT : SCHEDULER_NO; /* V27 */
}

static bool is_up(const struct scheduler_view *v, node_id_t node)
{
	for (size_t i = 0; i < v->n_nodes; i++)
		if (v->nodes[i].node == node)
			return v->nodes[i].is_up;
	return false;
}

bool scheduler_waits_for_silent(const struct scheduler_view *v, const struct scheduler_disk *d)
{
	bool lost = false;

	for (size_t i = 0; i < d->n_replicas; i++) {
		if (d->replicas[i].good && is_up(v, d->replicas[i].node))
			return false;
		lost |= d->replicas[i].lost_power && is_up(v, d->replicas[i].node);
	}
	return lost && any_good(d);
}

node_id_t scheduler_volume(const struct scheduler_view *v, const struct scheduler_disk *d, bool primary_out)
{
	node_id_t found = 0;

	if (!primary_out)
		return 0;
	for (size_t i = 0; i < d->n_replicas; i++) {
		node_id_t node = d->replicas[i].node;
		enum scheduler_lead lead = is_up(v, node) ? scheduler_lead(d, node) : SCHEDULER_NO;

		if (lead == SCHEDULER_NO || (node == d->primary && lead == SCHEDULER_TAKEOVER))
			continue;
		if (found == 0 || node == d->primary)
			found = node;
	}
	return found;
}

/* By the row: one that lost power is soon removed, or all are, and then it may lead. */
static bool is_in_sync(const struct scheduler_disk *d, node_id_t node)
{
	const struct scheduler_replica *r = replica_on(d, node);

	return r && r->in_sync && !r->leaving;
}

bool scheduler_other_could_run(const struct scheduler_view *v, const struct scheduler_vm *vm)
{
	if (vm->is_export)
		return true; /* the guard has nothing to do with it */
	for (size_t i = 0; i < v->n_nodes; i++) {
		bool could = v->nodes[i].node != vm->owner;

		for (size_t d = 0; d < vm->n_disks && could; d++)
			could = is_in_sync(&vm->disks[d], v->nodes[i].node);
		if (could)
			return true;
	}
	return vm->n_disks == 0; /* also while there is but one node */
}

/* ---- how many replicas, and where ---- */

static const struct scheduler_node *node_of(const struct scheduler_view *v, node_id_t node)
{
	for (size_t i = 0; i < v->n_nodes; i++)
		if (v->nodes[i].node == node)
			return &v->nodes[i];
	return NULL;
}

static bool is_away(const struct scheduler_view *v, node_id_t node)
{
	const struct scheduler_node *n = node_of(v, node);

	return !n || n->is_away;
}

bool scheduler_is_named(const struct scheduler_disk *d, node_id_t node)
{
	for (size_t i = 0; i < SCHEDULER_REPLICAS_MAX && d->nodes[i]; i++)
		if (d->nodes[i] == node)
			return true;
	return false;
}

/* Is there a node that was named, is not away, and has none? Then no other one gets it. */
static bool waits_for_named(const struct scheduler_view *v, const struct scheduler_disk *d)
{
	for (size_t i = 0; i < SCHEDULER_REPLICAS_MAX && d->nodes[i]; i++)
		if (!replica_on(d, d->nodes[i]) && !is_away(v, d->nodes[i]))
			return true;
	return false;
}

/* Are all that were named and have none up? Then those that cannot take one are not in a short reboot. */
static bool named_are_up(const struct scheduler_view *v, const struct scheduler_disk *d)
{
	for (size_t i = 0; i < SCHEDULER_REPLICAS_MAX && d->nodes[i]; i++)
		if (!replica_on(d, d->nodes[i]) && !is_up(v, d->nodes[i]))
			return false;
	return true;
}

/* The node with the fewest replicas that could take one more, rather one whose engine is sound; 0: none. @named: only
 * of those that were. */
static node_id_t room_for(const struct scheduler_view *v, const struct scheduler_disk *d, bool named)
{
	const struct scheduler_node *best = NULL;

	for (size_t i = 0; i < v->n_nodes; i++) {
		const struct scheduler_node *n = &v->nodes[i];

		if (!n->is_up || !n->has_engine || n->disk_free < d->size || replica_on(d, n->node))
			continue;
		if (named && !scheduler_is_named(d, n->node))
			continue;
		if (!best || n->unsound < best->unsound ||
		    (n->unsound == best->unsound && n->replicas < best->replicas))
			best = n;
	}
	return best ? best->node : 0;
}

/* Which one goes first: away, out of sync, the last one. Of those that were named only one that is away: where the
 * primary is the one too many, it goes when it leads no more. */
static const struct scheduler_replica *superfluous(const struct scheduler_view *v, const struct scheduler_disk *d)
{
	const struct scheduler_replica *found = NULL;
	unsigned found_weight = 0;

	for (size_t i = 0; i < d->n_replicas; i++) {
		const struct scheduler_replica *r = &d->replicas[i];
		unsigned weight = 1 + 2U * !r->in_sync + 4U * is_away(v, r->node);

		if (scheduler_is_named(d, r->node) && !is_away(v, r->node))
			continue;
		if (r->node != d->primary && !r->leaving && weight >= found_weight) {
			found = r;
			found_weight = weight;
		}
	}
	return found;
}

/* Who gets one more replica: those that were named first, and others in their stead where none of these can. */
static node_id_t new_place(const struct scheduler_view *v, const struct scheduler_disk *d, unsigned present)
{
	bool named = waits_for_named(v, d);
	node_id_t to = named || present < d->wanted ? room_for(v, d, named) : 0;

	return to == 0 && named && present < d->wanted && named_are_up(v, d) ? room_for(v, d, false) : to;
}

enum scheduler_replicas scheduler_replicas(const struct scheduler_view *v, const struct scheduler_disk *d,
					   node_id_t *ret_node)
{
	unsigned members = 0, good = 0, present = 0;
	const struct scheduler_replica *r;

	for (size_t i = 0; i < d->n_replicas; i++) {
		r = &d->replicas[i];
		if (r->leaving)
			continue;
		members++;
		good += r->good;
		present += !is_away(v, r->node);
	}
	*ret_node = 0;
	if (d->n_replicas < SCHEDULER_REPLICAS_MAX)
		*ret_node = new_place(v, d, present);
	if (*ret_node)
		return SCHEDULER_ADD;
	r = members > d->wanted ? superfluous(v, d) : NULL;
	if (!r || good - (r->good ? 1 : 0) < d->wanted)
		return SCHEDULER_KEEP;
	*ret_node = r->node;
	return SCHEDULER_DROP;
}
