/* SPDX-License-Identifier: Apache-2.0
 * The table of methods, and the small ones. Those that apply documents are in apply.c. */
#include "agent/methods.h"

#include "agent/apply.h"

#include <stdio.h>
#include <string.h>

#define EVENTS_LIMIT_MAX    1000
#define TOKEN_SECONDS_MAX   (7 * 24 * 3600)
#define TOKEN_SECONDS_USUAL 3600

bool method_session(const struct msgpack_object *params, uint64_t *ret_session, uint64_t *ret_num)
{
	return unpack_u64(unpack_key(params, "session"), ret_session) &&
	       unpack_u64(unpack_key(params, "num"), ret_num) && *ret_session != 0 && *ret_num != 0;
}

static int get_name(const struct msgpack_object *params, char ret[NAME_BYTES_MAX], struct err *e)
{
	if (!unpack_str(unpack_key(params, "name"), ret, NAME_BYTES_MAX))
		return err_set(e, PROTO_E_INVALID, "the request needs a name");
	return 0;
}

static bool get_flag(const struct msgpack_object *params, const char *key)
{
	bool v = false;

	(void)unpack_bool(unpack_key(params, key), &v);
	return v;
}

static uint64_t get_number(const struct msgpack_object *params, const char *key, uint64_t otherwise)
{
	(void)unpack_u64(unpack_key(params, key), &otherwise);
	return otherwise;
}

static void add_body(struct change *c, const struct message_type *type, const void *body)
{
	message_encode(type, body, &c->bodies);
	c->n_bodies++;
}

/* ---- reads ---- */

static int status(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	(void)e;
	view_status(agent, out, get_flag(params, "stale"), true);
	return 0;
}

static int node_list(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	(void)params;
	(void)e;
	view_nodes(agent, out);
	return 0;
}

static int node_show(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	char name[NAME_BYTES_MAX];
	int rc = get_name(params, name, e);

	if (rc < 0)
		return rc;
	return view_node(agent, out, name) ? 0 : err_set(e, PROTO_E_NOT_FOUND, "there is no node '%s'", name);
}

static int vm_list(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	(void)params;
	(void)e;
	view_vms(agent, out);
	return 0;
}

static int vm_show(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	char name[NAME_BYTES_MAX];
	int rc = get_name(params, name, e);

	if (rc < 0)
		return rc;
	return view_vm(agent, out, name) ? 0 : err_set(e, PROTO_E_NOT_FOUND, "there is no VM '%s'", name);
}

static int events(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	uint64_t limit = get_number(params, "limit", 100);

	(void)e;
	view_events(agent, out, get_number(params, "after", 0), limit < EVENTS_LIMIT_MAX ? limit : EVENTS_LIMIT_MAX);
	return 0;
}

/* ---- changes ---- */

static int vm_want(const struct msgpack_object *params, struct change *c, bool run, bool hard, struct err *e)
{
	struct command_vm_want body = {.run = run, .hard = hard};
	int rc = get_name(params, body.name, e);

	if (rc == 0)
		add_body(c, &command_vm_want_type, &body);
	return rc;
}

static int vm_start(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	(void)agent;
	return vm_want(params, c, true, false, e);
}

static int vm_stop(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	(void)agent;
	return vm_want(params, c, false, false, e);
}

static int vm_kill(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	(void)agent;
	return vm_want(params, c, false, true, e);
}

static int vm_restart(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_vm_restart body = {.hard = get_flag(params, "hard")};
	int rc = get_name(params, body.name, e);

	(void)agent;
	if (rc == 0)
		add_body(c, &command_vm_restart_type, &body);
	return rc;
}

static int delete_object(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_vm_delete vm = {0};
	struct command_volume_delete volume = {0};
	char kind[16] = "";
	int rc = get_name(params, vm.name, e);

	(void)agent;
	if (rc < 0)
		return rc;
	(void)unpack_str(unpack_key(params, "kind"), kind, sizeof kind);
	memcpy(volume.name, vm.name, sizeof volume.name);
	if (strcmp(kind, "vm") == 0 && !strchr(vm.name, ':'))
		add_body(c, &command_vm_delete_type, &vm);
	else if (strcmp(kind, "volume") == 0)
		add_body(c, &command_volume_delete_type, &volume);
	else
		return err_set(e, PROTO_E_INVALID, "delete: the kind must be vm or volume");
	return 0;
}

