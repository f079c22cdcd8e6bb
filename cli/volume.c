/* SPDX-License-Identifier: Apache-2.0
 * The commands about volumes. */
#include "cli/command.h"

#include "cli/size.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOOK_EVERY (200 * USEC_PER_MS)
#define BEGIN_MAX  (10 * USEC_PER_SEC) /* until the primary's engine has begun */

static void describe_replica(const struct msgpack_object *r, struct buf *ret)
{
	char node[NAME_BYTES_MAX], state[16], size[32];
	uint64_t behind = number_of(r, "behind_bytes"), left = number_of(r, "seconds_left");

	buf_printf(ret, "%s%s", text_of(r, "node", node, sizeof node), flag_of(r, "primary") ? "*" : "");
	if (strcmp(text_of(r, "state", state, sizeof state), "in-sync") == 0)
		return;
	buf_printf(ret, " (%s", flag_of(r, "lost_power") ? "lost power" : state);
	if (behind) {
		size_format(behind, size, sizeof size);
		buf_printf(ret, ", %s behind", size);
	}
	if (left)
		buf_printf(ret, ", %llu s", (unsigned long long)left);
	buf_printf(ret, ")");
}

void describe_replicas(const struct msgpack_object *replicas, struct buf *ret)
{
	for (size_t i = 0; i < unpack_count(replicas); i++) {
		if (i > 0)
			buf_printf(ret, ", ");
		describe_replica(unpack_at(replicas, i), ret);
	}
	buf_append(ret, "", 1);
}

static void add_row(struct table *t, const struct msgpack_object *v)
{
	char text[CELL_BYTES], size[32];
	struct buf list = {0};

	size_format(number_of(v, "size"), size, sizeof size);
	describe_replicas(unpack_key(v, "replicas"), &list);
	table_cell(t, "%s", text_of(v, "name", text, sizeof text));
	table_cell(t, "%s", size);
	table_cell(t, "%s%s",
		   text_of(v, flag_of(v, "exported") ? "export_node" : "vm", text, sizeof text)[0] ? text : "-",
		   flag_of(v, "exported") ? " (export)" : "");
	table_cell(t, "%.190s", (char *)list.data);
	table_cell(t, "%s", text_of(v, "problem", text, sizeof text));
	buf_free(&list);
}

void print_volumes(const struct msgpack_object *volumes, const char *indent)
{
	static const char *const titles[] = {"VOLUME", "SIZE", "USED BY", "REPLICAS (* PRIMARY)", "PROBLEM"};
	struct table t;

	if (unpack_count(volumes) == 0) {
		(void)printf("%sno volumes yet: kedge apply --help\n", indent);
		return;
	}
	table_begin(&t, ARRAY_LEN(titles), titles);
	for (size_t i = 0; i < unpack_count(volumes); i++)
		add_row(&t, unpack_at(volumes, i));
	table_print(&t, indent);
}

int command_volume_ls(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	int rc = ask_and_maybe_print(args, "volume.list", &answer, e);

	if (rc > 0)
		print_volumes(unpack_key(answer.result, "volumes"), "");
	rpc_free(&answer);
	return rc < 0 ? rc : 0;
}

int command_volume_show(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	int rc = ask_and_maybe_print(args, "volume.show", &answer, e);

	if (rc > 0)
		print_fields(unpack_key(answer.result, "volume"));
	rpc_free(&answer);
	return rc < 0 ? rc : 0;
}

/* ---- exports ---- */

static int change(const struct args *args, const char *method, const char *done, struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	pack_kv_str(&p, "name", args->words[0]);
	if (args->node)
		pack_kv_str(&p, "node", args->node);
	rc = ask_change(args, method, &p, &answer, e);
	if (rc == 0 && args->json)
		print_json(answer.result, 2);
	else if (rc == 0)
		(void)printf("volume %s: %s%s\n", args->words[0], done, args->node ? args->node : "");
	rpc_free(&answer);
	return rc;
}

int command_volume_export(const struct args *args, struct err *e)
{
	if (!args->node)
		return err_set(e, PROTO_E_INVALID, "volume export: --node NODE is missing");
	return change(args, "volume.export", "is exported on ", e);
}

int command_volume_unexport(const struct args *args, struct err *e)
{
	return change(args, "volume.unexport", "is not exported any more", e);
}

/* ---- resync ---- */

static void pause_for(usec_t usec)
{
	struct timespec t = {.tv_nsec = (long)usec * 1000};

	(void)nanosleep(&t, NULL);
}

