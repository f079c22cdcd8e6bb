/* SPDX-License-Identifier: Apache-2.0
 * Files from other nodes. The links of the peers carry leases too: a piece is small, and the next one is asked for only
 * when the last one is written. */
#include "agent/images_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_MAX_TIME (5 * USEC_PER_SEC)
#define AGAIN_AFTER    USEC_PER_SEC
#define SERVING_MAX    NODES_MAX /* each node asks for one at a time */

enum fetch_state {
	FETCH_OPENING, /* a job makes the file */
	FETCH_ASKED,   /* a piece */
	FETCH_WRITING, /* a job writes it */
	FETCH_ENDING,  /* a job syncs and compares */
	FETCH_STATES,
};

struct image_fetch {
	struct image_job job;
	enum fetch_state state;
	char digest[DIGEST_BYTES_MAX];
	node_id_t from;
	struct image_writer *writer;
	struct buf piece;
	uint64_t total;
	usec_t deadline; /* FETCH_ASKED */
	bool lost;       /* the link, while a job ran */
	int rc;
	struct err e;
};

static void move(struct image_fetch *f, enum fetch_state to)
{
	static const bool legal[FETCH_STATES][FETCH_STATES] = {
		[FETCH_OPENING] = {[FETCH_ASKED] = true},
		[FETCH_ASKED] = {[FETCH_WRITING] = true},
		[FETCH_WRITING] = {[FETCH_ASKED] = true, [FETCH_ENDING] = true},
	};

	CHECK(legal[f->state][to]);
	f->state = to;
	CHECK(f->writer != NULL);
}

/* ---- troubles ---- */

static struct image_trouble *trouble_of(struct images *im, const char *digest)
{
	for (size_t i = 0; i < im->n_troubles; i++)
		if (strcmp(im->troubles[i].digest, digest) == 0)
			return &im->troubles[i];
	im->troubles = xrealloc(im->troubles, (im->n_troubles + 1) * sizeof *im->troubles);
	im->troubles[im->n_troubles] = (struct image_trouble){0};
	memcpy(im->troubles[im->n_troubles].digest, digest, DIGEST_BYTES_MAX);
	return &im->troubles[im->n_troubles++];
}

static void forget_trouble(struct images *im, const char *digest)
{
	*trouble_of(im, digest) = im->troubles[im->n_troubles - 1];
	im->n_troubles--;
}

static void release(struct images *im)
{
	struct image_fetch *f = im->fetch;

	im->fetch = NULL;
	f->writer = image_writer_free(f->writer);
	buf_free(&f->piece);
	free(f);
	im->next_look = 0;
}

/* The next try is with another node, where there is one. */
static void give_up(struct images *im, const char *why)
{
	struct image_trouble *t = trouble_of(im, im->fetch->digest);

	log_warning("the file %.16s... cannot be fetched from node %u: %s; tried again", im->fetch->digest,
		    im->fetch->from, why);
	t->tries++;
	t->not_before = clock_boottime() + AGAIN_AFTER;
	release(im);
}

/* ---- fetching ---- */

static bool send_to(struct images *im, node_id_t to, const struct message_type *type, const void *msg)
{
	struct buf frame = {0};
	int rc;

	message_encode(type, msg, &frame);
	rc = net_peer_send(im->agent->net, to, frame.data, frame.len);
	buf_free(&frame);
	return rc == 0;
}

static void ask(struct images *im)
{
	struct image_fetch *f = im->fetch;
	struct peer_file_ask m = {.offset = image_writer_bytes(f->writer)};

	memcpy(m.digest, f->digest, sizeof m.digest);
	move(f, FETCH_ASKED);
	f->deadline = clock_boottime() + PIECE_MAX_TIME;
	if (!send_to(im, f->from, &peer_file_ask_type, &m))
		give_up(im, "the link is gone");
}

static void open_run(struct image_job *j)
{
	struct image_fetch *f = (struct image_fetch *)(void *)j;

	f->rc = image_writer_open(j->im->folder, &f->writer, &f->e);
}

