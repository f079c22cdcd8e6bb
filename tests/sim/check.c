/* SPDX-License-Identifier: Apache-2.0
 * What must hold: P1 and P2 at every step, agreement at every index, P4 to P6 when all is healed. */
#include "tests/sim/world.h"

#include <stdio.h>
#include <string.h>

/* P1: a VM never executes on two nodes at once. */
void sim_check_step(struct world *w)
{
	sim_disks_check(w);
	for (unsigned a = 1; a <= SIM_NODES; a++)
		for (size_t i = 0; i < SIM_PROCESSES; i++) {
			const struct process *p = &w->hosts[a].processes[i];

			if (!sim_executes(&w->hosts[a], p))
				continue;
			for (unsigned b = a + 1; b <= SIM_NODES; b++)
				for (size_t j = 0; j < SIM_PROCESSES; j++) {
					const struct process *q = &w->hosts[b].processes[j];

					if (sim_executes(&w->hosts[b], q) && strcmp(p->vm, q->vm) == 0)
						sim_violate(w, "P1", "%s executes on %u (gen %llu) and %u (gen %llu)",
							    p->vm, a, (unsigned long long)p->gen, b,
							    (unsigned long long)q->gen);
				}
		}
}

/* The same state at the same index, on every node, whenever it was there. */
void sim_check_agreement(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];
	uint64_t index = store_applied(h->store), hash;
	size_t slot = index % ARRAY_LEN(w->hashes);

	if (index == 0 || index == h->hashed)
		return;
	h->hashed = index;
	hash = store_hash(h->store);
	if (w->hashes[slot].index == index && w->hashes[slot].hash != hash)
		sim_violate(w, "agreement", "node %u has another state at index %llu", node, (unsigned long long)index);
	w->hashes[slot].index = index;
	w->hashes[slot].hash = hash;
}

static unsigned count_running(struct world *w, const char *vm)
{
	unsigned n = 0;

	for (unsigned a = 1; a <= SIM_NODES; a++)
		for (size_t i = 0; i < SIM_PROCESSES; i++)
			n += sim_executes(&w->hosts[a], &w->hosts[a].processes[i]) &&
			     strcmp(w->hosts[a].processes[i].vm, vm) == 0;
	return n;
}

/* A node that does not know that it votes elects nobody, and the others may need it. */
static void check_votes(struct world *w, unsigned node)
{
	struct consensus_view raft;

	consensus_view(w->hosts[node].consensus, &raft);
	for (size_t i = 0; i < raft.n_members; i++)
		if (raft.members[i].role != CONSENSUS_VOTER)
			sim_violate(w, "P6", "node %u takes node %u for no voter after healing", node,
				    raft.members[i].node);
}

/* The leader's words. */
static const char *explain(struct world *w, const struct store_vm *vm)
{
	static char text[REASON_BYTES_MAX + 16];
	char state[16], reason[REASON_BYTES_MAX];

	for (unsigned n = 1; n <= SIM_NODES; n++)
		if (w->hosts[n].agent_up && node_leads(w->hosts[n].node)) {
			node_vm_status(w->hosts[n].node, vm, state, reason);
			(void)snprintf(text, sizeof text, "%s %s", state, reason);
			return text;
		}
	return "there is no leader";
}

/* P6: everything that should run does, exactly once; what should not, does not. */
void sim_check_end(struct world *w)
{
	static struct store_vm vms[VMS_MAX];
	struct store *s = sim_alive(w)->store;
	size_t n;

	for (unsigned a = 1; a <= SIM_NODES; a++) {
		if (a == w->dead)
			continue;
		check_votes(w, a);
		if (store_applied(w->hosts[a].store) != store_applied(s) ||
		    store_hash(w->hosts[a].store) != store_hash(s))
			sim_violate(w, "agreement",
				    "two nodes, one of them %u, end at different states: applied %llu and %llu", a,
				    (unsigned long long)store_applied(s),
				    (unsigned long long)store_applied(w->hosts[a].store));
	}
	n = store_vms(s, vms, VMS_MAX);
	for (size_t i = 0; i < n; i++) {
		unsigned running = count_running(w, vms[i].spec.name);

		if (vms[i].spec.run && running == 0 && !sim_disks_allow(w, s, &vms[i]))
			continue;
		if (running != (vms[i].spec.run ? 1 : 0))
			sim_violate(w, "P6", "%s runs %u times after healing (owner %u, generation %llu): %s",
				    vms[i].spec.name, running, vms[i].owner, (unsigned long long)vms[i].gen,
				    explain(w, &vms[i]));
		sim_disks_check_end(w, &vms[i]);
	}
	sim_clients_check(w);
}
