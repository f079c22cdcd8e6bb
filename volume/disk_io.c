/* SPDX-License-Identifier: Apache-2.0
 * io_uring on a libuv loop: what a turn of the loop begins is submitted together at its end, what is done at once is
 * told in the same turn, and an eventfd wakes the loop for the rest.
 *
 * Buffered writes take another way: where a file system cannot promise not to wait (ext4), io_uring hands each to a
 * worker of the kernel. Nearly always the page cache takes a write in microseconds, so it is done at once. When one was
 * slow, as when the kernel holds back who writes faster than the disk, a thread does them for a while, a turn's worth
 * at a time: the loop has others to serve.
 */
#include "volume/disk_io.h"

#include "volume/disk_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>
#include <uv.h>

#define ENTRIES    512
#define PIECE      (64u << 10) /* of a buffered write */
#define SLOW       USEC_PER_MS /* a write that took so long waited for something */
#define FEW        64          /* writes of the thread, until the loop is told */
#define FEW_BYTES  (512u << 10)
#define SLOW_WHILE (USEC_PER_SEC)

struct request {
	struct request *next;
	struct disk_io *d;
	int fd;
	struct volume_io *io;
	uint64_t at; /* of it, done */
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
	int event;
	uv_poll_t poll;
	uv_prepare_t before; /* the loop sleeps */
	uv_idle_t awake;     /* while it runs, the loop does not: somebody was told something just before */
	struct request *waiting, **waiting_end; /* for a place in the ring */
	struct request *done, **done_end;       /* written at once, to be told */
	usec_t slow_until;
	struct hurry {
		int fd; /* -1: nothing */
		uint64_t offset, length;
	} hurry;                          /* written at once, and a SYNC of it comes soon */
	struct request *turn, **turn_end; /* for the thread, of this turn */
	pthread_t writer;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t wake;
	bool ends;
	struct disk_copies copies;              /* the writing thread's alone */
	struct request *writes, **writes_end;   /* for the writing thread */
	struct request *written, **written_end; /* by it, to be told */

	struct request *free;
	unsigned under_way;
	unsigned handles;
	void (*closed)(void *ctx);
	void *closed_ctx;
};

/* ---- one request, by a thread ---- */

/* What one call writes, the page cache may keep as one folio, and each later write into it, and its write-back, looks
 * at all of its blocks: small writes into folios of 2 MiB took three times as long. */
static ssize_t write_piece(struct request *r, const char *p, size_t n, off_t at)
{
	size_t room = PIECE - (size_t)at % PIECE;

	return pwrite(r->fd, p, r->d->mode == DISK_IO_DIRECT || n < room ? n : room, at);
}

static ssize_t write_some(struct request *r, const char *p, size_t n, off_t at)
{
	ssize_t done = r->io->is_copy ? disk_copy_write(r->d->uring ? &r->d->copies : NULL, r->fd, p, n, at) : -1;

	if (done >= 0 || (r->io->is_copy && errno != EOPNOTSUPP))
		return done;
	done = write_piece(r, p, n, at);
	if (done > 0 && r->io->is_copy && r->d->mode != DISK_IO_DIRECT)
		(void)sync_file_range(r->fd, at, done, SYNC_FILE_RANGE_WRITE);
	return done;
}

