/* SPDX-License-Identifier: Apache-2.0
 * libraft's raft_io on virtual time: writes take their time, are lost when the power goes before they are done, and
 * survive everything else. */
#include "tests/sim/world.h"

#include <stdlib.h>
#include <string.h>

enum op_kind { OP_APPEND, OP_TRUNCATE, OP_SNAPSHOT };

/* A write that the disk has not done yet. They are done in order. */
struct write {
	struct write *next;
	enum op_kind kind;
	usec_t done_at;
	struct raft_io_append *append;
	raft_io_append_cb append_cb;
	struct sim_entry *entries;
	unsigned n;
	uint64_t index;
	struct raft_io_snapshot_put *put;
	raft_io_snapshot_put_cb put_cb;
	unsigned trailing;
	uint64_t snap_term, conf_index;
	void *conf, *data;
	size_t conf_n, data_n;
};

struct sim_io {
	struct raft_io io;
	struct world *w;
	unsigned node;
	raft_io_tick_cb tick;
	raft_io_recv_cb recv;
	usec_t tick_every;
	struct write *first, *last;
	usec_t last_done;
};

static struct sim_io *of(struct raft_io *io)
{
	return CONTAINER_OF(io, struct sim_io, io);
}

static struct sim_disk *disk(struct sim_io *s)
{
	return &s->w->hosts[s->node].disk;
}

static void *copy(const void *p, size_t n)
{
	void *c = xcalloc(1, n + 1);

	if (n)
		memcpy(c, p, n);
	return c;
}

void sim_disk_wipe(struct sim_disk *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->entries[i].data);
	free(d->entries);
	free(d->snap);
	free(d->snap_conf);
	free(d->image);
	*d = (struct sim_disk){.start = 1};
}

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
	(void)io;
	(void)id;
	(void)address;
	return 0;
}

static void load_entries(const struct sim_disk *d, struct raft_entry **ret, size_t *ret_n)
{
	*ret_n = d->n;
	*ret = NULL;
	if (d->n == 0)
		return;
	*ret = raft_calloc(d->n, sizeof **ret);
	for (size_t i = 0; i < d->n; i++) {
		struct raft_entry *e = &(*ret)[i];

		e->term = d->entries[i].term;
		e->type = (enum raft_entry_type)d->entries[i].type;
		e->buf.len = d->entries[i].n;
		e->buf.base = raft_malloc(d->entries[i].n + 8);
		memcpy(e->buf.base, d->entries[i].data, d->entries[i].n);
		e->batch = NULL;
	}
}

static void load_snapshot(const struct sim_disk *d, struct raft_snapshot *s)
{
	struct raft_buffer conf = {d->snap_conf, d->snap_conf_n};

	memset(s, 0, sizeof *s);
	s->index = d->snap_index;
	s->term = d->snap_term;
	s->configuration_index = d->snap_conf_index;
	raft_configuration_init(&s->configuration);
	CHECK(raft_configuration_decode(&conf, &s->configuration) == 0);
	s->bufs = raft_malloc(sizeof *s->bufs);
	s->n_bufs = 1;
	s->bufs[0].base = raft_malloc(d->snap_n + 1);
	s->bufs[0].len = d->snap_n;
	memcpy(s->bufs[0].base, d->snap, d->snap_n);
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *vote, struct raft_snapshot **snapshot,
		   raft_index *start, struct raft_entry *entries[], size_t *n)
{
	const struct sim_disk *d = disk(of(io));

	*term = d->term;
	*vote = d->vote;
	*start = d->start;
	*snapshot = NULL;
	if (d->has_snapshot) {
		*snapshot = raft_malloc(sizeof **snapshot);
		load_snapshot(d, *snapshot);
	}
	load_entries(d, entries, n);
	return 0;
}

static void tick_event(struct world *w, struct event *e)
{
	struct sim_io *s = of(w->hosts[e->node].io);

	sim_after(w, s->tick_every, tick_event, OWNER_AGENT, e->node);
	s->tick(&s->io);
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	struct sim_io *s = of(io);

	s->tick = tick;
	s->recv = recv;
	s->tick_every = msecs * USEC_PER_MS;
	sim_after(s->w, s->tick_every, tick_event, OWNER_AGENT, s->node);
	return 0;
}

