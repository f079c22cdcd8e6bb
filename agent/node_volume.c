/* SPDX-License-Identifier: Apache-2.0
 * Volumes among a node's decisions: as leader, who leads which (VOLUME-PROTOCOL, section 1: TAKEOVER, COLD); as owner
 * of a VM, whether its disks are still good. */
#include "agent/node_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static usec_t now_of(const struct node *n)
{
	return n->env.now(n->env.ctx);
}

/* ---- the applied state ---- */

static int compare_id(const void *id, const void *volume)
{
	return strcmp(id, ((const struct leader_volume *)volume)->id);
}

static int compare_two(const void *a, const void *b)
{
	return strcmp(((const struct leader_volume *)a)->id, ((const struct leader_volume *)b)->id);
}

static struct leader_volume *memory_of(const struct node *n, const struct store_volume *v)
{
	struct leader_volume *m =
		bsearch(v->id, n->leader_volumes, n->n_volumes, sizeof *n->leader_volumes, compare_id);

	CHECK(m != NULL);
	return m;
}

/* What is remembered about each goes on with it. */
static void refresh_memory(struct node *n, size_t n_old)
{
	struct leader_volume *old = n->leader_volumes;

	n->leader_volumes = xcalloc(n->n_volumes + 1, sizeof *n->leader_volumes);
	for (size_t i = 0; i < n->n_volumes; i++) {
		const struct leader_volume *o =
			old ? bsearch(n->volumes[i].id, old, n_old, sizeof *old, compare_id) : NULL;

		if (o)
			n->leader_volumes[i] = *o;
		memcpy(n->leader_volumes[i].id, n->volumes[i].id, VOLUME_NAME_ID);
	}
	qsort(n->leader_volumes, n->n_volumes, sizeof *n->leader_volumes, compare_two);
	free(old);
}

static void count_replicas(struct node *n)
{
	for (size_t i = 0; i <= NODES_MAX; i++)
		n->leader_nodes[i].replicas = 0;
	for (size_t i = 0; i < n->n_volumes; i++)
		for (size_t k = 0; k < n->volumes[i].n_members; k++)
			n->leader_nodes[n->volumes[i].members[k].node].replicas++;
}

/* Both lists are in the order of the VMs' names. */
static void find_disks(struct node *n)
{
	size_t at = 0;

	for (size_t i = 0; i < n->n_vms; i++) {
		const char *name = n->vms[i].spec.name;

		while (at < n->n_volumes && strcmp(n->volumes[at].vm, name) < 0)
			at++;
		n->disks[i].first = at;
		while (at < n->n_volumes && strcmp(n->volumes[at].vm, name) == 0)
			at++;
		n->disks[i].n = at - n->disks[i].first;
	}
}

void node_volumes_refresh(struct node *n)
{
	size_t n_old = n->n_volumes;

	n->n_volumes = store_volumes(n->config.store, n->volumes, VOLUMES_MAX);
	refresh_memory(n, n_old);
	find_disks(n);
	count_replicas(n);
}

void node_volumes_gained(struct node *n)
{
	for (size_t i = 0; i < n->n_volumes; i++) {
		n->leader_volumes[i].busy = 0;
		n->leader_volumes[i].silent_since = 0;
	}
}

const struct store_volume *node_volumes(const struct node *n, size_t *ret_n)
{
	*ret_n = n->n_volumes;
	return n->volumes;
}

const struct store_volume *node_disks(const struct node *n, const struct store_vm *row, size_t *ret_n)
{
	const struct store_vm *own = node_find_vm(n, row->spec.name);
	const struct disk_range *range = own ? &n->disks[own - n->vms] : NULL;

	*ret_n = range ? range->n : 0;
	return range ? &n->volumes[range->first] : NULL;
}

/* ---- on the owner ---- */

bool node_disk_is_lost(const struct node *n, const struct store_vm *row)
{
	size_t count;
	const struct store_volume *v = node_disks(n, row, &count);

	for (size_t i = 0; i < count; i++) {
		const struct store_replica *r = store_volume_on(&v[i], n->config.self);

		if (v[i].primary == n->config.self && (!r || !store_replica_is_good(r)))
			return true;
	}
	return false;
}

/* ---- what the leader judges by ---- */

static struct scheduler_disk view_of(const struct store_volume *v)
{
	struct scheduler_disk d = {.name = v->name,
				   .primary = v->primary,
				   .n_replicas = v->n_members,
				   .size = v->grow_to ? v->grow_to : v->size,
				   .wanted = v->replicas,
				   .filling = v->filling};

