/* SPDX-License-Identifier: Apache-2.0
 * The engine: the cores of all volumes of a node, their replicas' files, and the guests that are served from them. */
#ifndef KEDGE_VOLUME_ENGINE_H
#define KEDGE_VOLUME_ENGINE_H

#include "base/base.h"

struct uv_loop_s;
struct engine;

struct engine_config {
	const char *dir;         /* the node's folder */
	const char *static_file; /* stands for the store; NULL: cluster mode, kedged tells at run/vol.sock */
	bool threads;            /* no io_uring */
	bool direct;             /* O_DIRECT on the data: around the page cache */
	uint64_t resync_rate;    /* bytes per second of a resync while guests read or write; 0: no bound */
	uint64_t scrub_rate;     /* bytes per second of a scrub that nobody asked for; 0: no bound */
	uint64_t memory;         /* bytes that the requests of all guests may take up together */
	uint64_t volume_memory;  /* and those of one connection */
	unsigned scrub_days;     /* every so many days each volume is scrubbed; 0: never */
	uint64_t link_bytes;     /* in a direction, until a link has to be another one; at most ENGINE_LINK_BYTES */
};

#define ENGINE_RESYNC_RATE ((uint64_t)64 << 20)
#define ENGINE_SCRUB_RATE  ((uint64_t)16 << 20)
#define ENGINE_SCRUB_DAYS  30
#define ENGINE_LINK_BYTES  ((uint64_t)256 << 30)
#define ENGINE_MEMORY_MIN  ((uint64_t)ENGINE_MEMORY_MIN_MIB << 20)

/* [loop] Begin to serve. -EWOULDBLOCK: the folder has an engine; -ENOENT: no node of the store has this folder;
 * -EBADMSG: the store makes no sense. */
int engine_new(struct uv_loop_s *loop, const struct engine_config *config, struct engine **ret,
	       struct err *e) KEDGE_MUST_CHECK;

/* [loop] End all connections, let I/O end, close. @cb when all is closed and freed. */
void engine_close(struct engine *g, void (*cb)(void *ctx), void *ctx);

#endif
