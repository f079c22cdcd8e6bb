/* SPDX-License-Identifier: Apache-2.0
 * The instances of VMs on this node: start, thaw, end, report (L12 to L17). */
#include "agent/node_internal.h"

#include <stdio.h>
#include <string.h>

static usec_t now_of(const struct node *n)
{
	return n->env.now(n->env.ctx);
}

struct instance *node_instance(struct node *n, const char *vm)
{
	for (size_t i = 0; i < n->n_instances; i++)
		if (strcmp(n->instances[i].vm, vm) == 0)
			return &n->instances[i];
	return NULL;
}

static struct guard_slot *slot_of(const struct node *n, const struct instance *i)
{
	CHECK(i->state == INSTANCE_WATCHED && i->slot < SLOTS_MAX);
	return &n->config.page->slots[i->slot];
}

/* ---- states ---- */

static void check(const struct node *n, const struct instance *i)
{
	CHECK(i->gen > 0 && i->vm[0]);
	if (i->state == INSTANCE_WATCHED)
		CHECK(atomic_load(&slot_of(n, i)->gen) == i->gen && strcmp(slot_of(n, i)->vm, i->vm) == 0);
	CHECK(i->state == INSTANCE_WATCHED || !i->resumed || i->state == INSTANCE_ENDED);
	CHECK(i->state == INSTANCE_SAVING || i->save_seq <= n->saved_seq); /* L13: `started` is durable first */
}

static void move(const struct node *n, struct instance *i, enum instance_state to)
{
	static const bool legal[INSTANCE_STATES][INSTANCE_STATES] = {
		[INSTANCE_SAVING] = {[INSTANCE_STARTING] = true, [INSTANCE_EXPORTED] = true, [INSTANCE_ENDED] = true},
		[INSTANCE_EXPORTED] = {[INSTANCE_ENDED] = true},
		[INSTANCE_STARTING] = {[INSTANCE_WATCHED] = true, [INSTANCE_ENDED] = true},
		[INSTANCE_WATCHED] = {[INSTANCE_ENDED] = true},
	};

	CHECK(legal[i->state][to]);
	i->state = to;
	check(n, i);
}

static struct instance *add(struct node *n, const char *vm, uint64_t gen, enum instance_state state)
{
	struct instance *i;

	CHECK(node_instance(n, vm) == NULL);
	if (n->n_instances == n->cap_instances) {
		n->cap_instances = n->cap_instances ? n->cap_instances * 2 : 16;
		n->instances = xrealloc(n->instances, n->cap_instances * sizeof *n->instances);
	}
	i = &n->instances[n->n_instances++];
	*i = (struct instance){.gen = gen, .state = state};
	(void)snprintf(i->vm, sizeof i->vm, "%s", vm);
	return i;
}

static void drop(struct node *n, struct instance *i)
{
	CHECK(i->state == INSTANCE_ENDED);
	*i = n->instances[--n->n_instances];
}

/* ---- events ---- */

static bool find_free_slot(const struct node *n, size_t *ret)
{
	for (size_t i = 0; i < SLOTS_MAX; i++) {
		const struct guard_slot *s = &n->config.page->slots[i];

		if (s->vm[0] == '\0' && atomic_load(&s->state) == GUARD_FREE) {
			*ret = i;
			return true;
		}
	}
	return false;
}

/* L14: a completed start, however late, is a held instance. */
void node_vm_started(struct node *n, const char *vm, uint64_t gen, int32_t pid, uint64_t start_time)
{
	struct instance *i = node_instance(n, vm);
	struct guard_slot *s;
	size_t slot;

	CHECK(i && i->gen == gen && i->state == INSTANCE_STARTING);
	if (!find_free_slot(n, &slot)) { /* cannot be guarded, so it does not run */
		n->env.vm_kill(n->env.ctx, vm, gen);
		i->killed = true;
		return;
	}
	s = &n->config.page->slots[slot];
	memcpy(s->vm, i->vm, sizeof s->vm);
	atomic_store(&s->pid, (uint64_t)pid);
	atomic_store(&s->start_time, start_time);
	atomic_store(&s->gen, gen);
	atomic_store(&s->guarded, 1);
	atomic_store(&s->gver, 0);
	atomic_store(&s->order, 0);
	i->slot = slot;
	i->pid = pid;
	move(n, i, INSTANCE_WATCHED);
	n->env.guard_watch(n->env.ctx, slot);
}

