/* SPDX-License-Identifier: Apache-2.0
 * Resource files, by libyaml's document tree: every node has its line and column, so every mistake has a place. */
#include "cli/yaml.h"

#include "cli/size.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#define DOCUMENTS_MAX 256
#define PRIORITY_MAX  1000

struct reader {
	const char *file;
	const char *folder;
	yaml_document_t *doc;
	struct err *e;
	struct yaml_vm *vms;
	size_t n;
};

/* ---- mistakes ---- */

static int mistake_at(const struct reader *r, size_t line, size_t column, const char *what)
{
	return err_set(r->e, -EINVAL, "%s:%zu:%zu: %s", r->file, line + 1, column + 1, what);
}

static int mistake(const struct reader *r, const yaml_node_t *node, const char *fmt, ...) KEDGE_PRINTF(3, 4);

static int mistake(const struct reader *r, const yaml_node_t *node, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return mistake_at(r, node->start_mark.line, node->start_mark.column, text);
}

/* ---- values ---- */

static const char *scalar(const yaml_node_t *node)
{
	return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static bool is_whole_text(const yaml_node_t *node)
{
	const char *text = scalar(node);

	return text && strlen(text) == node->data.scalar.length;
}

typedef int (*setter)(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm);

static int set_text(struct reader *r, const yaml_node_t *value, const char *what, char *ret, size_t size)
{
	if (!is_whole_text(value))
		return mistake(r, value, "%s must be a text", what);
	if (value->data.scalar.length >= size)
		return mistake(r, value, "%s is longer than %zu bytes", what, size - 1);
	memcpy(ret, value->data.scalar.value, value->data.scalar.length + 1);
	return 0;
}

static int set_kind(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	const char *kind = scalar(value);

	(void)vm;
	if (kind && strcmp(kind, "volume") == 0)
		return mistake(r, value, "kind volume: this release has no volumes yet");
	if (!kind || strcmp(kind, "vm") != 0)
		return mistake(r, value, "there is no kind '%.40s': expected vm", kind ? kind : "");
	return 0;
}

static int set_name(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	int rc = set_text(r, value, "a name", vm->name, sizeof vm->name);

	if (rc < 0)
		return rc;
	if (!name_is_valid(vm->name))
		return mistake(r, value,
			       "'%s' is no name: letters, digits, '.', '_' and '-', beginning with a letter "
			       "or digit",
			       vm->name);
	return 0;
}

static bool number(const yaml_node_t *value, uint64_t max, uint32_t *ret)
{
	const char *text = scalar(value);
	unsigned long long v;
	char *end;

	if (!text || !isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno || *end || v > max)
		return false;
	*ret = (uint32_t)v;
	return true;
}

static int set_vcpus(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	if (!number(value, VCPUS_MAX, &vm->vcpus) || vm->vcpus == 0)
		return mistake(r, value, "vcpus must be a number from 1 to %d", VCPUS_MAX);
	return 0;
}

static int set_memory(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	if (!is_whole_text(value) || !size_parse(scalar(value), &vm->memory_bytes))
		return mistake(r, value, "memory must be a size such as 512MiB or 4GiB");
	if (vm->memory_bytes < MEMORY_BYTES_MIN || vm->memory_bytes > MEMORY_BYTES_MAX)
		return mistake(r, value, "memory must be from %llu MiB to %llu TiB", MEMORY_BYTES_MIN >> 20,
			       MEMORY_BYTES_MAX >> 40);
	return 0;
}

static int set_run(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	const char *text = scalar(value);

	if (text && (strcmp(text, "true") == 0 || strcmp(text, "yes") == 0))
		vm->run = true;
	else if (text && (strcmp(text, "false") == 0 || strcmp(text, "no") == 0))
		vm->run = false;
	else
		return mistake(r, value, "run must be true or false");
	return 0;
}

/* Relative to the file that it stands in. */
static int set_path(struct reader *r, const yaml_node_t *value, const char *what, char ret[PATH_BYTES_MAX])
{
	char text[PATH_BYTES_MAX];
	int rc = set_text(r, value, what, text, sizeof text);

	if (rc < 0)
		return rc;
	if (text[0] == '\0')
		return mistake(r, value, "%s must not be empty", what);
	if (snprintf(ret, PATH_BYTES_MAX, "%s%s%s", text[0] == '/' ? "" : r->folder, text[0] == '/' ? "" : "/",
		     strncmp(text, "./", 2) == 0 ? text + 2 : text) >= PATH_BYTES_MAX)
		return mistake(r, value, "%s: the whole path is longer than %d bytes", what, PATH_BYTES_MAX - 1);
	return 0;
}

static int set_kernel(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	return set_path(r, value, "kernel", vm->kernel);
}

static int set_initrd(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	return set_path(r, value, "initrd", vm->initrd);
}

static int set_cmdline(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	return set_text(r, value, "cmdline", vm->cmdline, sizeof vm->cmdline);
}

static int set_priority(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	if (!number(value, PRIORITY_MAX, &vm->priority))
		return mistake(r, value, "priority must be a number from 0 to %d", PRIORITY_MAX);
	return 0;
}

static int set_later(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	(void)vm;
	return mistake(r, value, "this release does not know that part of a VM yet");
}

/* ---- mappings ---- */

struct key {
	const char *name;
	setter set;
	bool required;
};

static int set_boot(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm);
static int set_ha(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm);

static const struct key vm_keys[] = {
	{"kind", set_kind, true},        {"name", set_name, true},    {"vcpus", set_vcpus, false},
	{"memory", set_memory, true},    {"run", set_run, false},     {"boot", set_boot, false},
	{"ha", set_ha, false},           {"disks", set_later, false}, {"networks", set_later, false},
	{"placement", set_later, false},
};
static const struct key boot_keys[] = {
	{"kernel", set_kernel, true}, {"initrd", set_initrd, false}, {"cmdline", set_cmdline, false}};
static const struct key ha_keys[] = {
	{"priority", set_priority, false}, {"on-quorum-loss", set_later, false}, {"after", set_later, false}};

/* Levenshtein's distance, for names of at most 31 letters. */
static unsigned distance(const char *a, const char *b)
{
	size_t n = strlen(b);
	unsigned row[32];

	if (n >= ARRAY_LEN(row))
		return UINT_MAX;
	for (size_t j = 0; j <= n; j++)
		row[j] = (unsigned)j;
	for (; *a; a++) {
		unsigned corner = row[0]++;

		for (size_t j = 1; j <= n; j++) {
			unsigned best = corner + (*a != b[j - 1]);

			corner = row[j];
			best = row[j] + 1 < best ? row[j] + 1 : best;
			row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
		}
	}
	return row[n];
}

static int unknown_key(const struct reader *r, const yaml_node_t *key, const struct key *keys, size_t n)
{
	const char *text = scalar(key), *nearest = keys[0].name;

	if (!text)
		return mistake(r, key, "a key must be a word");
	for (size_t i = 1; i < n; i++)
		if (distance(text, keys[i].name) < distance(text, nearest))
			nearest = keys[i].name;
	if (distance(text, nearest) <= 3)
		return mistake(r, key, "there is no key '%.40s' here: is '%s' meant?", text, nearest);
	return mistake(r, key, "there is no key '%.40s' here", text);
}

static size_t find_key(const yaml_node_t *key, const struct key *keys, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (scalar(key) && strcmp(scalar(key), keys[i].name) == 0)
			return i;
	return n;
}

static int read_pair(struct reader *r, const yaml_node_pair_t *pair, const struct key *keys, size_t n, uint32_t *seen,
		     struct yaml_vm *vm)
{
	const yaml_node_t *key = yaml_document_get_node(r->doc, pair->key);
	const yaml_node_t *value = yaml_document_get_node(r->doc, pair->value);
	size_t i = find_key(key, keys, n);

	if (i == n)
		return unknown_key(r, key, keys, n);
	if (*seen & 1u << i)
		return mistake(r, key, "the key '%s' stands here twice", keys[i].name);
	*seen |= 1u << i;
	return keys[i].set(r, value, vm);
}

static int read_mapping(struct reader *r, const yaml_node_t *node, const char *what, const struct key *keys, size_t n,
			struct yaml_vm *vm)
{
	uint32_t seen = 0;

	if (node->type != YAML_MAPPING_NODE)
		return mistake(r, node, "%s must be a mapping of keys to values", what);
	for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
		int rc = read_pair(r, p, keys, n, &seen, vm);

		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; i < n; i++)
		if (keys[i].required && !(seen & 1u << i))
			return mistake(r, node, "%s needs the key '%s'", what, keys[i].name);
	return 0;
}

