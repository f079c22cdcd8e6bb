/* SPDX-License-Identifier: Apache-2.0
 * Links with other engines: handed over by whoever has the node's key, shared by all volumes. */
#include "volume/engine_internal.h"
#include "volume/link.h"

#include "proto/proto.h"

#include <stdlib.h>
#include <string.h>

#define RELINK_AFTER (50 * USEC_PER_MS)

struct links {
	struct engine *g;
	struct link *by_node[NODES_MAX + 1];
	unsigned open; /* links that must close, and one for ourselves */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* ---- volumes on links ---- */

void links_send(struct links *s, struct vol *v, node_id_t node, const struct volume_frame *f)
{
	struct wire_frame w = {.f = *f, .n_intents = (f->n_intents + 7) / 8};

	CHECK(node <= NODES_MAX);
	if (!s->by_node[node])
		return;
	memcpy(w.volume, v->id, sizeof w.volume);
	link_send(s->by_node[node], &w);
}

/* The core is done with its peer for now; the link is others' too. It begins anew with HELLO. */
void links_relink(struct vol *v, node_id_t node)
{
	CHECK(node <= NODES_MAX);
	v->relink[node] = clock_boottime() + RELINK_AFTER;
}

void links_tell(struct links *s, struct vol *v, usec_t now)
{
	for (node_id_t n = 1; n <= NODES_MAX && v->step == VOL_OPEN; n++)
		if (v->relink[n] && now >= v->relink[n] && s->by_node[n]) {
			v->relink[n] = 0;
			volume_core_link_up(v->core, n);
		}
}

void links_introduce(struct links *s, struct vol *v)
{
	for (node_id_t n = 1; n <= NODES_MAX; n++) {
		v->relink[n] = 0;
		if (s->by_node[n])
			volume_core_link_up(v->core, n);
	}
}

static struct vol *find(const struct engine *g, const uint8_t id[VOLUME_ID_BYTES])
{
	for (struct vol *v = g->vols; v; v = v->next)
		if (memcmp(v->id, id, VOLUME_ID_BYTES) == 0)
			return v;
	return NULL;
}

static void frame_cb(void *ctx, node_id_t node, const struct wire_frame *w)
{
	struct links *s = ctx;
	struct vol *v = find(s->g, w->volume);
	struct volume_frame f = w->f;

	if (!v || v->step != VOL_OPEN || v->relink[node])
		return;
	if (f.data) {
		f.data = aligned_alloc(VOLUME_SECTOR_BYTES, (f.length + VOLUME_SECTOR_BYTES - 1) / VOLUME_SECTOR_BYTES *
								    VOLUME_SECTOR_BYTES);
		CHECK(f.data != NULL);
		memcpy(f.data, w->f.data, f.length);
	}
	volume_core_frame(v->core, node, &f);
}

static void gone(struct links *s);

static void down_cb(void *ctx, struct link *l, node_id_t node, const char *why)
{
	struct links *s = ctx;
	uint64_t sent, received;

	link_counters(l, &sent, &received);
	log_info("link with node %u ended: %s; %llu bytes sent, %llu received", node, why, (unsigned long long)sent,
		 (unsigned long long)received);
	if (s->by_node[node] == l) {
		s->by_node[node] = NULL;
		s->g->store->linked(s->g, node, false);
		for (struct vol *v = s->g->vols; v; v = v->next)
			if (v->step == VOL_OPEN)
				volume_core_link_down(v->core, node);
	}
	gone(s);
}

/* ---- handing over ---- */

void links_take(struct links *s, const struct bulk_handover *h, int fd)
{
	const struct link_callbacks cb = {s, frame_cb, down_cb};
	struct link *l, *old;
	struct err e = {0};

	if (link_new(s->g->loop, fd, h, &cb, &l, &e) < 0) {
		log_warning("link with node %u: %s", h->peer, e.text);
		return;
	}
	s->open++;
	if (s->g->node == 0 || link_node(l) < 1 || link_node(l) > NODES_MAX || link_node(l) == s->g->node) {
		link_end(l, s->g->node == 0 ? "this engine knows no node yet" : "its peer is no other node", false);
		return;
	}
	old = s->by_node[h->peer];
	s->by_node[h->peer] = l;
	if (old)
		link_end(old, "replaced by a newer one", false);
	log_info("link with node %u", h->peer);
	s->g->store->linked(s->g, h->peer, true);
	for (struct vol *v = s->g->vols; v; v = v->next)
		if (v->step == VOL_OPEN) {
			if (old)
				volume_core_link_down(v->core, h->peer);
			v->relink[h->peer] = 0;
			volume_core_link_up(v->core, h->peer);
		}
}

bool links_has(const struct links *s, node_id_t node)
{
	CHECK(node <= NODES_MAX);
	return s->by_node[node] != NULL;
}

/* ---- life ---- */

struct links *links_new(struct engine *g)
{
	struct links *s = xcalloc(1, sizeof *s);

	*s = (struct links){.g = g, .open = 1};
	return s;
}

static void gone(struct links *s)
{
	CHECK(s->open > 0);
	if (--s->open > 0 || !s->closed)
		return;
	s->closed(s->closed_ctx);
	free(s);
}

void links_close(struct links *s, void (*cb)(void *ctx), void *ctx)
{
	s->closed = cb;
	s->closed_ctx = ctx;
	for (node_id_t n = 1; n <= NODES_MAX; n++)
		if (s->by_node[n])
			link_end(s->by_node[n], "the engine ends", false);
	gone(s);
}
