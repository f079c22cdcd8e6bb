/* SPDX-License-Identifier: Apache-2.0
 * The guest: requests that it sends again after each lost connection, as QEMU does, and what it may read. */
#include "tests/volume_sim/vsim.h"

#include <stdlib.h>
#include <string.h>

#define SECTORS_MAX 40

static bool is_pending(const struct vsim *s, unsigned hot)
{
	for (unsigned i = 0; i < GUEST_OPS; i++) {
		const struct vs_op *op = &s->guest.ops[i];

		if (!op->used || op->r.kind == VOLUME_FLUSH)
			continue;
		if (hot >= op->first && hot < op->first + op->n)
			return true;
	}
	return false;
}

/* ---- connection ---- */

static void submit(struct vsim *s, unsigned i)
{
	struct vs_guest *g = &s->guest;
	struct vs_ticket *t = vs_alloc(s, 1, sizeof *t);

	t->r = g->ops[i].r;
	t->r.client = g->client;
	t->r.epoch = g->epoch ? g->epoch : g->lead;
	t->op = &g->ops[i];
	t->op_number = g->numbers[i];
	if (t->r.kind == VOLUME_READ || t->r.kind == VOLUME_WRITE)
		t->r.data = vs_alloc(s, g->ops[i].n, sizeof(uint32_t));
	for (unsigned k = 0; t->r.kind == VOLUME_WRITE && k < g->ops[i].n; k++)
		((uint32_t *)t->r.data)[k] = g->ops[i].value;
	volume_core_submit(s->nodes[g->node].core, &t->r);
}

static void connect(struct vsim *s)
{
	struct vs_guest *g = &s->guest;
	struct volume_core_status st;

	if (!s->nodes[g->node].up || g->held || !s->around->allows(s, g->node))
		return;
	volume_core_status(s->nodes[g->node].core, &st);
	if (!st.serves && !PLANTED(stale_vm_epoch))
		return;
	if (st.role != VOLUME_LEADING || (st.lead.epoch < g->epoch && !PLANTED(stale_vm_epoch))) /* V32 */
		return;
	g->client = ++g->next_number;
	g->lead = st.lead.epoch;
	if (volume_core_size(s->nodes[g->node].core) < g->size) {
		vs_violate(s, "R", "the disk has shrunk from %llu bytes", (unsigned long long)g->size);
		return;
	}
	g->size = volume_core_size(s->nodes[g->node].core);
	for (unsigned i = 0; i < GUEST_OPS; i++)
		if (g->ops[i].used && g->client)
			submit(s, i);
}

void vs_guest_disconnected(struct vsim *s, unsigned node)
{
	if (s->guest.node == node)
		s->guest.client = 0;
}

static void gone(struct vsim *s, unsigned node, uint64_t client)
{
	s->guest.leaving = client;
	volume_core_client_gone(s->nodes[node].core, client);
	s->guest.leaving = 0;
}

static void gone_event(struct vsim *s, struct vs_event *e)
{
	gone(s, e->node, e->a);
}

/* The connection breaks, and both sides notice; the engine at once, or only when the next one is there. */
void vs_guest_reconnect(struct vsim *s)
{
	struct vs_guest *g = &s->guest;
	uint64_t old = g->client;

	if (!g->node || !old || !s->nodes[g->node].up)
		return;
	vs_log(s, "the guest's connection breaks");
	g->client = 0;
	if (vs_chance(s, 500))
		gone(s, g->node, old);
	else
		vs_after(s, vs_random(s, 100 * USEC_PER_MS), gone_event, g->node)->a = old;
	connect(s);
}

/* ---- requests ---- */

static void write_begins(struct vsim *s, struct vs_op *op)
{
	for (unsigned h = op->first; h < op->first + op->n; h++) {
		vs_set_add(&s->allowed[h], op->value);
		vs_set_add(&s->flushed[h], op->value);
		if (s->flush_running)
			vs_set_add(&s->flush_snap[h], op->value);
		s->cold[h] = false;
		s->changes[h]++;
	}
}

/* Of the disk as the guest knows it? */
static bool is_within(const struct vsim *s, unsigned hot)
{
	return (vs_disk_sector(hot) + 1) * SECTOR <= s->guest.size;
}

