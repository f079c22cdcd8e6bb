/* SPDX-License-Identifier: Apache-2.0
 * Reading images and files. */
#include "store/internal.h"

#include <string.h>

#define COLUMNS "SELECT name, digest, bytes, size, format, copies, created FROM images "

static void read_image(sqlite3_stmt *st, struct store_image *ret)
{
	memset(ret, 0, sizeof *ret);
	sql_str(st, 0, ret->name, sizeof ret->name);
	sql_str(st, 1, ret->digest, sizeof ret->digest);
	ret->bytes = sql_u64(st, 2);
	ret->size = sql_u64(st, 3);
	sql_str(st, 4, ret->format, sizeof ret->format);
	ret->copies = (uint32_t)sql_u64(st, 5);
	ret->created = sql_u64(st, 6);
}

size_t store_images(struct store *s, struct store_image *ret, size_t max)
{
	sqlite3_stmt *st = sql_query(&s->q, COLUMNS "ORDER BY tenant, name", "");
	size_t n = 0;

	while (sql_row(&s->q, st))
		if (n < max)
			read_image(st, &ret[n++]);
	return n;
}

bool store_image(struct store *s, const char *name, struct store_image *ret)
{
	sqlite3_stmt *st = sql_query(&s->q, COLUMNS "WHERE tenant = 'default' AND name = ?", "s", name);
	bool found = false;

	while (sql_row(&s->q, st)) {
		read_image(st, ret);
		found = true;
	}
	return found;
}

static size_t read_files(struct store *s, sqlite3_stmt *st, struct store_file *ret, size_t max)
{
	size_t n = 0;

	while (sql_row(&s->q, st)) {
		if (n == max)
			continue;
		sql_str(st, 0, ret[n].digest, sizeof ret[n].digest);
		ret[n++].copies = (uint32_t)sql_u64(st, 1);
	}
	return n;
}

size_t store_files(struct store *s, struct store_file *ret, size_t max)
{
	_Static_assert(NODES_MAX == 64, "it stands in the query");
	return read_files(s,
			  sql_query(&s->q,
				    "SELECT digest, max(copies) FROM (SELECT digest, copies FROM images"
				    " UNION ALL SELECT kernel_digest, 64 FROM vm_files"
				    " UNION ALL SELECT initrd_digest, 64 FROM vm_files"
				    " UNION ALL SELECT digest, 1 FROM sources WHERE filled = 0)"
				    " WHERE digest <> '' GROUP BY digest ORDER BY digest",
				    ""),
			  ret, max);
}

uint64_t store_holders(struct store *s, const char *digest)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT node FROM holders WHERE digest = ?", "s", digest);
	uint64_t holders = 0;

	while (sql_row(&s->q, st))
		holders |= 1ULL << (sql_u64(st, 0) - 1);
	return holders;
}

size_t store_held_by(struct store *s, uint32_t node, struct store_file *ret, size_t max)
{
	return read_files(
		s,
		sql_query(&s->q, "SELECT digest, 0 FROM holders WHERE node = ? ORDER BY digest", "u", (uint64_t)node),
		ret, max);
}

static void append_text(sqlite3_stmt *st, int column, struct buf *ret)
{
	buf_append(ret, sqlite3_column_text(st, column), (size_t)sqlite3_column_bytes(st, column));
}

bool store_vm_seed(struct store *s, const char *vm, struct buf *ret_user_data, struct buf *ret_meta_data)
{
	sqlite3_stmt *st = sql_query(
		&s->q, "SELECT user_data, meta_data FROM vm_files WHERE tenant = 'default' AND vm = ?", "s", vm);
	size_t before = ret_user_data->len + ret_meta_data->len;

	while (sql_row(&s->q, st)) {
		append_text(st, 0, ret_user_data);
		append_text(st, 1, ret_meta_data);
	}
	return ret_user_data->len + ret_meta_data->len > before;
}