/* L17: what runs already after a restart of the agent; the slot says which generation it is. */
void node_adopt(struct node *n, size_t slot, int32_t pid)
{
	struct guard_slot *s = &n->config.page->slots[slot];
	struct instance *i = add(n, s->vm, atomic_load(&s->gen), INSTANCE_WATCHED);

	i->slot = slot;
	i->pid = pid;
	check(n, i);
}

void node_adopt_exports(struct node *n)
{
	for (size_t i = 0; i < EXPORTS_MAX; i++) {
		const struct export_slot *s = &n->config.page->exports[i];
		char name[NAME_BYTES_MAX];

		if (atomic_load(&s->gen) == 0)
			continue;
		(void)snprintf(name, sizeof name, STORE_EXPORT "%.56s", s->volume);
		if (!node_instance(n, name))
			add(n, name, atomic_load(&s->gen), INSTANCE_EXPORTED)->slot = i;
	}
}

static void release_slot(struct node *n, struct instance *i)
{
	struct guard_slot *s = slot_of(n, i);

	n->env.guard_drop(n->env.ctx, i->slot);
	atomic_store(&s->order, 0);
	memset(s->vm, 0, sizeof s->vm);
}

void node_vm_ended(struct node *n, const char *vm, uint64_t gen, const char *reason)
{
	struct instance *i = node_instance(n, vm);

	if (!i || i->gen != gen || i->state == INSTANCE_ENDED)
		return;
	CHECK(i->state != INSTANCE_SAVING);
	if (i->state == INSTANCE_WATCHED)
		release_slot(n, i);
	move(n, i, INSTANCE_ENDED);
	(void)snprintf(i->reason, sizeof i->reason, "%s", reason);
	n->env.vm_forget(n->env.ctx, vm, gen);
}

/* ---- each turn ---- */

struct judged {
	const struct consensus_view *raft;
	const struct store_vm *row; /* NULL: deleted */
	bool lease;                 /* the lease is valid, until deadline */
	usec_t deadline;
	bool knows; /* L6 */
	bool mine;  /* owner = me, and the generation is the instance's */
};

static void order_thaw(struct node *n, struct instance *i, usec_t valid_until)
{
	struct guard_slot *s = slot_of(n, i);

	if (atomic_load(&s->order) == valid_until)
		return;
	atomic_store(&s->order, valid_until);
	n->env.guard_kick(n->env.ctx);
}

/* L12: lease valid, L6, owner = me, generation of the instance = applied generation. */
static bool may_thaw(const struct judged *j, const struct instance *i)
{
	if (PLANTED(startrace) && !i->resumed)
		return true;
	if (PLANTED(startnogen) && !i->resumed)
		return j->lease;
	if (PLANTED(startnolease) && !i->resumed)
		return j->knows && j->mine;
	if (PLANTED(thawnogen) && i->resumed)
		return j->lease;
	if (PLANTED(thawlocal) && i->resumed)
		return j->lease && j->mine;
	return j->lease && j->knows && j->mine;
}

static void kill_once(struct node *n, struct instance *i)
{
	if (i->killed)
		return;
	i->killed = true;
	n->env.vm_kill(n->env.ctx, i->vm, i->gen);
}

/* The administrator wants this instance to end: by the power button, by force when it is frozen or takes too long. */
static void end_step(struct node *n, struct instance *i, const struct store_vm *row)
{
	bool runs = atomic_load(&slot_of(n, i)->state) == GUARD_RUNNING;

	i->asked_to_end = true;
	if (row->end_hard || !runs || !i->resumed || (i->shutdown && now_of(n) >= i->end_by)) {
		kill_once(n, i);
		return;
	}
	if (now_of(n) < i->next_press)
		return;
	if (!i->shutdown)
		i->end_by = now_of(n) + SHUTDOWN_WAIT;
	i->shutdown = true;
	i->next_press = now_of(n) + PRESS_EVERY; /* a guest that still boots has not heard the last one */
	n->env.vm_shutdown(n->env.ctx, i->vm, i->gen);
}

