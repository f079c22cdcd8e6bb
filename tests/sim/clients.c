/* SPDX-License-Identifier: Apache-2.0
 * Administrators: changes with session and number, retried until they are answered, then looked for. */
#include "tests/sim/world.h"

#include <stdio.h>
#include <string.h>

#define CLIENTS 3

static struct op *op_new(struct world *w, uint64_t session, uint64_t num)
{
	struct op *o = &w->ops[w->n_ops];

	if (w->n_ops == SIM_OPS)
		return NULL;
	w->n_ops++;
	*o = (struct op){.session = session, .num = num};
	return o;
}

static void put(struct op *o, const char *name, bool run, uint64_t salt)
{
	struct command_vm_put c = {.vcpus = 1, .memory_bytes = 256ULL << 20, .run = run, .priority = 100};

	(void)snprintf(c.name, sizeof c.name, "%s", name);
	(void)snprintf(c.kernel, sizeof c.kernel, "/k");
	(void)snprintf(c.uuid, sizeof c.uuid, "%08x-%04x-4000-8000-%012llx", (unsigned)salt,
		       (unsigned)(salt >> 32) & 0xffff, (unsigned long long)(salt * 2654435761u) & 0xffffffffffffULL);
	(void)snprintf(c.machine, sizeof c.machine, "sim");
	message_encode(&command_vm_put_type, &c, &o->bodies);
}

static uint32_t count_bodies(const struct op *o)
{
	size_t at = 0, used;
	uint32_t n = 0;

	while (at < o->bodies.len && unpack_scan(o->bodies.data + at, o->bodies.len - at, &used) == 0) {
		at += used;
		n++;
	}
	return n;
}

static struct host *leader(struct world *w)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		if (w->hosts[n].agent_up && !w->hosts[n].hung && node_leads(w->hosts[n].node))
			return &w->hosts[n];
	return NULL;
}

static void op_done(void *ctx, int status, const struct store_result *result)
{
	struct op *o = ctx;

	o->in_flight = false;
	if (status != 0)
		return; /* lost or unknown: the same number again */
	o->done = true;
	o->code = result->code;
}

static void submit(struct world *w, struct op *o)
{
	struct host *h = leader(w);
	struct command_head head = {.session = o->session, .num = o->num, .actor = "client"};
	struct buf entry = {0};

	if (!h || o->in_flight || o->done)
		return;
	head.wall = 1700000000 * USEC_PER_SEC + w->now;
	head.bodies = count_bodies(o);
	command_begin(&head, &entry);
	buf_append(&entry, o->bodies.data, o->bodies.len);
	o->in_flight = consensus_propose(h->consensus, entry.data, entry.len, op_done, o) == 0;
	buf_free(&entry);
}

static struct op *last_op(struct world *w, uint64_t session)
{
	for (size_t i = w->n_ops; i > 0; i--)
		if (w->ops[i - 1].session == session)
			return &w->ops[i - 1];
	return NULL;
}

/* Half of the changes define something that stays; the others stop, start, restart the VMs that move about. */
static void choose(struct world *w, struct op *o)
{
	char name[NAME_BYTES_MAX];

	(void)snprintf(name, sizeof name, "vm%u", (unsigned)sim_random(w, SIM_VMS));
	if (sim_chance(w, 500) || !w->faults.admin || !sim_chance(w, w->faults.admin)) {
		(void)snprintf(o->name, sizeof o->name, "c%llu-%llu", (unsigned long long)o->session,
			       (unsigned long long)o->num);
		put(o, o->name, false, sim_random(w, UINT64_MAX));
	} else if (sim_chance(w, 400)) {
		struct command_vm_restart c = {.hard = sim_chance(w, 500)};

		memcpy(c.name, name, sizeof c.name);
		message_encode(&command_vm_restart_type, &c, &o->bodies);
	} else {
		struct command_vm_want c = {.run = sim_chance(w, 600), .hard = sim_chance(w, 500)};

		memcpy(c.name, name, sizeof c.name);
		message_encode(&command_vm_want_type, &c, &o->bodies);
	}
}

static void client_event(struct world *w, struct event *e)
{
	struct op *o = last_op(w, e->a);
	struct event *next = sim_after(w, 20 * USEC_PER_MS + sim_random(w, USEC_PER_SEC), client_event, OWNER_WORLD, 0);

	next->a = e->a;
	if (o && !o->done) {
		submit(w, o);
		return;
	}
	if (w->healing)
		return;
	o = op_new(w, e->a, o ? o->num + 1 : 1);
	if (!o)
		return;
	choose(w, o);
	submit(w, o);
}

static void found(struct world *w)
{
	struct op *o = op_new(w, 99, 1);
	struct command_genesis g = {.cluster = "sim", .name = "sim"};

	message_encode(&command_genesis_type, &g, &o->bodies);
	for (unsigned n = 1; n <= SIM_NODES; n++) {
		struct command_node_add a = {.node = n, .role = "node"};

		(void)snprintf(a.name, sizeof a.name, "n%u", n);
		(void)snprintf(a.address, sizeof a.address, "10.0.0.%u:1", n);
		message_encode(&command_node_add_type, &a, &o->bodies);
	}
	for (unsigned v = 0; v < SIM_VMS; v++) {
		char name[8];

		(void)snprintf(name, sizeof name, "vm%u", v);
		put(o, name, true, 1000 + v);
		sim_disks_found(w, v, &o->bodies);
	}
}

static void found_event(struct world *w, struct event *e)
{
	(void)e;
	if (w->ops[0].done) {
		CHECK(w->ops[0].code == 0);
		return;
	}
	submit(w, &w->ops[0]);
	sim_after(w, 100 * USEC_PER_MS, found_event, OWNER_WORLD, 0);
}

void sim_clients_start(struct world *w)
{
	found(w);
	sim_after(w, 0, found_event, OWNER_WORLD, 0);
	sim_disks_start(w);
	for (uint64_t c = 1; c <= CLIENTS; c++)
		sim_after(w, 3 * USEC_PER_SEC, client_event, OWNER_WORLD, 0)->a = c;
}

/* Every acknowledged definition is there, none was applied twice (a second one would be a change of definition). */
void sim_clients_check(struct world *w)
{
	struct store *s = sim_alive(w)->store;
	struct store_event events[256];
	uint64_t after = 0;
	size_t n;

	for (size_t i = 0; i < w->n_ops; i++) {
		struct op *o = &w->ops[i];
		struct store_vm vm;

		if (!o->done)
			sim_violate(w, "P6", "change %llu/%llu is not answered after healing",
				    (unsigned long long)o->session, (unsigned long long)o->num);
		else if (o->name[0] && o->code == 0 && !store_vm(s, o->name, &vm))
			sim_violate(w, "P4", "the acknowledged change %s is lost", o->name);
	}
	while ((n = store_events(s, after, events, ARRAY_LEN(events))) > 0) {
		for (size_t i = 0; i < n; i++)
			if (events[i].object[0] == 'c' && strstr(events[i].text, "definition changed"))
				sim_violate(w, "P4", "the change %s was applied twice", events[i].object);
		after = events[n - 1].id;
	}
}