	_Static_assert(SCHEDULER_REPLICAS_MAX == ENGINE_REPLICAS_MAX, "each has its place");
	for (size_t i = 0; i < v->n_members; i++)
		d.replicas[i] = (struct scheduler_replica){.node = v->members[i].node,
							   .good = store_replica_is_good(&v->members[i]),
							   .lost_power = store_replica_lost_power(&v->members[i]),
							   .in_sync = v->members[i].in_sync,
							   .leaving = v->members[i].leaving};
	memcpy(d.nodes, v->nodes, sizeof v->nodes);
	return d;
}

/* COLD_WAIT counts while nothing but the silence of others keeps a volume from serving. */
void node_disks_view(struct node *n, const struct scheduler_view *view)
{
	for (size_t i = 0; i < n->n_volumes; i++) {
		struct leader_volume *m = memory_of(n, &n->volumes[i]);
		struct scheduler_disk d = view_of(&n->volumes[i]);

		if (!scheduler_waits_for_silent(view, &d))
			m->silent_since = 0;
		else if (m->silent_since == 0)
			m->silent_since = view->now;
		d.waited = m->silent_since && view->now - m->silent_since >= COLD_WAIT;
		n->disk_views[i] = d;
	}
}

void node_disks_of(const struct node *n, const struct store_vm *row, struct scheduler_vm *ret)
{
	const struct disk_range *range = &n->disks[row - n->vms];

	ret->disks = &n->disk_views[range->first];
	ret->n_disks = range->n;
}

/* ---- takeovers ---- */

static struct command_volume_takeover takeover_of(const struct node *n, size_t i, node_id_t to, bool confirmed,
						  const char *reason)
{
	const struct store_volume *v = &n->volumes[i];
	enum scheduler_lead lead = scheduler_lead(&n->disk_views[i], to);
	struct command_volume_takeover c = {.kind = lead == SCHEDULER_TAKEOVER ? VOLUME_TAKEOVER : VOLUME_COLD,
					    .epoch = v->epoch,
					    .node = to,
					    .confirmed = confirmed,
					    .silent = lead == SCHEDULER_COLD_SILENT};

	memcpy(c.id, v->id, sizeof c.id);
	(void)snprintf(c.reason, sizeof c.reason, "%s%s", reason,
		       c.silent ? "; without the replicas that stayed silent" : "");
	return c;
}

uint32_t node_takeovers(const struct node *n, const struct store_vm *row, node_id_t to, bool confirmed,
			const char *reason, struct buf *entry)
{
	const struct disk_range *range = &n->disks[row - n->vms];

	for (size_t i = range->first; i < range->first + range->n; i++) {
		struct command_volume_takeover c = takeover_of(n, i, to, confirmed, reason);

		message_encode(&command_volume_takeover_type, &c, entry);
	}
	return (uint32_t)range->n;
}

struct takeover_ctx {
	struct node *node;
	uint64_t number;
};

static void takeover_done(void *ctx, int status, const struct store_result *result)
{
	struct takeover_ctx *t = ctx;

	(void)status; /* whatever came of it: the next turn decides afresh from the applied state */
	(void)result;
	t->node->next_plan = 0;
	for (size_t i = 0; i < t->node->n_volumes; i++)
		if (t->node->leader_volumes[i].busy == t->number)
			t->node->leader_volumes[i].busy = 0;
	free(t);
}

/* Takes @bodies. */
static void submit(struct node *n, size_t i, struct buf *bodies, uint32_t count)
{
	struct command_head head = {.wall = n->env.wall(n->env.ctx), .actor = "leader", .bodies = count};
	struct leader_volume *m = memory_of(n, &n->volumes[i]);
	struct takeover_ctx *t = xcalloc(1, sizeof *t);
	struct buf entry = {0};

	command_begin(&head, &entry);
	buf_append(&entry, bodies->data, bodies->len);
	buf_free(bodies);
	*t = (struct takeover_ctx){n, ++n->busy_count};
	m->busy = t->number;
	if (consensus_propose(n->config.consensus, entry.data, entry.len, takeover_done, t) != 0) {
		m->busy = 0;
		free(t);
	}
	buf_free(&entry);
}

