/* SPDX-License-Identifier: Apache-2.0
 * Links with other engines: handed over by whoever has the node's key, shared by all volumes. While a link is made
 * anew, two of them stand: the streams move to the newer one volume by volume, each by a HELLO of its primary, and then
 * the older one ends. Nobody has to say whether a newer one renews a link or replaces a dead one: a dead one ends, and
 * what was on it moves at once. */
#include "volume/engine_internal.h"
#include "volume/link.h"

#include "proto/proto.h"

#include <stdlib.h>
#include <string.h>

#define RELINK_AFTER (50 * USEC_PER_MS)
#define QUIET_TURNS  25 /* without a byte, and the older one is used no more: a stream would be given up by then */

/* Turns are counted and not time, so that a loop that stood still itself blames nobody. */
struct pair {
	struct link *newest; /* NULL: none stands */
	struct link *older;  /* NULL, or it ends once nothing uses it */
	bool is_worn;        /* the newest, and that was told */
	unsigned quiet;      /* turns without a byte on the older one */
	uint64_t received;   /* on it, as of the last turn */
};

struct links {
	struct engine *g;
	struct pair pairs[NODES_MAX + 1];
	unsigned open; /* links that must close, and one for ourselves */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* ---- volumes on links ---- */

static bool is_answer(enum volume_frame_kind kind)
{
	return kind == VOLUME_F_WELCOME || kind == VOLUME_F_ACK || kind == VOLUME_F_HASHED || kind == VOLUME_F_FETCHED;
}

void links_send(struct links *s, struct vol *v, node_id_t node, const struct volume_frame *f)
{
	struct wire_frame w = {.f = *f, .n_intents = (f->n_intents + 7) / 8};
	struct link *l;

	CHECK(node <= NODES_MAX);
	if (f->kind == VOLUME_F_NACK) /* it belongs to no session */
		l = s->pairs[node].newest;
	else
		l = is_answer(f->kind) ? v->peers[node].in : v->peers[node].out;
	if (!l)
		return;
	memcpy(w.volume, v->id, sizeof w.volume);
	link_send(l, &w);
}

/* The core is done with its peer for now; the link is others' too. It begins anew with HELLO. */
void links_relink(struct vol *v, node_id_t node)
{
	CHECK(node <= NODES_MAX);
	v->peers[node].relink = clock_boottime() + RELINK_AFTER;
}

/* The stream of which this node is the primary begins anew on the newest link. */
static void begin_stream(struct links *s, struct vol *v, node_id_t node)
{
	v->peers[node].relink = 0;
	v->peers[node].out = s->pairs[node].newest;
	if (v->step == VOL_OPEN && v->peers[node].out)
		volume_core_link_up(v->core, node);
}

void links_tell(struct links *s, struct vol *v, usec_t now)
{
	for (node_id_t n = 1; n <= NODES_MAX && v->step == VOL_OPEN; n++)
		if (v->peers[n].relink && now >= v->peers[n].relink && s->pairs[n].newest)
			begin_stream(s, v, n);
}

void links_introduce(struct links *s, struct vol *v)
{
	for (node_id_t n = 1; n <= NODES_MAX; n++)
		begin_stream(s, v, n);
}

static struct vol *find(const struct engine *g, const uint8_t id[VOLUME_ID_BYTES])
{
	for (struct vol *v = g->vols; v; v = v->next)
		if (memcmp(v->id, id, VOLUME_ID_BYTES) == 0)
			return v;
	return NULL;
}

/* ---- from the older link to the newest ---- */

static bool has_member(const struct vol *v, node_id_t node)
{
	for (size_t i = 0; i < v->row.n_members; i++)
		if (v->row.members[i].node == node)
			return true;
	return false;
}

/* Of one volume that has a stream to lose, and of any number that have none. False: all have moved. */
static bool move_one(struct links *s, node_id_t node)
{
	for (struct vol *v = s->g->vols; v; v = v->next) {
		bool leads = v->step == VOL_OPEN && volume_core_role(v->core) == VOLUME_LEADING;

		if (v->peers[node].out != s->pairs[node].older)
			continue;
		begin_stream(s, v, node);
		if (leads && has_member(v, node))
			return true;
	}
	return false;
}

/* What was on @l, which ends, is on the newest at once, or on none. */
static void leave(struct links *s, node_id_t node, const struct link *l)
{
	for (struct vol *v = s->g->vols; v; v = v->next) {
		struct vol_peer *p = &v->peers[node];

		if (p->in == l)
			p->in = NULL; /* its primary begins anew */
		if (p->out != l)
			continue;
		begin_stream(s, v, node);
		if (v->step == VOL_OPEN && !p->out)
			volume_core_link_down(v->core, node);
	}
}

static uint64_t received(const struct link *l)
{
	uint64_t in, out;

	link_counters(l, &out, &in);
	return in;
}

/* Does the engine at the other end have the newest link too? Before that a HELLO would only wait. */
static bool is_ready(const struct pair *p)
{
	return received(p->newest) > 0;
}

static void turn(struct links *s, node_id_t node)
{
	struct pair *p = &s->pairs[node];
	uint64_t n;

	if (p->newest && !p->is_worn && link_is_worn(p->newest)) {
		p->is_worn = true;
		s->g->store->linked(s->g, node, true, true);
	}
	if (!p->older)
		return;
	n = received(p->older);
	p->quiet = n == p->received ? p->quiet + 1 : 0;
	p->received = n;
	if (is_ready(p) && !move_one(s, node) && p->quiet >= QUIET_TURNS)
		link_end(p->older, "all has moved to the newer one", false);
}

void links_turn(struct links *s)
{
	for (node_id_t n = 1; n <= NODES_MAX; n++)
		turn(s, n);
}

/* ---- frames ---- */

/* To the volume that it is for. Its answers go where its HELLO came. */
static void give(struct vol *v, struct link *l, node_id_t node, const struct wire_frame *w)
{
	struct volume_frame f = w->f;

	if (v->step != VOL_OPEN || v->peers[node].relink) {
		if (w->is_given)
			free(f.data);
		return;
	}
	if (f.kind == VOLUME_F_HELLO && volume_core_obeys(v->core, &f))
		v->peers[node].in = l;
	if (f.data && !w->is_given) {
		f.data = aligned_alloc(VOLUME_SECTOR_BYTES, (f.length + VOLUME_SECTOR_BYTES - 1) / VOLUME_SECTOR_BYTES *
								    VOLUME_SECTOR_BYTES);
		CHECK(f.data != NULL);
		memcpy(f.data, w->f.data, f.length);
	}
	volume_core_frame(v->core, node, &f);
}

static void frame_cb(void *ctx, struct link *l, node_id_t node, const struct wire_frame *w)
{
	struct links *s = ctx;
	struct vol *v = find(s->g, w->volume);

	spin_note(&s->g->spin);
	if (v)
		give(v, l, node, w);
	else if (w->is_given)
		free(w->f.data);
	if ((w->f.kind == VOLUME_F_WELCOME || !v) && s->pairs[node].older && s->pairs[node].newest == l)
		(void)move_one(s, node); /* the one before stands again, or the link has come there: the next */
}

static void gone(struct links *s);

static void down_cb(void *ctx, struct link *l, node_id_t node, const char *why)
{
	struct links *s = ctx;
	struct pair *p = &s->pairs[node];
	uint64_t out, in;

	link_counters(l, &out, &in);
	log_info("link with node %u ended: %s; %llu bytes sent, %llu received", node, why, (unsigned long long)out,
		 (unsigned long long)in);
	if (p->newest == l) {
		p->newest = p->older; /* which may still do */
		p->older = NULL;
		p->is_worn = false;
		s->g->store->linked(s->g, node, p->newest != NULL, false);
		leave(s, node, l);
	} else if (p->older == l) {
		p->older = NULL;
		leave(s, node, l);
	}
	gone(s);
}

/* ---- handing over ---- */

/* Say something of no volume: the peer sees that the link has come to an engine. */
static void say_here(struct link *l)
{
	const struct wire_frame w = {.f.kind = VOLUME_F_PING};

	link_send(l, &w);
}

void links_take(struct links *s, const struct bulk_handover *h, int fd)
{
	const struct link_callbacks cb = {s, frame_cb, down_cb};
	struct link *l, *third;
	struct pair *p;
	struct err e = {0};

	if (link_new(s->g->loop, fd, h, s->g->config.link_bytes, &cb, &l, &e) < 0) {
		log_warning("link with node %u: %s", h->peer, e.text);
		return;
	}
	s->open++;
	if (s->g->node == 0 || link_node(l) < 1 || link_node(l) > NODES_MAX || link_node(l) == s->g->node) {
		link_end(l, s->g->node == 0 ? "this engine knows no node yet" : "its peer is no other node", false);
		return;
	}
	p = &s->pairs[h->peer];
	third = p->older;
	*p = (struct pair){.newest = l, .older = p->newest};
	log_info("link with node %u%s", h->peer, p->older ? ", beside an older one" : "");
	say_here(l);
	s->g->store->linked(s->g, h->peer, true, false);
	if (third) {
		leave(s, h->peer, third);
		link_end(third, "two newer ones came", false);
	}
	if (!p->older)
		leave(s, h->peer, NULL); /* what was on none */
}

bool links_has(const struct links *s, node_id_t node, bool *ret_is_worn)
{
	CHECK(node <= NODES_MAX);
	*ret_is_worn = s->pairs[node].is_worn;
	return s->pairs[node].newest != NULL;
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
	for (node_id_t n = 1; n <= NODES_MAX; n++) {
		if (s->pairs[n].older)
			link_end(s->pairs[n].older, "the engine ends", false);
		if (s->pairs[n].newest)
			link_end(s->pairs[n].newest, "the engine ends", false);
	}
	gone(s);
}
