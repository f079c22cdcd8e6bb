/* SPDX-License-Identifier: Apache-2.0
 * Disks of the simulated VMs: who uses them, what must hold of them, and what makes them fail. */
#include "tests/sim/disks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- founding ---- */

/* Two replicas or three, and every node has some. */
static unsigned replicas_of(unsigned vm)
{
	return vm < SIM_VMS / 2 ? 2 : 3;
}

static unsigned node_of(unsigned vm, unsigned i)
{
	return (vm + i) % SIM_NODES + 1;
}

/* The first end lies within a block. */
static uint64_t size_of(const struct world *w)
{
	return w->grows ? 255 * (uint64_t)VOLUME_BLOCK_BYTES + 3 * SECTOR : SIZE;
}

/* An administrator, by way of some node: to another end within a block, then to all there is. */
static void grow_event(struct world *w, struct event *e)
{
	unsigned vm = (unsigned)sim_random(w, SIM_VMS), node = 1 + (unsigned)sim_random(w, SIM_NODES);
	struct command_volume_grow c = {.size = SIZE};

	(void)e;
	if (w->healing)
		return;
	memcpy(c.name, w->volumes[vm].name, sizeof c.name);
	if (w->volumes[vm].s.row.size < SIZE / 2 && sim_chance(w, 500))
		c.size = 256 * (uint64_t)VOLUME_BLOCK_BYTES + 5 * SECTOR;
	if (w->hosts[node].agent_up && !w->hosts[node].hung)
		sim_ask(&w->volumes[vm], node, &command_volume_grow_type, &c, 0);
	sim_after(w, USEC_PER_SEC + sim_random(w, 4 * USEC_PER_SEC), grow_event, OWNER_WORLD, 0);
}

static void choose_config(struct world *w, struct vsim *s)
{
	s->copies_max = 1 + (unsigned)sim_random(w, 8);
	s->intents_cap = (unsigned)sim_random(w, EXTENTS);
	s->clear_after = sim_random(w, 300 * USEC_PER_MS);
	s->guest_every = 60 * USEC_PER_MS;
	s->faults.io_error = sim_chance(w, 200) ? 10 : 0;
	s->faults.lag = sim_chance(w, 300) ? 3 : 0;
	for (unsigned n = 1; n <= SIM_NODES; n++)
		s->nodes[n].slow = 100 + sim_random(w, 3 * USEC_PER_MS);
}

void sim_disks_new(struct world *w)
{
	if (!w->disks)
		return;
	w->volumes = xcalloc(SIM_VMS, sizeof *w->volumes);
	for (unsigned i = 0; i < SIM_VMS; i++) {
		struct sim_volume *v = &w->volumes[i];

		vs_init(&v->s, sim_random(w, UINT64_MAX) | 1, &sim_engine_around);
		v->w = w;
		v->vm = i;
		(void)snprintf(v->name, sizeof v->name, "vm%u.d", i);
		(void)snprintf(v->id, sizeof v->id, "%032x", i + 1);
		(void)snprintf(v->label, sizeof v->label, "vm%u.d: ", i);
		v->s.name = v->label;
		v->s.verbose = w->verbose;
		v->s.dead = w->dead;
		for (unsigned k = 0; k < replicas_of(i); k++)
			vs_add_replica(&v->s, node_of(i, k));
		v->s.grows = w->grows;
		v->s.guest.size = size_of(w);
		for (unsigned n = 1; n <= SIM_NODES; n++)
			v->s.nodes[n].disk.size = size_of(w);
		choose_config(w, &v->s);
	}
}

static void tell_figures(struct vsim *s)
{
	vs_log(s, "acked %llu, read %llu, compared %llu, takeovers %llu, colds %llu, joins %llu, events %llu",
	       (unsigned long long)s->acked, (unsigned long long)s->reads, (unsigned long long)s->settles,
	       (unsigned long long)s->takeovers, (unsigned long long)s->colds, (unsigned long long)s->joins,
	       (unsigned long long)s->events);
}

void sim_disks_end(struct world *w)
{
	if (!w->volumes)
		return;
	for (unsigned i = 0; i < SIM_VMS; i++) {
		tell_figures(&w->volumes[i].s);
		for (unsigned n = 1; n <= SIM_NODES; n++)
			vs_node_crash(&w->volumes[i].s, n);
		vs_end(&w->volumes[i].s);
	}
	free(w->volumes);
	w->volumes = NULL;
}

