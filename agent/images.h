/* SPDX-License-Identifier: Apache-2.0
 * The files of images, kernels and initrds on this node: what administrators send, what other nodes have, what is
 * wanted here by the applied state, and what nobody uses any more. Everything is [loop]. */
#ifndef KEDGE_AGENT_IMAGES_H
#define KEDGE_AGENT_IMAGES_H

#include "store/store.h"

struct agent;
struct images;
struct msgpack_object;
struct net_conn;
struct request;

/* Look what is there; what was cut off is removed. Blocks for a moment. */
struct images *images_open(struct agent *agent);

/* Once per turn, after node_step(). */
void images_step(struct images *im);

/* A METHOD_LOCAL: upload.begin, upload.data, upload.end. ctl_answer() follows. */
void images_request(struct images *im, struct request *r, const char *method, const struct msgpack_object *params);
/* What was being sent on it is dropped. */
void images_conn_closed(struct images *im, struct net_conn *conn);

/* A frame of another node about files; true when it was one. */
bool images_frame(struct images *im, node_id_t from, const uint8_t *p, size_t n);
void images_link_down(struct images *im, node_id_t node);

/* Are the files of @vm here, and were they read and found right just now? If not, that is seen to. */
bool images_ready(struct images *im, const struct store_vm *vm);
/* When something last came towards the files of @vm; 0: they are here, whether they were read or not. USEC_INFINITY is
 * never returned: before anything came it is the agent's start. */
usec_t images_progress(const struct images *im, const struct store_vm *vm);
/* Where the file is, for one start, once images_ready(): before the next one it is read again. */
void images_path(struct images *im, const char *digest, char ret[PATH_BYTES_MAX]);

/* Stop what is going on; the memory goes by images_free() after the loop has ended. */
void images_close(struct images *im);
/* NULL is allowed; returns NULL. */
struct images *images_free(struct images *im);

#endif
