/* SPDX-License-Identifier: Apache-2.0
 * One volume of the engine: its replica opened and closed, the effects of its core performed. */
#include "volume/engine_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPIES_MAX  128 /* 8 MiB on their way */
#define INTENTS_CAP 256 /* 4 GiB to compare after a crash */
#define FLUSH_HABIT 8
#define CLEAR_AFTER (5 * USEC_PER_SEC)
#define LOCK_WAIT   (3 * USEC_PER_SEC) /* for the last I/O of an engine that was killed (V28) */
#define OPEN_AGAIN  (USEC_PER_SEC)
#define BUFFERS_MAX ((COPIES_MAX + 16) * (uint64_t)VOLUME_BLOCK_BYTES)

/* ---- effects ---- */

static void fx_state_write(void *ctx, const struct volume_state *state, uint64_t seq)
{
	meta_state(ctx, state, seq);
}

static void fx_intents_write(void *ctx, const uint8_t *bits)
{
	meta_intents(ctx, bits);
}

static void fx_map_write(void *ctx, uint32_t extent, const struct volume_ballot *stamps)
{
	meta_map(ctx, extent, stamps);
}

static void io_done(void *ctx, struct volume_io *io, int rc)
{
	struct vol *v = ctx;

	v->ios--;
	spin_note(&v->g->spin);
	v->g->spin.disk--;
	if (rc < 0)
		log_error("%s: I/O on its data at %llu: %s", v->name, (unsigned long long)io->offset, strerror(-rc));
	volume_core_io_done(v->core, io, rc);
}

static void fx_io(void *ctx, struct volume_io *io)
{
	struct vol *v = ctx;

	v->ios++;
	v->g->spin.disk++;
	disk_io_begin(v->g->disk, volume_replica_data(v->replica), io, io_done, v);
}

static void fx_send(void *ctx, node_id_t node, const struct volume_frame *f)
{
	struct vol *v = ctx;

	links_send(v->g->links, v, node, f);
}

static void fx_unlink(void *ctx, node_id_t node)
{
	links_relink(ctx, node);
}

static void fx_propose(void *ctx, const struct volume_change *change)
{
	struct vol *v = ctx;

	v->g->store->propose(v, change);
}

static void fx_look(void *ctx)
{
	struct engine *g = ((struct vol *)ctx)->g;

	g->store->look(g);
}

static void fx_reply(void *ctx, struct volume_request *r, int rc)
{
	struct vol *v = ctx;
	struct nbd_request *request = CONTAINER_OF(r, struct nbd_request, req);

	v->g->spin.requests--;
	if (v->g->store->allows(v))
		nbd_request_done(request, rc);
	else
		nbd_request_dropped(request);
}

static void fx_drop(void *ctx, struct volume_request *r)
{
	struct vol *v = ctx;

	v->g->spin.requests--;
	nbd_request_dropped(CONTAINER_OF(r, struct nbd_request, req));
}

void vol_drop_clients(struct vol *v)
{
	if (v->g->nbd)
		nbd_server_drop(v->g->nbd, v);
}

static void fx_drop_clients(void *ctx)
{
	vol_drop_clients(ctx);
}

struct mark_job {
	struct job job;
	struct vol *v;
};

static void mark_run(struct job *j)
{
	volume_replica_mark_failed(CONTAINER_OF(j, struct mark_job, job)->v->replica);
}

static void mark_done(struct job *j)
{
	struct mark_job *m = CONTAINER_OF(j, struct mark_job, job);

	m->v->jobs--;
	free(m);
}

/* V13. The mark comes first: what opens it anew may be another process. */
void vol_broken(struct vol *v, int rc)
{
	struct mark_job *m = xcalloc(1, sizeof *m);

	log_error("%s: this replica counts as one that lost power: %s", v->name, strerror(-rc));
	volume_replica_poison(v->replica);
	*m = (struct mark_job){.job = {.run = mark_run, .done = mark_done}, .v = v};
	v->jobs++;
	job_begin(v->g, &m->job);
	v->force = true;
	vol_end(v);
}

static void fx_broken(void *ctx, int rc)
{
	vol_broken(ctx, rc);
}

static void *fx_buffer(void *ctx, uint64_t length)
{
	struct vol *v = ctx;

	if (v->buffers + length > BUFFERS_MAX)
		return NULL;
	v->buffers += length;
	return aligned_alloc(VOLUME_SECTOR_BYTES, (size_t)length);
}

static void fx_buffer_free(void *ctx, void *p, uint64_t length)
{
	((struct vol *)ctx)->buffers -= length;
	free(p);
}