static void disk_append(struct sim_disk *d, uint64_t term, int type, const void *p, size_t n)
{
	if (d->n == d->cap) {
		d->cap = d->cap ? d->cap * 2 : 64;
		d->entries = xrealloc(d->entries, d->cap * sizeof *d->entries);
	}
	d->entries[d->n++] = (struct sim_entry){term, type, copy(p, n), n};
}

static int io_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
	struct sim_disk *d = disk(of(io));
	struct raft_buffer buf;

	if (d->term || d->n || d->has_snapshot)
		return RAFT_CANTBOOTSTRAP;
	CHECK(raft_configuration_encode(conf, &buf) == 0);
	d->term = 1;
	disk_append(d, 1, RAFT_CHANGE, buf.base, buf.len);
	raft_free(buf.base);
	return 0;
}

static int io_recover(struct raft_io *io, const struct raft_configuration *conf)
{
	(void)io;
	(void)conf;
	return RAFT_INVALID;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
	disk(of(io))->term = term;
	disk(of(io))->vote = 0;
	return 0;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
	disk(of(io))->vote = id;
	return 0;
}

static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m, raft_io_send_cb cb)
{
	(void)io;
	(void)req;
	(void)m;
	(void)cb;
	return RAFT_NOCONNECTION; /* replaced by consensus */
}

/* ---- writes ---- */

static void cut_tail(struct sim_disk *d, uint64_t index)
{
	while (d->n > 0 && d->start + d->n > index)
		free(d->entries[--d->n].data);
}

static void cut_head(struct sim_disk *d, uint64_t keep_from)
{
	size_t k = 0;

	while (k < d->n && d->start + k < keep_from)
		free(d->entries[k++].data);
	memmove(d->entries, d->entries + k, (d->n - k) * sizeof *d->entries);
	d->n -= k;
	d->start = keep_from > d->start ? keep_from : d->start;
}

static void do_snapshot(struct sim_disk *d, struct write *x)
{
	free(d->snap);
	free(d->snap_conf);
	d->has_snapshot = true;
	d->snap_index = x->index;
	d->snap_term = x->snap_term;
	d->snap_conf_index = x->conf_index;
	d->snap = x->data;
	d->snap_n = x->data_n;
	d->snap_conf = x->conf;
	d->snap_conf_n = x->conf_n;
	x->data = x->conf = NULL;
	if (x->trailing == 0) {
		cut_tail(d, 0);
		d->start = x->index + 1;
	} else if (x->index > x->trailing) {
		cut_head(d, x->index - x->trailing + 1);
	}
}

static void do_write(struct sim_disk *d, struct write *x)
{
	switch (x->kind) {
	case OP_APPEND:
		for (unsigned i = 0; i < x->n; i++)
			disk_append(d, x->entries[i].term, x->entries[i].type, x->entries[i].data, x->entries[i].n);
		break;
	case OP_TRUNCATE:
		cut_tail(d, x->index);
		break;
	case OP_SNAPSHOT:
		do_snapshot(d, x);
		break;
	}
}

static void write_free(struct write *x)
{
	for (unsigned i = 0; i < x->n; i++)
		free(x->entries[i].data);
	free(x->entries);
	free(x->data);
	free(x->conf);
	free(x);
}

static void finish(struct write *x, int status)
{
	if (x->append_cb)
		x->append_cb(x->append, status);
	if (x->put_cb)
		x->put_cb(x->put, status);
	write_free(x);
}

static void write_event(struct world *w, struct event *e)
{
	struct sim_io *s = of(w->hosts[e->node].io);

	while (s->first && s->first->done_at <= w->now) {
		struct write *x = s->first;

		s->first = x->next;
		if (!s->first)
			s->last = NULL;
		do_write(disk(s), x);
		finish(x, 0);
	}
}

static struct write *enqueue(struct sim_io *s, enum op_kind kind)
{
	struct write *x = xcalloc(1, sizeof *x);
	usec_t delay = 100 + sim_random(s->w, s->w->hosts[s->node].disk_delay * 2);

