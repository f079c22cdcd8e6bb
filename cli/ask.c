/* SPDX-License-Identifier: Apache-2.0
 * Whom to ask, and what every answer needs for being shown. */
#include "cli/command.h"

#include "cli/size.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_USUAL (30 * USEC_PER_SEC)

/* ---- whom ---- */

static int set_path(char *ret, size_t size, const char *folder, const char *value, struct err *e)
{
	int n = value[0] == '/' ? snprintf(ret, size, "%s", value) : snprintf(ret, size, "%s/%s", folder, value);

	return n > 0 && (size_t)n < size ? 0 : err_set(e, PROTO_E_INVALID, "a path in the context file is too long");
}

static int context_line(struct rpc_target *t, const char *folder, char *line, struct err *e)
{
	char *value = strchr(line, '=');

	if (line[0] == '\0' || line[0] == '#' || line[0] == ';' || line[0] == '[')
		return 0;
	if (!value)
		return err_set(e, PROTO_E_INVALID, "the context file has a line without '=': %.60s", line);
	*value++ = '\0';
	if (strcmp(line, "address") == 0)
		return snprintf(t->address, sizeof t->address, "%s", value) < (int)sizeof t->address
			       ? 0
			       : err_set(e, PROTO_E_INVALID, "the address in the context file is too long");
	if (strcmp(line, "ca") == 0)
		return set_path(t->ca, sizeof t->ca, folder, value, e);
	if (strcmp(line, "cert") == 0)
		return set_path(t->cert, sizeof t->cert, folder, value, e);
	if (strcmp(line, "key") == 0)
		return set_path(t->key, sizeof t->key, folder, value, e);
	return err_set(e, PROTO_E_INVALID, "the context file knows address, ca, cert and key, not '%.40s'", line);
}

/* Lines KEY=VALUE; paths are relative to the file. */
static int read_context(const char *path, struct rpc_target *t, struct err *e)
{
	char copy[PATH_MAX], *line, *save = NULL;
	struct buf text = {0};
	int rc = file_read(path, CONF_BYTES_MAX, &text, e);

	if (rc < 0)
		return rc;
	buf_append(&text, "", 1);
	(void)snprintf(copy, sizeof copy, "%s", path);
	for (line = strtok_r((char *)text.data, "\n", &save); rc == 0 && line; line = strtok_r(NULL, "\n", &save))
		rc = context_line(t, dirname(copy), line, e);
	buf_free(&text);
	if (rc == 0 && (!t->address[0] || !t->ca[0] || !t->cert[0] || !t->key[0]))
		rc = err_set(e, PROTO_E_INVALID, "the context file %s must have address, ca, cert and key", path);
	return rc;
}

static int find_target(const struct args *args, struct rpc_target *t, struct err *e)
{
	const char *dir = args->dir ? args->dir : getenv("KEDGE_DIR");

	if (args->context)
		return read_context(args->context, t, e);
	if (!dir)
		return err_set(e, PROTO_E_INVALID,
			       "whom to ask? Set KEDGE_DIR to a node's folder, or give --dir DIR or "
			       "--context FILE");
	if (snprintf(t->dir, sizeof t->dir, "%s", dir) >= (int)sizeof t->dir)
		return err_set(e, PROTO_E_INVALID, "the path of the node's folder is too long");
	(void)snprintf(t->sock, sizeof t->sock, "%s/run/ctl.sock", t->dir);
	return 0;
}

/* ---- asking ---- */

void ask_begin(struct pack *p, struct buf *params)
{
	*p = (struct pack){.out = params};
	pack_map(p);
}

static int ask(const struct args *args, const char *method, struct pack *p, struct rpc_answer *ret, struct err *e)
{
	struct rpc_target target = {0};
	uint64_t seconds = TIMEOUT_USUAL / USEC_PER_SEC;
	int rc;

	pack_end(p);
	if (args->timeout && !duration_parse(args->timeout, &seconds) && !size_parse(args->timeout, &seconds))
		return err_set(e, PROTO_E_INVALID, "--timeout: '%s' is no time such as 10s", args->timeout);
	rc = find_target(args, &target, e);
	if (rc == 0)
		rc = rpc_call(&target, method, p->out, seconds * USEC_PER_SEC, ret, e);
	buf_free(p->out);
	return rc;
}

int ask_connect(const struct args *args, struct net_client **ret, struct err *e)
{
	struct rpc_target target = {0};
	int rc = find_target(args, &target, e);

	return rc < 0 ? rc : rpc_connect(&target, clock_boottime() + TIMEOUT_USUAL, ret, e);
}

int ask_read(const struct args *args, const char *method, struct pack *p, struct rpc_answer *ret, struct err *e)
{
	pack_kv_bool(p, "stale", args->stale);
	return ask(args, method, p, ret, e);
}

int ask_change(const struct args *args, const char *method, struct pack *p, struct rpc_answer *ret, struct err *e)
{
	pack_kv_u64(p, "session", random_u64());
	pack_kv_u64(p, "num", 1);
	return ask(args, method, p, ret, e);
}

/* ---- showing ---- */

void print_json(const struct msgpack_object *o, int indent)
{
	struct buf text = {0};

	unpack_json(o, indent, &text);
	(void)printf("%.*s\n", (int)text.len, (const char *)text.data);
	buf_free(&text);
}

const char *text_of(const struct msgpack_object *map, const char *key, char *ret, size_t size)
{
	ret[0] = '\0';
	(void)unpack_str(unpack_key(map, key), ret, size);
	return ret;
}

uint64_t number_of(const struct msgpack_object *map, const char *key)
{
	uint64_t v = 0;

	(void)unpack_u64(unpack_key(map, key), &v);
	return v;
}

bool flag_of(const struct msgpack_object *map, const char *key)
{
	bool v = false;

	(void)unpack_bool(unpack_key(map, key), &v);
	return v;
}

void table_begin(struct table *t, size_t columns, const char *const *titles)
{
	CHECK(columns > 0 && columns <= TABLE_COLUMNS_MAX);
	*t = (struct table){.columns = columns};
	for (size_t i = 0; i < columns; i++)
		table_cell(t, "%s", titles[i]);
}

void table_cell(struct table *t, const char *fmt, ...)
{
	va_list ap;

	if (t->at == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 64;
		t->cells = xrealloc(t->cells, t->cap * sizeof *t->cells);
	}
	va_start(ap, fmt);
	(void)vsnprintf(t->cells[t->at++], CELL_BYTES, fmt, ap);
	va_end(ap);
}

void table_print(struct table *t, const char *indent)
{
	size_t widths[TABLE_COLUMNS_MAX] = {0};

	CHECK(t->at % t->columns == 0);
	for (size_t i = 0; i < t->at; i++)
		if (strlen(t->cells[i]) > widths[i % t->columns])
			widths[i % t->columns] = strlen(t->cells[i]);
	for (size_t i = 0; i < t->at; i++) {
		bool is_last = i % t->columns == t->columns - 1;

		(void)printf("%s%-*s%s", i % t->columns ? "  " : indent, is_last ? 0 : (int)widths[i % t->columns],
			     t->cells[i], is_last ? "\n" : "");
	}
	free(t->cells);
	*t = (struct table){0};
}
