/* SPDX-License-Identifier: Apache-2.0
 * The part of apply that is about volumes. */
#include "agent/apply_volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLICAS_USUAL 2
#define SECTOR_BYTES   4096
#define SIZE_MAX_BYTES (64ULL << 40)

/* A volume as a document says it. */
struct wanted {
	char name[NAME_BYTES_MAX];
	uint64_t size;
	uint32_t replicas;
	bool has_replicas; /* said, not left to the default */
	bool has_nodes;    /* likewise: where some of them or all shall be, 0 behind the last */
	uint32_t nodes[REPLICAS_MAX];
	char image[NAME_BYTES_MAX]; /* "": none */
};

static int refuse(struct err *e, const char *where, const char *name, const char *what)
{
	return err_set(e, PROTO_E_INVALID, "%s%svolume '%s': %s", where, where[0] ? ": " : "", name, what);
}

static void add_body(struct change *c, const struct message_type *type, const void *body)
{
	message_encode(type, body, &c->bodies);
	c->n_bodies++;
}

/* ---- places ---- */

void apply_places_begin(struct agent *agent, struct apply_places *ret)
{
	size_t n;
	const struct store_volume *v = node_volumes(agent->node, &n);

	*ret = (struct apply_places){0};
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < v[i].n_members; k++)
			ret->replicas[v[i].members[k].node]++;
}

static bool can_take(struct agent *agent, const struct apply_places *places, node_id_t node, uint64_t size,
		     bool *ret_full)
{
	struct node_peer_status s;

	node_peer_status(agent->node, node, &s);
	if (!s.heard || !s.lease || !s.info.has_engine)
		return false;
	*ret_full |= s.info.disk_free < places->bytes[node] + size;
	return s.info.disk_free >= places->bytes[node] + size;
}

/* The nodes that can take it, those with the fewest replicas first; those of @beside before all others, so that the
 * disks of a VM are on the same nodes. */
static size_t rank(struct agent *agent, const struct apply_places *places, uint64_t size, const uint32_t *beside,
		   node_id_t *ret, bool *ret_full)
{
	struct store_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
	size_t n = store_nodes(agent->store, nodes, NODES_MAX), count = 0;
	uint64_t weight[NODES_MAX];

	for (size_t i = 0; i < n; i++) {
		node_id_t node = nodes[i].node;
		uint64_t w = places->replicas[node] + 1;
		size_t at = count;

		if (!can_take(agent, places, node, size, ret_full))
			continue;
		for (size_t k = 0; k < REPLICAS_MAX; k++)
			if (beside[k] == node)
				w = 0;
		for (; at > 0 && weight[at - 1] > w; at--) {
			weight[at] = weight[at - 1];
			ret[at] = ret[at - 1];
		}
		weight[at] = w;
		ret[at] = node;
		count++;
	}
	free(nodes);
	return count;
}

/* Those that were named come first, whatever they have already. False: @ret_why says which one cannot. */
static bool put_named_first(struct agent *agent, const struct apply_places *places, const struct wanted *w,
			    node_id_t *nodes, size_t *n, char ret_why[120])
{
	for (size_t i = REPLICAS_MAX; i-- > 0;) {
		struct store_node room;
		size_t at = 0;

		while (w->nodes[i] && at < *n && nodes[at] != w->nodes[i])
			at++;
		if (w->nodes[i] && at == *n) {
			(void)snprintf(ret_why, 120, "%.40s is not up, or has no room for %llu MiB",
				       store_node(agent->store, w->nodes[i], &room) ? room.name : "a node",
				       (unsigned long long)((places->bytes[w->nodes[i]] + w->size) >> 20));
			return false;
		}
		for (; w->nodes[i] && at > 0; at--)
			nodes[at] = nodes[at - 1];
		if (w->nodes[i])
			nodes[0] = w->nodes[i];
	}
	return true;
}

