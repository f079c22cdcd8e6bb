/* SPDX-License-Identifier: Apache-2.0
 * The pages of a replica: what goes in comes out, and nothing that is changed, torn or misplaced is believed. */
#include "volume/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SECTOR  512
#define EXTENTS (VOLUME_PAGE_EXTENTS + 100) /* so that the second page of intents is full in part */

static const uint8_t me[VOLUME_ID_BYTES] = "replica-of-test", other[VOLUME_ID_BYTES] = "another-replica";

/* What any of the decoders gave. */
struct content {
	struct volume_super super;
	struct volume_state state;
	uint8_t bits[VOLUME_INTENTS_BYTES];
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];
	uint64_t seq;
};

enum kind { SUPER, STATE, INTENTS, MAP, KINDS };

static enum volume_fault decode(enum kind kind, const uint8_t *page, struct content *c)
{
	switch (kind) {
	case SUPER:
		return volume_super_decode(page, &c->super);
	case STATE:
		return volume_state_decode(page, me, &c->state, &c->seq);
	case INTENTS:
		return volume_intents_decode(page, 1, EXTENTS, me, c->bits, &c->seq);
	default:
		return volume_map_decode(page, 7, me, c->stamps);
	}
}

/* Two generations of content, so that a torn page is a mix of two good ones. */
static void sample(unsigned gen, struct content *c)
{
	memset(c, 0, sizeof *c);
	memcpy(c->super.replica, me, sizeof me);
	memset(c->super.volume, (int)(gen + 1), sizeof c->super.volume);
	c->super.size = (gen + 1) * 4096ULL;
	c->super.compatible = gen;
	c->state = (struct volume_state){
		.promised = {5 + gen, 2},
		.active = {5 + gen, 1},
		.incarnation = 0x1122334455667788 + gen,
		.addmark = 3 + gen,
		.cold_done = 2 + gen,
		.lost = gen == 1,
		.origin = {.mount_kind = 1, .device = 9 + gen, .mount = 10 + gen, .inodes = {11 + gen, 12, 13}},
	};
	memset(c->state.origin.boot, (int)(gen + 7), sizeof c->state.origin.boot);
	c->bits[0] = (uint8_t)(0x81 + gen);
	c->bits[12] = 8; /* extent 99, the last that there is */
	for (uint32_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		c->stamps[i] = (struct volume_ballot){gen + i, i * 3};
	c->seq = 41 + gen;
}

static void encode(enum kind kind, const struct content *c, uint8_t *page)
{
	memset(page, 0xee, VOLUME_PAGE_BYTES); /* every byte must be written */
	switch (kind) {
	case SUPER:
		volume_super_encode(&c->super, page);
		return;
	case STATE:
		volume_state_encode(&c->state, me, c->seq, page);
		return;
	case INTENTS:
		volume_intents_encode(c->bits, 1, me, c->seq, page);
		return;
	default:
		volume_map_encode(c->stamps, 7, me, page);
	}
}

static void assert_same(enum kind kind, const struct content *a, const struct content *b)
{
	uint8_t x[VOLUME_PAGE_BYTES], y[VOLUME_PAGE_BYTES];

	encode(kind, a, x);
	encode(kind, b, y);
	assert_memory_equal(x, y, sizeof x);
}

static void test_round_trips(void **arg)
{
	uint8_t page[VOLUME_PAGE_BYTES];

	(void)arg;
	for (enum kind kind = 0; kind < KINDS; kind++)
		for (unsigned gen = 0; gen < 2; gen++) {
			struct content in, out = {0};

			sample(gen, &in);
			encode(kind, &in, page);
			assert_int_equal(decode(kind, page, &out), VOLUME_FAULT_NONE);
			assert_same(kind, &in, &out);
		}
}

static void test_state_keeps_each_field(void **arg)
{
	struct content in, out = {0};
	uint8_t page[VOLUME_PAGE_BYTES];

	(void)arg;
	sample(1, &in);
	encode(STATE, &in, page);
	assert_int_equal(decode(STATE, page, &out), VOLUME_FAULT_NONE);
	assert_int_equal(volume_ballot_compare(out.state.promised, in.state.promised), 0);
	assert_int_equal(volume_ballot_compare(out.state.active, in.state.active), 0);
	assert_int_equal(out.state.incarnation, in.state.incarnation);
	assert_int_equal(out.state.addmark, in.state.addmark);
	assert_int_equal(out.state.cold_done, in.state.cold_done);
	assert_int_equal(out.state.lost, in.state.lost);
	assert_int_equal(out.state.origin.mount_kind, in.state.origin.mount_kind);
	assert_int_equal(out.state.origin.device, in.state.origin.device);
	assert_int_equal(out.state.origin.mount, in.state.origin.mount);
	assert_memory_equal(out.state.origin.boot, in.state.origin.boot, 16);
	assert_memory_equal(out.state.origin.inodes, in.state.origin.inodes, sizeof in.state.origin.inodes);
	assert_int_equal(out.seq, in.seq);
}

/* The bytes themselves: what one version writes, every later one must read. */
static void test_bytes_are_as_documented(void **arg)
{
	static const uint8_t state_head[] = {'K', 'E', 'D', 'G', 'E', 'S', 'T', 'A'};
	struct content c;
	uint8_t page[VOLUME_PAGE_BYTES];

	(void)arg;
	sample(0, &c);
	encode(STATE, &c, page);
	assert_memory_equal(page, state_head, sizeof state_head);
	assert_int_equal(page[16], 41);                        /* sequence number */
	assert_memory_equal(page + 24, me, sizeof me);         /* replica */
	assert_memory_equal(page + 64, "\5\0\0\0\2\0\0\0", 8); /* promised */
	assert_memory_equal(page + 72, "\5\0\0\0\1\0\0\0", 8); /* active */
	assert_memory_equal(page + 80, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
	encode(INTENTS, &c, page);
	assert_int_equal(page[12], 1);
	assert_int_equal(page[64], 0x81);
	encode(MAP, &c, page);
	assert_int_equal(page[12], 7);
	assert_memory_equal(page + 64 + 8, "\1\0\0\0\3\0\0\0", 8);
	encode(SUPER, &c, page);
	assert_memory_equal(page + 80, "\0\x10\0\0\0\0\0\0\0\0\1\0\0\0\0\1", 16); /* size, block, extent */
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
}

static void test_every_changed_byte_is_seen(void **arg)
{
	static const uint8_t flips[] = {1, 128, 255};
	uint8_t page[VOLUME_PAGE_BYTES];
	struct content in, out, untouched;

	(void)arg;
	sample(0, &in);
	memset(&untouched, 0x5a, sizeof untouched);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		encode(kind, &in, page);
		for (size_t at = 0; at < sizeof page; at++)
			for (size_t i = 0; i < ARRAY_LEN(flips); i++) {
				out = untouched;
				page[at] ^= flips[i];
				assert_int_not_equal(decode(kind, page, &out), VOLUME_FAULT_NONE);
				assert_memory_equal(&out, &untouched, sizeof out);
				page[at] ^= flips[i];
			}
		assert_int_equal(decode(kind, page, &out), VOLUME_FAULT_NONE);
	}
}

/* One page overwritten by another and cut short: the old content, the new one, or damage; never a mix. */
static void test_torn_pages(void **arg)
{
	uint8_t from[VOLUME_PAGE_BYTES], to[VOLUME_PAGE_BYTES], torn[VOLUME_PAGE_BYTES];
	struct content old, new, out;

	(void)arg;
	sample(0, &old);
	sample(1, &new);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		encode(kind, &old, from);
		encode(kind, &new, to);
		for (size_t n = 0; n <= VOLUME_PAGE_BYTES; n += SECTOR) {
			memcpy(torn, from, sizeof torn);
			memcpy(torn, to, n);
			memset(&out, 0, sizeof out);
			if (decode(kind, torn, &out) == VOLUME_FAULT_NONE)
				assert_true(memcmp(torn, from, sizeof torn) == 0 || memcmp(torn, to, sizeof torn) == 0);
			else
				assert_true(n > 0 && n < VOLUME_PAGE_BYTES);
		}
	}
}

