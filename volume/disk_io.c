/* SPDX-License-Identifier: Apache-2.0
 * io_uring on a libuv loop: what a turn of the loop begins is submitted together at its end, what is done at once is
 * told in the same turn, and an eventfd wakes the loop for the rest. Syncs have a quicker way (disk_sync.c).
 *
 * Buffered writes take another way: where a file system cannot promise not to wait (ext4), io_uring hands each to a
 * worker of the kernel. Nearly always the page cache takes a write in microseconds, so it is done at once. When one was
 * slow, as when the kernel holds back who writes faster than the disk, a thread does them for a while, a turn's worth
 * at a time: the loop has others to serve. Long ones it always does.
 */
#include "volume/disk_io.h"

#include "volume/disk_do.h"
#include "volume/disk_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>

#define ENTRIES     512
#define SLOW        USEC_PER_MS /* a write that took so long waited for something */
#define FEW         64          /* writes of the thread, until the loop is told */
#define FEW_BYTES   (512u << 10)
#define SLOW_WHILE  (USEC_PER_SEC)
#define LONG        (1u << 20) /* a write that is worth a thread: the next can be received meanwhile */
#define HURRIED_MAX 16         /* in a turn; others go with their SYNC */

struct request {
	struct request *next;
	struct disk_io *d;
	int fd;
	struct volume_io *io;
	uint64_t at; /* of it, done by the ring */
	disk_io_done done;
	void *ctx;
	int rc;
	uv_work_t work;
};

struct disk_io {
	uv_loop_t *loop;
	enum disk_io_mode mode;
	bool uring;
	struct io_uring ring;
	struct disk_syncs syncs;
	int event; /* something has ended, of the ring, the syncs or the writing thread */
	uv_poll_t poll;
	uv_prepare_t before; /* the loop sleeps */
	uv_idle_t awake;     /* while it runs, the loop does not: somebody was told something just before */
	struct request *waiting, **waiting_end; /* for a place in the ring */
	struct request *done, **done_end;       /* written at once, to be told */
	usec_t slow_until;
	int hurried[HURRIED_MAX]; /* files that were written at once, and a SYNC of them comes soon */
	unsigned n_hurried;
	struct failure {
		int fd, rc;
	} failed[HURRIED_MAX]; /* on their way to the disk: it is their next SYNC's to tell */
	unsigned n_failed;
	unsigned copies;                  /* that the thread has to write */
	struct request *turn, **turn_end; /* for the thread, of this turn */
	pthread_t writer;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t wake;
	bool ends;
	struct disk_copies kept;                /* the writing thread's alone */
	struct request *writes, **writes_end;   /* for the writing thread */
	struct request *written, **written_end; /* by it, to be told */

	struct request *free;
	unsigned under_way;
	unsigned handles;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* ---- one request, by a thread ---- */

/* The file system may have given up what it could not place, and nothing but this call's answer says so. */
static void note_failure(struct disk_io *d, int fd, int error)
{
	for (unsigned i = 0; i < d->n_failed; i++)
		if (d->failed[i].fd == fd)
			return;
	if (error == EIO || error == ENOSPC || error == EDQUOT || error == EROFS)
		d->failed[d->n_failed++] = (struct failure){fd, -error};
}

/* 0, or what befell writes to @fd. */
static int take_failure(struct disk_io *d, int fd)
{
	for (unsigned i = 0; i < d->n_failed; i++) {
		struct failure f = d->failed[i];

		if (f.fd != fd)
			continue;
		d->failed[i] = d->failed[--d->n_failed];
		return f.rc;
	}
	return 0;
}

static void over(struct request *r, int rc)
{
	struct disk_io *d = r->d;
	disk_io_done done = r->done;
	struct volume_io *io = r->io;
	void *ctx = r->ctx;

	if (io->kind == VOLUME_IO_SYNC && rc == 0) /* also if it failed while the sync was under way already */
		rc = take_failure(d, r->fd);
	r->next = d->free;
	d->free = r;
	d->under_way--;
	done(ctx, io, rc);
}

static void work_cb(uv_work_t *work)
{
	struct request *r = work->data;

	r->rc = disk_do(r->fd, r->io, r->d->mode == DISK_IO_DIRECT, NULL);
}

static void worked_cb(uv_work_t *work, int status)
{
	struct request *r = work->data;

	(void)status;
	over(r, r->rc);
}

static void by_thread(struct request *r)
{
	r->work.data = r;
	CHECK(uv_queue_work(r->d->loop, &r->work, work_cb, worked_cb) == 0);
}

/* ---- buffered writes ---- */

static void push(struct request *r, struct request ***end)
{
	r->next = NULL;
	**end = r;
	*end = &r->next;
}

static struct request *take(struct request **first, struct request ***end)
{
	struct request *all = *first;

