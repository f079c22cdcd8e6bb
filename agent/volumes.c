/* SPDX-License-Identifier: Apache-2.0
 * The volumes of this node, between the applied state and the engine. */
#include "agent/volumes.h"

#include "agent/agent.h"
#include "agent/engine_link.h"
#include "agent/spawn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define TELL_EVERY  USEC_PER_SEC
#define AGAIN_AFTER USEC_PER_SEC /* a report that was not taken */

/* A volume with a replica here. */
struct local {
	char id[VOLUME_NAME_ID];
	bool wanted;  /* by the state as it was read last */
	bool is_told; /* the engine has this row: */
	uint64_t version;
	uint32_t serve;
	uint64_t gen;
	bool has_status;
	struct engine_status status; /* @peers is in @peers */
	struct buf peers;
	struct engine_opened opened; /* reported last */
	usec_t reported_at;
	bool erasing; /* that its files are gone is being told */
};

_Static_assert(CONFIG_ENGINE_OPTIONS_MAX <= SPAWN_OPTIONS_MAX, "all of them can be passed on");

struct volumes {
	struct agent *agent;
	struct engine_link *link;
	struct local *locals;
	size_t n_locals;
	uint64_t changes; /* of the store, when it was read last */
	bool behind;      /* something could not be told: the socket is full */
	usec_t next_tell, again_at;
	uint64_t session, num; /* of this node's own requests */
	const char *options[CONFIG_ENGINE_OPTIONS_MAX + 1];
};

static struct local *find(struct volumes *v, const char *id)
{
	for (size_t i = 0; i < v->n_locals; i++)
		if (strcmp(v->locals[i].id, id) == 0)
			return &v->locals[i];
	return NULL;
}

static struct local *find_or_add(struct volumes *v, const char *id)
{
	struct local *l = find(v, id);

	if (l)
		return l;
	v->locals = xrealloc(v->locals, (v->n_locals + 1) * sizeof *v->locals);
	l = &v->locals[v->n_locals++];
	*l = (struct local){0};
	memcpy(l->id, id, sizeof l->id);
	return l;
}

/* ---- up: what becomes a command ---- */

struct asked {
	struct volumes *v;
	char id[VOLUME_NAME_ID];
	uint64_t seq; /* of the engine's proposal; 0: none */
	bool erased;
};

/* [1, msgid, error, result] */
static int outcome_of(const uint8_t *response, size_t n)
{
	struct unpack u;
	int64_t code = PROTO_E_INTERNAL;
	int rc = -ETIMEDOUT;

	if (unpack_open(&u, response, n) == 0) {
		const struct msgpack_object *error = unpack_at(u.root, 2);

		if (unpack_is_nil(error))
			rc = 0;
		else if (unpack_i64(unpack_key(error, "code"), &code) && code == PROTO_E_CONFLICT)
			rc = -EAGAIN;
		else if (code == PROTO_E_INVALID || code == PROTO_E_NOT_FOUND)
			rc = -EINVAL;
	}
	unpack_free(&u);
	return rc;
}

static void answered(void *ctx, const uint8_t *response, size_t n)
{
	struct asked *a = ctx;
	struct local *l = find(a->v, a->id);

	if (a->seq && a->v->link)
		engine_link_proposed(a->v->link, a->seq, outcome_of(response, n));
	if (l && a->erased) {
		l->erasing = false;
		l->is_told = false; /* where it was not taken, the engine says it once more */
		a->v->again_at = clock_boottime() + AGAIN_AFTER;
	}
	free(a);
}

static void begin(struct volumes *v, struct pack *p, struct buf *params, const char *id)
{
	*p = (struct pack){.out = params};
	pack_map(p);
	pack_kv_u64(p, "session", v->session);
	pack_kv_u64(p, "num", ++v->num);
	pack_kv_str(p, "id", id);
}

static struct asked *submit(struct volumes *v, const char *method, struct pack *p, const char *id, uint64_t seq)
{
	struct asked *a = xcalloc(1, sizeof *a);

	pack_end(p);
	*a = (struct asked){.v = v, .seq = seq};
	memcpy(a->id, id, sizeof a->id);
	ctl_submit(v->agent->ctl, method, p->out, answered, a);
	buf_free(p->out);
	return a;
}

