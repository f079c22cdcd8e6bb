/* SPDX-License-Identifier: Apache-2.0
 * The bytes of the pages: little endian, zeroed first, checked before anything in them is believed. */
#include "volume/format.h"

#include <endian.h>
#include <string.h>

/* ---- ids as text ---- */

void volume_id_text(const uint8_t id[VOLUME_ID_BYTES], char ret[VOLUME_ID_TEXT])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < VOLUME_ID_BYTES; i++) {
		ret[2 * i] = digits[id[i] >> 4];
		ret[2 * i + 1] = digits[id[i] & 15];
	}
	ret[VOLUME_ID_TEXT - 1] = '\0';
}

bool volume_id_parse(const char *text, uint8_t ret[VOLUME_ID_BYTES])
{
	static const char digits[] = "0123456789abcdef";

	if (strlen(text) != 2 * VOLUME_ID_BYTES || strspn(text, digits) != 2 * VOLUME_ID_BYTES)
		return false;
	for (size_t i = 0; i < VOLUME_ID_BYTES; i++)
		ret[i] = (uint8_t)((strchr(digits, text[2 * i]) - digits) << 4 |
				   (strchr(digits, text[2 * i + 1]) - digits));
	return true;
}

/* ---- pages ---- */

/* Every page begins alike. */
enum {
	AT_MAGIC = 0,    /* 8 bytes of text */
	AT_CRC = 8,      /* u32: CRC-32C of the page with these four bytes zero */
	AT_NUMBER = 12,  /* u32: format version, 0, page of intents, extent */
	AT_SEQ = 16,     /* u64: of a copy; else 0 */
	AT_REPLICA = 24, /* 16 bytes */
	/* the superblock from here */
	AT_COMPATIBLE = 40,
	AT_INCOMPATIBLE = 48,
	AT_VOLUME = 64,
	AT_SIZE = 80,
	AT_BLOCK_BYTES = 88,
	AT_EXTENT_BYTES = 92,
	/* the state from here */
	AT_PROMISED = 64,
	AT_ACTIVE = 72,
	AT_INCARNATION = 80,
	AT_ADDMARK = 88,
	AT_COLD_DONE = 92,
	AT_FLAGS = 96,
	AT_MOUNT_KIND = 100,
	AT_DEVICE = 104,
	AT_MOUNT = 112,
	AT_BOOT = 120,
	AT_INODES = 136,
	AT_GROWN = 160,
	AT_GROWING = 168,
};

#define STATE_FLAG_LOST 1u

static const char magic_super[8] = "KEDGEVOL", magic_state[8] = "KEDGESTA", magic_intents[8] = "KEDGEINT",
		  magic_map[8] = "KEDGEMAP";

static void put32(uint8_t *page, size_t at, uint32_t v)
{
	v = htole32(v);
	memcpy(page + at, &v, sizeof v);
}

static void put64(uint8_t *page, size_t at, uint64_t v)
{
	v = htole64(v);
	memcpy(page + at, &v, sizeof v);
}

static uint32_t get32(const uint8_t *page, size_t at)
{
	uint32_t v;

	memcpy(&v, page + at, sizeof v);
	return le32toh(v);
}

static uint64_t get64(const uint8_t *page, size_t at)
{
	uint64_t v;

	memcpy(&v, page + at, sizeof v);
	return le64toh(v);
}

/* Epoch first, so that a hex dump reads in the order in which ballots are spoken of. */
static void put_ballot(uint8_t *page, size_t at, struct volume_ballot b)
{
	put32(page, at, b.epoch);
	put32(page, at + 4, b.minor);
}

static struct volume_ballot get_ballot(const uint8_t *page, size_t at)
{
	return (struct volume_ballot){get32(page, at), get32(page, at + 4)};
}

static uint32_t page_crc(const uint8_t *page)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, page, AT_CRC);

	crc = crc32c(crc, zero, sizeof zero);
	return crc32c(crc, page + AT_NUMBER, VOLUME_PAGE_BYTES - AT_NUMBER);
}

static void page_begin(uint8_t *page, const char *magic, uint32_t number, uint64_t seq, const uint8_t *replica)
{
	memset(page, 0, VOLUME_PAGE_BYTES);
	memcpy(page + AT_MAGIC, magic, sizeof magic_super);
	put32(page, AT_NUMBER, number);
	put64(page, AT_SEQ, seq);
	memcpy(page + AT_REPLICA, replica, VOLUME_ID_BYTES);
}

static void page_end(uint8_t *page)
{
	put32(page, AT_CRC, page_crc(page));
}

static bool is_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

