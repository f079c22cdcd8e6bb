/* SPDX-License-Identifier: Apache-2.0
 * The disk for cloud-init: ISO 9660 (ECMA-119), one folder with two files, nothing else. The names have a hyphen, which
 * the standard would not have, but every reader takes; readers make them small and drop the version. */
#include "agent/seed.h"

#include <string.h>

#define SECTOR       2048
#define FIRST_SECTOR 16 /* what is before belongs to the system */
#define RECORD_BYTES 33 /* without the name */

enum place { PLACE_PRIMARY, PLACE_END, PLACE_TABLE_L, PLACE_TABLE_M, PLACE_ROOT, PLACE_FILES };

struct file {
	const char *name;
	const struct buf *content;
	uint32_t sector;
};

static void put_le(uint8_t *at, uint32_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		at[i] = (uint8_t)(v >> 8 * i);
}

static void put_be(uint8_t *at, uint32_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		at[i] = (uint8_t)(v >> 8 * (n - 1 - i));
}

/* Both byte orders, one after the other (7.2.3, 7.3.3). */
static void put_both(uint8_t *at, uint32_t v, size_t n)
{
	put_le(at, v, n);
	put_be(at + n, v, n);
}

static uint32_t sectors(size_t bytes)
{
	return (uint32_t)((bytes + SECTOR - 1) / SECTOR);
}

/* A directory record (9.1), without a date. Returns its length. */
static size_t put_record(uint8_t *at, const char *name, size_t n_name, uint32_t sector, uint32_t bytes, bool is_folder)
{
	size_t n = (RECORD_BYTES + n_name + 1) & ~(size_t)1;

	at[0] = (uint8_t)n;
	put_both(at + 2, sector, 4);
	put_both(at + 10, bytes, 4);
	at[25] = is_folder ? 2 : 0;
	put_both(at + 28, 1, 2);
	at[32] = (uint8_t)n_name;
	memcpy(at + RECORD_BYTES, name, n_name);
	return n;
}

/* The primary volume descriptor (8.4). */
static void put_primary(uint8_t *at, uint32_t all_sectors)
{
	static const size_t dates[] = {813, 830, 847, 864};

	at[0] = 1;
	memcpy(at + 1, "CD001", 5);
	at[6] = 1;
	memset(at + 8, ' ', 64);
	memcpy(at + 40, "cidata", 6);
	put_both(at + 80, all_sectors, 4);
	put_both(at + 120, 1, 2);
	put_both(at + 124, 1, 2);
	put_both(at + 128, SECTOR, 2);
	put_both(at + 132, 10, 4); /* bytes of the path table */
	put_le(at + 140, FIRST_SECTOR + PLACE_TABLE_L, 4);
	put_be(at + 148, FIRST_SECTOR + PLACE_TABLE_M, 4);
	(void)put_record(at + 156, "", 1, FIRST_SECTOR + PLACE_ROOT, SECTOR, true);
	memset(at + 190, ' ', 813 - 190);
	for (size_t i = 0; i < ARRAY_LEN(dates); i++)
		memset(at + dates[i], '0', 16);
	at[881] = 1;
}

/* The only folder is its own parent (9.4). */
static void put_table(uint8_t *at, bool is_big_endian)
{
	at[0] = 1;
	(is_big_endian ? put_be : put_le)(at + 2, FIRST_SECTOR + PLACE_ROOT, 4);
	(is_big_endian ? put_be : put_le)(at + 6, 1, 2);
}

static void put_root(uint8_t *at, const struct file *files, size_t n)
{
	at += put_record(at, "\0", 1, FIRST_SECTOR + PLACE_ROOT, SECTOR, true);
	at += put_record(at, "\1", 1, FIRST_SECTOR + PLACE_ROOT, SECTOR, true);
	for (size_t i = 0; i < n; i++)
		at += put_record(at, files[i].name, strlen(files[i].name), files[i].sector,
				 (uint32_t)files[i].content->len, false);
}

void seed_make(const struct buf *user_data, const struct buf *meta_data, struct buf *ret)
{
	struct file files[] = {{"META-DATA.;1", meta_data, FIRST_SECTOR + PLACE_FILES}, {"USER-DATA.;1", user_data, 0}};
	uint32_t all;
	uint8_t *disk;

	files[1].sector = files[0].sector + sectors(meta_data->len);
	all = files[1].sector + sectors(user_data->len);
	disk = buf_reserve(ret, (size_t)all * SECTOR);
	memset(disk, 0, (size_t)all * SECTOR);
	put_primary(disk + (FIRST_SECTOR + PLACE_PRIMARY) * SECTOR, all);
	memcpy(disk + (FIRST_SECTOR + PLACE_END) * SECTOR,
	       "\xff"
	       "CD001\1",
	       7);
	put_table(disk + (FIRST_SECTOR + PLACE_TABLE_L) * SECTOR, false);
	put_table(disk + (FIRST_SECTOR + PLACE_TABLE_M) * SECTOR, true);
	put_root(disk + (FIRST_SECTOR + PLACE_ROOT) * SECTOR, files, ARRAY_LEN(files));
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		if (files[i].content->len)
			memcpy(disk + (size_t)files[i].sector * SECTOR, files[i].content->data, files[i].content->len);
	ret->len += (size_t)all * SECTOR;
}
