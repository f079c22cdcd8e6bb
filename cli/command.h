/* SPDX-License-Identifier: Apache-2.0
 * What the commands share: the options that every command knows, and how it asks and shows. */
#ifndef KEDGE_CLI_COMMAND_H
#define KEDGE_CLI_COMMAND_H

#include "cli/rpc.h"

#define ARGS_MAX 16

/* The command line, taken apart. */
struct args {
	const char *words[ARGS_MAX]; /* after the command's own words */
	size_t n_words;
	bool json, stale, dry_run, hard, follow, primary_wins, yes, accept_data_loss;
	const char *dir, *context, *name, *listen, *zone, *cluster, *file, *expires, *role, *timeout, *limit, *node,
		*copies;
};

struct command {
	const char *words;   /* "vm start" */
	const char *usage;   /* what follows the words */
	const char *summary; /* one line */
	const char *help;    /* more, with an example; may be "" */
	const char *options; /* those that it knows besides the common ones, "--x --y" */
	size_t n_words;      /* how many words must follow */
	int (*run)(const struct args *args, struct err *e);
};

extern const struct command commands[];
extern const size_t n_commands;

/* ask.c */

/* Ask the agent that the options name. Adds `stale`, and for a change session and number, to the map that the caller
 * has begun: @p stands inside it. 0 or a negative code. */
void ask_begin(struct pack *p, struct buf *params);
int ask_read(const struct args *args, const char *method, struct pack *p, struct rpc_answer *ret, struct err *e);
int ask_change(const struct args *args, const char *method, struct pack *p, struct rpc_answer *ret, struct err *e);

/* A connection to the agent that the options name, for rpc_exchange(). */
int ask_connect(const struct args *args, struct net_client **ret, struct err *e);

/* Print @o as JSON. */
void print_json(const struct msgpack_object *o, int indent);

/* Copies of values for printing: "" or 0 for what is not there. */
const char *text_of(const struct msgpack_object *map, const char *key, char *ret, size_t size);
uint64_t number_of(const struct msgpack_object *map, const char *key);
bool flag_of(const struct msgpack_object *map, const char *key);

/* Ask @method, with the first word as its name; with --json print the whole result and be done: 0. 1: the caller shows
 * it. Or a negative code. */
int ask_and_maybe_print(const struct args *args, const char *method, struct rpc_answer *answer, struct err *e);

/* Every field of @map on its own line. */
void print_fields(const struct msgpack_object *map);

/* "n1*, n3 (syncing, 12 MiB behind, 5 s)": the primary has the star, what is in sync says no more. Ends with a zero. */
void describe_replicas(const struct msgpack_object *replicas, struct buf *ret);

/* The table of volumes, or that there are none. */
void print_volumes(const struct msgpack_object *volumes, const char *indent);

/* A table: columns are as wide as they must be. */
#define TABLE_COLUMNS_MAX 10
#define CELL_BYTES        200
struct table {
	size_t columns, rows, cap;
	char (*cells)[CELL_BYTES];
	size_t at;
};
void table_begin(struct table *t, size_t columns, const char *const *titles);
void table_cell(struct table *t, const char *fmt, ...) KEDGE_PRINTF(2, 3);
void table_print(struct table *t, const char *indent);

/* the commands */
int command_init(const struct args *args, struct err *e);
int command_join(const struct args *args, struct err *e);
int command_token(const struct args *args, struct err *e);
int command_status(const struct args *args, struct err *e);
int command_node_ls(const struct args *args, struct err *e);
int command_node_show(const struct args *args, struct err *e);
int command_apply(const struct args *args, struct err *e);
int command_delete(const struct args *args, struct err *e);
int command_vm_ls(const struct args *args, struct err *e);
int command_vm_show(const struct args *args, struct err *e);
int command_vm_start(const struct args *args, struct err *e);
int command_vm_stop(const struct args *args, struct err *e);
int command_vm_kill(const struct args *args, struct err *e);
int command_vm_restart(const struct args *args, struct err *e);
int command_volume_ls(const struct args *args, struct err *e);
int command_volume_show(const struct args *args, struct err *e);
int command_volume_export(const struct args *args, struct err *e);
int command_volume_unexport(const struct args *args, struct err *e);
int command_volume_force(const struct args *args, struct err *e);
int command_node_fence_ack(const struct args *args, struct err *e);
int command_node_remove(const struct args *args, struct err *e);
int command_volume_resync(const struct args *args, struct err *e);
int command_volume_verify(const struct args *args, struct err *e);
int command_image_add(const struct args *args, struct err *e);
int command_image_ls(const struct args *args, struct err *e);
int command_image_rm(const struct args *args, struct err *e);
int command_events(const struct args *args, struct err *e);

/* node_files.c: the files of a node, by init and join. */
struct node_files {
	const char *dir, *name, *listen, *zone, *cluster;
	node_id_t id;
	const struct buf *ca_cert, *ca_key, *cert, *key; /* ca_key may be NULL */
};
/* Look whether DIR may become a node with this name and address, and make DIR/pki. */
int node_files_check(const struct node_files *f, struct err *e);
/* Write all; kedge.conf last: with it the node is whole. */
int node_files_write(const struct node_files *f, struct err *e);
/* Undo what a refused init or join left. */
void node_files_remove(const char *dir);

#endif
