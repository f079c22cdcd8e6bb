/* SPDX-License-Identifier: Apache-2.0
 * The record layer of a TLS 1.2 session with AES-GCM, by GnuTLS's AEAD functions. */
#include "volume/record.h"

#include "proto/proto.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define HEAD_BYTES      5u
#define SALT_BYTES      4u
#define NONCE_BYTES     8u /* the part that is sent */
#define TAG_BYTES       16u
#define AAD_BYTES       13u
#define BODY_BYTES_MAX  (NONCE_BYTES + RECORD_PLAIN_BYTES_MAX + TAG_BYTES)
#define VERSION_TLS12   0x0303u
#define ALERT_BYTES     2u
#define LEVEL_WARNING   1
#define NOTIFY_OF_CLOSE 0

_Static_assert(RECORD_OVERHEAD_BYTES == HEAD_BYTES + NONCE_BYTES + TAG_BYTES, "see record.h");

enum { TYPE_ALERT = 21, TYPE_DATA = 23 };

struct side {
	gnutls_aead_cipher_hd_t aead;
	uint8_t salt[SALT_BYTES];
	uint64_t seq;
	uint64_t bytes; /* plain, since the handshake */
};

struct record {
	struct side out;
	struct side in;
	uint64_t limit; /* of bytes of a side */
	bool out_closed;
	int in_failed; /* what every later record_open() returns */
	size_t n_part;
	uint8_t part[HEAD_BYTES + BODY_BYTES_MAX]; /* the start of a record whose rest has not come */
};

/* ---- life ---- */

static int check_handover(const struct bulk_handover *h, struct err *e)
{
	if (h->magic != BULK_MAGIC || h->version != BULK_VERSION)
		return err_set(e, -EPROTO, "hand-over of a link: not one of version %u", BULK_VERSION);
	if (h->peer < 1 || h->peer > NODES_MAX)
		return err_set(e, -EPROTO, "hand-over of a link: no node %u", h->peer);
	if (h->cipher != BULK_AES_128_GCM && h->cipher != BULK_AES_256_GCM)
		return err_set(e, -EPROTO, "hand-over of a link: unknown cipher %u", h->cipher);
	if (h->is_client > 1 || h->n_early > BULK_EARLY_BYTES_MAX || h->write_seq >= RECORD_RECORDS_MAX ||
	    h->read_seq >= RECORD_RECORDS_MAX)
		return err_set(e, -EPROTO, "hand-over of a link: a value is out of range");
	return 0;
}

static int side_init(struct side *s, const struct bulk_handover *h, const uint8_t *key, const uint8_t *salt,
		     uint64_t seq, struct err *e)
{
	bool is_long = h->cipher == BULK_AES_256_GCM;
	const gnutls_datum_t datum = {(uint8_t *)key, is_long ? 32 : 16};
	int rc = gnutls_aead_cipher_init(&s->aead, is_long ? GNUTLS_CIPHER_AES_256_GCM : GNUTLS_CIPHER_AES_128_GCM,
					 &datum);

	if (rc < 0) {
		s->aead = NULL;
		return err_set(e, -ENOTSUP, "set up AES-GCM: %s", gnutls_strerror(rc));
	}
	memcpy(s->salt, salt, sizeof s->salt);
	s->seq = seq;
	return 0;
}

int record_new(const struct bulk_handover *h, struct record **ret, struct err *e)
{
	struct record *r;
	int rc = check_handover(h, e);

	if (rc < 0)
		return rc;
	r = xcalloc(1, sizeof *r);
	r->limit = RECORD_SESSION_BYTES_MAX;
	rc = side_init(&r->out, h, h->write_key, h->write_iv, h->write_seq, e);
	if (rc == 0)
		rc = side_init(&r->in, h, h->read_key, h->read_iv, h->read_seq, e);
	if (rc < 0) {
		r = record_free(r);
		return rc;
	}
	*ret = r;
	return 0;
}

struct record *record_free(struct record *r)
{
	if (!r)
		return NULL;
	if (r->out.aead)
		gnutls_aead_cipher_deinit(r->out.aead);
	if (r->in.aead)
		gnutls_aead_cipher_deinit(r->in.aead);
	explicit_bzero(r, offsetof(struct record, part));
	free(r);
	return NULL;
}

static bool side_is_worn(const struct side *s, uint64_t limit)
{
	return s->bytes >= limit / 4 * 3 || s->seq >= RECORD_RECORDS_MAX / 4 * 3;
}

bool record_is_worn(const struct record *r)
{
	return side_is_worn(&r->out, r->limit) || side_is_worn(&r->in, r->limit);
}

void record_set_limit(struct record *r, uint64_t bytes)
{
	CHECK(bytes <= RECORD_SESSION_BYTES_MAX);
	r->limit = bytes;
}

/* ---- what is protected, and how ---- */

static void put_u64(uint8_t *to, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		to[i] = (uint8_t)(v >> (56 - 8 * i));
}