/* REPORT: again only when something changed, or it was not taken for a while. */
static void opened_cb(void *ctx, const struct engine_opened *m)
{
	struct volumes *v = ctx;
	struct local *l = find(v, m->id);
	usec_t now = clock_boottime();
	struct buf params = {0};
	struct pack p;

	if (!l || !v->agent->ctl)
		return;
	if (l->opened.incarnation == m->incarnation && strcmp(l->opened.replica, m->replica) == 0 &&
	    l->opened.size == m->size && now - l->reported_at < AGAIN_AFTER)
		return;
	l->opened = *m;
	l->reported_at = now;
	begin(v, &p, &params, m->id);
	pack_kv_u64(&p, "node", v->agent->config.id);
	pack_kv_str(&p, "replica", m->replica);
	pack_kv_u64(&p, "incarnation", m->incarnation);
	pack_kv_u64(&p, "room", m->size);
	submit(v, "volume.report", &p, m->id, 0);
}

static void propose_cb(void *ctx, const struct engine_propose *m)
{
	struct volumes *v = ctx;
	struct buf params = {0};
	struct pack p;

	if (!v->agent->ctl) {
		engine_link_proposed(v->link, m->seq, -ETIMEDOUT);
		return;
	}
	begin(v, &p, &params, m->id);
	pack_kv_u64(&p, "from", v->agent->config.id);
	pack_kv_u64(&p, "kind", m->kind);
	pack_kv_u64(&p, "epoch", m->epoch);
	pack_kv_u64(&p, "node", m->node);
	pack_kv_u64(&p, "incarnation", m->incarnation);
	submit(v, "volume.change", &p, m->id, m->seq);
}

static void dropped_cb(void *ctx, const struct engine_drop *m)
{
	struct volumes *v = ctx;
	struct local *l = find(v, m->id);
	struct buf params = {0};
	struct pack p;

	if (!l || l->erasing || !v->agent->ctl)
		return;
	l->erasing = true;
	begin(v, &p, &params, m->id);
	pack_kv_u64(&p, "node", v->agent->config.id);
	submit(v, "volume.erased", &p, m->id, 0)->erased = true;
}

static void status_cb(void *ctx, const struct engine_status *m)
{
	struct volumes *v = ctx;
	struct local *l = find(v, m->id);

	if (!l)
		return;
	if (!l->has_status || l->status.serves != m->serves || l->status.leads != m->leads)
		v->next_tell = 0;
	l->has_status = true;
	l->status = *m;
	buf_consume(&l->peers, l->peers.len);
	buf_append(&l->peers, m->peers.p, m->peers.n);
	l->status.peers = (struct message_bin){l->peers.data, l->peers.len};
}

static void finding_cb(void *ctx, const struct engine_finding *m)
{
	static const char *const verdicts[] = {"wrong, repaired", "undecidable", "lost"};
	struct store_volume row;
	struct volumes *v = ctx;

	if (m->verdict < ARRAY_LEN(verdicts) && store_volume_by_id(v->agent->store, m->id, &row))
		log_warning("volume %s: scrub: %llu bytes at %llu are %s (node %u%s)", row.name,
			    (unsigned long long)m->length, (unsigned long long)m->offset, verdicts[m->verdict], m->node,
			    m->unreadable ? ", unreadable" : "");
}

static void connected_cb(void *ctx)
{
	struct volumes *v = ctx;

	for (size_t i = 0; i < v->n_locals; i++) {
		v->locals[i].is_told = v->locals[i].has_status = false;
		v->locals[i].reported_at = 0;
	}
	v->behind = true;
}

static bool peer_known_cb(void *ctx, node_id_t node)
{
	struct store_node row;

	return store_node(((struct volumes *)ctx)->agent->store, node, &row);
}

/* ---- down: rows ---- */

/* Who may use it here: its VM or its export, where that is placed on this node; before it is filled, what fills it, on
 * the node that leads it. */
static uint32_t serve_of(struct volumes *v, const struct store_volume *row, uint64_t *ret_gen)
{
	struct store_vm vm;

	*ret_gen = 0;
	if (row->filling)
		return row->primary == v->agent->config.id ? ENGINE_SERVE_VM : ENGINE_SERVE_NOBODY;
	if (row->vm[0] == '\0' || !store_vm(v->agent->store, row->vm, &vm) || vm.owner != v->agent->config.id)
		return ENGINE_SERVE_NOBODY;
	if (!vm.is_export)
		return ENGINE_SERVE_VM;
	*ret_gen = vm.gen;
	return ENGINE_SERVE_EXPORT;
}