static void test_foreign_pages(void **arg)
{
	uint8_t page[VOLUME_PAGE_BYTES];
	struct content c, out = {0};

	(void)arg;
	sample(0, &c);
	encode(STATE, &c, page);
	assert_int_equal(volume_state_decode(page, other, &out.state, &out.seq), VOLUME_FAULT_REPLICA);
	assert_int_equal(decode(INTENTS, page, &out), VOLUME_FAULT_MAGIC);
	encode(INTENTS, &c, page);
	assert_int_equal(volume_intents_decode(page, 0, EXTENTS, me, out.bits, &out.seq), VOLUME_FAULT_NUMBER);
	assert_int_equal(volume_intents_decode(page, 1, EXTENTS, other, out.bits, &out.seq), VOLUME_FAULT_REPLICA);
	encode(MAP, &c, page);
	assert_int_equal(volume_map_decode(page, 8, me, out.stamps), VOLUME_FAULT_NUMBER);
	assert_int_equal(volume_map_decode(page, 7, other, out.stamps), VOLUME_FAULT_REPLICA);
	memset(page, 0, sizeof page);
	for (enum kind kind = SUPER; kind < MAP; kind++)
		assert_int_equal(decode(kind, page, &out), VOLUME_FAULT_EMPTY);
}

static void test_impossible_values(void **arg)
{
	uint8_t page[VOLUME_PAGE_BYTES];
	struct content c, out = {0};
	uint32_t crc;

	(void)arg;
	sample(0, &c);
	c.bits[12] |= 16; /* extent 100 of the second page: there is none */
	encode(INTENTS, &c, page);
	assert_int_equal(decode(INTENTS, page, &out), VOLUME_FAULT_VALUE);
	c.super.incompatible = 4;
	encode(SUPER, &c, page);
	assert_int_equal(decode(SUPER, page, &out), VOLUME_FAULT_FEATURE);
	c.super.incompatible = 0;
	encode(SUPER, &c, page);
	page[12] = 2; /* a later version, with a good checksum */
	memset(page + 8, 0, 4);
	crc = crc32c(0, page, sizeof page);
	memcpy(page + 8, &crc, 4);
	assert_int_equal(decode(SUPER, page, &out), VOLUME_FAULT_VERSION);
	encode(STATE, &c, page);
	memset(page + 80, 0, 8); /* incarnation 0 */
	memset(page + 8, 0, 4);
	crc = crc32c(0, page, sizeof page);
	memcpy(page + 8, &crc, 4);
	assert_int_equal(decode(STATE, page, &out), VOLUME_FAULT_VALUE);
}

