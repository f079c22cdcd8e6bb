/* SPDX-License-Identifier: Apache-2.0
 * A node's decisions as a whole: its life, its frames, its turn. */
#include "agent/node.h"

#include "agent/node_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node *node_new(const struct node_config *config, const struct node_env *env)
{
	struct node *n = xcalloc(1, sizeof *n);

	CHECK(config->page != NULL && config->self >= 1 && config->self <= NODES_MAX);
	n->config = *config;
	n->env = *env;
	n->vms = xcalloc(VMS_MAX, sizeof *n->vms);
	n->nodes = xcalloc(NODES_MAX, sizeof *n->nodes);
	n->volumes = xcalloc(VOLUMES_MAX, sizeof *n->volumes);
	n->disk_views = xcalloc(VOLUMES_MAX, sizeof *n->disk_views);
	n->disks = xcalloc(VMS_MAX, sizeof *n->disks);
	lease_voter_init(&n->voter, env->now(env->ctx));
	lease_leader_init(&n->leader, config->timing);
	lease_node_init(&n->lease, config->timing, config->session);
	return n;
}

struct node *node_free(struct node *n)
{
	if (!n)
		return NULL;
	for (size_t i = 0; i <= NODES_MAX; i++) {
		buf_free(&n->leader_nodes[i].vms);
		buf_free(&n->leader_nodes[i].volumes);
		buf_free(&n->leader_nodes[i].waits);
	}
	buf_free(&n->volumes_told);
	buf_free(&n->waits_told);
	free(n->volumes);
	free(n->disks);
	free(n->disk_views);
	free(n->leader_volumes);
	free(n->leader_vms);
	free(n->instances);
	free(n->started);
	free(n->vms);
	free(n->nodes);
	free(n);
	return NULL;
}

static int compare_name(const void *name, const void *vm)
{
	return strcmp(name, ((const struct store_vm *)vm)->spec.name);
}

const struct store_vm *node_find_vm(const struct node *n, const char *name)
{
	return bsearch(name, n->vms, n->n_vms, sizeof *n->vms, compare_name); /* the store lists them by name */
}

void node_send(struct node *n, node_id_t to, const struct message_type *type, const void *msg)
{
	struct buf b = {0};

	message_encode(type, msg, &b);
	if (to == n->config.self)
		CHECK(node_receive(n, to, b.data, b.len));
	else
		n->env.send(n->env.ctx, to, b.data, b.len);
	buf_free(&b);
}

static bool receive_voter(struct node *n, node_id_t from, uint32_t id, const uint8_t *p, size_t len)
{
	struct consensus_view raft;
	usec_t now = n->env.now(n->env.ctx);

	consensus_view(n->config.consensus, &raft); /* raft's term, read now (section 2) */
	if (id == PEER_LEASE_PING) {
		struct peer_lease_round ping;

		if (message_decode(&peer_lease_ping_type, p, len, &ping, NULL) == 0 &&
		    lease_voter_ping(&n->voter, &raft, &ping, now))
			node_send(n, from, &peer_lease_pong_type, &ping);
	} else {
		struct peer_lease_age ages, age;

		if (message_decode(&peer_lease_ages_type, p, len, &ages, NULL) == 0 &&
		    lease_voter_ages(&n->voter, &raft, &ages, now, &age))
			node_send(n, from, &peer_lease_age_type, &age);
	}
	return true;
}

bool node_receive(struct node *n, node_id_t from, const uint8_t *p, size_t len)
{
	struct peer_lease_grant grant;
	uint32_t id;

	if (message_id(p, len, &id) < 0)
		return false;
	switch (id) {
	case PEER_LEASE_PING:
	case PEER_LEASE_AGES:
		return receive_voter(n, from, id, p, len);
	case PEER_LEASE_GRANT:
		if (message_decode(&peer_lease_grant_type, p, len, &grant, NULL) == 0)
			node_lease_granted(n, &grant);
		return true;
	default:
		return node_leader_receive(n, from, id, p, len);
	}
}

void node_set_info(struct node *n, const struct peer_node_info *info)
{
	n->info = *info;
	n->info.vms = n->info.volumes = n->info.waits = (struct message_bin){0};
}

