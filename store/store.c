/* SPDX-License-Identifier: Apache-2.0
 * The store as a whole: opening, images, the state's hash. */
#include "store/store.h"

#include "store/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_db(const char *path, sqlite3 **ret, struct err *e)
{
	sqlite3 *db = NULL;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
	char *why = NULL;

	/* NORMAL: raft's log is the durable one; a power cut rolls back to an older state that replay brings forward.
	 * Checkpoints run on a worker with a connection of their own. */
	if (sqlite3_open_v2(path, &db, flags, NULL) != SQLITE_OK ||
	    sqlite3_exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0;", NULL,
			 NULL, &why) != SQLITE_OK ||
	    sqlite3_exec(db, store_schema, NULL, NULL, &why) != SQLITE_OK) {
		(void)err_set(e, -EIO, "open state '%s': %s", path, why ? why : sqlite3_errmsg(db));
		sqlite3_free(why);
		(void)sqlite3_close(db);
		return -EIO;
	}
	*ret = db;
	return 0;
}

static void read_meta(struct store *s)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT applied, wall FROM meta", "");

	while (sql_row(&s->q, st)) {
		s->applied = sql_u64(st, 0);
		s->wall = sql_u64(st, 1);
	}
	s->changes++;
}

int store_open(const char *path, struct store **ret, struct err *e)
{
	struct store *s = xcalloc(1, sizeof *s);
	int rc;

	CHECK(strlen(path) < sizeof s->path);
	(void)snprintf(s->path, sizeof s->path, "%s", path);
	rc = open_db(path, &s->q.db, e);
	if (rc < 0) {
		free(s);
		return rc;
	}
	read_meta(s);
	*ret = s;
	return 0;
}

struct store *store_close(struct store *s)
{
	if (!s)
		return NULL;
	store_commit(s);
	sql_close(&s->q);
	free(s);
	return NULL;
}

uint64_t store_applied(const struct store *s)
{
	return s->applied;
}

uint64_t store_changes(const struct store *s)
{
	return s->changes;
}

/* FNV-1a, 64 bits (Fowler, Noll, Vo). */
static uint64_t fold(uint64_t hash, const void *p, size_t n)
{
	const uint8_t *at = p;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ at[i]) * 0x100000001b3ULL;
	return hash;
}

static uint64_t fold_column(uint64_t hash, sqlite3_stmt *st, int column)
{
	int type = sqlite3_column_type(st, column);
	uint64_t v = sql_u64(st, column);

	hash = fold(hash, &type, sizeof type);
	if (type == SQLITE_INTEGER)
		return fold(hash, &v, sizeof v);
	return fold(hash, sqlite3_column_text(st, column), (size_t)sqlite3_column_bytes(st, column) + 1);
}

uint64_t store_hash(struct store *s)
{
	uint64_t hash = 0xcbf29ce484222325ULL;

	for (size_t t = 0; store_tables[t]; t++) {
		sqlite3_stmt *st = sql_query(&s->q, store_tables[t], "");

		hash = fold(hash, &t, sizeof t);
		while (sql_row(&s->q, st))
			for (int c = 0; c < sqlite3_column_count(st); c++)
				hash = fold_column(hash, st, c);
	}
	return hash;
}

void store_snapshot(struct store *s, void **ret, size_t *ret_n)
{
	sqlite3_int64 n = 0;
	unsigned char *image;
	void *copy;

	store_commit(s);
	image = sqlite3_serialize(s->q.db, "main", &n, 0);
	CHECK(image != NULL && n > 0);
	copy = malloc((size_t)n);
	CHECK(copy != NULL);
	memcpy(copy, image, (size_t)n);
	sqlite3_free(image);
	*ret = copy;
	*ret_n = (size_t)n;
}

/* Open @p as a read-only database in memory; the caller closes it. The image says WAL in bytes 18 and 19 of its header,
 * which a database in memory cannot be: 1 means the rollback journal (SQLite file format, 1.3.3). */
static sqlite3 *open_image(const void *p, size_t n)
{
	sqlite3 *db = NULL;
	unsigned char *copy;

	if (n < 100)
		return NULL;
	copy = sqlite3_malloc64(n);
	CHECK(copy != NULL);
	memcpy(copy, p, n);
	copy[18] = copy[19] = 1;
	if (sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK ||
	    sqlite3_deserialize(db, "main", copy, (sqlite3_int64)n, (sqlite3_int64)n,
				SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE) != SQLITE_OK) {
		(void)sqlite3_close(db);
		return NULL;
	}
	return db;
}

static int image_meta(sqlite3 *db, char ret_cluster[40], uint64_t *ret_index)
{
	sqlite3_stmt *st = NULL;
	int rc = -EBADMSG;

	if (sqlite3_prepare_v2(db, "SELECT cluster, applied FROM meta", -1, &st, NULL) == SQLITE_OK &&
	    sqlite3_step(st) == SQLITE_ROW) {
		sql_str(st, 0, ret_cluster, 40);
		*ret_index = sql_u64(st, 1);
		rc = 0;
	}
	(void)sqlite3_finalize(st);
	return rc;
}

int store_image_index(const void *p, size_t n, char ret_cluster[40], uint64_t *ret_index)
{
	sqlite3 *db = open_image(p, n);
	int rc = db ? image_meta(db, ret_cluster, ret_index) : -EBADMSG;

	(void)sqlite3_close(db);
	return rc;
}

static void replace_memory(struct store *s, const void *p, size_t n)
{
	sql_close(&s->q);
	s->q.db = open_image(p, n);
	CHECK(s->q.db != NULL);
}

/* Written aside, synced and renamed: after any crash the old or the new state is there. The old write-ahead log must
 * not be played into the new file, so it goes first; without it the old file is an older, consistent state. */
static void replace_file(struct store *s, const void *p, size_t n)
{
	char side[PATH_BYTES_MAX + 8];
	struct err e = {0};

	sql_close(&s->q); /* the last connection checkpoints and removes the log */
	(void)snprintf(side, sizeof side, "%s-wal", s->path);
	(void)unlink(side);
	(void)snprintf(side, sizeof side, "%s-shm", s->path);
	(void)unlink(side);
	CHECK(file_replace(s->path, p, n, 0600, &e) == 0);
	CHECK(open_db(s->path, &s->q.db, &e) == 0);
}

int store_restore(struct store *s, const void *p, size_t n)
{
	char cluster[40];
	uint64_t index;

	if (store_image_index(p, n, cluster, &index) < 0)
		return -EBADMSG;
	store_commit(s);
	if (strcmp(s->path, ":memory:") == 0)
		replace_memory(s, p, n);
	else
		replace_file(s, p, n);
	read_meta(s);
	CHECK(s->applied == index);
	return 0;
}

int store_checkpoint(const char *path)
{
	sqlite3 *db = NULL;
	int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	(void)sqlite3_close(db);
	return rc == SQLITE_OK || rc == SQLITE_BUSY ? 0 : -EIO;
}
