/* SPDX-License-Identifier: Apache-2.0
 * One bulk link with another node's engine: a socket whose TLS handshake somebody else did, its records, and frames of
 * all volumes on it in their order.
 *
 * Everything is [loop]. Callbacks come from the loop, never from inside a call. */
#ifndef KEDGE_VOLUME_LINK_H
#define KEDGE_VOLUME_LINK_H

#include "volume/wire.h"

struct bulk_handover;
struct link;
struct uv_loop_s;

struct link_callbacks {
	void *ctx;
	/* A frame came. Its data and intents are in the link's memory: copy what is kept; but see wire_frame.is_given.
	 */
	void (*frame)(void *ctx, struct link *l, node_id_t node, const struct wire_frame *f);
	/* The link has ended, for @why. It is freed when this returns. */
	void (*down)(void *ctx, struct link *l, node_id_t node, const char *why);
};

/* Takes @fd, also on failure. @bytes_max: in a direction, at most RECORD_SESSION_BYTES_MAX. */
int link_new(struct uv_loop_s *loop, int fd, const struct bulk_handover *h, uint64_t bytes_max,
	     const struct link_callbacks *cb, struct link **ret, struct err *e) KEDGE_MUST_CHECK;

node_id_t link_node(const struct link *l);

/* Queue a frame; f->f.data is copied. A link whose queue is too long ends. */
void link_send(struct link *l, const struct wire_frame *f);

/* End it; down() follows, unless @quiet. */
void link_end(struct link *l, const char *why, bool quiet);

/* Is its bound near, so that another one should be made now? */
bool link_is_worn(const struct link *l);

/* Bytes sent and received, in plain: what resync costs is counted here. */
void link_counters(const struct link *l, uint64_t *ret_sent, uint64_t *ret_received);

#endif
