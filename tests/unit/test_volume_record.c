/* SPDX-License-Identifier: Apache-2.0
 * The record layer against itself and against whoever sits on the wire: what is sealed comes out, and nothing else
 * ever does. That the bytes are TLS 1.2 is shown by test_net_bulk.py, with another implementation at the other end. */
#include "proto/proto.h"
#include "volume/record.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include <cmocka.h>

#define NONE 99 /* of the types of records */

static struct bulk_handover keys(bool is_client, enum bulk_cipher cipher)
{
	struct bulk_handover h = {0};

	h.magic = BULK_MAGIC;
	h.version = BULK_VERSION;
	h.peer = 2;
	h.cipher = cipher;
	h.is_client = is_client;
	h.write_seq = h.read_seq = 1;
	memset(h.write_key, is_client ? 0x11 : 0x22, sizeof h.write_key);
	memset(h.read_key, is_client ? 0x22 : 0x11, sizeof h.read_key);
	memset(h.write_iv, is_client ? 0x33 : 0x44, sizeof h.write_iv);
	memset(h.read_iv, is_client ? 0x44 : 0x33, sizeof h.read_iv);
	return h;
}

static struct record *session(const struct bulk_handover *h)
{
	struct record *r = NULL;
	struct err e = {0};

	if (record_new(h, &r, &e) < 0)
		fail_msg("%s", e.text);
	return r;
}

static struct record *end(bool is_client)
{
	struct bulk_handover h = keys(is_client, BULK_AES_128_GCM);

	return session(&h);
}

static void seal(struct record *r, const void *p, size_t n, struct buf *ret)
{
	const struct iovec v = {(void *)p, n};

	assert_int_equal(record_seal(r, &v, 1, ret), 0);
}

/* What one new reader makes of @wire. */
static long read_anew(const struct buf *wire, struct buf *ret)
{
	struct record *r = end(false);
	long rc = record_open(r, wire->data, wire->len, ret);

	r = record_free(r);
	return rc;
}

static void refused(const struct buf *wire, size_t n_plain)
{
	struct buf plain = {0};

	assert_int_equal(read_anew(wire, &plain), -EBADMSG);
	assert_int_equal(plain.len, n_plain);
	buf_free(&plain);
}

/* A record as an authenticated peer could make it, whatever it says of itself. */
static void forge(uint64_t seq, uint8_t type, const void *p, size_t n, struct buf *ret)
{
	struct bulk_handover h = keys(true, BULK_AES_128_GCM);
	const gnutls_datum_t key = {h.write_key, 16};
	uint8_t aad[13] = {0}, nonce[12], *to = buf_reserve(ret, n + RECORD_OVERHEAD_BYTES);
	size_t sealed = n + 16;
	gnutls_aead_cipher_hd_t aead;

	for (int i = 0; i < 8; i++)
		aad[i] = (uint8_t)(seq >> (56 - 8 * i));
	memcpy(aad + 8, (uint8_t[]){type, 3, 3, (uint8_t)(n >> 8), (uint8_t)n}, 5);
	memcpy(to, (uint8_t[]){type, 3, 3, (uint8_t)((n + 24) >> 8), (uint8_t)(n + 24)}, 5);
	random_bytes(to + 5, 8); /* any nonce is right */
	memcpy(nonce, h.write_iv, 4);
	memcpy(nonce + 4, to + 5, 8);
	assert_int_equal(gnutls_aead_cipher_init(&aead, GNUTLS_CIPHER_AES_128_GCM, &key), 0);
	assert_int_equal(
		gnutls_aead_cipher_encrypt(aead, nonce, sizeof nonce, aad, sizeof aad, 16, p, n, to + 13, &sealed), 0);
	gnutls_aead_cipher_deinit(aead);
	ret->len += sealed + 13;
}

/* ---- what goes in comes out ---- */

