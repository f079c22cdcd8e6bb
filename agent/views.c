/* SPDX-License-Identifier: Apache-2.0
 * What is shown of the cluster, in the words of docs/WIRE.md. On the leader from what the nodes told it; elsewhere from
 * the applied state and the own links. */
#include "agent/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEM_BYTES 400
#define UNSOUND                                                                                   \
	"its volume engine died again and again, or does not come: VMs with disks run elsewhere " \
	"where they can, until it lives for 10 minutes"

static const char *node_name(struct agent *agent, node_id_t node, struct store_node *room)
{
	return node && store_node(agent->store, node, room) ? room->name : NULL;
}

/* ---- nodes ---- */

struct node_view {
	struct node_peer_status status;
	const char *state;
	const char *role;
};

static bool leads(struct agent *agent)
{
	return node_leads(agent->node);
}

static const char *state_of(struct agent *agent, node_id_t node, const struct node_peer_status *s)
{
	if (leads(agent))
		return s->lease ? "up" : s->silent < agent->config.timing->takeover ? "suspect" : "down";
	return node == agent->config.id || net_peer_is_up(agent->net, node) ? "up" : "down";
}

static const char *role_of(const struct store_node *node, const struct consensus_view *raft)
{
	if (strcmp(node->role, "witness") == 0)
		return "witness";
	for (size_t i = 0; i < raft->n_members; i++)
		if (raft->members[i].node == node->node && raft->members[i].role == CONSENSUS_VOTER)
			return "voter";
	return "standby";
}

static void look_at(struct agent *agent, const struct store_node *node, const struct consensus_view *raft,
		    struct node_view *ret)
{
	node_peer_status(agent->node, node->node, &ret->status);
	ret->state = state_of(agent, node->node, &ret->status);
	ret->role = role_of(node, raft);
	if (node->node == agent->config.id) {
		guests_info(agent->guests, &ret->status.info);
		volumes_info(agent->volumes, &ret->status.info);
		ret->status.info.applied = store_applied(agent->store);
		ret->status.heard = true;
	}
}

static uint64_t count_vms_on(struct agent *agent, node_id_t node)
{
	struct store_vm *vms = xcalloc(VMS_MAX, sizeof *vms);
	size_t n = store_vms(agent->store, vms, VMS_MAX);
	uint64_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += vms[i].owner == node;
	free(vms);
	return count;
}

static const char *guard_of(const struct node_peer_status *s)
{
	return !s->heard ? "unknown" : s->info.guard_realtime ? "realtime" : "normal";
}

static void pack_node_problems(struct agent *agent, struct pack *p, const struct node_view *v)
{
	char text[PROBLEM_BYTES];

	pack_key(p, "problems");
	pack_array(p);
	if (leads(agent) && !v->status.lease) {
		(void)snprintf(text, sizeof text, "no lease for %.1f s",
			       (double)v->status.silent / (double)USEC_PER_SEC);
		pack_str(p, text);
	}
	if (v->status.heard && !v->status.info.runs_vms)
		pack_str(p, "its hypervisor is not ready: it runs no VMs");
	if (v->status.heard && !v->status.info.has_engine)
		pack_str(p, "its volume engine does not answer: it has no volumes");
	if (v->status.heard && v->status.info.engine_unsound)
		pack_str(p, UNSOUND);
	if (v->status.heard && !v->status.info.guard_realtime)
		pack_str(p, "its guard has no real-time priority: on an overloaded node it may freeze late");
	pack_end(p);
}

/* Each of the three processes of a node is upgraded by itself: it runs on until it is started anew. */
static void pack_version(struct pack *p, const char *key, const char *version)
{
	pack_kv_str(p, key, version[0] ? version : NULL);
}

static void pack_node(struct agent *agent, struct pack *p, const struct store_node *node,
		      const struct consensus_view *raft)
{
	struct node_view v;

	look_at(agent, node, raft, &v);
	pack_map(p);
	pack_kv_str(p, "name", node->name);
	pack_kv_u64(p, "id", node->node);
	pack_kv_str(p, "state", v.state);
	pack_kv_str(p, "role", v.role);
	pack_kv_str(p, "address", node->address);
	pack_kv_str(p, "zone", node->zone);
	pack_kv_bool(p, "leader", raft->leader == node->node);
	pack_kv_u64(p, "vms", count_vms_on(agent, node->node));
	pack_kv_u64(p, "memory_bytes", v.status.info.memory_bytes);
	pack_kv_u64(p, "cpus", v.status.info.cpus);
	pack_kv_str(p, "accel", v.status.info.accel);
	pack_kv_str(p, "version", v.status.info.version);
	pack_kv_str(p, "guard", guard_of(&v.status));
	pack_kv_bool(p, "engine", v.status.info.has_engine);
	pack_kv_bool(p, "engine_unsound", v.status.info.engine_unsound);
	pack_version(p, "agent_version", v.status.info.agent_version);
	pack_version(p, "engine_version", v.status.info.engine_version);
	pack_version(p, "guard_version", v.status.info.guard_version);
	pack_kv_u64(p, "disk_free_bytes", v.status.info.disk_free);
	pack_kv_u64(p, "applied", v.status.info.applied);
	pack_key(p, "silent_us");
	if (v.status.silent == USEC_INFINITY)
		pack_nil(p);
	else
		pack_u64(p, v.status.silent);
	pack_node_problems(agent, p, &v);
	pack_end(p);
}

