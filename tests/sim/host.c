/* SPDX-License-Identifier: Apache-2.0
 * The life of a node: its machine, its agent, its guard. */
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNSOUND_FOR (5 * USEC_PER_SEC)

static struct world *world_of(void *ctx)
{
	struct host *h = ctx;

	return CONTAINER_OF(h - h->id, struct world, hosts[0]);
}

/* ---- the agent's environment ---- */

static usec_t env_now(void *ctx)
{
	struct host *h = ctx;

	return sim_local(world_of(ctx), h->id);
}

static usec_t env_wall(void *ctx)
{
	return 1700000000 * USEC_PER_SEC + env_now(ctx);
}

static void env_guard_watch(void *ctx, size_t slot)
{
	struct host *h = ctx;

	if (h->guard_up)
		guard_core_watch(&h->guard, slot);
}

static void env_guard_drop(void *ctx, size_t slot)
{
	struct host *h = ctx;

	if (h->guard_up)
		guard_core_drop(&h->guard, slot);
	else
		atomic_store(&h->page.slots[slot].state, GUARD_FREE);
}

static void env_guard_kick(void *ctx)
{
	struct host *h = ctx;
	struct world *w = world_of(ctx);

	sim_guard_kick(w, h->id, 20 + sim_random(w, 500));
}

static void saved_event(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];
	const char *vm;
	uint64_t gen;

	h->disk.n_started = 0;
	for (size_t i = 0; node_started(h->node, i, &vm, &gen); i++) {
		CHECK(h->disk.n_started < ARRAY_LEN(h->disk.started));
		(void)snprintf(h->disk.started[h->disk.n_started].vm, NAME_BYTES_MAX, "%s", vm);
		h->disk.started[h->disk.n_started++].gen = gen;
	}
	node_started_saved(h->node, e->a);
}

static void env_started_save(void *ctx, uint64_t seq)
{
	struct host *h = ctx;
	struct world *w = world_of(ctx);

	sim_after(w, 200 + sim_random(w, h->disk_delay * 2), saved_event, OWNER_AGENT, h->id)->a = seq;
}

static _Noreturn void env_fatal(void *ctx, const char *why)
{
	(void)ctx;
	(void)fprintf(stderr, "fatal: %s\n", why);
	abort();
}

static bool env_disks_serve(void *ctx, const struct store_vm *vm)
{
	struct host *h = ctx;

	return sim_disks_serve(CONTAINER_OF(h - h->id, struct world, hosts[0]), h, vm);
}

static const struct node_env env = {
	.now = env_now,
	.wall = env_wall,
	.send = sim_lease_send,
	.is_up = sim_is_up,
	.guard_watch = env_guard_watch,
	.guard_drop = env_guard_drop,
	.guard_kick = env_guard_kick,
	.freeze = sim_freeze,
	.started_save = env_started_save,
	.vm_start = sim_vm_start,
	.vm_resume = sim_vm_resume,
	.vm_shutdown = sim_vm_shutdown,
	.vm_kill = sim_vm_kill,
	.vm_forget = sim_vm_forget,
	.disks_serve = env_disks_serve,
};

/* ---- agent ---- */