	*first = NULL;
	*end = first;
	return all;
}

/* Some of a turn's writes, then the loop is told: who sent them can go on. Returns the rest. */
static struct request *write_few(struct disk_io *d, struct request *batch)
{
	static const uint64_t one = 1;
	struct request *r = batch, **end = &r;
	uint64_t bytes = 0;

	for (unsigned n = 0; *end && n < FEW && bytes < FEW_BYTES; end = &(*end)->next, n++) {
		(*end)->rc = disk_do((*end)->fd, (*end)->io, false, &d->kept);
		bytes += (*end)->io->length;
	}
	batch = *end;
	*end = NULL;
	CHECK(pthread_mutex_lock(&d->lock) == 0);
	*d->written_end = r;
	d->written_end = end;
	(void)!write(d->event, &one, sizeof one);
	CHECK(pthread_mutex_unlock(&d->lock) == 0);
	return batch;
}

/* A turn's writes one after the other. */
static void *writer_main(void *ctx)
{
	struct disk_io *d = ctx;
	struct request *batch;

	CHECK(pthread_mutex_lock(&d->lock) == 0);
	for (;;) {
		while (!d->writes && !d->ends)
			CHECK(pthread_cond_wait(&d->wake, &d->lock) == 0);
		if (!d->writes)
			break;
		batch = take(&d->writes, &d->writes_end);
		CHECK(pthread_mutex_unlock(&d->lock) == 0);
		while (batch)
			batch = write_few(d, batch);
		CHECK(pthread_mutex_lock(&d->lock) == 0);
	}
	CHECK(pthread_mutex_unlock(&d->lock) == 0);
	return NULL;
}

/* The turn ends: what it wants written goes to the thread. */
static void hand_over(struct disk_io *d)
{
	CHECK(pthread_mutex_lock(&d->lock) == 0);
	if (!d->writes)
		CHECK(pthread_cond_signal(&d->wake) == 0);
	*d->writes_end = d->turn;
	d->writes_end = d->turn_end;
	CHECK(pthread_mutex_unlock(&d->lock) == 0);
	d->turn = NULL;
	d->turn_end = &d->turn;
}

static void hurry(struct disk_io *d, int fd)
{
	for (unsigned i = 0; i < d->n_hurried; i++)
		if (d->hurried[i] == fd)
			return;
	if (d->n_hurried < HURRIED_MAX)
		d->hurried[d->n_hurried++] = fd;
}

static void write_buffered(struct request *r)
{
	struct disk_io *d = r->d;
	usec_t began = clock_boottime(), now;

	d->copies += r->io->is_copy;
	if (r->io->is_copy || began < d->slow_until || (r->io->length >= LONG && d->copies == 0)) {
		push(r, &d->turn_end); /* it waits for the disk, or takes long */
		return;
	}
	r->rc = disk_do(r->fd, r->io, false, NULL);
	push(r, &d->done_end);
	if (r->io->hurries && r->rc == 0)
		hurry(d, r->fd);
	now = clock_boottime();
	if (now - began > SLOW)
		d->slow_until = now + SLOW_WHILE;
}

/* Whoever waits for the writes has been told; while they make up their mind to flush them, they can go to the disk, all
 * of a file together. */
static void send_on_their_way(struct disk_io *d)
{
	usec_t began = d->n_hurried ? clock_boottime() : 0, now;

	for (; d->n_hurried > 0; began = now) {
		int fd = d->hurried[--d->n_hurried];

		if (began >= d->slow_until && d->n_failed < HURRIED_MAX &&
		    sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) < 0)
			note_failure(d, fd, errno);
		now = clock_boottime();
		if (now - began > SLOW)
			d->slow_until = now + SLOW_WHILE;
	}
}

