/* SPDX-License-Identifier: Apache-2.0
 * Questions to a running engine, at `run/volctl.sock`: a line of words comes, one answer goes back, and the connection
 * ends.
 *
 *	status                       every volume, as JSON
 *	verify NAME [primary-wins]   begin a scrub; "ok", or "error: why"
 *	verify-stop NAME             leave off
 *	progress NAME                of its scrub: "on|done BYTES SIZE WRONG UNDECIDED LOST SKIPPED PASSES"
 */
#include "volume/engine_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 256
#define ASKERS_MAX     16

struct asker {
	uv_pipe_t pipe;
	uv_write_t write;
	struct ask *ask;
	struct asker *next;
	struct buf answer;
	char line[LINE_MAX_BYTES];
	size_t len;
};

struct ask {
	struct engine *g;
	uv_pipe_t listener;
	struct asker *askers;
	unsigned open;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* ---- status ---- */

static const char *role_of(const struct vol *v, const struct volume_core_status *st)
{
	static const char *const names[] = {
		[VOLUME_IDLE] = "replica", [VOLUME_STARTING] = "starting", [VOLUME_LEADING] = "primary"};

	return v->step == VOL_OPEN ? names[st->role] : v->step == VOL_FAILED ? "failed" : "opening";
}

/* Of what is copied, at the speed so far; a volume that nothing was copied of yet has no estimate. */
static void peer_json(const struct volume_peer_status *p, usec_t now, struct buf *ret)
{
	uint64_t done = p->need_total - p->need_blocks;
	double seconds = (double)(now - p->since) / USEC_PER_SEC;

	buf_printf(ret, "{\"node\": %u, \"in_sync\": %s, \"connected\": %s, \"known\": %s, \"needs_bytes\": %llu",
		   p->node, p->in_sync ? "true" : "false", p->connected ? "true" : "false", p->known ? "true" : "false",
		   (unsigned long long)p->need_blocks * VOLUME_BLOCK_BYTES);
	if (p->need_blocks && done && seconds > 0)
		buf_printf(ret, ", \"of_bytes\": %llu, \"bytes_per_second\": %.0f, \"seconds_left\": %.1f",
			   (unsigned long long)p->need_total * VOLUME_BLOCK_BYTES,
			   (double)done * VOLUME_BLOCK_BYTES / seconds,
			   seconds * (double)p->need_blocks / (double)done);
	buf_printf(ret, "}");
}

static void finding_json(const struct volume_finding *f, struct buf *ret)
{
	static const char *const names[] = {
		[VOLUME_WRONG] = "wrong", [VOLUME_UNDECIDED] = "undecided", [VOLUME_LOST] = "lost"};

	buf_printf(ret, "{\"offset\": %llu, \"length\": %llu, \"verdict\": \"%s\"", (unsigned long long)f->offset,
		   (unsigned long long)f->length, names[f->verdict]);
	if (f->verdict == VOLUME_WRONG)
		buf_printf(ret, ", \"node\": %u, \"unreadable\": %s", f->node, f->unreadable ? "true" : "false");
	buf_printf(ret, "}");
}

static void core_json(const struct vol *v, const struct volume_core_status *st, struct buf *ret)
{
	static const char *const joins[] = {"none", "copying", "joint", "synced", "proposed"};
	const struct volume_scrub_status *s = &st->scrub;

	buf_printf(ret, ", \"lead\": [%u, %u], \"promised\": [%u, %u], \"active\": [%u, %u], \"serves\": %s",
		   st->lead.epoch, st->lead.minor, st->promised.epoch, st->promised.minor, st->active.epoch,
		   st->active.minor, st->serves ? "true" : "false");
	buf_printf(ret, ", \"intents\": %llu, \"unflushed\": %llu, \"waiting\": %llu, \"join\": \"%s\"",
		   (unsigned long long)st->intents, (unsigned long long)st->unflushed, (unsigned long long)st->waiting,
		   joins[st->join]);
	buf_printf(ret, ", \"peers\": [");
	for (size_t i = 0; i < st->n_peers; i++) {
		buf_printf(ret, i ? ", " : "");
		peer_json(&st->peers[i], clock_boottime(), ret);
	}
	buf_printf(ret, "], \"scrub\": {\"on\": %s, \"bytes\": %llu, \"wrong\": %llu, \"undecided\": %llu, ",
		   s->on ? "true" : "false", (unsigned long long)s->block * VOLUME_BLOCK_BYTES,
		   (unsigned long long)s->wrong, (unsigned long long)s->undecided);
	buf_printf(ret, "\"lost\": %llu, \"skipped\": %llu, \"passes\": %llu, \"findings\": [",
		   (unsigned long long)s->lost, (unsigned long long)s->skipped, (unsigned long long)s->passes);
	for (size_t i = 0; i < v->n_findings; i++) {
		buf_printf(ret, i ? ", " : "");
		finding_json(&v->findings[i], ret);
	}
	buf_printf(ret, "]}");
}

static void vol_json(const struct vol *v, struct buf *ret)
{
	struct volume_core_status st = {0};

	if (v->step == VOL_OPEN)
		volume_core_status(v->core, &st);
	buf_printf(ret, "{\"name\": \"%s\", \"size\": %llu, \"epoch\": %u, \"primary\": %u, \"role\": \"%s\"", v->name,
		   (unsigned long long)vol_size(v), v->row.epoch, v->row.primary, role_of(v, &st));
	if (v->step == VOL_OPEN)
		core_json(v, &st, ret);
	buf_printf(ret, "}");
}

static void status(const struct engine *g, struct buf *ret)
{
	const char *between = "";

	buf_printf(ret, "{\"node\": %u, \"volumes\": [", g->node);
	for (const struct vol *v = g->vols; v; v = v->next) {
		if (v->agent.dropping || v->step == VOL_ERASED)
			continue;
		buf_printf(ret, "%s", between);
		vol_json(v, ret);
		between = ", ";
	}
	buf_printf(ret, "]}\n");
}

/* ---- scrubs ---- */

static void verify(struct vol *v, bool primary_wins, struct buf *ret)
{
	int rc = scrub_begin(v, primary_wins);

	if (rc == -EALREADY)
		buf_printf(ret, "error: %s is being scrubbed already\n", v->name);
	else if (rc < 0)
		buf_printf(ret, "error: %s is not led here: ask the engine of node %u\n", v->name, v->row.primary);
	else
		buf_printf(ret, "ok\n");
}

static void progress(const struct vol *v, struct buf *ret)
{
	struct volume_core_status st = {0};
	const struct volume_scrub_status *s = &st.scrub;
	uint64_t bytes;

	if (v->step == VOL_OPEN)
		volume_core_status(v->core, &st);
	bytes = s->block * VOLUME_BLOCK_BYTES;
	buf_printf(ret, "%s %llu %llu %llu %llu %llu %llu %llu\n", s->on ? "on" : "done",
		   (unsigned long long)(bytes < vol_size(v) ? bytes : vol_size(v)), (unsigned long long)vol_size(v),
		   (unsigned long long)s->wrong, (unsigned long long)s->undecided, (unsigned long long)s->lost,
		   (unsigned long long)s->skipped, (unsigned long long)s->passes);
}

static bool about_a_volume(struct vol *v, const char *what, const char *how, struct buf *ret)
{
	if (strcmp(what, "verify") == 0 && (!how || strcmp(how, "primary-wins") == 0)) {
		verify(v, how, ret);
		return true;
	}
	if (how)
		return false;
	if (strcmp(what, "progress") == 0) {
		progress(v, ret);
		return true;
	}
	if (strcmp(what, "verify-stop") != 0)
		return false;
	if (v->step == VOL_OPEN)
		volume_core_scrub_stop(v->core);
	buf_printf(ret, "ok\n");
	return true;
}

static void answer(struct engine *g, char *line, struct buf *ret)
{
	char *rest = NULL;
	const char *what = strtok_r(line, " \r\n", &rest), *name = strtok_r(NULL, " \r\n", &rest);
	const char *how = strtok_r(NULL, " \r\n", &rest);
	struct vol *v = name ? engine_find(g, name) : NULL;

	if (what && strcmp(what, "status") == 0 && !name)
		status(g, ret);
	else if (name && !v)
		buf_printf(ret, "error: there is no volume '%s' on this node\n", name);
	else if (!v || !about_a_volume(v, what, how, ret))
		buf_printf(ret, "error: it is none of status, verify, verify-stop, progress\n");
}

/* ---- connections ---- */

static void part_closed(struct ask *a)
{
	CHECK(a->open > 0);
	if (--a->open > 0)
		return;
	a->closed(a->closed_ctx);
	free(a);
}

static void asker_closed(uv_handle_t *handle)
{
	struct asker *k = handle->data;
	struct asker **at = &k->ask->askers;

	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	part_closed(k->ask);
	buf_free(&k->answer);
	free(k);
}

static void asker_end(struct asker *k)
{
	if (!uv_is_closing((uv_handle_t *)&k->pipe))
		uv_close((uv_handle_t *)&k->pipe, asker_closed);
}

static void written_cb(uv_write_t *write, int rc)
{
	(void)rc;
	asker_end(write->data);
}

static void alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct asker *k = handle->data;

