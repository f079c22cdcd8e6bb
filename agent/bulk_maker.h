/* SPDX-License-Identifier: Apache-2.0
 * Makes the bulk links between volume engines, since only the agent has the node's key: dials, or takes what came to
 * the one listener, does the handshake on a worker, and hands the result on.
 *
 * Everything is [loop]. Callbacks come from the loop, never from inside a call, but hand_over() from bulk_maker_step().
 */
#ifndef KEDGE_AGENT_BULK_MAKER_H
#define KEDGE_AGENT_BULK_MAKER_H

#include "net/net.h"
#include "proto/proto.h"

struct bulk_maker;

struct bulk_maker_config {
	struct uv_loop_s *loop;
	node_id_t self;
	const char *listen;               /* dialled from its host */
	const char *ca_cert, *cert, *key; /* paths of PEM files */
};

struct bulk_maker_callbacks {
	void *ctx;
	bool (*peer_known)(void *ctx, node_id_t node);
	/* A link is made. Keys and socket stay the caller's, who wipes the one and closes the other. */
	void (*hand_over)(void *ctx, const struct bulk_handover *h, int fd);
};

/* Reads the PEM files. -EINVAL, -EACCES: they are unusable, or the address. */
int bulk_maker_open(const struct bulk_maker_config *config, const struct bulk_maker_callbacks *cb,
		    struct bulk_maker **ret, struct err *e) KEDGE_MUST_CHECK;

/* Dial @node at @address while its link is down or worn; NULL: no more. Of a pair the lower id dials. */
void bulk_maker_peer(struct bulk_maker *m, node_id_t node, const char *address);

/* The engine says so. @worn: it stands, and another one is to be made beside it. */
void bulk_maker_set_up(struct bulk_maker *m, node_id_t node, bool up, bool worn);

/* Whatever stood stands no more: another engine. */
void bulk_maker_all_down(struct bulk_maker *m);

/* Takes @fd, of which @n bytes were read. */
void bulk_maker_accept(struct bulk_maker *m, int fd, const uint8_t *first, size_t n);

/* Once per turn. @is_wanted: there is an engine, and it has said which links it has. */
void bulk_maker_step(struct bulk_maker *m, bool is_wanted);

/* NULL is allowed; returns NULL. What is under way ends by itself soon: the loop must run until then. */
struct bulk_maker *bulk_maker_close(struct bulk_maker *m);

#endif
