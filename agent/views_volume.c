/* SPDX-License-Identifier: Apache-2.0
 * What is shown of volumes, in the words of docs/WIRE.md. How far copies are is known to the leader only. */
#include "agent/agent.h"

#include <stdio.h>
#include <string.h>

static const char *node_name(struct agent *agent, node_id_t node, struct store_node *room)
{
	return node && store_node(agent->store, node, room) ? room->name : NULL;
}

/* What the primary says of its peer. False: nothing. */
static bool peer_of(const struct engine_status *s, node_id_t node, struct engine_peer *ret)
{
	size_t at = 0, used;

	while (at < s->peers.n &&
	       message_decode(&engine_peer_type, s->peers.p + at, s->peers.n - at, ret, &used) == 0) {
		at += used;
		if (ret->node == node)
			return true;
	}
	return false;
}

/* Seconds left, by what was copied so far; 0: not known. */
static uint64_t estimate(const struct engine_peer *peer)
{
	uint64_t done = peer->need_total > peer->need ? peer->need_total - peer->need : 0;

	return done ? peer->need * (peer->busy_us / USEC_PER_MS) / done / 1000 + 1 : 0;
}

static void pack_replica(struct agent *agent, struct pack *p, const struct store_volume *v,
			 const struct store_replica *r, const struct engine_status *s)
{
	struct engine_peer peer = {0};
	struct store_node room;
	bool told = s && peer_of(s, r->node, &peer);
	const char *state = "stale";

	if (r->leaving)
		state = "leaving";
	else if (store_replica_is_good(r))
		state = "in-sync";
	else if (told && peer.connected)
		state = "syncing";
	pack_map(p);
	pack_kv_str(p, "node", node_name(agent, r->node, &room));
	pack_kv_str(p, "state", state);
	pack_kv_bool(p, "primary", r->node == v->primary);
	pack_key(p, "behind_bytes");
	if (told || r->node == v->primary || store_replica_is_good(r))
		pack_u64(p, peer.need);
	else
		pack_nil(p); /* not known */
	if (told && peer.need)
		pack_kv_u64(p, "seconds_left", estimate(&peer));
	pack_kv_bool(p, "lost_power", store_replica_lost_power(r));
	pack_end(p);
}

static void pack_scrub(struct pack *p, const struct engine_status *s)
{
	pack_key(p, "scrub");
	pack_map(p);
	pack_kv_bool(p, "running", s->scrubbing);
	pack_kv_u64(p, "at_bytes", s->scrub_at);
	pack_kv_u64(p, "bad_blocks", s->scrub_bad);
	pack_kv_u64(p, "passes", s->scrub_passes);
	pack_end(p);
}

static void pack_use(struct agent *agent, struct pack *p, const struct store_volume *v)
{
	bool exported = strncmp(v->vm, STORE_EXPORT, strlen(STORE_EXPORT)) == 0;
	struct store_node room;
	struct store_vm vm;

	pack_kv_bool(p, "exported", exported);
	pack_kv_str(p, "vm", v->vm[0] && !exported ? v->vm : NULL);
	if (!exported || !store_vm(agent->store, v->vm, &vm))
		return;
	pack_kv_str(p, "export_node", node_name(agent, vm.node, &room));
	pack_kv_bool(p, "export_placed", vm.owner == vm.node);
}

static void pack_volume(struct agent *agent, struct pack *p, const struct store_volume *v)
{
	char problem[REASON_BYTES_MAX], since[32];
	struct engine_status s = {0};
	bool told = node_volume_status(agent->node, v, &s);
	struct store_node room;

	pack_map(p);
	pack_kv_str(p, "name", v->name);
	pack_kv_str(p, "id", v->id);
	pack_kv_u64(p, "size", v->size);
	pack_key(p, "grow_to");
	if (v->grow_to)
		pack_u64(p, v->grow_to);
	else
		pack_nil(p);
	pack_kv_u64(p, "epoch", v->epoch);
	pack_kv_str(p, "primary", node_name(agent, v->primary, &room));
	pack_use(agent, p, v);
	pack_kv_str(p, "image", v->image[0] ? v->image : NULL);
	pack_kv_bool(p, "filling", v->filling);
	pack_kv_u64(p, "replicas_wanted", v->replicas);
	pack_key(p, "nodes_wanted");
	pack_array(p);
	for (size_t i = 0; i < REPLICAS_MAX && v->nodes[i]; i++)
		pack_str(p, node_name(agent, v->nodes[i], &room));
	pack_end(p);
	pack_key(p, "replicas");
	pack_array(p);
	for (size_t i = 0; i < v->n_members; i++)
		pack_replica(agent, p, v, &v->members[i], told ? &s : NULL);
	pack_end(p);
	pack_kv_bool(p, "led", told && s.leads && s.epoch == v->epoch);
	pack_kv_bool(p, "served", told && s.serves);
	clock_format(v->degraded, since, sizeof since);
	pack_kv_str(p, "degraded_since", v->degraded ? since : NULL);
	node_volume_problem(agent->node, v, problem);
	pack_kv_str(p, "problem", problem[0] ? problem : NULL);
	if (told)
		pack_scrub(p, &s);
	pack_end(p);
}

void view_volume_list(struct agent *agent, struct pack *p)
{
	size_t n;
	const struct store_volume *v = node_volumes(agent->node, &n);

	pack_key(p, "volumes");
	pack_array(p);
	for (size_t i = 0; i < n; i++)
		pack_volume(agent, p, &v[i]);
	pack_end(p);
}

void view_volumes(struct agent *agent, struct pack *p)
{
	pack_map(p);
	view_volume_list(agent, p);
	pack_end(p);
}

bool view_volume(struct agent *agent, struct pack *p, const char *name)
{
	struct store_volume v;

	if (!store_volume(agent->store, name, &v))
		return false;
	pack_map(p);
	pack_key(p, "volume");
	pack_volume(agent, p, &v);
	pack_end(p);
	return true;
}

void view_volume_problems(struct agent *agent, struct pack *p)
{
	size_t n;
	const struct store_volume *v = node_volumes(agent->node, &n);

	for (size_t i = 0; i < n; i++) {
		char problem[REASON_BYTES_MAX], since[32], text[400];

		node_volume_problem(agent->node, &v[i], problem);
		if (problem[0] == '\0')
			continue;
		clock_format(v[i].degraded, since, sizeof since);
		(void)snprintf(text, sizeof text, "volume %s: %s%s%s", v[i].name, problem,
			       v[i].degraded ? ", since " : "", v[i].degraded ? since : "");
		pack_str(p, text);
	}
}
