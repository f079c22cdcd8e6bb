/* SPDX-License-Identifier: Apache-2.0
 * The node as leader: rounds and grants, what other nodes tell, and the moves of VMs. */
#include "agent/node_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMBERS_EVERY (200 * USEC_PER_MS)

static usec_t now_of(const struct node *n)
{
	return n->env.now(n->env.ctx);
}

/* ---- becoming leader ---- */

struct term_ctx {
	struct node *node;
	uint64_t term;
};

static void barrier_done(void *ctx, int status, const struct store_result *result)
{
	struct term_ctx *t = ctx;
	struct consensus_view raft;

	(void)result;
	consensus_view(t->node->config.consensus, &raft);
	if (status == 0)
		lease_leader_barrier(&t->node->leader, &raft, t->term);
	free(t);
}

static void send_to_voters(struct node *n, const struct consensus_view *raft, const struct message_type *type,
			   const void *msg)
{
	for (size_t i = 0; i < raft->n_members; i++) {
		const struct consensus_member *m = &raft->members[i];

		if (m->node != n->config.self && (m->role == CONSENSUS_VOTER || m->was_voter))
			node_send(n, m->node, type, msg);
	}
}

static void gained(struct node *n, const struct consensus_view *raft)
{
	struct peer_lease_age ages = {.term = raft->term};
	struct term_ctx *t = xcalloc(1, sizeof *t);

	for (size_t i = 0; i < n->n_vms; i++)
		n->leader_vms[i] = (struct leader_vm){0};
	for (size_t i = 0; i < n->n_vms; i++)
		memcpy(n->leader_vms[i].name, n->vms[i].spec.name, NAME_BYTES_MAX);
	node_volumes_gained(n);
	for (size_t i = 0; i <= NODES_MAX; i++) {
		n->leader_nodes[i].silent_since = 0;
		n->leader_nodes[i].was_sound = n->leader_nodes[i].was_unsound = false;
	}
	*t = (struct term_ctx){n, raft->term};
	/* L5: libraft adds an entry of its own only over a tail, so one is asked for. */
	if (PLANTED(nobarrier) || PLANTED(libraft)) {
		lease_leader_barrier(&n->leader, raft, raft->term);
		free(t);
	} else if (consensus_barrier(n->config.consensus, barrier_done, t) != 0) {
		free(t);
		n->leader.leading = false; /* tried again in the next turn, as a new leader */
	}
	send_to_voters(n, raft, &peer_lease_ages_type, &ages); /* L9 */
}

/* ---- what other nodes tell ---- */

static struct leader_vm *leader_vm(struct node *n, const struct store_vm *row)
{
	CHECK(row >= n->vms && row < n->vms + n->n_vms);
	return &n->leader_vms[row - n->vms];
}

/* The VMs were read anew: what is remembered about each goes to its new place. Both lists are in the order of names. */
void node_leader_refresh(struct node *n, struct leader_vm *old, size_t n_old)
{
	size_t o = 0;

	n->leader_vms = xcalloc(n->n_vms + 1, sizeof *n->leader_vms);
	for (size_t i = 0; i < n->n_vms; i++) {
		const char *name = n->vms[i].spec.name;

		while (o < n_old && strcmp(old[o].name, name) < 0)
			o++;
		if (o < n_old && strcmp(old[o].name, name) == 0)
			n->leader_vms[i] = old[o];
		memcpy(n->leader_vms[i].name, name, NAME_BYTES_MAX);
	}
	free(old);
}

/* Sender is the owner and the generation current; nothing in flight (section 2). L10: this alone permits a move without
 * waiting. */