void sim_disks_found(struct world *w, unsigned vm, struct buf *bodies)
{
	struct command_volume_create c = {.size = size_of(w), .replicas = replicas_of(vm)};
	struct command_disk d = {0};

	if (!w->disks)
		return;
	memcpy(c.id, w->volumes[vm].id, sizeof c.id);
	for (unsigned k = 0; k < c.replicas; k++)
		c.nodes[k] = node_of(vm, k);
	memcpy(c.name, w->volumes[vm].name, sizeof c.name);
	memcpy(d.volume, c.name, sizeof d.volume);
	(void)snprintf(d.vm, sizeof d.vm, "vm%u", vm);
	message_encode(&command_volume_create_type, &c, bodies);
	message_encode(&command_disk_type, &d, bodies);
}

struct sim_volume *sim_volume_named(struct world *w, const char *id)
{
	for (unsigned i = 0; i < SIM_VMS; i++)
		if (strcmp(w->volumes[i].id, id) == 0)
			return &w->volumes[i];
	CHECK(!"a volume of this world");
}

/* As volumes_serve() has it: what the engine said last, for the epoch in which the VM was placed here (V32). */
bool sim_disks_serve(struct world *w, const struct host *h, const struct store_vm *vm)
{
	size_t n;
	const struct store_volume *rows = w->disks ? node_disks(h->node, vm, &n) : NULL;

	if (!rows)
		return true;
	for (size_t i = 0; i < n; i++) {
		const struct sim_local *l = &sim_volume_named(w, rows[i].id)->locals[h->id];

		if (!w->engines[h->id].linked || !l->has_status || !l->status_serves ||
		    (l->status_epoch < rows[i].vm_epoch && !PLANTED(stale_vm_epoch)))
			return false;
	}
	return true;
}

/* ---- one order of events ---- */

struct vsim *sim_disks_next(const struct world *w)
{
	struct vsim *found = NULL;

	for (unsigned i = 0; w->volumes && i < SIM_VMS; i++)
		if (!found || vs_next(&w->volumes[i].s) < vs_next(found))
			found = &w->volumes[i].s;
	return found;
}

void sim_disks_step(struct world *w, struct vsim *s)
{
	vs_do_next(s);
	if (s->violation)
		sim_violate(w, s->violation, "%s: %s", sim_volume_of(s)->name, s->detail);
}

void sim_disks_now(struct world *w)
{
	for (unsigned i = 0; w->volumes && i < SIM_VMS; i++)
		w->volumes[i].s.now = w->now;
}

/* ---- who uses them: only what executes asks for anything ---- */

static const struct process *executing(const struct world *w, unsigned vm, unsigned *ret_node)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		for (size_t i = 0; i < SIM_PROCESSES; i++) {
			const struct process *p = &w->hosts[n].processes[i];

			if (p->exists && p->vm[2] == (char)('0' + vm) && sim_executes(&w->hosts[n], p)) {
				*ret_node = n;
				return p;
			}
		}
	return NULL;
}