static bool choose_range(struct vsim *s, struct vs_op *op, bool writes)
{
	unsigned first = (unsigned)vs_random(s, HOT), n = 1 + (unsigned)vs_random(s, vs_chance(s, 300) ? 36 : 4);
	unsigned k;

	for (k = 0; k < n && first + k < HOT && is_within(s, first + k); k++)
		if (vs_disk_sector(first + k) != vs_disk_sector(first) + k || (writes && is_pending(s, first + k)))
			break;
	op->first = first;
	op->n = k;
	return k > 0;
}

static void read_begins(struct vsim *s, struct vs_op *op)
{
	for (unsigned k = 0; k < op->n; k++) {
		op->before[k] = s->allowed[op->first + k];
		op->changes[k] = s->changes[op->first + k];
	}
}

static enum volume_request_kind choose_kind(struct vsim *s)
{
	unsigned n = (unsigned)vs_random(s, 100);

	return n < 50   ? VOLUME_WRITE
	       : n < 82 ? VOLUME_READ
	       : n < 92 ? VOLUME_FLUSH
	       : n < 96 ? VOLUME_ZERO
			: VOLUME_TRIM;
}

static bool sets_are_full(const struct vsim *s)
{
	for (unsigned h = 0; h < HOT; h++)
		if (s->flushed[h].n > SET_MAX - 8)
			return true;
	return false;
}

static bool is_writing(enum volume_request_kind kind)
{
	return kind != VOLUME_READ && kind != VOLUME_FLUSH;
}

/* Its kind and range are chosen. */
static void begin(struct vsim *s, unsigned i, enum volume_request_kind kind)
{
	struct vs_guest *g = &s->guest;
	struct vs_op *op = &g->ops[i];
	bool writes = is_writing(kind);

	if (kind == VOLUME_FLUSH) {
		s->flush_running = true;
		memcpy(s->flush_snap, s->allowed, sizeof s->flush_snap);
	}
	op->r = (struct volume_request){.kind = kind,
					.fua = writes && vs_chance(s, 100),
					.offset = vs_disk_sector(op->first) * SECTOR,
					.length = op->n * (uint64_t)SECTOR};
	op->value = kind == VOLUME_WRITE ? ++g->next_value : 0;
	op->used = true;
	g->numbers[i] = ++g->next_number;
	if (writes)
		write_begins(s, op);
	else if (kind == VOLUME_READ)
		read_begins(s, op);
	if (g->client)
		submit(s, i);
}

static void issue(struct vsim *s, unsigned i)
{
	struct vs_op *op = &s->guest.ops[i];
	enum volume_request_kind kind = sets_are_full(s) ? VOLUME_FLUSH : choose_kind(s);

	memset(op, 0, sizeof *op);
	if (kind == VOLUME_FLUSH ? !s->flush_running : choose_range(s, op, is_writing(kind)))
		begin(s, i, kind);
}

/* For stories: one sector, or a flush. False: not now. */
bool vs_guest_issue(struct vsim *s, enum volume_request_kind kind, unsigned hot)
{
	struct vs_guest *g = &s->guest;
	unsigned i = 0;

	while (i < GUEST_OPS && g->ops[i].used)
		i++;
	if (!g->node || i == GUEST_OPS || (kind == VOLUME_FLUSH ? s->flush_running : is_pending(s, hot)))
		return false;
	memset(&g->ops[i], 0, sizeof g->ops[i]);
	g->ops[i].first = hot;
	g->ops[i].n = kind != VOLUME_FLUSH;
	begin(s, i, kind);
	return true;
}

/* ---- answers ---- */

static void narrow(struct vsim *s, unsigned h, uint32_t v, uint32_t pending, bool has_pending)
{
	if (s->allowed[h].n != 1) /* another read, which began before, may find the older value */
		s->changes[h]++;
	vs_set_only(&s->allowed[h], v);
	if (has_pending && pending != v)
		vs_set_add(&s->allowed[h], pending);
	if (s->cold[h]) { /* V27: what was read after a power cut stays */
		s->flushed[h] = s->allowed[h];
		if (s->flush_running)
			s->flush_snap[h] = s->allowed[h];
	}
}

static void read_ends(struct vsim *s, struct vs_op *op, const uint32_t *data)
{
	s->reads++;
	for (unsigned k = 0; k < op->n; k++) {
		unsigned h = op->first + k;
		uint32_t pending = 0;
		bool has_pending = false;

		if (!vs_set_has(&s->allowed[h], data[k]) && !vs_set_has(&op->before[k], data[k])) {
			vs_violate(s, "R", "a read of sector %llu gave %u, which is lost or was never there",
				   (unsigned long long)vs_disk_sector(h), data[k]);
			return;
		}
		for (unsigned i = 0; i < GUEST_OPS; i++) {
			const struct vs_op *w = &s->guest.ops[i];

			if (w->used && w->r.kind != VOLUME_READ && w->r.kind != VOLUME_FLUSH && h >= w->first &&
			    h < w->first + w->n) {
				pending = w->value;
				has_pending = true;
			}
		}
		if (s->changes[h] == op->changes[k])
			narrow(s, h, data[k], pending, has_pending);
	}
}

