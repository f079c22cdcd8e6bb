/* SPDX-License-Identifier: Apache-2.0
 * Opening a replica: the lock, the metadata, what a crash left to mend, and whether writes may be lost. */
#include "volume/replica_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_POLL_MS 10

static int failed(const struct volume_replica *r, struct err *e, int rc, const char *what, const char *remedy)
{
	return err_set(e, rc, "open replica '%s': %s: %s%s", r->label, what, strerror(-rc), remedy);
}

static int damaged(const struct volume_replica *r, struct err *e, const char *what)
{
	return err_set(e, -EBADMSG, "open replica '%s': %s (%s)", r->label, what, REMEDY_ANEW);
}

/* ---- files and lock ---- */

static int open_file(struct volume_replica *r, const char *name, int *ret, struct err *e)
{
	*ret = openat(r->folder, name, O_RDWR | O_CLOEXEC);
	if (*ret < 0)
		return failed(r, e, -errno, name, errno == ENOENT ? " (" REMEDY_ANEW ")" : "");
	return 0;
}

/* V28: what still runs in the kernel for a dead engine holds its descriptor, and so the lock. */
static int take_lock(struct volume_replica *r, usec_t wait, struct err *e)
{
	const struct timespec nap = {.tv_nsec = LOCK_POLL_MS * 1000 * 1000};
	usec_t until = clock_boottime() + wait;

	while (flock(r->data, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return failed(r, e, -errno, "lock data", "");
		if (clock_boottime() >= until)
			return err_set(e, -EWOULDBLOCK,
				       "open replica '%s': another process has it open, or its last I/O has not ended "
				       "(end that engine, then try again)",
				       r->label);
		(void)nanosleep(&nap, NULL);
	}
	return 0;
}

/* What was locked must still be what has the name: another one may have been put there while we waited. */
static int check_place(struct volume_replica *r, const char *dir, struct err *e)
{
	struct stat ours, theirs;
	char path[PATH_BYTES_MAX + 8];

	(void)snprintf(path, sizeof path, "%s/data", dir);
	if (fstat(r->data, &ours) < 0)
		return failed(r, e, -errno, "stat data", "");
	if (stat(path, &theirs) < 0 || ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev)
		return failed(r, e, -ESTALE, "the folder was replaced meanwhile", " (try again)");
	return 0;
}

static int open_files(struct volume_replica *r, const char *dir, usec_t wait, struct err *e)
{
	int rc;

	if (strlen(dir) >= PATH_BYTES_MAX)
		return failed(r, e, -ENAMETOOLONG, "its path", " (use a shorter one)");
	r->folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->folder < 0)
		return failed(r, e, -errno, "the folder", "");
	rc = open_file(r, "data", &r->data, e);
	if (rc == 0)
		rc = take_lock(r, wait, e);
	if (rc == 0)
		rc = check_place(r, dir, e);
	if (rc == 0)
		rc = open_file(r, "meta", &r->meta, e);
	if (rc == 0)
		rc = open_file(r, "epochs", &r->epochs, e);
	return rc;
}

/* V13: after a failed write-back the page cache may show what the disk does not have, and call it clean. It is dropped
 * as far as the kernel does that, and `meta` is read beside it where the file system can. */
static void look_for_errors(struct volume_replica *r, bool force)
{
	const int fds[] = {r->data, r->meta, r->epochs};

	r->losses = force ? VOLUME_LOSS_FORCED : 0;
	if (faccessat(r->folder, VOLUME_FAILED_MARK, F_OK, 0) == 0)
		r->losses |= VOLUME_LOSS_ERROR;
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		if (r->sys->late_error(fds[i]) < 0)
			r->losses |= VOLUME_LOSS_ERROR;
	for (size_t i = 0; r->losses && i < ARRAY_LEN(fds); i++)
		(void)posix_fadvise(fds[i], 0, 0, POSIX_FADV_DONTNEED);
	r->suspect = r->losses != 0;
	if (r->suspect)
		r->direct = openat(r->folder, "meta", O_RDONLY | O_DIRECT | O_CLOEXEC);
}

