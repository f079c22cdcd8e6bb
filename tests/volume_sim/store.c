/* SPDX-License-Identifier: Apache-2.0
 * The store: one row, changed by compare-and-set, and a leader that moves the volume when its primary cannot go on. */
#include "tests/volume_sim/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- rows ---- */

bool node_has_store(const struct vsim *s, unsigned node)
{
	return s->healing || s->now >= s->nodes[node].no_store_until;
}

/* The row as it is now reaches the node, soon or late. */
static void tell(struct vsim *s, unsigned node)
{
	usec_t delay = 500 + vs_random(s, 20 * USEC_PER_MS);

	if (!s->nodes[node].up || !node_has_store(s, node))
		return;
	if (!s->healing && vs_random(s, 1000) < s->faults.lag)
		delay += vs_random(s, 2 * USEC_PER_SEC);
	vs_row(s, node, &s->row, delay);
}

/* A store that begins knows less than it did: what it has applied again so far. */
static void old_row_event(struct vsim *s, struct vs_event *e)
{
	const struct volume_row *row = &s->rows[vs_random(s, ROWS)];

	if (row->version)
		volume_core_row(s->nodes[e->node].core, row);
}

static void row_again_event(struct vsim *s, struct vs_event *e)
{
	tell(s, e->node);
	vs_after(s, 200 * USEC_PER_MS, row_again_event, e->node);
}

static void begins(struct vsim *s, unsigned node)
{
	if (!s->healing && vs_chance(s, 300)) {
		vs_after(s, 0, old_row_event, node);
		vs_after(s, vs_random(s, USEC_PER_SEC), row_again_event, node);
	} else {
		vs_after(s, 0, row_again_event, node);
	}
}

void store_committed(struct vsim *s, const char *what)
{
	grow_try(s);
	s->row.version++;
	s->rows[s->row.version % ROWS] = s->row;
	s->touched = true;
	vs_log(s, "store: %s: epoch %u, primary %u, in sync%s%s%s", what, s->row.epoch, s->row.primary,
	       vs_member(s, 1)->in_sync ? " 1" : "", vs_member(s, 2)->in_sync ? " 2" : "",
	       vs_member(s, 3)->in_sync ? " 3" : "");
	for (unsigned n = 1; n <= NODES; n++)
		tell(s, n);
}

static void next_epoch(struct vsim *s)
{
	s->old_row = s->row;
	s->row.epoch++;
}

/* CREATE */
void store_create(struct vsim *s)
{
	s->row = (struct volume_row){
		.version = 1, .epoch = 1, .primary = 1, .primary_since = 1, .vm_epoch = 1, .n_members = NODES};
	for (unsigned n = 1; n <= NODES; n++) {
		struct volume_member *m = &s->row.members[n - 1];

		m->node = n;
		m->replica[0] = (uint8_t)n;
		m->in_sync = n == 1;
		m->incarnation = n == 1 ? s->nodes[n].disk.state.incarnation : 0;
	}
	grow_create(s);
	s->old_row = s->row;
}

/* ---- what engines ask for ---- */

struct asked {
	struct volume_change c;
	struct volume_row seen;
	int rc;
};

static void answer_event(struct vsim *s, struct vs_event *e)
{
	struct asked *a = e->p;

	volume_core_proposed(s->nodes[e->node].core, &a->c, a->rc);
}

/* Planted: without compare-and-set. */
static bool blind_removal(struct vsim *s, unsigned from, const struct volume_change *c)
{
	struct volume_row now = s->row;

	if (!PLANTED(blind_removal) || c->kind != VOLUME_REMOVE)
		return false;
	if (c->epoch >= now.epoch || s->old_row.epoch != c->epoch || s->old_row.primary != from)
		return false;
	s->row.primary = from;
	for (size_t i = 0; i < s->row.n_members; i++)
		s->row.members[i].in_sync = s->old_row.members[i].in_sync && s->row.members[i].node != c->node;
	s->old_row = now;
	s->row.epoch = now.epoch + 1;
	return true;
}

