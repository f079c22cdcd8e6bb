/* SPDX-License-Identifier: Apache-2.0
 * Links with other engines: handed over on `run/vol.sock` by whoever has the node's key, shared by all volumes. */
#include "volume/engine_internal.h"
#include "volume/link.h"

#include "proto/proto.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define RELINK_AFTER (50 * USEC_PER_MS)

/* A maker of links, connected. */
struct maker {
	struct maker *next;
	struct engine *g;
	int fd;
	uv_poll_t poll;
};

struct links {
	struct engine *g;
	int listener;
	uv_poll_t poll;
	struct maker *makers;
	struct link *by_node[NODES_MAX + 1];
	unsigned open; /* handles and links that must close */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* ---- volumes on links ---- */

void links_send(struct links *s, struct vol *v, node_id_t node, const struct volume_frame *f)
{
	struct wire_frame w = {.f = *f, .n_intents = (volume_extents(v->size) + 7) / 8};

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
	if (f.kind == VOLUME_F_WELCOME && w->n_intents < (volume_extents(v->size) + 7) / 8)
		return; /* a replica of another size */
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
		for (struct vol *v = s->g->vols; v; v = v->next)
			if (v->step == VOL_OPEN)
				volume_core_link_down(v->core, node);
	}
	gone(s);
}

/* ---- handing over ---- */

static void take(struct links *s, const struct bulk_handover *h, int fd)
{
	const struct link_callbacks cb = {s, frame_cb, down_cb};
	struct link *l, *old;
	struct err e = {0};

	if (link_new(s->g->loop, fd, h, &cb, &l, &e) < 0) {
		log_warning("link with node %u: %s", h->peer, e.text);
		return;
	}
	s->open++;
	if (link_node(l) < 1 || link_node(l) > NODES_MAX || link_node(l) == s->g->node) {
		link_end(l, "its peer is no other node", false);
		return;
	}
	old = s->by_node[h->peer];
	s->by_node[h->peer] = l;
	if (old)
		link_end(old, "replaced by a newer one", false);
	log_info("link with node %u", h->peer);
	for (struct vol *v = s->g->vols; v; v = v->next)
		if (v->step == VOL_OPEN) {
			if (old)
				volume_core_link_down(v->core, h->peer);
			v->relink[h->peer] = 0;
			volume_core_link_up(v->core, h->peer);
		}
}

static void maker_closed(uv_handle_t *handle)
{
	struct maker *m = handle->data;
	struct links *s = m->g->links;

	(void)close(m->fd);
	free(m);
	gone(s);
}

static void maker_end(struct links *s, struct maker *m)
{
	struct maker **at = &s->makers;

	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	uv_close((uv_handle_t *)&m->poll, maker_closed);
}

static void maker_cb(uv_poll_t *poll, int status, int events)
{
	static struct bulk_handover h;
	struct maker *m = poll->data;
	struct links *s = m->g->links;
	int fd = -1, rc = status < 0 ? status : 0;

	(void)events;
	while (rc == 0) {
		rc = fdpass_recv(m->fd, &h, sizeof h, &fd);
		if (rc == 0 && fd >= 0)
			take(s, &h, fd);
		explicit_bzero(&h, sizeof h);
		fd = -1;
	}
	if (rc != -EAGAIN)
		maker_end(s, m);
}

static void listen_cb(uv_poll_t *poll, int status, int events)
{
	struct links *s = poll->data;
	int fd = status < 0 ? -1 : accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct maker *m;

	(void)events;
	if (fd < 0)
		return;
	m = xcalloc(1, sizeof *m);
	*m = (struct maker){.next = s->makers, .g = s->g, .fd = fd};
	s->makers = m;
	s->open++;
	CHECK(uv_poll_init(s->g->loop, &m->poll, fd) == 0);
	m->poll.data = m;
	CHECK(uv_poll_start(&m->poll, UV_READABLE, maker_cb) == 0);
}

/* ---- life ---- */

int links_new(struct engine *g, struct links **ret, struct err *e)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct links *s = xcalloc(1, sizeof *s);

	s->g = g;
	if ((size_t)snprintf(at.sun_path, sizeof at.sun_path, "%s/run/vol.sock", g->dir) >= sizeof at.sun_path) {
		free(s);
		return err_set(e, -ENAMETOOLONG, "%s: too long for a socket's path", g->dir);
	}
	s->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	(void)unlink(at.sun_path);
	if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&at, sizeof at) < 0 ||
	    chmod(at.sun_path, 0600) < 0 || listen(s->listener, 4) < 0) {
		int rc = -errno;

		if (s->listener >= 0)
			(void)close(s->listener);
		free(s);
		return err_set(e, rc, "listen at '%s': %s", at.sun_path, strerror(-rc));
	}
	CHECK(uv_poll_init(g->loop, &s->poll, s->listener) == 0);
	s->poll.data = s;
	CHECK(uv_poll_start(&s->poll, UV_READABLE, listen_cb) == 0);
	s->open = 1;
	*ret = s;
	return 0;
}

static void gone(struct links *s)
{
	CHECK(s->open > 0);
	if (--s->open > 0 || !s->closed)
		return;
	s->closed(s->closed_ctx);
	free(s);
}

static void listener_closed(uv_handle_t *handle)
{
	struct links *s = handle->data;

	(void)close(s->listener);
	gone(s);
}

void links_close(struct links *s, void (*cb)(void *ctx), void *ctx)
{
	s->closed = cb;
	s->closed_ctx = ctx;
	while (s->makers)
		maker_end(s, s->makers);
	for (node_id_t n = 1; n <= NODES_MAX; n++)
		if (s->by_node[n])
			link_end(s->by_node[n], "the engine ends", false);
	uv_close((uv_handle_t *)&s->poll, listener_closed);
}
