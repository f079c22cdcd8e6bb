/* SPDX-License-Identifier: Apache-2.0
 * A whole cluster in one process on virtual time: real raft, store, leases, scheduler and guard decisions over links,
 * disks, clocks and guests that can fail in every way the design allows. A seed reproduces a run. */
#ifndef KEDGE_TESTS_SIM_WORLD_H
#define KEDGE_TESTS_SIM_WORLD_H

#include "agent/node.h"
#include "consensus/backend.h"
#include "guard/core.h"

#define SIM_NODES 3
#define SIM_VMS   4
#define SIM_OPS   4096

struct world;
struct event;
typedef void (*event_fn)(struct world *w, struct event *e);

/* Who must be alive for an event to happen: else it is dropped. A hung agent gets it when it goes on. */
enum event_owner { OWNER_WORLD, OWNER_AGENT, OWNER_MACHINE, OWNER_GUARD };

struct event {
	usec_t at;
	uint64_t seq;
	event_fn fn;
	enum event_owner owner;
	unsigned node; /* 1.. */
	uint64_t life; /* of the owner: an event of an earlier life is dropped */
	bool outlives; /* but this one comes to the next agent */
	uint64_t a, b, c;
	void *p; /* free()d with the event */
	size_t n;
};

/* ---- the durable side of a node's log ---- */

struct sim_entry {
	uint64_t term;
	int type;
	void *data;
	size_t n;
};

struct sim_disk {
	uint64_t term, vote;
	uint64_t start; /* index of entries[0] */
	struct sim_entry *entries;
	size_t n, cap;
	bool has_snapshot;
	uint64_t snap_index, snap_term, snap_conf_index;
	void *snap_conf;
	size_t snap_conf_n;
	void *snap;
	size_t snap_n;
	/* the store's image as it was some time ago, and the file `started` */
	void *image;
	size_t image_n;
	struct {
		char vm[NAME_BYTES_MAX];
		uint64_t gen;
	} started[32];
	size_t n_started;
};

/* ---- a guest's process ---- */

struct process {
	bool exists;
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
	int32_t pid;
	bool stopped;        /* SIGSTOP has taken effect */
	bool cont;           /* the machine inside runs */
	bool orphan;         /* created for an agent that has died meanwhile */
	uint64_t stop_epoch; /* SIGCONTs and SIGSTOPs so far: a slow one is void when overtaken */
};

#define SIM_PROCESSES 32

struct host {
	unsigned id;
	bool up;          /* the machine has power */
	uint64_t boot;    /* counts machine lives */
	int64_t rate_ppm; /* of its clock */
	usec_t offset;
	struct sim_disk disk;
	usec_t disk_delay; /* mean of a write */

	bool agent_up;
	bool hung;
	uint64_t agent_life;
	struct store *store;
	struct raft_io *io;
	struct consensus *consensus;
	struct node *node;
	bool in_turn;
	uint64_t saving_seq;

	bool guard_up;
	uint64_t guard_life;
	usec_t guard_late; /* how late its wake-ups come at most */
	usec_t guard_at;   /* the step that is scheduled, virtual; 0: none */
	struct guard_core guard;
	struct guard_page page;

	struct process processes[SIM_PROCESSES];
	uint64_t hashed; /* applied index whose hash was compared last */
};

/* A client's change, retried with its number until it is answered. */
struct op {
	uint64_t session, num;
	struct buf bodies;
	char name[NAME_BYTES_MAX]; /* of the VM defined, "" for another change */
	bool in_flight;
	bool done;
	int code;
};

struct faults {
	unsigned agent_crash, power, hang, guard_kill, isolate, one_way, break_link, slow_disk, guest_end, admin, lag,
		duplicate, slow_start, start_fails, engine;
	bool stories; /* faults in the order that a planted bug needs to show */
	bool behind;  /* raft's frames lag for seconds while leases come through, and lease frames outlive processes */
};

/* The story that is being told (stories.c). */
struct story {
	unsigned kind, step;
	usec_t until;
	unsigned leader, owner, third; /* as it began */
	unsigned next;                 /* the leader after that */
	uint64_t index;
};

/* The process beside the agent that has all replicas of a node (engines.c). */
struct sim_engine {
	bool up, linked; /* it runs; its agent and it have met */
	bool behind;     /* rows must be told again */
	uint64_t life;
	uint64_t changes; /* of the agent's store, when its rows were told last */
};

struct sim_volume; /* disks.h */

struct world {
	uint64_t seed, random;
	usec_t now; /* virtual */
	uint64_t seq;
	struct event **heap;
	size_t n_heap, cap_heap;
	struct host hosts[SIM_NODES + 1];
	struct timing timing;
	bool cut[SIM_NODES + 1][SIM_NODES + 1];  /* frames from a to b vanish */
	bool link[SIM_NODES + 1][SIM_NODES + 1]; /* a and b have a connection (symmetric) */
	uint64_t link_life[SIM_NODES + 1][SIM_NODES + 1];
	usec_t raft_lag[SIM_NODES + 1];                 /* to this node */
	usec_t lease_lag[SIM_NODES + 1];                /* to this node */
	usec_t link_last[SIM_NODES + 1][SIM_NODES + 1]; /* FIFO: nothing overtakes */
	struct faults faults;
	struct story story;
	bool disks;                 /* the VMs have them */
	bool unsound;               /* and the nodes' engines cannot be relied on, now this one's, now that one's */
	bool grows;                 /* they begin small, and get larger */
	bool flaps;                 /* and their replicas part and meet again all the time */
	uint64_t disks_seen;        /* index up to which their rows were looked at */
	struct sim_volume *volumes; /* one per VM, or NULL */
	struct sim_engine engines[SIM_NODES + 1];
	uint64_t proposals;
	unsigned pinned; /* VMs that were unmovable when that node died: a bit each */
	unsigned dead;   /* a node that stays without power after all others are healed; 0: none */
	bool healing;
	int32_t next_pid;