static const char *address(unsigned node)
{
	static const char *const names[] = {"", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"};

	return names[node];
}

static void open_store(struct host *h)
{
	CHECK(store_open(":memory:", &h->store, NULL) == 0);
	if (h->disk.image)
		CHECK(store_restore(h->store, h->disk.image, h->disk.image_n) == 0);
}

static void open_consensus(struct world *w, struct host *h, bool found)
{
	struct consensus_config config = {
		.self = h->id, .address = address(h->id), .timing = &w->timing, .store = h->store};
	struct consensus_callbacks cb = {.ctx = h, .send = sim_raft_send, .fatal = env_fatal};
	struct err e = {0};

	h->io = sim_io_new(w, h->id);
	CHECK(consensus_open_on(&config, &cb, h->io, sim_io_free, &h->consensus, &e) == 0);
	if (found)
		CHECK(consensus_bootstrap(h->consensus, &e) == 0);
	consensus_set_snapshot_threshold(h->consensus, 64, 16);
	CHECK(consensus_start(h->consensus, &e) == 0);
}

/* L17: what runs without a slot is ended; a slot whose process is gone is given back; the rest is adopted. */
static void adopt(struct world *w, struct host *h)
{
	for (size_t i = 0; i < SIM_PROCESSES; i++) {
		struct process *p = &h->processes[i];
		bool has_slot = false;

		for (size_t s = 0; s < SLOTS_MAX; s++)
			has_slot |= h->page.slots[s].vm[0] && atomic_load(&h->page.slots[s].pid) == (uint64_t)p->pid;
		if (p->exists && !has_slot)
			sim_process_end(w, h->id, p, "has no slot");
		p->orphan = false;
	}
	for (size_t s = 0; s < SLOTS_MAX; s++) {
		struct guard_slot *slot = &h->page.slots[s];
		struct process *p = slot->vm[0] ? sim_process(h, slot->vm, atomic_load(&slot->gen)) : NULL;

		if (p) {
			node_adopt(h->node, s, p->pid);
		} else if (slot->vm[0]) {
			env_guard_drop(h, s);
			memset(slot->vm, 0, sizeof slot->vm);
		}
	}
}

/* Which engines are unsound changes every few seconds, without drawing from the seed's random numbers; in the end it is
 * one, so that its VMs have a place to be. */
static bool is_unsound(const struct world *w, unsigned node)
{
	uint64_t mix = (w->seed + w->now / UNSOUND_FOR * 31 + node * 7) * 0x9e3779b97f4a7c15ULL;

	return w->unsound && (w->healing ? node == 1 : mix >> 62 == 0);
}

static void set_info(struct world *w, struct host *h)
{
	struct peer_node_info info = {.memory_bytes = 8ULL << 30, .cpus = 4, .runs_vms = true};

	info.engine_unsound = is_unsound(w, h->id);
	node_set_info(h->node, &info);
}

static void poll_event(struct world *w, struct event *e)
{
	if (w->unsound)
		set_info(w, &w->hosts[e->node]);
	sim_after(w, 25 * USEC_PER_MS, poll_event, OWNER_AGENT, e->node);
	sim_guard_ensure(w, e->node);
}

static void image_event(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];

	free(h->disk.image);
	store_snapshot(h->store, &h->disk.image, &h->disk.image_n);
	sim_after(w, USEC_PER_SEC + sim_random(w, 4 * USEC_PER_SEC), image_event, OWNER_AGENT, e->node);
}

static void start(struct world *w, unsigned node, bool found)
{
	struct host *h = &w->hosts[node];
	struct node_config config = {.self = node, .timing = &w->timing, .page = &h->page, .voters_max = 3};
	struct node_env mine = env;

	CHECK(h->up && !h->agent_up);
	sim_log(w, "agent %u starts", node);
	h->agent_up = true;
	h->agent_life++;
	h->hung = false;
	open_store(h);
	open_consensus(w, h, found);
	config.store = h->store;
	config.consensus = h->consensus;
	config.session = sim_random(w, UINT64_MAX) | 1;
	mine.ctx = h;
	h->node = node_new(&config, &mine);
	CHECK(h->node != NULL);
	set_info(w, h);
	for (size_t i = 0; i < h->disk.n_started && !PLANTED(volatile); i++)
		node_started_load(h->node, h->disk.started[i].vm, h->disk.started[i].gen);
	sim_guard_ensure(w, node);
	adopt(w, h);
	sim_after(w, 0, poll_event, OWNER_AGENT, node);
	sim_after(w, USEC_PER_SEC, image_event, OWNER_AGENT, node);
}

void sim_agent_start(struct world *w, unsigned node)
{
	start(w, node, false);
}

void sim_host_found(struct world *w, unsigned node)
{
	start(w, node, true);
}

