/* SPDX-License-Identifier: Apache-2.0
 * The files of images, kernels and initrds on this node. */
#include "agent/images.h"

#include "agent/images_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_EVERY USEC_PER_SEC
#define GOOD_FOR   (30 * USEC_PER_SEC) /* what was read and found right is not read again before a start */

/* ---- jobs ---- */

static void run_cb(uv_work_t *work)
{
	struct image_job *j = work->data;

	j->run(j);
}

static void done_cb(uv_work_t *work, int status)
{
	struct image_job *j = work->data;

	(void)status;
	j->done(j);
}

void image_job_begin(struct images *im, struct image_job *j)
{
	j->im = im;
	j->work.data = j;
	CHECK(uv_queue_work(&im->agent->loop, &j->work, run_cb, done_cb) == 0);
}

/* ---- what is here ---- */

struct image *image_find(struct images *im, const char *digest)
{
	for (size_t i = 0; i < im->n_files; i++)
		if (strcmp(im->files[i].digest, digest) == 0)
			return &im->files[i];
	return NULL;
}

static void add_file(void *ctx, const char *digest)
{
	struct images *im = ctx;

	if (image_find(im, digest))
		return;
	im->files = xrealloc(im->files, (im->n_files + 1) * sizeof *im->files);
	im->files[im->n_files] = (struct image){.used = clock_boottime()};
	memcpy(im->files[im->n_files++].digest, digest, DIGEST_BYTES_MAX);
}

struct image *image_arrived(struct images *im, const char *digest)
{
	struct image *i;

	add_file(im, digest);
	i = image_find(im, digest);
	i->used = clock_boottime();
	i->right = true;
	return i;
}

struct removal {
	struct image_job job;
	char part[IMAGE_PATH_MAX];
};

static void remove_run(struct image_job *j)
{
	(void)unlink(((struct removal *)(void *)j)->part);
}

static void free_job(struct image_job *j)
{
	free(j);
}

/* It loses its name at once: what comes under that name afterwards is another file. */
static void drop(struct images *im, struct image *i)
{
	struct removal *r = xcalloc(1, sizeof *r);

	r->job.run = remove_run;
	r->job.done = free_job;
	if (image_drop(im->folder, i->digest, r->part))
		image_job_begin(im, &r->job);
	else
		free(r);
	*i = im->files[--im->n_files];
}

/* ---- reading it again ---- */

struct verify {
	struct image_job job;
	char digest[DIGEST_BYTES_MAX];
	int rc;
};

static void verify_run(struct image_job *j)
{
	struct verify *v = (struct verify *)(void *)j;

	v->rc = image_verify(j->im->folder, v->digest, &j->im->closing);
}

static void verify_done(struct image_job *j)
{
	struct verify *v = (struct verify *)(void *)j;
	struct image *i = image_find(j->im, v->digest);

	if (i && !atomic_load(&j->im->closing)) {
		i->verifying = false;
		i->right = v->rc == 0;
		i->checked = v->rc == 0 ? clock_boottime() : 0;
		if (v->rc == -EBADMSG || v->rc == -EIO || v->rc == -ENOENT) {
			log_error("the file %.16s... in %s is damaged (%s): removed, and fetched from another node "
				  "where it is wanted",
				  v->digest, j->im->folder, strerror(-v->rc));
			drop(j->im, i);
		}
		j->im->next_look = 0;
	}
	free(v);
}

void image_check(struct images *im, struct image *i)
{
	struct verify *v;

	if (i->verifying)
		return;
	i->verifying = true;
	v = xcalloc(1, sizeof *v);
	v->job.run = verify_run;
	v->job.done = verify_done;
	memcpy(v->digest, i->digest, sizeof v->digest);
	image_job_begin(im, &v->job);
}

/* ---- telling ---- */

void image_params(struct images *im, struct pack *p, struct buf *params)
{
	*p = (struct pack){.out = params};
	pack_map(p);
	pack_kv_u64(p, "session", im->session);
	pack_kv_u64(p, "num", ++im->num);
	pack_kv_u64(p, "node", im->agent->config.id);
}

struct told {
	struct images *im;
	char digest[DIGEST_BYTES_MAX];
	bool unused;
	usec_t used; /* when it was told */
};

