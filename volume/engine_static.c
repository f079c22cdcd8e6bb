/* SPDX-License-Identifier: Apache-2.0
 * The engine in static mode: rows come from a file that stands for the store, and what the cores ask for goes there. */
#include "volume/engine_internal.h"
#include "volume/static.h"

#include "proto/proto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct file_store {
	char path[PATH_BYTES_MAX];
	bool reading;
	uint64_t inode, ns; /* the file that was read last */
	int64_t sec;
};

/* ---- reading ---- */

struct read_job {
	struct job job;
	struct engine *g;
	struct static_store *store;
	int rc;
	struct err e;
};

static bool is_member(const struct engine *g, const struct static_volume *s)
{
	for (size_t i = 0; i < s->row.n_members; i++)
		if (s->row.members[i].node == g->node)
			return true;
	return false;
}

static void vol_row(struct vol *v, const struct volume_row *row)
{
	const struct volume_member *m;

	v->row = *row;
	m = vol_member(v);
	if (v->step == VOL_OPEN && m && m->reported) {
		v->is_reported = true;
	} else if (v->step == VOL_OPEN && m && v->is_reported) {
		vol_end(v); /* it was given up and is wanted again: opened anew, it reports itself */
		return;
	}
	if (v->step == VOL_OPEN)
		volume_core_row(v->core, row);
}

static void take(struct engine *g, const struct static_volume *s)
{
	struct vol *v = engine_find(g, s->name);

	if (!v && !is_member(g, s))
		return;
	if (v) {
		vol_row(v, &s->row);
		return;
	}
	v = vol_new(g, s->id);
	memcpy(v->name, s->name, sizeof v->name);
	vol_row(v, &s->row);
	vol_open(v);
}

static void read_run(struct job *j)
{
	struct read_job *r = CONTAINER_OF(j, struct read_job, job);

	r->rc = static_read(r->g->file_store->path, &r->store, &r->e);
}

static void read_done(struct job *j)
{
	struct read_job *r = CONTAINER_OF(j, struct read_job, job);
	struct engine *g = r->g;

	g->file_store->reading = false;
	if (r->rc < 0)
		log_warning("%s", r->e.text);
	for (size_t i = 0; r->rc == 0 && !g->closing && i < r->store->n_volumes; i++)
		take(g, &r->store->volumes[i]);
	free(r->store);
	free(r);
}

/* Is it another file than the one that was read last? It is replaced, never written to. */
static bool has_changed(struct file_store *f)
{
	struct stat st;

	if (stat(f->path, &st) < 0)
		return false;
	if (f->inode == st.st_ino && f->sec == st.st_mtim.tv_sec && f->ns == (uint64_t)st.st_mtim.tv_nsec)
		return false;
	f->inode = st.st_ino;
	f->sec = st.st_mtim.tv_sec;
	f->ns = (uint64_t)st.st_mtim.tv_nsec;
	return true;
}

static void file_look(struct engine *g)
{
	struct read_job *r;

	if (g->file_store->reading || g->closing || !has_changed(g->file_store))
		return;
	g->file_store->reading = true;
	r = xcalloc(1, sizeof *r);
	r->job = (struct job){.run = read_run, .done = read_done};
	r->g = g;
	job_begin(g, &r->job);
}

static void file_turn(struct engine *g, usec_t now)
{
	(void)now;
	file_look(g);
}

/* ---- asking ---- */

struct propose_job {
	struct job job;
	struct vol *v;
	struct volume_change change;
	int rc;
	struct err e;
};

static void propose_run(struct job *j)
{
	struct propose_job *p = CONTAINER_OF(j, struct propose_job, job);
	struct engine *g = p->v->g;

	p->rc = static_change(g->file_store->path, p->v->name, g->node, &p->change, &p->e);
}

static void propose_done(struct job *j)
{
	struct propose_job *p = CONTAINER_OF(j, struct propose_job, job);
	struct vol *v = p->v;

	v->jobs--;
	if (p->rc < 0 && p->rc != -EAGAIN)
		log_warning("%s: %s", v->name, p->e.text);
	if (v->core)
		volume_core_proposed(v->core, &p->change, p->rc);
	file_look(v->g);
	free(p);
}

