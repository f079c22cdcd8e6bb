/* SPDX-License-Identifier: Apache-2.0
 * Filling volumes from images, one at a time, on the node that leads the volume, by qemu-img through the engine as a
 * guest would write: never into the file (V25). It counts only when the cluster has agreed that the volume was led from
 * here all the time; else it begins anew, on whichever node leads it then. Since nothing but this image was ever
 * written to the volume before, what an earlier try wrote is right. */
#include "agent/images_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN_AFTER  (2 * USEC_PER_SEC)
#define FILL_MAX     (24 * 3600 * USEC_PER_SEC)
#define FLUSH_MAX    (600 * USEC_PER_SEC)
#define URI_BYTES    (4 * PATH_BYTES_MAX)
#define EXIT_NO_TOOL 127

enum fill_state {
	FILL_WORKING, /* its thread runs */
	FILL_DONE,    /* all is written and flushed: to be told */
	FILL_TELLING,
	FILL_FAILED, /* waits, then it goes */
	FILL_STATES,
};

struct image_fill {
	struct images *im;
	enum fill_state state;
	char id[VOLUME_NAME_ID];
	char digest[DIGEST_BYTES_MAX];
	char format[8];
	uint32_t primary_since;
	char uri[URI_BYTES];
	usec_t not_before;
	/* the thread's */
	uv_thread_t thread;
	_Atomic bool cancel, ended;
	_Atomic unsigned percent;
	int rc;
	char why[REASON_BYTES_MAX];
};

static void move(struct image_fill *f, enum fill_state to)
{
	static const bool legal[FILL_STATES][FILL_STATES] = {
		[FILL_WORKING] = {[FILL_DONE] = true, [FILL_FAILED] = true},
		[FILL_DONE] = {[FILL_TELLING] = true},
		[FILL_TELLING] = {[FILL_DONE] = true},
	};

	CHECK(legal[f->state][to]);
	f->state = to;
	CHECK((to == FILL_FAILED) == (f->rc < 0));
}

/* ---- the thread ---- */

/* "    (12.34/100%)", again and again. */
static void progress_cb(void *ctx, const char *part, size_t n)
{
	struct image_fill *f = ctx;

	for (size_t i = n; i > 0; i--) {
		if (part[i - 1] != '(' || i == n || !isdigit((unsigned char)part[i]))
			continue;
		atomic_store(&f->percent, (unsigned)strtoul(part + i, NULL, 10));
		return;
	}
}

static int run_tool(struct image_fill *f, const char *const *argv, usec_t patience)
{
	const struct child child = {
		.argv = argv, .patience = patience, .cancel = &f->cancel, .told = progress_cb, .ctx = f};
	struct buf text = {0};
	const char *reason;
	int rc = child_run(&child, &text);

	if (rc == EXIT_NO_TOOL)
		(void)snprintf(f->why, sizeof f->why, "%s cannot be run: install the package qemu-utils", argv[0]);
	else if (rc > 0) {
		reason = strstr((char *)text.data, argv[0]);
		(void)snprintf(f->why, sizeof f->why, "%.*s", reason ? (int)strcspn(reason, "\r\n") : 20,
			       reason ? reason : "it says not why");
	} else if (rc < 0) {
		(void)snprintf(f->why, sizeof f->why, "%s: %s", argv[0], strerror(-rc));
	}
	buf_free(&text);
	return rc > 0 ? -EIO : rc;
}

/* -t writeback, and a flush of its own: qemu-img would flush nothing else, or tell nobody that it failed. */
static void thread_cb(void *ctx)
{
	struct image_fill *f = ctx;
	char path[IMAGE_PATH_MAX];
	const char *const convert[] = {"qemu-img", "convert",   "-p",   "-n",      "--target-is-zero",
				       "-t",       "writeback", "-f",   f->format, "-O",
				       "raw",      path,        f->uri, NULL};
	const char *const flush[] = {"qemu-io", "-f", "raw", "-c", "flush", f->uri, NULL};

	image_path(f->im->folder, f->digest, path);
	f->rc = image_verify(f->im->folder, f->digest, &f->cancel);
	if (f->rc < 0)
		(void)snprintf(f->why, sizeof f->why, "the image is damaged here: %s", strerror(-f->rc));
	else
		f->rc = run_tool(f, convert, FILL_MAX);
	if (f->rc == 0)
		f->rc = run_tool(f, flush, FLUSH_MAX);
	atomic_store(&f->ended, true);
}

/* ---- on the loop ---- */

static void make_uri(struct images *im, const struct store_volume *v, char ret[URI_BYTES])
{
	char sock[PATH_BYTES_MAX];
	int n = snprintf(ret, URI_BYTES, "nbd+unix:///%s?socket=", v->name);

	volumes_socket(&im->agent->config, sock);
	for (const char *c = sock; *c; c++)
		n += snprintf(ret + n, URI_BYTES - (size_t)n,
			      isalnum((unsigned char)*c) || strchr("/._-", *c) ? "%c" : "%%%02X", (unsigned char)*c);
}

