/* SPDX-License-Identifier: Apache-2.0
 * What a replica keeps on its disk, page by page: the types that the rules speak of, and their bytes.
 *
 * Everything here is [any]: no I/O, no allocation, no state. docs/DISK.md describes the same byte for byte. Each page
 * has 4096 bytes, a magic, a CRC-32C over all of it, its number and its replica's id, so that a page that is torn,
 * rotten, in the wrong place or from other files is never taken for good.
 *
 * State and intents are kept in two copies (V14, section 5). The writer keeps to this: the page with a number one
 * higher goes over the copy that is *not* known to be durable, then fdatasync, then the same bytes over the other copy,
 * without waiting. So at any instant one copy is whole and holds everything that was durable, and once the second is
 * written a copy that rots costs nothing. */
#ifndef KEDGE_VOLUME_FORMAT_H
#define KEDGE_VOLUME_FORMAT_H

#include "base/base.h"

#define VOLUME_SECTOR_BYTES  4096u
#define VOLUME_BLOCK_BYTES   (64u << 10)
#define VOLUME_EXTENT_BYTES  (16u << 20)
#define VOLUME_EXTENT_BLOCKS 256u
#define VOLUME_SIZE_MAX      (64ULL << 40)
#define VOLUME_ID_BYTES      16

#define VOLUME_FORMAT_VERSION 1u
#define VOLUME_PAGE_BYTES     4096u
#define VOLUME_PAGE_HEAD      64u                                    /* bytes before a page's own content */
#define VOLUME_INTENTS_BYTES  (VOLUME_PAGE_BYTES - VOLUME_PAGE_HEAD) /* of bits in an intent page */
#define VOLUME_PAGE_EXTENTS   (VOLUME_INTENTS_BYTES * 8)             /* extents in an intent page */
#define VOLUME_EXTENTS_MAX    ((uint32_t)(VOLUME_SIZE_MAX / VOLUME_EXTENT_BYTES))
#define VOLUME_META_BYTES_MAX (VOLUME_META_OFFSET(1 + VOLUME_PAGE_PAIRS_MAX))
#define VOLUME_PAGE_PAIRS_MAX ((VOLUME_EXTENTS_MAX + VOLUME_PAGE_EXTENTS - 1) / VOLUME_PAGE_EXTENTS)

/* Where copy 0 of a pair stands in `meta`, copy 1 behind it. Pair 0 is the state, pair 1 + i is intent page i. */
#define VOLUME_META_OFFSET(pair) ((uint64_t)VOLUME_PAGE_BYTES * (1 + 2 * (uint64_t)(pair)))

_Static_assert(VOLUME_EXTENT_BLOCKS *VOLUME_BLOCK_BYTES == VOLUME_EXTENT_BYTES, "an extent is 256 blocks");
_Static_assert(VOLUME_BLOCK_BYTES % VOLUME_SECTOR_BYTES == 0, "a block is whole sectors");
_Static_assert(VOLUME_SIZE_MAX / VOLUME_BLOCK_BYTES <= UINT32_MAX, "a block's number fits in 32 bits");
_Static_assert(VOLUME_SIZE_MAX % VOLUME_EXTENT_BYTES == 0, "the largest volume is whole extents");
_Static_assert(VOLUME_PAGE_HEAD + VOLUME_EXTENT_BLOCKS * 8 <= VOLUME_PAGE_BYTES, "an extent's stamps fit in a page");
_Static_assert(VOLUME_META_BYTES_MAX < (2u << 20), "the metadata of the largest volume stays small");

/* ---- ballots ---- */

/* The order of all that happens to a volume: the epoch from the store, the minor from its primary. (0,0) is never. */
struct volume_ballot {
	uint32_t epoch;
	uint32_t minor;
};

static inline uint64_t volume_ballot_pack(struct volume_ballot b)
{
	return (uint64_t)b.epoch << 32 | b.minor;
}

static inline struct volume_ballot volume_ballot_unpack(uint64_t packed)
{
	return (struct volume_ballot){(uint32_t)(packed >> 32), (uint32_t)packed};
}

/* Negative, 0 or positive, as @a is before, the same as or after @b. */
static inline int volume_ballot_compare(struct volume_ballot a, struct volume_ballot b)
{
	uint64_t x = volume_ballot_pack(a), y = volume_ballot_pack(b);

	return (x > y) - (x < y);
}

/* ---- ids as text ---- */

#define VOLUME_ID_TEXT (2 * VOLUME_ID_BYTES + 1)

/* Hexadecimal digits, and a zero. */
void volume_id_text(const uint8_t id[VOLUME_ID_BYTES], char ret[VOLUME_ID_TEXT]);
/* False: it is none. */
bool volume_id_parse(const char *text, uint8_t ret[VOLUME_ID_BYTES]);

/* ---- sizes and bits ---- */

/* A size is > 0, whole sectors, and at most VOLUME_SIZE_MAX. */
static inline bool volume_size_is_valid(uint64_t size)
{
	return size > 0 && size % VOLUME_SECTOR_BYTES == 0 && size <= VOLUME_SIZE_MAX;
}

static inline uint32_t volume_extents(uint64_t size)
{
	return (uint32_t)((size + VOLUME_EXTENT_BYTES - 1) / VOLUME_EXTENT_BYTES);
}

static inline uint64_t volume_blocks(uint64_t size)
{
	return (size + VOLUME_BLOCK_BYTES - 1) / VOLUME_BLOCK_BYTES;
}

/* Pages of intents, each in two copies. */
static inline uint32_t volume_intent_pages(uint64_t size)
{
	return (volume_extents(size) + VOLUME_PAGE_EXTENTS - 1) / VOLUME_PAGE_EXTENTS;
}

