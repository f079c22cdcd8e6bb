/* SPDX-License-Identifier: Apache-2.0
 * The engine in cluster mode, what comes from kedged: the node, rows, orders, and what became of proposals. It goes on
 * with what it has when kedged dies, and changes no epoch by itself. */
#include "volume/engine_agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PROPOSE_MAX (3 * USEC_PER_SEC) /* without an answer for so long its outcome is unknown */

/* ---- volumes ---- */

static struct vol *find(const struct engine *g, const uint8_t id[VOLUME_ID_BYTES])
{
	for (struct vol *v = g->vols; v; v = v->next)
		if (v->step != VOL_ERASED && memcmp(v->id, id, VOLUME_ID_BYTES) == 0)
			return v;
	return NULL;
}

/* ---- HELLO ---- */

static const struct guard_page *map_page(int fd)
{
	const struct guard_page *page;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof *page)
		return NULL;
	page = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return NULL;
	if (page->magic == GUARD_PAGE_MAGIC && page->version == GUARD_PAGE_VERSION)
		return page;
	(void)munmap((void *)page, sizeof *page);
	return NULL;
}

static void unmap_page(struct agent_store *a)
{
	if (a->page)
		(void)munmap((void *)a->page, sizeof *a->page);
	a->page = NULL;
}

static bool hello(struct engine *g, const void *msg, int fd)
{
	struct agent_store *a = g->agent_store;
	const struct engine_hello *h = msg;
	const struct guard_page *page;

	if (h->node < 1 || h->node > NODES_MAX || (g->node && g->node != h->node))
		return false;
	page = map_page(fd);
	if (!page)
		return false;
	unmap_page(a);
	a->page = page;
	g->node = h->node;
	if (!a->is_greeted)
		log_info("kedged of node %u is there", g->node);
	a->is_greeted = true;
	tell_all(g, clock_boottime());
	return true;
}

/* ---- ROW ---- */

static bool read_members(const struct message_bin *bin, struct volume_row *ret)
{
	const uint8_t *p = bin->p;
	size_t left = bin->n, used;

	while (left > 0) {
		struct volume_member *m = &ret->members[ret->n_members];
		struct engine_member e;

		if (ret->n_members == ENGINE_REPLICAS_MAX ||
		    message_decode(&engine_member_type, p, left, &e, &used) < 0)
			return false;
		if (e.node < 1 || e.node > NODES_MAX || (e.replica[0] && !volume_id_parse(e.replica, m->replica)))
			return false;
		m->node = e.node;
		m->in_sync = e.in_sync;
		m->incarnation = e.incarnation;
		m->reported = e.reported;
		m->size = e.size;
		ret->n_members++;
		p += used;
		left -= used;
	}
	return true;
}

static bool read_row(const struct engine_row *r, uint8_t ret_id[VOLUME_ID_BYTES], struct volume_row *ret)
{
	_Static_assert((int)ENGINE_REPLICAS_MAX == VOLUME_MEMBERS_MAX, "one is the other");
	*ret = (struct volume_row){.version = r->version,
				   .size = r->size,
				   .grow_to = r->grow_to,
				   .epoch = r->epoch,
				   .primary = r->primary,
				   .primary_since = r->primary_since,
				   .fork = r->fork,
				   .cold = r->cold,
				   .vm_epoch = r->vm_epoch};
	return volume_id_parse(r->id, ret_id) && name_is_valid(r->name) && volume_size_is_valid(r->size) &&
	       r->version > 0 && r->serve <= ENGINE_SERVE_EXPORT && read_members(&r->members, ret);
}

/* Does the row know what was opened here? */
static bool is_reported(const struct vol *v)
{
	const struct volume_member *m = vol_member(v);

	return v->step == VOL_OPEN && m && m->reported == v->incarnation && m->size == v->room &&
	       memcmp(m->replica, v->replica_id, sizeof v->replica_id) == 0;
}

/* Who may use it here; whoever did by another order may not. */
static void order(struct vol *v, uint32_t serve, uint64_t gen)
{
	if (v->agent.serve == serve && v->agent.gen == gen)
		return;
	v->agent.serve = serve;
	v->agent.gen = gen;
	vol_drop_clients(v);
}

static void adopt(struct vol *v, const struct engine_row *r, const struct volume_row *row)
{
	if (row->version < v->row.version)
		return;
	order(v, r->serve, r->gen);
	if (row->version == v->row.version)
		return;
	v->row = *row;
	memcpy(v->name, r->name, sizeof v->name);
	v->is_reported = is_reported(v);
	if (v->step == VOL_OPEN)
		volume_core_row(v->core, row);
}

