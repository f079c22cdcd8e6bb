/* SPDX-License-Identifier: Apache-2.0
 * The commands that show: status, nodes, VMs, events. */
#include "cli/command.h"

#include "cli/size.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define EVENTS_USUAL 50
#define FOLLOW_EVERY (500 * USEC_PER_MS)

int ask_and_maybe_print(const struct args *args, const char *method, struct rpc_answer *answer, struct err *e)
{
	struct buf params = {0};
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	if (args->n_words > 0)
		pack_kv_str(&p, "name", args->words[0]);
	rc = ask_read(args, method, &p, answer, e);
	if (rc < 0 || !args->json)
		return rc < 0 ? rc : 1;
	print_json(answer->result, 2);
	return 0;
}

/* ---- nodes ---- */

static void add_node_row(struct table *t, const struct msgpack_object *node)
{
	char text[CELL_BYTES], size[32];

	size_format(number_of(node, "memory_bytes"), size, sizeof size);
	table_cell(t, "%s", text_of(node, "name", text, sizeof text));
	table_cell(t, "%s", text_of(node, "state", text, sizeof text));
	table_cell(t, "%s%s", text_of(node, "role", text, sizeof text), flag_of(node, "leader") ? ", leader" : "");
	table_cell(t, "%s", text_of(node, "address", text, sizeof text));
	table_cell(t, "%llu", (unsigned long long)number_of(node, "vms"));
	table_cell(t, "%s", number_of(node, "memory_bytes") ? size : "-");
	table_cell(t, "%llu", (unsigned long long)number_of(node, "cpus"));
	table_cell(t, "%s", text_of(node, "accel", text, sizeof text)[0] ? text : "-");
	table_cell(t, "%s", text_of(node, "guard", text, sizeof text));
}

static void print_nodes(const struct msgpack_object *nodes, const char *indent)
{
	static const char *const titles[] = {"NODE",   "STATE", "ROLE",  "ADDRESS", "VMS",
					     "MEMORY", "CPUS",  "ACCEL", "GUARD"};
	struct table t;

	table_begin(&t, ARRAY_LEN(titles), titles);
	for (size_t i = 0; i < unpack_count(nodes); i++)
		add_node_row(&t, unpack_at(nodes, i));
	table_print(&t, indent);
}

int command_node_ls(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	int rc = ask_and_maybe_print(args, "node.list", &answer, e);

	if (rc > 0)
		print_nodes(unpack_key(answer.result, "nodes"), "");
	rpc_free(&answer);
	return rc < 0 ? rc : 0;
}

void print_fields(const struct msgpack_object *map)
{
	const struct msgpack_object *key, *value;

	for (size_t i = 0; unpack_pair(map, i, &key, &value); i++) {
		struct buf text = {0};
		char name[40], string[CELL_BYTES];

		(void)unpack_str(key, name, sizeof name);
		if (!unpack_str(value, string, sizeof string)) {
			unpack_json(value, -1, &text);
			buf_append(&text, "", 1);
		}
		(void)printf("%-14s %s\n", name, text.data ? (char *)text.data : string);
		buf_free(&text);
	}
}

int command_node_show(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	int rc = ask_and_maybe_print(args, "node.show", &answer, e);

	if (rc > 0)
		print_fields(unpack_key(answer.result, "node"));
	rpc_free(&answer);
	return rc < 0 ? rc : 0;
}

/* ---- VMs ---- */

static void add_vm_row(struct table *t, const struct msgpack_object *vm)
{
	char text[CELL_BYTES], size[32];

	size_format(number_of(vm, "memory_bytes"), size, sizeof size);
	table_cell(t, "%s", text_of(vm, "name", text, sizeof text));
	table_cell(t, "%s", text_of(vm, "want", text, sizeof text));
	table_cell(t, "%s", text_of(vm, "state", text, sizeof text));
	table_cell(t, "%s", text_of(vm, "node", text, sizeof text)[0] ? text : "-");
	table_cell(t, "%llu", (unsigned long long)number_of(vm, "vcpus"));
	table_cell(t, "%s", size);
	table_cell(t, "%s", text_of(vm, "reason", text, sizeof text));
}

static void print_vms(const struct msgpack_object *vms, const char *indent)
{
	static const char *const titles[] = {"VM", "WANT", "STATE", "NODE", "VCPUS", "MEMORY", "REASON"};
	struct table t;

	if (unpack_count(vms) == 0) {
		(void)printf("%sno VMs yet: kedge apply -f FILE.yaml\n", indent);
		return;
	}
	table_begin(&t, ARRAY_LEN(titles), titles);
	for (size_t i = 0; i < unpack_count(vms); i++)
		add_vm_row(&t, unpack_at(vms, i));
	table_print(&t, indent);
}