static int read_meta(struct volume_replica *r, uint8_t *page, uint64_t at)
{
	int rc = r->direct < 0 ? -EINVAL : sys_read_all(r->sys, r->direct, page, VOLUME_PAGE_BYTES, at);

	return rc == -EINVAL ? sys_read_all(r->sys, r->meta, page, VOLUME_PAGE_BYTES, at) : rc;
}

/* ---- reading ---- */

/* A growth that was cut short leaves a size up to @most. */
static int check_size(struct volume_replica *r, int fd, const char *name, uint64_t want, uint64_t most, struct err *e)
{
	char what[120];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return failed(r, e, -errno, name, "");
	if ((uint64_t)st.st_size == want || ((uint64_t)st.st_size > want && (uint64_t)st.st_size <= most))
		return 0;
	(void)snprintf(what, sizeof what, "%s has %lld bytes where it must have %llu", name, (long long)st.st_size,
		       (unsigned long long)want);
	return damaged(r, e, what);
}

static int read_super(struct volume_replica *r, struct err *e)
{
	_Alignas(VOLUME_PAGE_BYTES) uint8_t page[VOLUME_PAGE_BYTES];
	enum volume_fault fault;
	char what[120];
	int rc = read_meta(r, page, 0);

	fault = rc < 0 ? VOLUME_FAULT_READ : volume_super_decode(page, &r->super);
	(void)snprintf(what, sizeof what, "meta: the superblock (offset 0) %s", volume_fault_text(fault));
	if (fault == VOLUME_FAULT_VERSION || fault == VOLUME_FAULT_FEATURE)
		return err_set(e, -ENOTSUP, "open replica '%s': %s (use the newer kedge-vol that wrote it)", r->label,
			       what);
	return fault ? damaged(r, e, what) : 0;
}

/* One copy of a pair, not yet believed. */
struct copy {
	_Alignas(VOLUME_PAGE_BYTES) uint8_t page[VOLUME_PAGE_BYTES];
	enum volume_fault fault;
	uint64_t seq;
	struct volume_state state;
	uint8_t bits[VOLUME_INTENTS_BYTES];
};

static void read_copy(struct volume_replica *r, uint32_t pair, unsigned which, struct copy *c)
{
	if (read_meta(r, c->page, VOLUME_META_OFFSET(pair) + which * VOLUME_PAGE_BYTES) < 0)
		c->fault = VOLUME_FAULT_READ;
	else if (pair == 0)
		c->fault = volume_state_decode(c->page, r->super.replica, &c->state, &c->seq);
	else
		c->fault = volume_intents_decode(c->page, pair - 1, r->extents, r->super.replica, c->bits, &c->seq);
}

static int pair_damaged(struct volume_replica *r, uint32_t pair, const struct copy *c, struct err *e)
{
	uint64_t at = VOLUME_META_OFFSET(pair);
	char name[40], what[280];

	if (pair == 0)
		(void)snprintf(name, sizeof name, "the state page");
	else
		(void)snprintf(name, sizeof name, "intent page %u", pair - 1);
	if (!c[0].fault && !c[1].fault)
		(void)snprintf(what, sizeof what, "meta: %s (offset %llu) %s", name, (unsigned long long)at,
			       volume_fault_text(VOLUME_FAULT_SPLIT));
	else
		(void)snprintf(what, sizeof what, "meta: both copies of %s are damaged: offset %llu %s, offset %llu %s",
			       name, (unsigned long long)at, volume_fault_text(c[0].fault),
			       (unsigned long long)at + VOLUME_PAGE_BYTES, volume_fault_text(c[1].fault));
	return damaged(r, e, what);
}

/* The newest whole copy counts. Two whole ones with one number that differ were never written by us: no guess. */
static int read_pair(struct volume_replica *r, uint32_t pair, struct copy *c, struct err *e)
{
	struct pair *p = &r->pairs[pair];
	bool both;

	for (unsigned which = 0; which < 2; which++)
		read_copy(r, pair, which, &c[which]);
	both = !c[0].fault && !c[1].fault;
	p->differ = !both || memcmp(c[0].page, c[1].page, VOLUME_PAGE_BYTES) != 0;
	if ((c[0].fault && c[1].fault) || (both && p->differ && c[0].seq == c[1].seq))
		return pair_damaged(r, pair, c, e);
	p->durable = c[0].fault || (both && c[1].seq > c[0].seq);
	p->seq = c[p->durable].seq;
	r->mended += p->differ;
	if (pair == 0)
		r->state = c[p->durable].state;
	else
		memcpy(r->intents + (size_t)(pair - 1) * VOLUME_INTENTS_BYTES, c[p->durable].bits,
		       VOLUME_INTENTS_BYTES);
	return 0;
}

