/* SPDX-License-Identifier: Apache-2.0
 * The engine of a node, and what agent/volumes.c does for it: rows go down as the agent's own store has them, proposals
 * and reports go up. An engine whose agent is dead or hung goes on with what it has. */
#include "tests/sim/disks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LOOK_EVERY   (40 * USEC_PER_MS)
#define OPENED_EVERY (USEC_PER_SEC)
#define STATUS_EVERY (USEC_PER_SEC)
#define PROPOSE_MAX  (3 * USEC_PER_SEC)

static usec_t socket_delay(struct world *w, usec_t *last)
{
	usec_t at = w->now + 30 + sim_random(w, 500);

	if (at <= *last)
		at = *last + 1;
	*last = at;
	return at - w->now;
}

/* ---- from the agent: rows ---- */

struct row_msg {
	struct volume_row row;
	bool serve;
};

static void adopt(struct sim_volume *v, unsigned node, const struct row_msg *m)
{
	struct sim_local *l = &v->locals[node];

	if (m->row.version < l->row.version)
		return;
	if (l->serve != m->serve && v->s.guest.node == node)
		vs_guest_cut(&v->s);
	l->serve = m->serve;
	if (m->row.version == l->row.version)
		return;
	l->row = m->row;
	if (v->s.nodes[node].up)
		vs_row(&v->s, node, &l->row, 0);
	else
		vs_node_start(&v->s, node);
}

static void row_event(struct world *w, struct event *e)
{
	struct sim_volume *v = &w->volumes[e->a];
	usec_t stopped = v->s.nodes[e->node].stopped_until;

	if (!w->engines[e->node].up || w->engines[e->node].life != e->b)
		return;
	if (w->now < stopped) { /* it waits in the socket */
		struct event *again = sim_after(w, stopped - w->now, row_event, OWNER_MACHINE, e->node);

		again->a = e->a;
		again->b = e->b;
		again->p = e->p;
		e->p = NULL;
		return;
	}
	adopt(v, e->node, e->p);
}

struct volume_row sim_row_of(const struct store_volume *v)
{
	struct volume_row row = {.version = v->version,
				 .size = v->size,
				 .grow_to = v->grow_to,
				 .epoch = v->epoch,
				 .primary = v->primary,
				 .primary_since = v->primary_since,
				 .fork = v->fork,
				 .cold = v->cold,
				 .vm_epoch = v->vm_epoch};

	for (size_t i = 0; i < v->n_members; i++) {
		const struct store_replica *r = &v->members[i];
		struct volume_member *m = &row.members[row.n_members];

		if (r->leaving)
			continue;
		row.n_members++;
		*m = (struct volume_member){.node = r->node,
					    .in_sync = r->in_sync,
					    .incarnation = r->incarnation,
					    .reported = r->reported,
					    .size = r->room};
		CHECK(!r->replica[0] || volume_id_parse(r->replica, m->replica));
	}
	return row;
}

static bool serves_here(const struct host *h, const struct store_volume *row)
{
	struct store_vm vm;

	return store_vm(h->store, row->vm, &vm) && vm.owner == h->id;
}

static void tell(struct world *w, const struct host *h, const struct store_volume *row)
{
	struct sim_volume *v = sim_volume_named(w, row->id);
	struct sim_local *l = &v->locals[h->id];
	bool serve = serves_here(h, row);
	struct row_msg *m;
	struct event *e;

	if (l->is_told && l->version == row->version && l->told_serve == serve)
		return;
	l->is_told = true;
	l->version = row->version;
	l->told_serve = serve;
	m = xcalloc(1, sizeof *m);
	*m = (struct row_msg){sim_row_of(row), serve};
	e = sim_after(w, socket_delay(w, &l->last_down), row_event, OWNER_MACHINE, h->id);
	e->a = v->vm;
	e->b = w->engines[h->id].life;
	e->p = m;
}

