/* SPDX-License-Identifier: Apache-2.0
 * The record layer of a TLS 1.2 session with AES-GCM (RFC 5246, section 6; RFC 5288) on keys that a handshake elsewhere
 * has made: plain bytes in, records out, and back. It sees no socket.
 *
 * One session belongs to one thread at a time. Reading that failed stays failed: every later call returns the same.
 */
#ifndef KEDGE_VOLUME_RECORD_H
#define KEDGE_VOLUME_RECORD_H

#include "base/base.h"

struct bulk_handover;
struct iovec;
struct record;

#define RECORD_PLAIN_BYTES_MAX    16384u /* in one record */
#define RECORD_OVERHEAD_BYTES     29u    /* header, explicit nonce, tag */
#define RECORD_RECORDS_MAX        (1ULL << 32)
#define RECORD_SESSION_BYTES_MAX  (256ULL << 30) /* in one direction under one key */
#define RECORD_SESSION_BYTES_SOON (RECORD_SESSION_BYTES_MAX / 4 * 3)

/* [any] A session on the keys in @h, which the caller then wipes. Bytes in h->early are not fed: the caller gives them
 * to record_open() first. -EPROTO: @h is not one (magic, version, a value out of range). -ENOTSUP: GnuTLS refuses. */
int record_new(const struct bulk_handover *h, struct record **ret, struct err *e) KEDGE_MUST_CHECK;

/* [any] Wipe the keys and free. NULL is allowed; returns NULL. */
struct record *record_free(struct record *r);

/* [any] How many bytes record_seal() appends for @n plain ones. */
size_t record_sealed_bytes(size_t n);

/* [any] Append the bytes of @v, in order and seen as one string, to @ret as records, all but the last of them full.
 * Bytes that lie together in one iovec for a whole record are not copied. Nothing to seal appends nothing.
 * -EOVERFLOW: a limit of the session would be passed; -EPIPE: after close_notify; @ret is as it was. */
int record_seal(struct record *r, const struct iovec *v, int n_v, struct buf *ret) KEDGE_MUST_CHECK;

/* [any] Feed @n bytes as they came from the peer, cut anywhere; the plain bytes of every record that is complete are
 * appended to @ret. What is left of a record is kept inside. Returns how many plain bytes were appended.
 * -EBADMSG: a record was forged, replayed, out of order, too short or too long, or is neither application data nor
 * close_notify: close the link. -ESHUTDOWN: close_notify. -EOVERFLOW: the peer passed a limit of the session.
 * With an error, too, @ret has got the plain bytes of the records before the one that caused it; they are authentic. */
long record_open(struct record *r, const uint8_t *p, size_t n, struct buf *ret) KEDGE_MUST_CHECK;

/* [any] The same, but for no more than one record: what follows may belong elsewhere. @ret_used: of @p, 0 with an
 * error. A whole record has at most RECORD_PLAIN_BYTES_MAX plain bytes. */
long record_open_one(struct record *r, const uint8_t *p, size_t n, size_t *ret_used, struct buf *ret) KEDGE_MUST_CHECK;

/* [any] Append the record that says that nothing more will be sent. Errors as of record_seal(). */
int record_close_notify(struct record *r, struct buf *ret) KEDGE_MUST_CHECK;

/* [any] Is either direction near a limit, so that the next link should be made now? */
bool record_is_worn(const struct record *r);

/* [any] Lower the limit of bytes in each direction to @bytes, worn at three quarters of it: for tests of links that
 * are made anew. */
void record_set_limit(struct record *r, uint64_t bytes);

#endif