	struct op ops[SIM_OPS];
	size_t n_ops;

	struct {
		uint64_t index, hash;
	} hashes[4096];
	const char *violation;
	char detail[256];
	bool verbose;
	uint64_t steps, failovers, thaws;
};

/* ---- world.c ---- */
uint64_t sim_random(struct world *w, uint64_t below);
bool sim_chance(struct world *w, unsigned permille);
usec_t sim_local(const struct world *w, unsigned node);
usec_t sim_virtual_of(const struct world *w, unsigned node, usec_t local);
struct event *sim_after(struct world *w, usec_t delay, event_fn fn, enum event_owner owner, unsigned node);
void sim_run(struct world *w, usec_t until);
void sim_violate(struct world *w, const char *what, const char *fmt, ...) KEDGE_PRINTF(3, 4);
void sim_log(struct world *w, const char *fmt, ...) KEDGE_PRINTF(2, 3);
void sim_drop_events(struct world *w);

/* ---- io.c: raft_io on virtual time ---- */
struct raft_io *sim_io_new(struct world *w, unsigned node);
void sim_io_free(struct raft_io *io);
void sim_disk_wipe(struct sim_disk *d);

/* ---- links.c ---- */
int sim_raft_send(void *ctx, node_id_t to, const void *p, size_t n);
void sim_lease_send(void *ctx, node_id_t to, const void *p, size_t n);
bool sim_is_up(void *ctx, node_id_t node);
void sim_link_break(struct world *w, unsigned a, unsigned b);
void sim_links_of_agent_down(struct world *w, unsigned node);

/* ---- faults.c ---- */
/* @node and all others do not hear each other. */
void sim_isolate(struct world *w, unsigned node, usec_t how_long);
/* Any node that lives, once all is healed. */
struct host *sim_alive(struct world *w);

/* ---- disks.c ---- */
struct vsim;
void sim_disks_new(struct world *w);
void sim_disks_end(struct world *w);
/* The volume whose event comes first, NULL: there is none; let it happen. */
struct vsim *sim_disks_next(const struct world *w);
void sim_disks_step(struct world *w, struct vsim *s);
/* It is w->now for them too. */
void sim_disks_now(struct world *w);
void sim_disks_heal(struct world *w);
void sim_disks_look(struct world *w);
void sim_disks_check_end(struct world *w, const struct store_vm *vm);
void sim_disks_found(struct world *w, unsigned vm, struct buf *bodies);
void sim_disks_start(struct world *w);
/* Could @vm run without the dead node, if COLD_WAIT has passed? */
void sim_disks_pin(struct world *w);
bool sim_disks_allow(const struct world *w, struct store *s, const struct store_vm *vm);
bool sim_disks_serve(struct world *w, const struct host *h, const struct store_vm *vm);
void sim_disks_check(struct world *w);

/* ---- engines.c ---- */
void sim_engines_turn(struct world *w, unsigned node);
void sim_engines_agent_gone(struct world *w, unsigned node);
void sim_engines_power(struct world *w, unsigned node, bool on);

/* ---- host.c ---- */
void sim_host_found(struct world *w, unsigned node);
void sim_agent_start(struct world *w, unsigned node);
void sim_agent_crash(struct world *w, unsigned node);
void sim_machine_crash(struct world *w, unsigned node);
void sim_machine_boot(struct world *w, unsigned node);
void sim_turn(struct world *w, unsigned node);
void sim_guard_kick(struct world *w, unsigned node, usec_t delay);
void sim_guard_kill(struct world *w, unsigned node);
void sim_guard_ensure(struct world *w, unsigned node);

/* ---- guests.c ---- */
extern const struct node_env sim_guest_env; /* vm_* and freeze */
struct process *sim_process(struct host *h, const char *vm, uint64_t gen);
void sim_process_end(struct world *w, unsigned node, struct process *p, const char *why);
bool sim_executes(const struct host *h, const struct process *p);
void sim_vm_start(void *ctx, const struct store_vm *vm);
void sim_vm_resume(void *ctx, const char *vm, uint64_t gen);
void sim_vm_shutdown(void *ctx, const char *vm, uint64_t gen);
void sim_vm_kill(void *ctx, const char *vm, uint64_t gen);
void sim_vm_forget(void *ctx, const char *vm, uint64_t gen);
void sim_freeze(void *ctx, size_t slot);
void sim_guard_ops(struct world *w, unsigned node);

/* ---- clients.c ---- */
void sim_clients_start(struct world *w);
void sim_clients_check(struct world *w);

/* ---- faults.c ---- */
void sim_faults_choose(struct world *w);
void sim_faults_start(struct world *w);
void sim_heal(struct world *w);

/* ---- stories.c ---- */
void sim_stories_start(struct world *w);

/* ---- check.c ---- */
void sim_check_step(struct world *w);
void sim_check_agreement(struct world *w, unsigned node);
void sim_check_end(struct world *w);

#endif
