/* SPDX-License-Identifier: Apache-2.0
 * Where VMs run: pure functions from a view of the cluster to a list of moves, each with its reason.
 *
 * Nothing here reads a clock, keeps memory or allocates; the same view gives the same list. */
#ifndef KEDGE_SCHEDULER_SCHEDULER_H
#define KEDGE_SCHEDULER_SCHEDULER_H

#include "base/base.h"

struct scheduler_node {
	node_id_t node;
	bool can_run; /* its lease is fresh and its hypervisor is ready */
	uint64_t memory_bytes;
	uint32_t cpus;
};

/* Why the owner of a VM is known unable to run it any more (P2). */
enum scheduler_out {
	SCHEDULER_IN = 0,  /* it may run */
	SCHEDULER_STOPPED, /* it said that its process is gone (L16) */
	SCHEDULER_LAPSED,  /* its lease and the guard's bound have passed (L8) */
};

struct scheduler_vm {
	const char *name;
	bool run; /* what the administrator wants */
	node_id_t owner;
	uint64_t gen;
	uint64_t memory_bytes;
	uint32_t vcpus;
	uint32_t priority; /* higher first */
	bool busy;         /* a command for it is in flight */
	enum scheduler_out out;
	bool failed;       /* SCHEDULER_STOPPED: it ended by itself */
	usec_t not_before; /* back-off */
};

struct scheduler_view {
	usec_t now;
	size_t n_nodes;
	const struct scheduler_node *nodes;
	size_t n_vms;
	const struct scheduler_vm *vms;
};

/* Move @vm (index) from its generation to @to (0: to nobody). */
struct scheduler_move {
	size_t vm;
	node_id_t to;
	bool failed;
	char reason[REASON_BYTES_MAX];
};

/* Share of a node's memory that guests may use, in percent: the rest is the host's. */
#define SCHEDULER_MEMORY_PERCENT 90
/* Virtual CPUs per real one. */
#define SCHEDULER_VCPUS_PER_CPU 16

/* [any] What to do now, most urgent first, at most @max. Returns the number. */
size_t scheduler_plan(const struct scheduler_view *view, struct scheduler_move *ret, size_t max);

/* [any] Why @vm (index) waits, in one line; "" when it does not. */
void scheduler_explain(const struct scheduler_view *view, size_t vm, char ret[REASON_BYTES_MAX]);

/* [any] How long to wait before a guest that ended by itself @fails times in a row is started again: at once the first
 * time, then 1 s doubling to a minute. It never gives up. */
usec_t scheduler_backoff(uint32_t fails);

#endif
