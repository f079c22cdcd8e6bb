/* SPDX-License-Identifier: Apache-2.0
 * From documents (what an administrator wants) to one log entry: all of them or none. */
#include "agent/apply.h"

#include "agent/apply_files.h"
#include "agent/apply_volume.h"

#include "hypervisor/hypervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DOCUMENTS_MAX  256
#define PRIORITY_USUAL 100
#define PRIORITY_MAX   1000

static int refuse(struct err *e, const char *where, const char *what)
{
	return err_set(e, PROTO_E_INVALID, "%s%s%s", where, where[0] ? ": " : "", what);
}

static bool is_plain(const char *text)
{
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return false;
	return true;
}

/* An absent key leaves the default; a value of another type, or with control characters, is refused. */
static bool get_text(const struct msgpack_object *doc, const char *key, char *ret, size_t size)
{
	const struct msgpack_object *o = unpack_key(doc, key);

	return !o || unpack_is_nil(o) || (unpack_str(o, ret, size) && is_plain(ret));
}

static bool get_u32(const struct msgpack_object *doc, const char *key, uint32_t *ret)
{
	const struct msgpack_object *o = unpack_key(doc, key);
	uint64_t v;

	if (!o)
		return true;
	if (!unpack_u64(o, &v) || v > UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool is_path(const char *path)
{
	return path[0] == '\0' || path[0] == '/';
}

static bool is_kind(const struct msgpack_object *doc, const char *wanted)
{
	char kind[16];

	return unpack_str(unpack_key(doc, "kind"), kind, sizeof kind) && strcmp(kind, wanted) == 0;
}

/* These two return what is wrong, or NULL. */
static const char *read_size(const struct msgpack_object *doc, struct command_vm_put *v)
{
	if (!get_u32(doc, "vcpus", &v->vcpus) || v->vcpus < 1 || v->vcpus > VCPUS_MAX)
		return "vcpus must be from 1 to 256";
	if (!unpack_u64(unpack_key(doc, "memory"), &v->memory_bytes) || v->memory_bytes < MEMORY_BYTES_MIN ||
	    v->memory_bytes > MEMORY_BYTES_MAX)
		return "memory must be from 32 MiB to 4 TiB";
	return NULL;
}

static const char *read_boot(const struct msgpack_object *doc, struct command_vm_put *v)
{
	if (!get_text(doc, "kernel", v->kernel, sizeof v->kernel) || !is_path(v->kernel) ||
	    !get_text(doc, "initrd", v->initrd, sizeof v->initrd) || !is_path(v->initrd))
		return "kernel and initrd must be absolute paths of at most 1023 plain bytes";
	if (!get_text(doc, "cmdline", v->cmdline, sizeof v->cmdline))
		return "cmdline must be a text of at most 2047 bytes, without control characters";
	if (v->run && v->kernel[0] == '\0' && apply_disks_count(doc) == 0)
		return "a VM that runs needs boot.kernel, or a disk to boot from";
	return NULL;
}

static int read_document(const struct msgpack_object *doc, const char *where, struct command_vm_put *ret, struct err *e)
{
	struct command_vm_put v = {.vcpus = 1, .run = true, .priority = PRIORITY_USUAL};
	const char *wrong = NULL;

	if (!unpack_str(unpack_key(doc, "name"), v.name, sizeof v.name) || !name_is_valid(v.name))
		wrong = "a name has letters, digits, '.', '_' and '-', at most 63";
	else if (unpack_key(doc, "run") && !unpack_bool(unpack_key(doc, "run"), &v.run))
		wrong = "run must be true or false";
	else if (!get_u32(doc, "priority", &v.priority) || v.priority > PRIORITY_MAX)
		wrong = "priority must be from 0 to 1000";
	else
		wrong = read_size(doc, &v);
	if (!wrong)
		wrong = read_boot(doc, &v);
	if (wrong)
		return refuse(e, where, wrong);
	*ret = v;
	return 0;
}

/* Could any single node hold this VM? While one that may run VMs has not told what it has, nothing is refused. */
static bool some_node_could_hold(struct agent *agent, const struct command_vm_put *v)
{
	struct store_node nodes[NODES_MAX];
	size_t n = store_nodes(agent->store, nodes, NODES_MAX);
	for (size_t i = 0; i < n; i++) {
		struct node_peer_status s;

		node_peer_status(agent->node, nodes[i].node, &s);
		if (!s.heard)
			return true;
		if (v->memory_bytes <= s.info.memory_bytes / 100 * SCHEDULER_MEMORY_PERCENT &&
		    v->vcpus <= s.info.cpus * SCHEDULER_VCPUS_PER_CPU)
			return true;
	}
	return false;
}

static bool is_same(const struct command_vm_put *a, const struct command_vm_put *b)
{
	return a->vcpus == b->vcpus && a->memory_bytes == b->memory_bytes && a->run == b->run &&
	       a->priority == b->priority && strcmp(a->kernel, b->kernel) == 0 && strcmp(a->initrd, b->initrd) == 0 &&
	       strcmp(a->cmdline, b->cmdline) == 0;
}

static void tell(struct pack *p, const char *kind, const char *name, const char *action)
{
	pack_map(p);
	pack_kv_str(p, "kind", kind);
	pack_kv_str(p, "name", name);
	pack_kv_str(p, "action", action);
	pack_end(p);
}

static void add_vm(const struct command_vm_put *v, struct change *c)
{
	struct command_vm_put body = *v;

	random_uuid(body.uuid);
	(void)snprintf(body.machine, sizeof body.machine, "%s", HYPERVISOR_MACHINE);
	message_encode(&command_vm_put_type, &body, &c->bodies);
	c->n_bodies++;
}

static void append(struct change *to, struct change *from)
{
	buf_append(&to->bodies, from->bodies.data, from->bodies.len);
	to->n_bodies += from->n_bodies;
}

static int add_vm_document(struct agent *agent, const struct msgpack_object *doc, const char *where,
			   struct apply_places *places, struct change *c, struct pack *p, struct err *e)
{
	struct change rest = {0}; /* of its entry: files and disks, behind the VM itself */
	struct command_vm_put v;
	struct store_vm old;
	bool exists, changed, files_changed = false, disks_changed = false;
	int rc = read_document(doc, where, &v, e);

	if (rc < 0)
		return rc;
	exists = store_vm(agent->store, v.name, &old);
	changed = !exists || !is_same(&v, &old.spec) || old.deleting;
	if (changed && v.run && !some_node_could_hold(agent, &v))
		return err_set(e, PROTO_E_INVALID,
			       "%s%svm '%s': no node has the %llu MiB of memory and %u vcpus for it", where,
			       where[0] ? ": " : "", v.name, (unsigned long long)(v.memory_bytes >> 20), v.vcpus);
	rc = apply_files(agent, doc, where, &v, exists ? &old : NULL, &rest, &files_changed, e);
	if (rc == 0)
		rc = apply_disks(agent, doc, where, v.name, places, &rest, &disks_changed, e);
	if (rc == 0) {
		changed |= files_changed;
		tell(p, "vm", v.name, !exists ? "create" : changed || disks_changed ? "update" : "none");
		if (changed)
			add_vm(&v, c);
		append(c, &rest);
	}
	buf_free(&rest.bodies);
	return rc;
}

static int add_document(struct agent *agent, const struct msgpack_object *doc, struct apply_places *places,
			struct change *c, struct pack *p, struct err *e)
{
	char where[PATH_BYTES_MAX + 40] = "", name[NAME_BYTES_MAX] = "";
	const char *action;
	int rc;

	(void)unpack_str(unpack_key(doc, "where"), where, sizeof where);
	if (is_kind(doc, "vm"))
		return add_vm_document(agent, doc, where, places, c, p, e);
	if (!is_kind(doc, "volume"))
		return refuse(e, where, "the kind must be vm or volume");
	rc = apply_volume(agent, doc, where, places, c, &action, e);
	(void)unpack_str(unpack_key(doc, "name"), name, sizeof name);
	if (rc == 0)
		tell(p, "volume", name, action);
	return rc;
}

int apply_documents(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	const struct msgpack_object *documents = unpack_key(params, "documents");
	struct pack p = {.out = &c->result};
	size_t n = unpack_count(documents);
	struct apply_places places;
	bool dry_run = false;

	apply_places_begin(agent, &places);
	if (!unpack_is_array(documents) || n == 0 || n > DOCUMENTS_MAX)
		return err_set(e, PROTO_E_INVALID, "apply: from 1 to %d documents", DOCUMENTS_MAX);
	(void)unpack_bool(unpack_key(params, "dry_run"), &dry_run);
	pack_map(&p);
	pack_key(&p, "changes");
	pack_array(&p);
	for (size_t i = 0; i < n; i++) {
		int rc = add_document(agent, unpack_at(documents, i), &places, c, &p, e);

		if (rc < 0)
			return rc;
	}
	pack_end(&p);
	pack_end(&p);
	if (c->bodies.len > ENTRY_BYTES_MAX / 2)
		return err_set(e, PROTO_E_TOO_MANY, "apply: too much at once: split the file");
	if (dry_run)
		c->n_bodies = 0;
	return 0;
}
