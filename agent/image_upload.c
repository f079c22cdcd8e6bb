/* SPDX-License-Identifier: Apache-2.0
 * What administrators send: piece by piece on one connection, to which it belongs. One piece is written at a time, on a
 * worker; what ends before its end is removed. */
#include "agent/images_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPIES_USUAL 2

struct image_upload {
	struct image_job job;
	struct image_upload *next;
	struct net_conn *conn;   /* NULL: closed, it goes when its job is done */
	struct request *request; /* to be answered; NULL: none */
	bool busy;
	struct image_writer *writer;
	/* the piece, or the end */
	const uint8_t *data;
	size_t n;
	char digest[DIGEST_BYTES_MAX];
	char name[NAME_BYTES_MAX]; /* "": a file, not an image */
	uint32_t copies;
	struct image_info info;
	int rc;
	struct err e;
};

static struct image_upload *find(struct images *im, const struct net_conn *conn)
{
	for (struct image_upload *u = im->uploads; u; u = u->next)
		if (u->conn == conn)
			return u;
	return NULL;
}

static void release(struct images *im, struct image_upload *u)
{
	struct image_upload **at = &im->uploads;

	while (*at != u)
		at = &(*at)->next;
	*at = u->next;
	im->n_uploads--;
	u->writer = image_writer_free(u->writer);
	free(u);
}

static void answer(struct image_upload *u, int code, const char *text, const struct buf *result)
{
	struct request *r = u->request;

	u->request = NULL;
	ctl_answer(r, code, text, result);
}

/* What the disk says becomes what the administrator is told. */
static int code_of(int rc)
{
	return rc == -EINVAL || rc == -EBADMSG ? PROTO_E_INVALID : rc == -ENOSPC ? PROTO_E_TOO_MANY : PROTO_E_INTERNAL;
}

/* ---- jobs ---- */

static void open_run(struct image_job *j)
{
	struct image_upload *u = (struct image_upload *)(void *)j;

	u->rc = image_writer_open(j->im->folder, &u->writer, &u->e);
}

static void data_run(struct image_job *j)
{
	struct image_upload *u = (struct image_upload *)(void *)j;

	u->rc = image_writer_add(u->writer, u->data, u->n, &u->e);
}

static void end_run(struct image_job *j)
{
	struct image_upload *u = (struct image_upload *)(void *)j;

	u->rc = image_writer_finish(u->writer, u->digest, &u->e);
	if (u->rc == 0 && u->name[0])
		u->rc = image_inspect(image_writer_path(u->writer), &j->im->closing, &u->info, &u->e);
	if (u->rc == 0)
		u->rc = image_writer_keep(u->writer, &u->e);
}

static void begin_job(struct images *im, struct image_upload *u, struct request *r, void (*run)(struct image_job *j),
		      void (*done)(struct image_job *j))
{
	u->request = r;
	u->busy = true;
	u->job.run = run;
	u->job.done = done;
	image_job_begin(im, &u->job);
}

static void piece_done(struct image_job *j)
{
	struct image_upload *u = (struct image_upload *)(void *)j;

	u->busy = false;
	if (u->rc < 0)
		answer(u, code_of(u->rc), u->e.text, NULL);
	else
		answer(u, 0, NULL, NULL);
	if (u->rc < 0 || !u->conn || atomic_load(&j->im->closing))
		release(j->im, u);
}

/* ---- the end ---- */

static void pack_what(struct pack *p, const struct image_upload *u, uint64_t bytes)
{
	pack_kv_str(p, "digest", u->digest);
	pack_kv_u64(p, "bytes", bytes);
	if (u->name[0]) {
		pack_kv_str(p, "name", u->name);
		pack_kv_u64(p, "size", u->info.size);
		pack_kv_str(p, "format", u->info.format);
		pack_kv_u64(p, "copies", u->copies);
	}
}

static void logged(void *ctx, const uint8_t *response, size_t n)
{
	struct image_upload *u = ctx;
	struct buf result = {0};
	struct pack p = {.out = &result};
	char text[300] = "";
	int64_t code = 0;
	struct unpack o;

	if (unpack_open(&o, response, n) < 0)
		code = PROTO_E_INTERNAL;
	else
		(void)unpack_i64(unpack_key(unpack_at(o.root, 2), "code"), &code);
	(void)unpack_str(unpack_key(unpack_at(o.root, 2), "text"), text, sizeof text);
	unpack_free(&o);
	pack_map(&p);
	pack_what(&p, u, image_writer_bytes(u->writer));
	pack_kv_str(&p, "node", u->job.im->agent->config.name);
	pack_end(&p);
	u->busy = false;
	answer(u, (int)code, text, &result);
	buf_free(&result);
	release(u->job.im, u);
}