/* The state first: it says how large the volume is by now. */
static int read_state(struct volume_replica *r, struct copy *copies, struct err *e)
{
	int rc;

	r->pairs = calloc(1, sizeof *r->pairs);
	if (!r->pairs)
		return failed(r, e, -ENOMEM, "its metadata", "");
	rc = read_pair(r, 0, copies, e);
	if (rc < 0)
		return rc;
	if (r->state.size > r->super.size)
		r->super.size = r->state.size;
	r->extents = volume_extents(r->super.size);
	r->pages = volume_intent_pages(r->super.size);
	return check_size(r, r->meta, "meta", volume_meta_bytes(r->super.size),
			  r->state.growing ? volume_meta_bytes(r->state.growing) : 0, e);
}

static int read_intents(struct volume_replica *r, struct copy *copies, struct err *e)
{
	struct pair *pairs = realloc(r->pairs, (1 + r->pages) * sizeof *pairs);
	int rc = 0;

	if (pairs)
		r->pairs = pairs;
	r->intents = calloc(1, volume_bits_bytes(r->super.size));
	if (!pairs || !r->intents)
		return failed(r, e, -ENOMEM, "its metadata", "");
	memset(&pairs[1], 0, r->pages * sizeof *pairs);
	for (uint32_t pair = 1; rc == 0 && pair < 1 + r->pages; pair++)
		rc = read_pair(r, pair, copies, e);
	return rc;
}

static int read_pairs(struct volume_replica *r, struct err *e)
{
	struct copy *copies = aligned_alloc(VOLUME_PAGE_BYTES, 2 * sizeof *copies);
	int rc = copies ? read_state(r, copies, e) : failed(r, e, -ENOMEM, "its metadata", "");

	if (rc == 0)
		rc = read_intents(r, copies, e);
	free(copies);
	return rc;
}

/* ---- mending ---- */

/* Byte for byte, so that what a newer version put into its own fields stays the same in both copies. */
static int rewrite(struct volume_replica *r, uint32_t pair, unsigned which)
{
	_Alignas(VOLUME_PAGE_BYTES) uint8_t page[VOLUME_PAGE_BYTES];
	uint64_t at = VOLUME_META_OFFSET(pair);
	int rc = read_meta(r, page, at + r->pairs[pair].durable * VOLUME_PAGE_BYTES);

	return rc < 0 ? rc : sys_write_all(r->sys, r->meta, page, sizeof page, at + which * VOLUME_PAGE_BYTES);
}

static int sync_meta(struct volume_replica *r)
{
	return r->sys->fdatasync(r->meta) < 0 ? -errno : 0;
}

/* Brings each pair to two equal, durable copies. First the newest copies become durable: what was read may be in the
 * page cache alone, left by an engine that was killed. Only then are the others written, and only when these are
 * durable too, and the cache is not to be trusted, the newest ones once more. */
static int mend(struct volume_replica *r, struct err *e)
{
	int rc = sync_meta(r);

	for (uint32_t i = 0; rc == 0 && i < 1 + r->pages; i++)
		if (r->suspect || r->pairs[i].differ)
			rc = rewrite(r, i, 1 - r->pairs[i].durable);
	if (rc == 0 && (r->suspect || r->mended))
		rc = sync_meta(r);
	for (uint32_t i = 0; rc == 0 && r->suspect && i < 1 + r->pages; i++)
		rc = rewrite(r, i, r->pairs[i].durable);
	if (rc == 0 && r->suspect)
		rc = sync_meta(r);
	return rc == 0 ? 0 : failed(r, e, rc, "write meta", " (the disk fails: replace it)");
}

/* ---- V25 ---- */