static int set_boot(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	return read_mapping(r, value, "boot", boot_keys, ARRAY_LEN(boot_keys), vm);
}

static int set_ha(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm)
{
	return read_mapping(r, value, "ha", ha_keys, ARRAY_LEN(ha_keys), vm);
}

/* ---- a document as a whole ---- */

/* The value at @key, for the place of a mistake. */
static const yaml_node_t *value_of(const struct reader *r, const yaml_node_t *node, const char *key)
{
	if (node->type == YAML_MAPPING_NODE)
		for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
			const yaml_node_t *k = yaml_document_get_node(r->doc, p->key);

			if (scalar(k) && strcmp(scalar(k), key) == 0)
				return yaml_document_get_node(r->doc, p->value);
		}
	return node;
}

static int check_file(const struct reader *r, const yaml_node_t *place, const char *what, const char *path)
{
	struct stat st;

	if (path[0] == '\0')
		return 0;
	if (stat(path, &st) < 0 || access(path, R_OK) < 0)
		return mistake(r, place, "%s '%.200s': %s (a running VM needs it on every node)", what, path,
			       strerror(errno));
	if (!S_ISREG(st.st_mode))
		return mistake(r, place, "%s '%.200s' is no regular file", what, path);
	return 0;
}

static int check_whole(struct reader *r, const yaml_node_t *root, const struct yaml_vm *vm)
{
	const yaml_node_t *boot = value_of(r, root, "boot");
	int rc = 0;

	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->vms[i].name, vm->name) == 0)
			return mistake(r, value_of(r, root, "name"), "vm '%s' stands in this file twice", vm->name);
	if (!vm->run)
		return 0;
	if (vm->kernel[0] == '\0')
		return mistake(r, root, "a VM that runs needs boot.kernel (or run: false)");
	rc = check_file(r, value_of(r, boot, "kernel"), "kernel", vm->kernel);
	if (rc == 0)
		rc = check_file(r, value_of(r, boot, "initrd"), "initrd", vm->initrd);
	return rc;
}