/* ---- tokens ---- */

static void token_id(const struct msgpack_object *params, char ret[40])
{
	uint64_t session = 0, num = 0;

	(void)method_session(params, &session, &num);
	(void)snprintf(ret, 40, "%016llx%llx", (unsigned long long)session, (unsigned long long)num);
}

static int token_create(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_token_add body = {.role = "node"};
	uint64_t seconds = get_number(params, "expires_sec", TOKEN_SECONDS_USUAL);
	uint8_t secret[32];

	(void)agent;
	if (unpack_key(params, "role") &&
	    (!unpack_str(unpack_key(params, "role"), body.role, sizeof body.role) || strcmp(body.role, "node") != 0))
		return err_set(e, PROTO_E_INVALID, "token: this release knows only the role node");
	if (seconds < 1 || seconds > TOKEN_SECONDS_MAX)
		return err_set(e, PROTO_E_INVALID, "token: it can be valid from 1 s to %d days",
			       TOKEN_SECONDS_MAX / (24 * 3600));
	token_id(params, body.id); /* a request that is sent again finds the secret of the first */
	random_bytes(secret, sizeof secret);
	for (size_t i = 0; i < sizeof secret; i++)
		(void)snprintf(body.secret + 2 * i, 3, "%02x", secret[i]);
	body.expires = clock_wall() + seconds * USEC_PER_SEC;
	add_body(c, &command_token_add_type, &body);
	return 0;
}

static int token_created(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	char id[40], text[400], expires[32];
	struct command_token_add token;
	struct store_node node = {0};

	token_id(params, id);
	if (!store_token(agent->store, id, clock_wall(), &token) || !store_node(agent->store, agent->config.id, &node))
		return err_set(e, PROTO_E_NOT_FOUND, "token: it is used or expired already");
	(void)snprintf(text, sizeof text, "kedge-join:%s:%s:%s:%s", node.address, id, token.secret,
		       agent->ca_fingerprint);
	clock_format(token.expires, expires, sizeof expires);
	pack_map(out);
	pack_kv_str(out, "token", text);
	pack_kv_str(out, "expires", expires);
	pack_end(out);
	return 0;
}

/* ---- joining ---- */

static int node_add(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_node_add body = {0};
	struct command_token_add token;
	struct store_cluster cluster;

	if (get_name(params, body.name, e) < 0 || !name_is_valid(body.name))
		return err_set(e, PROTO_E_INVALID,
			       "join: a node's name has letters, digits, '.', '_' and '-', at most %d",
			       NAME_BYTES_MAX - 1);
	if (!unpack_str(unpack_key(params, "address"), body.address, sizeof body.address) ||
	    net_address_check(body.address, NULL) < 0)
		return err_set(e, PROTO_E_INVALID, "join: the address must be IP:PORT");
	(void)unpack_str(unpack_key(params, "zone"), body.zone, sizeof body.zone);
	if (!unpack_str(unpack_key(params, "token"), body.token, sizeof body.token) ||
	    !store_token(agent->store, body.token, clock_wall(), &token))
		return err_set(e, PROTO_E_DENIED, "join: the token is unknown, used or expired");
	memcpy(body.role, token.role, sizeof body.role);
	store_cluster(agent->store, &cluster);
	body.node = cluster.node_max + 1;
	add_body(c, &command_node_add_type, &body);
	return 0;
}

static int node_added(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	struct store_node nodes[NODES_MAX];
	struct store_cluster cluster;
	char name[NAME_BYTES_MAX];
	size_t n = store_nodes(agent->store, nodes, NODES_MAX);

	(void)get_name(params, name, NULL);
	store_cluster(agent->store, &cluster);
	for (size_t i = 0; i < n; i++) {
		if (strcmp(nodes[i].name, name) != 0)
			continue;
		pack_map(out);
		pack_kv_u64(out, "node", nodes[i].node);
		pack_kv_str(out, "role", nodes[i].role);
		pack_kv_str(out, "cluster", cluster.cluster);
		pack_kv_str(out, "cluster_name", cluster.name);
		pack_end(out);
		return 0;
	}
	return err_set(e, PROTO_E_INTERNAL, "join: node '%s' was added but is not there", name);
}

/* ---- volumes ---- */

static int volume_list(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	(void)params;
	(void)e;
	view_volumes(agent, out);
	return 0;
}

