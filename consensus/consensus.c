/* SPDX-License-Identifier: Apache-2.0
 * libraft, opened, driven and asked. */
#include "consensus/consensus.h"

#include "consensus/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_THRESHOLD 8192
#define SNAPSHOT_TRAILING  4096
#define INFLIGHT_ENTRIES   512

static struct consensus *of_io(struct raft_io *io)
{
	struct raft *raft = io->data;

	return raft->data;
}

/* The term and the vote are promises: a failure to keep them ends the process (libraft drops the error). */
static int set_term(struct raft_io *io, raft_term term)
{
	CHECK(of_io(io)->io_set_term(io, term) == 0);
	return 0;
}

static int set_vote(struct raft_io *io, raft_id id)
{
	CHECK(of_io(io)->io_set_vote(io, id) == 0);
	return 0;
}

struct get {
	struct raft_io_snapshot_get req;
	struct consensus *c;
	struct raft_io_snapshot_get *asked;
	raft_io_snapshot_get_cb cb;
};

/* libraft sends the snapshot from within the callback: links_send() then looks at got_term. */
static void snapshot_got(struct raft_io_snapshot_get *req, struct raft_snapshot *snapshot, int status)
{
	struct get *g = req->data;
	struct consensus *c = g->c;

	c->got_term = status == 0 ? snapshot->term : 0;
	g->cb(g->asked, snapshot, status);
	c->got_term = 0;
	free(g);
}

static int snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
	struct get *g = xcalloc(1, sizeof *g);
	int rv;

	*g = (struct get){.req = {.data = g}, .c = of_io(io), .asked = req, .cb = cb};
	rv = g->c->io_snapshot_get(io, &g->req, snapshot_got);
	if (rv != 0)
		free(g);
	return rv;
}

static int start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	struct consensus *c = of_io(io);

	c->recv = recv;
	return c->io_start(io, msecs, tick, recv);
}

int consensus_open_on(const struct consensus_config *config, const struct consensus_callbacks *cb, struct raft_io *io,
		      void (*closed)(struct raft_io *io), struct consensus **ret, struct err *e)
{
	struct consensus *c = xcalloc(1, sizeof *c);
	int rv;

	CHECK(config->self >= 1 && config->self <= NODES_MAX);
	c->cb = *cb;
	c->store = config->store;
	c->self = config->self;
	c->io = io;
	c->io_closed = closed;
	c->io_start = io->start;
	c->io_set_term = io->set_term;
	c->io_set_vote = io->set_vote;
	c->io_snapshot_get = io->snapshot_get;
	fsm_init(c);
	c->raft.data = c;
	rv = raft_init(&c->raft, io, &c->fsm, config->self, config->address);
	if (rv != 0) {
		(void)err_set(e, -EIO, "open the log in '%s': %s", config->dir ? config->dir : "memory",
			      raft_errmsg(&c->raft));
		free(c);
		return -EIO;
	}
	c->raft.data = c;
	io->start = start;
	io->set_term = set_term;
	io->set_vote = set_vote;
	io->snapshot_get = snapshot_get;
	io->send = links_send;
	raft_set_pre_vote(&c->raft, true);
	raft_set_election_timeout(&c->raft, config->timing->election_ms);
	raft_set_heartbeat_timeout(&c->raft, config->timing->heartbeat_ms);
	raft_set_max_inflight_entries(&c->raft, INFLIGHT_ENTRIES);
	consensus_set_snapshot_threshold(c, SNAPSHOT_THRESHOLD, SNAPSHOT_TRAILING);
	*ret = c;
	return 0;
}

void consensus_set_snapshot_threshold(struct consensus *c, unsigned entries, unsigned trailing)
{
	raft_set_snapshot_threshold(&c->raft, entries);
	raft_set_snapshot_trailing(&c->raft, trailing);
}

int consensus_bootstrap(struct consensus *c, struct err *e)
{
	struct raft_configuration conf;
	int rv;

	raft_configuration_init(&conf);
	rv = raft_configuration_add(&conf, c->self, c->raft.address, RAFT_VOTER);
	CHECK(rv == 0);
	rv = raft_bootstrap(&c->raft, &conf);
	raft_configuration_close(&conf);
	if (rv == RAFT_CANTBOOTSTRAP)
		return -EEXIST;
	return rv == 0 ? 0 : err_set(e, -EIO, "found the cluster: %s", raft_errmsg(&c->raft));
}

int consensus_start(struct consensus *c, struct err *e)
{
	int rv = raft_start(&c->raft);

	if (rv == RAFT_CORRUPT)
		return err_set(e, -EUCLEAN,
			       "the log is damaged: %s (wipe this node's folder and join again as a new node)",
			       raft_errmsg(&c->raft));
	if (rv != 0)
		return err_set(e, -EIO, "load the log: %s", raft_errmsg(&c->raft));
	store_commit(c->store);
	c->started = true;
	return 0;
}

/* ---- proposals ---- */

static struct proposal *proposal_add(struct consensus *c, size_t bytes, consensus_done done, void *ctx)
{
	struct proposal *p = xcalloc(1, sizeof *p);

	p->term = raft_current_term(&c->raft);
	p->bytes = bytes;
	p->done = done;
	p->ctx = ctx;
	p->next = c->proposals;
	c->proposals = p;
	c->bytes_in_flight += bytes;
	return p;
}

static int proposal_drop(struct consensus *c, struct proposal *p, int rv)
{
	CHECK(c->proposals == p);
	c->proposals = p->next;
	c->bytes_in_flight -= p->bytes;
	free(p);
	return rv == RAFT_NOTLEADER ? PROTO_E_NO_LEADER : -EAGAIN;
}