static unsigned count_in_sync(const struct msgpack_object *replicas)
{
	unsigned n = 0;
	char state[16];

	for (size_t i = 0; i < unpack_count(replicas); i++)
		n += strcmp(text_of(unpack_at(replicas, i), "state", state, sizeof state), "in-sync") == 0;
	return n;
}

/* One look; true: nothing is left to wait for. */
static bool show_resync(const struct args *args, const struct msgpack_object *v)
{
	const struct msgpack_object *replicas = unpack_key(v, "replicas");
	bool done = count_in_sync(replicas) >= number_of(v, "replicas_wanted");
	struct buf list = {0};

	describe_replicas(replicas, &list);
	if (!args->json && (done || isatty(STDOUT_FILENO)))
		(void)printf("%s%s: %s%s", isatty(STDOUT_FILENO) ? "\r\033[K" : "", args->words[0], (char *)list.data,
			     done ? "\n" : "");
	(void)fflush(stdout);
	buf_free(&list);
	return done;
}

int command_volume_resync(const struct args *args, struct err *e)
{
	bool done = false;
	int rc = 0;

	while (rc == 0 && !done) {
		struct rpc_answer answer = {0};
		struct buf params = {0};
		struct pack p;

		ask_begin(&p, &params);
		pack_kv_str(&p, "name", args->words[0]);
		rc = ask_read(args, "volume.show", &p, &answer, e);
		if (rc == 0)
			done = show_resync(args, unpack_key(answer.result, "volume"));
		if (done && args->json)
			print_json(answer.result, 2);
		rpc_free(&answer);
		if (!done)
			pause_for(LOOK_EVERY);
	}
	return rc;
}

/* ---- verify ---- */

struct scrub {
	bool running;
	uint64_t passes, bad, at, size;
};

static int look(const struct args *args, const char *method, struct scrub *ret, struct err *e)
{
	struct rpc_answer answer = {0};
	const struct msgpack_object *volume, *scrub;
	struct buf params = {0};
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	pack_kv_str(&p, "name", args->words[0]);
	pack_kv_bool(&p, "primary_wins", args->primary_wins);
	rc = ask_read(args, method, &p, &answer, e);
	volume = rc < 0 ? NULL : unpack_key(answer.result, "volume");
	scrub = volume ? unpack_key(volume, "scrub") : NULL;
	if (rc == 0 && !scrub)
		rc = err_set(e, PROTO_E_CONFLICT, "volume %s: no node leads it now (kedge volume show %s)",
			     args->words[0], args->words[0]);
	if (rc == 0)
		*ret = (struct scrub){.running = flag_of(scrub, "running"),
				      .passes = number_of(scrub, "passes"),
				      .bad = number_of(scrub, "bad_blocks"),
				      .at = number_of(scrub, "at_bytes"),
				      .size = number_of(volume, "size")};
	rpc_free(&answer);
	return rc;
}

/* The request may be lost between two nodes: it is said again until the pass is seen. */
static int wait_for_pass(const struct args *args, struct scrub *s, struct err *e)
{
	uint64_t before = s->passes;
	usec_t begun = clock_boottime();
	bool seen = s->running;
	int rc = 0;

	while (rc == 0 && (s->passes == before || s->running)) {
		pause_for(LOOK_EVERY);
		rc = look(args, seen ? "volume.show" : "volume.verify", s, e);
		seen |= s->running || s->passes != before;
		if (rc == 0 && !seen && clock_boottime() - begun > BEGIN_MAX)
			return err_set(e, PROTO_E_CONFLICT, "volume %s: its primary does not begin", args->words[0]);
		if (s->running && isatty(STDERR_FILENO) && s->size)
			(void)fprintf(stderr, "\r%3llu %% ", (unsigned long long)(s->at * 100 / s->size));
	}
	return rc;
}

int command_volume_verify(const struct args *args, struct err *e)
{
	struct scrub s;
	int rc = look(args, "volume.show", &s, e);

	if (rc == 0)
		rc = wait_for_pass(args, &s, e);
	if (rc < 0)
		return rc;
	if (args->json)
		(void)printf("{\"bad_blocks\": %llu}\n", (unsigned long long)s.bad);
	else if (s.bad == 0)
		(void)printf("volume %s: all replicas are the same\n", args->words[0]);
	else
		(void)printf("volume %s: %llu blocks were wrong, lost or undecidable: see the log of its primary\n",
			     args->words[0], (unsigned long long)s.bad);
	return 0;
}