static enum volume_fault page_check(const uint8_t *page, const char *magic)
{
	if (is_zero(page, VOLUME_PAGE_BYTES))
		return VOLUME_FAULT_EMPTY;
	if (memcmp(page + AT_MAGIC, magic, sizeof magic_super) != 0)
		return VOLUME_FAULT_MAGIC;
	return get32(page, AT_CRC) == page_crc(page) ? VOLUME_FAULT_NONE : VOLUME_FAULT_CHECKSUM;
}

static enum volume_fault page_check_of(const uint8_t *page, const char *magic, uint32_t number, const uint8_t *replica)
{
	enum volume_fault fault = page_check(page, magic);

	if (fault)
		return fault;
	if (memcmp(page + AT_REPLICA, replica, VOLUME_ID_BYTES) != 0)
		return VOLUME_FAULT_REPLICA;
	return get32(page, AT_NUMBER) == number ? VOLUME_FAULT_NONE : VOLUME_FAULT_NUMBER;
}

const char *volume_fault_text(enum volume_fault fault)
{
	static const char *const text[] = {
		[VOLUME_FAULT_NONE] = "is whole",
		[VOLUME_FAULT_EMPTY] = "is all zeroes",
		[VOLUME_FAULT_MAGIC] = "has a wrong magic",
		[VOLUME_FAULT_CHECKSUM] = "is torn or rotten (its checksum is wrong)",
		[VOLUME_FAULT_NUMBER] = "has the number of another page",
		[VOLUME_FAULT_REPLICA] = "belongs to another replica",
		[VOLUME_FAULT_VALUE] = "is whole but says what cannot be",
		[VOLUME_FAULT_VERSION] = "has a format version that this program does not know",
		[VOLUME_FAULT_FEATURE] = "needs a feature that this program does not know",
		[VOLUME_FAULT_READ] = "cannot be read",
		[VOLUME_FAULT_SPLIT] = "has two whole copies with one sequence number that differ",
	};

	return (size_t)fault < ARRAY_LEN(text) ? text[fault] : "is bad";
}

/* ---- superblock ---- */

void volume_super_encode(const struct volume_super *s, uint8_t *ret)
{
	CHECK(volume_size_is_valid(s->size));
	page_begin(ret, magic_super, VOLUME_FORMAT_VERSION, 0, s->replica);
	put64(ret, AT_COMPATIBLE, s->compatible);
	put64(ret, AT_INCOMPATIBLE, s->incompatible);
	memcpy(ret + AT_VOLUME, s->volume, VOLUME_ID_BYTES);
	put64(ret, AT_SIZE, s->size);
	put32(ret, AT_BLOCK_BYTES, VOLUME_BLOCK_BYTES);
	put32(ret, AT_EXTENT_BYTES, VOLUME_EXTENT_BYTES);
	page_end(ret);
}

enum volume_fault volume_super_decode(const uint8_t *page, struct volume_super *ret)
{
	enum volume_fault fault = page_check(page, magic_super);
	struct volume_super s = {0};

	if (fault)
		return fault;
	if (get32(page, AT_NUMBER) != VOLUME_FORMAT_VERSION)
		return VOLUME_FAULT_VERSION;
	s.compatible = get64(page, AT_COMPATIBLE);
	s.incompatible = get64(page, AT_INCOMPATIBLE);
	if (s.incompatible & ~VOLUME_INCOMPATIBLE_KNOWN)
		return VOLUME_FAULT_FEATURE;
	memcpy(s.replica, page + AT_REPLICA, VOLUME_ID_BYTES);
	memcpy(s.volume, page + AT_VOLUME, VOLUME_ID_BYTES);
	s.size = get64(page, AT_SIZE);
	if (!volume_size_is_valid(s.size) || get32(page, AT_BLOCK_BYTES) != VOLUME_BLOCK_BYTES ||
	    get32(page, AT_EXTENT_BYTES) != VOLUME_EXTENT_BYTES)
		return VOLUME_FAULT_VALUE;
	*ret = s;
	return VOLUME_FAULT_NONE;
}

/* ---- state ---- */

static bool state_can_be(const struct volume_state *s)
{
	bool sizes = (s->size == 0 || volume_size_is_valid(s->size)) &&
		     (s->growing == 0 || (volume_size_is_valid(s->growing) && s->growing > s->size));

	return s->incarnation != 0 && volume_ballot_compare(s->active, s->promised) <= 0 && sizes;
}