/* Returns how many. */
static unsigned tell(struct request *r)
{
	struct request *next;
	unsigned n = 0;

	for (; r; r = next, n++) {
		next = r->next;
		r->d->copies -= r->io->is_copy;
		over(r, r->rc);
	}
	return n;
}

static unsigned tell_written(struct disk_io *d)
{
	struct request *r;

	CHECK(pthread_mutex_lock(&d->lock) == 0);
	r = take(&d->written, &d->written_end);
	CHECK(pthread_mutex_unlock(&d->lock) == 0);
	return tell(r) + tell(take(&d->done, &d->done_end));
}

/* ---- the ring ---- */

static void prepare(struct request *r, struct io_uring_sqe *sqe)
{
	struct volume_io *io = r->io;
	char *p = (char *)io->data + r->at;
	unsigned n = (unsigned)(io->length - r->at);

	switch (io->kind) {
	case VOLUME_IO_READ:
		io_uring_prep_read(sqe, r->fd, p, n, io->offset + r->at);
		break;
	case VOLUME_IO_WRITE:
		io_uring_prep_write(sqe, r->fd, p, n, io->offset + r->at);
		break;
	case VOLUME_IO_SYNC:
		io_uring_prep_fsync(sqe, r->fd, IORING_FSYNC_DATASYNC);
		break;
	default:
		io_uring_prep_fallocate(sqe, r->fd, disk_falloc_mode(io), (off_t)io->offset, (off_t)io->length);
	}
	io_uring_sqe_set_data(sqe, r);
}

static void enqueue(struct disk_io *d, struct request *r)
{
	push(r, &d->waiting_end);
}

static bool moves_bytes(const struct volume_io *io)
{
	return io->kind == VOLUME_IO_READ || io->kind == VOLUME_IO_WRITE;
}

static void completed(struct request *r, int res)
{
	if (res == -EINTR || res == -EAGAIN) {
		enqueue(r->d, r);
		return;
	}
	if (res == -EOPNOTSUPP && !moves_bytes(r->io)) { /* the ring or the file system cannot: a thread finds a way */
		by_thread(r);
		return;
	}
	if (res > 0 && moves_bytes(r->io) && r->at + (uint64_t)res < r->io->length) {
		r->at += (uint64_t)res;
		enqueue(r->d, r);
		return;
	}
	if (res == 0 && moves_bytes(r->io))
		res = -EIO; /* beyond the end of the file: never, for a replica has its full length */
	over(r, res < 0 ? res : 0);
}

static void submit(struct disk_io *d)
{
	while (d->waiting) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&d->ring);
		struct request *r = d->waiting;

		if (!sqe)
			break;
		d->waiting = r->next;
		if (!d->waiting)
			d->waiting_end = &d->waiting;
		prepare(r, sqe);
	}
	(void)io_uring_submit(&d->ring);
}

static unsigned reap(struct disk_io *d)
{
	struct io_uring_cqe *cqe;
	struct request *r;
	unsigned n = 0;
	int rc;

	for (; (r = disk_sync_ended(&d->syncs, &rc)); n++)
		completed(r, rc);
	while (io_uring_peek_cqe(&d->ring, &cqe) == 0) {
		r = io_uring_cqe_get_data(cqe);
		rc = cqe->res;
		io_uring_cqe_seen(&d->ring, cqe);
		completed(r, rc);
		n++;
	}
	return n;
}

static void awake_cb(uv_idle_t *idle)
{
	(void)idle;
}

/* Before the loop sleeps: what was begun goes out; what is done at once may begin more. */
static void before_cb(uv_prepare_t *prepare_handle)
{
	struct disk_io *d = prepare_handle->data;
	unsigned told = 0, n = 1;

	for (unsigned turns = 0; turns < 64 && n > 0; turns++) {
		n = tell_written(d);
		if (d->turn)
			hand_over(d);
		if (d->waiting || io_uring_sq_ready(&d->ring))
			submit(d);
		n += reap(d);
		told += n;
	}
	if (told) {
		(void)uv_idle_start(&d->awake, awake_cb);
	} else {
		send_on_their_way(d);
		(void)uv_idle_stop(&d->awake);
	}
}

