/* SPDX-License-Identifier: Apache-2.0
 * The engine's loop: the store is watched, volumes come and go with it, guests are let in. */
#include "volume/engine_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* ---- the store ---- */

struct read_job {
	struct job job;
	struct engine *g;
	struct static_store *store;
	int rc;
	struct err e;
};

struct vol *engine_find(struct engine *g, const char *name)
{
	for (struct vol *v = g->vols; v; v = v->next)
		if (strcmp(v->name, name) == 0)
			return v;
	return NULL;
}

static bool is_member(const struct engine *g, const struct static_volume *s)
{
	for (size_t i = 0; i < s->row.n_members; i++)
		if (s->row.members[i].node == g->node)
			return true;
	return false;
}

static void take(struct engine *g, const struct static_volume *s)
{
	struct vol *v = engine_find(g, s->name);

	if (!v && !is_member(g, s))
		return;
	if (!v) {
		v = xcalloc(1, sizeof *v);
		v->g = g;
		v->size = s->size;
		memcpy(v->name, s->name, sizeof v->name);
		memcpy(v->id, s->id, sizeof v->id);
		v->next = g->vols;
		g->vols = v;
		vol_row(v, &s->row);
		vol_open(v);
		return;
	}
	vol_row(v, &s->row);
}

static void read_run(struct job *j)
{
	struct read_job *r = CONTAINER_OF(j, struct read_job, job);

	r->rc = static_read(r->g->file, &r->store, &r->e);
}

static void read_done(struct job *j)
{
	struct read_job *r = CONTAINER_OF(j, struct read_job, job);
	struct engine *g = r->g;

	g->reading = false;
	if (r->rc < 0)
		log_warning("%s", r->e.text);
	for (size_t i = 0; r->rc == 0 && !g->closing && i < r->store->n_volumes; i++)
		take(g, &r->store->volumes[i]);
	free(r->store);
	free(r);
}

/* Is it another file than the one that was read last? It is replaced, never written to. */
static bool has_changed(struct engine *g)
{
	struct stat st;

	if (stat(g->file, &st) < 0)
		return false;
	if (g->read_as.inode == st.st_ino && g->read_as.sec == st.st_mtim.tv_sec &&
	    g->read_as.ns == (uint64_t)st.st_mtim.tv_nsec)
		return false;
	g->read_as.inode = st.st_ino;
	g->read_as.sec = st.st_mtim.tv_sec;
	g->read_as.ns = (uint64_t)st.st_mtim.tv_nsec;
	return true;
}

void engine_look(struct engine *g)
{
	struct read_job *r;

	if (g->reading || g->closing || !has_changed(g))
		return;
	g->reading = true;
	r = xcalloc(1, sizeof *r);
	r->job = (struct job){.run = read_run, .done = read_done};
	r->g = g;
	job_begin(g, &r->job);
}

/* ---- life ---- */

static void lock_closed(struct engine *g)
{
	(void)close(g->lock);
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
	g->parts++;
	uv_close((uv_handle_t *)&g->timer, timer_closed);
	g->parts++;
	ask_close(g->ask, part_closed, g);
	g->parts++;
	links_close(g->links, part_closed, g);
	g->parts++;
	disk_io_close(g->disk, part_closed, g);
	part_closed(g); /* the one that held all open */
}

static void timer_cb(uv_timer_t *timer)
{
	struct engine *g = timer->data;
	usec_t now = clock_boottime();
	bool all_closed = !g->reading;

	engine_look(g);
	for (struct vol *v = g->vols; v; v = v->next) {
		if (g->closing)
			vol_end(v);
		vol_step(v, now);
		all_closed &= v->step == VOL_CLOSED;
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

static int find_node(struct engine *g, struct err *e)
{
	struct static_store *s;
	const struct static_node *n;
	int rc = static_read(g->file, &s, e);

	if (rc < 0)
		return rc;
	n = static_node_of(s, g->dir);
	g->node = n ? n->node : 0;
	free(s);
	return n ? 0
		 : err_set(e, -ENOENT, "no node of '%s' has the folder '%s' (kedge-vol --propose '%s' node N '%s')",
			   g->file, g->dir, g->file, g->dir);
}

static int prepare(struct engine *g, struct err *e)
{
	char path[PATH_BYTES_MAX + 32];
	int rc = find_node(g, e);

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
	if (strlen(config->dir) >= sizeof g->dir || strlen(config->static_file) >= sizeof g->file) {
		free(g);
		return err_set(e, -ENAMETOOLONG, "a path is too long");
	}
	memcpy(g->dir, config->dir, strlen(config->dir));
	memcpy(g->file, config->static_file, strlen(config->static_file));
	rc = prepare(g, e);
	g->disk = disk_io_new(loop, config->threads  ? DISK_IO_THREADS
				    : config->direct ? DISK_IO_DIRECT
						     : DISK_IO_BUFFERED);
	if (rc == 0)
		rc = links_new(g, &g->links, e);
	if (rc == 0)
		rc = ask_new(g, &g->ask, e);
	if (rc == 0)
		rc = serve(g, e);
	if (rc < 0) {
		if (g->lock >= 0)
			(void)close(g->lock);
		free(g); /* the process ends */
		return rc;
	}
	CHECK(uv_timer_init(loop, &g->timer) == 0);
	g->timer.data = g;
	CHECK(uv_timer_start(&g->timer, timer_cb, 0, TURN_MS) == 0);
	*ret = g;
	return 0;
}