static void begin(struct images *im, const struct store_volume *v)
{
	struct image_fill *f = im->fill = xcalloc(1, sizeof *f);

	f->im = im;
	f->primary_since = v->primary_since;
	memcpy(f->id, v->id, sizeof f->id);
	memcpy(f->digest, v->digest, sizeof f->digest);
	memcpy(f->format, v->format, sizeof f->format);
	make_uri(im, v, f->uri);
	log_info("volume %s: being filled from image %s", v->name, v->image);
	CHECK(uv_thread_create(&f->thread, thread_cb, f) == 0);
}

static bool is_mine(struct images *im, const struct store_volume *v)
{
	return v->filling && !v->deleting && v->primary == im->agent->config.id;
}

/* The one behind the last, in the order of the list. */
static void look_for_work(struct images *im)
{
	size_t n, start = 0;
	const struct store_volume *v = node_volumes(im->agent->node, &n);

	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i].id, im->filled_last) == 0)
			start = i + 1;
	for (size_t k = 0; k < n; k++) {
		const struct store_volume *next = &v[(start + k) % n];

		if (!is_mine(im, next) || !image_find(im, next->digest) || !volumes_serve_one(im->agent->volumes, next))
			continue;
		memcpy(im->filled_last, next->id, sizeof im->filled_last);
		begin(im, next);
		return;
	}
}

static void told_cb(void *ctx, const uint8_t *response, size_t n)
{
	struct image_fill *f = ctx;

	(void)response; /* whatever it says: the applied state tells whether to say it again */
	(void)n;
	f->not_before = clock_boottime() + AGAIN_AFTER;
	move(f, FILL_DONE);
}

static void tell(struct images *im, struct image_fill *f)
{
	struct buf params = {0};
	struct pack p;

	move(f, FILL_TELLING);
	image_params(im, &p, &params);
	pack_kv_str(&p, "id", f->id);
	pack_kv_u64(&p, "primary_since", f->primary_since);
	pack_end(&p);
	ctl_submit(im->agent->ctl, "volume.filled", &params, told_cb, f);
	buf_free(&params);
}

static void working(struct images *im, struct image_fill *f)
{
	struct image *i;

	if (!atomic_load(&f->ended))
		return;
	CHECK(uv_thread_join(&f->thread) == 0);
	if (f->rc == 0) {
		move(f, FILL_DONE);
		return;
	}
	i = image_find(im, f->digest);
	if (i && (f->rc == -EBADMSG || f->rc == -ENOENT))
		image_check(im, i);
	if (!atomic_load(&f->cancel))
		log_warning("volume %s: cannot be filled: %s; tried again", f->id, f->why);
	f->not_before = clock_boottime() + AGAIN_AFTER;
	move(f, FILL_FAILED);
}

static bool is_still_wanted(struct images *im, const struct image_fill *f)
{
	struct store_volume v;

	return store_volume_by_id(im->agent->store, f->id, &v) && is_mine(im, &v) &&
	       v.primary_since == f->primary_since;
}

static void release(struct images *im)
{
	free(im->fill);
	im->fill = NULL;
}

void image_fill_step(struct images *im)
{
	struct image_fill *f = im->fill;
	bool wanted = f && is_still_wanted(im, f);

	if (!f) {
		look_for_work(im);
		return;
	}
	if (!wanted)
		atomic_store(&f->cancel, true);
	if (f->state == FILL_WORKING)
		working(im, f);
	else if (f->state == FILL_DONE && wanted && clock_boottime() >= f->not_before)
		tell(im, f);
	else if ((f->state == FILL_DONE && !wanted) ||
		 (f->state == FILL_FAILED && (!wanted || clock_boottime() >= f->not_before)))
		release(im);
}

void image_fill_close(struct images *im)
{
	struct image_fill *f = im->fill;

	if (!f)
		return;
	atomic_store(&f->cancel, true);
	if (f->state == FILL_WORKING)
		CHECK(uv_thread_join(&f->thread) == 0);
	if (f->state != FILL_TELLING) /* its answer may still come */
		release(im);
}

static void describe_one(struct images *im, const struct store_volume *v, char ret[REASON_BYTES_MAX])
{
	const struct image_fill *f = im->fill && strcmp(im->fill->id, v->id) == 0 ? im->fill : NULL;
	char how[REASON_BYTES_MAX];

	if (f && f->state == FILL_FAILED)
		(void)snprintf(ret, REASON_BYTES_MAX, "%.120s; tried again", f->why);
	else if (f)
		(void)snprintf(ret, REASON_BYTES_MAX, "%u %%",
			       f->state == FILL_WORKING ? atomic_load(&f->percent) : 100);
	else if (!image_find(im, v->digest)) {
		image_fetch_describe(im, v->digest, how);
		(void)snprintf(ret, REASON_BYTES_MAX, "the image is %.120s", how);
	} else
		(void)snprintf(ret, REASON_BYTES_MAX, "waits until %s",
			       im->fill ? "another one is filled" : "the volume is served");
}

void image_fill_describe(struct images *im, struct buf *ret)
{
	size_t n;
	const struct store_volume *v = node_volumes(im->agent->node, &n);

	for (size_t i = 0; i < n; i++) {
		struct peer_wait w = {0};

		if (!is_mine(im, &v[i]))
			continue;
		memcpy(w.object, v[i].id, sizeof v[i].id);
		describe_one(im, &v[i], w.text);
		message_encode(&peer_wait_type, &w, ret);
	}
}