static void follow(struct sim_volume *v)
{
	struct vs_guest *g = &v->s.guest;
	char name[8];
	unsigned node = 0;
	const struct process *p = executing(v->w, v->vm, &node);

	if (p && g->node == node && g->gen == p->gen) {
		vs_guest_freeze(&v->s, false);
		return;
	}
	if (p) { /* the former one is gone, or frozen for good */
		vs_guest_kill(&v->s);
		vs_guest_start(&v->s, node, 0);
		g->gen = p->gen;
		g->to_check = 0;
		return;
	}
	if (!g->node)
		return;
	(void)snprintf(name, sizeof name, "vm%u", v->vm);
	if (v->w->hosts[g->node].up && sim_process(&v->w->hosts[g->node], name, g->gen))
		vs_guest_freeze(&v->s, true);
	else
		vs_guest_kill(&v->s);
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

/* Of all that were in sync nobody kept its cache: what no flush covered may be gone. */
static bool all_lost_power(const struct vsim *s, const struct volume_row *before)
{
	for (size_t i = 0; i < before->n_members; i++) {
		const struct volume_member *m = &before->members[i];

		if (m->in_sync && m->incarnation == s->nodes[m->node].disk.state.incarnation)
			return false;
	}
	return true;
}

static void cold(struct vsim *s, const struct volume_row *before)
{
	bool gap = s->row.version > before->version + 1, lost = gap || all_lost_power(s, before);

	vs_log(s, "cold start at %u%s%s", s->row.primary, gap ? ", seen late" : "",
	       lost ? "" : ", though one that was in sync lost nothing");
	for (unsigned i = 0; i < HOT; i++) {
		if (lost)
			s->allowed[i] = s->flushed[i];
		s->cold[i] = true;
	}
	s->colds++;
}

static unsigned count_in_sync(const struct volume_row *row)
{
	unsigned n = 0;

	for (size_t i = 0; i < row->n_members; i++)
		n += row->members[i].in_sync;
	return n;
}

/* The row as it is committed, as soon as anybody has it. */
static void witness(struct sim_volume *v, const struct volume_row *row)
{
	struct volume_row before = v->s.row;

	if (row->version <= before.version)
		return;
	v->s.row = *row;
	v->s.touched = true;
	v->s.joins += count_in_sync(row) > count_in_sync(&before);
	v->s.takeovers += row->primary_since > before.primary_since;
	if (row->cold > before.cold)
		cold(&v->s, &before);
}

/* P3: a VM is placed only where its disk is led, and only by who was in sync. */
static void check_row(struct world *w, const struct host *h, const struct store_volume *row)
{
	const struct store_replica *r = store_volume_on(row, row->primary);
	struct store_vm vm;

	if (!r || !r->in_sync)
		sim_violate(w, "P3", "%s is led by %u, which is not in sync", row->name, row->primary);
	if (store_vm(h->store, row->vm, &vm) && vm.owner && vm.owner != row->primary)
		sim_violate(w, "P3", "%s is on %u (gen %llu), its disk is led by %u", row->vm, vm.owner,
			    (unsigned long long)vm.gen, row->primary);
}

void sim_disks_check(struct world *w)
{
	static struct store_volume rows[SIM_VMS];
	const struct host *h;
	size_t n;

	if (!w->disks)
		return;
	for (unsigned i = 0; i < SIM_VMS; i++)
		follow(&w->volumes[i]);
	h = newest(w);
	if (!h || store_applied(h->store) <= w->disks_seen)
		return;
	w->disks_seen = store_applied(h->store);
	n = store_volumes(h->store, rows, SIM_VMS);
	for (size_t i = 0; i < n; i++) {
		struct volume_row row = sim_row_of(&rows[i]);

		check_row(w, h, &rows[i]);
		witness(sim_volume_named(w, rows[i].id), &row);
	}
}

/* P6: what runs has its disk, which is in sync wherever there is power, and every request has its answer. */
void sim_disks_check_end(struct world *w, const struct store_vm *vm)
{
	struct sim_volume *v;
	unsigned node;

	if (!w->disks || vm->spec.name[0] != 'v')
		return;
	v = &w->volumes[vm->spec.name[2] - '0'];
	if (v->s.row.primary == w->dead)
		return;
	vs_check_end(&v->s);
	if (!v->s.violation && vm->spec.run && executing(w, v->vm, &node) &&
	    (!v->s.guest.client || v->s.guest.node != node || v->s.guest.to_check != HOT))
		vs_violate(&v->s, "P6", "after healing its disk is not served on %u", node);
	if (v->s.violation)
		sim_violate(w, v->s.violation, "%s: %s", v->name, v->s.detail);
}

/* ---- faults ---- */

static usec_t some_time(struct world *w)
{
	return sim_random(w, sim_chance(w, 500) ? 300 * USEC_PER_MS : 3 * USEC_PER_SEC);
}

static struct vsim *some_disk(struct world *w)
{
	return &w->volumes[sim_random(w, SIM_VMS)].s;
}

static void engine_stop(struct world *w, unsigned node)
{
	usec_t until = w->now + some_time(w);

	sim_log(w, "engine %u stands still", node);
	for (unsigned i = 0; i < SIM_VMS; i++)
		if (w->volumes[i].s.nodes[node].stopped_until < until)
			w->volumes[i].s.nodes[node].stopped_until = until;
}

/* The links for bulk alone: agents go on hearing each other. */
static void bulk_cut(struct world *w, unsigned node)
{
	unsigned other = node % SIM_NODES + 1;
	usec_t until = w->now + some_time(w);

	sim_log(w, "engines %u and %u do not hear each other", node, other);
	for (unsigned i = 0; i < SIM_VMS; i++)
		w->volumes[i].s.cut_until[node][other] = w->volumes[i].s.cut_until[other][node] = until;
}

static void link_break(struct world *w, unsigned node)
{
	vs_link_break(some_disk(w), node, node % SIM_NODES + 1);
}

static void slow_disk(struct world *w, unsigned node)
{
	some_disk(w)->nodes[node].slow = sim_chance(w, 500) ? 30 * USEC_PER_MS : 200;
}

/* One kind of write alone, so that it is overtaken by the others. */
static void stall(struct world *w, unsigned node)
{
	struct vs_node *n = &some_disk(w)->nodes[node];
	unsigned kind = (unsigned)sim_random(w, W_KINDS);

	n->stall[kind] = some_time(w);
	n->stall_until[kind] = w->now + some_time(w);
}

static void reconnect(struct world *w, unsigned node)
{
	(void)node;
	vs_guest_reconnect(some_disk(w));
}

static void fault_event(struct world *w, struct event *e)
{
	static void (*const kinds[])(struct world * w, unsigned node) = {
		sim_engine_crash, engine_stop, bulk_cut, bulk_cut, link_break, slow_disk, stall, reconnect,
	};

	(void)e;
	if (w->healing)
		return;
	if (sim_chance(w, w->faults.engine))
		kinds[sim_random(w, ARRAY_LEN(kinds))](w, 1 + (unsigned)sim_random(w, SIM_NODES));
	sim_after(w, sim_random(w, 800 * USEC_PER_MS), fault_event, OWNER_WORLD, 0);
}

/* The replicas of a VM part and meet again so often that its movability comes and goes (L20 to L22). */
static void flap_event(struct world *w, struct event *e)
{
	if (w->healing)
		return;
	for (unsigned i = 0; i < SIM_VMS; i++) {
		unsigned a = node_of(i, 0), b = node_of(i, 1);
		struct vsim *s = &w->volumes[i].s;

		if (replicas_of(i) == 2 && sim_chance(w, 500))
			s->cut_until[a][b] = s->cut_until[b][a] = w->now + sim_random(w, 900 * USEC_PER_MS);
	}
	sim_after(w, 500 * USEC_PER_MS + sim_random(w, 1500 * USEC_PER_MS), flap_event, OWNER_WORLD, e->node);
}

void sim_disks_start(struct world *w)
{
	if (!w->disks)
		return;
	w->faults.engine = (unsigned[]){0, 100, 300, 800}[sim_random(w, 4)];
	sim_engines_start(w);
	for (unsigned i = 0; i < SIM_VMS; i++)
		vs_after(&w->volumes[i].s, USEC_PER_MS, vs_guest_event, 0);
	sim_after(w, 5 * USEC_PER_SEC, fault_event, OWNER_WORLD, 0);
	if (w->grows)
		sim_after(w, 3 * USEC_PER_SEC, grow_event, OWNER_WORLD, 0);
	if (w->flaps)
		sim_after(w, 5 * USEC_PER_SEC, flap_event, OWNER_WORLD, 0);
}

void sim_disks_heal(struct world *w)
{
	for (unsigned i = 0; w->volumes && i < SIM_VMS; i++) {
		struct vsim *s = &w->volumes[i].s;

		s->healing = true;
		memset(s->cut_until, 0, sizeof s->cut_until);
		for (unsigned n = 1; n <= SIM_NODES; n++) {
			s->nodes[n].slow = 200;
			memset(s->nodes[n].stall_until, 0, sizeof s->nodes[n].stall_until);
		}
	}
}

/* Near the end every guest reads its whole disk once more. */
void sim_disks_look(struct world *w)
{
	for (unsigned i = 0; w->volumes && i < SIM_VMS; i++)
		w->volumes[i].s.guest.to_check = 0;
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