static bool names(const struct volume_row *row, node_id_t node)
{
	for (size_t i = 0; i < row->n_members; i++)
		if (row->members[i].node == node)
			return true;
	return false;
}

static struct vol *new_vol(struct engine *g, const uint8_t id[VOLUME_ID_BYTES], const struct engine_row *r)
{
	struct vol *v = vol_new(g, id);

	memcpy(v->name, r->name, sizeof v->name);
	return v;
}

/* It is being erased: what is newer begins anew afterwards. */
static void want_again(struct vol *v, const struct engine_row *r, const struct volume_row *row)
{
	if (row->version <= v->row.version)
		return;
	v->agent.wanted_again = names(row, v->g->node);
	adopt(v, r, row);
}

static bool row_came(struct engine *g, const void *msg, int fd)
{
	const struct engine_row *r = msg;
	struct volume_row row;
	uint8_t id[VOLUME_ID_BYTES];
	struct vol *v;

	(void)fd;
	if (!read_row(r, id, &row))
		return false;
	v = find(g, id);
	if (v && v->agent.dropping) {
		want_again(v, r, &row);
	} else if (v) {
		adopt(v, r, &row);
		agent_moved(v);
	} else if (names(&row, g->node)) {
		v = new_vol(g, id, r);
		adopt(v, r, &row);
		vol_open(v);
	}
	return true;
}

/* ---- DROP ---- */

static bool drop(struct engine *g, const void *msg, int fd)
{
	const struct engine_drop *d = msg;
	uint8_t id[VOLUME_ID_BYTES];
	struct vol *v;

	(void)fd;
	if (!volume_id_parse(d->id, id))
		return false;
	v = find(g, id);
	if (!v) {
		v = vol_new(g, id); /* nothing is open, but files may be there */
		memcpy(v->name, d->id, VOLUME_ID_TEXT);
	}
	if (!v->agent.dropping)
		log_info("%s: the replica here was given up", v->name);
	v->agent.dropping = true;
	v->agent.wanted_again = false;
	order(v, ENGINE_SERVE_NOBODY, 0);
	vol_drop_clients(v);
	vol_end(v);
	return true;
}

static void agent_erased(struct vol *v)
{
	struct engine_drop msg = {0};

	volume_id_text(v->id, msg.id);
	tell(v->g, &engine_dropped_type, &msg);
	v->agent.dropping = false;
	if (!v->agent.wanted_again || v->g->closing)
		return;
	v->agent.wanted_again = false;
	vol_open(v);
}

/* ---- proposals ---- */

static void proposed(struct vol *v, int rc)
{
	v->agent.asked = 0;
	if (v->core)
		volume_core_proposed(v->core, &v->agent.change, rc);
}

/* [loop] From inside the core: nothing may come back before it returns. */
static void agent_propose(struct vol *v, const struct volume_change *change)
{
	struct agent_store *a = v->g->agent_store;
	struct engine_propose msg = {.seq = ++a->proposals,
				     .kind = change->kind,
				     .epoch = change->epoch,
				     .node = change->node,
				     .incarnation = change->incarnation};

	v->agent.asked = msg.seq;
	v->agent.change = *change;
	v->agent.asked_until = a->is_greeted ? clock_boottime() + PROPOSE_MAX : 0;
	volume_id_text(v->id, msg.id);
	tell(v->g, &engine_propose_type, &msg);
}

static bool proposed_came(struct engine *g, const void *msg, int fd)
{
	const struct engine_proposed *p = msg;

	(void)fd;
	if (p->error > INT32_MAX)
		return false;
	for (struct vol *v = g->vols; v; v = v->next)
		if (p->seq && v->agent.asked == p->seq) {
			proposed(v, -(int)p->error);
			break;
		}
	return true;
}

/* ---- the rest ---- */

static bool verify(struct engine *g, const void *msg, int fd)
{
	const struct engine_verify *m = msg;
	uint8_t id[VOLUME_ID_BYTES];
	struct vol *v;
	int rc;

	(void)fd;
	if (!volume_id_parse(m->id, id))
		return false;
	v = find(g, id);
	rc = v ? scrub_begin(v, m->primary_wins) : -ENOENT;
	if (rc < 0 && rc != -EALREADY)
		log_warning("%s: it cannot be compared here: %s", v ? v->name : m->id, strerror(-rc));
	if (v)
		v->agent.next_status = 0;
	return true;
}