static unsigned compare_origins(const struct volume_origin *was, const struct volume_origin *is)
{
	unsigned losses = 0;

	if (memcmp(was->boot, is->boot, sizeof is->boot) != 0)
		losses |= VOLUME_LOSS_BOOT;
	else if (was->mount_kind != is->mount_kind || was->device != is->device || was->mount != is->mount)
		losses |= VOLUME_LOSS_MOUNT;
	if (memcmp(was->inodes, is->inodes, sizeof is->inodes) != 0)
		losses |= VOLUME_LOSS_FILES;
	return losses;
}

/* A lost replica may have any size: blanking it may have been cut short. */
static int find_losses(struct volume_replica *r, struct volume_origin *ret, struct err *e)
{
	int rc = r->sys->origin(r->data, r->meta, r->epochs, ret, e);

	if (rc < 0)
		return err_wrap(e, rc, "open replica '%s'", r->label);
	r->losses |= compare_origins(&r->state.origin, ret);
	if (r->state.lost || (r->losses & VOLUME_LOSS_FILES))
		return 0;
	rc = check_size(r, r->data, "data", r->super.size, r->state.growing, e);
	if (rc == 0)
		rc = check_size(r, r->epochs, "epochs", (uint64_t)r->extents * VOLUME_PAGE_BYTES,
				(uint64_t)volume_extents(r->state.growing) * VOLUME_PAGE_BYTES, e);
	return rc;
}

static int start_incarnation(struct volume_replica *r, const struct volume_origin *origin, struct err *e)
{
	struct volume_state s = r->state;

	if (!r->losses)
		return 0;
	s.origin = *origin;
	s.incarnation = replica_fresh_incarnation(s.incarnation);
	s.lost = s.lost || (r->losses & VOLUME_LOSS_FILES);
	return replica_put_state(r, &s, e);
}

/* ---- */

int volume_replica_open(const char *dir, const struct volume_replica_options *options, struct volume_replica **ret,
			struct err *e)
{
	struct volume_replica *r = xcalloc(1, sizeof *r);
	struct volume_origin origin;
	int rc;

	r->sys = options->sys ? options->sys : &volume_sys_kernel;
	r->folder = r->data = r->meta = r->epochs = r->direct = -1;
	replica_label(dir, r->label);
	rc = open_files(r, dir, options->wait, e);
	if (rc < 0)
		goto out;
	look_for_errors(r, options->force);
	rc = read_super(r, e);
	if (rc == 0)
		rc = read_pairs(r, e);
	if (rc == 0)
		rc = find_losses(r, &origin, e);
	if (rc == 0)
		rc = mend(r, e);
	if (rc == 0)
		rc = start_incarnation(r, &origin, e);
	if (rc == 0 && r->losses)
		(void)unlinkat(r->folder, VOLUME_FAILED_MARK, 0); /* that it failed is durable now */
	if (rc == 0)
		*ret = r;
out:
	if (rc < 0)
		r = volume_replica_close(r);
	return rc;
}

void volume_replica_mark_failed(const struct volume_replica *r)
{
	int fd = openat(r->folder, VOLUME_FAILED_MARK, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0)
		(void)close(fd);
}

struct volume_replica *volume_replica_close(struct volume_replica *r)
{
	if (!r)
		return NULL;
	if (r->meta >= 0)
		(void)close(r->meta);
	if (r->epochs >= 0)
		(void)close(r->epochs);
	if (r->direct >= 0)
		(void)close(r->direct);
	if (r->folder >= 0)
		(void)close(r->folder);
	if (r->data >= 0)
		(void)close(r->data); /* last: the lock goes with it */
	free(r->pairs);
	free(r->intents);
	free(r);
	return NULL;
}

const struct volume_super *volume_replica_super(const struct volume_replica *r)
{
	return &r->super;
}

const struct volume_state *volume_replica_state(const struct volume_replica *r)
{
	return &r->state;
}

const uint8_t *volume_replica_intents(const struct volume_replica *r)
{
	return r->intents;
}

unsigned volume_replica_losses(const struct volume_replica *r)
{
	return r->losses;
}

unsigned volume_replica_mended(const struct volume_replica *r)
{
	return r->mended;
}

int volume_replica_data(const struct volume_replica *r)
{
	return r->data;
}
