/* SPDX-License-Identifier: Apache-2.0
 * Guests: processes that start slowly, stop on signals with a delay, and end by themselves. They outlive the agent. */
#include "tests/sim/world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct world *world_of(void *ctx)
{
	struct host *h = ctx;

	return CONTAINER_OF(h - h->id, struct world, hosts[0]);
}

bool sim_executes(const struct host *h, const struct process *p)
{
	return h->up && p->exists && p->cont && !p->stopped;
}

struct process *sim_process(struct host *h, const char *vm, uint64_t gen)
{
	for (size_t i = 0; i < SIM_PROCESSES; i++)
		if (h->processes[i].exists && h->processes[i].gen == gen && strcmp(h->processes[i].vm, vm) == 0)
			return &h->processes[i];
	return NULL;
}

static struct process *by_pid(struct host *h, int32_t pid)
{
	for (size_t i = 0; i < SIM_PROCESSES; i++)
		if (h->processes[i].exists && h->processes[i].pid == pid)
			return &h->processes[i];
	return NULL;
}

/* ---- start ---- */

/* P2: a start on B begins only when no former owner can execute. */
static void check_start(struct world *w, const struct host *h, const char *vm, uint64_t gen)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		for (size_t i = 0; n != h->id && i < SIM_PROCESSES; i++) {
			const struct process *p = &w->hosts[n].processes[i];

			if (sim_executes(&w->hosts[n], p) && strcmp(p->vm, vm) == 0)
				sim_violate(w, "P2", "%s starts on %u (gen %llu) while it executes on %u (gen %llu)",
					    vm, h->id, (unsigned long long)gen, n, (unsigned long long)p->gen);
		}
}

struct starting {
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
	int32_t pid;
};

static void start_failed_event(struct world *w, struct event *e)
{
	struct starting *s = e->p;

	node_vm_ended(w->hosts[e->node].node, s->vm, s->gen, "no memory");
}

/* libvirt's answer reaches the agent, if it is still the one that asked. */
static void started_event(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];
	struct starting *s = e->p;

	if (by_pid(h, s->pid))
		node_vm_started(h->node, s->vm, s->gen, s->pid, (uint64_t)s->pid);
	else
		node_vm_ended(h->node, s->vm, s->gen, "ended at once");
}

static struct starting *starting_copy(const struct starting *s)
{
	struct starting *c = xcalloc(1, sizeof *c);

	*c = *s;
	return c;
}

static void process_event(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];
	struct starting *s = e->p;

	for (size_t i = 0; i < SIM_PROCESSES; i++) {
		struct process *p = &h->processes[i];

		if (p->exists)
			continue;
		*p = (struct process){.exists = true, .gen = s->gen, .pid = s->pid};
		memcpy(p->vm, s->vm, sizeof p->vm);
		if (h->agent_life == e->b && h->agent_up)
			sim_after(w, USEC_PER_MS + sim_random(w, 50 * USEC_PER_MS), started_event, OWNER_AGENT, e->node)
				->p = starting_copy(s);
		else
			p->orphan = true; /* killed by the next agent: it has no slot */
		return;
	}
	CHECK(!"room for a process");
}

void sim_vm_start(void *ctx, const struct store_vm *vm)
{
	struct host *h = ctx;
	struct world *w = world_of(ctx);
	struct starting s = {.gen = vm->gen, .pid = ++w->next_pid};
	usec_t delay = 100 * USEC_PER_MS + sim_random(w, 800 * USEC_PER_MS);
	struct event *e;

	memcpy(s.vm, vm->spec.name, sizeof s.vm);
	sim_log(w, "node %u starts %s gen %llu", h->id, s.vm, (unsigned long long)s.gen);
	check_start(w, h, s.vm, s.gen);
	if (!w->healing && sim_chance(w, w->faults.slow_start))
		delay += sim_random(w, 6 * USEC_PER_SEC);
	if (!w->healing && sim_chance(w, w->faults.start_fails)) {
		sim_after(w, delay, start_failed_event, OWNER_AGENT, h->id)->p = starting_copy(&s);
		return;
	}
	e = sim_after(w, delay, process_event, OWNER_MACHINE, h->id);
	e->p = starting_copy(&s);
	e->b = h->agent_life;
}

static void resume_event(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];
	struct process *p = by_pid(h, (int32_t)e->a);

	if (!p)
		return;
	if (p->stopped) { /* the monitor answers when it runs again */
		sim_after(w, 20 * USEC_PER_MS, resume_event, OWNER_MACHINE, e->node)->a = e->a;
		return;
	}
	p->cont = true;
}

