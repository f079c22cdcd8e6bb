/* SPDX-License-Identifier: Apache-2.0
 * Documents of resource files, by libyaml's tree: every node has its line and column, so every mistake has a place. */
#include "cli/yaml_internal.h"

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

#define DOCUMENTS_MAX    256
#define PRIORITY_MAX     1000
#define SECTOR_BYTES     4096
#define VOLUME_BYTES_MAX (64ULL << 40)
#define FILE_BYTES_SHOWN 120 /* of the file's name: struct err has room for all and a reason */

/* ---- mistakes ---- */

/* What a file says can hold anything; what is told of it is one line. */
int yaml_mistake_at(const struct reader *r, size_t line, size_t column, const char *what)
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
	return yaml_mistake_at(r, node->start_mark.line, node->start_mark.column, text);
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

typedef int (*setter)(struct reader *r, const yaml_node_t *value, struct yaml_document *doc);

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

static int set_kind(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	const char *kind = scalar(value);

	doc->is_volume = kind && strcmp(kind, "volume") == 0;
	if (!doc->is_volume && (!kind || strcmp(kind, "vm") != 0))
		return mistake(r, value, "there is no kind '%.40s': expected vm or volume", kind ? kind : "");
	return 0;
}

static int set_name(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	int rc = set_text(r, value, "a name", doc->name, sizeof doc->name);

	if (rc < 0)
		return rc;
	if (!name_is_valid(doc->name))
		return mistake(r, value,
			       "'%s' is no name: letters, digits, '.', '_' and '-', beginning with a letter "
			       "or digit",
			       doc->name);
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

static int set_vcpus(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	if (!number(value, VCPUS_MAX, &doc->vcpus) || doc->vcpus == 0)
		return mistake(r, value, "vcpus must be a number from 1 to %d", VCPUS_MAX);
	return 0;
}

static int set_memory(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	if (!scalar(value) || !size_parse(scalar(value), &doc->memory_bytes))
		return mistake(r, value, "memory must be a size such as 512MiB or 4GiB");
	if (doc->memory_bytes < MEMORY_BYTES_MIN || doc->memory_bytes > MEMORY_BYTES_MAX)
		return mistake(r, value, "memory must be from %llu MiB to %llu TiB", MEMORY_BYTES_MIN >> 20,
			       MEMORY_BYTES_MAX >> 40);
	return 0;
}

static int set_run(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	const char *text = scalar(value);

	if (text && (strcmp(text, "true") == 0 || strcmp(text, "yes") == 0))
		doc->run = true;
	else if (text && (strcmp(text, "false") == 0 || strcmp(text, "no") == 0))
		doc->run = false;
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

static int set_kernel(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_path(r, value, "kernel", doc->kernel);
}

static int set_initrd(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_path(r, value, "initrd", doc->initrd);
}

static int set_cmdline(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_text(r, value, "cmdline", doc->cmdline, sizeof doc->cmdline);
}

static int set_priority(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	if (!number(value, PRIORITY_MAX, &doc->priority))
		return mistake(r, value, "priority must be a number from 0 to %d", PRIORITY_MAX);
	return 0;
}

static int set_bytes(struct reader *r, const yaml_node_t *value, uint64_t *ret)
{
	if (!scalar(value) || !size_parse(scalar(value), ret))
		return mistake(r, value, "size must be a size such as 512MiB or 4GiB");
	if (*ret == 0 || *ret % SECTOR_BYTES || *ret > VOLUME_BYTES_MAX)
		return mistake(r, value, "size must be a multiple of 4 KiB, at most 64 TiB");
	return 0;
}

static int set_replica_count(struct reader *r, const yaml_node_t *value, uint32_t *ret)
{
	if (!number(value, REPLICAS_MAX, ret) || *ret == 0)
		return mistake(r, value, "replicas must be a number from 1 to %d", REPLICAS_MAX);
	return 0;
}

static int set_node_names(struct reader *r, const yaml_node_t *value, struct yaml_volume *ret)
{
	if (value->type != YAML_SEQUENCE_NODE)
		return mistake(r, value, "nodes must be a list of names, as in [n1, n2]");
	ret->has_nodes = true;
	for (yaml_node_item_t *i = value->data.sequence.items.start; i < value->data.sequence.items.top; i++) {
		const yaml_node_t *node = yaml_document_get_node(r->doc, *i);

		if (ret->n_nodes == REPLICAS_MAX)
			return mistake(r, node, "a volume has at most %d replicas", REPLICAS_MAX);
		if (!scalar(node) || !name_is_valid(scalar(node)))
			return mistake(r, node, "that is no node's name (kedge node ls)");
		(void)snprintf(ret->nodes[ret->n_nodes++], NAME_BYTES_MAX, "%s", scalar(node));
	}
	return 0;
}

static int set_nodes(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_node_names(r, value, &doc->volume);
}

static int set_size(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_bytes(r, value, &doc->volume.size);
}

static int set_replicas(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_replica_count(r, value, &doc->volume.replicas);
}

static int set_image_name(struct reader *r, const yaml_node_t *value, char ret[NAME_BYTES_MAX])
{
	int rc = set_text(r, value, "image", ret, NAME_BYTES_MAX);

	if (rc == 0 && !name_is_valid(ret))
		rc = mistake(r, value, "'%s' is no image's name (kedge image ls)", ret);
	return rc;
}

static int set_image(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_image_name(r, value, doc->volume.image);
}

static int set_user_data(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_path(r, value, "user-data", doc->user_data);
}

static int set_meta_data(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_path(r, value, "meta-data", doc->meta_data);
}

/* Of the disk that is being read. */
static struct yaml_volume *disk(struct yaml_document *doc)
{
	return &doc->disks[doc->n_disks];
}

static int set_disk_name(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	int rc = set_text(r, value, "a name", disk(doc)->name, sizeof disk(doc)->name);

	if (rc < 0)
		return rc;
	if (!name_is_valid(disk(doc)->name) || strchr(disk(doc)->name, '.'))
		return mistake(r, value, "'%s' is no disk's name: letters, digits, '_' and '-'", disk(doc)->name);
	for (size_t i = 0; i < doc->n_disks; i++)
		if (strcmp(doc->disks[i].name, disk(doc)->name) == 0)
			return mistake(r, value, "this VM has a disk '%s' already", disk(doc)->name);
	return 0;
}

static int set_disk_size(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_bytes(r, value, &disk(doc)->size);
}

static int set_disk_replicas(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_replica_count(r, value, &disk(doc)->replicas);
}

static int set_disk_nodes(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_node_names(r, value, disk(doc));
}

static int set_disk_image(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return set_image_name(r, value, disk(doc)->image);
}

static int set_later(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	(void)doc;
	return mistake(r, value, "this release does not know that part of a VM yet");
}

/* ---- mappings ---- */

struct key {
	const char *name;
	setter set;
	bool required;
};

static int set_boot(struct reader *r, const yaml_node_t *value, struct yaml_document *doc);
static int set_ha(struct reader *r, const yaml_node_t *value, struct yaml_document *doc);
static int set_disks(struct reader *r, const yaml_node_t *value, struct yaml_document *doc);
static int set_cloud_init(struct reader *r, const yaml_node_t *value, struct yaml_document *doc);

static const struct key vm_keys[] = {
	{"kind", set_kind, true},
	{"name", set_name, true},
	{"vcpus", set_vcpus, false},
	{"memory", set_memory, true},
	{"run", set_run, false},
	{"boot", set_boot, false},
	{"ha", set_ha, false},
	{"disks", set_disks, false},
	{"networks", set_later, false},
	{"placement", set_later, false},
	{"cloud-init", set_cloud_init, false},
};
static const struct key volume_keys[] = {{"kind", set_kind, true},    {"name", set_name, true},
					 {"size", set_size, true},    {"replicas", set_replicas, false},
					 {"nodes", set_nodes, false}, {"image", set_image, false}};
static const struct key disk_keys[] = {{"name", set_disk_name, true},
				       {"size", set_disk_size, true},
				       {"replicas", set_disk_replicas, false},
				       {"nodes", set_disk_nodes, false},
				       {"image", set_disk_image, false}};
static const struct key boot_keys[] = {
	{"kernel", set_kernel, true}, {"initrd", set_initrd, false}, {"cmdline", set_cmdline, false}};
static const struct key cloud_keys[] = {{"user-data", set_user_data, false}, {"meta-data", set_meta_data, false}};
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
		     struct yaml_document *doc)
{
	const yaml_node_t *key = yaml_document_get_node(r->doc, pair->key);
	const yaml_node_t *value = yaml_document_get_node(r->doc, pair->value);
	size_t i = find_key(key, keys, n);

	if (i == n)
		return unknown_key(r, key, keys, n);
	if (*seen & 1u << i)
		return mistake(r, key, "the key '%s' stands here twice", keys[i].name);
	*seen |= 1u << i;
	return keys[i].set(r, value, doc);
}

static int read_mapping(struct reader *r, const yaml_node_t *node, const char *what, const struct key *keys, size_t n,
			struct yaml_document *doc)
{
	uint32_t seen = 0;

	if (node->type != YAML_MAPPING_NODE)
		return mistake(r, node, "%s must be a mapping of keys to values", what);
	for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
		int rc = read_pair(r, p, keys, n, &seen, doc);

		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; i < n; i++)
		if (keys[i].required && !(seen & 1u << i))
			return mistake(r, node, "%s needs the key '%s'", what, keys[i].name);
	return 0;
}

