/* SPDX-License-Identifier: Apache-2.0
 * SQLite in the store's way: cached statements, typed binding, and no error but a constraint survives. */
#ifndef KEDGE_STORE_SQL_H
#define KEDGE_STORE_SQL_H

#include "base/base.h"

#include <sqlite3.h>

#define SQL_STATEMENTS_MAX 128

struct sql {
	sqlite3 *db;
	size_t n;
	struct {
		const char *text; /* a string literal: compared by address */
		sqlite3_stmt *stmt;
	} cache[SQL_STATEMENTS_MAX];
};

/* Bind per letter of @types: 'u' uint64_t, 's' const char *. Then call sql_row() until it returns false. */
sqlite3_stmt *sql_query(struct sql *q, const char *text, const char *types, ...);

/* True: a row is there. False: no more; the statement is reset. -> the process ends on an I/O error. */
bool sql_row(struct sql *q, sqlite3_stmt *stmt);

/* Run a statement without rows. 0, or -EEXIST when a constraint refused it. */
int sql_run(struct sql *q, const char *text, const char *types, ...);

uint64_t sql_u64(sqlite3_stmt *stmt, int column);
/* Copy text; CHECKs that it fits: what is stored was checked on the way in. */
void sql_str(sqlite3_stmt *stmt, int column, char *ret, size_t size);

/* Finalise every statement, close the database. */
void sql_close(struct sql *q);

#endif
