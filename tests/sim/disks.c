/* SPDX-License-Identifier: Apache-2.0
 * Disks of the simulated VMs, as far as the store and the leader see them: engines that report after a power loss, ask
 * for REMOVE and ADD, and serve where they lead. What is in the volumes is the other simulator's affair. */
#include "tests/sim/world.h"

#include <stdio.h>
#include <string.h>

enum { REMOVE, ADD };

/* Power losses are told apart by the machine's life. */
static uint64_t incarnation_of(const struct host *h)
{
	return h->boot + 1;
}

static void id_of(unsigned vm, char ret[VOLUME_NAME_ID])
{
	(void)snprintf(ret, VOLUME_NAME_ID, "%032x", vm + 1);
}

/* Two replicas each, so that every node has some. */
void sim_disks_found(struct world *w, unsigned vm, struct buf *bodies)
{
	struct command_volume_create c = {.size = 1ULL << 30, .replicas = 2};
	struct command_disk d = {0};

	if (!w->disks)
		return;
	id_of(vm, c.id);
	c.nodes[0] = vm % SIM_NODES + 1;
	c.nodes[1] = (vm + 1) % SIM_NODES + 1;
	(void)snprintf(c.name, sizeof c.name, "vm%u.d", vm);
	memcpy(d.volume, c.name, sizeof d.volume);
	(void)snprintf(d.vm, sizeof d.vm, "vm%u", vm);
	message_encode(&command_volume_create_type, &c, bodies);
	message_encode(&command_disk_type, &d, bodies);
}

bool sim_disks_serve(struct world *w, const struct host *h, const struct store_vm *vm)
{
	size_t n;
	const struct store_volume *v = w->disks ? node_disks(h->node, vm, &n) : NULL;

	if (!v)
		return true;
	for (size_t i = 0; i < n; i++)
		if (v[i].primary != h->id || !store_replica_is_good(store_volume_on(&v[i], h->id)))
			return false;
	return true;
}

/* ---- what engines ask for ---- */

static void nothing(void *ctx, int status, const struct store_result *result)
{
	(void)ctx;
	(void)status;
	(void)result;
}

/* By the leader, if there is one: the compare-and-set decides. */
static void propose(struct world *w, const struct message_type *type, const void *body)
{
	struct command_head head = {.actor = "engine", .bodies = 1};
	struct buf entry = {0};

	head.wall = 1700000000 * USEC_PER_SEC + w->now;
	command_begin(&head, &entry);
	message_encode(type, body, &entry);
	for (unsigned n = 1; n <= SIM_NODES; n++) {
		struct host *h = &w->hosts[n];

		if (h->agent_up && !h->hung && node_leads(h->node)) {
			int rc = consensus_propose(h->consensus, entry.data, entry.len, nothing, NULL);
			(void)rc;
			break;
		}
	}
	buf_free(&entry);
}

static void report(struct world *w, const struct host *h, const struct store_volume *v, const struct store_replica *r)
{
	struct command_volume_report c = {.node = h->id, .incarnation = incarnation_of(h)};

	if (r->reported == c.incarnation)
		return;
	memcpy(c.id, v->id, sizeof c.id);
	(void)snprintf(c.replica, sizeof c.replica, "%032x", h->id);
	propose(w, &command_volume_report_type, &c);
}

static void isolate_event(struct world *w, struct event *e)
{
	if (!w->healing)
		sim_isolate(w, e->node, 3 * USEC_PER_SEC + sim_random(w, 6 * USEC_PER_SEC));
}