static void pack_members(const struct store_volume *row, struct buf *ret)
{
	for (size_t i = 0; i < row->n_members; i++) {
		const struct store_replica *r = &row->members[i];
		struct engine_member m = {.node = r->node,
					  .in_sync = r->in_sync,
					  .incarnation = r->incarnation,
					  .reported = r->reported,
					  .size = r->room};

		if (r->leaving)
			continue;
		memcpy(m.replica, r->replica, sizeof m.replica);
		message_encode(&engine_member_type, &m, ret);
	}
}

static bool tell_row(struct volumes *v, const struct store_volume *row, uint32_t serve, uint64_t gen)
{
	struct engine_row m = {.size = row->size,
			       .version = row->version,
			       .epoch = row->epoch,
			       .primary = row->primary,
			       .primary_since = row->primary_since,
			       .fork = row->fork,
			       .cold = row->cold,
			       .vm_epoch = row->vm_epoch,
			       .serve = serve,
			       .gen = gen,
			       .grow_to = row->grow_to};
	struct buf members = {0};
	bool sent;

	memcpy(m.id, row->id, sizeof m.id);
	memcpy(m.name, row->name, sizeof m.name);
	pack_members(row, &members);
	m.members = (struct message_bin){members.data, members.len};
	sent = engine_link_row(v->link, &m);
	buf_free(&members);
	return sent;
}

static void tell(struct volumes *v, const struct store_volume *row, const struct store_replica *mine)
{
	struct local *l = find_or_add(v, row->id);
	uint64_t gen;
	uint32_t serve = serve_of(v, row, &gen);

	l->wanted = true;
	if (l->is_told && l->version == row->version && l->serve == serve && l->gen == gen)
		return;
	/* Files are erased only by a state that is surely not an old one (as L6 has it for starts). */
	l->is_told = !mine->leaving               ? tell_row(v, row, serve, gen)
		     : node_knows(v->agent->node) ? engine_link_drop(v->link, row->id)
						  : false;
	l->version = row->version;
	l->serve = serve;
	l->gen = gen;
	v->behind |= !l->is_told;
}

static void forget_unwanted(struct volumes *v)
{
	for (size_t i = 0; i < v->n_locals;) {
		struct local *l = &v->locals[i];

		if (l->wanted) {
			i++;
			continue;
		}
		buf_free(&l->peers);
		*l = v->locals[--v->n_locals];
	}
}

/* Of a pair the lower number dials, as with the links of peers. */
static void keep_links(struct volumes *v, uint64_t shared)
{
	struct store_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
	size_t n = store_nodes(v->agent->store, nodes, NODES_MAX);

	for (node_id_t node = v->agent->config.id + 1, i = 0; node <= NODES_MAX; node++) {
		while (i < n && nodes[i].node < node)
			i++;
		engine_link_peer(v->link, node,
				 i < n && nodes[i].node == node && shared & 1ULL << (node - 1) ? nodes[i].address
											       : NULL);
	}
	free(nodes);
}

static void tell_all(struct volumes *v)
{
	size_t n;
	const struct store_volume *rows = node_volumes(v->agent->node, &n);
	uint64_t shared = 0;

	v->behind = false;
	for (size_t i = 0; i < v->n_locals; i++)
		v->locals[i].wanted = false;
	for (size_t i = 0; i < n; i++) {
		const struct store_replica *mine = store_volume_on(&rows[i], v->agent->config.id);

		if (!mine)
			continue;
		tell(v, &rows[i], mine);
		for (size_t k = 0; k < rows[i].n_members; k++)
			shared |= 1ULL << (rows[i].members[k].node - 1);
	}
	forget_unwanted(v);
	keep_links(v, shared);
}

/* ---- what others are told ---- */

static void tell_leader(struct volumes *v, usec_t now)
{
	struct buf all = {0};

	if (now < v->next_tell)
		return;
	v->next_tell = now + TELL_EVERY;
	for (size_t i = 0; i < v->n_locals; i++)
		if (v->locals[i].has_status)
			message_encode(&engine_status_type, &v->locals[i].status, &all);
	node_set_volumes(v->agent->node, all.data, all.len);
	buf_free(&all);
}

void volumes_step(struct volumes *v)
{
	uint64_t changes = store_changes(v->agent->store);

	engine_link_step(v->link);
	if (v->again_at && clock_boottime() >= v->again_at) {
		v->again_at = 0;
		v->behind = true;
	}
	if (engine_link_is_connected(v->link) && (v->behind || v->changes != changes)) {
		v->changes = changes;
		tell_all(v);
	}
	tell_leader(v, clock_boottime());
}