/* The file is here: now it becomes an image, or this node its holder. */
static void end_done(struct image_job *j)
{
	struct image_upload *u = (struct image_upload *)(void *)j;
	struct images *im = j->im;
	struct buf params = {0};
	struct pack p;

	if (u->rc < 0 || atomic_load(&im->closing)) {
		u->busy = false;
		answer(u, u->rc < 0 && u->rc != -ECANCELED ? code_of(u->rc) : PROTO_E_UNREACHABLE, u->e.text, NULL);
		release(im, u);
		return;
	}
	(void)image_arrived(im, u->digest);
	image_params(im, &p, &params);
	pack_what(&p, u, image_writer_bytes(u->writer));
	if (!u->name[0])
		pack_kv_bool(&p, "held", true);
	pack_end(&p);
	ctl_submit_as(im->agent->ctl, ctl_request_actor(u->request), u->name[0] ? "image.add" : "image.held", &params,
		      logged, u);
	buf_free(&params);
}

/* ---- requests ---- */

static void begin(struct images *im, struct request *r)
{
	struct net_conn *conn = ctl_request_conn(r);
	struct image_upload *u = find(im, conn);

	if (u || im->n_uploads >= UPLOADS_MAX) {
		ctl_answer(r, PROTO_E_TOO_MANY, u ? "one upload at a time on a connection" : "too many uploads at once",
			   NULL);
		return;
	}
	u = xcalloc(1, sizeof *u);
	u->conn = conn;
	u->next = im->uploads;
	im->uploads = u;
	im->n_uploads++;
	begin_job(im, u, r, open_run, piece_done);
}

static void data(struct images *im, struct image_upload *u, struct request *r, const struct msgpack_object *params)
{
	uint64_t offset = UINT64_MAX;

	(void)unpack_u64(unpack_key(params, "offset"), &offset);
	if (offset != image_writer_bytes(u->writer) || !unpack_bin(unpack_key(params, "data"), &u->data, &u->n) ||
	    u->n > UPLOAD_CHUNK_BYTES) {
		ctl_answer(r, PROTO_E_INVALID, "upload: the next piece must follow the last one", NULL);
		return;
	}
	begin_job(im, u, r, data_run, piece_done);
}

static void end(struct images *im, struct image_upload *u, struct request *r, const struct msgpack_object *params)
{
	const struct msgpack_object *name = unpack_key(params, "name");
	uint64_t copies = COPIES_USUAL;

	(void)unpack_u64(unpack_key(params, "copies"), &copies);
	if (!unpack_str(unpack_key(params, "digest"), u->digest, sizeof u->digest) || !image_is_digest(u->digest))
		ctl_answer(r, PROTO_E_INVALID, "upload: the digest must have 64 hexadecimal digits", NULL);
	else if (name && (!unpack_str(name, u->name, sizeof u->name) || !name_is_valid(u->name)))
		ctl_answer(r, PROTO_E_INVALID,
			   "a name has letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit",
			   NULL);
	else if (copies < 1 || copies > NODES_MAX)
		ctl_answer(r, PROTO_E_INVALID, "copies must be from 1 to 64", NULL);
	else
		begin_job(im, u, r, end_run, end_done);
	u->copies = (uint32_t)copies;
}

void images_request(struct images *im, struct request *r, const char *method, const struct msgpack_object *params)
{
	struct image_upload *u = find(im, ctl_request_conn(r));

	if (atomic_load(&im->closing))
		ctl_answer(r, PROTO_E_UNREACHABLE, "the agent is stopping", NULL);
	else if (strcmp(method, "upload.begin") == 0)
		begin(im, r);
	else if (!u || u->busy)
		ctl_answer(r, PROTO_E_INVALID, u ? "upload: wait for the last answer" : "upload: begin it first", NULL);
	else if (strcmp(method, "upload.data") == 0)
		data(im, u, r, params);
	else
		end(im, u, r, params);
}

void images_conn_closed(struct images *im, struct net_conn *conn)
{
	struct image_upload *u = find(im, conn);

	if (!u)
		return;
	u->conn = NULL;
	if (!u->busy)
		release(im, u);
}

void image_uploads_free(struct images *im)
{
	while (im->uploads)
		release(im, im->uploads);
}
