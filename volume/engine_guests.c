/* SPDX-License-Identifier: Apache-2.0
 * What the engine answers the NBD server: which volumes there are, whether they are served here, where they have holes.
 */
#include "volume/engine_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int guest_open(void *ctx, const char *name, struct nbd_export *ret)
{
	struct vol *v = engine_find(ctx, name);
	struct volume_core_status st;

	if (!v)
		return -ENOENT;
	if (!vol_serves(v)) /* V32, L23 */
		return -EAGAIN;
	volume_core_status(v->core, &st);
	*ret = (struct nbd_export){.volume = v, .size = vol_size(v), .epoch = st.lead.epoch};
	return 0;
}

static bool guest_list(void *ctx, size_t i, char ret[NAME_BYTES_MAX])
{
	const struct engine *g = ctx;

	for (struct vol *v = g->vols; v; v = v->next) {
		if (v->agent.dropping || v->step == VOL_ERASED || i-- > 0)
			continue;
		memcpy(ret, v->name, NAME_BYTES_MAX);
		return true;
	}
	return false;
}

static void guest_submit(void *ctx, struct nbd_request *r)
{
	struct vol *v = r->volume;

	(void)ctx;
	spin_note(&v->g->spin);
	if (v->step != VOL_OPEN || !v->g->store->allows(v)) {
		nbd_request_dropped(r);
		return;
	}
	v->g->spin.requests++;
	volume_core_submit(v->core, &r->req);
}

static void guest_gone(void *ctx, void *volume, uint64_t client)
{
	struct vol *v = volume;

	(void)ctx;
	if (v->core)
		volume_core_client_gone(v->core, client);
}

/* ---- holes ---- */

struct extents_job {
	struct job job;
	struct vol *v;
	struct nbd_request *r;
	int fd;
	int rc;
	bool hole;
	uint64_t length;
};

/* lseek() moves the descriptor's place, which nobody else uses: all I/O names its offset. */
static void extents_run(struct job *j)
{
	struct extents_job *x = CONTAINER_OF(j, struct extents_job, job);
	off_t at = (off_t)x->r->req.offset, end = at + (off_t)x->r->req.length;
	off_t data = lseek(x->fd, at, SEEK_DATA), next;

	if (data < 0 && errno != ENXIO) {
		x->rc = -errno;
		return;
	}
	x->hole = data != at;
	next = data < 0 ? end : data;
	if (!x->hole) {
		next = lseek(x->fd, at, SEEK_HOLE);
		if (next < 0)
			next = end;
	}
	if (next > end)
		next = end;
	/* A hole ends where its last whole sector does; data goes up to the next sector. */
	x->length =
		x->hole ? (uint64_t)(next - at) / VOLUME_SECTOR_BYTES * VOLUME_SECTOR_BYTES
			: ((uint64_t)(next - at) + VOLUME_SECTOR_BYTES - 1) / VOLUME_SECTOR_BYTES * VOLUME_SECTOR_BYTES;
	if (x->length == 0) {
		x->hole = false;
		x->length = VOLUME_SECTOR_BYTES;
	}
}

static void extents_done(struct job *j)
{
	struct extents_job *x = CONTAINER_OF(j, struct extents_job, job);

	x->v->jobs--;
	nbd_extent_done(x->r, x->rc, x->hole, x->length);
	free(x);
}

static void guest_extents(void *ctx, struct nbd_request *r)
{
	struct extents_job *x;
	struct vol *v = r->volume;

	(void)ctx;
	if (v->step != VOL_OPEN || !v->g->store->allows(v)) {
		nbd_request_dropped(r);
		return;
	}
	x = xcalloc(1, sizeof *x);
	*x = (struct extents_job){.job = {.run = extents_run, .done = extents_done},
				  .v = v,
				  .r = r,
				  .fd = volume_replica_data(v->replica)};
	v->jobs++;
	job_begin(v->g, &x->job);
}

/* Answers may wait in the server until their client reads. */
static bool guest_may_answer(void *ctx, void *volume)
{
	const struct vol *v = volume;

	(void)ctx;
	return v->g->store->allows(v);
}

const struct nbd_callbacks engine_guest_callbacks = {.open = guest_open,
						     .list = guest_list,
						     .submit = guest_submit,
						     .gone = guest_gone,
						     .extents = guest_extents,
						     .may_answer = guest_may_answer};
