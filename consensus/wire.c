/* SPDX-License-Identifier: Apache-2.0
 * raft's messages as frames. An append is split so that a frame stays small, and on arrival so that a change of members
 * is the first entry of its batch: libraft's follower otherwise notes a wrong index for it. */
#include "consensus/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	WIRE_APPEND = PEER_RAFT_FIRST,
	WIRE_APPEND_RESULT,
	WIRE_VOTE,
	WIRE_VOTE_RESULT,
	WIRE_SNAPSHOT,
	WIRE_TIMEOUT_NOW,
};

struct wire_append {
	uint32_t version;
	uint64_t term, prev_index, prev_term, commit;
	struct message_bin entries; /* struct wire_entry, one after the other */
};

struct wire_entry {
	uint64_t term;
	uint32_t type;
	struct message_bin data;
};

struct wire_append_result {
	uint32_t version;
	uint64_t term, rejected, last_index;
	uint32_t features, capacity;
};

struct wire_vote {
	uint32_t version;
	uint64_t term, candidate, last_index, last_term;
	bool disrupt_leader, pre_vote;
};

struct wire_vote_result {
	uint32_t version;
	uint64_t term;
	bool granted, pre_vote;
	uint32_t features, capacity;
};

struct wire_snapshot {
	uint32_t version;
	uint64_t term, last_index, last_term, conf_index;
	struct message_bin conf, data;
};

struct wire_timeout_now {
	uint32_t version;
	uint64_t term, last_index, last_term;
};

#define F(kind, field) MESSAGE_FIELD(T, kind, field)
#define TYPE(var, number) \
	static const struct message_type var##_type = {number, #var, sizeof(T), ARRAY_LEN(var##_fields), var##_fields}
#define T struct wire_append
static const struct message_field append_fields[] = {F(U32, version),   F(U64, term),   F(U64, prev_index),
						     F(U64, prev_term), F(U64, commit), F(BIN, entries)};
TYPE(append, WIRE_APPEND);
#undef T
#define T struct wire_entry
static const struct message_field entry_fields[] = {F(U64, term), F(U32, type), F(BIN, data)};
TYPE(entry, 1);
#undef T
#define T struct wire_append_result
static const struct message_field append_result_fields[] = {F(U32, version),    F(U64, term),     F(U64, rejected),
							    F(U64, last_index), F(U32, features), F(U32, capacity)};
TYPE(append_result, WIRE_APPEND_RESULT);
#undef T
#define T struct wire_vote
static const struct message_field vote_fields[] = {F(U32, version),    F(U64, term),      F(U64, candidate),
						   F(U64, last_index), F(U64, last_term), F(BOOL, disrupt_leader),
						   F(BOOL, pre_vote)};
TYPE(vote, WIRE_VOTE);
#undef T
#define T struct wire_vote_result
static const struct message_field vote_result_fields[] = {F(U32, version),   F(U64, term),     F(BOOL, granted),
							  F(BOOL, pre_vote), F(U32, features), F(U32, capacity)};
TYPE(vote_result, WIRE_VOTE_RESULT);
#undef T
#define T struct wire_snapshot
static const struct message_field snapshot_fields[] = {F(U32, version),   F(U64, term),       F(U64, last_index),
						       F(U64, last_term), F(U64, conf_index), F(BIN, conf),
						       F(BIN, data)};
TYPE(snapshot, WIRE_SNAPSHOT);
#undef T
#define T struct wire_timeout_now
static const struct message_field timeout_now_fields[] = {F(U32, version), F(U64, term), F(U64, last_index),
							  F(U64, last_term)};
TYPE(timeout_now, WIRE_TIMEOUT_NOW);
#undef T

/* ---- sending ---- */

static void encode_append_part(const struct raft_append_entries *a, unsigned first, unsigned last, struct buf *ret)
{
	struct buf entries = {0};
	struct wire_append w = {.version = a->version, .term = a->term, .commit = a->leader_commit};

	w.prev_index = a->prev_log_index + first;
	w.prev_term = first ? a->entries[first - 1].term : a->prev_log_term;
	for (unsigned i = first; i < last; i++) {
		const struct raft_entry *e = &a->entries[i];
		struct wire_entry we = {e->term, (uint32_t)e->type, {e->buf.base, e->buf.len}};

		message_encode(&entry_type, &we, &entries);
	}
	w.entries = (struct message_bin){entries.data, entries.len};
	message_encode(&append_type, &w, ret);
	buf_free(&entries);
}

static size_t encode_append(const struct raft_append_entries *a, struct buf *ret, size_t *ret_ends, size_t max)
{
	unsigned first = 0;
	size_t n = 0;

	do {
		unsigned last = first;
		size_t bytes = 0;

		while (last < a->n_entries && (last == first || bytes + a->entries[last].buf.len < RAFT_FRAME_BYTES))
			bytes += a->entries[last++].buf.len + 32;
		CHECK(n < max);
		encode_append_part(a, first, last, ret);
		ret_ends[n++] = ret->len;
		first = last;
	} while (first < a->n_entries);
	return n;
}

