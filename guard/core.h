/* SPDX-License-Identifier: Apache-2.0
 * When the guard stops and continues guests: rules L11 to L13 over the shared page, without a clock or a signal of its
 * own, so that the simulator runs the same code. */
#ifndef KEDGE_GUARD_CORE_H
#define KEDGE_GUARD_CORE_H

#include "base/base.h"

struct guard_ops {
	void *ctx;
	usec_t (*now)(void *ctx); /* boottime, read now */
	/* 0, -ESRCH when the process is gone, or another negative errno. */
	int (*signal_stop)(void *ctx, size_t slot);
	int (*signal_cont)(void *ctx, size_t slot);
	int (*signal_kill)(void *ctx, size_t slot);
};

struct guard_core {
	struct guard_ops ops;
	struct guard_page *page;
	bool watched[SLOTS_MAX];
};

/* [loop] */
void guard_core_init(struct guard_core *g, const struct guard_ops *ops);
void guard_core_attach(struct guard_core *g, struct guard_page *page);

/* [loop] Watch @slot, whose pid and generation are in the page: it is stopped at once (L13). */
void guard_core_watch(struct guard_core *g, size_t slot);

/* [loop] Forget @slot. */
void guard_core_drop(struct guard_core *g, size_t slot);

/* [loop] The process of @slot is gone. */
void guard_core_gone(struct guard_core *g, size_t slot);

/* [loop] One turn. Returns when the next one is due at the latest (boottime). */
usec_t guard_core_step(struct guard_core *g);

#endif