void sim_vm_resume(void *ctx, const char *vm, uint64_t gen)
{
	struct host *h = ctx;
	struct world *w = world_of(ctx);
	struct process *p = sim_process(h, vm, gen);

	if (p)
		sim_after(w, USEC_PER_MS + sim_random(w, 5 * USEC_PER_MS), resume_event, OWNER_MACHINE, h->id)->a =
			(uint64_t)p->pid;
}

/* ---- end ---- */

static void ended_event(struct world *w, struct event *e)
{
	struct starting *s = e->p;

	node_vm_ended(w->hosts[e->node].node, s->vm, s->gen, "its process ended");
}

void sim_process_end(struct world *w, unsigned node, struct process *p, const char *why)
{
	struct host *h = &w->hosts[node];
	struct starting s = {.gen = p->gen, .pid = p->pid};

	sim_log(w, "node %u: process of %s gen %llu ends: %s", node, p->vm, (unsigned long long)p->gen, why);
	memcpy(s.vm, p->vm, sizeof s.vm);
	p->exists = false;
	if (h->agent_up && !p->orphan)
		sim_after(w, USEC_PER_MS, ended_event, OWNER_AGENT, node)->p = starting_copy(&s);
}

void sim_vm_kill(void *ctx, const char *vm, uint64_t gen)
{
	struct host *h = ctx;
	struct world *w = world_of(ctx);
	struct process *p = sim_process(h, vm, gen);

	if (p) {
		p->orphan = false;
		sim_process_end(w, h->id, p, "killed by the agent");
	}
}

static void shutdown_event(struct world *w, struct event *e)
{
	struct process *p = by_pid(&w->hosts[e->node], (int32_t)e->a);

	if (p && sim_executes(&w->hosts[e->node], p))
		sim_process_end(w, e->node, p, "shut down");
}

void sim_vm_shutdown(void *ctx, const char *vm, uint64_t gen)
{
	struct host *h = ctx;
	struct world *w = world_of(ctx);
	struct process *p = sim_process(h, vm, gen);

	if (p && sim_chance(w, 800)) /* some guests ignore it */
		sim_after(w, sim_random(w, 3 * USEC_PER_SEC), shutdown_event, OWNER_MACHINE, h->id)->a =
			(uint64_t)p->pid;
}

void sim_vm_forget(void *ctx, const char *vm, uint64_t gen)
{
	(void)ctx;
	(void)vm;
	(void)gen;
}

/* ---- signals ---- */

static struct process *slot_process(struct host *h, size_t slot)
{
	return by_pid(h, (int32_t)atomic_load(&h->page.slots[slot].pid));
}

static void stop_event(struct world *w, struct event *e)
{
	struct process *p = by_pid(&w->hosts[e->node], (int32_t)e->a);

	if (p && p->stop_epoch == e->b)
		p->stopped = true;
}

/* All threads stand within a while; FREEZE_MAX has room for it beside the guard's own lateness. */
static int stop_process(struct world *w, struct host *h, size_t slot)
{
	struct process *p = slot_process(h, slot);
	struct event *e;

	if (!p)
		return -ESRCH;
	e = sim_after(w, sim_random(w, w->timing.freeze_max / 3), stop_event, OWNER_MACHINE, h->id);
	e->a = (uint64_t)p->pid;
	e->b = ++p->stop_epoch;
	return 0;
}

static int op_stop(void *ctx, size_t slot)
{
	struct host *h = ctx;

	return stop_process(world_of(ctx), h, slot);
}

static int op_cont(void *ctx, size_t slot)
{
	struct process *p = slot_process(ctx, slot);

	if (!p)
		return -ESRCH;
	p->stop_epoch++;
	p->stopped = false;
	world_of(ctx)->thaws++;
	return 0;
}

/* P5: nobody had taken it over, and it can always be stopped here. */
static int op_kill(void *ctx, size_t slot)
{
	struct host *h = ctx;
	struct world *w = world_of(ctx);
	struct process *p = slot_process(h, slot);

	if (!p)
		return -ESRCH;
	sim_violate(w, "P5", "the guard of %u ended %s although nobody took it over", h->id, p->vm);
	return 0;
}

static usec_t op_now(void *ctx)
{
	struct host *h = ctx;

	return sim_local(world_of(ctx), h->id);
}

void sim_freeze(void *ctx, size_t slot)
{
	struct host *h = ctx;

	(void)stop_process(world_of(ctx), h, slot);
}

void sim_guard_ops(struct world *w, unsigned node)
{
	static const struct guard_ops ops = {
		.signal_stop = op_stop, .signal_cont = op_cont, .signal_kill = op_kill, .now = op_now};
	struct host *h = &w->hosts[node];
	struct guard_ops mine = ops;

	mine.ctx = h;
	guard_core_init(&h->guard, &mine);
	guard_core_attach(&h->guard, &h->page);
}