static int apply(struct vsim *s, unsigned from, const struct volume_change *c)
{
	struct volume_member *m = c->kind == VOLUME_BUMP ? NULL : vs_member(s, c->node);

	if (blind_removal(s, from, c)) {
		store_committed(s, "REMOVE, blindly");
		return 0;
	}
	if (c->epoch != s->row.epoch || s->row.primary != from)
		return -EAGAIN;
	if (c->kind == VOLUME_REMOVE) {
		if (!m || !m->in_sync || c->node == s->row.primary)
			return -EINVAL;
		next_epoch(s);
		m->in_sync = false;
		store_committed(s, "REMOVE");
	} else if (c->kind == VOLUME_ADD) {
		if (!m || m->in_sync || !grow_may_add(s, m))
			return -EINVAL;
		next_epoch(s);
		m->in_sync = true;
		m->incarnation = c->incarnation;
		s->joins++;
		store_committed(s, "ADD");
	} else {
		next_epoch(s);
		store_committed(s, "BUMP");
	}
	return 0;
}

static void propose_event(struct vsim *s, struct vs_event *e)
{
	struct asked *a = e->p;
	struct vs_node *n = &s->nodes[e->a];
	struct vs_event *answer;
	struct asked *copy;
	bool reaches = node_has_store(s, (unsigned)e->a);

	a->rc = reaches ? apply(s, (unsigned)e->a, &a->c) : -ENOTCONN;
	if (n->life != e->b || !n->up)
		return; /* nobody waits for it any more; what was asked for may have come true all the same */
	copy = xcalloc(1, sizeof *copy);
	*copy = *a;
	if (vs_chance(s, 100))
		copy->rc = -ETIMEDOUT; /* the answer got lost */
	answer = vs_after(s, 500 + vs_random(s, 20 * USEC_PER_MS), answer_event, (unsigned)e->a);
	answer->p = copy;
}

static void propose(struct vsim *s, unsigned node, const struct volume_change *c)
{
	struct asked *a = xcalloc(1, sizeof *a);
	usec_t delay = 500 + s->nodes[node].ask_lag + vs_random(s, 30 * USEC_PER_MS);
	struct vs_event *e;

	vs_log(s, "node %u asks for %s %u at epoch %u", node,
	       c->kind == VOLUME_REMOVE ? "REMOVE"
	       : c->kind == VOLUME_ADD  ? "ADD"
					: "BUMP",
	       c->node, c->epoch);
	if (!s->healing && vs_random(s, 1000) < s->faults.lag * 3)
		delay += vs_random(s, 2 * USEC_PER_SEC);
	a->c = *c;
	e = vs_after(s, delay, propose_event, 0);
	e->a = node;
	e->b = s->nodes[node].life;
	e->p = a;
}

/* REPORT */
static void report_event(struct vsim *s, struct vs_event *e)
{
	struct vs_node *n = &s->nodes[e->node];
	struct volume_member *m = vs_member(s, e->node);

	if (!node_has_store(s, e->node)) {
		vs_after(s, 100 * USEC_PER_MS, report_event, e->node);
		return;
	}
	m->reported = n->disk.state.incarnation;
	m->size = n->disk.size;
	grow_try(s);
	s->row.version++;
	s->rows[s->row.version % ROWS] = s->row;
	tell(s, e->node);
}

static void report(struct vsim *s, unsigned node)
{
	vs_after(s, 500 + vs_random(s, 30 * USEC_PER_MS), report_event, node);
}

/* ---- the leader ---- */

static bool has_lost(const struct volume_member *m)
{
	return m->reported && m->reported != m->incarnation;
}

/* TAKEOVER: the old VM is dead, as the caller made sure. */
void store_move(struct vsim *s, unsigned to, bool keep_old)
{
	struct volume_member *old = vs_member(s, s->row.primary), *m = vs_member(s, to);
	uint32_t epoch = s->row.epoch;

	next_epoch(s);
	if (PLANTED(stale_takeover))
		m->in_sync = true;
	CHECK(m->in_sync);
	if (!keep_old && old != m)
		old->in_sync = false;
	s->row.primary = to;
	s->row.primary_since = s->row.vm_epoch = epoch + 1;
	s->takeovers++;
	store_committed(s, "TAKEOVER");
	vs_guest_start(s, to, s->row.vm_epoch);
}

static void make_cold(struct vsim *s, struct volume_member *b)
{
	bool alone = vs_chance(s, 300);

	next_epoch(s);
	for (size_t i = 0; i < s->row.n_members; i++) {
		struct volume_member *m = &s->row.members[i];

		if (m != b && (alone || !m->in_sync || !has_lost(m)))
			m->in_sync = false;
		if (m->in_sync)
			m->incarnation = m->reported;
	}
	s->row.primary = b->node;
	s->row.cold = s->row.primary_since = s->row.vm_epoch = s->row.epoch;
	for (unsigned i = 0; i < HOT; i++) {
		if (!PLANTED(eager_cold))
			s->allowed[i] = s->flushed[i];
		s->cold[i] = true;
	}
	s->colds++;
	store_committed(s, "COLD");
	vs_guest_start(s, b->node, s->row.vm_epoch);
}

