/* SPDX-License-Identifier: Apache-2.0
 * Frames as bytes: there and back, cut anywhere, and garbage. */
#include "volume/wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint8_t intents[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static char data[VOLUME_SECTOR_BYTES];

static struct wire_frame frame(enum volume_frame_kind kind)
{
	struct wire_frame w = {.f = {.kind = kind,
				     .ballot = {7, 3},
				     .session = 11,
				     .seq = UINT64_MAX,
				     .offset = 1 << 20,
				     .length = sizeof data,
				     .stamp = {6, 1},
				     .result = kind == VOLUME_F_ACK ? -EIO : 0,
				     .incarnation = 0xfedcba9876543210,
				     .active = {5, 2},
				     .promised = {8, 0},
				     .intents = intents,
				     .data = data},
			       .n_intents = sizeof intents};

	memset(w.volume, 0xab, sizeof w.volume);
	memset(w.f.replica, 0xcd, sizeof w.f.replica);
	memset(w.f.hash, 0xef, sizeof w.f.hash);
	return w;
}

static void bytes_of(const struct wire_frame *w, struct buf *ret)
{
	wire_encode(w, ret);
	if (wire_has_data(&w->f))
		buf_append(ret, w->f.data, w->f.length);
}

static void there_and_back(void **state KEDGE_UNUSED)
{
	for (int kind = VOLUME_F_HELLO; kind <= VOLUME_F_PING; kind++) {
		struct wire_frame w = frame((enum volume_frame_kind)kind), got;
		struct buf b = {0};
		size_t need;

		memset(data, kind, sizeof data);
		bytes_of(&w, &b);
		assert_int_equal(wire_decode(b.data, b.len, &got, &need), b.len);
		assert_int_equal(got.f.kind, kind);
		assert_memory_equal(got.volume, w.volume, sizeof w.volume);
		assert_true(got.f.seq == w.f.seq && got.f.offset == w.f.offset && got.f.session == 11);
		assert_int_equal(volume_ballot_compare(got.f.ballot, w.f.ballot), 0);
		assert_int_equal(got.f.result, w.f.result);
		assert_true(got.f.incarnation == w.f.incarnation);
		if (wire_has_data(&w.f))
			assert_memory_equal(got.f.data, data, sizeof data);
		if (kind == VOLUME_F_WELCOME)
			assert_memory_equal(got.f.intents, intents, sizeof intents);
		buf_free(&b);
	}
}

static void cut_anywhere_it_waits(void **state KEDGE_UNUSED)
{
	struct wire_frame w = frame(VOLUME_F_WRITE), got;
	struct buf b = {0};
	size_t need;

	bytes_of(&w, &b);
	for (size_t n = 0; n < b.len; n++) {
		assert_int_equal(wire_decode(b.data, n, &got, &need), -EAGAIN);
		assert_true(need > n && need <= b.len);
	}
	buf_free(&b);
}

/* Long data may be kept apart from its head, as soon as that is whole. */
static void data_apart_from_its_head(void **state KEDGE_UNUSED)
{
	struct wire_frame w = frame(VOLUME_F_WRITE), got;
	struct buf b = {0};
	uint32_t n_data;
	size_t head;

	wire_encode(&w, &b);
	head = b.len;
	buf_append(&b, data, sizeof data);
	for (size_t n = 0; n <= b.len; n++)
		assert_int_equal(wire_peek(b.data, n, sizeof data, &n_data), n >= head && n < b.len ? head : 0);
	assert_int_equal(wire_peek(b.data, head, sizeof data + 1, &n_data), 0); /* it is not that long */
	assert_int_equal(wire_decode_apart(b.data, head, data, sizeof data, &got), 0);
	assert_true(got.is_given && got.f.data == data && got.f.length == sizeof data && got.f.seq == w.f.seq);
	assert_int_equal(wire_decode_apart(b.data, head, data, sizeof data - 1, &got), -EBADMSG);
	buf_free(&b);
}

static void data_that_does_not_fit_its_kind_is_refused(void **state KEDGE_UNUSED)
{
	struct wire_frame w = frame(VOLUME_F_FLUSH), got;
	struct buf b = {0};
	size_t need;

	wire_encode(&w, &b);
	b.data[7] = 16; /* a FLUSH with data */
	buf_append(&b, data, 16);
	assert_int_equal(wire_decode(b.data, b.len, &got, &need), -EBADMSG);
	b.data[4] = 0x7f; /* more than any frame has */
	assert_int_equal(wire_decode(b.data, b.len, &got, &need), -EBADMSG);
	buf_free(&b);
}

/* xorshift64* (Vigna 2016) */
static uint64_t next_random(uint64_t *x)
{
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return *x * 2685821657736338717ULL;
}

static void garbage_is_survived(void **state KEDGE_UNUSED)
{
	uint64_t x = 7;

	for (int i = 0; i < 200000; i++) {
		struct wire_frame w = frame((enum volume_frame_kind)(1 + next_random(&x) % 14)), got;
		struct buf b = {0};
		uint8_t *exact;
		size_t need, n;

		bytes_of(&w, &b);
		for (unsigned k = (unsigned)(next_random(&x) % 4); k > 0; k--)
			b.data[next_random(&x) % (k == 3        ? b.len
						  : 200 < b.len ? 200
								: b.len)] = (uint8_t)next_random(&x);
		n = next_random(&x) % 3 ? b.len : next_random(&x) % b.len;
		exact = malloc(n + 1); /* so that a byte too many is seen */
		memcpy(exact, b.data, n);
		exact = realloc(exact, n ? n : 1);
		(void)!wire_decode(exact, n, &got, &need);
		free(exact);
		buf_free(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(cut_anywhere_it_waits),
		cmocka_unit_test(data_apart_from_its_head),
		cmocka_unit_test(data_that_does_not_fit_its_kind_is_refused),
		cmocka_unit_test(garbage_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