	x->kind = kind;
	x->done_at = s->w->now + delay;
	if (x->done_at <= s->last_done)
		x->done_at = s->last_done + 1;
	s->last_done = x->done_at;
	if (s->last)
		s->last->next = x;
	else
		s->first = x;
	s->last = x;
	sim_after(s->w, x->done_at - s->w->now, write_event, OWNER_AGENT, s->node);
	return x;
}

static int io_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[], unsigned n,
		     raft_io_append_cb cb)
{
	struct write *x = enqueue(of(io), OP_APPEND);

	x->append = req;
	x->append_cb = cb;
	x->n = n;
	x->entries = xcalloc(n, sizeof *x->entries);
	for (unsigned i = 0; i < n; i++) {
		CHECK(entries[i].buf.len % 8 == 0); /* else it vanishes at a restart */
		x->entries[i] = (struct sim_entry){entries[i].term, entries[i].type,
						   copy(entries[i].buf.base, entries[i].buf.len), entries[i].buf.len};
	}
	return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
	enqueue(of(io), OP_TRUNCATE)->index = index;
	return 0;
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
			   const struct raft_snapshot *s, raft_io_snapshot_put_cb cb)
{
	struct write *x = enqueue(of(io), OP_SNAPSHOT);
	struct raft_buffer conf;

	CHECK(raft_configuration_encode(&s->configuration, &conf) == 0 && s->n_bufs == 1);
	x->put = req;
	x->put_cb = cb;
	x->trailing = trailing;
	x->index = s->index;
	x->snap_term = s->term;
	x->conf_index = s->configuration_index;
	x->conf = copy(conf.base, conf.len);
	x->conf_n = conf.len;
	x->data = copy(s->bufs[0].base, s->bufs[0].len);
	x->data_n = s->bufs[0].len;
	raft_free(conf.base);
	return 0;
}

struct get {
	struct raft_io_snapshot_get *req;
	raft_io_snapshot_get_cb cb;
};

static void get_event(struct world *w, struct event *e)
{
	struct get *g = e->p;
	struct raft_snapshot *s = raft_malloc(sizeof *s);

	load_snapshot(&w->hosts[e->node].disk, s);
	g->cb(g->req, s, 0);
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
	struct sim_io *s = of(io);
	struct get *g = xcalloc(1, sizeof *g);
	struct event *e = sim_after(s->w, USEC_PER_MS, get_event, OWNER_AGENT, s->node);

	*g = (struct get){req, cb};
	e->p = g;
	return 0;
}

static raft_time io_time(struct raft_io *io)
{
	return sim_local(of(io)->w, of(io)->node) / USEC_PER_MS;
}

static int io_random(struct raft_io *io, int min, int max)
{
	return min + (int)sim_random(of(io)->w, (uint64_t)(max - min) + 1);
}

/* The agent's process dies: its requests are never answered but as cancelled; what the kernel had not got is lost. */
static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct sim_io *s = of(io);

	while (s->first) {
		struct write *x = s->first;

		s->first = x->next;
		finish(x, RAFT_CANCELED);
	}
	s->last = NULL;
	cb(io);
}

struct raft_io *sim_io_new(struct world *w, unsigned node)
{
	struct sim_io *s = xcalloc(1, sizeof *s);

	s->w = w;
	s->node = node;
	s->io = (struct raft_io){.version = 2,
				 .capacity = UINT16_MAX,
				 .init = io_init,
				 .close = io_close,
				 .load = io_load,
				 .start = io_start,
				 .bootstrap = io_bootstrap,
				 .recover = io_recover,
				 .set_term = io_set_term,
				 .set_vote = io_set_vote,
				 .send = io_send,
				 .append = io_append,
				 .truncate = io_truncate,
				 .snapshot_put = io_snapshot_put,
				 .snapshot_get = io_snapshot_get,
				 .time = io_time,
				 .random = io_random};
	return &s->io;
}

void sim_io_free(struct raft_io *io)
{
	free(of(io));
}