static void write_ends(struct vsim *s, struct vs_op *op)
{
	s->acked++;
	for (unsigned h = op->first; h < op->first + op->n; h++) {
		vs_set_only(&s->allowed[h], op->value);
		s->changes[h]++;
		if (op->r.fua)
			vs_set_only(&s->flushed[h], op->value);
	}
}

static void answered(struct vsim *s, struct vs_ticket *t)
{
	struct vs_guest *g = &s->guest;
	struct volume_request *r = &t->r;
	unsigned i = (unsigned)(t->op - g->ops);
	struct vs_op *op = t->op;

	if (g->client == r->client && op->used && g->numbers[i] == t->op_number) {
		if (t->rc < 0)
			vs_violate(s, "error", "the guest saw the error %d", t->rc);
		op->used = false;
		s->touched = true;
		if (r->kind == VOLUME_READ) {
			read_ends(s, op, r->data);
		} else if (r->kind == VOLUME_FLUSH) {
			memcpy(s->flushed, s->flush_snap, sizeof s->flushed);
			s->flush_running = false;
		} else {
			write_ends(s, op);
		}
	}
	vs_free(r->data);
	vs_free(t);
}

void vs_guest_reply(struct vsim *s, struct volume_request *r, int rc)
{
	struct vs_ticket *t = CONTAINER_OF(r, struct vs_ticket, r);
	struct vs_guest *g = &s->guest;

	t->rc = rc;
	if (!g->frozen) {
		answered(s, t);
		return;
	}
	t->next = NULL;
	if (!g->answers)
		g->answers_end = &g->answers;
	*g->answers_end = t;
	g->answers_end = &t->next;
}

/* What it was told meanwhile it sees now. */
static void see_answers(struct vsim *s)
{
	while (s->guest.answers) {
		struct vs_ticket *t = s->guest.answers;

		s->guest.answers = t->next;
		answered(s, t);
	}
}

void vs_guest_freeze(struct vsim *s, bool frozen)
{
	if (s->guest.frozen == frozen)
		return;
	vs_log(s, "the guest on %u %s", s->guest.node, frozen ? "stands still" : "goes on");
	s->guest.frozen = frozen;
	if (!frozen)
		see_answers(s);
}

/* Planted: the server goes on with a request of a connection that broke, when the next one has sent it anew (V32). */
struct ghost {
	struct volume_request r;
	uint32_t data[SECTORS_MAX];
};

static void ghost_event(struct vsim *s, struct vs_event *e)
{
	const struct ghost *ghost = e->p;
	struct vs_ticket *t = vs_alloc(s, 1, sizeof *t);

	*t = (struct vs_ticket){.r = ghost->r, .op = s->guest.ops};
	t->r.data = vs_alloc(s, SECTORS_MAX, sizeof(uint32_t));
	memcpy(t->r.data, ghost->data, sizeof ghost->data);
	t->r.client = ++s->guest.next_number;
	volume_core_submit(s->nodes[e->node].core, &t->r);
}

static void goes_on(struct vsim *s, unsigned node, const struct volume_request *r)
{
	struct ghost *ghost = xcalloc(1, sizeof *ghost);
	struct vs_event *e = vs_after(s, vs_random(s, USEC_PER_SEC), ghost_event, node);

	ghost->r = *r;
	if (r->data)
		memcpy(ghost->data, r->data, r->length / SECTOR * sizeof *ghost->data);
	e->p = ghost;
}

void vs_guest_dropped(struct vsim *s, unsigned node, struct volume_request *r)
{
	if (PLANTED(old_nbd_request) && r->client == s->guest.leaving && is_writing(r->kind))
		goes_on(s, node, r);
	vs_free(r->data);
	vs_free(CONTAINER_OF(r, struct vs_ticket, r));
}

/* ---- life ---- */

void vs_guest_start(struct vsim *s, unsigned node, uint32_t epoch)
{
	s->guest.node = node;
	s->guest.epoch = epoch;
	s->guest.client = 0;
}