static void fx_data_free(void *ctx, void *p)
{
	(void)ctx;
	free(p);
}

static bool fx_is_zero(void *ctx, const void *data, uint64_t at, uint64_t length)
{
	const uint8_t *p = (const uint8_t *)data + at;

	(void)ctx;
	return p[0] == 0 && memcmp(p, p + 1, length - 1) == 0;
}

static void fx_found(void *ctx, const struct volume_finding *f)
{
	scrub_found(ctx, f);
}

static const struct volume_effects effects = {
	.state_write = fx_state_write,
	.intents_write = fx_intents_write,
	.map_write = fx_map_write,
	.io = fx_io,
	.send = fx_send,
	.unlink = fx_unlink,
	.propose = fx_propose,
	.look = fx_look,
	.reply = fx_reply,
	.drop = fx_drop,
	.drop_clients = fx_drop_clients,
	.broken = fx_broken,
	.buffer = fx_buffer,
	.buffer_free = fx_buffer_free,
	.data_free = fx_data_free,
	.found = fx_found,
	.is_zero = fx_is_zero,
};

/* ---- opening ---- */

struct open_job {
	struct job job;
	struct vol *v;
	bool in_sync;  /* as of the row when it began: a newer one may come meanwhile */
	uint64_t size; /* likewise */
	uint64_t size_max;
	struct volume_replica *replica;
	struct volume_ballot *stamps;
	int rc;
	struct err e;
};

void vol_path(const struct vol *v, char ret[PATH_BYTES_MAX + 64])
{
	char id[VOLUME_ID_TEXT];

	volume_id_text(v->id, id);
	(void)snprintf(ret, PATH_BYTES_MAX + 64, "%s/volumes/%s", v->g->dir, id);
}

uint64_t vol_size(const struct vol *v)
{
	return v->core ? volume_core_size(v->core) : v->row.size;
}

const struct volume_member *vol_member(const struct vol *v)
{
	for (size_t i = 0; i < v->row.n_members; i++)
		if (v->row.members[i].node == v->g->node)
			return &v->row.members[i];
	return NULL;
}

static int open_or_make(struct open_job *o)
{
	struct volume_replica_options options = {.wait = LOCK_WAIT, .force = o->v->force};
	char path[PATH_BYTES_MAX + 64];
	int rc;

	vol_path(o->v, path);
	rc = volume_replica_open(path, &options, &o->replica, &o->e);
	if (rc != -ENOENT)
		return rc;
	rc = volume_replica_create(path, o->v->id, o->size, NULL, &o->e); /* it gets more room once it is open */
	return rc < 0 ? rc : volume_replica_open(path, &options, &o->replica, &o->e);
}

/* V25: the files are others than those that were in sync. */
static int blank_if_lost(struct open_job *o)
{
	if (!volume_replica_state(o->replica)->lost)
		return 0;
	if (o->in_sync)
		return err_set(&o->e, -ESTALE,
			       "its files were copied or restored, and it is in sync: remove node %u first",
			       o->v->g->node);
	return volume_replica_blank(o->replica, &o->e);
}