/* It goes only once everybody knows that it is not here: nobody asks for it then, and it was not in use. */
static void told_cb(void *ctx, const uint8_t *response, size_t n)
{
	struct told *t = ctx;
	struct image *i = image_find(t->im, t->digest);
	struct unpack u;

	if (i) {
		i->asking = false;
		if (unpack_open(&u, response, n) == 0 && t->unused && t->used == i->used &&
		    unpack_is_nil(unpack_at(u.root, 2))) {
			log_info("the file %.16s... is not used any more: removed", t->digest);
			drop(t->im, i);
		}
		unpack_free(&u);
	}
	free(t);
}

static void tell(struct images *im, const char *digest, bool held, bool unused)
{
	struct told *t = xcalloc(1, sizeof *t);
	struct buf params = {0};
	struct pack p;

	t->im = im;
	t->unused = unused;
	t->used = image_find(im, digest) ? image_find(im, digest)->used : 0;
	memcpy(t->digest, digest, sizeof t->digest);
	image_params(im, &p, &params);
	pack_kv_str(&p, "digest", digest);
	pack_kv_bool(&p, "held", held);
	pack_kv_bool(&p, "unused", unused);
	pack_end(&p);
	ctl_submit(im->agent->ctl, "image.held", &params, told_cb, t);
	buf_free(&params);
}

/* ---- what is wanted here ---- */

static uint64_t bit(node_id_t node)
{
	return 1ULL << (node - 1);
}

/* Nodes that could have copies, a bit each. */
static uint64_t members(struct images *im)
{
	struct store_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
	size_t n = store_nodes(im->agent->store, nodes, NODES_MAX);
	uint64_t all = 0;

	for (size_t i = 0; i < n; i++)
		if (strcmp(nodes[i].role, "witness") != 0)
			all |= bit(nodes[i].node);
	free(nodes);
	return all;
}

/* Too few have it, and among those that are up and have it not this node is one of the first. Each node judges alone:
 * where two disagree about who is up, there is a copy too many. */
static bool is_my_turn(struct images *im, const struct store_file *f, uint64_t all)
{
	uint64_t holders = store_holders(im->agent->store, f->digest) & all;
	int missing = (int)f->copies - __builtin_popcountll(holders);
	node_id_t self = im->agent->config.id;

	for (node_id_t node = 1; node < self; node++)
		if (all & ~holders & bit(node) && net_peer_is_up(im->agent->net, node))
			missing--;
	return missing > 0 && all & bit(self);
}

/* A volume that this node fills. */
static bool is_filled_here(struct images *im, const char *digest)
{
	size_t n;
	const struct store_volume *v = node_volumes(im->agent->node, &n);

	for (size_t i = 0; i < n; i++)
		if (v[i].filling && v[i].primary == im->agent->config.id && strcmp(v[i].digest, digest) == 0)
			return true;
	return false;
}

/* One that is used. */
static void look_at(struct images *im, const struct store_file *f, uint64_t all)
{
	bool held = store_holders(im->agent->store, f->digest) & bit(im->agent->config.id);
	struct image *i = image_find(im, f->digest);

	if (!i) {
		if (is_filled_here(im, f->digest) || is_my_turn(im, f, all))
			image_fetch_begin(im, f->digest);
		return;
	}
	i->used = clock_boottime();
	if (held || i->asking)
		return;
	if (!i->right) {
		image_check(im, i);
		return;
	}
	i->asking = true;
	tell(im, f->digest, true, false);
}

static void look_for_unused(struct images *im)
{
	usec_t now = clock_boottime();

	for (size_t i = 0; i < im->n_files && im->agent->config.keep_files; i++) {
		struct image *f = &im->files[i];

		if (now - f->used < im->agent->config.keep_files || f->asking || f->verifying)
			continue;
		f->asking = true;
		tell(im, f->digest, false, true);
	}
}

/* The store says that they are here. */
static void look_for_missing(struct images *im, struct store_file *room)
{
	size_t n = store_held_by(im->agent->store, im->agent->config.id, room, FILES_MAX);

	for (size_t i = 0; i < n; i++)
		if (!image_find(im, room[i].digest))
			tell(im, room[i].digest, false, false);
}