static void pack_node_list(struct agent *agent, struct pack *p)
{
	struct store_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
	size_t n = store_nodes(agent->store, nodes, NODES_MAX);
	struct consensus_view raft;

	consensus_view(agent->consensus, &raft);
	pack_key(p, "nodes");
	pack_array(p);
	for (size_t i = 0; i < n; i++)
		pack_node(agent, p, &nodes[i], &raft);
	pack_end(p);
	free(nodes);
}

void view_nodes(struct agent *agent, struct pack *p)
{
	pack_map(p);
	pack_node_list(agent, p);
	pack_end(p);
}

bool view_node(struct agent *agent, struct pack *p, const char *name)
{
	struct store_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
	size_t n = store_nodes(agent->store, nodes, NODES_MAX), i = 0;
	struct consensus_view raft;

	consensus_view(agent->consensus, &raft);
	while (i < n && strcmp(nodes[i].name, name) != 0)
		i++;
	if (i < n) {
		pack_map(p);
		pack_key(p, "node");
		pack_node(agent, p, &nodes[i], &raft);
		pack_end(p);
	}
	free(nodes);
	return i < n;
}

/* ---- VMs ---- */

static void pack_vm(struct agent *agent, struct pack *p, const struct store_vm *vm)
{
	char state[16], waits[REASON_BYTES_MAX], since[32];
	struct store_node room;

	node_vm_status(agent->node, vm, state, waits);
	clock_format(vm->since, since, sizeof since);
	pack_map(p);
	pack_kv_str(p, "name", vm->spec.name);
	pack_kv_str(p, "want", vm->spec.run ? "running" : "stopped");
	pack_kv_str(p, "state", state);
	pack_kv_str(p, "node", node_name(agent, vm->owner, &room));
	pack_kv_str(p, "reason", waits[0] ? waits : vm->deleting ? "being deleted" : vm->reason);
	pack_kv_u64(p, "generation", vm->gen);
	pack_kv_u64(p, "vcpus", vm->spec.vcpus);
	pack_kv_u64(p, "memory_bytes", vm->spec.memory_bytes);
	pack_kv_str(p, "kernel", vm->spec.kernel);
	pack_kv_str(p, "initrd", vm->spec.initrd);
	pack_kv_str(p, "kernel_digest", vm->kernel_digest[0] ? vm->kernel_digest : NULL);
	pack_kv_str(p, "initrd_digest", vm->initrd_digest[0] ? vm->initrd_digest : NULL);
	pack_kv_str(p, "cmdline", vm->spec.cmdline);
	pack_kv_u64(p, "priority", vm->spec.priority);
	pack_kv_str(p, "uuid", vm->spec.uuid);
	pack_kv_str(p, "mac", vm->mac);
	pack_kv_str(p, "machine", vm->spec.machine);
	pack_kv_str(p, "since", since);
	pack_kv_u64(p, "fails", vm->fails);
	pack_end(p);
}

static void pack_vm_list(struct agent *agent, struct pack *p)
{
	struct store_vm *vms = xcalloc(VMS_MAX, sizeof *vms);
	size_t n = store_vms(agent->store, vms, VMS_MAX);

	pack_key(p, "vms");
	pack_array(p);
	for (size_t i = 0; i < n; i++)
		if (!vms[i].is_export)
			pack_vm(agent, p, &vms[i]);
	pack_end(p);
	free(vms);
}

void view_vms(struct agent *agent, struct pack *p)
{
	pack_map(p);
	pack_vm_list(agent, p);
	pack_end(p);
}

bool view_vm(struct agent *agent, struct pack *p, const char *name)
{
	struct store_vm vm;

	if (!store_vm(agent->store, name, &vm) || vm.is_export)
		return false;
	pack_map(p);
	pack_key(p, "vm");
	pack_vm(agent, p, &vm);
	pack_end(p);
	return true;
}

/* ---- what is wrong ---- */