static void receive_stopped(struct node *n, node_id_t from, const struct peer_stopped *m)
{
	const struct store_vm *row = node_find_vm(n, m->vm);
	struct leader_vm *v;

	if (!n->leader.leading || !row)
		return;
	if ((row->owner != from || row->gen != m->gen) && !PLANTED(nocas))
		return;
	v = leader_vm(n, row);
	if (v->busy)
		return;
	n->next_plan = 0;
	v->stopped_gen = PLANTED(nocas) ? row->gen : m->gen;
	v->failed = m->failed;
	v->elsewhere = m->elsewhere;
	if (v->not_before_gen != row->gen) {
		v->not_before_gen = row->gen;
		v->not_before =
			m->failed ? now_of(n) + scheduler_backoff(store_fails_next(row, n->env.wall(n->env.ctx))) : 0;
	}
}

static void receive_info(struct node *n, node_id_t from, const struct peer_node_info *info)
{
	struct leader_node *l = &n->leader_nodes[from];

	l->info = *info;
	l->info_at = now_of(n);
	buf_consume(&l->vms, l->vms.len);
	buf_append(&l->vms, info->vms.p, info->vms.n);
	l->info.vms = (struct message_bin){l->vms.data, l->vms.len};
	buf_consume(&l->volumes, l->volumes.len);
	buf_append(&l->volumes, info->volumes.p, info->volumes.n);
	l->info.volumes = (struct message_bin){l->volumes.data, l->volumes.len};
	buf_consume(&l->waits, l->waits.len);
	buf_append(&l->waits, info->waits.p, info->waits.n);
	l->info.waits = (struct message_bin){l->waits.data, l->waits.len};
}

static void receive_req(struct node *n, node_id_t from, const struct peer_lease_req *req)
{
	struct leader_node *l = &n->leader_nodes[from];

	lease_leader_req(&n->leader, from, req);
	if (PLANTED(rebootfast) && l->session && l->session != req->session)
		for (size_t i = 0; i < n->n_vms; i++)
			if (n->vms[i].owner == from)
				leader_vm(n, &n->vms[i])->stopped_gen = n->vms[i].gen;
	l->session = req->session;
}

bool node_leader_receive(struct node *n, node_id_t from, uint32_t id, const uint8_t *p, size_t len)
{
	struct consensus_view raft;
	union {
		struct peer_lease_req req;
		struct peer_lease_round pong;
		struct peer_lease_age age;
		struct peer_stopped stopped;
		struct peer_ask ask;
		struct peer_node_info info;
	} m;

	consensus_view(n->config.consensus, &raft);
	switch (id) {
	case PEER_LEASE_REQ:
		if (message_decode(&peer_lease_req_type, p, len, &m.req, NULL) == 0)
			receive_req(n, from, &m.req);
		return true;
	case PEER_LEASE_PONG:
		if (message_decode(&peer_lease_pong_type, p, len, &m.pong, NULL) == 0)
			lease_leader_pong(&n->leader, &raft, from, &m.pong);
		return true;
	case PEER_LEASE_AGE:
		if (message_decode(&peer_lease_age_type, p, len, &m.age, NULL) == 0)
			lease_leader_age(&n->leader, &raft, from, &m.age, n->config.self, now_of(n));
		return true;
	case PEER_STOPPED:
		if (message_decode(&peer_stopped_type, p, len, &m.stopped, NULL) == 0)
			receive_stopped(n, from, &m.stopped);
		return true;
	case PEER_ASK:
		if (message_decode(&peer_ask_type, p, len, &m.ask, NULL) == 0)
			node_movable_receive(n, from, &m.ask);
		return true;
	case PEER_NODE_INFO:
		if (message_decode(&peer_node_info_type, p, len, &m.info, NULL) == 0)
			receive_info(n, from, &m.info);
		return true;
	default:
		return false;
	}
}

/* ---- moves ---- */

struct move_ctx {
	struct node *node;
	uint64_t number;
	char vm[NAME_BYTES_MAX];
};

static void move_done(void *ctx, int status, const struct store_result *result)
{
	struct move_ctx *m = ctx;

	(void)status; /* whatever came of it: the next turn decides afresh from the applied state (L8) */
	(void)result;
	m->node->next_plan = 0;
	for (size_t i = 0; i < m->node->n_vms; i++)
		if (m->node->leader_vms[i].busy == m->number)
			m->node->leader_vms[i].busy = 0;
	free(m);
}