void node_set_volumes(struct node *n, const void *p, size_t len)
{
	buf_consume(&n->volumes_told, n->volumes_told.len);
	buf_append(&n->volumes_told, p, len);
	n->next_info = 0;
}

void node_set_waits(struct node *n, const void *p, size_t len)
{
	buf_consume(&n->waits_told, n->waits_told.len);
	buf_append(&n->waits_told, p, len);
}

static void refresh(struct node *n)
{
	struct store_cluster cluster = {0};
	size_t n_old;

	if (n->changes == store_changes(n->config.store))
		return;
	n->changes = store_changes(n->config.store);
	n_old = n->n_vms;
	n->n_vms = store_vms(n->config.store, n->vms, VMS_MAX);
	n->n_nodes = store_nodes(n->config.store, n->nodes, NODES_MAX);
	store_cluster(n->config.store, &cluster);
	n->node_max = cluster.node_max;
	n->next_plan = 0;
	node_leader_refresh(n, n->leader_vms, n_old);
	node_volumes_refresh(n);
}

/* Tell the leader what is here: at once when something changed, else about once a second. */
static void tell_info(struct node *n, const struct consensus_view *raft)
{
	struct buf vms = {0};
	bool changed = raft->leader != n->info_told_to;
	usec_t now = n->env.now(n->env.ctx);

	for (size_t i = 0; i < n->n_instances; i++) {
		struct instance *in = &n->instances[i];
		struct peer_vm_state s = {.gen = in->gen};

		memcpy(s.vm, in->vm, sizeof s.vm);
		node_instance_state(n, in, s.state);
		changed |= strcmp(s.state, in->told) != 0;
		memcpy(in->told, s.state, sizeof in->told);
		message_encode(&peer_vm_state_type, &s, &vms);
	}
	if (raft->leader && (changed || now >= n->next_info)) {
		n->info.vms = (struct message_bin){vms.data, vms.len};
		n->info.volumes = (struct message_bin){n->volumes_told.data, n->volumes_told.len};
		n->info.waits = (struct message_bin){n->waits_told.data, n->waits_told.len};
		node_send(n, raft->leader, &peer_node_info_type, &n->info);
		n->info.vms = n->info.volumes = n->info.waits = (struct message_bin){0};
		n->info_told_to = raft->leader;
		n->next_info = now + INFO_EVERY;
	}
	buf_free(&vms);
}

void node_step(struct node *n)
{
	struct consensus_view raft;

	refresh(n);
	consensus_view(n->config.consensus, &raft);
	node_leader_step(n, &raft);
	consensus_view(n->config.consensus, &raft);
	node_lease_step(n, &raft);
	node_instances_step(n, &raft);
	tell_info(n, &raft);
}

bool node_leads(const struct node *n)
{
	struct consensus_view raft;

	consensus_view(n->config.consensus, &raft);
	return n->leader.leading && n->leader.barrier_done && raft.is_leader && raft.term == n->leader.term;
}

bool node_read_begin(struct node *n, struct node_read *ret)
{
	struct consensus_view raft;

	if (!node_leads(n))
		return false;
	consensus_view(n->config.consensus, &raft);
	*ret = (struct node_read){raft.term, lease_leader_read(&n->leader), raft.commit};
	return true;
}

enum node_read_state node_read_poll(struct node *n, const struct node_read *read)
{
	struct consensus_view raft;

	consensus_view(n->config.consensus, &raft);
	if (!node_leads(n) || raft.term != read->term)
		return NODE_READ_LOST;
	if (raft.applied < read->index || !lease_leader_read_good(&n->leader, &raft, n->config.self, read->round))
		return NODE_READ_WAIT;
	return NODE_READ_READY;
}

bool node_knows(const struct node *n)
{
	struct consensus_view raft;

	consensus_view(n->config.consensus, &raft);
	return lease_node_knows(&n->lease, raft.applied);
}

size_t node_instances(const struct node *n)
{
	size_t count = 0;

	for (size_t i = 0; i < n->n_instances; i++)
		count += n->instances[i].state != INSTANCE_ENDED;
	return count;
}
