/* SPDX-License-Identifier: Apache-2.0
 * The engine's loop: volumes come and go with the store, guests are let in. */
#include "volume/engine_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TURN_MS 20

/* ---- jobs ---- */

static void work_cb(uv_work_t *work)
{
	struct job *j = CONTAINER_OF(work, struct job, work);

	j->run(j);
}

static void worked_cb(uv_work_t *work, int status)
{
	struct job *j = CONTAINER_OF(work, struct job, work);

	(void)status;
	j->done(j);
}

void job_begin(struct engine *g, struct job *j)
{
	CHECK(uv_queue_work(g->loop, &j->work, work_cb, worked_cb) == 0);
}

struct vol *engine_find(struct engine *g, const char *name)
{
	for (struct vol *v = g->vols; v; v = v->next)
		if (!v->agent.dropping && v->step != VOL_ERASED && strcmp(v->name, name) == 0)
			return v;
	return NULL;
}

/* ---- life ---- */

static void lock_closed(struct engine *g)
{
	loss_end(g);
	(void)close(g->lock);
	g->store->end(g);
	g->closed(g->closed_ctx);
	free(g);
}

static void part_closed(void *ctx)
{
	struct engine *g = ctx;

	if (--g->parts == 0)
		lock_closed(g);
}

static void timer_closed(uv_handle_t *handle)
{
	part_closed(handle->data);
}

static void nbd_closed(void *ctx)
{
	((struct engine *)ctx)->nbd = NULL;
	part_closed(ctx);
}

/* The guests are gone and all I/O has ended: now the rest. */
static void close_rest(struct engine *g)
{
	while (g->vols) {
		struct vol *v = g->vols;

		g->vols = v->next;
		free(v);
	}
	g->parts += 3;
	uv_close((uv_handle_t *)&g->timer, timer_closed);
	spin_close(&g->spin, timer_closed, g);
	g->parts++;
	ask_close(g->ask, part_closed, g);
	g->parts++;
	sock_close(g->sock, part_closed, g);
	g->parts++;
	links_close(g->links, part_closed, g);
	g->parts++;
	disk_io_close(g->disk, part_closed, g);
	part_closed(g); /* the one that held all open */
}

static void forget_erased(struct engine *g)
{
	for (struct vol **at = &g->vols; *at;) {
		struct vol *v = *at;

		if (v->step != VOL_ERASED || v->jobs > 0 || (g->nbd && nbd_server_uses(g->nbd, v))) {
			at = &v->next;
			continue;
		}
		*at = v->next;
		free(v);
	}
}

static void timer_cb(uv_timer_t *timer)
{
	struct engine *g = timer->data;
	usec_t now = clock_boottime();
	bool all_closed = g->store->is_idle(g);

	g->store->turn(g, now);
	links_turn(g->links);
	forget_erased(g);
	for (struct vol *v = g->vols; v; v = v->next) {
		if (g->closing)
			vol_end(v);
		vol_step(v, now);
		all_closed &= v->step >= VOL_CLOSED && v->jobs == 0;
	}
	if (g->closing && !g->nbd && all_closed)
		close_rest(g);
}

void engine_close(struct engine *g, void (*cb)(void *ctx), void *ctx)
{
	g->closed = cb;
	g->closed_ctx = ctx;
	g->closing = true;
	g->parts = 2;
	nbd_server_close(g->nbd, nbd_closed, g);
}

static int prepare(struct engine *g, struct err *e)
{
	char path[PATH_BYTES_MAX + 32];
	int rc = g->store->begin(g, e);

	if (rc < 0)
		return rc;
	(void)snprintf(path, sizeof path, "%s/run", g->dir);
	rc = file_make_folder(path, 0700, e);
	if (rc < 0)
		return rc;
	(void)snprintf(path, sizeof path, "%s/run/vol.lock", g->dir);
	g->lock = file_lock(path, e);
	if (g->lock == -EWOULDBLOCK)
		return err_set(e, -EWOULDBLOCK, "%s: an engine runs in this folder", g->dir);
	if (g->lock < 0)
		return g->lock;
	loss_begin(g);
	(void)snprintf(path, sizeof path, "%s/volumes", g->dir);
	return file_make_folder(path, 0700, e);
}

static int serve(struct engine *g, struct err *e)
{
	struct nbd_callbacks cb = engine_guest_callbacks;
	struct nbd_limits limits = nbd_limits_default;
	char path[PATH_BYTES_MAX + 32];

	cb.ctx = g;
	(void)snprintf(path, sizeof path, "%s/run/nbd.sock", g->dir);
	limits.shared_bytes = g->config.memory;
	limits.connection_bytes = g->config.volume_memory;
	return nbd_server_new(g->loop, path, &cb, &limits, &g->nbd, e);
}

int engine_new(struct uv_loop_s *loop, const struct engine_config *config, struct engine **ret, struct err *e)
{
	struct engine *g = xcalloc(1, sizeof *g);
	int rc;

	g->loop = loop;
	g->config = *config;
	g->lock = -1;
	g->store = config->static_file ? &engine_static_store : &engine_agent_store;
	if (strlen(config->dir) >= sizeof g->dir) {
		free(g);
		return err_set(e, -ENAMETOOLONG, "a path is too long");
	}
	memcpy(g->dir, config->dir, strlen(config->dir));
	rc = prepare(g, e);
	spin_open(&g->spin, loop); /* first: libuv calls those last that were there before others */
	g->disk = disk_io_new(loop, config->threads  ? DISK_IO_THREADS
				    : config->direct ? DISK_IO_DIRECT
						     : DISK_IO_BUFFERED);
	if (rc == 0) {
		g->links = links_new(g);
		rc = sock_new(g, &g->sock, e);
	}
	if (rc == 0)
		rc = ask_new(g, &g->ask, e);
	if (rc == 0)
		rc = serve(g, e);
	if (rc < 0) {
		if (g->lock >= 0)
			(void)close(g->lock);
		g->store->end(g);
		free(g); /* the process ends */
		return rc;
	}
	erase_leftovers(g);
	CHECK(uv_timer_init(loop, &g->timer) == 0);
	g->timer.data = g;
	CHECK(uv_timer_start(&g->timer, timer_cb, 0, TURN_MS) == 0);
	*ret = g;
	return 0;
}