void sim_engines_turn(struct world *w, unsigned node)
{
	struct host *h = &w->hosts[node];
	struct sim_engine *g = &w->engines[node];
	const struct store_volume *rows;
	size_t n;

	if (!w->disks || !g->linked || (g->changes == store_changes(h->store) && !g->behind))
		return;
	g->changes = store_changes(h->store);
	g->behind = false;
	rows = node_volumes(h->node, &n);
	for (size_t i = 0; i < n; i++)
		if (store_volume_on(&rows[i], node))
			tell(w, h, &rows[i]);
}

/* ---- to the agent ---- */

static struct event *up(struct sim_volume *v, unsigned node, event_fn fn)
{
	struct event *e = sim_after(v->w, socket_delay(v->w, &v->locals[node].last_up), fn, OWNER_AGENT, node);

	e->a = v->vm;
	e->b = v->w->engines[node].life;
	return e;
}

static bool is_linked(const struct world *w, const struct event *e)
{
	return w->engines[e->node].linked && w->engines[e->node].life == e->b;
}

static void status_event(struct world *w, struct event *e)
{
	struct sim_local *l = &w->volumes[e->a].locals[e->node];

	if (!is_linked(w, e))
		return;
	l->has_status = true;
	l->status_serves = e->c & 1;
	l->status_epoch = (uint32_t)(e->c >> 1);
}

static void tell_status(struct sim_volume *v, unsigned node, bool leads, bool serves)
{
	struct sim_local *l = &v->locals[node];
	struct volume_core_status st;

	volume_core_status(v->s.nodes[node].core, &st);
	l->leads = leads;
	l->serves = serves;
	l->next_status = v->w->now + STATUS_EVERY;
	up(v, node, status_event)->c = (uint64_t)(leads ? st.lead.epoch : 0) << 1 | serves;
}

/* At once when it leads or serves now, or not any more; else once a second. */
static void tell_status_if_due(struct sim_volume *v, unsigned node)
{
	const struct vs_node *n = &v->s.nodes[node];
	const struct sim_local *l = &v->locals[node];
	bool leads, serves;

	if (!n->up || !v->w->engines[node].linked)
		return;
	leads = volume_core_role(n->core) == VOLUME_LEADING;
	serves = volume_core_serves(n->core) && l->serve;
	if (leads != l->leads || serves != l->serves || v->w->now >= l->next_status)
		tell_status(v, node, leads, serves);
}

struct opened {
	uint64_t incarnation, room;
};

static void opened_event(struct world *w, struct event *e)
{
	struct sim_volume *v = &w->volumes[e->a];
	struct sim_local *l = &v->locals[e->node];
	const struct opened *o = e->p;
	struct command_volume_report c = {.node = e->node, .incarnation = o->incarnation, .room = o->room};
	const uint8_t replica[VOLUME_ID_BYTES] = {(uint8_t)e->node};

	if (!is_linked(w, e) || (l->reported == o->incarnation && l->reported_room == o->room &&
				 w->now < l->reported_at + OPENED_EVERY / 2))
		return;
	l->reported = o->incarnation;
	l->reported_room = o->room;
	l->reported_at = w->now;
	memcpy(c.id, v->id, sizeof c.id);
	volume_id_text(replica, c.replica);
	sim_ask(v, e->node, &command_volume_report_type, &c, 0);
}

static bool is_reported(const struct sim_volume *v, unsigned node)
{
	const struct volume_row *row = &v->locals[node].row;

	for (size_t i = 0; i < row->n_members; i++)
		if (row->members[i].node == node)
			return row->members[i].reported == v->s.nodes[node].disk.state.incarnation &&
			       row->members[i].size == v->s.nodes[node].disk.size;
	return false;
}

/* ---- proposals ---- */

static void proposed_event(struct vsim *s, struct vs_event *e)
{
	struct sim_local *l = &sim_volume_of(s)->locals[e->node];

	if (l->asked != e->a)
		return;
	l->asked = 0;
	volume_core_proposed(s->nodes[e->node].core, &l->change, (int)(int64_t)e->b);
}