/* Only with a leader: what this node knows may be old else, and what it asks for goes nowhere. */
static void look(struct images *im)
{
	struct consensus_view raft;
	struct store_file *files;
	uint64_t all = members(im);
	size_t n;

	consensus_view(im->agent->consensus, &raft);
	if (raft.leader == 0)
		return;
	files = xcalloc(FILES_MAX, sizeof *files);
	n = store_files(im->agent->store, files, FILES_MAX);
	for (size_t i = 0; i < n; i++)
		look_at(im, &files[i], all);
	look_for_missing(im, files);
	look_for_unused(im);
	free(files);
}

/* ---- VMs ---- */

static bool is_ready(struct images *im, const char *digest)
{
	struct image *i = digest[0] ? image_find(im, digest) : NULL;

	if (digest[0] == '\0')
		return true;
	if (!i) {
		image_fetch_begin(im, digest);
		return false;
	}
	if (i->checked && clock_boottime() - i->checked < GOOD_FOR)
		return true;
	image_check(im, i);
	return false;
}

bool images_ready(struct images *im, const struct store_vm *vm)
{
	bool kernel = is_ready(im, vm->kernel_digest), initrd = is_ready(im, vm->initrd_digest);

	return kernel && initrd;
}

usec_t images_progress(const struct images *im, const struct store_vm *vm)
{
	const char *digests[] = {vm->kernel_digest, vm->initrd_digest};

	for (size_t i = 0; i < ARRAY_LEN(digests); i++)
		if (digests[i][0] && !image_find((struct images *)im, digests[i]))
			return im->progress;
	return 0;
}

void images_path(struct images *im, const char *digest, char ret[PATH_BYTES_MAX])
{
	struct image *i = image_find(im, digest);
	char path[IMAGE_PATH_MAX];

	if (i)
		i->checked = 0;
	image_path(im->folder, digest, path);
	CHECK(snprintf(ret, PATH_BYTES_MAX, "%s", path) < PATH_BYTES_MAX);
}

/* What VMs wait for that are placed here. */
static void describe_vms(struct images *im, struct buf *ret)
{
	struct store_vm *vms = xcalloc(VMS_MAX, sizeof *vms);
	size_t n = store_vms(im->agent->store, vms, VMS_MAX);

	for (size_t i = 0; i < n; i++) {
		const char *digests[] = {vms[i].kernel_digest, vms[i].initrd_digest};
		struct peer_wait w = {0};

		for (size_t k = 0; k < ARRAY_LEN(digests) && vms[i].owner == im->agent->config.id; k++) {
			char how[REASON_BYTES_MAX];

			if (digests[k][0] == '\0' || image_find(im, digests[k]))
				continue;
			image_fetch_describe(im, digests[k], how);
			(void)snprintf(w.text, sizeof w.text, "its %s is %.100s", k ? "initrd" : "kernel", how);
		}
		memcpy(w.object, vms[i].spec.name, sizeof w.object);
		if (w.text[0])
			message_encode(&peer_wait_type, &w, ret);
	}
	free(vms);
}

static void describe(struct images *im)
{
	struct buf waits = {0};

	describe_vms(im, &waits);
	image_fill_describe(im, &waits);
	node_set_waits(im->agent->node, waits.data, waits.len);
	buf_free(&waits);
}

/* ---- life ---- */

void images_step(struct images *im)
{
	usec_t now = clock_boottime();

	image_fetch_step(im);
	image_fill_step(im);
	if (now < im->next_look)
		return;
	im->next_look = now + LOOK_EVERY;
	look(im);
	describe(im);
}

struct images *images_open(struct agent *agent)
{
	struct images *im = xcalloc(1, sizeof *im);

	im->agent = agent;
	im->session = random_u64();
	im->progress = clock_boottime();
	(void)snprintf(im->folder, sizeof im->folder, "%.900s/images", agent->config.dir);
	image_scan(im->folder, add_file, im);
	return im;
}

void images_close(struct images *im)
{
	atomic_store(&im->closing, true);
	image_fetch_close(im);
	image_fill_close(im);
}

struct images *images_free(struct images *im)
{
	if (!im)
		return NULL;
	CHECK(im->fetch == NULL);
	image_uploads_free(im);
	free(im->fill);
	free(im->files);
	free(im->troubles);
	free(im);
	return NULL;
}