static void encode_snapshot(const struct raft_install_snapshot *s, struct buf *ret)
{
	struct raft_buffer conf;
	struct wire_snapshot w = {.version = s->version, .term = s->term, .last_index = s->last_index};

	CHECK(raft_configuration_encode(&s->conf, &conf) == 0);
	w.last_term = s->last_term;
	w.conf_index = s->conf_index;
	w.conf = (struct message_bin){conf.base, conf.len};
	w.data = (struct message_bin){s->data.base, s->data.len};
	message_encode(&snapshot_type, &w, ret);
	raft_free(conf.base);
}

static void encode_votes(const struct raft_message *m, struct buf *ret)
{
	if (m->type == RAFT_REQUEST_VOTE) {
		const struct raft_request_vote *v = &m->request_vote;
		struct wire_vote w = {v->version,       v->term,           v->candidate_id, v->last_log_index,
				      v->last_log_term, v->disrupt_leader, v->pre_vote};

		message_encode(&vote_type, &w, ret);
	} else {
		const struct raft_request_vote_result *v = &m->request_vote_result;
		struct wire_vote_result w = {v->version,  v->term,     v->vote_granted,
					     v->pre_vote, v->features, v->capacity};

		message_encode(&vote_result_type, &w, ret);
	}
}

size_t wire_encode(const struct raft_message *m, struct buf *ret, size_t *ret_ends, size_t max)
{
	switch (m->type) {
	case RAFT_APPEND_ENTRIES:
		return encode_append(&m->append_entries, ret, ret_ends, max);
	case RAFT_APPEND_ENTRIES_RESULT: {
		const struct raft_append_entries_result *a = &m->append_entries_result;
		struct wire_append_result w = {a->version,        a->term,     a->rejected,
					       a->last_log_index, a->features, a->capacity};

		message_encode(&append_result_type, &w, ret);
		break;
	}
	case RAFT_INSTALL_SNAPSHOT:
		encode_snapshot(&m->install_snapshot, ret);
		break;
	case RAFT_TIMEOUT_NOW: {
		const struct raft_timeout_now *t = &m->timeout_now;
		struct wire_timeout_now w = {t->version, t->term, t->last_log_index, t->last_log_term};

		message_encode(&timeout_now_type, &w, ret);
		break;
	}
	default:
		encode_votes(m, ret);
	}
	ret_ends[0] = ret->len;
	return 1;
}

/* ---- receiving ---- */

struct delivery {
	void (*deliver)(void *ctx, struct raft_message *m);
	void *ctx;
	node_id_t from;
	const char *address;
};

static void deliver(const struct delivery *d, struct raft_message *m, int type)
{
	m->type = type;
	m->server_id = d->from;
	m->server_address = d->address;
	d->deliver(d->ctx, m);
}

/* Entries @first to @last of @v in raft's memory: one array, one batch for all payloads; raft frees them. */
static void copy_entries(const struct wire_entry *v, unsigned first, unsigned last, struct raft_append_entries *ret)
{
	size_t bytes = 0;
	uint8_t *batch;

	ret->n_entries = last - first;
	if (ret->n_entries == 0)
		return;
	for (unsigned i = first; i < last; i++)
		bytes += v[i].data.n;
	ret->entries = raft_calloc(ret->n_entries, sizeof *ret->entries);
	batch = raft_malloc(bytes + 8);
	CHECK(ret->entries != NULL && batch != NULL);
	for (unsigned i = first, at = 0; i < last; at += (unsigned)v[i].data.n, i++) {
		struct raft_entry *e = &ret->entries[i - first];

		e->term = v[i].term;
		e->type = (enum raft_entry_type)v[i].type;
		e->buf = (struct raft_buffer){batch + at, v[i].data.n};
		e->batch = batch;
		memcpy(batch + at, v[i].data.p, v[i].data.n);
	}
}

static bool entry_is_sane(const struct wire_entry *e)
{
	return e->type >= RAFT_COMMAND && e->type <= RAFT_CHANGE && e->data.n <= FRAME_BYTES_MAX;
}

/* All entries of an append, as views; -EBADMSG for garbage. @ret is malloc()ed. */
static int decode_entries(const struct message_bin *bin, struct wire_entry **ret, unsigned *ret_n)
{
	struct wire_entry *v = NULL;
	unsigned n = 0, cap = 0;
	size_t at = 0, used;

	while (at < bin->n) {
		if (n == cap) {
			cap = cap ? cap * 2 : 16;
			v = xrealloc(v, cap * sizeof *v);
		}
		if (message_decode(&entry_type, bin->p + at, bin->n - at, &v[n], &used) < 0 || !entry_is_sane(&v[n])) {
			free(v);
			return -EBADMSG;
		}
		n++;
		at += used;
	}
	*ret = v;
	*ret_n = n;
	return 0;
}