/* RFC 5246, 6.2.3.3: the number of the record is never sent, so one that was replayed, dropped or moved fails. */
static void make_aad(uint64_t seq, uint8_t type, size_t n, uint8_t ret[AAD_BYTES])
{
	put_u64(ret, seq);
	ret[8] = type;
	ret[9] = VERSION_TLS12 >> 8;
	ret[10] = VERSION_TLS12 & 0xff;
	ret[11] = (uint8_t)(n >> 8);
	ret[12] = (uint8_t)n;
}

static void make_nonce(const struct side *s, const uint8_t *sent, uint8_t ret[SALT_BYTES + NONCE_BYTES])
{
	memcpy(ret, s->salt, SALT_BYTES);
	memcpy(ret + SALT_BYTES, sent, NONCE_BYTES);
}

/* ---- sealing ---- */

size_t record_sealed_bytes(size_t n)
{
	size_t records = (n + RECORD_PLAIN_BYTES_MAX - 1) / RECORD_PLAIN_BYTES_MAX;

	return n + records * RECORD_OVERHEAD_BYTES;
}

/* Make one record of @n bytes of @plain, which may lie where they belong in @to already. The nonce is the record's
 * number: no two records have the same, and mbedTLS has used 0 so for the record of the handshake's end. */
static void seal_one(struct side *s, uint8_t type, const uint8_t *plain, size_t n, uint8_t *to)
{
	uint8_t aad[AAD_BYTES], nonce[SALT_BYTES + NONCE_BYTES];
	size_t body = NONCE_BYTES + n + TAG_BYTES, n_sealed = n + TAG_BYTES;

	CHECK(n <= RECORD_PLAIN_BYTES_MAX && s->seq < RECORD_RECORDS_MAX);
	to[0] = type;
	to[1] = VERSION_TLS12 >> 8;
	to[2] = VERSION_TLS12 & 0xff;
	to[3] = (uint8_t)(body >> 8);
	to[4] = (uint8_t)body;
	put_u64(to + HEAD_BYTES, s->seq);
	make_aad(s->seq, type, n, aad);
	make_nonce(s, to + HEAD_BYTES, nonce);
	CHECK(gnutls_aead_cipher_encrypt(s->aead, nonce, sizeof nonce, aad, sizeof aad, TAG_BYTES, plain, n,
					 to + HEAD_BYTES + NONCE_BYTES, &n_sealed) == 0);
	CHECK(n_sealed == n + TAG_BYTES);
	s->seq++;
	s->bytes += n;
}

/* Where the next byte is taken from. */
struct cursor {
	const struct iovec *v;
	size_t at;
};

/* The next @n bytes: where they are if they lie together, else gathered at @room. */
static const uint8_t *take(struct cursor *c, size_t n, uint8_t *room)
{
	size_t got = 0;

	while (c->at == c->v->iov_len) {
		c->v++;
		c->at = 0;
	}
	if (c->v->iov_len - c->at >= n) {
		c->at += n;
		return (const uint8_t *)c->v->iov_base + c->at - n;
	}
	while (got < n) {
		size_t piece = c->v->iov_len - c->at;

		if (piece > n - got)
			piece = n - got;
		if (piece > 0)
			memcpy(room + got, (const uint8_t *)c->v->iov_base + c->at, piece);
		got += piece;
		c->at += piece;
		if (got < n) {
			c->v++;
			c->at = 0;
		}
	}
	return room;
}

static int may_seal(const struct record *r, size_t n)
{
	uint64_t records = (n + RECORD_PLAIN_BYTES_MAX - 1) / RECORD_PLAIN_BYTES_MAX;

	if (r->out_closed)
		return -EPIPE;
	/* The last record is close_notify's. */
	if (records >= RECORD_RECORDS_MAX - r->out.seq || n > r->limit || r->out.bytes > r->limit - n)
		return -EOVERFLOW;
	return 0;
}

int record_seal(struct record *r, const struct iovec *v, int n_v, struct buf *ret)
{
	struct cursor c = {v, 0};
	size_t total = 0;
	uint8_t *to;
	int rc;

	for (int i = 0; i < n_v; i++)
		total += v[i].iov_len;
	rc = may_seal(r, total);
	if (rc < 0)
		return rc;
	to = buf_reserve(ret, record_sealed_bytes(total));
	while (total > 0) {
		size_t n = total < RECORD_PLAIN_BYTES_MAX ? total : RECORD_PLAIN_BYTES_MAX;

		seal_one(&r->out, TYPE_DATA, take(&c, n, to + HEAD_BYTES + NONCE_BYTES), n, to);
		to += RECORD_OVERHEAD_BYTES + n;
		ret->len += RECORD_OVERHEAD_BYTES + n;
		total -= n;
	}
	return 0;
}

int record_close_notify(struct record *r, struct buf *ret)
{
	static const uint8_t alert[ALERT_BYTES] = {LEVEL_WARNING, NOTIFY_OF_CLOSE};

	if (r->out_closed)
		return -EPIPE;
	if (r->out.seq >= RECORD_RECORDS_MAX)
		return -EOVERFLOW;
	seal_one(&r->out, TYPE_ALERT, alert, sizeof alert, buf_reserve(ret, RECORD_OVERHEAD_BYTES + sizeof alert));
	ret->len += RECORD_OVERHEAD_BYTES + sizeof alert;
	r->out_closed = true;
	return 0;
}