static int volume_show(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	char name[NAME_BYTES_MAX];
	int rc = get_name(params, name, e);

	if (rc < 0)
		return rc;
	return view_volume(agent, out, name) ? 0 : err_set(e, PROTO_E_NOT_FOUND, "there is no volume '%s'", name);
}

/* The primary's engine does it; how far it is stands in volume.show. */
static int volume_verify(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	char name[NAME_BYTES_MAX];
	struct store_volume v;
	int rc = get_name(params, name, e);

	if (rc < 0)
		return rc;
	if (!store_volume(agent->store, name, &v))
		return err_set(e, PROTO_E_NOT_FOUND, "there is no volume '%s'", name);
	volumes_verify(agent->volumes, &v, get_flag(params, "primary_wins"));
	return view_volume(agent, out, name) ? 0 : PROTO_E_NOT_FOUND;
}

static node_id_t find_node(struct agent *agent, const struct msgpack_object *params)
{
	struct store_node nodes[NODES_MAX];
	size_t n = store_nodes(agent->store, nodes, NODES_MAX);
	char name[NAME_BYTES_MAX];

	for (size_t i = 0; unpack_str(unpack_key(params, "node"), name, sizeof name) && i < n; i++)
		if (strcmp(nodes[i].name, name) == 0)
			return nodes[i].node;
	return 0;
}

static bool is_up(struct agent *agent, node_id_t node)
{
	struct node_peer_status s;

	node_peer_status(agent->node, node, &s);
	return s.lease;
}

static int volume_export(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_export body = {.node = find_node(agent, params)};
	int rc = get_name(params, body.volume, e);

	if (rc < 0)
		return rc;
	if (body.node == 0)
		return err_set(e, PROTO_E_INVALID, "volume export: --node NODE is missing, or there is no such node");
	add_body(c, &command_export_type, &body);
	return 0;
}

/* V31. Only where nobody that is up has the data. */
static int may_force(struct agent *agent, const struct store_volume *v, node_id_t node, struct err *e)
{
	const struct store_replica *r = store_volume_on(v, node);

	if (!r || r->leaving)
		return err_set(e, PROTO_E_CONFLICT, "volume '%s' has no replica there (kedge volume show %s)", v->name,
			       v->name);
	for (size_t i = 0; i < v->n_members; i++)
		if (store_replica_is_good(&v->members[i]) && is_up(agent, v->members[i].node))
			return err_set(e, PROTO_E_CONFLICT,
				       "volume '%s': a replica that is up has all its data: nothing need be lost, wait",
				       v->name);
	return is_up(agent, node) ? 0 : err_set(e, PROTO_E_CONFLICT, "volume '%s': that node is not up", v->name);
}

static int volume_force(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_volume_takeover body = {.kind = VOLUME_FORCE,
					       .node = find_node(agent, params),
					       .reason = "forced, what the others had is given up"};
	struct store_volume v;
	char name[NAME_BYTES_MAX];
	int rc = get_name(params, name, e);

	if (rc < 0)
		return rc;
	if (!store_volume(agent->store, name, &v))
		return err_set(e, PROTO_E_NOT_FOUND, "there is no volume '%s'", name);
	if (body.node == 0)
		return err_set(e, PROTO_E_INVALID, "volume force: --node NODE is missing, or there is no such node");
	if (!get_flag(params, "accept_data_loss"))
		return err_set(e, PROTO_E_INVALID, "volume force: DATA IS LOST by this: --accept-data-loss is missing");
	rc = may_force(agent, &v, body.node, e);
	if (rc < 0)
		return rc;
	memcpy(body.id, v.id, sizeof body.id);
	body.epoch = v.epoch;
	add_body(c, &command_volume_takeover_type, &body);
	return 0;
}

static int volume_unexport(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_export body = {0};
	int rc = get_name(params, body.volume, e);

	(void)agent;
	if (rc == 0)
		add_body(c, &command_export_type, &body);
	return rc;
}

/* What engines ask for comes by these, from their nodes. */
static int get_id(const struct msgpack_object *params, char ret[VOLUME_NAME_ID], struct err *e)
{
	return unpack_str(unpack_key(params, "id"), ret, VOLUME_NAME_ID)
		       ? 0
		       : err_set(e, PROTO_E_INVALID, "the request needs a volume's id");
}