void node_takeovers_alone(struct node *n, const struct store_vm *row, node_id_t to, bool confirmed)
{
	size_t first = n->disks[row - n->vms].first, count = n->disks[row - n->vms].n;

	for (size_t i = first; i < first + count; i++) {
		struct command_volume_takeover c = takeover_of(n, i, to, confirmed, "split");
		struct buf bodies = {0};

		message_encode(&command_volume_takeover_type, &c, &bodies);
		submit(n, i, &bodies, 1);
	}
}

/* Nobody uses it: its VM has no owner, or it has none, or it is being filled, when no guest can have it. */
static bool is_unused(const struct node *n, const struct store_volume *v)
{
	const struct store_vm *row = v->vm[0] ? node_find_vm(n, v->vm) : NULL;

	return !v->deleting && (v->filling || !row || (row->owner == 0 && !n->leader_vms[row - n->vms].busy));
}

/* Its lease is over (L8), or it said itself that it lost what it had. */
static bool primary_is_out(const struct node *n, const struct consensus_view *raft, const struct store_volume *v)
{
	const struct store_replica *r = store_volume_on(v, v->primary);

	return !r || !store_replica_is_good(r) || lease_leader_may_take(&n->leader, raft, v->primary, now_of(n));
}

static bool lead_unused(struct node *n, const struct consensus_view *raft, const struct scheduler_view *view, size_t i)
{
	struct command_volume_takeover c;
	struct buf bodies = {0};
	node_id_t to;

	if (!is_unused(n, &n->volumes[i]))
		return false;
	to = scheduler_volume(view, &n->disk_views[i], primary_is_out(n, raft, &n->volumes[i]));
	if (to == 0)
		return false;
	c = takeover_of(n, i, to, false, "its primary is out");
	message_encode(&command_volume_takeover_type, &c, &bodies);
	submit(n, i, &bodies, 1);
	return true;
}

/* REMOVE where it is in sync, then MEMBER -x. */
static uint32_t add_drop(const struct store_volume *v, node_id_t node, struct buf *bodies)
{
	struct command_volume_change out = {.from = v->primary, .epoch = v->epoch, .node = node};
	struct command_volume_member leave = {.node = node, .reason = "there are enough others"};
	bool in_sync = store_volume_on(v, node)->in_sync;

	memcpy(out.id, v->id, sizeof out.id);
	memcpy(leave.id, v->id, sizeof leave.id);
	if (in_sync)
		message_encode(&command_volume_change_type, &out, bodies);
	message_encode(&command_volume_member_type, &leave, bodies);
	return 1 + in_sync;
}

static bool place_replicas(struct node *n, const struct scheduler_view *view, size_t i)
{
	struct command_volume_member c = {.add = true, .reason = "more replicas are wanted"};
	struct buf bodies = {0};
	uint32_t count;
	node_id_t node;

	if (n->volumes[i].deleting)
		return false;
	switch (scheduler_replicas(view, &n->disk_views[i], &node)) {
	case SCHEDULER_ADD:
		memcpy(c.id, n->volumes[i].id, sizeof c.id);
		c.node = node;
		message_encode(&command_volume_member_type, &c, &bodies);
		submit(n, i, &bodies, 1);
		return true;
	case SCHEDULER_DROP:
		count = add_drop(&n->volumes[i], node, &bodies);
		submit(n, i, &bodies, count);
		return true;
	default:
		return false;
	}
}

void node_volumes_step(struct node *n, const struct consensus_view *raft, const struct scheduler_view *view)
{
	unsigned left = MOVES_PER_STEP;

	for (size_t i = 0; i < n->n_volumes && left > 0; i++)
		if (!memory_of(n, &n->volumes[i])->busy)
			left -= lead_unused(n, raft, view, i) || place_replicas(n, view, i);
}

/* ---- asking ---- */

/* What the engine of @node says of it. */
static bool status_at(const struct node *n, const struct store_volume *v, node_id_t node, struct engine_status *ret)
{
	const struct buf *b = node == n->config.self ? &n->volumes_told : &n->leader_nodes[node].volumes;
	size_t at = 0, used;

	CHECK(node <= NODES_MAX);
	while (at < b->len && message_decode(&engine_status_type, b->data + at, b->len - at, ret, &used) == 0) {
		at += used;
		if (strcmp(ret->id, v->id) == 0)
			return true;
	}
	return false;
}

bool node_volume_status(const struct node *n, const struct store_volume *v, struct engine_status *ret)
{
	return status_at(n, v, v->primary, ret);
}