static inline uint64_t volume_meta_bytes(uint64_t size)
{
	return VOLUME_META_OFFSET(1 + volume_intent_pages(size));
}

/* Bytes of a bitmap with a bit per extent: whole intent pages, so that page i is at i * VOLUME_INTENTS_BYTES. */
static inline size_t volume_bits_bytes(uint64_t size)
{
	return (size_t)volume_intent_pages(size) * VOLUME_INTENTS_BYTES;
}

static inline bool volume_bit(const uint8_t *bits, uint32_t i)
{
	return bits[i / 8] >> (i % 8) & 1;
}

static inline void volume_bit_set(uint8_t *bits, uint32_t i, bool on)
{
	if (on)
		bits[i / 8] |= (uint8_t)(1u << (i % 8));
	else
		bits[i / 8] &= (uint8_t) ~(1u << (i % 8));
}

/* ---- what the pages hold ---- */

/* Page 0 of `meta`, written once: with the size that the volume had when the replica was made. */
struct volume_super {
	uint8_t volume[VOLUME_ID_BYTES];
	uint8_t replica[VOLUME_ID_BYTES]; /* random; a replica that was made anew has another one */
	uint64_t size;
	uint64_t compatible;   /* features that may be ignored */
	uint64_t incompatible; /* features that must be known to whoever opens it */
};

/* Features that this program knows. None yet; docs/DISK.md keeps bits for checksums and snapshots. */
#define VOLUME_INCOMPATIBLE_KNOWN 0ULL

enum volume_mount_kind {
	VOLUME_MOUNT_NONE = 0,
	VOLUME_MOUNT_SYSFS = 1,  /* the mounted file system's own folder below /sys/fs has this inode number */
	VOLUME_MOUNT_UNIQUE = 2, /* statx's mount id that is never used again */
	VOLUME_MOUNT_ID = 3,     /* statx's mount id, which may be used again */
};

/* Where and when the replica was last opened: what V25 needs to see that cached writes may be gone. */
struct volume_origin {
	uint8_t boot[16];
	uint32_t mount_kind; /* enum volume_mount_kind */
	uint64_t device;     /* st_dev */
	uint64_t mount;
	uint64_t inodes[3]; /* of data, meta, epochs: other ones are copies of these files (V25, "restored or foreign")
			     */
};

/* The state page: section 1, "Replica, durable". */
struct volume_state {
	struct volume_ballot promised; /* the highest ballot ever obeyed; never lowered (V1) */
	struct volume_ballot active;   /* the last one in which it was known to equal its primary; <= promised */
	uint64_t incarnation;          /* random, never 0 (V25) */
	uint32_t addmark;              /* epoch in which it, as primary, proposed an ADD (V23) */
	uint32_t cold_done;            /* epoch of the COLD whose settled reads were flushed (V27) */
	bool lost;                   /* a lost replica (V25): nothing in `data` counts; it must be blanked and joins */
	struct volume_origin origin; /* volume_replica_open() keeps it; others pass it on */
	uint64_t size;               /* of a volume that has grown; 0: as the superblock says. As `origin` */
	uint64_t growing;            /* the files may have any size up to this one; 0: they do not grow. As `origin` */
};

/* ---- encoding and decoding ---- */

enum volume_fault {
	VOLUME_FAULT_NONE = 0,
	VOLUME_FAULT_EMPTY,    /* all zero: never written, or lost */
	VOLUME_FAULT_MAGIC,    /* another kind of page, or none at all */
	VOLUME_FAULT_CHECKSUM, /* torn or rotten */
	VOLUME_FAULT_NUMBER,   /* a page that belongs elsewhere */
	VOLUME_FAULT_REPLICA,  /* a page of other files */
	VOLUME_FAULT_VALUE,    /* whole, but what it says cannot be */
	VOLUME_FAULT_VERSION,  /* a format version that this program does not know */
	VOLUME_FAULT_FEATURE,  /* an incompatible feature that it does not know */
	VOLUME_FAULT_READ,     /* not a decoder's: the page could not be read */
	VOLUME_FAULT_SPLIT,    /* not a decoder's: two whole copies with the same sequence number that differ */
};

/* A short text, as in "is torn or rotten (checksum)"; static. */
const char *volume_fault_text(enum volume_fault fault);

/* Each encoder fills all VOLUME_PAGE_BYTES of @ret. Each decoder leaves its results untouched unless it returns
 * VOLUME_FAULT_NONE; @page is in memory of any alignment. @replica: whose files these are. */

void volume_super_encode(const struct volume_super *s, uint8_t *ret);
enum volume_fault volume_super_decode(const uint8_t *page, struct volume_super *ret);

void volume_state_encode(const struct volume_state *s, const uint8_t *replica, uint64_t seq, uint8_t *ret);
enum volume_fault volume_state_decode(const uint8_t *page, const uint8_t *replica, struct volume_state *ret,
				      uint64_t *ret_seq);

/* @bits: the VOLUME_INTENTS_BYTES of page @number. Decoding refuses bits of extents that a volume of @extents lacks. */
void volume_intents_encode(const uint8_t *bits, uint32_t number, const uint8_t *replica, uint64_t seq, uint8_t *ret);
enum volume_fault volume_intents_decode(const uint8_t *page, uint32_t number, uint32_t extents, const uint8_t *replica,
					uint8_t *ret_bits, uint64_t *ret_seq);

/* @stamps: VOLUME_EXTENT_BLOCKS ballots. A page of zeroes (a hole) decodes to (0,0) everywhere. */
void volume_map_encode(const struct volume_ballot *stamps, uint32_t extent, const uint8_t *replica, uint8_t *ret);
enum volume_fault volume_map_decode(const uint8_t *page, uint32_t extent, const uint8_t *replica,
				    struct volume_ballot *ret_stamps);

#endif