int command_vm_ls(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	int rc = ask_and_maybe_print(args, "vm.list", &answer, e);

	if (rc > 0)
		print_vms(unpack_key(answer.result, "vms"), "");
	rpc_free(&answer);
	return rc < 0 ? rc : 0;
}

int command_vm_show(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	int rc = ask_and_maybe_print(args, "vm.show", &answer, e);

	if (rc > 0)
		print_fields(unpack_key(answer.result, "vm"));
	rpc_free(&answer);
	return rc < 0 ? rc : 0;
}

/* ---- status ---- */

static void print_problems(const struct msgpack_object *problems)
{
	char text[400];

	if (unpack_count(problems) == 0) {
		(void)printf("\nall is well\n");
		return;
	}
	(void)printf("\nwhat is wrong:\n");
	for (size_t i = 0; i < unpack_count(problems); i++)
		if (unpack_str(unpack_at(problems, i), text, sizeof text))
			(void)printf("  - %s\n", text);
}

static void print_status(const struct msgpack_object *s)
{
	char text[CELL_BYTES], leader[NAME_BYTES_MAX];
	bool quorum = flag_of(s, "quorum");

	(void)text_of(s, "leader", leader, sizeof leader);
	(void)printf("cluster %s", text_of(s, "cluster", text, sizeof text));
	(void)printf("   quorum: %s   leader: %s   term %llu   (as %s sees it%s)\n", quorum ? "yes" : "NO",
		     leader[0] ? leader : "none", (unsigned long long)number_of(s, "term"),
		     text_of(s, "node", text, sizeof text), flag_of(s, "stale") ? ", by itself" : "");
	if (!quorum)
		(void)printf("NOBODY LEADS. What follows is what this one node knows; it may be out of date.\n");
	(void)printf("\n");
	print_nodes(unpack_key(s, "nodes"), "  ");
	(void)printf("\n");
	print_vms(unpack_key(s, "vms"), "  ");
	if (unpack_count(unpack_key(s, "volumes")) > 0) {
		(void)printf("\n");
		print_volumes(unpack_key(s, "volumes"), "  ");
	}
	print_problems(unpack_key(s, "problems"));
}

int command_status(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	int rc = ask_and_maybe_print(args, "status", &answer, e);

	if (rc > 0)
		print_status(answer.result);
	rpc_free(&answer);
	return rc < 0 ? rc : 0;
}

/* ---- events ---- */

static void print_event(const struct msgpack_object *ev)
{
	char time_text[40], kind[40], object[NAME_BYTES_MAX], text[CELL_BYTES];

	(void)printf("%s  %-7s %-16s %s\n", text_of(ev, "time", time_text, sizeof time_text),
		     text_of(ev, "kind", kind, sizeof kind), text_of(ev, "object", object, sizeof object),
		     text_of(ev, "text", text, sizeof text));
}

static int ask_events(const struct args *args, uint64_t after, uint64_t limit, struct rpc_answer *answer, struct err *e)
{
	struct buf params = {0};
	struct pack p;

	ask_begin(&p, &params);
	pack_kv_u64(&p, "after", after);
	pack_kv_u64(&p, "limit", limit);
	return ask_read(args, "events", &p, answer, e);
}

/* Print what came; returns the highest id. */
static uint64_t print_events(const struct args *args, const struct msgpack_object *events, uint64_t last)
{
	for (size_t i = 0; i < unpack_count(events); i++) {
		const struct msgpack_object *ev = unpack_at(events, i);

		if (args->json)
			print_json(ev, -1);
		else
			print_event(ev);
		last = number_of(ev, "id");
	}
	(void)fflush(stdout);
	return last;
}

static int follow(const struct args *args, uint64_t last, struct err *e)
{
	const struct timespec pause = {0, (long)(FOLLOW_EVERY * 1000)};

	for (;;) {
		struct rpc_answer answer = {0};
		int rc = ask_events(args, last ? last : 1, EVENTS_USUAL, &answer, e);

		if (rc < 0) {
			rpc_free(&answer);
			return rc;
		}
		last = print_events(args, unpack_key(answer.result, "events"), last);
		rpc_free(&answer);
		(void)nanosleep(&pause, NULL);
	}
}

int command_events(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	uint64_t limit = EVENTS_USUAL, last;
	int rc;

	if (args->limit && (!size_parse(args->limit, &limit) || limit < 1 || limit > 1000))
		return err_set(e, PROTO_E_INVALID, "--limit must be a number from 1 to 1000");
	rc = ask_events(args, 0, limit, &answer, e);
	if (rc == 0 && args->json && !args->follow) {
		print_json(answer.result, 2);
	} else if (rc == 0) {
		last = print_events(args, unpack_key(answer.result, "events"), 0);
		if (args->follow)
			rc = follow(args, last, e);
	}
	rpc_free(&answer);
	return rc;
}