static void file_propose(struct vol *v, const struct volume_change *change)
{
	struct propose_job *p = xcalloc(1, sizeof *p);

	*p = (struct propose_job){.job = {.run = propose_run, .done = propose_done}, .v = v, .change = *change};
	v->jobs++;
	job_begin(v->g, &p->job);
}

static int file_report(const struct vol *v, const struct volume_replica *r, struct err *e)
{
	return static_report(v->g->file_store->path, v->name, v->g->node, volume_replica_super(r)->replica,
			     volume_replica_state(r)->incarnation, volume_replica_super(r)->size, e);
}

struct grown_job {
	struct job job;
	struct vol *v;
	uint8_t replica[VOLUME_ID_BYTES];
	uint64_t incarnation, size;
	int rc;
	struct err e;
};

static void grown_run(struct job *j)
{
	struct grown_job *o = CONTAINER_OF(j, struct grown_job, job);

	o->rc = static_report(o->v->g->file_store->path, o->v->name, o->v->g->node, o->replica, o->incarnation, o->size,
			      &o->e);
}

static void grown_done(struct job *j)
{
	struct grown_job *o = CONTAINER_OF(j, struct grown_job, job);

	o->v->jobs--;
	if (o->rc < 0)
		log_warning("%s: %s", o->v->name, o->e.text);
	free(o);
}

static void file_grown(struct vol *v)
{
	struct grown_job *o = xcalloc(1, sizeof *o);

	*o = (struct grown_job){
		.job = {.run = grown_run, .done = grown_done}, .v = v, .incarnation = v->incarnation, .size = v->room};
	memcpy(o->replica, v->replica_id, sizeof o->replica);
	v->jobs++;
	job_begin(v->g, &o->job);
}

static void file_opened(struct vol *v)
{
	file_look(v->g); /* our report is in the row */
}

/* Whoever makes the links must know which to make anew. */
static void file_linked(struct engine *g, node_id_t node, bool up, bool worn)
{
	const struct engine_link_state msg = {.node = node, .up = up, .worn = worn};

	if (!g->closing)
		sock_send_all(g->sock, &engine_link_state_type, &msg);
}

/* ---- what nobody is told of here ---- */

static void file_moved(struct vol *v)
{
	(void)v;
}

static void file_erased(struct vol *v)
{
	(void)v;
}

static void file_found(struct vol *v, const struct volume_finding *f)
{
	(void)v;
	(void)f;
}

static bool file_allows(const struct vol *v)
{
	(void)v;
	return true;
}

static bool file_message(struct engine *g, struct caller *c, const uint8_t *p, size_t n, int fd)
{
	(void)g;
	(void)c;
	(void)p;
	(void)n;
	(void)fd;
	return false;
}

static void file_caller_gone(struct engine *g, struct caller *c)
{
	(void)g;
	(void)c;
}

/* ---- life ---- */

static int find_node(struct engine *g, struct err *e)
{
	const char *path = g->file_store->path;
	const struct static_node *n;
	struct static_store *s;
	int rc = static_read(path, &s, e);

	if (rc < 0)
		return rc;
	n = static_node_of(s, g->dir);
	g->node = n ? n->node : 0;
	free(s);
	return n ? 0
		 : err_set(e, -ENOENT, "no node of '%s' has the folder '%s' (kedge-vol --propose '%s' node N '%s')",
			   path, g->dir, path, g->dir);
}

static int file_begin(struct engine *g, struct err *e)
{
	const char *path = g->config.static_file;

	if (strlen(path) >= sizeof g->file_store->path)
		return err_set(e, -ENAMETOOLONG, "a path is too long");
	g->file_store = xcalloc(1, sizeof *g->file_store);
	memcpy(g->file_store->path, path, strlen(path));
	return find_node(g, e);
}

static bool file_is_idle(const struct engine *g)
{
	return !g->file_store->reading;
}

static void file_end(struct engine *g)
{
	free(g->file_store);
	g->file_store = NULL;
}

const struct engine_store engine_static_store = {
	.one_caller = false,
	.begin = file_begin,
	.turn = file_turn,
	.look = file_look,
	.propose = file_propose,
	.report = file_report,
	.opened = file_opened,
	.moved = file_moved,
	.grown = file_grown,
	.erased = file_erased,
	.linked = file_linked,
	.found = file_found,
	.allows = file_allows,
	.message = file_message,
	.caller_gone = file_caller_gone,
	.is_idle = file_is_idle,
	.end = file_end,
};