	(void)suggested;
	*ret = uv_buf_init(k->line + k->len, (unsigned)(sizeof k->line - 1 - k->len));
}

static void read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct asker *k = stream->data;
	uv_buf_t out;

	(void)buf;
	if (n < 0) { /* ENOBUFS: a line too long */
		asker_end(k);
		return;
	}
	k->len += (size_t)n;
	if (!memchr(k->line, '\n', k->len))
		return;
	(void)uv_read_stop(stream);
	answer(k->ask->g, k->line, &k->answer);
	out = uv_buf_init((char *)k->answer.data, (unsigned)k->answer.len);
	k->write.data = k;
	if (uv_write(&k->write, stream, &out, 1, written_cb) < 0)
		asker_end(k);
}

static void connection_cb(uv_stream_t *listener, int rc)
{
	struct ask *a = listener->data;
	struct asker *k;

	if (rc < 0)
		return;
	k = xcalloc(1, sizeof *k);
	k->ask = a;
	k->next = a->askers;
	a->askers = k;
	CHECK(uv_pipe_init(a->g->loop, &k->pipe, 0) == 0);
	k->pipe.data = k;
	if (uv_accept(listener, (uv_stream_t *)&k->pipe) < 0 || a->open > ASKERS_MAX ||
	    uv_read_start((uv_stream_t *)&k->pipe, alloc_cb, read_cb) < 0)
		asker_end(k);
	a->open++;
}

int ask_new(struct engine *g, struct ask **ret, struct err *e)
{
	char path[PATH_BYTES_MAX + 32];
	struct ask *a = xcalloc(1, sizeof *a);
	int rc;

	a->g = g;
	a->open = 1;
	(void)snprintf(path, sizeof path, "%s/run/volctl.sock", g->dir);
	(void)uv_fs_unlink(NULL, &(uv_fs_t){0}, path, NULL);
	CHECK(uv_pipe_init(g->loop, &a->listener, 0) == 0);
	a->listener.data = a;
	rc = uv_pipe_bind(&a->listener, path);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&a->listener, ASKERS_MAX, connection_cb);
	*ret = a;
	return rc < 0 ? err_set(e, rc, "listen at '%s': %s", path, uv_strerror(rc)) : 0;
}

static void listener_closed(uv_handle_t *handle)
{
	part_closed(handle->data);
}

void ask_close(struct ask *a, void (*cb)(void *ctx), void *ctx)
{
	a->closed = cb;
	a->closed_ctx = ctx;
	for (struct asker *k = a->askers; k; k = k->next)
		asker_end(k);
	uv_close((uv_handle_t *)&a->listener, listener_closed);
}