static bool echo(struct engine *g, const void *msg, int fd)
{
	(void)fd;
	tell(g, &engine_echo_type, msg);
	return true;
}

static const struct {
	const struct message_type *type;
	bool (*fn)(struct engine *g, const void *msg, int fd);
} messages[] = {
	{&engine_hello_type, hello},   {&engine_row_type, row_came},
	{&engine_drop_type, drop},     {&engine_proposed_type, proposed_came},
	{&engine_verify_type, verify}, {&engine_echo_type, echo},
};

static bool agent_message(struct engine *g, struct caller *c, const uint8_t *p, size_t n, int fd)
{
	struct agent_store *a = g->agent_store;
	union {
		struct engine_hello hello;
		struct engine_row row;
		struct engine_drop drop;
		struct engine_proposed proposed;
		struct engine_verify verify;
		struct engine_echo echo;
	} msg;
	uint32_t id;

	if (message_id(p, n, &id) < 0)
		return false;
	if (g->closing) /* nothing is begun any more */
		return true;
	a->caller = c;
	for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
		if (messages[i].type->id != id)
			continue;
		if (message_decode(messages[i].type, p, n, &msg, NULL) < 0)
			return false;
		return (a->is_greeted || id == ENGINE_HELLO) && messages[i].fn(g, &msg, fd);
	}
	return a->is_greeted; /* of a newer release */
}

static void agent_caller_gone(struct engine *g, struct caller *c)
{
	struct agent_store *a = g->agent_store;

	if (a->caller != c)
		return;
	a->caller = NULL;
	if (a->is_greeted)
		log_info("kedged of node %u is gone: going on", g->node);
	a->is_greeted = false;
	for (struct vol *v = g->vols; v; v = v->next)
		v->agent.asked_until = 0; /* told in the next turn: this may be inside the core */
}

/* ---- life ---- */

/* QEMU learns a size when it connects, so it is made to; others keep the old one until they connect anew. */
static void tell_size(struct vol *v)
{
	if (v->step != VOL_OPEN || v->agent.size_known == vol_size(v))
		return;
	if (v->agent.size_known && v->agent.serve == ENGINE_SERVE_VM)
		vol_drop_clients(v);
	v->agent.size_known = vol_size(v);
}

static void turn_of(struct vol *v, usec_t now)
{
	if (v->agent.asked && now >= v->agent.asked_until)
		proposed(v, -ETIMEDOUT);
	if (v->agent.serve == ENGINE_SERVE_EXPORT && !agent_allows(v))
		vol_drop_clients(v); /* L23: also those that ask for nothing */
	tell_size(v);
	tell_due(v, now);
}

static void agent_turn(struct engine *g, usec_t now)
{
	if (g->closing && !g->agent_store->has_left) {
		g->agent_store->has_left = true;
		tell_about(g, true); /* so that nobody takes it for a death */
	}
	for (struct vol *v = g->vols; v; v = v->next)
		turn_of(v, now);
}

static void agent_look(struct engine *g)
{
	(void)g; /* kedged tells each row as soon as it has it */
}

static int agent_begin(struct engine *g, struct err *e)
{
	(void)e;
	g->agent_store = xcalloc(1, sizeof *g->agent_store);
	return 0;
}

static int agent_report(const struct vol *v, const struct volume_replica *r, struct err *e)
{
	(void)v; /* told once it is open, until the row says so */
	(void)r;
	(void)e;
	return 0;
}

static void agent_opened(struct vol *v)
{
	v->is_reported = is_reported(v);
	v->agent.next_opened = v->agent.next_status = 0;
	tell_due(v, clock_boottime());
}

static void agent_grown(struct vol *v)
{
	v->is_reported = is_reported(v);
	v->agent.next_opened = 0;
	tell_due(v, clock_boottime());
}

static bool agent_is_idle(const struct engine *g)
{
	(void)g;
	return true;
}

static void agent_end(struct engine *g)
{
	unmap_page(g->agent_store);
	free(g->agent_store);
	g->agent_store = NULL;
}

const struct engine_store engine_agent_store = {
	.one_caller = true,
	.begin = agent_begin,
	.turn = agent_turn,
	.look = agent_look,
	.propose = agent_propose,
	.report = agent_report,
	.opened = agent_opened,
	.moved = agent_moved,
	.grown = agent_grown,
	.erased = agent_erased,
	.linked = agent_linked,
	.found = agent_found,
	.allows = agent_allows,
	.message = agent_message,
	.caller_gone = agent_caller_gone,
	.is_idle = agent_is_idle,
	.end = agent_end,
};