/* Feed @wire in pieces of @piece bytes, 0: of random lengths. */
static void feed(struct record *r, const struct buf *wire, size_t piece, struct buf *ret)
{
	size_t at = 0, got = 0;

	while (at < wire->len) {
		size_t n = piece ? piece : 1 + random_u64() % 20000;
		long rc;

		n = n < wire->len - at ? n : wire->len - at;
		rc = record_open(r, wire->data + at, n, ret);
		assert_true(rc >= 0);
		got += (size_t)rc;
		at += n;
	}
	assert_int_equal(got, ret->len);
}

/* @n bytes in three iovecs, one of them empty, the first of @first bytes. */
static void round_trip(enum bulk_cipher cipher, size_t n, size_t first, size_t piece)
{
	struct bulk_handover h = keys(true, cipher), g = keys(false, cipher);
	struct record *a = session(&h), *b = session(&g);
	uint8_t *data = xcalloc(1, n + 1);
	const struct iovec v[] = {{data, first}, {NULL, 0}, {data + first, n - first}};
	struct buf wire = {0}, plain = {0};

	random_bytes(data, n);
	for (int i = 0; i < 2; i++) {
		wire.len = plain.len = 0;
		assert_int_equal(record_seal(a, v, 3, &wire), 0);
		assert_int_equal(wire.len, record_sealed_bytes(n));
		feed(b, &wire, piece, &plain);
		assert_int_equal(plain.len, n);
		if (n > 0)
			assert_memory_equal(plain.data, data, n);
	}
	assert_int_equal(record_close_notify(a, &wire), 0);
	assert_int_equal(record_open(b, wire.data + record_sealed_bytes(n), wire.len - record_sealed_bytes(n), &plain),
			 -ESHUTDOWN);
	a = record_free(a);
	b = record_free(b);
	buf_free(&wire);
	buf_free(&plain);
	free(data);
}

static void test_round_trips(void **state)
{
	static const size_t sizes[] = {0, 1, 2, 512, 4096, 16383, 16384, 16385, 32767, 32768, 32769, 65576, 300000};
	static const size_t pieces[] = {0, 13, 16384 + 29, SIZE_MAX};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
			round_trip(BULK_AES_128_GCM, sizes[i], 0, pieces[k]);
			round_trip(BULK_AES_128_GCM, sizes[i], sizes[i] < 40 ? sizes[i] : 40, pieces[k]);
			round_trip(BULK_AES_256_GCM, sizes[i], sizes[i] / 2, pieces[k]);
		}
	round_trip(BULK_AES_128_GCM, 20000, 7, 1);
}

static void test_records_are_full_but_the_last(void **state)
{
	static const uint8_t data[2 * RECORD_PLAIN_BYTES_MAX + 5];
	struct record *a = end(true);
	struct buf wire = {0};
	size_t at = 0, left = sizeof data;

	(void)state;
	seal(a, data, sizeof data, &wire);
	for (uint64_t seq = 1; left > 0; seq++) {
		size_t n = left < RECORD_PLAIN_BYTES_MAX ? left : RECORD_PLAIN_BYTES_MAX;

		assert_memory_equal(wire.data + at, "\x17\x03\x03", 3);
		assert_int_equal((size_t)wire.data[at + 3] << 8 | wire.data[at + 4], n + 24);
		assert_int_equal(wire.data[at + 12], seq); /* the nonce never repeats */
		at += n + RECORD_OVERHEAD_BYTES;
		left -= n;
	}
	assert_int_equal(at, wire.len);
	a = record_free(a);
	buf_free(&wire);
}

/* ---- what a stranger on the wire can do ---- */