bool volumes_serve_one(const struct volumes *v, const struct store_volume *row)
{
	const struct local *l = find((struct volumes *)v, row->id);

	return l && l->has_status && l->status.serves && l->status.epoch >= row->vm_epoch;
}

uint64_t volumes_size(const struct volumes *v, const struct store_volume *row)
{
	const struct local *l = find((struct volumes *)v, row->id);

	return l && l->has_status ? l->status.size : 0;
}

bool volumes_serve(const struct volumes *v, const struct store_vm *vm)
{
	size_t n;
	const struct store_volume *disks = node_disks(v->agent->node, vm, &n);

	if (n > 0 && (!v->link || !engine_link_is_connected(v->link)))
		return false; /* what an engine said that is gone counts no more */
	for (size_t i = 0; i < n; i++)
		if (!volumes_serve_one(v, &disks[i]))
			return false;
	return true;
}

void volumes_info(struct volumes *v, struct peer_node_info *ret)
{
	struct statvfs st;

	ret->has_engine = v->link && engine_link_is_connected(v->link);
	ret->engine_unsound = v->link && engine_link_is_unsound(v->link);
	if (v->link)
		(void)snprintf(ret->engine_version, sizeof ret->engine_version, "%s", engine_link_version(v->link));
	ret->disk_free = statvfs(v->agent->config.dir, &st) == 0 ? (uint64_t)st.f_bavail * st.f_frsize : 0;
}

void volumes_socket(const struct config *config, char ret[PATH_BYTES_MAX])
{
	(void)snprintf(ret, PATH_BYTES_MAX, "%.1000s/run/nbd.sock", config->dir);
}

void volumes_verify(struct volumes *v, const struct store_volume *row, bool primary_wins)
{
	struct engine_verify m = {.primary_wins = primary_wins};
	struct buf frame = {0};
	int rc;

	memcpy(m.id, row->id, sizeof m.id);
	if (row->primary == v->agent->config.id && v->link) {
		(void)engine_link_verify(v->link, m.id, m.primary_wins);
		return;
	}
	message_encode(&peer_volume_verify_type, &m, &frame);
	rc = net_peer_send(v->agent->net, row->primary, frame.data, frame.len);
	(void)rc;
	buf_free(&frame);
}

bool volumes_frame(struct volumes *v, const uint8_t *p, size_t n)
{
	struct engine_verify m;
	uint32_t id;

	if (message_id(p, n, &id) < 0 || id != PEER_VOLUME_VERIFY)
		return false;
	if (v->link && message_decode(&peer_volume_verify_type, p, n, &m, NULL) == 0)
		(void)engine_link_verify(v->link, m.id, m.primary_wins);
	return true;
}

void volumes_accept(struct volumes *v, int fd, const uint8_t *first, size_t n)
{
	if (v->link)
		engine_link_accept(v->link, fd, first, n);
	else
		(void)close(fd);
}

/* ---- life ---- */

int volumes_open(struct agent *agent, int memfd, struct volumes **ret, struct err *e)
{
	struct volumes *v = xcalloc(1, sizeof *v);
	const struct engine_link_callbacks cb = {.ctx = v,
						 .connected = connected_cb,
						 .opened = opened_cb,
						 .propose = propose_cb,
						 .status = status_cb,
						 .dropped = dropped_cb,
						 .finding = finding_cb,
						 .peer_known = peer_known_cb};
	const struct engine_link_config config = {.loop = &agent->loop,
						  .dir = agent->config.dir,
						  .options = v->options,
						  .self = agent->config.id,
						  .listen = agent->config.listen,
						  .ca_cert = agent->config.ca,
						  .cert = agent->config.cert,
						  .key = agent->config.key,
						  .memfd = memfd};
	int rc;

	v->agent = agent;
	v->session = random_u64();
	for (size_t i = 0; i < agent->config.n_engine_options; i++)
		v->options[i] = agent->config.engine_options[i];
	rc = engine_link_open(&config, &cb, &v->link, e);
	if (rc < 0) {
		free(v);
		return rc;
	}
	*ret = v;
	return 0;
}

void volumes_close(struct volumes *v)
{
	v->link = engine_link_close(v->link);
}

struct volumes *volumes_free(struct volumes *v)
{
	if (!v)
		return NULL;
	for (size_t i = 0; i < v->n_locals; i++)
		buf_free(&v->locals[i].peers);
	free(v->locals);
	free(v);
	return NULL;
}