void node_leader_propose(struct node *n, const struct store_vm *row, struct buf *entry)
{
	struct leader_vm *v = leader_vm(n, row);
	struct move_ctx *m = xcalloc(1, sizeof *m);

	m->node = n;
	m->number = ++n->busy_count;
	v->busy = m->number;
	if (consensus_propose(n->config.consensus, entry->data, entry->len, move_done, m) != 0) {
		v->busy = 0; /* never queued, forwarded or repeated (L8) */
		free(m);
	}
	buf_free(entry);
}

static void submit(struct node *n, const struct store_vm *row, const struct scheduler_move *move)
{
	struct command_head head = {.wall = n->env.wall(n->env.ctx), .actor = "leader"};
	struct command_move c = {.to = move->to, .gen = row->gen, .failed = move->failed};
	struct leader_vm *v = leader_vm(n, row);
	struct buf entry = {0}, bodies = {0};

	memcpy(c.vm, row->spec.name, sizeof c.vm);
	memcpy(c.reason, move->reason, sizeof c.reason);
	c.confirmed = row->owner ? v->stopped_gen == row->gen : row->confirmed;
	if (move->to && PLANTED(splitmove))
		node_takeovers_alone(n, row, move->to, c.confirmed);
	else if (move->to)
		head.bodies = node_takeovers(n, row, move->to, c.confirmed, c.reason, &bodies);
	head.bodies++;
	command_begin(&head, &entry);
	buf_append(&entry, bodies.data, bodies.len);
	message_encode(&command_move_type, &c, &entry);
	buf_free(&bodies);
	node_leader_propose(n, row, &entry);
}

bool node_lease_is_fresh(const struct node *n, node_id_t node)
{
	const struct lease_holder *h = &n->leader.holders[node];
	usec_t now = now_of(n);

	return h->granted && now - h->wait_from < LEASE_FRESH;
}

/* Counts from when this leader saw it silent first: a new leader waits anew. */
static bool is_away(struct node *n, node_id_t node, bool is_up)
{
	struct leader_node *l = &n->leader_nodes[node];

	if (is_up)
		l->silent_since = 0;
	else if (l->silent_since == 0)
		l->silent_since = now_of(n);
	return l->silent_since && n->config.replace_after && now_of(n) - l->silent_since >= n->config.replace_after;
}

static size_t view_nodes(struct node *n, struct scheduler_node *ret)
{
	for (size_t i = 0; i < n->n_nodes; i++) {
		const struct leader_node *l = &n->leader_nodes[n->nodes[i].node];

		bool is_up = l->info_at && node_lease_is_fresh(n, n->nodes[i].node);

		ret[i] = (struct scheduler_node){
			.node = n->nodes[i].node,
			.is_up = is_up,
			.is_away = is_away(n, n->nodes[i].node, is_up),
			.has_engine = l->info.has_engine,
			.unsound = l->info.engine_unsound,
			.disk_free = l->info.disk_free,
			.replicas = l->replicas,
			.can_run = is_up && l->info.runs_vms,
			.memory_bytes = l->info.memory_bytes,
			.cpus = l->info.cpus,
		};
	}
	return n->n_nodes;
}

static enum scheduler_out out_of(const struct node *n, const struct consensus_view *raft, const struct store_vm *row,
				 const struct leader_vm *v)
{
	if (row->owner == 0)
		return SCHEDULER_IN;
	if (v->stopped_gen == row->gen) /* L10 */
		return SCHEDULER_STOPPED;
	if (row->movable && lease_leader_may_take(&n->leader, raft, row->owner, now_of(n))) /* L8 */
		return SCHEDULER_LAPSED;
	return SCHEDULER_IN;
}