/* ---- opening ---- */

/* Look at the head of a record before anything is believed or kept. The length of its body. */
static int parse_head(const uint8_t head[HEAD_BYTES], size_t *ret_body)
{
	size_t body = (size_t)head[3] << 8 | head[4];

	if (head[0] != TYPE_DATA && head[0] != TYPE_ALERT)
		return -EBADMSG;
	if (head[1] != VERSION_TLS12 >> 8 || head[2] != (VERSION_TLS12 & 0xff))
		return -EBADMSG;
	if (body < NONCE_BYTES + TAG_BYTES || body > BODY_BYTES_MAX)
		return -EBADMSG;
	*ret_body = body;
	return 0;
}

/* Verify and decrypt a whole record of @n plain bytes into @to, which has room for them. */
static int decrypt(struct side *s, const uint8_t *record, size_t n, uint8_t *to)
{
	const uint8_t *body = record + HEAD_BYTES;
	uint8_t aad[AAD_BYTES], nonce[SALT_BYTES + NONCE_BYTES];
	size_t n_plain = n;

	make_aad(s->seq, record[0], n, aad);
	make_nonce(s, body, nonce);
	if (gnutls_aead_cipher_decrypt(s->aead, nonce, sizeof nonce, aad, sizeof aad, TAG_BYTES, body + NONCE_BYTES,
				       n + TAG_BYTES, to, &n_plain) != 0)
		return -EBADMSG;
	CHECK(n_plain == n);
	s->seq++;
	s->bytes += n;
	return 0;
}

static int open_alert(struct side *s, const uint8_t *record, size_t n)
{
	uint8_t alert[ALERT_BYTES];

	if (n != sizeof alert || decrypt(s, record, n, alert) < 0)
		return -EBADMSG;
	return alert[1] == NOTIFY_OF_CLOSE ? -ESHUTDOWN : -EBADMSG;
}

static int open_one(struct record *r, const uint8_t *record, size_t body, struct buf *ret)
{
	size_t n = body - NONCE_BYTES - TAG_BYTES;
	struct side *s = &r->in;
	int rc;

	if (s->seq >= RECORD_RECORDS_MAX)
		return -EOVERFLOW;
	if (record[0] == TYPE_ALERT)
		return open_alert(s, record, n);
	if (n > r->limit || s->bytes > r->limit - n)
		return -EOVERFLOW;
	rc = decrypt(s, record, n, buf_reserve(ret, n + 1)); /* never NULL, even for an empty record */
	if (rc == 0)
		ret->len += n;
	return rc;
}

/* Add some of @p to the part of a record that is there, and open it once it is whole. */
static int add_part(struct record *r, const uint8_t *p, size_t n, size_t *ret_used, struct buf *ret)
{
	size_t body = 0, want = HEAD_BYTES;
	int rc;

	if (r->n_part >= HEAD_BYTES) {
		rc = parse_head(r->part, &body);
		CHECK(rc == 0); /* it was looked at when it was whole */
		want += body;
	}
	*ret_used = n < want - r->n_part ? n : want - r->n_part;
	memcpy(r->part + r->n_part, p, *ret_used);
	r->n_part += *ret_used;
	if (r->n_part < want)
		return 0;
	if (body == 0)
		return parse_head(r->part, &body);
	r->n_part = 0;
	return open_one(r, r->part, body, ret);
}

/* Take the record, or the part of one, that @p begins with. */
static int open_next(struct record *r, const uint8_t *p, size_t n, size_t *ret_used, struct buf *ret)
{
	size_t body;
	int rc;

	if (r->n_part > 0 || n < HEAD_BYTES)
		return add_part(r, p, n, ret_used, ret);
	rc = parse_head(p, &body);
	if (rc < 0)
		return rc;
	if (n < HEAD_BYTES + body)
		return add_part(r, p, n, ret_used, ret);
	*ret_used = HEAD_BYTES + body;
	return open_one(r, p, body, ret);
}

long record_open_one(struct record *r, const uint8_t *p, size_t n, size_t *ret_used, struct buf *ret)
{
	size_t before = ret->len, used = 0;

	*ret_used = 0;
	if (n > 0 && r->in_failed == 0)
		r->in_failed = open_next(r, p, n, &used, ret);
	if (r->in_failed < 0)
		return r->in_failed;
	*ret_used = used;
	return (long)(ret->len - before);
}

long record_open(struct record *r, const uint8_t *p, size_t n, struct buf *ret)
{
	size_t before = ret->len, used;

	while (n > 0 && record_open_one(r, p, n, &used, ret) >= 0) {
		p += used;
		n -= used;
	}
	return r->in_failed < 0 ? r->in_failed : (long)(ret->len - before);
}