static int set_boot(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return read_mapping(r, value, "boot", boot_keys, ARRAY_LEN(boot_keys), doc);
}

static int set_ha(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return read_mapping(r, value, "ha", ha_keys, ARRAY_LEN(ha_keys), doc);
}

static int set_cloud_init(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	return read_mapping(r, value, "cloud-init", cloud_keys, ARRAY_LEN(cloud_keys), doc);
}

static int set_disks(struct reader *r, const yaml_node_t *value, struct yaml_document *doc)
{
	if (value->type != YAML_SEQUENCE_NODE)
		return mistake(r, value, "disks must be a list, as in [{name: root, size: 4GiB}]");
	for (yaml_node_item_t *i = value->data.sequence.items.start; i < value->data.sequence.items.top; i++) {
		const yaml_node_t *node = yaml_document_get_node(r->doc, *i);
		int rc;

		if (doc->n_disks == VM_DISKS_MAX)
			return mistake(r, node, "a VM has at most %d disks", VM_DISKS_MAX);
		rc = read_mapping(r, node, "a disk", disk_keys, ARRAY_LEN(disk_keys), doc);
		if (rc < 0)
			return rc;
		doc->n_disks++;
	}
	return 0;
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
		return mistake(r, place, "%s '%.200s': %s (it is read now, and held by the cluster)", what, path,
			       strerror(errno));
	if (!S_ISREG(st.st_mode))
		return mistake(r, place, "%s '%.200s' is no regular file", what, path);
	return 0;
}

