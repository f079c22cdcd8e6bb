/* SPDX-License-Identifier: Apache-2.0
 * The agent's end of kedge-vol: rows and orders go there, what its replicas ask for and report comes back, links with
 * other engines are made for it, and a new one is started when one is gone or hangs (DESIGN, section 2).
 *
 * Everything is [loop] and never blocks, but for the start of a process. Callbacks come from engine_link_step(),
 * peer_known() from the loop; any of the functions may be called from inside, but engine_link_close(). */
#ifndef KEDGE_AGENT_ENGINE_LINK_H
#define KEDGE_AGENT_ENGINE_LINK_H

#include "proto/proto.h"

struct uv_loop_s;
struct engine_link;

struct engine_link_callbacks {
	void *ctx;
	/* A connection with an engine, maybe another one: all rows and drops must be told again. What came of a
	 * proposal of before is told to nobody: the engine asks again. */
	void (*connected)(void *ctx);
	void (*opened)(void *ctx, const struct engine_opened *msg);
	/* To be answered by engine_link_proposed(), now or later. */
	void (*propose)(void *ctx, const struct engine_propose *msg);
	/* @msg->peers is valid during the call. */
	void (*status)(void *ctx, const struct engine_status *msg);
	void (*dropped)(void *ctx, const struct engine_drop *msg);
	void (*finding)(void *ctx, const struct engine_finding *msg);
	/* Is there a member @node of this cluster? A certificate alone is not enough. */
	bool (*peer_known)(void *ctx, node_id_t node);
};

struct engine_link_config {
	struct uv_loop_s *loop;
	const char *dir;            /* the node's folder */
	const char *const *options; /* of an engine that is started, as spawn_detached() has them; they must stay */
	node_id_t self;
	const char *listen;               /* "host:port": bulk links are dialled from this host */
	const char *ca_cert, *cert, *key; /* paths of PEM files */
	int memfd;                        /* of the guard's page, duplicated */
	usec_t hung;                      /* 0: ENGINE_HUNG */
};

/* Find the engine of the folder, or start one, in the steps that follow. All callbacks must be there. -EINVAL, -EACCES:
 * the certificate is unusable, or the address. */
int engine_link_open(const struct engine_link_config *config, const struct engine_link_callbacks *cb,
		     struct engine_link **ret, struct err *e) KEDGE_MUST_CHECK;

/* Once per turn of the loop: reads what the engine said, replaces it when it is gone or hangs, makes links. */
void engine_link_step(struct engine_link *l);

/* Between connected() and the connection's end. */
bool engine_link_is_connected(const struct engine_link *l);

/* It died or hung again and again, or does not come. An end that was announced (SIGTERM) is no death, and a connection
 * that breaks is none before another process answers. */
bool engine_link_is_unsound(struct engine_link *l);

/* Of the engine that is connected; "": none is, or it is too old to say so. */
const char *engine_link_version(const struct engine_link *l);

/* A new page, after a new guard that has none of before: told to the engine, which never reads the old one again.
 * @memfd is duplicated. */
void engine_link_page(struct engine_link *l, int memfd);

/* False: not connected, or so much is queued that nothing is now: call again later. */
bool engine_link_row(struct engine_link *l, const struct engine_row *row);
bool engine_link_drop(struct engine_link *l, const char *id);
bool engine_link_verify(struct engine_link *l, const char *id, bool primary_wins);

/* What came of engine_propose @seq: 0, or a negative errno of proto/engine.h. */
void engine_link_proposed(struct engine_link *l, uint64_t seq, int rc);

/* Keep a bulk link with @node, which listens at @address ("host:port"); NULL: no more (a link that stands stays). Of a
 * pair the lower id dials, the higher one waits. Calling it again with the same address changes nothing. */
void engine_link_peer(struct engine_link *l, node_id_t node, const char *address);

/* A connection came whose ClientHello asks for kedge-bulk/1: @n bytes were read from it, @first. Takes @fd. */
void engine_link_accept(struct engine_link *l, int fd, const uint8_t *first, size_t n);

/* The engine goes on. NULL is allowed; returns NULL. No callback follows, but the loop must run until its handles are
 * closed and its handshakes, which are cut short, have ended. */
struct engine_link *engine_link_close(struct engine_link *l);

#endif
