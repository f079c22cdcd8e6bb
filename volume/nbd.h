/* SPDX-License-Identifier: Apache-2.0
 * The NBD server: guests' disks over a Unix socket, fixed newstyle, the export's name is the volume's.
 *
 * It runs on the caller's loop and has no thread; nothing in it blocks. Whatever a client asks for, of any alignment,
 * becomes requests of whole sectors with a private, page-aligned buffer (V6) that the engine gets by submit().
 *
 * What it promises about connections (V29, V32):
 * - a connection that ends is told to the engine once, by gone(), and before any request of a connection to the same
 *   volume that was opened later: what a client sends again never runs before, or beside, what dies here;
 * - what it had not yet submitted then never runs. After NBD_CMD_DISC what was submitted before it still ends;
 * - nothing is ever answered with ESHUTDOWN. Where there is no answer the connection ends without a word.
 *
 * Unaligned writes: two of them, or one and an aligned write, that touch the same sectors of a volume follow each other
 * in the order in which their payload was complete, over all connections; each begins after the one before came back
 * from the engine. Aligned writes among themselves are left to the engine. So the edge sectors that an unaligned write
 * has read are still the same when it writes them merged, and no update is lost.
 *
 * Everything is [loop]. The server acts once per turn of the loop, before and after it waits: the calls below only take
 * note, so each of them may be called from inside a callback.
 */
#ifndef KEDGE_VOLUME_NBD_H
#define KEDGE_VOLUME_NBD_H

#include "volume/core.h"

#define NBD_PAYLOAD_MAX (32u << 20) /* bytes in a READ or WRITE of a client; the engine gets at most a sector more */

struct uv_loop_s;
struct nbd_server;

/* ---- what the engine sees of a request ---- */

/* From submit() or extents() until it comes back by exactly one of nbd_request_done(), nbd_request_dropped() and
 * nbd_extent_done(). @req is the engine's meanwhile: offset and length are whole sectors within the size, @req.data is
 * page-aligned, and stays as it is although the connection ends. */
struct nbd_request {
	struct volume_request req;
	void *volume; /* of its export */
};

/* What the engine says of an export. @volume stays valid until nbd_server_drop() and the gone() that follows for each
 * of its connections, and until all its requests came back. */
struct nbd_export {
	void *volume;   /* the engine's own, not NULL */
	uint64_t size;  /* whole sectors */
	bool read_only; /* its writes are refused here with EPERM */
	uint32_t epoch; /* put into each of its requests (V32) */
};

struct nbd_callbacks {
	void *ctx;
	/* Which export is @name? Asked for each look, so nothing begins by it; a connection has begun when its first
	 * request comes. 0; -ENOENT: there is none (the client is told so); anything else, as -EAGAIN: there may be
	 * one, but this node does not serve it now, and the connection ends without a word (V29, V32). */
	int (*open)(void *ctx, const char *name, struct nbd_export *ret);
	/* The name of export number @i, from 0; false behind the last. */
	bool (*list)(void *ctx, size_t i, char ret[NAME_BYTES_MAX]);
	/* READ, WRITE, ZERO, TRIM or FLUSH, in the order in which the connection sent them (an unaligned write, and
	 * what must wait for one, later). May come back at once, from inside. */
	void (*submit)(void *ctx, struct nbd_request *r);
	/* The connection @client ended: what the engine has of it in a queue dies (V32). Called once, and always, for
	 * each connection that had an export. What is still out comes back later; its buffers stay until then. */
	void (*gone)(void *ctx, void *volume, uint64_t client);
	/* Is the range of @r from its offset on data or hole, and for how many bytes is that so? Answer by
	 * nbd_extent_done(), now or later. @r->req.kind means nothing here. */
	void (*extents)(void *ctx, struct nbd_request *r);
	/* May clients of @volume still be answered? Asked before each call that sends answers, however long ago they
	 * were ready: false ends the connection without a word (L23). NULL: always. */
	bool (*may_answer)(void *ctx, void *volume);
};

/* What clients can take up. Bytes are those of buffers: a read's from its request, a write's from its head on, until
 * the answer is in the socket. A connection that is at a limit is not read from until it is below. */
struct nbd_limits {
	unsigned connections;      /* one more is closed at once */
	unsigned requests;         /* of one connection */
	uint64_t connection_bytes; /* of one connection; at least NBD_PAYLOAD_MAX and 4 sectors */
	uint64_t own_bytes;        /* of each connection, not counted into @shared_bytes: so that those who do not read
				    * their answers, or whose volume is blocked, cannot starve the others */
	uint64_t shared_bytes;     /* of all together, above that; at least NBD_PAYLOAD_MAX and 4 sectors */
	usec_t handshake;          /* from accept to the beginning of transmission */
	usec_t stall;              /* without reading its answers, while others wait for shared bytes, or after DISC */
	unsigned mode;             /* permissions of the socket */
};

/* 256 connections, 128 requests and 64 MiB for each, 1 MiB own, 256 MiB shared, 10 s, 10 s, 0600. */
extern const struct nbd_limits nbd_limits_default;

/* ---- the server ---- */

/* [loop] Listen on @path, over what an earlier process left there. @callbacks is copied; @limits too, NULL for the
 * default. -ENAMETOOLONG: the path is too long for a socket. -EINVAL: limits that let some request never begin. Or the
 * errno of socket, bind or listen. */
int nbd_server_new(struct uv_loop_s *loop, const char *path, const struct nbd_callbacks *callbacks,
		   const struct nbd_limits *limits, struct nbd_server **ret, struct err *e) KEDGE_MUST_CHECK;

/* [loop] End everything: no new connection, all others end without a word, with gone(). @cb comes from the loop once
 * each request came back and every handle is closed; @s is freed before it. */
void nbd_server_close(struct nbd_server *s, void (*cb)(void *ctx), void *ctx);

/* [loop] End all connections of @volume at once, without a word; gone() for each follows. */
void nbd_server_drop(struct nbd_server *s, void *volume);

/* [loop] @r is over: 0 or a negative errno, which the client gets as the NBD error that is nearest, EIO if none is. */
void nbd_request_done(struct nbd_request *r, int rc);

/* [loop] @r comes back without an answer: its connection ends, if it still stands. */
void nbd_request_dropped(struct nbd_request *r);

/* [loop] The answer to extents(): from the offset of @r on, @length bytes (> 0, whole sectors; more than was asked for
 * is cut) are @hole, which reads as zeroes, or data. @rc < 0: not known, the client gets the error. */
void nbd_extent_done(struct nbd_request *r, int rc, bool hole, uint64_t length);

/* ---- asking ---- */

struct nbd_status {
	unsigned connections;  /* open now */
	unsigned lingering;    /* ended, but some request did not come back yet */
	unsigned waiting;      /* at a limit, not read from */
	unsigned requests;     /* of all connections */
	uint64_t bytes;        /* in their buffers */
	uint64_t shared_bytes; /* of these, what counts against the shared limit */
	uint64_t accepted;     /* so far */
	uint64_t refused;      /* closed at once: too many */
	uint64_t expired;      /* ended for a deadline */
};

/* [loop] */
void nbd_server_status(const struct nbd_server *s, struct nbd_status *ret);

/* [loop] Is there anything left that knows @volume: connections, open or ended, or their requests? */
bool nbd_server_uses(const struct nbd_server *s, const void *volume);

/* [loop] How many open connections has @volume? */
unsigned nbd_server_clients(const struct nbd_server *s, const void *volume);

#endif
