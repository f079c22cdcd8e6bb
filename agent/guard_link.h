/* SPDX-License-Identifier: Apache-2.0
 * The agent's end of kedge-guard: the shared page, who is watched, and a new guard when one is gone (L17, L18). */
#ifndef KEDGE_AGENT_GUARD_LINK_H
#define KEDGE_AGENT_GUARD_LINK_H

#include "base/base.h"

struct guard_link;

/* [loop] Find the guard of @dir, or start one, and share a page with it. Blocks up to some seconds; call before the
 * loop runs. @ret_page is the page: an old one with its slots when the guard had one. */
int guard_link_open(const char *dir, struct guard_link **ret, struct guard_page **ret_page,
		    struct err *e) KEDGE_MUST_CHECK;

/* [loop] Once per turn: replaces a guard that is gone or shows no beat, and gives the new one what it watches. */
void guard_link_step(struct guard_link *g);

/* [loop] The effects of struct node_env. @pidfd is duplicated. */
void guard_link_watch(struct guard_link *g, size_t slot, int pidfd);
void guard_link_drop(struct guard_link *g, size_t slot);
void guard_link_kick(struct guard_link *g);

/* [loop] A slot that was found in the page: its process' descriptor, for a later guard, and for this one when it does
 * not watch the slot, because the agent before died between naming it and saying so. */
void guard_link_keep(struct guard_link *g, size_t slot, int pidfd);

/* [loop] The page's descriptor, which stays the link's: the engine reads the same page. */
int guard_link_memfd(const struct guard_link *g);

/* [loop] Does the kernel run the guard before everything else? */
bool guard_link_is_realtime(const struct guard_link *g);

/* Of the guard that is connected, as text; "": not known. It may be older than the file beside this program. */
void guard_link_version(const struct guard_link *g, char *ret, size_t size);

/* [loop] The guard goes on; NULL is allowed. Returns NULL. */
struct guard_link *guard_link_close(struct guard_link *g);

#endif