static int read_document(struct reader *r, const yaml_node_t *root)
{
	struct yaml_vm vm = {.vcpus = 1, .run = true, .priority = 100};
	int rc = read_mapping(r, root, "a document", vm_keys, ARRAY_LEN(vm_keys), &vm);

	if (rc == 0)
		rc = check_whole(r, root, &vm);
	if (rc < 0)
		return rc;
	if (r->n == DOCUMENTS_MAX)
		return mistake(r, root, "more than %d documents: split the file", DOCUMENTS_MAX);
	(void)snprintf(vm.where, sizeof vm.where, "%.900s:%zu:%zu", r->file, root->start_mark.line + 1,
		       root->start_mark.column + 1);
	r->vms = xrealloc(r->vms, (r->n + 1) * sizeof *r->vms);
	r->vms[r->n++] = vm;
	return 0;
}

static int parser_mistake(const struct reader *r, const yaml_parser_t *p)
{
	char text[200];

	(void)snprintf(text, sizeof text, "this is no YAML: %s", p->problem ? p->problem : "out of memory");
	return mistake_at(r, p->problem_mark.line, p->problem_mark.column, text);
}

/* 1: there may be more. */
static int next_document(struct reader *r, yaml_parser_t *parser)
{
	yaml_document_t doc;
	yaml_node_t *root;
	int rc = 1;

	if (!yaml_parser_load(parser, &doc))
		return parser_mistake(r, parser);
	r->doc = &doc;
	root = yaml_document_get_root_node(&doc);
	if (!root)
		rc = 0;
	else if (read_document(r, root) < 0)
		rc = -EINVAL;
	yaml_document_delete(&doc);
	return rc;
}

int yaml_read(const char *file, const char *folder, const struct buf *text, struct yaml_vm **ret, size_t *ret_n,
	      struct err *e)
{
	struct reader r = {.file = file, .folder = folder, .e = e};
	yaml_parser_t parser;
	int rc;

	if (!yaml_parser_initialize(&parser))
		return err_set(e, -ENOMEM, "%s: out of memory", file);
	yaml_parser_set_input_string(&parser, text->data, text->len);
	do
		rc = next_document(&r, &parser);
	while (rc > 0);
	yaml_parser_delete(&parser);
	if (rc == 0 && r.n == 0)
		rc = mistake_at(&r, 0, 0, "there is no document in this file");
	if (rc < 0) {
		free(r.vms);
		return rc;
	}
	*ret = r.vms;
	*ret_n = r.n;
	return 0;
}