static int volume_change(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_volume_change body = {.from = (uint32_t)get_number(params, "from", 0),
					     .kind = (uint32_t)get_number(params, "kind", UINT32_MAX),
					     .epoch = (uint32_t)get_number(params, "epoch", 0),
					     .node = (uint32_t)get_number(params, "node", 0),
					     .incarnation = get_number(params, "incarnation", 0)};
	int rc = get_id(params, body.id, e);

	(void)agent;
	if (rc == 0)
		add_body(c, &command_volume_change_type, &body);
	return rc;
}

static int volume_report(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_volume_report body = {.node = (uint32_t)get_number(params, "node", 0),
					     .incarnation = get_number(params, "incarnation", 0),
					     .room = get_number(params, "room", 0)};
	int rc = get_id(params, body.id, e);

	(void)agent;
	if (rc == 0 && !unpack_str(unpack_key(params, "replica"), body.replica, sizeof body.replica))
		rc = err_set(e, PROTO_E_INVALID, "the request needs a replica's id");
	if (rc == 0)
		add_body(c, &command_volume_report_type, &body);
	return rc;
}

static int volume_erased(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_volume_erased body = {.node = (uint32_t)get_number(params, "node", 0)};
	int rc = get_id(params, body.id, e);

	(void)agent;
	if (rc == 0)
		add_body(c, &command_volume_erased_type, &body);
	return rc;
}

static int volume_filled(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_volume_filled body = {.primary_since = (uint32_t)get_number(params, "primary_since", 0)};
	int rc = get_id(params, body.id, e);

	(void)agent;
	if (rc == 0)
		add_body(c, &command_volume_filled_type, &body);
	return rc;
}

/* ---- images ---- */

static int image_list(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	(void)params;
	(void)e;
	view_images(agent, out);
	return 0;
}

/* On how many nodes is each of these files? @nodes: how many could have it. */
static int image_have(struct agent *agent, const struct msgpack_object *params, struct pack *out, struct err *e)
{
	const struct msgpack_object *digests = unpack_key(params, "digests");
	struct store_node nodes[NODES_MAX];
	size_t n = store_nodes(agent->store, nodes, NODES_MAX);
	char digest[DIGEST_BYTES_MAX];
	uint64_t could = 0;

	(void)e;
	for (size_t i = 0; i < n; i++)
		could += strcmp(nodes[i].role, "witness") != 0;
	pack_map(out);
	pack_kv_u64(out, "nodes", could);
	pack_key(out, "copies");
	pack_array(out);
	for (size_t i = 0; i < unpack_count(digests); i++)
		pack_u64(out, unpack_str(unpack_at(digests, i), digest, sizeof digest)
				      ? (uint64_t)__builtin_popcountll(store_holders(agent->store, digest))
				      : 0);
	pack_end(out);
	pack_end(out);
	return 0;
}

static int image_rm(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_image_rm body = {0};
	int rc = get_name(params, body.name, e);

	(void)agent;
	if (rc == 0)
		add_body(c, &command_image_rm_type, &body);
	return rc;
}

/* These two come from the node that has the file. */
static int image_add(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_image_add body = {.bytes = get_number(params, "bytes", 0),
					 .size = get_number(params, "size", 0),
					 .copies = (uint32_t)get_number(params, "copies", 0),
					 .node = (uint32_t)get_number(params, "node", 0)};
	int rc = get_name(params, body.name, e);

	(void)agent;
	if (rc == 0 && (!unpack_str(unpack_key(params, "digest"), body.digest, sizeof body.digest) ||
			!unpack_str(unpack_key(params, "format"), body.format, sizeof body.format)))
		rc = err_set(e, PROTO_E_INVALID, "an image needs a digest and a format");
	if (rc == 0)
		add_body(c, &command_image_add_type, &body);
	return rc;
}

static int image_held(struct agent *agent, const struct msgpack_object *params, struct change *c, struct err *e)
{
	struct command_image_held body = {.node = (uint32_t)get_number(params, "node", 0),
					  .held = get_flag(params, "held"),
					  .unused = get_flag(params, "unused")};

	(void)agent;
	if (!unpack_str(unpack_key(params, "digest"), body.digest, sizeof body.digest))
		return err_set(e, PROTO_E_INVALID, "the request needs a digest");
	add_body(c, &command_image_held_type, &body);
	return 0;
}

/* ---- the table ---- */