/* True: the instance is ending, or is to end now. */
static bool is_over(struct node *n, struct instance *i, const struct judged *j)
{
	if (!j->row || j->row->gen > i->gen) { /* L15: it is lost for good; no lease needed */
		kill_once(n, i);
		return true;
	}
	if (j->mine && (!j->row->spec.run || j->row->end_gen >= i->gen)) {
		end_step(n, i, j->row);
		return true;
	}
	if (j->mine && node_disk_is_lost(n, j->row)) { /* V13: it is taken over elsewhere */
		kill_once(n, i);
		return true;
	}
	return false;
}

static void watched_step(struct node *n, struct instance *i, const struct judged *j)
{
	struct guard_slot *s = slot_of(n, i);
	uint64_t state = atomic_load(&s->state);

	if (is_over(n, i, j))
		return;
	if (j->mine)
		node_movable_step(n, i, j->row, j->raft);
	if (!atomic_load(&s->guarded)) /* L22: nobody can take it over, a held one goes on */
		order_thaw(n, i, USEC_INFINITY);
	else if (state == GUARD_HELD && n->raise_to == 0 && may_thaw(j, i))
		order_thaw(n, i, PLANTED(startrace) || PLANTED(startnolease) ? USEC_INFINITY : j->deadline);
	if (state == GUARD_RUNNING && !i->resumed) { /* L13: safe however late */
		i->resumed = true;
		n->env.vm_resume(n->env.ctx, i->vm, i->gen);
	}
}

/* L23: the slot's time is raised with the lease, only while L12 holds. */
static void exported_step(struct node *n, struct instance *i, const struct judged *j)
{
	if (j->mine && j->row->spec.run && j->row->end_gen < i->gen && !node_disk_is_lost(n, j->row)) {
		if (may_thaw(j, i) && n->raise_to == 0)
			node_export_order(n, i, j->deadline);
		return;
	}
	if (j->row && j->row->gen <= i->gen && !j->mine)
		return; /* an older state than the instance's: not to be judged by */
	i->asked_to_end = true;
	node_export_end(n, i);
	move(n, i, INSTANCE_ENDED);
	(void)snprintf(i->reason, sizeof i->reason, "not exported any more");
}

/* L16: process gone, `started` saved: STOPPED until the generation changes. */
static void tell_stopped(struct node *n, struct instance *i, const struct judged *j)
{
	struct peer_stopped m = {.gen = i->gen};

	if (!j->mine || !j->raft->leader || now_of(n) < i->next_stopped)
		return;
	i->next_stopped = now_of(n) + STOPPED_EVERY;
	memcpy(m.vm, i->vm, sizeof m.vm);
	memcpy(m.reason, i->reason, sizeof m.reason);
	m.elsewhere = i->elsewhere;
	m.failed = j->row->spec.run && j->row->end_gen < i->gen && !i->asked_to_end;
	node_send(n, j->raft->leader, &peer_stopped_type, &m);
}

/* L13, but for the owner: lease valid, and L6. */
static bool may_start(const struct node *n, const struct judged *j)
{
	bool knows = j->knows || PLANTED(startlocal), lease = j->lease || PLANTED(startnolease);

	return lease && knows && n->raise_to == 0;
}

/* Its kernel or initrd does not come: the generation is given back (L16), so that the leader tries another node. */
static void give_back_without_files(struct node *n, struct instance *i, const struct store_vm *row)
{
	usec_t progress = n->env.files_progress ? n->env.files_progress(n->env.ctx, row) : 0, now = now_of(n);

	if (progress == 0) {
		i->files_wanted_at = 0;
		return;
	}
	if (i->files_wanted_at == 0)
		i->files_wanted_at = now;
	if (now < (progress > i->files_wanted_at ? progress : i->files_wanted_at) + FILES_WAIT)
		return;
	(void)snprintf(i->reason, sizeof i->reason, "its kernel or initrd cannot be had on its node");
	i->elsewhere = true;
	move(n, i, INSTANCE_ENDED);
}

