/* SPDX-License-Identifier: Apache-2.0
 * A real NBD server on a socket in a temporary folder, an engine in memory, and a small client. */
#include "tests/unit/test_volume_nbd_help.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define TURNS_MAX 2000000u /* of a loop that does not wait: long enough for anything, and not for ever */

uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static size_t count_open(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 512; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* ---- the engine ---- */

static void step_inside(struct engine *e, enum engine_call call)
{
	void (*inside)(struct fixture * f) = e->inside;

	if (!inside || e->inside_of != call)
		return;
	e->inside = NULL;
	inside(CONTAINER_OF(e, struct fixture, engine));
}

static int engine_open(void *ctx, const char *name, struct nbd_export *ret)
{
	struct engine *e = ctx;

	step_inside(e, ENGINE_OPEN);
	for (size_t i = 0; i < EXPORTS; i++) {
		struct disk *d = &e->disks[i];

		if (strcmp(d->name, name) != 0)
			continue;
		*ret = (struct nbd_export){.volume = d, .size = d->size, .read_only = d->read_only, .epoch = 7};
		return d->refuse;
	}
	return -ENOENT;
}

static bool engine_list(void *ctx, size_t i, char ret[NAME_BYTES_MAX])
{
	struct engine *e = ctx;

	step_inside(e, ENGINE_LIST);
	if (i >= EXPORTS)
		return false;
	memcpy(ret, e->disks[i].name, NAME_BYTES_MAX);
	return true;
}

static void perform(struct engine *e, struct nbd_request *r)
{
	struct disk *d = r->volume;
	struct volume_request *v = &r->req;

	if (v->kind == VOLUME_READ)
		memcpy(v->data, d->data + v->offset, v->length);
	else if (v->kind == VOLUME_WRITE)
		memcpy(d->data + v->offset, v->data, v->length);
	else if (v->kind == VOLUME_ZERO || v->kind == VOLUME_TRIM)
		memset(d->data + v->offset, 0, v->length);
	e->flushes += v->kind == VOLUME_FLUSH;
	e->zeroes += v->kind == VOLUME_ZERO;
	e->trims += v->kind == VOLUME_TRIM;
	e->fua += v->fua;
}

static void answer_extent(struct engine *e, struct nbd_request *r, int rc)
{
	uint64_t run = r->req.offset / e->hole;

	nbd_extent_done(r, rc, run % 2 == 1, (run + 1) * e->hole - r->req.offset);
}

static void answer(struct engine *e, struct nbd_request *r, bool is_extent, int rc)
{
	if (is_extent) {
		answer_extent(e, r, rc);
		return;
	}
	if (rc == 0)
		perform(e, r);
	nbd_request_done(r, rc);
}

static void engine_put(struct engine *e, struct nbd_request *r, bool is_extent)
{
	const struct volume_request *v = &r->req;
	const struct disk *d = r->volume;

	assert_true(v->offset % VOLUME_SECTOR_BYTES == 0 && v->length % VOLUME_SECTOR_BYTES == 0);
	assert_true(v->offset <= d->size && v->length <= d->size - v->offset);
	assert_true(v->length > 0 || v->kind == VOLUME_FLUSH);
	assert_true(v->client != 0 && v->epoch == 7);
	if (!is_extent && (v->kind == VOLUME_READ || v->kind == VOLUME_WRITE))
		assert_true(v->data && (uintptr_t)v->data % 4096 == 0);
	e->last_client = v->client;
	e->last_epoch = v->epoch;
	e->gone_before = e->gone;
	step_inside(e, ENGINE_SUBMIT);
	e->submitted++;
	e->extents += is_extent;
	if (e->mode == ENGINE_AT_ONCE) {
		answer(e, r, is_extent, 0);
		return;
	}
	assert_true(e->n_pending < PENDING_MAX);
	e->is_extent[e->n_pending] = is_extent;
	e->pending[e->n_pending++] = r;
	if (e->n_pending > e->pending_max)
		e->pending_max = e->n_pending;
}

static void engine_submit(void *ctx, struct nbd_request *r)
{
	engine_put(ctx, r, false);
}

static void engine_extents(void *ctx, struct nbd_request *r)
{
	engine_put(ctx, r, true);
}

static void engine_gone(void *ctx, void *volume, uint64_t client)
{
	struct engine *e = ctx;

	assert_non_null(volume);
	assert_int_not_equal(client, 0);
	step_inside(e, ENGINE_GONE);
	e->gone++;
	e->last_gone = client;
}

static struct nbd_request *unlist(struct engine *e, size_t i, bool *ret_is_extent)
{
	struct nbd_request *r = e->pending[i];

	assert_true(i < e->n_pending);
	*ret_is_extent = e->is_extent[i];
	e->n_pending--;
	memmove(e->pending + i, e->pending + i + 1, (e->n_pending - i) * sizeof *e->pending);
	memmove(e->is_extent + i, e->is_extent + i + 1, (e->n_pending - i) * sizeof *e->is_extent);
	return r;
}

void engine_answer(struct fixture *f, size_t i, int rc)
{
	bool is_extent;
	struct nbd_request *r = unlist(&f->engine, i, &is_extent);

	answer(&f->engine, r, is_extent, rc);
}

void engine_drop(struct fixture *f, size_t i)
{
	bool is_extent;

	nbd_request_dropped(unlist(&f->engine, i, &is_extent));
}

static void engine_turn(struct fixture *f)
{
	struct engine *e = &f->engine;
	size_t n = e->mode == ENGINE_RANDOM ? e->n_pending : 0;

	for (n = n ? next_random(&e->seed) % (n + 1) : 0; n > 0; n--) {
		int rc = next_random(&e->seed) % 1000 < e->errors ? -EIO : 0;

		engine_answer(f, next_random(&e->seed) % e->n_pending, rc);
	}
}

/* ---- the fixture ---- */

static void disk_make(struct disk *d, const char *name, bool read_only)
{
	memcpy(d->name, name, strlen(name) + 1);
	d->read_only = read_only;
	disk_resize(d, DISK_BYTES);
}

void disk_resize(struct disk *d, uint64_t size)
{
	free(d->data);
	d->size = size;
	d->data = calloc(1, size);
	assert_non_null(d->data);
}

void fixture_begin(struct fixture *f, enum engine_mode mode, const struct nbd_limits *limits)
{
	struct nbd_callbacks cb = {.ctx = &f->engine,
				   .open = engine_open,
				   .list = engine_list,
				   .submit = engine_submit,
				   .gone = engine_gone,
				   .extents = engine_extents};
	struct err e = {0};

	memset(f, 0, sizeof *f);
	assert_int_equal(uv_loop_init(&f->loop), 0); /* the first one opens what libuv keeps */
	assert_int_equal(uv_loop_close(&f->loop), 0);
	f->fds = count_open();
	memcpy(f->folder, "/tmp/kedge-nbd-XXXXXX", 22);
	assert_non_null(mkdtemp(f->folder));
	(void)snprintf(f->path, sizeof f->path, "%s/nbd.sock", f->folder);
	disk_make(&f->engine.disks[0], "a", false);
	disk_make(&f->engine.disks[1], "b", false);
	disk_make(&f->engine.disks[2], "ro", true);
	f->engine.mode = mode;
	f->engine.seed = 1;
	f->engine.hole = 16384;
	assert_int_equal(uv_loop_init(&f->loop), 0);
	if (nbd_server_new(&f->loop, f->path, &cb, limits, &f->server, &e) < 0)
		fail_msg("%s", e.text);
}

static void closed_cb(void *ctx)
{
	*(bool *)ctx = true;
}

void fixture_close(struct fixture *f)
{
	f->is_closing = true;
	nbd_server_close(f->server, closed_cb, &f->is_closed);
}

void fixture_end(struct fixture *f)
{
	if (!f->is_closing)
		fixture_close(f);
	for (unsigned i = 0; !f->is_closed && i < TURNS_MAX; i++) {
		if (f->engine.mode == ENGINE_HOLD && f->engine.n_pending > 0)
			engine_drop(f, 0);
		turn(f);
	}
	assert_true(f->is_closed);
	assert_int_equal(f->engine.n_pending, 0);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	assert_int_equal(access(f->path, F_OK), -1);
	assert_int_equal(rmdir(f->folder), 0);
	for (size_t i = 0; i < EXPORTS; i++)
		free(f->engine.disks[i].data);
	assert_int_equal(count_open(), f->fds);
}

void turn(struct fixture *f)
{
	(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	engine_turn(f);
}

void turns(struct fixture *f, unsigned n)
{
	while (n-- > 0)
		turn(f);
}

void wait_pending(struct fixture *f, size_t n)
{
	for (unsigned i = 0; f->engine.n_pending != n && i < TURNS_MAX; i++)
		turn(f);
	turns(f, 3); /* and no more come */
	assert_int_equal(f->engine.n_pending, n);
}

/* ---- the client ---- */

int client_connect(struct fixture *f)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	memcpy(at.sun_path, f->path, strlen(f->path) + 1);
	while (connect(fd, (struct sockaddr *)&at, sizeof at) < 0) {
		assert_int_equal(errno, EAGAIN);
		turn(f);
	}
	return fd;
}

void client_close(int fd)
{
	assert_int_equal(close(fd), 0);
}

void client_send(struct fixture *f, int fd, const void *p, size_t n)
{
	const uint8_t *at = p;

	for (unsigned i = 0; n > 0; i++) {
		ssize_t k = send(fd, at, n, MSG_NOSIGNAL);

		assert_true(i < TURNS_MAX && (k > 0 || errno == EAGAIN));
		if (k > 0) {
			at += k;
			n -= (size_t)k;
		} else {
			turn(f);
		}
	}
}

bool client_recv(struct fixture *f, int fd, void *p, size_t n)
{
	uint8_t *at = p;

	for (unsigned i = 0; n > 0; i++) {
		ssize_t k = recv(fd, at, n, 0);

		if (k == 0 || (k < 0 && errno != EAGAIN))
			return false;
		assert_true(i < TURNS_MAX);
		if (k > 0) {
			at += k;
			n -= (size_t)k;
		} else {
			turn(f);
		}
	}
	return true;
}

void expect_end(struct fixture *f, int fd)
{
	uint8_t byte;

	assert_false(client_recv(f, fd, &byte, 1));
	client_close(fd);
}

int client_greeted(struct fixture *f, uint32_t flags)
{
	uint8_t greeting[NBD_GREETING_BYTES], answer_flags[4];
	int fd = client_connect(f);

	assert_true(client_recv(f, fd, greeting, sizeof greeting));
	assert_true(nbd_get64(greeting) == NBD_MAGIC_INIT && nbd_get64(greeting + 8) == NBD_MAGIC_OPTION);
	assert_int_equal(nbd_get16(greeting + 16), 3);
	(void)nbd_put32(answer_flags, flags);
	client_send(f, fd, answer_flags, sizeof answer_flags);
	return fd;
}

void client_option(struct fixture *f, int fd, uint32_t option, const void *data, uint32_t n)
{
	uint8_t head[NBD_OPTION_HEAD_BYTES];

	(void)nbd_put32(nbd_put32(nbd_put64(head, NBD_MAGIC_OPTION), option), n);
	client_send(f, fd, head, sizeof head);
	if (data)
		client_send(f, fd, data, n);
}

void client_option_reply(struct fixture *f, int fd, struct option_reply *ret)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES];

	assert_true(client_recv(f, fd, head, sizeof head));
	assert_true(nbd_get64(head) == NBD_MAGIC_REPLY);
	ret->option = nbd_get32(head + 8);
	ret->type = nbd_get32(head + 12);
	ret->length = nbd_get32(head + 16);
	assert_true(ret->length <= sizeof ret->data);
	assert_true(client_recv(f, fd, ret->data, ret->length));
}