static int check_seed(const struct reader *r, const yaml_node_t *place, const struct yaml_document *doc)
{
	const char *const paths[] = {doc->user_data, doc->meta_data};
	off_t bytes = 0;
	struct stat st;

	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		int rc = check_file(r, value_of(r, place, i ? "meta-data" : "user-data"), i ? "meta-data" : "user-data",
				    paths[i]);

		if (rc < 0)
			return rc;
		bytes += paths[i][0] && stat(paths[i], &st) == 0 ? st.st_size : 0;
	}
	if (bytes > SEED_BYTES_MAX)
		return mistake(r, place, "user-data and meta-data together have more than %u KiB",
			       SEED_BYTES_MAX >> 10);
	return 0;
}

static int check_vm(struct reader *r, const yaml_node_t *root, const struct yaml_document *doc)
{
	const yaml_node_t *boot = value_of(r, root, "boot");
	int rc = 0;

	for (size_t i = 0; i < doc->n_disks; i++)
		if (strlen(doc->name) + strlen(doc->disks[i].name) + 2 > NAME_BYTES_MAX)
			return mistake(r, value_of(r, root, "disks"),
				       "the names of VM and disk together have more than %d letters",
				       NAME_BYTES_MAX - 2);
	rc = check_seed(r, value_of(r, root, "cloud-init"), doc);
	if (rc < 0 || !doc->run)
		return rc;
	if (doc->kernel[0] == '\0' && doc->n_disks == 0)
		return mistake(r, root, "a VM that runs needs boot.kernel, or a disk to boot from (or run: false)");
	rc = check_file(r, value_of(r, boot, "kernel"), "kernel", doc->kernel);
	if (rc == 0)
		rc = check_file(r, value_of(r, boot, "initrd"), "initrd", doc->initrd);
	return rc;
}

static int check_whole(struct reader *r, const yaml_node_t *root, const struct yaml_document *doc)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->docs[i].is_volume == doc->is_volume && strcmp(r->docs[i].name, doc->name) == 0)
			return mistake(r, value_of(r, root, "name"), "%s '%s' stands in this file twice",
				       doc->is_volume ? "volume" : "vm", doc->name);
	return doc->is_volume ? 0 : check_vm(r, root, doc);
}

int yaml_document_read(struct reader *r, const yaml_node_t *root)
{
	struct yaml_document doc = {.vcpus = 1, .run = true, .priority = 100};
	const char *kind = scalar(value_of(r, root, "kind"));
	bool is_volume = kind && strcmp(kind, "volume") == 0;
	int rc = is_volume ? read_mapping(r, root, "a volume", volume_keys, ARRAY_LEN(volume_keys), &doc)
			   : read_mapping(r, root, "a document", vm_keys, ARRAY_LEN(vm_keys), &doc);

	if (rc == 0)
		rc = check_whole(r, root, &doc);
	if (rc < 0)
		return rc;
	if (r->n == DOCUMENTS_MAX)
		return mistake(r, root, "more than %d documents: split the file", DOCUMENTS_MAX);
	(void)snprintf(doc.where, sizeof doc.where, "%.900s:%zu:%zu", r->file, root->start_mark.line + 1,
		       root->start_mark.column + 1);
	r->docs = xrealloc(r->docs, (r->n + 1) * sizeof *r->docs);
	r->docs[r->n++] = doc;
	return 0;
}