static void write_run(struct image_job *j)
{
	struct image_fetch *f = (struct image_fetch *)(void *)j;

	f->rc = image_writer_add(f->writer, f->piece.data, f->piece.len, &f->e);
}

static void end_run(struct image_job *j)
{
	struct image_fetch *f = (struct image_fetch *)(void *)j;

	f->rc = image_writer_finish(f->writer, f->digest, &f->e);
	if (f->rc == 0)
		f->rc = image_writer_keep(f->writer, &f->e);
}

/* What was sent is wrong: its sender shall look at what it has. */
static void complain(struct images *im)
{
	struct peer_file_ask m = {0};

	memcpy(m.digest, im->fetch->digest, sizeof m.digest);
	(void)send_to(im, im->fetch->from, &peer_file_bad_type, &m);
}

static void end_done(struct image_job *j)
{
	struct images *im = j->im;
	struct image_fetch *f = im->fetch;

	if (atomic_load(&im->closing)) {
		release(im);
		return;
	}
	if (f->rc < 0) {
		if (f->rc == -EBADMSG)
			complain(im);
		give_up(im, f->e.text);
		return;
	}
	log_info("the file %.16s... was fetched from node %u (%llu bytes)", f->digest, f->from,
		 (unsigned long long)image_writer_bytes(f->writer));
	forget_trouble(im, f->digest);
	(void)image_arrived(im, f->digest);
	release(im);
}

static void piece_done(struct image_job *j)
{
	struct images *im = j->im;
	struct image_fetch *f = im->fetch;

	if (atomic_load(&im->closing)) {
		release(im);
	} else if (f->rc < 0) {
		give_up(im, f->e.text);
	} else if (f->lost) {
		give_up(im, "the link is gone");
	} else if (f->state == FETCH_OPENING || image_writer_bytes(f->writer) < f->total) {
		if (f->state == FETCH_WRITING)
			im->progress = clock_boottime();
		ask(im);
	} else {
		move(f, FETCH_ENDING);
		f->job.run = end_run;
		f->job.done = end_done;
		image_job_begin(im, &f->job);
	}
}

static node_id_t choose(struct images *im, const char *digest, unsigned tries)
{
	uint64_t holders = store_holders(im->agent->store, digest);
	node_id_t found[NODES_MAX];
	size_t n = 0;

	for (node_id_t node = 1; node <= NODES_MAX; node++)
		if (node != im->agent->config.id && holders & 1ULL << (node - 1) &&
		    net_peer_is_up(im->agent->net, node))
			found[n++] = node;
	return n ? found[(tries + im->agent->config.id) % n] : 0;
}

void image_fetch_begin(struct images *im, const char *digest)
{
	struct image_trouble *t;
	struct image_fetch *f;
	node_id_t from;

	if (im->fetch || atomic_load(&im->closing))
		return;
	t = trouble_of(im, digest);
	from = choose(im, digest, t->tries);
	if (from == 0 || clock_boottime() < t->not_before)
		return;
	f = im->fetch = xcalloc(1, sizeof *f);
	f->from = from;
	memcpy(f->digest, digest, sizeof f->digest);
	f->job.run = open_run;
	f->job.done = piece_done;
	image_job_begin(im, &f->job);
}

void image_fetch_step(struct images *im)
{
	if (im->fetch && im->fetch->state == FETCH_ASKED && clock_boottime() >= im->fetch->deadline)
		give_up(im, "no answer");
}

void image_fetch_close(struct images *im)
{
	if (im->fetch && im->fetch->state == FETCH_ASKED)
		release(im);
}

void images_link_down(struct images *im, node_id_t node)
{
	if (!im->fetch || im->fetch->from != node)
		return;
	im->fetch->lost = true;
	if (im->fetch->state == FETCH_ASKED)
		give_up(im, "the link is gone");
}