static int place(struct agent *agent, const struct wanted *w, const char *where, const uint32_t *beside,
		 struct apply_places *places, uint32_t ret[REPLICAS_MAX], struct err *e)
{
	node_id_t nodes[NODES_MAX];
	char why[120];
	bool full = false;
	size_t n = rank(agent, places, w->size, beside, nodes, &full);

	if (n < w->replicas) {
		(void)snprintf(why, sizeof why, "%u replicas of %llu MiB, but %zu nodes are up and have room%s",
			       w->replicas, (unsigned long long)(w->size >> 20), n,
			       full ? " (others are too full)" : "; ask for fewer, or add a node");
		return refuse(e, where, w->name, why);
	}
	if (!put_named_first(agent, places, w, nodes, &n, why))
		return refuse(e, where, w->name, why);
	for (size_t i = 0; i < w->replicas; i++) {
		ret[i] = nodes[i];
		places->replicas[nodes[i]]++;
		places->bytes[nodes[i]] += w->size;
	}
	return 0;
}

/* ---- one volume ---- */

static void random_id(char ret[VOLUME_NAME_ID])
{
	uint8_t bytes[(VOLUME_NAME_ID - 1) / 2];

	random_bytes(bytes, sizeof bytes);
	for (size_t i = 0; i < sizeof bytes; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

/* The store looks once more: this is for a message with its place, and for --dry-run. */
static int check_image(struct agent *agent, const struct wanted *w, const char *where, struct err *e)
{
	struct store_image image;
	char why[200];

	if (w->image[0] == '\0')
		return 0;
	if (!store_image(agent->store, w->image, &image)) {
		(void)snprintf(why, sizeof why, "there is no image '%s' (kedge image ls)", w->image);
		return err_set(e, PROTO_E_NOT_FOUND, "%s%svolume '%s': %s", where, where[0] ? ": " : "", w->name, why);
	}
	if (image.size <= w->size)
		return 0;
	(void)snprintf(why, sizeof why, "the image '%s' is larger: it needs %llu MiB", w->image,
		       (unsigned long long)((image.size + (1 << 20) - 1) >> 20));
	return refuse(e, where, w->name, why);
}

static void add_image(const struct wanted *w, const char *id, struct change *c)
{
	struct command_volume_image body = {0};

	if (w->image[0] == '\0')
		return;
	memcpy(body.id, id, sizeof body.id);
	memcpy(body.image, w->image, sizeof body.image);
	add_body(c, &command_volume_image_type, &body);
}

static void add_set(const struct wanted *w, uint32_t replicas, struct change *c)
{
	struct command_volume_set body = {.replicas = replicas, .has_nodes = w->has_nodes};

	memcpy(body.name, w->name, sizeof body.name);
	memcpy(body.nodes, w->nodes, sizeof body.nodes);
	add_body(c, &command_volume_set_type, &body);
}

static int create(struct agent *agent, const struct wanted *w, const char *where, uint32_t beside[REPLICAS_MAX],
		  struct apply_places *places, struct change *c, struct err *e)
{
	struct command_volume_create body = {.size = w->size, .replicas = w->replicas};
	size_t n;
	int rc;

	(void)node_volumes(agent->node, &n);
	if (n + ++places->created > VOLUMES_MAX)
		return err_set(e, PROTO_E_TOO_MANY, "apply: a cluster has at most %d volumes", VOLUMES_MAX);
	rc = check_image(agent, w, where, e);
	if (rc == 0)
		rc = place(agent, w, where, beside, places, body.nodes, e);
	if (rc < 0)
		return rc;
	memcpy(body.name, w->name, sizeof body.name);
	random_id(body.id);
	memcpy(beside, body.nodes, sizeof body.nodes);
	add_body(c, &command_volume_create_type, &body);
	add_image(w, body.id, c);
	if (w->nodes[0])
		add_set(w, w->replicas, c);
	return 0;
}

/* Where a replica is and what its node has free is known, there must be room for what is added. */
static int check_room(struct agent *agent, const struct store_volume *old, uint64_t more, const char *where,
		      struct apply_places *places, struct err *e)
{
	for (size_t i = 0; i < old->n_members; i++) {
		node_id_t node = old->members[i].node;
		struct node_peer_status s;
		struct store_node row;
		char why[200];

		places->bytes[node] += more;
		node_peer_status(agent->node, node, &s);
		if (!s.heard || !s.info.has_engine || s.info.disk_free >= places->bytes[node])
			continue;
		(void)snprintf(why, sizeof why, "%s has no room: %llu MiB free, %llu MiB more are asked for",
			       store_node(agent->store, node, &row) ? row.name : "a node",
			       (unsigned long long)(s.info.disk_free >> 20),
			       (unsigned long long)(places->bytes[node] >> 20));
		return refuse(e, where, old->name, why);
	}
	return 0;
}

static int grow(struct agent *agent, const struct wanted *w, const char *where, const struct store_volume *old,
		struct apply_places *places, struct change *c, struct err *e)
{
	struct command_volume_grow body = {.size = w->size};
	uint64_t has = old->grow_to ? old->grow_to : old->size;
	int rc;

	if (w->size < has)
		return refuse(e, where, w->name, "a volume cannot shrink: make a smaller one and copy");
	if (w->size == has)
		return 0;
	if (old->filling)
		return refuse(e, where, w->name, "it is being filled from its image: try again when that is done");
	rc = check_room(agent, old, w->size - has, where, places, e);
	if (rc < 0)
		return rc;
	memcpy(body.name, w->name, sizeof body.name);
	add_body(c, &command_volume_grow_type, &body);
	return 0;
}

static uint32_t count_named(const uint32_t nodes[REPLICAS_MAX])
{
	uint32_t n = 0;

	while (n < REPLICAS_MAX && nodes[n])
		n++;
	return n;
}

/* A node that is named and has no replica yet must be able to take one now. */
static int check_named(struct agent *agent, const struct wanted *w, const char *where, const struct store_volume *old,
		       struct apply_places *places, struct err *e)
{
	for (size_t i = 0; i < count_named(w->nodes); i++) {
		node_id_t node = w->nodes[i];
		struct store_node row;
		char why[120];
		bool full = false;

		if (store_volume_on(old, node))
			continue;
		if (can_take(agent, places, node, w->size, &full)) {
			places->bytes[node] += w->size;
			continue;
		}
		(void)snprintf(why, sizeof why, "%.40s cannot take a replica: it %s",
			       store_node(agent->store, node, &row) ? row.name : "a node",
			       full ? "has no room" : "is not up, or has no engine");
		return refuse(e, where, w->name, why);
	}
	return 0;
}

/* What can change of one that is there. */
static int change(struct agent *agent, const struct wanted *w, const char *where, const struct store_volume *old,
		  struct apply_places *places, struct change *c, struct err *e)
{
	uint32_t replicas = w->has_replicas ? w->replicas : old->replicas;
	int rc;

	if (old->deleting)
		return refuse(e, where, w->name, "it is being deleted: try again when it is gone");
	if (w->image[0] && strcmp(w->image, old->image) != 0)
		return refuse(
			e, where, w->name,
			"it is there already, and was not made from that image: delete it first, or leave the image "
			"out");
	rc = grow(agent, w, where, old, places, c, e);
	if (rc < 0)
		return rc;
	if (!w->has_nodes && replicas < count_named(old->nodes))
		return refuse(e, where, w->name,
			      "more nodes are named for it than replicas are wanted: say nodes too, [] for anywhere");
	if (count_named(w->nodes) > replicas)
		replicas = count_named(w->nodes);
	rc = check_named(agent, w, where, old, places, e);
	if (rc < 0)
		return rc;
	if (replicas != old->replicas || (w->has_nodes && memcmp(w->nodes, old->nodes, sizeof w->nodes) != 0))
		add_set(w, replicas, c);
	return 0;
}

static node_id_t node_named(struct agent *agent, const char *name)
{
	struct store_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
	size_t n = store_nodes(agent->store, nodes, NODES_MAX);
	node_id_t found = 0;

	for (size_t i = 0; i < n; i++)
		if (strcmp(nodes[i].name, name) == 0 && strcmp(nodes[i].role, "witness") != 0)
			found = nodes[i].node;
	free(nodes);
	return found;
}

static const char *read_nodes(struct agent *agent, const struct msgpack_object *doc, struct wanted *ret)
{
	const struct msgpack_object *list = unpack_key(doc, "nodes");
	size_t n = unpack_count(list);

	ret->has_nodes = list && !unpack_is_nil(list);
	if (ret->has_nodes && !unpack_is_array(list))
		return "nodes must be a list of names (kedge node ls)";
	if (n > REPLICAS_MAX || (ret->has_replicas && n > ret->replicas))
		return "nodes names more of them than replicas are wanted";
	for (size_t i = 0; i < n; i++) {
		char name[NAME_BYTES_MAX];

		if (!unpack_str(unpack_at(list, i), name, sizeof name))
			return "nodes must be a list of names (kedge node ls)";
		ret->nodes[i] = node_named(agent, name);
		if (ret->nodes[i] == 0)
			return "nodes has a name that is no node's, or a witness's (kedge node ls)";
		for (size_t k = 0; k < i; k++)
			if (ret->nodes[k] == ret->nodes[i])
				return "nodes has a name twice";
	}
	if (!ret->has_replicas && n > ret->replicas)
		ret->replicas = (uint32_t)n;
	return NULL;
}

static const char *read_wanted(struct agent *agent, const struct msgpack_object *doc, struct wanted *ret)
{
	uint64_t replicas = REPLICAS_USUAL;

	if (!unpack_u64(unpack_key(doc, "size"), &ret->size) || ret->size == 0 || ret->size % SECTOR_BYTES ||
	    ret->size > SIZE_MAX_BYTES)
		return "size must be a multiple of 4 KiB, at most 64 TiB";
	ret->has_replicas = unpack_key(doc, "replicas") && !unpack_is_nil(unpack_key(doc, "replicas"));
	if (ret->has_replicas &&
	    (!unpack_u64(unpack_key(doc, "replicas"), &replicas) || replicas < 1 || replicas > REPLICAS_MAX))
		return "replicas must be from 1 to 3";
	ret->replicas = (uint32_t)replicas;
	if (unpack_key(doc, "image") && !unpack_is_nil(unpack_key(doc, "image")) &&
	    (!unpack_str(unpack_key(doc, "image"), ret->image, sizeof ret->image) || !name_is_valid(ret->image)))
		return "image must be the name of an image (kedge image ls)";
	return read_nodes(agent, doc, ret);
}

int apply_volume(struct agent *agent, const struct msgpack_object *doc, const char *where, struct apply_places *places,
		 struct change *c, const char **ret_action, struct err *e)
{
	uint32_t beside[REPLICAS_MAX] = {0}, before = c->n_bodies;
	struct wanted w = {0};
	struct store_volume old;
	const char *wrong;
	bool exists;
	int rc;

	if (!unpack_str(unpack_key(doc, "name"), w.name, sizeof w.name) || !name_is_valid(w.name))
		return refuse(e, where, "?", "a name has letters, digits, '.', '_' and '-', at most 63");
	wrong = read_wanted(agent, doc, &w);
	if (wrong)
		return refuse(e, where, w.name, wrong);
	exists = store_volume(agent->store, w.name, &old);
	rc = exists ? change(agent, &w, where, &old, places, c, e) : create(agent, &w, where, beside, places, c, e);
	*ret_action = !exists ? "create" : c->n_bodies > before ? "update" : "none";
	return rc;
}

/* ---- the disks of a VM ---- */

size_t apply_disks_count(const struct msgpack_object *doc)
{
	return unpack_count(unpack_key(doc, "disks"));
}

static int read_disk(struct agent *agent, const struct msgpack_object *disk, const char *where, const char *vm,
		     struct wanted *ret, struct err *e)
{
	char name[NAME_BYTES_MAX] = "";
	const char *wrong;

	*ret = (struct wanted){0};
	if (!unpack_str(unpack_key(disk, "name"), name, sizeof name) || !name_is_valid(name) || strchr(name, '.'))
		return refuse(e, where, vm, "a disk's name has letters, digits, '_' and '-'");
	if (snprintf(ret->name, sizeof ret->name, "%s.%s", vm, name) >= (int)sizeof ret->name)
		return refuse(e, where, vm, "the names of VM and disk together have more than 62 letters");
	wrong = read_wanted(agent, disk, ret);
	return wrong ? refuse(e, where, ret->name, wrong) : 0;
}

static void attach(const char *volume, const char *from, const char *vm, size_t number, struct change *c)
{
	struct command_disk body = {.disk = (uint32_t)number};

	(void)snprintf(body.volume, sizeof body.volume, "%s", volume);
	(void)snprintf(body.vm, sizeof body.vm, "%s", vm);
	(void)snprintf(body.from, sizeof body.from, "%s", from);
	add_body(c, &command_disk_type, &body);
}

static int apply_disk(struct agent *agent, const struct wanted *w, const char *where, const char *vm, size_t number,
		      uint32_t beside[REPLICAS_MAX], struct apply_places *places, struct change *c, struct err *e)
{
	struct store_volume old;
	int rc;

	if (!store_volume(agent->store, w->name, &old)) {
		rc = create(agent, w, where, beside, places, c, e);
		if (rc == 0)
			attach(w->name, "", vm, number, c);
		return rc;
	}
	if (old.vm[0] && strcmp(old.vm, vm) != 0)
		return refuse(e, where, w->name, "it is exported, or another VM's disk");
	rc = change(agent, w, where, &old, places, c, e);
	if (rc == 0 && (strcmp(old.vm, vm) != 0 || old.disk != number))
		attach(w->name, old.vm, vm, number, c);
	return rc;
}

/* Disks that the document does not name any more become volumes of nobody: nothing is lost by an edit. */
static void detach_rest(struct agent *agent, const char *vm, const struct wanted *w, size_t n, struct change *c)
{
	size_t n_volumes;
	const struct store_volume *v = node_volumes(agent->node, &n_volumes);

	for (size_t i = 0; i < n_volumes; i++) {
		bool named = strcmp(v[i].vm, vm) != 0;

		for (size_t k = 0; k < n && !named; k++)
			named = strcmp(w[k].name, v[i].name) == 0;
		if (!named)
			attach(v[i].name, vm, "", 0, c);
	}
}

/* The nodes of the VM's first disk that is there. */
static void find_beside(struct agent *agent, const char *vm, uint32_t ret[REPLICAS_MAX])
{
	size_t n, count = 0;
	const struct store_volume *v = node_volumes(agent->node, &n);

	for (size_t i = 0; i < n && count == 0; i++)
		for (size_t k = 0; k < v[i].n_members && strcmp(v[i].vm, vm) == 0 && count < REPLICAS_MAX; k++)
			ret[count++] = v[i].members[k].node;
}

int apply_disks(struct agent *agent, const struct msgpack_object *doc, const char *where, const char *vm,
		struct apply_places *places, struct change *c, bool *ret_changed, struct err *e)
{
	const struct msgpack_object *disks = unpack_key(doc, "disks");
	uint32_t beside[REPLICAS_MAX] = {0}, before = c->n_bodies;
	struct wanted w[VM_DISKS_MAX];
	size_t n = unpack_count(disks);
	int rc = 0;

	if (n > VM_DISKS_MAX)
		return refuse(e, where, vm, "a VM has at most 8 disks");
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = read_disk(agent, unpack_at(disks, i), where, vm, &w[i], e);
		for (size_t k = 0; k < i && rc == 0; k++)
			if (strcmp(w[k].name, w[i].name) == 0)
				rc = refuse(e, where, w[i].name, "two disks have that name");
	}
	find_beside(agent, vm, beside);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = apply_disk(agent, &w[i], where, vm, i, beside, places, c, e);
	if (rc == 0)
		detach_rest(agent, vm, w, n, c);
	*ret_changed = c->n_bodies > before;
	return rc;
}