static void test_every_flipped_bit_is_refused(void **state)
{
	struct record *a = end(true);
	struct buf wire = {0}, plain = {0};
	long rc;

	(void)state;
	seal(a, "hello, replica", 14, &wire);
	for (size_t i = 0; i < 8 * wire.len; i++) {
		struct record *b = end(false);

		wire.data[i / 8] ^= (uint8_t)(1 << i % 8);
		rc = record_open(b, wire.data, wire.len, &plain);
		/* A head that says that the record is longer: refused as soon as that much is there. */
		if (rc == 0) {
			static const uint8_t more[RECORD_PLAIN_BYTES_MAX + 64];

			assert_true(i / 8 == 3 || i / 8 == 4);
			rc = record_open(b, more, sizeof more, &plain);
		}
		assert_int_equal(rc, -EBADMSG);
		assert_int_equal(plain.len, 0);
		b = record_free(b);
		wire.data[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	assert_int_equal(read_anew(&wire, &plain), 14); /* the control: as it was, it is taken */
	a = record_free(a);
	buf_free(&wire);
	buf_free(&plain);
}

/* Three records of four bytes; @order says which of them arrive. */
static void test_replay_reorder_and_loss(void **state)
{
	static const struct {
		int order[4];
		size_t n_plain;
	} cases[] = {{{0, 0, NONE, 0}, 4}, {{1, 0, NONE, 0}, 0}, {{0, 2, NONE, 0}, 4}, {{0, 1, 1, 2}, 8},
		     {{0, 1, 0, 2}, 8},    {{2, NONE, 0, 0}, 0}, {{1, 1, NONE, 0}, 0}};
	struct record *a = end(true);
	struct buf one[3] = {{0}}, wire = {0};

	(void)state;
	for (int i = 0; i < 3; i++)
		seal(a, "data", 4, &one[i]);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		wire.len = 0;
		for (int k = 0; k < 4 && cases[i].order[k] != NONE; k++)
			buf_append(&wire, one[cases[i].order[k]].data, one[cases[i].order[k]].len);
		refused(&wire, cases[i].n_plain);
	}
	for (int i = 0; i < 3; i++)
		buf_free(&one[i]);
	a = record_free(a);
	buf_free(&wire);
}

/* Cut short, with a length that says so: the tag is then elsewhere. */
static void test_truncation(void **state)
{
	struct record *a = end(true);
	struct buf wire = {0}, cut = {0};

	(void)state;
	seal(a, "hello, replica", 14, &wire);
	for (size_t body = 0; body < wire.len - 5; body++) {
		cut.len = 0;
		buf_append(&cut, wire.data, body + 5);
		cut.data[4] = (uint8_t)body;
		refused(&cut, 0);
	}
	a = record_free(a);
	buf_free(&wire);
	buf_free(&cut);
}

static void test_an_end_does_not_take_its_own_records(void **state)
{
	struct record *a = end(true);
	struct buf wire = {0}, plain = {0};

	(void)state;
	seal(a, "mirror", 6, &wire);
	assert_int_equal(record_open(a, wire.data, wire.len, &plain), -EBADMSG);
	a = record_free(a);
	buf_free(&wire);
	buf_free(&plain);
}

/* Five bytes are enough to refuse a head that never was one of ours. */
static void test_heads(void **state)
{
	static const struct {
		uint8_t head[5];
		long rc;
	} cases[] = {
		{{23, 3, 3, 0x40, 0x18}, 0},        {{23, 3, 3, 0x40, 0x19}, -EBADMSG},
		{{23, 3, 3, 0xff, 0xff}, -EBADMSG}, {{23, 3, 3, 0, 24}, 0},
		{{23, 3, 3, 0, 23}, -EBADMSG},      {{23, 3, 3, 0, 0}, -EBADMSG},
		{{23, 3, 1, 0, 99}, -EBADMSG},      {{23, 3, 4, 0, 99}, -EBADMSG},
		{{23, 2, 3, 0, 99}, -EBADMSG},      {{21, 3, 3, 0, 26}, 0},
		{{20, 3, 3, 0, 25}, -EBADMSG},      {{22, 3, 3, 0, 99}, -EBADMSG},
		{{24, 3, 3, 0, 99}, -EBADMSG},      {{'G', 'E', 'T', ' ', '/'}, -EBADMSG},
	};
	struct buf plain = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		for (size_t cut = 0; cut < 5; cut++) {
			struct record *b = end(false);

			assert_int_equal(record_open(b, cases[i].head, cut, &plain), 0);
			assert_int_equal(record_open(b, cases[i].head + cut, 5 - cut, &plain), cases[i].rc);
			b = record_free(b);
		}
	assert_int_equal(plain.len, 0);
	buf_free(&plain);
}

/* ---- what a peer can do that has the keys ---- */

static void test_empty_and_full_records(void **state)
{
	static uint8_t data[RECORD_PLAIN_BYTES_MAX];
	struct buf wire = {0}, plain = {0};

	(void)state;
	forge(1, 23, "", 0, &wire);
	assert_int_equal(read_anew(&wire, &plain), 0);
	forge(2, 23, "abc", 3, &wire);
	forge(3, 23, "", 0, &wire);
	forge(4, 23, data, sizeof data, &wire);
	assert_int_equal(read_anew(&wire, &plain), 3 + (long)sizeof data);
	assert_memory_equal(plain.data, "abc", 3);
	buf_free(&wire);
	buf_free(&plain);
}

static void test_alerts(void **state)
{
	static const struct {
		const char *alert;
		size_t n;
		long rc;
	} cases[] = {{"\x01\x00", 2, -ESHUTDOWN},
		     {"\x02\x00", 2, -ESHUTDOWN},
		     {"\x02\x14", 2, -EBADMSG},
		     {"\x01\x64", 2, -EBADMSG},
		     {"\x01", 1, -EBADMSG},
		     {"\x01\x00\x01\x00", 4, -EBADMSG},
		     {"", 0, -EBADMSG}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf wire = {0}, plain = {0};
		struct record *b = end(false);

		forge(1, 23, "last words", 10, &wire);
		forge(2, 21, cases[i].alert, cases[i].n, &wire);
		forge(3, 23, "after the end", 13, &wire);
		assert_int_equal(record_open(b, wire.data, wire.len, &plain), cases[i].rc);
		assert_int_equal(plain.len, 10); /* what came before it counts */
		wire.len = 0;
		forge(3, 23, "after the end", 13, &wire);
		assert_int_equal(record_open(b, wire.data, wire.len, &plain), cases[i].rc);
		assert_int_equal(plain.len, 10);
		b = record_free(b);
		buf_free(&wire);
		buf_free(&plain);
	}
}

/* A session in the clear again, or a new handshake: neither is for us. */
static void test_other_types(void **state)
{
	(void)state;
	for (unsigned type = 0; type < 256; type++) {
		struct buf wire = {0};

		forge(1, (uint8_t)type, "x", 1, &wire);
		if (type != 23)
			refused(&wire, 0);
		buf_free(&wire);
	}
}

static void test_nothing_is_sealed_after_the_end(void **state)
{
	const struct iovec v = {(void *)"late", 4};
	struct record *a = end(true);
	struct buf wire = {0};
	size_t len;

	(void)state;
	assert_int_equal(record_close_notify(a, &wire), 0);
	len = wire.len;
	assert_int_equal(record_seal(a, &v, 1, &wire), -EPIPE);
	assert_int_equal(record_close_notify(a, &wire), -EPIPE);
	assert_int_equal(wire.len, len);
	a = record_free(a);
	buf_free(&wire);
}

/* ---- limits ---- */

static void test_the_number_of_records_ends(void **state)
{
	struct bulk_handover h = keys(true, BULK_AES_128_GCM), g = keys(false, BULK_AES_128_GCM);
	const struct iovec two = {xcalloc(1, 20000), 20000}, one = {two.iov_base, 1};
	struct record *a, *b;
	struct buf wire = {0}, plain = {0};

	(void)state;
	h.write_seq = g.read_seq = RECORD_RECORDS_MAX - 2;
	a = session(&h);
	b = session(&g);
	assert_true(record_is_worn(a) && record_is_worn(b));
	assert_int_equal(record_seal(a, &two, 1, &wire), -EOVERFLOW);
	assert_int_equal(wire.len, 0);
	assert_int_equal(record_seal(a, &one, 1, &wire), 0);
	assert_int_equal(record_seal(a, &one, 1, &wire), -EOVERFLOW);
	assert_int_equal(record_close_notify(a, &wire), 0); /* the last number is kept for it */
	assert_int_equal(record_open(b, wire.data, wire.len, &plain), -ESHUTDOWN);
	assert_int_equal(plain.len, 1);
	a = record_free(a);
	b = record_free(b);
	buf_free(&wire);
	buf_free(&plain);
	free(two.iov_base);
}

static void test_a_peer_may_not_pass_a_limit(void **state)
{
	struct bulk_handover g = keys(false, BULK_AES_128_GCM);
	struct record *a = end(true), *b = end(false);
	struct buf wire = {0}, plain = {0};

	(void)state;
	record_set_limit(b, 10);
	seal(a, "12345", 5, &wire);
	seal(a, "67890", 5, &wire);
	seal(a, "!", 1, &wire);
	assert_int_equal(record_open(b, wire.data, wire.len, &plain), -EOVERFLOW);
	assert_int_equal(plain.len, 10);
	b = record_free(b);
	g.read_seq = RECORD_RECORDS_MAX - 1;
	b = session(&g);
	wire.len = plain.len = 0;
	forge(RECORD_RECORDS_MAX - 1, 23, "last", 4, &wire);
	forge(RECORD_RECORDS_MAX, 23, "x", 1, &wire);
	assert_int_equal(record_open(b, wire.data, wire.len, &plain), -EOVERFLOW);
	assert_int_equal(plain.len, 4);
	a = record_free(a);
	b = record_free(b);
	buf_free(&wire);
	buf_free(&plain);
}

static void test_the_number_of_bytes_ends(void **state)
{
	uint8_t *data = xcalloc(1, 100000);
	const struct iovec v = {data, 25000};
	struct record *a = end(true);
	struct buf wire = {0};
	size_t len;

	(void)state;
	record_set_limit(a, 100000);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(record_is_worn(a), i == 3);
		assert_int_equal(record_seal(a, &v, 1, &wire), 0);
	}
	len = wire.len;
	assert_int_equal(record_seal(a, &v, 1, &wire), -EOVERFLOW);
	assert_int_equal(wire.len, len);
	assert_int_equal(record_close_notify(a, &wire), 0);
	a = record_free(a);
	buf_free(&wire);
	free(data);
}