void node_wait(const struct node *n, node_id_t node, const char *object, char ret[REASON_BYTES_MAX])
{
	const struct buf *b = node == n->config.self ? &n->waits_told : &n->leader_nodes[node].waits;
	struct peer_wait w;
	size_t at = 0, used;

	CHECK(node <= NODES_MAX);
	ret[0] = '\0';
	while (at < b->len && message_decode(&peer_wait_type, b->data + at, b->len - at, &w, &used) == 0) {
		at += used;
		if (strcmp(w.object, object) == 0)
			memcpy(ret, w.text, sizeof w.text);
	}
}

static unsigned count_in_sync(const struct store_volume *v)
{
	unsigned count = 0;

	for (size_t i = 0; i < v->n_members; i++)
		count += store_replica_is_good(&v->members[i]);
	return count;
}

static void describe_filling(const struct node *n, const struct store_volume *v, char ret[REASON_BYTES_MAX])
{
	char how[REASON_BYTES_MAX];

	node_wait(n, v->primary, v->id, how);
	(void)snprintf(ret, REASON_BYTES_MAX, "being filled from image '%.40s'%s%.80s", v->image, how[0] ? ": " : "",
		       how);
}

bool node_explain_filling(const struct node *n, const struct store_vm *row, char ret[REASON_BYTES_MAX])
{
	size_t count;
	const struct store_volume *v = node_disks(n, row, &count);
	char how[REASON_BYTES_MAX];

	for (size_t i = 0; i < count; i++) {
		if (!v[i].filling)
			continue;
		describe_filling(n, &v[i], how);
		(void)snprintf(ret, REASON_BYTES_MAX, "its disk '%.40s' is %.100s", v[i].name, how);
		return true;
	}
	return false;
}

static const char *name_of(const struct node *n, node_id_t node)
{
	for (size_t i = 0; i < n->n_nodes; i++)
		if (n->nodes[i].node == node)
			return n->nodes[i].name;
	return "a node that is gone";
}

static void describe_growth(const struct node *n, const struct store_volume *v, char ret[REASON_BYTES_MAX])
{
	for (size_t i = 0; i < v->n_members; i++) {
		const struct store_replica *r = &v->members[i];
		struct engine_status s = {0};

		if (!r->in_sync || r->room >= v->grow_to)
			continue;
		(void)status_at(n, v, r->node, &s);
		(void)snprintf(ret, REASON_BYTES_MAX, "growing to %llu MiB: %.30s makes room%s%.60s",
			       (unsigned long long)(v->grow_to >> 20), name_of(n, r->node), s.problem[0] ? ": " : "",
			       s.problem);
		return;
	}
}

/* Were other nodes named for its replicas? */
static bool is_unwanted(const struct store_volume *v, node_id_t node)
{
	for (size_t i = 0; i < REPLICAS_MAX && v->nodes[i]; i++)
		if (v->nodes[i] == node)
			return false;
	return v->nodes[0] != 0;
}

void node_volume_problem(struct node *n, const struct store_volume *v, char ret[REASON_BYTES_MAX])
{
	struct engine_status s = {0};
	unsigned in_sync = count_in_sync(v);

	ret[0] = '\0';
	if (v->filling)
		describe_filling(n, v, ret);
	else if (v->deleting)
		(void)snprintf(ret, REASON_BYTES_MAX, "being deleted: waits for every node to erase its files");
	else if (in_sync == 0)
		(void)snprintf(ret, REASON_BYTES_MAX, "no replica is in sync: all lost power, waiting for their nodes");
	else if (node_volume_status(n, v, &s) && s.problem[0])
		(void)snprintf(ret, REASON_BYTES_MAX, "%.150s", s.problem);
	else if (v->n_members < v->replicas)
		(void)snprintf(ret, REASON_BYTES_MAX, "%zu of %u replicas: there is no other node for one",
			       v->n_members, v->replicas);
	else if (in_sync < v->replicas)
		(void)snprintf(ret, REASON_BYTES_MAX, "%u of %u replicas are in sync%s", in_sync, v->replicas,
			       s.need ? ", the others are being copied" : "");
	else if (v->grow_to)
		describe_growth(n, v, ret);
	else if (v->n_members > v->replicas && is_unwanted(v, v->primary))
		(void)snprintf(ret, REASON_BYTES_MAX, "%.40s gives its replica up when it leads no more: %s",
			       name_of(n, v->primary),
			       v->vm[0] && strncmp(v->vm, STORE_EXPORT, strlen(STORE_EXPORT)) != 0
				       ? "restart the VM to move it"
				       : "export it on another node to move it");
}