static void outcome(struct sim_volume *v, unsigned node, uint64_t seq, usec_t delay, int rc)
{
	struct vs_event *e = vs_after(&v->s, delay, proposed_event, node);

	e->a = seq;
	e->b = (uint64_t)(int64_t)rc;
}

void sim_engine_answered(struct sim_volume *v, unsigned node, uint64_t seq, int rc)
{
	if (v->s.nodes[node].up && v->w->engines[node].linked)
		outcome(v, node, seq, 30 + sim_random(v->w, 500), rc);
}

static void propose_event(struct world *w, struct event *e)
{
	struct sim_volume *v = &w->volumes[e->a];
	const struct volume_change *change = e->p;
	struct command_volume_change c = {.from = e->node,
					  .kind = change->kind,
					  .epoch = change->epoch,
					  .node = change->node,
					  .incarnation = change->incarnation};

	if (!is_linked(w, e))
		return;
	memcpy(c.id, v->id, sizeof c.id);
	sim_ask(v, e->node, &command_volume_change_type, &c, e->c);
}

static void isolate_event(struct world *w, struct event *e)
{
	if (!w->healing)
		sim_isolate(w, e->node, 3 * USEC_PER_SEC + sim_random(w, 6 * USEC_PER_SEC));
}

static void propose(struct vsim *s, unsigned node, const struct volume_change *c)
{
	struct sim_volume *v = sim_volume_of(s);
	struct sim_local *l = &v->locals[node];
	struct world *w = v->w;
	struct volume_change *copy;
	struct event *e;

	sim_log(w, "%sengine %u asks for %s %u at epoch %u", v->label, node,
		c->kind == VOLUME_REMOVE ? "REMOVE"
		: c->kind == VOLUME_ADD  ? "ADD"
					 : "BUMP",
		c->node, c->epoch);
	l->asked = ++w->proposals;
	l->change = *c;
	l->asked_until = w->engines[node].linked ? w->now + PROPOSE_MAX : 0;
	if (!w->engines[node].linked)
		return;
	copy = xcalloc(1, sizeof *copy);
	*copy = *c;
	e = up(v, node, propose_event);
	e->c = l->asked;
	e->p = copy;
	if (w->healing)
		return;
	if (w->flaps && c->kind == VOLUME_ADD && sim_chance(w, 400)) /* it comes true, and the owner hears of nothing */
		sim_after(w, sim_random(w, 150 * USEC_PER_MS), isolate_event, OWNER_WORLD, node);
	else if (sim_chance(w, 100)) /* the owner learns of it, and is not heard of for some time */
		sim_after(w, 200 * USEC_PER_MS + sim_random(w, USEC_PER_SEC), isolate_event, OWNER_WORLD, node);
}

/* ---- what a core asks of what is around it ---- */

static void look(struct vsim *s, unsigned node)
{
	(void)s; /* the agent tells each row as soon as it has it */
	(void)node;
}

static void begins(struct vsim *s, unsigned node)
{
	const struct sim_local *l = &sim_volume_of(s)->locals[node];

	if (l->row.version)
		vs_row(s, node, &l->row, 0);
}

static void is_open(struct vsim *s, unsigned node)
{
	struct sim_local *l = &sim_volume_of(s)->locals[node];

	l->next_opened = l->next_status = 0;
	l->leads = l->serves = false;
	l->asked = 0;
}

static void grown(struct vsim *s, unsigned node)
{
	sim_volume_of(s)->locals[node].next_opened = 0;
}

static bool is_cut(const struct vsim *s, unsigned from, unsigned to)
{
	return sim_volume_of(s)->w->cut[from][to] || s->now < s->cut_until[from][to];
}

/* Links are made by the agents of both. */
static bool may_dial(const struct vsim *s, unsigned a, unsigned b)
{
	const struct host *x = &sim_volume_of(s)->w->hosts[a], *y = &sim_volume_of(s)->w->hosts[b];

	return !is_cut(s, a, b) && !is_cut(s, b, a) && x->agent_up && !x->hung && y->agent_up && !y->hung;
}

static bool allows(const struct vsim *s, unsigned node)
{
	return sim_volume_of(s)->locals[node].serve;
}

