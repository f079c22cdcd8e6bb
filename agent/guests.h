/* SPDX-License-Identifier: Apache-2.0
 * The guests of this node as processes: the hypervisor module makes them, a pidfd tells when one is gone. */
#ifndef KEDGE_AGENT_GUESTS_H
#define KEDGE_AGENT_GUESTS_H

#include "agent/config.h"
#include "agent/guard_link.h"
#include "agent/node.h"

struct uv_loop_s;
struct guests;
struct volumes;

/* [loop] Load the module and connect; with uri "none" nothing is loaded and nothing can be started. Blocks for a
 * moment: call before the loop runs. */
int guests_open(struct uv_loop_s *loop, const struct config *config, struct guard_page *page, struct guard_link *guard,
		struct guests **ret, struct err *e) KEDGE_MUST_CHECK;

/* [loop] L17: take over what runs and has a slot, end what runs without one, give back slots without a process. */
void guests_adopt(struct guests *g, struct node *node);

/* [loop] What the node has, for node_set_info(). */
void guests_info(const struct guests *g, struct peer_node_info *ret);

/* [loop] Once per turn: guests that were paused by a lost disk go on when it is served again, and learn what grew. */
void guests_step(struct guests *g, const struct volumes *volumes);

/* [loop] The effects of struct node_env. @seed: the path of its disk for cloud-init, or "". */
void guests_start(struct guests *g, const struct store_vm *vm, const char *seed, const struct volumes *volumes);
void guests_resume(struct guests *g, const char *vm, uint64_t gen);
void guests_shutdown(struct guests *g, const char *vm, uint64_t gen);
void guests_kill(struct guests *g, const char *vm, uint64_t gen);
void guests_forget(struct guests *g, const char *vm, uint64_t gen);
void guests_watch(struct guests *g, size_t slot);
void guests_freeze(struct guests *g, size_t slot);

/* [loop] Leave the guests as they are and close every handle; the memory goes with the loop's last turn. */
void guests_close(struct guests *g);
/* [loop] After the loop has ended. NULL is allowed; returns NULL. */
struct guests *guests_free(struct guests *g);

#endif