static struct scheduler_vm view_vm(struct node *n, const struct consensus_view *raft, const struct store_vm *row)
{
	const struct leader_vm *v = leader_vm(n, row);
	struct scheduler_vm ret = {
		.name = row->spec.name,
		.run = row->spec.run,
		.owner = row->owner,
		.gen = row->gen,
		.memory_bytes = row->spec.memory_bytes,
		.vcpus = row->spec.vcpus,
		.priority = row->spec.priority,
		.busy = v->busy != 0,
		.ending = row->end_gen >= row->gen,
		.out = out_of(n, raft, row, v),
		.failed = v->failed,
		.elsewhere = v->elsewhere,
		.not_before = v->not_before_gen == row->gen ? v->not_before : 0,
		.is_export = row->is_export,
		.node = row->node,
	};

	node_disks_of(n, row, &ret);
	return ret;
}

/* What the scheduler judges by. The arrays are the caller's, to be freed. */
static void view_all(struct node *n, const struct consensus_view *raft, struct scheduler_view *ret,
		     struct scheduler_node **ret_nodes, struct scheduler_vm **ret_vms)
{
	*ret_nodes = xcalloc(n->n_nodes + 1, sizeof **ret_nodes);
	*ret_vms = xcalloc(n->n_vms + 1, sizeof **ret_vms);
	*ret = (struct scheduler_view){.now = now_of(n), .n_nodes = view_nodes(n, *ret_nodes), .nodes = *ret_nodes};
	node_disks_view(n, ret);
	for (size_t i = 0; i < n->n_vms; i++)
		(*ret_vms)[i] = view_vm(n, raft, &n->vms[i]);
	ret->n_vms = n->n_vms;
	ret->vms = *ret_vms;
}

static void moves_step(struct node *n, const struct consensus_view *raft)
{
	struct scheduler_move moves[MOVES_PER_STEP];
	struct scheduler_node *nodes;
	struct scheduler_vm *vms;
	struct scheduler_view view;
	size_t count;

	view_all(n, raft, &view, &nodes, &vms);
	count = scheduler_plan(&view, moves, MOVES_PER_STEP);
	for (size_t i = 0; i < count; i++) /* L8: in the very turn of the decision */
		submit(n, &n->vms[moves[i].vm], &moves[i]);
	node_unsound_step(n, &view, count > 0);
	node_volumes_step(n, raft, &view);
	node_movable_plan(n, &view);
	free(nodes);
	free(vms);
}

static bool node_is_up(void *ctx, node_id_t node)
{
	struct node *n = ctx;

	return node == n->config.self || n->env.is_up(n->env.ctx, node);
}

static void grants_step(struct node *n, const struct consensus_view *raft)
{
	struct peer_lease_round ping;
	struct peer_lease_grant grant;
	node_id_t to;

	if (lease_leader_round(&n->leader, raft, n->config.self, now_of(n), &ping))
		send_to_voters(n, raft, &peer_lease_ping_type, &ping);
	while (lease_leader_grant(&n->leader, raft, n->config.self, &to, &grant)) {
		node_send(n, to, &peer_lease_grant_type, &grant);
		lease_leader_granted(&n->leader, to, &n->voter, now_of(n)); /* L7 */
	}
}

void node_leader_step(struct node *n, const struct consensus_view *raft)
{
	if (lease_leader_poll(&n->leader, raft, &n->voter, n->config.self, now_of(n)) == LEASE_GAINED)
		gained(n, raft);
	if (!n->leader.leading)
		return;
	grants_step(n, raft);
	if (!n->leader.barrier_done) /* L5 */
		return;
	if (now_of(n) >= n->next_plan) {
		n->next_plan = now_of(n) + PLAN_EVERY;
		moves_step(n, raft);
	}
	if (now_of(n) < n->next_members)
		return;
	n->next_members = now_of(n) + MEMBERS_EVERY;
	(void)consensus_members_step(n->config.consensus, n->nodes, n->n_nodes, n->node_max, n->config.voters_max,
				     node_is_up, n);
}

/* ---- asking ---- */