static void stepped(struct vsim *s, unsigned node)
{
	if (node)
		tell_status_if_due(sim_volume_of(s), node);
}

const struct vs_around sim_engine_around = {
	.propose = propose,
	.look = look,
	.begins = begins,
	.is_open = is_open,
	.grown = grown,
	.is_cut = is_cut,
	.may_dial = may_dial,
	.allows = allows,
	.stepped = stepped,
};

/* ---- life ---- */

/* The agent starts an engine where there is none, and meets the one that it finds. */
static void ensure(struct world *w, unsigned node)
{
	const struct host *h = &w->hosts[node];
	struct sim_engine *g = &w->engines[node];

	if (!h->up || !h->agent_up || h->hung || g->linked)
		return;
	if (!g->up) {
		sim_log(w, "engine %u starts", node);
		g->up = true;
		g->life++;
		return; /* met at the next look */
	}
	g->linked = g->behind = true;
	for (unsigned i = 0; i < SIM_VMS; i++) {
		struct sim_local *l = &w->volumes[i].locals[node];

		l->is_told = l->has_status = false;
		l->reported_at = l->next_opened = l->next_status = 0;
	}
}

static void look_at(struct sim_volume *v, unsigned node)
{
	struct vs_node *n = &v->s.nodes[node];
	struct sim_local *l = &v->locals[node];
	struct world *w = v->w;

	if (!n->up || w->now < n->stopped_until)
		return;
	if (l->asked && w->now >= l->asked_until) {
		l->asked_until = USEC_INFINITY;
		outcome(v, node, l->asked, 0, -ETIMEDOUT);
	}
	tell_status_if_due(v, node);
	if (w->engines[node].linked && !is_reported(v, node) && w->now >= l->next_opened) {
		struct opened *o = xcalloc(1, sizeof *o);

		*o = (struct opened){n->disk.state.incarnation, n->disk.size};
		l->next_opened = w->now + OPENED_EVERY;
		up(v, node, opened_event)->p = o;
	}
}

static void engine_event(struct world *w, struct event *e)
{
	sim_after(w, LOOK_EVERY / 2 + sim_random(w, LOOK_EVERY), engine_event, OWNER_WORLD, e->node);
	ensure(w, e->node);
	for (unsigned i = 0; i < SIM_VMS; i++)
		look_at(&w->volumes[i], e->node);
}

void sim_engines_start(struct world *w)
{
	for (unsigned n = 1; n <= SIM_NODES; n++)
		sim_after(w, 0, engine_event, OWNER_WORLD, n);
}

static void down(struct world *w, unsigned node)
{
	w->engines[node].up = w->engines[node].linked = false;
	w->engines[node].life++;
	for (unsigned i = 0; i < SIM_VMS; i++) {
		struct sim_local *l = &w->volumes[i].locals[node];

		l->row = (struct volume_row){0};
		l->serve = false;
		l->has_status = false;
		l->asked = 0;
		l->last_down = l->last_up = 0;
	}
}

void sim_engine_crash(struct world *w, unsigned node)
{
	if (!w->engines[node].up)
		return;
	sim_log(w, "engine %u dies", node);
	for (unsigned i = 0; i < SIM_VMS; i++)
		vs_node_crash(&w->volumes[i].s, node);
	down(w, node);
}

/* What was asked for may come true all the same. */
void sim_engines_agent_gone(struct world *w, unsigned node)
{
	if (!w->disks)
		return;
	w->engines[node].linked = false;
	for (unsigned i = 0; i < SIM_VMS; i++)
		w->volumes[i].locals[node].asked_until = 0;
}

void sim_engines_power(struct world *w, unsigned node, bool on)
{
	if (!w->disks)
		return;
	for (unsigned i = 0; i < SIM_VMS; i++) {
		if (on)
			w->volumes[i].s.nodes[node].power = w->volumes[i].s.nodes[node].is_member;
		else
			vs_node_power_off(&w->volumes[i].s, node);
	}
	if (!on)
		down(w, node);
}