static void nothing(void *ctx)
{
	(void)ctx;
}

static void agent_end(struct world *w, struct host *h, bool keep_image)
{
	sim_links_of_agent_down(w, h->id);
	sim_engines_agent_gone(w, h->id);
	if (keep_image) {
		free(h->disk.image);
		store_snapshot(h->store, &h->disk.image, &h->disk.image_n);
	}
	h->agent_up = false;
	h->agent_life++;
	consensus_close(h->consensus, nothing, NULL); /* synchronous on this backend */
	h->node = node_free(h->node);
	h->store = store_close(h->store);
	h->consensus = NULL;
	h->io = NULL;
	for (size_t i = 0; i < SIM_PROCESSES; i++)
		h->processes[i].orphan = true;
	h->hashed = 0;
}

void sim_agent_crash(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];

	if (!h->agent_up)
		return;
	sim_log(w, "agent %u dies", node);
	agent_end(w, h, sim_chance(w, 700));
}

/* Amnesia: the voter forgets its term, its vote and its log. */
static void forget_everything(struct world *w, struct host *h)
{
	struct sim_disk keep = {0};

	sim_log(w, "disk of %u forgets", h->id);
	memcpy(keep.started, h->disk.started, sizeof keep.started);
	keep.n_started = h->disk.n_started;
	sim_disk_wipe(&h->disk);
	memcpy(h->disk.started, keep.started, sizeof keep.started);
	h->disk.n_started = keep.n_started;
}

void sim_machine_crash(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];

	if (!h->up)
		return;
	sim_log(w, "machine %u loses power", node);
	if (h->agent_up)
		agent_end(w, h, false);
	h->up = false;
	h->boot++;
	sim_engines_power(w, node, false);
	h->guard_up = false;
	h->guard_life++;
	h->guard_at = 0;
	memset(h->processes, 0, sizeof h->processes);
	memset(&h->page, 0, sizeof h->page);
	h->page.magic = GUARD_PAGE_MAGIC;
	h->page.version = GUARD_PAGE_VERSION;
	if (PLANTED(amnesia))
		forget_everything(w, h);
}

void sim_machine_boot(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];

	if (h->up)
		return;
	sim_log(w, "machine %u boots", node);
	h->up = true;
	sim_engines_power(w, node, true);
	sim_agent_start(w, node);
}

void sim_turn(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];

	consensus_step(h->consensus);
	node_step(h->node);
	consensus_step(h->consensus);
	sim_engines_turn(w, node);
	sim_check_agreement(w, node);
}

/* ---- guard ---- */

static void guard_event(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];
	usec_t next;

	if (e->at != h->guard_at)
		return; /* an earlier one was scheduled meanwhile */
	h->guard_at = 0;
	next = sim_virtual_of(w, e->node, guard_core_step(&h->guard));
	sim_guard_kick(w, e->node, next > w->now ? next - w->now + sim_random(w, h->guard_late + 1) : 1);
}

void sim_guard_kick(struct world *w, unsigned node, usec_t delay)
{
	struct host *h = &w->hosts[node];

	if (!h->guard_up || (h->guard_at && h->guard_at <= w->now + delay))
		return;
	h->guard_at = w->now + delay;
	sim_after(w, delay, guard_event, OWNER_GUARD, node);
}

void sim_guard_kill(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];

	sim_log(w, "guard of %u dies", node);
	h->guard_up = false;
	h->guard_life++;
	h->guard_at = 0;
}

/* The agent starts a guard where there is none, and gives it what it watches (L18). */
void sim_guard_ensure(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];

	if (h->guard_up || (h->node && node_guard_lives(h->node)))
		return;
	sim_log(w, "guard of %u starts", node);
	h->guard_up = true;
	h->guard_life++;
	sim_guard_ops(w, node);
	for (size_t s = 0; s < SLOTS_MAX; s++)
		if (h->page.slots[s].vm[0])
			guard_core_watch(&h->guard, s);
	sim_guard_kick(w, node, 1);
}