void image_fetch_describe(const struct images *im, const char *digest, char ret[REASON_BYTES_MAX])
{
	const struct image_fetch *f = im->fetch;

	if (f && strcmp(f->digest, digest) == 0)
		(void)snprintf(ret, REASON_BYTES_MAX, "being fetched from node %u: %llu %%", f->from,
			       f->total && f->state != FETCH_OPENING
				       ? (unsigned long long)(image_writer_bytes(f->writer) * 100 / f->total)
				       : 0ULL);
	else if (choose((struct images *)im, digest, 0) == 0)
		(void)snprintf(ret, REASON_BYTES_MAX, "on no node that is up");
	else
		(void)snprintf(ret, REASON_BYTES_MAX, "to be fetched from another node");
}

static void receive_data(struct images *im, node_id_t from, const struct peer_file_data *m)
{
	struct image_fetch *f = im->fetch;

	if (!f || f->state != FETCH_ASKED || f->from != from || strcmp(f->digest, m->digest) != 0 ||
	    m->offset != image_writer_bytes(f->writer))
		return; /* of a try before */
	if (m->error || (m->data.n == 0 && m->offset < m->total) || m->data.n > FETCH_CHUNK_BYTES ||
	    m->offset + m->data.n > m->total) {
		give_up(im, m->error ? strerror((int)m->error) : "the answer makes no sense");
		return;
	}
	f->total = m->total;
	buf_consume(&f->piece, f->piece.len);
	buf_append(&f->piece, m->data.p, m->data.n);
	move(f, FETCH_WRITING);
	f->job.run = write_run;
	f->job.done = piece_done;
	image_job_begin(im, &f->job);
}

/* ---- for others ---- */

struct serve {
	struct image_job job;
	node_id_t to;
	struct peer_file_data answer;
	struct buf data;
};

static void serve_run(struct image_job *j)
{
	struct serve *s = (struct serve *)(void *)j;
	int rc = image_read(j->im->folder, s->answer.digest, s->answer.offset, FETCH_CHUNK_BYTES, &s->data,
			    &s->answer.total);

	s->answer.error = rc < 0 ? (uint32_t)-rc : 0;
}

static void serve_done(struct image_job *j)
{
	struct serve *s = (struct serve *)(void *)j;

	j->im->serving--;
	s->answer.data = (struct message_bin){s->data.data, s->data.len};
	if (!atomic_load(&j->im->closing))
		(void)send_to(j->im, s->to, &peer_file_data_type, &s->answer);
	buf_free(&s->data);
	free(s);
}

static void serve(struct images *im, node_id_t to, const struct peer_file_ask *m)
{
	struct serve *s;

	if (!image_is_digest(m->digest) || im->serving >= SERVING_MAX || atomic_load(&im->closing))
		return; /* it asks again */
	im->serving++;
	s = xcalloc(1, sizeof *s);
	s->to = to;
	s->answer.offset = m->offset;
	memcpy(s->answer.digest, m->digest, sizeof s->answer.digest);
	s->job.run = serve_run;
	s->job.done = serve_done;
	image_job_begin(im, &s->job);
}

bool images_frame(struct images *im, node_id_t from, const uint8_t *p, size_t n)
{
	struct peer_file_data data;
	struct peer_file_ask m;
	struct image *i;
	uint32_t id;

	if (message_id(p, n, &id) < 0 || (id != PEER_FILE_ASK && id != PEER_FILE_DATA && id != PEER_FILE_BAD))
		return false;
	if (id == PEER_FILE_ASK && message_decode(&peer_file_ask_type, p, n, &m, NULL) == 0) {
		serve(im, from, &m);
	} else if (id == PEER_FILE_DATA && message_decode(&peer_file_data_type, p, n, &data, NULL) == 0) {
		receive_data(im, from, &data);
	} else if (id == PEER_FILE_BAD && message_decode(&peer_file_bad_type, p, n, &m, NULL) == 0) {
		i = image_find(im, m.digest);
		if (i)
			image_check(im, i);
	}
	return true;
}