/* The save may have taken long, or the agent stood still: all is judged anew before the start. */
static void saving_step(struct node *n, struct instance *i, const struct judged *j)
{
	if (n->saved_seq < i->save_seq)
		return;
	if (i->no_start || !j->mine || !j->row->spec.run || j->row->end_gen >= i->gen || node_disk_is_lost(n, j->row)) {
		(void)snprintf(i->reason, sizeof i->reason, "not started");
		i->asked_to_end = true;
		move(n, i, INSTANCE_ENDED);
		return;
	}
	if (!may_start(n, j))
		return;
	if (j->row->is_export) {
		if (node_export_begin(n, i))
			move(n, i, INSTANCE_EXPORTED);
		return;
	}
	if (!n->env.disks_serve(n->env.ctx, j->row)) { /* settling, or its other replicas are not there yet */
		give_back_without_files(n, i, j->row);
		return;
	}
	move(n, i, INSTANCE_STARTING);
	n->env.vm_start(n->env.ctx, j->row);
}

static struct judged judge(struct node *n, const struct consensus_view *raft, const char *vm, uint64_t gen)
{
	struct judged j = {.raft = raft, .row = node_find_vm(n, vm)};

	j.deadline = atomic_load(&n->config.page->deadline);
	j.lease = now_of(n) < j.deadline;
	j.knows = lease_node_knows(&n->lease, raft->applied);
	j.mine = j.row && j.row->owner == n->config.self && j.row->gen == gen;
	return j;
}

/* Returns true when the instance is over and was dropped. */
static bool instance_tick(struct node *n, struct instance *i, const struct consensus_view *raft)
{
	struct judged j = judge(n, raft, i->vm, i->gen);

	switch (i->state) {
	case INSTANCE_SAVING:
		saving_step(n, i, &j);
		return false;
	case INSTANCE_STARTING:
		return false; /* node_vm_started(), node_vm_ended() */
	case INSTANCE_WATCHED:
		watched_step(n, i, &j);
		return false;
	case INSTANCE_EXPORTED:
		exported_step(n, i, &j);
		return false;
	default:
		if (!j.row || j.row->gen > i->gen ||
		    (PLANTED(reusegen) && j.mine && !i->asked_to_end && i->next_stopped)) {
			drop(n, i);
			return true;
		}
		tell_stopped(n, i, &j);
		return false;
	}
}

/* A placement of ours without an instance. */
static void begin(struct node *n, const struct store_vm *row, const struct consensus_view *raft)
{
	struct judged j = judge(n, raft, row->spec.name, row->gen);
	struct instance *i;

	if (!may_start(n, &j)) /* L16's second half needs L6 too */
		return;
	if (node_started_gen(n, row->spec.name) >= row->gen) { /* L16: it was begun here, and there is no process */
		i = add(n, row->spec.name, row->gen, INSTANCE_ENDED);
		(void)snprintf(i->reason, sizeof i->reason, "its process ended while the agent was away");
		return;
	}
	i = add(n, row->spec.name, row->gen, INSTANCE_SAVING);
	i->no_start = !row->spec.run || row->end_gen >= row->gen;
	node_started_load(n, row->spec.name, row->gen);
	i->save_seq = ++n->save_seq;
}

void node_instances_step(struct node *n, const struct consensus_view *raft)
{
	for (size_t i = 0; i < n->n_instances;)
		if (!instance_tick(n, &n->instances[i], raft))
			i++;
	for (size_t i = 0; i < n->n_vms; i++)
		if (n->vms[i].owner == n->config.self && !node_instance(n, n->vms[i].spec.name))
			begin(n, &n->vms[i], raft);
	node_started_step(n);
}

void node_instance_state(const struct node *n, const struct instance *i, char ret[16])
{
	static const char *const words[] = {
		[INSTANCE_SAVING] = "starting", [INSTANCE_STARTING] = "starting", [INSTANCE_ENDED] = "stopped"};
	const char *word = i->state < ARRAY_LEN(words) ? words[i->state] : NULL;

	if (i->state == INSTANCE_WATCHED) {
		uint64_t state = atomic_load(&slot_of(n, i)->state);

		if (i->killed || i->shutdown)
			word = "stopping";
		else if (state == GUARD_RUNNING)
			word = "running";
		else
			word = i->resumed ? "frozen" : "starting";
	}
	if (i->state == INSTANCE_EXPORTED)
		word = node_export_is_ordered(n, i) ? "running" : "frozen";
	memset(ret, 0, 16);
	(void)snprintf(ret, 16, "%s", word);
}