static void poll_cb(uv_poll_t *poll, int status, int events)
{
	struct disk_io *d = poll->data;
	uint64_t count;

	(void)status;
	(void)events;
	(void)!read(d->event, &count, sizeof count);
	(void)tell_written(d);
	(void)reap(d);
}

/* ---- life ---- */

static bool ring_open(struct disk_io *d)
{
	if (io_uring_queue_init(ENTRIES, &d->ring, 0) < 0)
		return false;
	d->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->event >= 0 && io_uring_register_eventfd(&d->ring, d->event) == 0)
		return true;
	if (d->event >= 0)
		(void)close(d->event);
	io_uring_queue_exit(&d->ring);
	return false;
}

struct disk_io *disk_io_new(struct uv_loop_s *loop, enum disk_io_mode mode)
{
	struct disk_io *d = xcalloc(1, sizeof *d);

	d->loop = loop;
	d->mode = mode;
	d->waiting_end = &d->waiting;
	d->done_end = &d->done;
	d->turn_end = &d->turn;
	d->writes_end = &d->writes;
	d->written_end = &d->written;
	d->uring = mode != DISK_IO_THREADS && ring_open(d);
	if (d->uring) {
		(void)disk_syncs_open(&d->syncs, d->event);
		CHECK(uv_poll_init(loop, &d->poll, d->event) == 0);
		CHECK(uv_prepare_init(loop, &d->before) == 0);
		CHECK(uv_idle_init(loop, &d->awake) == 0);
		d->poll.data = d->before.data = d->awake.data = d;
		CHECK(uv_poll_start(&d->poll, UV_READABLE, poll_cb) == 0);
		CHECK(uv_prepare_start(&d->before, before_cb) == 0);
		d->handles = 3;
		CHECK(pthread_mutex_init(&d->lock, NULL) == 0);
		CHECK(pthread_cond_init(&d->wake, NULL) == 0);
		CHECK(pthread_create(&d->writer, NULL, writer_main, d) == 0);
	}
	return d;
}

static void finish(struct disk_io *d)
{
	struct request *next;

	if (d->uring) {
		CHECK(pthread_mutex_lock(&d->lock) == 0);
		d->ends = true;
		CHECK(pthread_cond_signal(&d->wake) == 0);
		CHECK(pthread_mutex_unlock(&d->lock) == 0);
		CHECK(pthread_join(d->writer, NULL) == 0);
		CHECK(pthread_cond_destroy(&d->wake) == 0);
		CHECK(pthread_mutex_destroy(&d->lock) == 0);
		disk_syncs_close(&d->syncs);
		io_uring_queue_exit(&d->ring);
		(void)close(d->event);
	}
	for (struct request *r = d->free; r; r = next) {
		next = r->next;
		free(r);
	}
	d->closed(d->closed_ctx);
	free(d);
}

static void handle_closed(uv_handle_t *handle)
{
	struct disk_io *d = handle->data;

	if (--d->handles == 0)
		finish(d);
}

void disk_io_close(struct disk_io *d, void (*cb)(void *ctx), void *ctx)
{
	CHECK(d->under_way == 0);
	d->closed = cb;
	d->closed_ctx = ctx;
	if (!d->uring) {
		finish(d);
		return;
	}
	uv_close((uv_handle_t *)&d->poll, handle_closed);
	uv_close((uv_handle_t *)&d->before, handle_closed);
	uv_close((uv_handle_t *)&d->awake, handle_closed);
}

void disk_io_forget(struct disk_io *d, int fd)
{
	(void)take_failure(d, fd);
}

void disk_io_begin(struct disk_io *d, int fd, struct volume_io *io, disk_io_done done, void *ctx)
{
	struct request *r = d->free;

	if (r)
		d->free = r->next;
	else
		r = xcalloc(1, sizeof *r);
	*r = (struct request){.d = d, .fd = fd, .io = io, .done = done, .ctx = ctx};
	d->under_way++;
	if (d->uring && d->mode == DISK_IO_BUFFERED && io->kind == VOLUME_IO_WRITE)
		write_buffered(r);
	else if (d->uring && io->kind == VOLUME_IO_SYNC && disk_sync_begin(&d->syncs, fd, r))
		; /* it is under way */
	else if (d->uring && io->kind != VOLUME_IO_HASH)
		enqueue(d, r);
	else
		by_thread(r);
}
