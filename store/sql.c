/* SPDX-License-Identifier: Apache-2.0
 * SQLite in the store's way. */
#include "store/sql.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

static _Noreturn void fatal(struct sql *q, const char *text)
{
	(void)fprintf(stderr, "kedge: state database: %s (%s): ending, the log will bring the state back\n",
		      sqlite3_errmsg(q->db), text);
	abort();
}

static sqlite3_stmt *prepare(struct sql *q, const char *text)
{
	sqlite3_stmt *stmt;

	for (size_t i = 0; i < q->n; i++)
		if (q->cache[i].text == text)
			return q->cache[i].stmt;
	CHECK(q->n < SQL_STATEMENTS_MAX);
	if (sqlite3_prepare_v3(q->db, text, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL) != SQLITE_OK)
		fatal(q, text);
	q->cache[q->n].text = text;
	q->cache[q->n++].stmt = stmt;
	return stmt;
}

static void bind_all(sqlite3_stmt *stmt, const char *types, va_list ap)
{
	int at = 1;

	for (const char *t = types; *t; t++, at++) {
		if (*t == 's') {
			CHECK(sqlite3_bind_text(stmt, at, va_arg(ap, const char *), -1, SQLITE_TRANSIENT) == SQLITE_OK);
			continue;
		}
		CHECK(*t == 'u');
		CHECK(sqlite3_bind_int64(stmt, at, (sqlite3_int64)va_arg(ap, uint64_t)) == SQLITE_OK);
	}
	CHECK(sqlite3_bind_parameter_count(stmt) == at - 1);
}

sqlite3_stmt *sql_query(struct sql *q, const char *text, const char *types, ...)
{
	sqlite3_stmt *stmt = prepare(q, text);
	va_list ap;

	(void)sqlite3_reset(stmt);
	va_start(ap, types);
	bind_all(stmt, types, ap);
	va_end(ap);
	return stmt;
}

bool sql_row(struct sql *q, sqlite3_stmt *stmt)
{
	int rc = sqlite3_step(stmt);

	if (rc == SQLITE_ROW)
		return true;
	if (rc != SQLITE_DONE)
		fatal(q, sqlite3_sql(stmt));
	(void)sqlite3_reset(stmt);
	return false;
}

int sql_run(struct sql *q, const char *text, const char *types, ...)
{
	sqlite3_stmt *stmt = prepare(q, text);
	va_list ap;
	int rc;

	(void)sqlite3_reset(stmt);
	va_start(ap, types);
	bind_all(stmt, types, ap);
	va_end(ap);
	rc = sqlite3_step(stmt);
	if (rc == SQLITE_CONSTRAINT) {
		(void)sqlite3_reset(stmt);
		return -EEXIST;
	}
	if (rc != SQLITE_DONE && rc != SQLITE_ROW)
		fatal(q, text);
	(void)sqlite3_reset(stmt);
	return 0;
}

uint64_t sql_u64(sqlite3_stmt *stmt, int column)
{
	return (uint64_t)sqlite3_column_int64(stmt, column);
}

void sql_str(sqlite3_stmt *stmt, int column, char *ret, size_t size)
{
	const char *s = (const char *)sqlite3_column_text(stmt, column);
	size_t n = s ? strlen(s) : 0;

	CHECK(n < size);
	memset(ret, 0, size);
	if (n)
		memcpy(ret, s, n);
}

void sql_close(struct sql *q)
{
	for (size_t i = 0; i < q->n; i++)
		(void)sqlite3_finalize(q->cache[i].stmt);
	CHECK(sqlite3_close(q->db) == SQLITE_OK);
	*q = (struct sql){0};
}