/* The primary's engine: a peer that was slow goes, one that has caught up comes. */
static void change_set(struct world *w, const struct host *h, const struct store_volume *v,
		       const struct store_replica *r)
{
	struct command_volume_change c = {
		.from = h->id, .epoch = v->epoch, .node = r->node, .incarnation = r->reported};
	const struct host *other = &w->hosts[r->node];

	if (r->in_sync ? w->healing || !sim_chance(w, other->up ? 60 : 500)
		       : !other->up || !r->reported || !sim_chance(w, 300))
		return;
	c.kind = r->in_sync ? REMOVE : ADD;
	if (!w->healing && sim_chance(w, 30)) /* the owner learns of it, and is not heard of for some time */
		sim_after(w, 200 * USEC_PER_MS + sim_random(w, USEC_PER_SEC), isolate_event, OWNER_WORLD, h->id);
	memcpy(c.id, v->id, sizeof c.id);
	propose(w, &command_volume_change_type, &c);
}

static void engine_event(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];
	const struct store_volume *v;
	size_t n;

	sim_after(w, 100 * USEC_PER_MS + sim_random(w, 400 * USEC_PER_MS), engine_event, OWNER_WORLD, h->id);
	if (!h->up || !h->agent_up || h->hung)
		return;
	v = node_volumes(h->node, &n);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < v[i].n_members; k++) {
			const struct store_replica *r = &v[i].members[k];

			if (r->node == h->id)
				report(w, h, &v[i], r);
			else if (v[i].primary == h->id && store_replica_is_good(store_volume_on(&v[i], h->id)))
				change_set(w, h, &v[i], r);
		}
}

void sim_disks_start(struct world *w)
{
	for (unsigned n = 1; n <= SIM_NODES && w->disks; n++)
		sim_after(w, 0, engine_event, OWNER_WORLD, n);
}

/* ---- what must hold ---- */

/* The newest state that any agent has applied. */
static const struct host *newest(const struct world *w)
{
	const struct host *found = NULL;

	for (unsigned n = 1; n <= SIM_NODES; n++)
		if (w->hosts[n].agent_up && (!found || store_applied(w->hosts[n].store) > store_applied(found->store)))
			found = &w->hosts[n];
	return found;
}

/* P3: a VM is placed only where its disk is led, and only by who was in sync. */
void sim_disks_check(struct world *w)
{
	const struct host *h = newest(w);
	const struct store_volume *v;
	size_t n;

	if (!w->disks || !h || store_changes(h->store) == w->disks_seen)
		return;
	w->disks_seen = store_changes(h->store);
	v = node_volumes(h->node, &n);
	for (size_t i = 0; i < n; i++) {
		const struct store_replica *r = store_volume_on(&v[i], v[i].primary);
		struct store_vm vm;

		if (!r || !r->in_sync)
			sim_violate(w, "P3", "%s is led by %u, which is not in sync", v[i].name, v[i].primary);
		if (store_vm(h->store, v[i].vm, &vm) && vm.owner && vm.owner != v[i].primary)
			sim_violate(w, "P3", "%s is on %u (gen %llu), its disk is led by %u", v[i].vm, vm.owner,
				    (unsigned long long)vm.gen, v[i].primary);
	}
}

/* ---- a node that stays dead ---- */

/* What only the dead node could run, and nobody guarded, is for an administrator to decide (L20 to L22). */
void sim_disks_pin(struct world *w)
{
	const struct host *h = newest(w);
	struct store_vm vm;

	for (unsigned i = 0; h && i < SIM_VMS; i++) {
		char name[8];

		(void)snprintf(name, sizeof name, "vm%u", i);
		if (store_vm(h->store, name, &vm) && !vm.movable)
			w->pinned |= 1u << i;
	}
}

bool sim_disks_allow(const struct world *w, struct store *s, const struct store_vm *vm)
{
	char name[NAME_BYTES_MAX + 2];
	struct store_volume v;

	(void)snprintf(name, sizeof name, "%s.d", vm->spec.name);
	if (!store_volume(s, name, &v))
		return true;
	if (vm->owner == w->dead && w->pinned & 1u << (vm->spec.name[2] - '0'))
		return false;
	for (size_t i = 0; i < v.n_members; i++)
		if (v.members[i].node != w->dead && v.members[i].in_sync)
			return true;
	return false;
}
