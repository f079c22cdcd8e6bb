/* SPDX-License-Identifier: Apache-2.0
 * Where VMs run: pure functions from a view of the cluster to a list of moves, each with its reason.
 *
 * Nothing here reads a clock, keeps memory or allocates; the same view gives the same list. */
#ifndef KEDGE_SCHEDULER_SCHEDULER_H
#define KEDGE_SCHEDULER_SCHEDULER_H

#include "base/base.h"

struct scheduler_node {
	node_id_t node;
	bool is_up;   /* its lease is fresh */
	bool can_run; /* and its hypervisor is ready */
	bool is_away; /* silent for so long that its replicas are placed anew */
	bool has_engine;
	bool unsound;       /* its engine cannot be relied on: disks are led and placed elsewhere if they can be */
	uint64_t disk_free; /* bytes for replicas */
	uint32_t replicas;  /* that it has */
	uint64_t memory_bytes;
	uint32_t cpus;
};

/* Why the owner of a VM is known unable to run it any more (P2). */
enum scheduler_out {
	SCHEDULER_IN = 0,  /* it may run */
	SCHEDULER_STOPPED, /* it said that its process is gone (L16) */
	SCHEDULER_LAPSED,  /* its lease and the guard's bound have passed (L8) */
};

struct scheduler_replica {
	node_id_t node;
	bool good;       /* in sync, and it lost nothing */
	bool lost_power; /* it was in sync when its node lost power */
	bool in_sync;    /* by the row */
	bool leaving;    /* its files are being erased */
};

#define SCHEDULER_REPLICAS_MAX 4

/* A volume and who has it. */
struct scheduler_disk {
	const char *name;
	node_id_t primary;
	size_t n_replicas;
	struct scheduler_replica replicas[SCHEDULER_REPLICAS_MAX];
	uint64_t size;
	uint32_t wanted;                         /* replicas */
	node_id_t nodes[SCHEDULER_REPLICAS_MAX]; /* that shall have one, as an administrator named them; 0 behind the
						    last */
	bool waited;                             /* COLD_WAIT has passed for those that did not report */
	bool filling;                            /* from an image: nobody uses it yet */
};

/* How a node may come to lead a volume. */
enum scheduler_lead {
	SCHEDULER_NO,
	SCHEDULER_TAKEOVER,
	SCHEDULER_COLD,        /* all that were in sync lost power (V27) */
	SCHEDULER_COLD_SILENT, /* the others do not say: only after COLD_WAIT */
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
	bool ending;       /* its instance shall end */
	enum scheduler_out out;
	bool failed;       /* SCHEDULER_STOPPED: it ended by itself */
	bool elsewhere;    /* and could not be started on its node: rather on another one */
	usec_t not_before; /* back-off */
	/* It may be placed only where all of these can be led. */
	size_t n_disks;
	const struct scheduler_disk *disks;
	/* An export: it needs no hypervisor, and @node is the only one for it. */
	bool is_export;
	node_id_t node;
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

/* [any] Which VM shall be ended where it is, since the engine of its node is unsound, and a node whose engine is sound
 * has all of its disks in sync and room for it? One that no other can take stays. One by one: none while another is on
 * its way, since what that takes of the room elsewhere does not show yet. False: none. */
bool scheduler_leave(const struct scheduler_view *view, struct scheduler_move *ret);

/* [any] May @node lead @d, and how? What is out of sync leads only by an administrator's FORCE. */
enum scheduler_lead scheduler_lead(const struct scheduler_disk *d, node_id_t node);

/* [any] Does nobody that is up keep @d from serving but its silence? Then COLD_WAIT counts. */
bool scheduler_waits_for_silent(const struct scheduler_view *view, const struct scheduler_disk *d);

/* [any] Is there a node besides @owner that could take @vm over, once its lease is over? Whether it is up counts as
 * little as its room: both may change while nobody can be asked. */
bool scheduler_other_could_run(const struct scheduler_view *view, const struct scheduler_vm *vm);

/* [any] Who shall lead @d, which nobody uses, so that its replicas get in sync: 0 when it is well as it is, or cannot
 * be mended. @primary_out: the primary is known not to lead (its lease is over, or it reported a power loss). */
node_id_t scheduler_volume(const struct scheduler_view *view, const struct scheduler_disk *d, bool primary_out);

enum scheduler_replicas { SCHEDULER_KEEP, SCHEDULER_ADD, SCHEDULER_DROP };

/* [any] Shall @node have a replica of @d, as an administrator said? False also where nobody said anything. */
bool scheduler_is_named(const struct scheduler_disk *d, node_id_t node);

/* [any] Shall a node get a replica of @d, or give up its own, so that there are as many as wanted on nodes that are not
 * away, and one on each that was named? One at a time; what is in sync is given up only when enough others are, and the
 * primary never. */
enum scheduler_replicas scheduler_replicas(const struct scheduler_view *view, const struct scheduler_disk *d,
					   node_id_t *ret_node);

/* [any] Why @vm (index) waits, in one line; "" when it does not. */
void scheduler_explain(const struct scheduler_view *view, size_t vm, char ret[REASON_BYTES_MAX]);

/* [any] How long to wait before a guest that ended by itself @fails times in a row is started again: at once the first
 * time, then 1 s doubling to a minute. It never gives up. */
usec_t scheduler_backoff(uint32_t fails);

#endif
