/* SPDX-License-Identifier: Apache-2.0
 * Client sessions: a retry after a leader's loss is answered, not applied again (Raft dissertation, section 6.3). */
#include "store/internal.h"

#include <string.h>

/* Only the one that is idle for longest, and only when its room is needed: to a leader whose clock is hours ahead all
 * seem idle, and what is forgotten is a new request when it is retried. */
static void expire_one(struct store *s)
{
	uint64_t idle = SESSION_IDLE_SEC * USEC_PER_SEC;
	uint64_t before = s->wall > idle ? s->wall - idle : 0, id = 0;
	sqlite3_stmt *st =
		sql_query(&s->q, "SELECT id FROM sessions WHERE last < ? ORDER BY last, id LIMIT 1", "u", before);

	while (sql_row(&s->q, st))
		id = sql_u64(st, 0);
	CHECK(sql_run(&s->q, "DELETE FROM answers WHERE session = ?", "u", id) == 0);
	CHECK(sql_run(&s->q, "DELETE FROM sessions WHERE id = ?", "u", id) == 0);
}

static uint64_t count(struct store *s)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT count(*) FROM sessions", "");
	uint64_t n = 0;

	while (sql_row(&s->q, st))
		n = sql_u64(st, 0);
	return n;
}

static bool find(struct store *s, uint64_t id, uint64_t *ret_num_max)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT num_max FROM sessions WHERE id = ?", "u", id);
	bool found = false;

	while (sql_row(&s->q, st)) {
		*ret_num_max = sql_u64(st, 0);
		found = true;
	}
	return found;
}

static bool answered(struct store *s, const struct command_head *head, struct store_result *r)
{
	sqlite3_stmt *st = sql_query(&s->q, "SELECT code, text FROM answers WHERE session = ? AND num = ?", "uu",
				     head->session, head->num);
	bool found = false;

	while (sql_row(&s->q, st)) {
		r->code = sqlite3_column_int(st, 0);
		sql_str(st, 1, r->text, sizeof r->text);
		found = true;
	}
	return found;
}

bool store_session_known(struct store *s, const struct command_head *head, struct store_result *r)
{
	uint64_t num_max;

	if (head->session == 0)
		return false;
	if (answered(s, head, r))
		return true;
	if (find(s, head->session, &num_max)) {
		if (head->num > num_max)
			return false;
		store_refuse(r, PROTO_E_OLD_REQUEST, "request %llu of this session is no longer known",
			     (unsigned long long)head->num);
		return true;
	}
	/* Only a session's first request may make it: a later one belongs to a session that has been forgotten. */
	if (head->num != 1) {
		store_refuse(r, PROTO_E_OLD_REQUEST, "this session is not known (idle for an hour?)");
		return true;
	}
	if (count(s) >= SESSIONS_MAX)
		expire_one(s);
	if (count(s) < SESSIONS_MAX)
		return false;
	store_refuse(r, PROTO_E_TOO_MANY, "%d sessions are in use: one is free after an hour of idling", SESSIONS_MAX);
	return true;
}

void store_session_answer(struct store *s, const struct command_head *head, const struct store_result *r)
{
	if (head->session == 0)
		return;
	CHECK(sql_run(&s->q,
		      "INSERT INTO sessions VALUES(?,?,?) ON CONFLICT(id) DO UPDATE SET last = excluded.last,"
		      " num_max = excluded.num_max",
		      "uuu", head->session, s->wall, head->num) == 0);
	CHECK(sql_run(&s->q, "INSERT INTO answers VALUES(?,?,?,?)", "uuus", head->session, head->num,
		      (uint64_t)(int64_t)r->code, r->text) == 0);
	if (head->num > SESSION_ANSWERS_MAX)
		CHECK(sql_run(&s->q, "DELETE FROM answers WHERE session = ? AND num <= ?", "uu", head->session,
			      head->num - SESSION_ANSWERS_MAX) == 0);
}
