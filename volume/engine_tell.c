/* SPDX-License-Identifier: Apache-2.0
 * The engine in cluster mode, what kedged is told: what is open, who leads and serves, which links stand; at once where
 * a failover waits for it, else once a second. And who may use a volume here (L23). */
#include "volume/engine_agent.h"

#include <stdio.h>
#include <string.h>

#define OPENED_EVERY (USEC_PER_SEC)
#define STATUS_EVERY (USEC_PER_SEC)

void tell(struct engine *g, const struct message_type *type, const void *msg)
{
	struct agent_store *a = g->agent_store;
	struct buf b = {0};

	if (!a->caller || !a->is_greeted)
		return;
	message_encode(type, msg, &b);
	CHECK(b.len <= ENGINE_BYTES_MAX);
	caller_send(a->caller, b.data, b.len);
	buf_free(&b);
}

/* ---- who may use it ---- */

/* L23: from the shared page, which nobody has to tell. The name is constant while the generation is. */
static bool is_exported(const struct guard_page *page, const struct vol *v, usec_t now)
{
	for (size_t i = 0; page && v->agent.gen && i < EXPORTS_MAX; i++) {
		const struct export_slot *s = &page->exports[i];
		bool is_it, is_valid;

		if (atomic_load(&s->gen) != v->agent.gen)
			continue;
		is_it = strncmp(s->volume, v->name, sizeof s->volume) == 0;
		is_valid = now < atomic_load(&s->valid_until);
		if (is_it && is_valid && atomic_load(&s->gen) == v->agent.gen)
			return true;
	}
	return false;
}

bool agent_allows(const struct vol *v)
{
	switch (v->agent.serve) {
	case ENGINE_SERVE_VM:
		return true;
	case ENGINE_SERVE_EXPORT:
		return is_exported(v->g->agent_store->page, v, clock_boottime());
	default:
		return false;
	}
}

/* ---- status ---- */

static void add_peer(const struct volume_peer_status *p, usec_t now, struct buf *ret)
{
	const struct engine_peer msg = {.node = p->node,
					.connected = p->connected,
					.known = p->known,
					.need = p->need_blocks * VOLUME_BLOCK_BYTES,
					.need_total = p->need_total * VOLUME_BLOCK_BYTES,
					.busy_us = p->need_blocks && now > p->since ? now - p->since : 0};

	message_encode(&engine_peer_type, &msg, ret);
}

static void add_core(const struct vol *v, usec_t now, struct engine_status *ret, struct buf *peers)
{
	struct volume_core_status st;

	volume_core_status(v->core, &st);
	ret->epoch = ret->leads ? st.lead.epoch : 0;
	ret->need = st.need_blocks * VOLUME_BLOCK_BYTES;
	ret->waiting = st.waiting;
	ret->scrubbing = st.scrub.on;
	ret->scrub_at = st.scrub.block * VOLUME_BLOCK_BYTES;
	ret->scrub_bad = st.scrub.wrong + st.scrub.undecided + st.scrub.lost;
	ret->scrub_passes = st.scrub.passes;
	for (size_t i = 0; ret->leads && i < st.n_peers; i++)
		add_peer(&st.peers[i], now, peers);
}

static bool leads(const struct vol *v)
{
	return v->step == VOL_OPEN && volume_core_role(v->core) == VOLUME_LEADING;
}

static bool has_moved(const struct vol *v)
{
	return v->agent.leads != leads(v) || v->agent.serves != vol_serves(v) ||
	       (v->step == VOL_OPEN && v->agent.size != vol_size(v)) || strcmp(v->agent.problem, v->problem) != 0;
}

static void tell_status(struct vol *v, usec_t now)
{
	struct engine_status msg = {.leads = leads(v), .serves = vol_serves(v), .size = vol_size(v)};
	struct buf peers = {0};

	volume_id_text(v->id, msg.id);
	memcpy(msg.problem, v->problem, sizeof msg.problem);
	if (v->step == VOL_OPEN)
		add_core(v, now, &msg, &peers);
	if (v->g->nbd)
		msg.clients = nbd_server_clients(v->g->nbd, v);
	msg.peers = (struct message_bin){peers.data, peers.len};
	v->agent.leads = msg.leads;
	v->agent.serves = msg.serves;
	v->agent.size = msg.size;
	memcpy(v->agent.problem, v->problem, sizeof v->problem);
	v->agent.next_status = now + STATUS_EVERY;
	tell(v->g, &engine_status_type, &msg);
	buf_free(&peers);
}

static void tell_opened(struct vol *v, usec_t now)
{
	struct engine_opened msg = {.incarnation = v->incarnation, .size = v->room};

	volume_id_text(v->id, msg.id);
	volume_id_text(v->replica_id, msg.replica);
	v->agent.next_opened = now + OPENED_EVERY;
	tell(v->g, &engine_opened_type, &msg);
}

void tell_due(struct vol *v, usec_t now)
{
	const struct agent_store *a = v->g->agent_store;
	bool is_slow;

	if (!a->is_greeted || v->agent.dropping)
		return;
	is_slow = caller_is_slow(a->caller); /* then what is new only */
	if (v->step == VOL_OPEN && !v->is_reported && now >= v->agent.next_opened && !is_slow)
		tell_opened(v, now);
	if (a->is_greeted && (has_moved(v) || ((v->step == VOL_OPEN || v->step == VOL_FAILED) &&
					       now >= v->agent.next_status && !is_slow)))
		tell_status(v, now);
}

void agent_moved(struct vol *v)
{
	if (v->g->agent_store->is_greeted && !v->agent.dropping && has_moved(v))
		tell_status(v, clock_boottime());
}

void tell_about(struct engine *g, bool leaving)
{
	struct engine_about msg = {.leaving = leaving};

	(void)snprintf(msg.version, sizeof msg.version, "%s", version_own());
	tell(g, &engine_about_type, &msg);
}

void tell_all(struct engine *g, usec_t now)
{
	bool worn;

	tell_about(g, false);
	for (node_id_t n = 1; n <= NODES_MAX; n++)
		if (links_has(g->links, n, &worn))
			agent_linked(g, n, true, worn);
	for (struct vol *v = g->vols; v; v = v->next) {
		if (v->agent.dropping || (v->step != VOL_OPEN && v->step != VOL_FAILED))
			continue;
		if (v->step == VOL_OPEN)
			tell_opened(v, now);
		tell_status(v, now);
	}
}

/* ---- the rest ---- */

void agent_linked(struct engine *g, node_id_t node, bool up, bool worn)
{
	const struct engine_link_state msg = {.node = node, .up = up, .worn = worn};

	tell(g, &engine_link_state_type, &msg);
}

void agent_found(struct vol *v, const struct volume_finding *f)
{
	struct engine_finding msg = {.verdict = f->verdict,
				     .node = f->node,
				     .unreadable = f->unreadable,
				     .offset = f->offset,
				     .length = f->length};

	volume_id_text(v->id, msg.id);
	tell(v->g, &engine_finding_type, &msg);
}