int consensus_propose(struct consensus *c, const void *entry, size_t n, consensus_done done, void *ctx)
{
	size_t padded = (n + 7) / 8 * 8; /* libraft wants a multiple of 8; zeroes after the bodies are not read */
	struct raft_buffer buf;
	struct proposal *p;
	int rv;

	CHECK(n > 0 && n <= ENTRY_BYTES_MAX);
	if (raft_state(&c->raft) != RAFT_LEADER)
		return PROTO_E_NO_LEADER;
	if (c->bytes_in_flight + padded > APPLY_IN_FLIGHT_BYTES)
		return -EAGAIN;
	buf = (struct raft_buffer){raft_calloc(1, padded), padded};
	CHECK(buf.base != NULL);
	memcpy(buf.base, entry, n);
	p = proposal_add(c, padded, done, ctx);
	rv = raft_apply(&c->raft, &p->req.apply, &buf, 1, NULL);
	if (rv != 0) /* buf: on most errors libraft has freed it, on the others a small leak is the safe side */
		return proposal_drop(c, p, rv);
	return 0;
}

int consensus_barrier(struct consensus *c, consensus_done done, void *ctx)
{
	struct proposal *p;
	int rv;

	if (raft_state(&c->raft) != RAFT_LEADER)
		return PROTO_E_NO_LEADER;
	p = proposal_add(c, 0, done, ctx);
	p->is_barrier = true;
	rv = raft_barrier(&c->raft, &p->req.barrier, NULL);
	return rv == 0 ? 0 : proposal_drop(c, p, rv);
}

/* Applied in the term in which it was logged: it is ours. Another leader may have put its own entry at the index. */
static bool is_over(struct consensus *c, const struct proposal *p, int *ret_status)
{
	uint64_t index = p->is_barrier ? p->req.barrier.index : p->req.apply.index;
	bool leads = c->started && raft_state(&c->raft) == RAFT_LEADER && raft_current_term(&c->raft) == p->term;

	*ret_status = leads ? 0 : PROTO_E_UNKNOWN_OUTCOME;
	return !leads || raft_last_applied(&c->raft) >= index;
}

/* Call back for those that are over, oldest first. */
static void proposals_step(struct consensus *c)
{
	struct proposal *over = NULL, **at = &c->proposals;
	int status;

	while (*at) { /* the list is newest first: moving to the front of `over` turns it round */
		struct proposal *p = *at;

		if (!is_over(c, p, &status)) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		p->next = over;
		over = p;
	}
	while (over) {
		struct proposal *p = over;

		over = p->next;
		(void)is_over(c, p, &status);
		CHECK(c->bytes_in_flight >= p->bytes);
		c->bytes_in_flight -= p->bytes;
		p->done(p->ctx, status, &p->result);
		free(p);
	}
}

void consensus_step(struct consensus *c)
{
	if (raft_state(&c->raft) == RAFT_UNAVAILABLE && c->started)
		c->cb.fatal(c->cb.ctx, "the log cannot be written");
	links_step(c);
	store_commit(c->store);
	proposals_step(c);
	links_step(c);
}

/* ---- asking ---- */

static enum consensus_role role_of(int raft_role)
{
	switch (raft_role) {
	case RAFT_VOTER:
		return CONSENSUS_VOTER;
	case RAFT_STANDBY:
		return CONSENSUS_STANDBY;
	default:
		return CONSENSUS_SPARE;
	}
}

static struct consensus_member *member(struct consensus_view *v, node_id_t node)
{
	for (size_t i = 0; i < v->n_members; i++)
		if (v->members[i].node == node)
			return &v->members[i];
	CHECK(v->n_members < NODES_MAX);
	v->members[v->n_members] = (struct consensus_member){.node = node};
	return &v->members[v->n_members++];
}

static void view_members(struct consensus *c, struct consensus_view *v)
{
	const struct raft_configuration *now = &c->raft.configuration, *old = &c->raft.configuration_committed;

	for (unsigned i = 0; i < now->n; i++)
		member(v, (node_id_t)now->servers[i].id)->role = role_of(now->servers[i].role);
	v->changing = c->raft.configuration_uncommitted_index != 0;
	if (!v->changing)
		old = now;
	for (unsigned i = 0; i < old->n; i++)
		if (old->servers[i].role == RAFT_VOTER)
			member(v, (node_id_t)old->servers[i].id)->was_voter = true;
}

void consensus_view(struct consensus *c, struct consensus_view *ret)
{
	raft_id leader = 0;
	const char *address;

	memset(ret, 0, sizeof *ret);
	if (!c->started) /* raft's memory may be gone: the last proposals call back while it closes */
		return;
	raft_leader(&c->raft, &leader, &address);
	ret->term = raft_current_term(&c->raft);
	ret->is_leader = raft_state(&c->raft) == RAFT_LEADER;
	ret->leader = (node_id_t)leader;
	ret->last_index = raft_last_index(&c->raft);
	ret->commit = raft_commit_index(&c->raft);
	ret->applied = raft_last_applied(&c->raft);
	view_members(c, ret);
}

/* ---- closing ---- */

static void closed(struct raft *raft)
{
	struct consensus *c = raft->data;

	links_free(c);
	proposals_step(c);
	CHECK(c->proposals == NULL);
	c->io_closed(c->io);
	c->close_cb(c->close_ctx);
	free(c);
}

void consensus_close(struct consensus *c, void (*cb)(void *ctx), void *ctx)
{
	c->close_cb = cb;
	c->close_ctx = ctx;
	c->recv = NULL;
	links_free(c); /* sends that wait for an answer hold requests of raft */
	c->started = false;
	raft_close(&c->raft, closed);
}