static int do_all(struct request *r)
{
	struct volume_io *io = r->io;

	while (r->at < io->length) {
		char *p = (char *)io->data + r->at;
		ssize_t n = io->kind == VOLUME_IO_WRITE
				    ? write_some(r, p, io->length - r->at, (off_t)(io->offset + r->at))
				    : pread(r->fd, p, io->length - r->at, (off_t)(io->offset + r->at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		r->at += (uint64_t)n;
	}
	return 0;
}

/* V10: both leave zeroes; only ZERO keeps the room. A file system that cannot is told by -EOPNOTSUPP. */
static int falloc_mode(const struct volume_io *io)
{
	return io->kind == VOLUME_IO_ZERO ? FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
					  : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
}

static int write_zeroes(struct request *r)
{
	static const char zeroes[64 << 10] __attribute__((aligned(VOLUME_SECTOR_BYTES))); /* for O_DIRECT */
	struct volume_io *io = r->io;

	for (uint64_t at = 0; at < io->length;) {
		size_t n = io->length - at < sizeof zeroes ? (size_t)(io->length - at) : sizeof zeroes;
		ssize_t done = pwrite(r->fd, zeroes, n, (off_t)(io->offset + at));

		if (done <= 0 && errno != EINTR)
			return -errno;
		at += done > 0 ? (uint64_t)done : 0;
	}
	return 0;
}

/* Nothing was ever written there: it need not be read. */
static bool is_hole(const struct request *r)
{
	off_t data = lseek(r->fd, (off_t)r->io->offset, SEEK_DATA);

	return data < 0 ? errno == ENXIO : (uint64_t)data >= r->io->offset + r->io->length;
}

static int do_hash(struct request *r)
{
	char block[64 << 10] __attribute__((aligned(VOLUME_SECTOR_BYTES)));
	struct volume_io *io = r->io;
	gnutls_hash_hd_t h;
	uint64_t at = 0;
	int rc = gnutls_hash_init(&h, GNUTLS_DIG_SHA256) < 0 ? -ENOMEM : 0;
	bool hole = is_hole(r);

	if (hole)
		memset(block, 0, sizeof block);
	while (rc == 0 && at < io->length) {
		size_t n = io->length - at < sizeof block ? (size_t)(io->length - at) : sizeof block;
		ssize_t got = hole ? (ssize_t)n : pread(r->fd, block, n, (off_t)(io->offset + at));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			rc = got < 0 ? -errno : -EIO;
		else
			(void)gnutls_hash(h, block, (size_t)got);
		at += got > 0 ? (uint64_t)got : 0;
	}
	if (rc != -ENOMEM)
		gnutls_hash_deinit(h, io->hash);
	return rc;
}

static int do_it(struct request *r)
{
	struct volume_io *io = r->io;

	switch (io->kind) {
	case VOLUME_IO_READ:
	case VOLUME_IO_WRITE:
		return do_all(r);
	case VOLUME_IO_SYNC:
		return fdatasync(r->fd) < 0 ? -errno : 0;
	case VOLUME_IO_HASH:
		return do_hash(r);
	default:
		if (fallocate(r->fd, falloc_mode(io), (off_t)io->offset, (off_t)io->length) == 0)
			return 0;
		return errno == EOPNOTSUPP ? write_zeroes(r) : -errno;
	}
}

static void over(struct request *r, int rc)
{
	struct disk_io *d = r->d;
	disk_io_done done = r->done;
	struct volume_io *io = r->io;
	void *ctx = r->ctx;

	r->next = d->free;
	d->free = r;
	d->under_way--;
	done(ctx, io, rc);
}

static void work_cb(uv_work_t *work)
{
	struct request *r = work->data;

	r->rc = do_it(r);
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
		(*end)->rc = do_all(*end);
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

static void write_buffered(struct request *r)
{
	struct disk_io *d = r->d;
	usec_t began = clock_boottime(), now;

	if (began < d->slow_until) {
		push(r, &d->turn_end);
		return;
	}
	r->rc = do_all(r);
	push(r, &d->done_end);
	if (r->io->hurries && r->rc == 0)
		d->hurry = (struct hurry){r->fd, r->io->offset, r->io->length};
	now = clock_boottime();
	if (now - began > SLOW)
		d->slow_until = now + SLOW_WHILE;
}

/* Whoever waits for the write has been told; while they make up their mind to flush it, it can go to the disk. */
static void send_on_its_way(struct disk_io *d)
{
	struct hurry h = d->hurry;
	usec_t began, now;

	if (h.fd < 0)
		return;
	d->hurry.fd = -1;
	began = clock_boottime();
	if (began < d->slow_until)
		return;
	(void)sync_file_range(h.fd, (off_t)h.offset, (off_t)h.length, SYNC_FILE_RANGE_WRITE);
	now = clock_boottime();
	if (now - began > SLOW)
		d->slow_until = now + SLOW_WHILE;
}

/* Returns how many. */
static unsigned tell(struct request *r)
{
	struct request *next;
	unsigned n = 0;

	for (; r; r = next, n++) {
		next = r->next;
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
		io_uring_prep_fallocate(sqe, r->fd, falloc_mode(io), (off_t)io->offset, (off_t)io->length);
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
	unsigned n = 0;

	while (io_uring_peek_cqe(&d->ring, &cqe) == 0) {
		struct request *r = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&d->ring, cqe);
		completed(r, res);
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
		send_on_its_way(d);
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
	d->hurry.fd = -1;
	d->waiting_end = &d->waiting;
	d->done_end = &d->done;
	d->turn_end = &d->turn;
	d->writes_end = &d->writes;
	d->written_end = &d->written;
	d->uring = mode != DISK_IO_THREADS && ring_open(d);
	if (d->uring) {
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

void disk_io_begin(struct disk_io *d, int fd, struct volume_io *io, disk_io_done done, void *ctx)
{
	struct request *r = d->free;

	if (r)
		d->free = r->next;
	else
		r = xcalloc(1, sizeof *r);
	*r = (struct request){.d = d, .fd = fd, .io = io, .done = done, .ctx = ctx};
	d->under_way++;
	if (d->uring && d->mode == DISK_IO_BUFFERED && io->kind == VOLUME_IO_WRITE && io->is_copy)
		push(r, &d->turn_end); /* it waits for the disk */
	else if (d->uring && d->mode == DISK_IO_BUFFERED && io->kind == VOLUME_IO_WRITE)
		write_buffered(r);
	else if (d->uring && io->kind != VOLUME_IO_HASH)
		enqueue(d, r);
	else
		by_thread(r);
}