size_t option_data(uint8_t *p, const char *name, const char *query)
{
	uint8_t *at = nbd_put32(p, (uint32_t)strlen(name));

	memcpy(at, name, strlen(name));
	at += strlen(name);
	if (!query)
		return (size_t)(nbd_put16(at, 0) - p);
	at = nbd_put32(nbd_put32(at, 1), (uint32_t)strlen(query));
	memcpy(at, query, strlen(query));
	return (size_t)(at - p) + strlen(query);
}

int client_open(struct fixture *f, const char *name, unsigned with)
{
	int fd = client_greeted(f, 3);
	struct option_reply reply;
	uint8_t data[256];

	if (with & (WITH_STRUCTURED | WITH_CONTEXT)) {
		client_option(f, fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		client_option_reply(f, fd, &reply);
		assert_int_equal(reply.type, NBD_REP_ACK);
	}
	if (with & WITH_CONTEXT) {
		client_option(f, fd, NBD_OPT_SET_META_CONTEXT, data,
			      (uint32_t)option_data(data, name, NBD_CONTEXT_ALLOCATION));
		client_option_reply(f, fd, &reply);
		assert_int_equal(reply.type, NBD_REP_META_CONTEXT);
		client_option_reply(f, fd, &reply);
		assert_int_equal(reply.type, NBD_REP_ACK);
	}
	client_option(f, fd, NBD_OPT_GO, data, (uint32_t)option_data(data, name, NULL));
	client_option_reply(f, fd, &reply);
	assert_int_equal(reply.type, NBD_REP_INFO);
	client_option_reply(f, fd, &reply);
	assert_int_equal(reply.type, NBD_REP_ACK);
	return fd;
}

void client_request(struct fixture *f, int fd, uint16_t flags, uint16_t command, uint64_t cookie, uint64_t offset,
		    uint32_t length, const void *payload)
{
	uint8_t head[NBD_REQUEST_BYTES], *p = nbd_put32(head, NBD_MAGIC_REQUEST);

	p = nbd_put16(nbd_put16(p, flags), command);
	(void)nbd_put32(nbd_put64(nbd_put64(p, cookie), offset), length);
	client_send(f, fd, head, sizeof head);
	if (payload)
		client_send(f, fd, payload, length);
}

static void answer_data(struct fixture *f, int fd, void *data, size_t n, size_t max)
{
	assert_true(n <= max);
	assert_true(client_recv(f, fd, data, n));
}

static void answer_chunk(struct fixture *f, int fd, struct answer *ret, void *data, size_t max)
{
	uint8_t head[NBD_STRUCTURED_BYTES - 4], more[8];
	size_t n;

	assert_true(client_recv(f, fd, head, sizeof head));
	assert_int_equal(nbd_get16(head), NBD_REPLY_FLAG_DONE);
	ret->type = nbd_get16(head + 2);
	ret->cookie = nbd_get64(head + 4);
	n = nbd_get32(head + 12);
	if (ret->type == NBD_REPLY_TYPE_ERROR) {
		assert_int_equal(n, 6);
		assert_true(client_recv(f, fd, more, 6));
		ret->error = nbd_get32(more);
	} else if (ret->type == NBD_REPLY_TYPE_OFFSET_DATA) {
		assert_true(n > 8 && client_recv(f, fd, more, 8));
		ret->offset = nbd_get64(more);
		ret->n = n - 8;
		answer_data(f, fd, data, ret->n, max);
	} else {
		ret->n = n;
		answer_data(f, fd, data, n, max);
	}
}

void client_answer(struct fixture *f, int fd, size_t simple_bytes, struct answer *ret, void *data, size_t max)
{
	uint8_t magic[4], head[NBD_SIMPLE_BYTES - 4];

	*ret = (struct answer){0};
	assert_true(client_recv(f, fd, magic, sizeof magic));
	ret->is_structured = nbd_get32(magic) == NBD_MAGIC_STRUCTURED;
	if (ret->is_structured) {
		answer_chunk(f, fd, ret, data, max);
	} else {
		assert_true(nbd_get32(magic) == NBD_MAGIC_SIMPLE && client_recv(f, fd, head, sizeof head));
		ret->error = nbd_get32(head);
		ret->cookie = nbd_get64(head + 4);
		ret->n = ret->error ? 0 : simple_bytes;
		answer_data(f, fd, data, ret->n, max);
	}
	assert_int_not_equal(ret->error, 108); /* never ESHUTDOWN */
}

uint32_t client_do(struct fixture *f, int fd, uint16_t flags, uint16_t command, uint64_t offset, uint32_t length,
		   const void *payload, void *ret_data)
{
	static uint64_t cookie = 1000;
	struct answer a;

	client_request(f, fd, flags, command, ++cookie, offset, length, payload);
	client_answer(f, fd, command == NBD_CMD_READ ? length : 0, &a, ret_data,
		      command == NBD_CMD_READ ? length : NBD_PAYLOAD_MAX);
	assert_true(a.cookie == cookie);
	return a.error;
}
