/* SPDX-License-Identifier: Apache-2.0
 * Links between nodes: of a pair the lower id dials, again and again; frames go FIFO; a silent link is closed. */
#include "net/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_HEAD 4

struct net_peer *peer_find(const struct net *net, node_id_t node)
{
	for (struct net_peer *p = net->peers; p; p = p->next)
		if (p->node == node)
			return p;
	return NULL;
}

static struct net_peer *peer_new(struct net *net, node_id_t node)
{
	struct net_peer *p = xcalloc(1, sizeof *p);

	*p = (struct net_peer){.net = net, .next = net->peers, .node = node, .backoff = REDIAL_MIN};
	net->peers = p;
	return p;
}

static void detach(struct session *s, const char *why)
{
	s->peer = NULL;
	session_close(s, -ESHUTDOWN, "%s", why);
}

void peer_free(struct net_peer *peer)
{
	if (peer->active)
		detach(peer->active, "the link is not wanted any more");
	if (peer->dialling)
		detach(peer->dialling, "the link is not wanted any more");
	free(peer);
}

int net_peer_add(struct net *net, node_id_t node, const char *address, struct err *e)
{
	struct net_peer *p = peer_find(net, node);
	struct sockaddr_storage parsed;
	int rc = net_parse_address(address, &parsed, e);

	if (rc < 0)
		return rc;
	CHECK(node != net->config.self && strlen(address) < sizeof p->address);
	if (!p)
		p = peer_new(net, node);
	else if (strcmp(p->address, address) == 0)
		return 0;
	else if (p->dialling)
		session_close(p->dialling, -ESHUTDOWN, "the address changed");
	memcpy(p->address, address, strlen(address) + 1);
	p->backoff = REDIAL_MIN;
	p->next_dial = 0;
	return 0;
}

void net_peer_remove(struct net *net, node_id_t node)
{
	struct net_peer **at = &net->peers;

	while (*at && (*at)->node != node)
		at = &(*at)->next;
	if (*at) {
		struct net_peer *p = *at;

		*at = p->next;
		peer_free(p);
	}
}

bool net_peer_is_up(const struct net *net, node_id_t node)
{
	const struct net_peer *p = peer_find(net, node);

	return p && p->active && p->active->state == SESSION_OPEN;
}

static void put_head(uint8_t head[FRAME_HEAD], size_t n)
{
	for (int i = 0; i < FRAME_HEAD; i++)
		head[i] = (uint8_t)(n >> 8 * (FRAME_HEAD - 1 - i));
}

int net_peer_send(struct net *net, node_id_t node, const void *p, size_t n)
{
	struct net_peer *peer = peer_find(net, node);
	struct buf frame = {0};
	uint8_t *at;
	int rc;

	if (n > FRAME_BYTES_MAX)
		return -EMSGSIZE;
	if (!peer || !peer->active)
		return -ENOTCONN;
	at = buf_reserve(&frame, FRAME_HEAD + n); /* one record for head and body */
	put_head(at, n);
	if (n > 0)
		memcpy(at + FRAME_HEAD, p, n);
	rc = session_send(peer->active, at, FRAME_HEAD + n, PEER_QUEUE_BYTES_MAX);
	buf_free(&frame);
	net->counters.frames_out += rc == 0;
	net->counters.dropped_full += rc == -EAGAIN;
	return rc;
}

void net_peer_drop(struct net *net, node_id_t node, const char *reason)
{
	struct net_peer *peer = peer_find(net, node);

	if (peer && peer->active) {
		net->counters.closed_malformed++;
		session_close(peer->active, -EBADMSG, "%s", reason);
	}
}

/* A newer link counts; the older is closed before a byte of the newer is read: FIFO per peer. */
void peer_session_open(struct session *s)
{
	struct net *net = s->net;
	struct net_peer *p = s->peer ? s->peer : peer_find(net, s->identity.node);

	if (!p)
		p = peer_new(net, s->identity.node);
	if (p->dialling == s)
		p->dialling = NULL;
	if (p->active) {
		struct session *old = p->active;

		p->active = NULL;
		detach(old, "replaced by a newer link");
		net->cb.peer_down(net->cb.ctx, p->node, "replaced by a newer link");
	}
	s->peer = p;
	p->active = s;
	net->cb.peer_up(net->cb.ctx, p->node);
}

/* A peer that knows this node no more opens the link and closes it at once: it is not to be asked ten times a second.
 */
static void wait_to_dial(struct net_peer *p)
{
	p->next_dial = clock_boottime() + p->backoff;
	p->backoff = p->backoff * 2 > REDIAL_MAX ? REDIAL_MAX : p->backoff * 2;
}

void peer_session_closed(struct session *s)
{
	struct net_peer *p = s->peer;
	struct net *net = s->net;

	s->peer = NULL;
	if (p->dialling == s) {
		p->dialling = NULL;
		wait_to_dial(p);
	} else if (p->active == s) {
		p->active = NULL;
		wait_to_dial(p);
		net->cb.peer_down(net->cb.ctx, p->node, s->error.text);
	}
}

/* Deliver the whole frames at the start of @p; returns how many bytes they had. */
static size_t deliver_frames(struct session *s, const uint8_t *p, size_t n)
{
	struct net *net = s->net;
	size_t used = 0;

	while (n - used >= FRAME_HEAD && s->state == SESSION_OPEN) {
		const uint8_t *at = p + used;
		size_t length = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];

		if (length > FRAME_BYTES_MAX) {
			net->counters.closed_oversize++;
			session_close(s, -EMSGSIZE, "a frame of %zu bytes, above the limit", length);
			return n;
		}
		if (n - used - FRAME_HEAD < length)
			break;
		used += FRAME_HEAD + length;
		s->peer->backoff = REDIAL_MIN; /* it takes us for a peer */
		if (length == 0)
			continue; /* keep-alive */
		net->counters.frames_in++;
		net->cb.peer_frame(net->cb.ctx, s->identity.node, at + FRAME_HEAD, length);
	}
	return used;
}

void peer_session_data(struct session *s, const uint8_t *p, size_t n)
{
	size_t used;

	if (s->frame.len == 0) {
		used = deliver_frames(s, p, n);
		if (s->state == SESSION_OPEN)
			buf_append(&s->frame, p + used, n - used);
		return;
	}
	buf_append(&s->frame, p, n);
	used = deliver_frames(s, s->frame.data, s->frame.len);
	buf_consume(&s->frame, used);
}

static void dial(struct net_peer *p)
{
	struct sockaddr_storage to;

	if (net_parse_address(p->address, &to, NULL) == 0)
		(void)session_dial(p, (struct sockaddr *)&to);
}

void peer_tick(struct net_peer *p, usec_t now, bool was_late)
{
	struct session *s = p->active;

	if (!s && !p->dialling && p->address[0] && p->net->config.self < p->node && now >= p->next_dial)
		dial(p);
	if (!s || s->state != SESSION_OPEN)
		return;
	if (was_late)
		s->received_at = now;
	if (now >= s->received_at + SILENT_MAX) {
		p->net->counters.closed_silent++;
		session_close(s, -ETIMEDOUT, "nothing was heard for 2 s");
	} else if (now >= s->sent_at + KEEPALIVE) {
		static const uint8_t empty[FRAME_HEAD];

		(void)session_send(s, empty, sizeof empty, PEER_QUEUE_BYTES_MAX);
	}
}
