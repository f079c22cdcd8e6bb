/* SPDX-License-Identifier: Apache-2.0
 * kedged as a whole: the parts, and what its files call of each other. Everything is [loop]. */
#ifndef KEDGE_AGENT_AGENT_H
#define KEDGE_AGENT_AGENT_H

#include "agent/config.h"
#include "agent/guard_link.h"
#include "agent/guests.h"
#include "agent/images.h"
#include "agent/node.h"
#include "agent/volumes.h"
#include "net/net.h"

#include <uv.h>

struct ctl;

enum founding { FOUNDING_OVER, FOUNDING_DUE, FOUNDING_LOGGED };

struct agent {
	uv_loop_t loop;
	struct config config;
	struct store *store;
	struct consensus *consensus;
	struct node *node;
	struct net *net;
	struct guard_page *page;
	struct guard_link *guard;
	struct guests *guests;
	struct volumes *volumes;
	struct images *images;
	struct ctl *ctl;
	struct buf ca_cert, ca_key; /* ca_key is empty on a node without it */
	char ca_fingerprint[65];
	uint64_t peers_known; /* store_changes() when the links were last set up */
	enum founding founding;
	uv_check_t check;
	uv_timer_t timer;
	uv_signal_t signals[2];
	uv_work_t saving, checkpointing;
	struct buf started; /* the file's next content, while saving */
	uint64_t started_seq;
	int started_rc;
	struct err started_error;
	bool is_checkpointing;
	usec_t next_checkpoint, next_info;
	uint64_t checkpointed; /* store_applied() then */
	bool leading;          /* as last logged */
	bool stopping;
	unsigned closing;
};

/* ---- ctl.c: requests from administrators and from other nodes ---- */

struct ctl *ctl_new(struct agent *agent);
/* Every proposal must be over. NULL is allowed; returns NULL. */
struct ctl *ctl_free(struct ctl *ctl);
void ctl_open(struct ctl *ctl, struct net_conn *conn);
void ctl_data(struct ctl *ctl, struct net_conn *conn, const uint8_t *p, size_t n);
void ctl_closed(struct ctl *ctl, struct net_conn *conn);
/* PEER_FORWARD and PEER_ANSWER; true when it was one. */
bool ctl_frame(struct ctl *ctl, node_id_t from, const uint8_t *p, size_t n);
void ctl_link_down(struct ctl *ctl, node_id_t node);
/* Once per turn, after node_step(). */
void ctl_step(struct ctl *ctl);

/* @response: a whole msgpack-rpc response, valid during the call. */
typedef void (*ctl_done)(void *ctx, const uint8_t *response, size_t n);

/* A request of this node itself; @params is one packed map. @done is called once, never from inside. */
void ctl_submit(struct ctl *ctl, const char *method, const struct buf *params, ctl_done done, void *ctx);

/* The same in the name of @actor, an administrator. */
void ctl_submit_as(struct ctl *ctl, const char *actor, const char *method, const struct buf *params, ctl_done done,
		   void *ctx);

/* Of a METHOD_LOCAL: its connection (NULL: closed since), and who asks. */
struct request;
struct net_conn *ctl_request_conn(const struct request *r);
const char *ctl_request_actor(const struct request *r);
/* Its answer, once, also from inside images_request(): 0 with one packed value (NULL: {}), or a PROTO_E_*. */
void ctl_answer(struct request *r, int code, const char *text, const struct buf *result);

/* Pack [1, msgid, error, nil]. */
void ctl_pack_error(struct buf *out, uint64_t msgid, int code, const char *text);

/* ---- port.c: the listener, the links to the other nodes ---- */

int port_open(struct agent *agent, struct err *e) KEDGE_MUST_CHECK;
/* Once per turn: links follow the members in the store. */
void port_step(struct agent *agent);

/* ---- join.c: who came with a token ---- */

void join_open(struct agent *agent, struct net_conn *conn);
void join_data(struct agent *agent, struct net_conn *conn, const uint8_t *p, size_t n);
void join_closed(struct agent *agent, struct net_conn *conn);
bool join_secret(struct agent *agent, const char *id, uint8_t ret[32]);

/* ---- seed_file.c: the disk for cloud-init of a VM that starts here ---- */

/* @ret: its path, or "" where the VM has none, or on failure. */
int seed_file_make(struct agent *agent, const struct store_vm *vm, char ret[PATH_BYTES_MAX],
		   struct err *e) KEDGE_MUST_CHECK;
void seed_file_remove(struct agent *agent, const char *vm);

/* ---- founding.c: the first entry of a new cluster ---- */

/* True when `kedge init` left its mark: this node is to found a cluster. */
bool founding_is_due(const struct agent *agent);
/* Once per turn: log the cluster's identity and its first node, then remove the mark. */
void founding_step(struct agent *agent);

/* ---- views.c: what is shown, in the words of docs/WIRE.md ---- */

struct pack;
void view_status(struct agent *agent, struct pack *p, bool is_local, bool quorum);
void view_nodes(struct agent *agent, struct pack *p);
void view_vms(struct agent *agent, struct pack *p);
bool view_node(struct agent *agent, struct pack *p, const char *name);
bool view_vm(struct agent *agent, struct pack *p, const char *name);
void view_volumes(struct agent *agent, struct pack *p);
/* "volumes": [...] inside a map. */
void view_volume_list(struct agent *agent, struct pack *p);
bool view_volume(struct agent *agent, struct pack *p, const char *name);
void view_images(struct agent *agent, struct pack *p);
/* One text for each that is not well. */
void view_volume_problems(struct agent *agent, struct pack *p);
void view_events(struct agent *agent, struct pack *p, uint64_t after, uint64_t limit);

#endif
