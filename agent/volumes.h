/* SPDX-License-Identifier: Apache-2.0
 * The volumes of this node, between the applied state and the engine: rows go down; reports, changes and states come
 * up. Everything is [loop]. */
#ifndef KEDGE_AGENT_VOLUMES_H
#define KEDGE_AGENT_VOLUMES_H

#include "agent/config.h"
#include "store/store.h"

struct agent;
struct volumes;

/* Find the engine of this node, or start one. @memfd: the guard's page, for the engine (L23). */
int volumes_open(struct agent *agent, int memfd, struct volumes **ret, struct err *e) KEDGE_MUST_CHECK;

/* Once per turn, after node_step(): what the store says is told, links with those who share a volume are kept. */
void volumes_step(struct volumes *v);

/* Would all disks of @vm be served to a QEMU that connects now? */
bool volumes_serve(const struct volumes *v, const struct store_vm *vm);

/* Would @row be served to a client that connects now? */
bool volumes_serve_one(const struct volumes *v, const struct store_volume *row);

/* Bytes of @row that are served to a client that connects now; they follow the row's, a moment later. */
uint64_t volumes_size(const struct volumes *v, const struct store_volume *row);

/* What this node can tell of itself. */
void volumes_info(struct volumes *v, struct peer_node_info *ret);

/* The engine's path for NBD, in the node's folder. */
void volumes_socket(const struct config *config, char ret[PATH_BYTES_MAX]);

/* Let the node that leads @row compare all replicas. It may be lost: whoever asked sees by the volume's status. */
void volumes_verify(struct volumes *v, const struct store_volume *row, bool primary_wins);

/* A frame of another node that asks for that; true when it was one. */
bool volumes_frame(struct volumes *v, const uint8_t *p, size_t n);

/* From the listener: a socket of a peer that asks for kedge-bulk/1, with what was read from it. Takes @fd. */
void volumes_accept(struct volumes *v, int fd, const uint8_t *first, size_t n);

/* The engine goes on; nothing is told any more. */
void volumes_close(struct volumes *v);
/* Once no request of this node is under way. NULL is allowed; returns NULL. */
struct volumes *volumes_free(struct volumes *v);

#endif