void volume_state_encode(const struct volume_state *s, const uint8_t *replica, uint64_t seq, uint8_t *ret)
{
	CHECK(state_can_be(s) && seq > 0);
	page_begin(ret, magic_state, 0, seq, replica);
	put_ballot(ret, AT_PROMISED, s->promised);
	put_ballot(ret, AT_ACTIVE, s->active);
	put64(ret, AT_INCARNATION, s->incarnation);
	put32(ret, AT_ADDMARK, s->addmark);
	put32(ret, AT_COLD_DONE, s->cold_done);
	put32(ret, AT_FLAGS, s->lost ? STATE_FLAG_LOST : 0);
	put32(ret, AT_MOUNT_KIND, s->origin.mount_kind);
	put64(ret, AT_DEVICE, s->origin.device);
	put64(ret, AT_MOUNT, s->origin.mount);
	memcpy(ret + AT_BOOT, s->origin.boot, sizeof s->origin.boot);
	for (size_t i = 0; i < ARRAY_LEN(s->origin.inodes); i++)
		put64(ret, AT_INODES + 8 * i, s->origin.inodes[i]);
	put64(ret, AT_GROWN, s->size);
	put64(ret, AT_GROWING, s->growing);
	page_end(ret);
}

enum volume_fault volume_state_decode(const uint8_t *page, const uint8_t *replica, struct volume_state *ret,
				      uint64_t *ret_seq)
{
	enum volume_fault fault = page_check_of(page, magic_state, 0, replica);
	struct volume_state s = {0};

	if (fault)
		return fault;
	s.promised = get_ballot(page, AT_PROMISED);
	s.active = get_ballot(page, AT_ACTIVE);
	s.incarnation = get64(page, AT_INCARNATION);
	s.addmark = get32(page, AT_ADDMARK);
	s.cold_done = get32(page, AT_COLD_DONE);
	s.lost = get32(page, AT_FLAGS) & STATE_FLAG_LOST;
	s.origin.mount_kind = get32(page, AT_MOUNT_KIND);
	s.origin.device = get64(page, AT_DEVICE);
	s.origin.mount = get64(page, AT_MOUNT);
	memcpy(s.origin.boot, page + AT_BOOT, sizeof s.origin.boot);
	for (size_t i = 0; i < ARRAY_LEN(s.origin.inodes); i++)
		s.origin.inodes[i] = get64(page, AT_INODES + 8 * i);
	s.size = get64(page, AT_GROWN);
	s.growing = get64(page, AT_GROWING);
	if (!state_can_be(&s) || get64(page, AT_SEQ) == 0)
		return VOLUME_FAULT_VALUE;
	*ret = s;
	*ret_seq = get64(page, AT_SEQ);
	return VOLUME_FAULT_NONE;
}

/* ---- intents ---- */

void volume_intents_encode(const uint8_t *bits, uint32_t number, const uint8_t *replica, uint64_t seq, uint8_t *ret)
{
	CHECK(seq > 0);
	page_begin(ret, magic_intents, number, seq, replica);
	memcpy(ret + VOLUME_PAGE_HEAD, bits, VOLUME_INTENTS_BYTES);
	page_end(ret);
}

enum volume_fault volume_intents_decode(const uint8_t *page, uint32_t number, uint32_t extents, const uint8_t *replica,
					uint8_t *ret_bits, uint64_t *ret_seq)
{
	enum volume_fault fault = page_check_of(page, magic_intents, number, replica);
	const uint8_t *bits = page + VOLUME_PAGE_HEAD;
	uint32_t first = number * VOLUME_PAGE_EXTENTS;

	if (fault)
		return fault;
	if (get64(page, AT_SEQ) == 0)
		return VOLUME_FAULT_VALUE;
	for (uint32_t i = extents > first ? extents - first : 0; i < VOLUME_PAGE_EXTENTS; i++)
		if (volume_bit(bits, i))
			return VOLUME_FAULT_VALUE;
	memcpy(ret_bits, bits, VOLUME_INTENTS_BYTES);
	*ret_seq = get64(page, AT_SEQ);
	return VOLUME_FAULT_NONE;
}

/* ---- epochs ---- */

void volume_map_encode(const struct volume_ballot *stamps, uint32_t extent, const uint8_t *replica, uint8_t *ret)
{
	page_begin(ret, magic_map, extent, 0, replica);
	for (size_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		put_ballot(ret, VOLUME_PAGE_HEAD + 8 * i, stamps[i]);
	page_end(ret);
}

enum volume_fault volume_map_decode(const uint8_t *page, uint32_t extent, const uint8_t *replica,
				    struct volume_ballot *ret_stamps)
{
	enum volume_fault fault = page_check_of(page, magic_map, extent, replica);

	if (fault == VOLUME_FAULT_EMPTY)
		memset(ret_stamps, 0, VOLUME_EXTENT_BLOCKS * sizeof *ret_stamps);
	if (fault)
		return fault == VOLUME_FAULT_EMPTY ? VOLUME_FAULT_NONE : fault;
	for (size_t i = 0; i < VOLUME_EXTENT_BLOCKS; i++)
		ret_stamps[i] = get_ballot(page, VOLUME_PAGE_HEAD + 8 * i);
	return VOLUME_FAULT_NONE;
}