static void problem_of_node(struct agent *agent, struct pack *p, const struct store_node *node,
			    const struct consensus_view *raft)
{
	char text[PROBLEM_BYTES];
	struct node_view v;

	look_at(agent, node, raft, &v);
	if (strcmp(v.state, "up") != 0) {
		(void)snprintf(text, sizeof text, "node %s is %s", node->name, v.state);
		pack_str(p, text);
	} else if (v.status.heard && !v.status.info.runs_vms && strcmp(v.role, "witness") != 0) {
		(void)snprintf(text, sizeof text, "node %s runs no VMs: its hypervisor is not ready", node->name);
		pack_str(p, text);
	}
	if (strcmp(v.state, "up") == 0 && v.status.heard && v.status.info.engine_unsound) {
		(void)snprintf(text, sizeof text, "node %s: %s", node->name, UNSOUND);
		pack_str(p, text);
	}
}

static void problem_of_vm(struct agent *agent, struct pack *p, const struct store_vm *vm)
{
	char state[16], waits[REASON_BYTES_MAX], text[PROBLEM_BYTES];

	node_vm_status(agent->node, vm, state, waits);
	if (!vm->spec.run || strcmp(state, "running") == 0)
		return;
	(void)snprintf(text, sizeof text, "%s%s should run but is %s%s%s", vm->is_export ? "" : "vm ", vm->spec.name,
		       state, waits[0] ? ": " : "", waits);
	pack_str(p, text);
}

/* Equal states at an equal index is what replication promises; anything else is an alarm. */
static void problem_of_state(struct agent *agent, struct pack *p, const struct store_node *node)
{
	struct node_peer_status s;
	char text[PROBLEM_BYTES];

	node_peer_status(agent->node, node->node, &s);
	if (!s.heard || s.info.hash == 0 || s.info.applied != store_applied(agent->store) ||
	    s.info.hash == store_hash(agent->store))
		return;
	(void)snprintf(text, sizeof text,
		       "node %s has another state than this node at the same index %llu: report this", node->name,
		       (unsigned long long)s.info.applied);
	pack_str(p, text);
}

static void pack_problems(struct agent *agent, struct pack *p, bool quorum)
{
	struct store_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
	struct store_vm *vms = xcalloc(VMS_MAX, sizeof *vms);
	size_t n_nodes = store_nodes(agent->store, nodes, NODES_MAX);
	size_t n_vms = store_vms(agent->store, vms, VMS_MAX);
	struct consensus_view raft;

	consensus_view(agent->consensus, &raft);
	pack_key(p, "problems");
	pack_array(p);
	if (!quorum)
		pack_str(p, "no quorum: a majority of the voters must be up and connected; until then nothing changes, "
			    "and VMs are frozen");
	for (size_t i = 0; i < n_nodes; i++)
		problem_of_node(agent, p, &nodes[i], &raft);
	for (size_t i = 0; i < n_nodes && leads(agent); i++)
		problem_of_state(agent, p, &nodes[i]);
	for (size_t i = 0; i < n_vms; i++)
		problem_of_vm(agent, p, &vms[i]);
	view_volume_problems(agent, p);
	pack_end(p);
	free(nodes);
	free(vms);
}

void view_status(struct agent *agent, struct pack *p, bool is_local, bool quorum)
{
	struct consensus_view raft;
	struct store_cluster cluster;
	struct store_node room;

	consensus_view(agent->consensus, &raft);
	store_cluster(agent->store, &cluster);
	quorum = quorum && raft.leader != 0;
	pack_map(p);
	pack_kv_str(p, "cluster", cluster.name);
	pack_kv_str(p, "id", agent->config.cluster);
	pack_kv_u64(p, "term", raft.term);
	pack_kv_str(p, "leader", quorum ? node_name(agent, raft.leader, &room) : NULL);
	pack_kv_bool(p, "quorum", quorum);
	pack_node_list(agent, p);
	pack_vm_list(agent, p);
	view_volume_list(agent, p);
	pack_problems(agent, p, quorum);
	pack_kv_str(p, "node", agent->config.name);
	pack_kv_u64(p, "applied", store_applied(agent->store));
	pack_kv_u64(p, "hash", store_hash(agent->store));
	pack_kv_bool(p, "stale", is_local);
	pack_end(p);
}

/* ---- events ---- */

void view_events(struct agent *agent, struct pack *p, uint64_t after, uint64_t limit)
{
	struct store_event *events = xcalloc(limit + 1, sizeof *events);
	struct store_cluster cluster;
	size_t n;

	store_cluster(agent->store, &cluster);
	if (after == 0 && cluster.event_max > limit)
		after = cluster.event_max - limit;
	n = store_events(agent->store, after, events, limit);
	pack_map(p);
	pack_key(p, "events");
	pack_array(p);
	for (size_t i = 0; i < n; i++) {
		char time[32];

		clock_format(events[i].wall, time, sizeof time);
		pack_map(p);
		pack_kv_u64(p, "id", events[i].id);
		pack_kv_str(p, "time", time);
		pack_kv_str(p, "kind", events[i].kind);
		pack_kv_str(p, "object", events[i].object);
		pack_kv_str(p, "text", events[i].text);
		pack_end(p);
	}
	pack_end(p);
	pack_end(p);
	free(events);
}
