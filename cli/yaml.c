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

#define DOCUMENTS_MAX    256
#define PRIORITY_MAX     1000
#define DEPTH_MAX        16  /* libyaml's time grows with the square of the depth, */
#define ANCHORS_MAX      64  /* and with that of the number of a document's anchors */
#define DIRECTIVES_MAX   64  /* and of its directives */
#define FILE_BYTES_SHOWN 120 /* of the file's name: struct err has room for all and a reason */

struct reader {
	const char *file;
	const char *folder;
	const struct buf *text;
	yaml_document_t *doc;
	struct err *e;
	struct yaml_vm *vms;
	size_t n;
};

/* ---- mistakes ---- */

/* What a file says can hold anything; what is told of it is one line. */
static int mistake_at(const struct reader *r, size_t line, size_t column, const char *what)
{
	size_t n = strlen(r->file);
	bool is_long = n > FILE_BYTES_SHOWN;

	(void)err_set(r->e, -EINVAL, "%s%s:%zu:%zu: %s", is_long ? "..." : "",
		      is_long ? r->file + n - FILE_BYTES_SHOWN : r->file, line + 1, column + 1, what);
	if (r->e)
		for (char *c = r->e->text; *c; c++)
			if ((unsigned char)*c < ' ' || *c == 0x7f)
				*c = '?';
	return -EINVAL;
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

/* NULL for what is no text, and for "a\0b", which would be read as "a". */
static const char *scalar(const yaml_node_t *node)
{
	const char *text = node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;

	return text && strlen(text) == node->data.scalar.length ? text : NULL;
}

/* libvirt's XML holds no others. */
static bool has_control_characters(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' && *text != '\t' && *text != '\n')
			return true;
	return false;
}

typedef int (*setter)(struct reader *r, const yaml_node_t *value, struct yaml_vm *vm);

static int set_text(struct reader *r, const yaml_node_t *value, const char *what, char *ret, size_t size)
{
	if (!scalar(value))
		return mistake(r, value, "%s must be a text", what);
	if (value->data.scalar.length >= size)
		return mistake(r, value, "%s is longer than %zu bytes", what, size - 1);
	if (has_control_characters(scalar(value)))
		return mistake(r, value, "%s must not hold control characters", what);
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
	if (!scalar(value) || !size_parse(scalar(value), &vm->memory_bytes))
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

/* Levenshtein's distance, for names of at most 31 letters: all others are far away. */
static unsigned distance(const char *a, const char *b)
{
	size_t n = strlen(b);
	unsigned row[32];

	if (n >= ARRAY_LEN(row) || strlen(a) >= ARRAY_LEN(row))
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

/* ---- the text ---- */

/* libyaml counts only bytes where bytes are what is wrong. */
static int mistake_at_byte(const struct reader *r, size_t offset, const char *what)
{
	size_t line = 0, column = 0;

	for (size_t i = 0; i < offset && i < r->text->len; i++) {
		bool is_inside_a_character = (r->text->data[i] & 0xc0) == 0x80;

		column += !is_inside_a_character;
		if (r->text->data[i] == '\n') {
			line++;
			column = 0;
		}
	}
	return mistake_at(r, line, column, what);
}

static int parser_mistake(const struct reader *r, const yaml_parser_t *p)
{
	char text[200];

	(void)snprintf(text, sizeof text, "this is no YAML: %s%s%s", p->context ? p->context : "",
		       p->context ? ", " : "", p->problem ? p->problem : "out of memory");
	if (p->error == YAML_READER_ERROR)
		return mistake_at_byte(r, p->problem_offset, text);
	return mistake_at(r, p->problem_mark.line, p->problem_mark.column, text);
}

static bool open_parser(const struct reader *r, yaml_parser_t *ret)
{
	if (!yaml_parser_initialize(ret))
		return false;
	yaml_parser_set_input_string(ret, r->text->data ? r->text->data : (const uint8_t *)"", r->text->len);
	return true;
}

struct shape {
	size_t depth;
	size_t anchors; /* of this document */
	bool is_over;
};

static bool has_anchor(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return event->data.scalar.anchor != NULL;
	case YAML_SEQUENCE_START_EVENT:
		return event->data.sequence_start.anchor != NULL;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.anchor != NULL;
	default:
		return false;
	}
}

static int add_to_shape(const struct reader *r, const yaml_event_t *event, struct shape *shape)
{
	char text[100];

	if (event->type == YAML_DOCUMENT_START_EVENT)
		shape->anchors = 0;
	if (event->type == YAML_SEQUENCE_START_EVENT || event->type == YAML_MAPPING_START_EVENT)
		shape->depth++;
	if (event->type == YAML_SEQUENCE_END_EVENT || event->type == YAML_MAPPING_END_EVENT)
		shape->depth--;
	shape->anchors += has_anchor(event);
	shape->is_over = event->type == YAML_STREAM_END_EVENT;
	if (shape->depth > DEPTH_MAX)
		(void)snprintf(text, sizeof text, "nested deeper than %d", DEPTH_MAX);
	else if (shape->anchors > ANCHORS_MAX)
		(void)snprintf(text, sizeof text, "more than %d anchors: write the values out", ANCHORS_MAX);
	else
		return 0;
	return mistake_at(r, event->start_mark.line, event->start_mark.column, text);
}

static int check_directives(const struct reader *r)
{
	const uint8_t *at = r->text->data;
	size_t left = r->text->len, n = 0;
	char text[60];

	for (size_t line = 0; left > 0; line++) {
		const uint8_t *end = memchr(at, '\n', left);

		n += *at == '%';
		if (n > DIRECTIVES_MAX) {
			(void)snprintf(text, sizeof text, "more than %d directives", DIRECTIVES_MAX);
			return mistake_at(r, line, 0, text);
		}
		left -= end ? (size_t)(end - at) + 1 : left;
		at = end ? end + 1 : at;
	}
	return 0;
}

/* Before anything is loaded: what would take libyaml minutes ends here at the first level that is too deep. */
static int check_shape(const struct reader *r)
{
	struct shape shape = {0};
	yaml_parser_t parser;
	int rc = check_directives(r);

	if (rc < 0)
		return rc;
	if (!open_parser(r, &parser))
		return err_set(r->e, -ENOMEM, "%.200s: out of memory", r->file);
	while (rc == 0 && !shape.is_over) {
		yaml_event_t event;

		if (!yaml_parser_parse(&parser, &event)) {
			rc = parser_mistake(r, &parser);
			break;
		}
		rc = add_to_shape(r, &event, &shape);
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	return rc;
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

static int read_documents(struct reader *r)
{
	yaml_parser_t parser;
	int rc;

	if (!open_parser(r, &parser))
		return err_set(r->e, -ENOMEM, "%.200s: out of memory", r->file);
	do
		rc = next_document(r, &parser);
	while (rc > 0);
	yaml_parser_delete(&parser);
	if (rc == 0 && r->n == 0)
		rc = mistake_at(r, 0, 0, "there is no document in this file");
	return rc;
}

int yaml_read(const char *file, const char *folder, const struct buf *text, struct yaml_vm **ret, size_t *ret_n,
	      struct err *e)
{
	struct reader r = {.file = file, .folder = folder, .text = text, .e = e};
	int rc = check_shape(&r);

	if (rc == 0)
		rc = read_documents(&r);
	if (rc < 0) {
		free(r.vms);
		return rc;
	}
	*ret = r.vms;
	*ret_n = r.n;
	return 0;
}