static const struct method methods[] = {
	{"status", METHOD_STATUS, NET_ROLE_VIEWER, status, NULL, NULL},
	{"node.list", METHOD_READ, NET_ROLE_VIEWER, node_list, NULL, NULL},
	{"node.show", METHOD_READ, NET_ROLE_VIEWER, node_show, NULL, NULL},
	{"vm.list", METHOD_READ, NET_ROLE_VIEWER, vm_list, NULL, NULL},
	{"vm.show", METHOD_READ, NET_ROLE_VIEWER, vm_show, NULL, NULL},
	{"volume.list", METHOD_READ, NET_ROLE_VIEWER, volume_list, NULL, NULL},
	{"volume.show", METHOD_READ, NET_ROLE_VIEWER, volume_show, NULL, NULL},
	{"volume.verify", METHOD_READ, NET_ROLE_OPERATOR, volume_verify, NULL, NULL},
	{"volume.export", METHOD_CHANGE, NET_ROLE_OPERATOR, NULL, volume_export, NULL},
	{"volume.unexport", METHOD_CHANGE, NET_ROLE_OPERATOR, NULL, volume_unexport, NULL},
	{"volume.force", METHOD_CHANGE, NET_ROLE_ADMIN, NULL, volume_force, NULL},
	{"node.fence_ack", METHOD_CHANGE, NET_ROLE_ADMIN, NULL, method_node_fence_ack, NULL},
	{"node.remove", METHOD_CHANGE, NET_ROLE_ADMIN, NULL, method_node_remove, NULL},
	{"volume.change", METHOD_CHANGE, NET_ROLE_NODE, NULL, volume_change, NULL},
	{"volume.report", METHOD_CHANGE, NET_ROLE_NODE, NULL, volume_report, NULL},
	{"volume.erased", METHOD_CHANGE, NET_ROLE_NODE, NULL, volume_erased, NULL},
	{"image.list", METHOD_READ, NET_ROLE_VIEWER, image_list, NULL, NULL},
	{"image.have", METHOD_READ, NET_ROLE_OPERATOR, image_have, NULL, NULL},
	{"image.rm", METHOD_CHANGE, NET_ROLE_OPERATOR, NULL, image_rm, NULL},
	{"image.add", METHOD_CHANGE, NET_ROLE_NODE, NULL, image_add, NULL},
	{"image.held", METHOD_CHANGE, NET_ROLE_NODE, NULL, image_held, NULL},
	{"volume.filled", METHOD_CHANGE, NET_ROLE_NODE, NULL, volume_filled, NULL},
	{"upload.begin", METHOD_LOCAL, NET_ROLE_OPERATOR, NULL, NULL, NULL},
	{"upload.data", METHOD_LOCAL, NET_ROLE_OPERATOR, NULL, NULL, NULL},
	{"upload.end", METHOD_LOCAL, NET_ROLE_OPERATOR, NULL, NULL, NULL},
	{"events", METHOD_READ, NET_ROLE_VIEWER, events, NULL, NULL},
	{"token.create", METHOD_CHANGE, NET_ROLE_ADMIN, NULL, token_create, token_created},
	{"apply", METHOD_CHANGE, NET_ROLE_OPERATOR, NULL, apply_documents, NULL},
	{"delete", METHOD_CHANGE, NET_ROLE_OPERATOR, NULL, delete_object, NULL},
	{"vm.start", METHOD_CHANGE, NET_ROLE_OPERATOR, NULL, vm_start, NULL},
	{"vm.stop", METHOD_CHANGE, NET_ROLE_OPERATOR, NULL, vm_stop, NULL},
	{"vm.kill", METHOD_CHANGE, NET_ROLE_OPERATOR, NULL, vm_kill, NULL},
	{"vm.restart", METHOD_CHANGE, NET_ROLE_OPERATOR, NULL, vm_restart, NULL},
	{"node.add", METHOD_CHANGE, NET_ROLE_NODE, NULL, node_add, node_added},
};

const struct method *method_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (strcmp(methods[i].name, name) == 0)
			return &methods[i];
	return NULL;
}

/* NODE < ADMIN < OPERATOR < VIEWER: a lower number may more, but what is for nodes is for nodes alone. */
bool method_is_allowed(const struct method *m, enum net_role role)
{
	return role != NET_ROLE_NONE && role <= m->role;
}