void store_force(struct vsim *s, struct volume_member *b)
{
	CHECK(!b->in_sync);
	next_epoch(s);
	for (size_t i = 0; i < s->row.n_members; i++)
		s->row.members[i].in_sync = &s->row.members[i] == b;
	b->incarnation = b->reported;
	s->row.primary = b->node;
	s->row.fork = s->row.primary_since = s->row.vm_epoch = s->row.epoch;
	for (unsigned i = 0; i < HOT; i++)
		s->allowed[i].n = s->flushed[i].n = 0; /* anything */
	s->backup.on = false;
	store_committed(s, "FORCE");
	vs_guest_start(s, b->node, s->row.vm_epoch);
}

/* An in-sync member that has not lost its cache and runs; else NULL. */
static struct volume_member *successor(struct vsim *s)
{
	struct volume_member *all[NODES];
	size_t n = 0;

	for (size_t i = 0; i < s->row.n_members; i++) {
		struct volume_member *m = &s->row.members[i];
		bool in_sync = m->in_sync || (PLANTED(stale_takeover) && s->old_row.members[i].in_sync);

		if (in_sync && m->node != s->row.primary && s->nodes[m->node].up && m->reported == m->incarnation)
			all[n++] = m;
	}
	return n ? all[vs_random(s, n)] : NULL;
}

static struct volume_member *cold_choice(struct vsim *s)
{
	struct volume_member *found = NULL;

	for (size_t i = 0; i < s->row.n_members; i++) {
		struct volume_member *m = &s->row.members[i];

		if (!m->in_sync)
			continue;
		if (!has_lost(m) && !PLANTED(eager_cold)) /* V27 */
			return NULL;
		if (has_lost(m) && s->nodes[m->node].up && (!found || vs_chance(s, 500)))
			found = m;
	}
	return found;
}

static struct volume_member *forced_choice(struct vsim *s)
{
	for (size_t i = 0; i < s->row.n_members; i++) {
		struct volume_member *m = &s->row.members[i];

		if (!m->in_sync && s->nodes[m->node].up && m->reported)
			return m;
	}
	return NULL;
}

static bool primary_is_bad(struct vsim *s)
{
	const struct volume_member *m = vs_member(s, s->row.primary);

	return !s->nodes[s->row.primary].power || has_lost(m) || !node_has_store(s, s->row.primary);
}

void store_leader(struct vsim *s, struct vs_event *e)
{
	struct volume_member *m;

	(void)e;
	vs_after(s, 50 * USEC_PER_MS, store_leader, 0);
	if (s->story.begun && !s->story.led)
		return;
	if (!primary_is_bad(s)) {
		s->primary_bad_since = 0;
		return;
	}
	if (!s->primary_bad_since)
		s->primary_bad_since = s->now;
	if (s->now - s->primary_bad_since < 300 * USEC_PER_MS)
		return;
	if ((m = successor(s))) {
		vs_guest_kill(s);
		store_move(s, m->node, false);
	} else if ((m = cold_choice(s))) {
		vs_guest_kill(s);
		make_cold(s, m);
	} else if (s->faults.force && !s->healing && s->now - s->primary_bad_since > 3 * USEC_PER_SEC &&
		   (m = forced_choice(s))) {
		vs_guest_kill(s);
		store_force(s, m);
	} else {
		return;
	}
	s->primary_bad_since = 0;
}

/* ---- around the volume ---- */

static bool is_cut(const struct vsim *s, unsigned from, unsigned to)
{
	return s->now < s->cut_until[from][to];
}

static bool may_dial(const struct vsim *s, unsigned a, unsigned b)
{
	return !is_cut(s, a, b) && !is_cut(s, b, a);
}

static bool allows(const struct vsim *s, unsigned node)
{
	(void)s;
	(void)node;
	return true;
}

static void stepped(struct vsim *s, unsigned node)
{
	(void)node;
	if (s->story.next)
		stories_step(s);
}

const struct vs_around store_around = {
	.propose = propose,
	.look = tell,
	.begins = begins,
	.is_open = report,
	.grown = report,
	.is_cut = is_cut,
	.may_dial = may_dial,
	.allows = allows,
	.stepped = stepped,
};