static void test_hand_overs_that_are_none(void **state)
{
	struct bulk_handover good = keys(true, BULK_AES_256_GCM), bad[9];
	struct record *r = NULL;
	struct err e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		bad[i] = good;
	bad[0].magic++;
	bad[1].version++;
	bad[2].peer = 0;
	bad[3].peer = NODES_MAX + 1;
	bad[4].cipher = 3;
	bad[5].is_client = 2;
	bad[6].n_early = BULK_EARLY_BYTES_MAX + 1;
	bad[7].write_seq = RECORD_RECORDS_MAX;
	bad[8].read_seq = UINT64_MAX;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(record_new(&bad[i], &r, &e), -EPROTO);
		assert_null(r);
	}
	assert_int_equal(record_new(&good, &r, &e), 0);
	r = record_free(r);
	assert_null(record_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_records_are_full_but_the_last),
		cmocka_unit_test(test_every_flipped_bit_is_refused),
		cmocka_unit_test(test_replay_reorder_and_loss),
		cmocka_unit_test(test_truncation),
		cmocka_unit_test(test_an_end_does_not_take_its_own_records),
		cmocka_unit_test(test_heads),
		cmocka_unit_test(test_empty_and_full_records),
		cmocka_unit_test(test_alerts),
		cmocka_unit_test(test_other_types),
		cmocka_unit_test(test_nothing_is_sealed_after_the_end),
		cmocka_unit_test(test_the_number_of_records_ends),
		cmocka_unit_test(test_a_peer_may_not_pass_a_limit),
		cmocka_unit_test(test_the_number_of_bytes_ends),
		cmocka_unit_test(test_hand_overs_that_are_none),
	};

	return cmocka_run_group_tests_name("volume_record", tests, NULL, NULL);
}