/* The engine closes its connection, and does not serve it at once again. */
void vs_guest_cut(struct vsim *s)
{
	struct vs_guest *g = &s->guest;
	uint64_t old = g->client;

	if (!g->node || !old || !s->nodes[g->node].up)
		return;
	g->client = 0;
	gone(s, g->node, old);
}

/* What it had not been told of may have happened or not. */
void vs_guest_kill(struct vsim *s)
{
	struct vs_guest *g = &s->guest;

	if (g->node)
		vs_log(s, "the guest on %u is dead", g->node);
	if (g->node && g->client && s->nodes[g->node].up) {
		uint64_t client = g->client;

		g->client = 0;
		if (vs_chance(s, 500)) /* a machine that is cut off notices later, if at all */
			volume_core_client_gone(s->nodes[g->node].core, client);
	}
	g->node = 0;
	g->client = 0;
	g->frozen = false;
	for (unsigned i = 0; i < GUEST_OPS; i++)
		g->ops[i].used = false;
	see_answers(s); /* nobody does: its requests are forgotten */
	s->flush_running = false;
}

bool vs_guest_idle(const struct vsim *s)
{
	for (unsigned i = 0; i < GUEST_OPS; i++)
		if (s->guest.ops[i].used)
			return false;
	return true;
}

/* Busy, now and then a request, or still for so long that intents are let go. */
static void choose_pace(struct vsim *s)
{
	static const unsigned paces[] = {300, 300, 40, 5, 0};
	struct vs_guest *g = &s->guest;

	if (s->now < g->pace_until)
		return;
	g->pace = paces[vs_random(s, ARRAY_LEN(paces))];
	g->pace_until = s->now + vs_random(s, 1500 * USEC_PER_MS);
}

/* A guest that begins elsewhere reads everything first. */
static void check_all(struct vsim *s)
{
	struct vs_guest *g = &s->guest;

	for (unsigned i = 0; g->client && i < GUEST_OPS && g->to_check < HOT; i++) {
		struct vs_op *op = &g->ops[i];

		if (op->used)
			continue;
		memset(op, 0, sizeof *op);
		op->first = g->to_check;
		while (op->n < SECTORS_MAX && op->first + op->n < HOT && is_within(s, op->first + op->n) &&
		       vs_disk_sector(op->first + op->n) == vs_disk_sector(op->first) + op->n)
			op->n++;
		g->to_check = op->n ? g->to_check + op->n : HOT; /* behind the end there is nothing */
		if (op->n)
			begin(s, i, VOLUME_READ);
	}
}

void vs_guest_event(struct vsim *s, struct vs_event *e)
{
	struct vs_guest *g = &s->guest;

	(void)e;
	vs_after(s, 1 + vs_random(s, s->guest_every), vs_guest_event, 0);
	if (!g->node || g->frozen)
		return;
	if (!g->client)
		connect(s);
	check_all(s);
	choose_pace(s);
	for (unsigned i = 0; g->client && !s->healing && !g->quiet && i < GUEST_OPS; i++)
		if (!g->ops[i].used && g->to_check == HOT && vs_chance(s, g->pace))
			issue(s, i);
}

/* An incremental backup: what was written since the last one (V34). */
void vs_guest_backup(struct vsim *s)
{
	struct vs_node *n = &s->nodes[s->row.primary];
	uint32_t copy[HOT];
	struct volume_ballot base;

	if (!n->up || n->disk.state.incarnation != vs_member(s, n->id)->incarnation)
		return;
	memcpy(copy, s->backup.data, sizeof copy);
	for (unsigned h = 0; h < HOT; h++) {
		struct volume_ballot stamp = {0, 0};

		if (vs_disk_sector(h) * SECTOR < n->disk.size)
			stamp = volume_core_stamp(n->core, vs_disk_sector(h) / PER_BLOCK);

		if (!s->backup.on || volume_ballot_compare(stamp, s->backup.base) > 0)
			copy[h] = n->disk.cached[h];
	}
	if (volume_core_checkpoint(n->core, &s->row, &base) != 0)
		return;
	memcpy(s->backup.data, copy, sizeof copy);
	s->backup.base = base;
	s->backup.on = true;
	for (unsigned h = 0; h < HOT; h++)
		if (copy[h] != n->disk.cached[h])
			vs_violate(s, "K", "a backup lacks the last write to sector %llu",
				   (unsigned long long)vs_disk_sector(h));
}