static int load_stamps(struct open_job *o)
{
	uint32_t extents = volume_extents(volume_replica_super(o->replica)->size);
	int rc;

	o->stamps = xcalloc((size_t)extents * VOLUME_EXTENT_BLOCKS, sizeof *o->stamps);
	for (uint32_t e = volume_replica_next_map(o->replica, 0); e < extents;
	     e = volume_replica_next_map(o->replica, e + 1)) {
		if (volume_bit(volume_replica_intents(o->replica), e))
			continue; /* V30: those do not count */
		rc = volume_replica_read_map(o->replica, e, &o->stamps[(size_t)e * VOLUME_EXTENT_BLOCKS], &o->e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* A file system without it is no reason not to serve. */
static void go_direct(const struct vol *v, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_DIRECT) < 0)
		log_warning("%s: O_DIRECT: %s, going through the page cache", v->name, strerror(errno));
}

static void open_run(struct job *j)
{
	struct open_job *o = CONTAINER_OF(j, struct open_job, job);
	struct vol *v = o->v;

	loss_look(v->g);
	o->rc = open_or_make(o);
	if (o->rc == 0 && volume_replica_super(o->replica)->size > o->size_max)
		o->rc = err_set(&o->e, -EINVAL, "the replica here is larger than the store says");
	if (o->rc == 0)
		o->rc = blank_if_lost(o);
	if (o->rc == 0)
		o->rc = load_stamps(o);
	if (o->rc == 0)
		o->rc = v->g->store->report(v, o->replica, &o->e);
}

static void core_begin(struct vol *v, struct open_job *o)
{
	struct volume_effects fx = effects;
	struct volume_config config = {.self = v->g->node,
				       .size = volume_replica_super(o->replica)->size,
				       .state = *volume_replica_state(o->replica),
				       .intents = volume_replica_intents(o->replica),
				       .stamps = o->stamps,
				       .copies_max = COPIES_MAX,
				       .intents_cap = INTENTS_CAP,
				       .flush_habit = FLUSH_HABIT,
				       .clear_after = CLEAR_AFTER,
				       .copy_rate = v->g->config.resync_rate};

	memcpy(config.replica, volume_replica_super(o->replica)->replica, sizeof config.replica);
	fx.ctx = v;
	v->incarnation = config.state.incarnation;
	memcpy(v->replica_id, config.replica, sizeof v->replica_id);
	v->replica = o->replica;
	v->room = config.size;
	v->growing = 0;
	if (v->g->config.direct)
		go_direct(v, volume_replica_data(v->replica));
	v->force = false;
	meta_init(v);
	v->core = volume_core_new(&config, &fx, clock_boottime());
	v->step = VOL_OPEN;
	if (v->row.version)
		volume_core_row(v->core, &v->row);
	links_introduce(v->g->links, v);
}

static void open_done(struct job *j)
{
	struct open_job *o = CONTAINER_OF(j, struct open_job, job);
	struct vol *v = o->v;

	v->jobs--;
	v->problem[0] = '\0';
	if (o->rc < 0) {
		log_error("%s: %s", v->name, o->e.text);
		(void)snprintf(v->problem, sizeof v->problem, "%.*s", (int)sizeof v->problem - 1, o->e.text);
		v->replica = volume_replica_close(o->replica);
		v->step = VOL_FAILED;
		v->again = clock_boottime() + OPEN_AGAIN;
	} else {
		core_begin(v, o);
		v->g->store->opened(v);
	}
	free(o->stamps);
	free(o);
	if (v->g->closing || v->agent.dropping)
		vol_end(v);
	v->g->store->moved(v);
}

struct vol *vol_new(struct engine *g, const uint8_t id[VOLUME_ID_BYTES])
{
	struct vol *v = xcalloc(1, sizeof *v);

	v->g = g;
	v->step = VOL_CLOSED;
	memcpy(v->id, id, sizeof v->id);
	v->next = g->vols;
	g->vols = v;
	return v;
}

void vol_open(struct vol *v)
{
	struct open_job *o = xcalloc(1, sizeof *o);
	const struct volume_member *m = vol_member(v);

	v->step = VOL_OPENING;
	v->is_reported = false;
	o->job = (struct job){.run = open_run, .done = open_done};
	o->v = v;
	o->in_sync = m && m->in_sync;
	o->size = v->row.size;
	o->size_max = v->row.grow_to > v->row.size ? v->row.grow_to : v->row.size;
	v->jobs++;
	job_begin(v->g, &o->job);
}

/* ---- life ---- */

bool vol_serves(const struct vol *v)
{
	return v->step == VOL_OPEN && volume_core_serves(v->core) && v->g->store->allows(v);
}

/* The core does nothing more; the memory goes when all that is under way has ended. */
void vol_end(struct vol *v)
{
	if (v->step == VOL_OPEN) {
		v->step = VOL_ENDING;
		volume_core_end(v->core);
	} else if (v->step == VOL_FAILED) {
		v->step = VOL_CLOSED;
	}
}

static void close_ended(struct vol *v, usec_t now)
{
	v->core = volume_core_free(v->core);
	disk_io_forget(v->g->disk, volume_replica_data(v->replica));
	v->replica = volume_replica_close(v->replica);
	v->room = 0;
	meta_free(v);
	v->step = v->g->closing || v->agent.dropping ? VOL_CLOSED : VOL_FAILED;
	v->again = now;
}

void vol_step(struct vol *v, usec_t now)
{
	if (v->step == VOL_OPEN) {
		links_tell(v->g->links, v, now);
		volume_core_tick(v->core, now);
	}
	if (v->step == VOL_OPEN) { /* still */
		meta_grow(v, now);
		scrub_turn(v, now);
	}
	if (v->step == VOL_ENDING && v->ios == 0 && v->jobs == 0)
		close_ended(v, now);
	if (v->step == VOL_FAILED && now >= v->again && !v->g->closing)
		vol_open(v);
	if (v->step == VOL_CLOSED && v->agent.dropping && v->jobs == 0 && now >= v->again && !v->g->closing)
		vol_erase(v);
}