void node_peer_status(struct node *n, node_id_t peer, struct node_peer_status *ret)
{
	const struct leader_node *l = &n->leader_nodes[peer];
	const struct lease_holder *h = &n->leader.holders[peer];

	*ret = (struct node_peer_status){.heard = l->info_at != 0, .silent = USEC_INFINITY, .info = l->info};
	if (!n->leader.leading)
		return;
	ret->lease = node_lease_is_fresh(n, peer);
	ret->silent = now_of(n) - (h->granted ? h->wait_from : n->leader.since);
}

/* What the owner told last about this generation; false: nothing. */
static bool told_state(struct node *n, const struct store_vm *row, char ret[16])
{
	const struct buf *b = &n->leader_nodes[row->owner].vms;
	struct peer_vm_state s;
	size_t at = 0, used;

	while (at < b->len && message_decode(&peer_vm_state_type, b->data + at, b->len - at, &s, &used) == 0) {
		at += used;
		if (strcmp(s.vm, row->spec.name) == 0 && s.gen == row->gen) {
			memcpy(ret, s.state, 16);
			return true;
		}
	}
	return false;
}

static void explain(struct node *n, const struct store_vm *row, char ret[REASON_BYTES_MAX])
{
	struct consensus_view raft;
	struct scheduler_node *nodes;
	struct scheduler_vm *vms;
	struct scheduler_view view;

	if (node_explain_filling(n, row, ret))
		return;
	consensus_view(n->config.consensus, &raft);
	view_all(n, &raft, &view, &nodes, &vms);
	for (size_t i = 0; i < n->n_vms; i++)
		if (strcmp(n->vms[i].spec.name, row->spec.name) == 0)
			scheduler_explain(&view, i, ret);
	free(nodes);
	free(vms);
}

/* What a node that does not lead can tell: its own instances for certain, of the others only where they are placed. */
static void own_state(struct node *n, const struct store_vm *row, char ret_state[16], char ret_reason[REASON_BYTES_MAX])
{
	const struct instance *i = node_instance(n, row->spec.name);

	if (row->owner == n->config.self && i && i->gen == row->gen) {
		node_instance_state(n, i, ret_state);
		return;
	}
	(void)snprintf(ret_state, 16, "%s", row->spec.run ? "running" : "stopping");
	(void)snprintf(ret_reason, REASON_BYTES_MAX, "placed there as this node last knew; only the leader knows more");
}

/* The owner is silent: its lease is over, and something else is waited for, or that itself. */
static void explain_silence(struct node *n, const struct store_vm *row, char ret[REASON_BYTES_MAX])
{
	explain(n, row, ret);
	if (ret[0] == '\0')
		(void)snprintf(ret, REASON_BYTES_MAX, "%s",
			       row->movable ? "its node is silent: taken over when its lease is surely over"
					    : "its node is silent, and no other has its disks");
}

void node_vm_status(struct node *n, const struct store_vm *row, char ret_state[16], char ret_reason[REASON_BYTES_MAX])
{
	ret_reason[0] = '\0';
	memset(ret_state, 0, 16);
	if (row->owner == 0) {
		(void)snprintf(ret_state, 16, "%s", row->spec.run ? "waiting" : "stopped");
		if (row->spec.run)
			explain(n, row, ret_reason);
		return;
	}
	if (!n->leader.leading) {
		own_state(n, row, ret_state, ret_reason);
		return;
	}
	if (!told_state(n, row, ret_state))
		(void)snprintf(ret_state, 16, "%s", row->spec.run ? "starting" : "stopping");
	if (!node_lease_is_fresh(n, row->owner)) {
		(void)snprintf(ret_state, 16, "waiting");
		explain_silence(n, row, ret_reason);
	} else if (strcmp(ret_state, "stopped") == 0) {
		(void)snprintf(ret_state, 16, "%s", row->spec.run ? "waiting" : "stopping");
	}
	if (strcmp(ret_state, "starting") == 0 && ret_reason[0] == '\0')
		node_wait(n, row->owner, row->spec.name, ret_reason);
	if (row->spec.run && ret_reason[0] == '\0')
		explain(n, row, ret_reason);
}