static int decode_append(const struct delivery *d, const uint8_t *p, size_t n)
{
	struct wire_append w;
	struct wire_entry *v;
	unsigned count, first = 0;

	if (message_decode(&append_type, p, n, &w, NULL) < 0 || decode_entries(&w.entries, &v, &count) < 0)
		return -EBADMSG;
	do {
		struct raft_message m = {0};
		unsigned last = first < count ? first + 1 : count;

		while (last < count && v[last].type != RAFT_CHANGE)
			last++;
		m.append_entries.version = (unsigned char)w.version;
		m.append_entries.term = w.term;
		m.append_entries.prev_log_index = w.prev_index + first;
		m.append_entries.prev_log_term = first ? v[first - 1].term : w.prev_term;
		m.append_entries.leader_commit = w.commit;
		copy_entries(v, first, last, &m.append_entries);
		deliver(d, &m, RAFT_APPEND_ENTRIES);
		first = last;
	} while (first < count);
	free(v);
	return 0;
}

static int decode_append_result(const struct delivery *d, const uint8_t *p, size_t n)
{
	struct wire_append_result w;
	struct raft_message m = {0};

	if (message_decode(&append_result_type, p, n, &w, NULL) < 0)
		return -EBADMSG;
	m.append_entries_result = (struct raft_append_entries_result){
		(unsigned char)w.version,  w.term, w.rejected, w.last_index, (unsigned short)w.features,
		(unsigned short)w.capacity};
	deliver(d, &m, RAFT_APPEND_ENTRIES_RESULT);
	return 0;
}

static int decode_vote(const struct delivery *d, const uint8_t *p, size_t n)
{
	struct wire_vote w;
	struct raft_message m = {0};

	if (message_decode(&vote_type, p, n, &w, NULL) < 0 || w.candidate != d->from)
		return -EBADMSG;
	m.request_vote = (struct raft_request_vote){
		(unsigned char)w.version, w.term, w.candidate, w.last_index, w.last_term, w.disrupt_leader, w.pre_vote};
	deliver(d, &m, RAFT_REQUEST_VOTE);
	return 0;
}

static int decode_vote_result(const struct delivery *d, const uint8_t *p, size_t n)
{
	struct wire_vote_result w;
	struct raft_message m = {0};

	if (message_decode(&vote_result_type, p, n, &w, NULL) < 0)
		return -EBADMSG;
	m.request_vote_result = (struct raft_request_vote_result){
		(unsigned char)w.version,  w.term, w.granted, w.pre_vote, (unsigned short)w.features,
		(unsigned short)w.capacity};
	deliver(d, &m, RAFT_REQUEST_VOTE_RESULT);
	return 0;
}

static int decode_snapshot(const struct delivery *d, const uint8_t *p, size_t n)
{
	struct wire_snapshot w;
	struct raft_message m = {0};
	struct raft_install_snapshot *s = &m.install_snapshot;
	struct raft_buffer conf;

	if (message_decode(&snapshot_type, p, n, &w, NULL) < 0)
		return -EBADMSG;
	conf = (struct raft_buffer){(void *)w.conf.p, w.conf.n};
	raft_configuration_init(&s->conf);
	if (raft_configuration_decode(&conf, &s->conf) != 0)
		return -EBADMSG;
	s->data.base = raft_malloc(w.data.n + 1);
	CHECK(s->data.base != NULL);
	memcpy(s->data.base, w.data.p, w.data.n);
	s->data.len = w.data.n;
	s->version = (unsigned char)w.version;
	s->term = w.term;
	s->last_index = w.last_index;
	s->last_term = w.last_term;
	s->conf_index = w.conf_index;
	deliver(d, &m, RAFT_INSTALL_SNAPSHOT);
	return 0;
}

static int decode_timeout_now(const struct delivery *d, const uint8_t *p, size_t n)
{
	struct wire_timeout_now w;
	struct raft_message m = {0};

	if (message_decode(&timeout_now_type, p, n, &w, NULL) < 0)
		return -EBADMSG;
	m.timeout_now = (struct raft_timeout_now){(unsigned char)w.version, w.term, w.last_index, w.last_term};
	deliver(d, &m, RAFT_TIMEOUT_NOW);
	return 0;
}

int wire_decode(node_id_t from, const char *address, const uint8_t *p, size_t n,
		void (*deliver_cb)(void *ctx, struct raft_message *m), void *ctx)
{
	static int (*const decoders[])(const struct delivery *d, const uint8_t *p,
				       size_t n) = {decode_append,      decode_append_result, decode_vote,
						    decode_vote_result, decode_snapshot,      decode_timeout_now};
	struct delivery d = {deliver_cb, ctx, from, address};
	uint32_t id;

	if (message_id(p, n, &id) < 0 || id < PEER_RAFT_FIRST || id - PEER_RAFT_FIRST >= ARRAY_LEN(decoders))
		return -EBADMSG;
	return decoders[id - PEER_RAFT_FIRST](&d, p, n);
}

bool wire_is_snapshot(const uint8_t *p, size_t n)
{
	uint32_t id;

	return message_id(p, n, &id) == 0 && id == WIRE_SNAPSHOT;
}