static void test_a_hole_in_the_map(void **arg)
{
	static const uint8_t hole[VOLUME_PAGE_BYTES];
	struct volume_ballot stamps[VOLUME_EXTENT_BLOCKS];

	(void)arg;
	memset(stamps, 0xff, sizeof stamps);
	assert_int_equal(volume_map_decode(hole, 3, me, stamps), VOLUME_FAULT_NONE);
	for (uint32_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		assert_int_equal(volume_ballot_pack(stamps[i]), 0);
}

static void test_ballots_and_sizes(void **arg)
{
	const struct volume_ballot a = {1, 9}, b = {2, 0}, c = {2, 1};

	(void)arg;
	assert_true(volume_ballot_compare(a, b) < 0 && volume_ballot_compare(b, c) < 0 &&
		    volume_ballot_compare(c, a) > 0 && volume_ballot_compare(c, c) == 0);
	assert_int_equal(volume_ballot_compare(volume_ballot_unpack(volume_ballot_pack(c)), c), 0);
	assert_false(volume_size_is_valid(0) || volume_size_is_valid(4095) || volume_size_is_valid(4097));
	assert_false(volume_size_is_valid(VOLUME_SIZE_MAX + 4096) || volume_size_is_valid(UINT64_MAX - 4095));
	assert_true(volume_size_is_valid(4096) && volume_size_is_valid(VOLUME_SIZE_MAX));
	assert_int_equal(volume_extents(VOLUME_EXTENT_BYTES), 1);
	assert_int_equal(volume_extents(VOLUME_EXTENT_BYTES + 4096), 2);
	assert_int_equal(volume_blocks(4096), 1);
	assert_int_equal(volume_meta_bytes(4096), 5 * 4096);
	assert_int_equal(volume_intent_pages(VOLUME_SIZE_MAX), VOLUME_PAGE_PAIRS_MAX);
	assert_int_equal(volume_meta_bytes(VOLUME_SIZE_MAX), VOLUME_META_BYTES_MAX);
}

static void test_every_fault_has_a_text(void **arg)
{
	(void)arg;
	for (enum volume_fault f = VOLUME_FAULT_NONE; f <= VOLUME_FAULT_SPLIT; f++)
		for (enum volume_fault g = VOLUME_FAULT_NONE; g < f; g++)
			assert_string_not_equal(volume_fault_text(f), volume_fault_text(g));
	assert_non_null(volume_fault_text((enum volume_fault)999));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_state_keeps_each_field),
		cmocka_unit_test(test_bytes_are_as_documented),
		cmocka_unit_test(test_every_changed_byte_is_seen),
		cmocka_unit_test(test_torn_pages),
		cmocka_unit_test(test_foreign_pages),
		cmocka_unit_test(test_impossible_values),
		cmocka_unit_test(test_a_hole_in_the_map),
		cmocka_unit_test(test_ballots_and_sizes),
		cmocka_unit_test(test_every_fault_has_a_text),
	};

	return cmocka_run_group_tests_name("volume_format", tests, NULL, NULL);
}
