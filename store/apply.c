/* SPDX-License-Identifier: Apache-2.0
 * Applying log entries: each once, in one transaction with its index, with the same result on every node. */
#include "store/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void store_refuse(struct store_result *r, int code, const char *fmt, ...)
{
	va_list ap;

	CHECK(code < 0);
	r->code = code;
	va_start(ap, fmt);
	(void)vsnprintf(r->text, sizeof r->text, fmt, ap);
	va_end(ap);
}

void store_event_add(struct store *s, const char *kind, const char *object, const char *fmt, ...)
{
	char text[REASON_BYTES_MAX];
	sqlite3_stmt *st;
	uint64_t id = 0;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	CHECK(sql_run(&s->q, "UPDATE meta SET event_max = event_max + 1", "") == 0);
	st = sql_query(&s->q, "SELECT event_max FROM meta", "");
	while (sql_row(&s->q, st))
		id = sql_u64(st, 0);
	CHECK(sql_run(&s->q, "INSERT INTO events VALUES(?,?,?,?,?)", "uusss", id, s->wall, kind, object, text) == 0);
	if (id > EVENTS_MAX)
		CHECK(sql_run(&s->q, "DELETE FROM events WHERE id <= ?", "u", id - EVENTS_MAX) == 0);
}

/* One row a body: its message type, the room for it, and who applies it. */
union body {
	struct command_genesis genesis;
	struct command_node_add node_add;
	struct command_token_add token_add;
	struct command_vm_put vm_put;
	struct command_vm_delete vm_delete;
	struct command_vm_want vm_want;
	struct command_vm_restart vm_restart;
	struct command_move move;
	struct command_movable movable;
	struct command_want_movable want_movable;
	struct command_volume_create volume_create;
	struct command_volume_change volume_change;
	struct command_volume_report volume_report;
	struct command_volume_takeover volume_takeover;
	struct command_volume_member volume_member;
	struct command_volume_erased volume_erased;
	struct command_volume_set volume_set;
	struct command_volume_delete volume_delete;
	struct command_disk disk;
	struct command_export export;
	struct command_node_fence node_fence;
	struct command_image_add image_add;
	struct command_image_rm image_rm;
	struct command_image_held image_held;
	struct command_vm_files vm_files;
	struct command_volume_image volume_image;
	struct command_volume_filled volume_filled;
	struct command_volume_grow volume_grow;
	struct command_vm_end vm_end;
	struct command_node_engine node_engine;
	struct command_node_remove node_remove;
};

#define APPLY(name)                                                                            \
	static void apply_##name(struct store *s, const union body *b, struct store_result *r) \
	{                                                                                      \
		store_apply_##name(s, &b->name, r);                                            \
	}
APPLY(genesis)
APPLY(node_add)
APPLY(token_add)
APPLY(vm_put)
APPLY(vm_delete)
APPLY(vm_want)
APPLY(vm_restart)
APPLY(move)
APPLY(movable)
APPLY(want_movable)
APPLY(volume_create)
APPLY(volume_change)
APPLY(volume_report)
APPLY(volume_takeover)
APPLY(volume_member)
APPLY(volume_erased)
APPLY(volume_set)
APPLY(volume_delete)
APPLY(disk)
APPLY(export)
APPLY(node_fence)
APPLY(image_add)
APPLY(image_rm)
APPLY(image_held)
APPLY(vm_files)
APPLY(volume_image)
APPLY(volume_filled)
APPLY(volume_grow)
APPLY(vm_end)
APPLY(node_engine)
APPLY(node_remove)
#undef APPLY

static const struct applier {
	const struct message_type *type;
	void (*apply)(struct store *s, const union body *b, struct store_result *r);
} appliers[] = {
	{&command_genesis_type, apply_genesis},
	{&command_node_add_type, apply_node_add},
	{&command_token_add_type, apply_token_add},
	{&command_vm_put_type, apply_vm_put},
	{&command_vm_delete_type, apply_vm_delete},
	{&command_vm_want_type, apply_vm_want},
	{&command_vm_restart_type, apply_vm_restart},
	{&command_move_type, apply_move},
	{&command_movable_type, apply_movable},
	{&command_want_movable_type, apply_want_movable},
	{&command_volume_create_type, apply_volume_create},
	{&command_volume_change_type, apply_volume_change},
	{&command_volume_report_type, apply_volume_report},
	{&command_volume_takeover_type, apply_volume_takeover},
	{&command_volume_member_type, apply_volume_member},
	{&command_volume_erased_type, apply_volume_erased},
	{&command_volume_set_type, apply_volume_set},
	{&command_volume_delete_type, apply_volume_delete},
	{&command_disk_type, apply_disk},
	{&command_export_type, apply_export},
	{&command_node_fence_type, apply_node_fence},
	{&command_image_add_type, apply_image_add},
	{&command_image_rm_type, apply_image_rm},
	{&command_image_held_type, apply_image_held},
	{&command_vm_files_type, apply_vm_files},
	{&command_volume_image_type, apply_volume_image},
	{&command_volume_filled_type, apply_volume_filled},
	{&command_volume_grow_type, apply_volume_grow},
	{&command_vm_end_type, apply_vm_end},
	{&command_node_engine_type, apply_node_engine},
	{&command_node_remove_type, apply_node_remove},
};

static const struct applier *applier_of(uint32_t id)
{
	for (size_t i = 0; i < ARRAY_LEN(appliers); i++)
		if (appliers[i].type->id == id)
			return &appliers[i];
	return NULL;
}

/* All bodies, until one is refused. An entry that this release cannot read is refused as a whole: it never got into the
 * log through an agent of this release or an older one. */
static void apply_bodies(struct store *s, uint32_t bodies, const uint8_t *p, size_t n, struct store_result *r)
{
	for (uint32_t i = 0; i < bodies && r->code == 0; i++) {
		const struct applier *a;
		union body body;
		uint32_t id;
		size_t used;

		if (message_id(p, n, &id) < 0 || !(a = applier_of(id)) ||
		    message_decode(a->type, p, n, &body, &used) < 0) {
			store_refuse(r, PROTO_E_INVALID, "unreadable command");
			return;
		}
		a->apply(s, &body, r);
		p += used;
		n -= used;
	}
}

static void begin(struct store *s)
{
	if (s->uncommitted++ == 0)
		CHECK(sql_run(&s->q, "BEGIN IMMEDIATE", "") == 0);
}

static void apply_entry(struct store *s, const uint8_t *p, size_t n, struct store_result *r)
{
	struct command_head head;
	size_t used;

	if (message_decode(&command_head_type, p, n, &head, &used) < 0) {
		store_refuse(r, PROTO_E_INVALID, "unreadable command");
		return;
	}
	if (head.wall > s->wall)
		s->wall = head.wall;
	s->actor = head.actor;
	if (store_session_known(s, &head, r))
		return;
	CHECK(sql_run(&s->q, "SAVEPOINT command", "") == 0);
	apply_bodies(s, head.bodies, p + used, n - used, r);
	if (r->code)
		CHECK(sql_run(&s->q, "ROLLBACK TO command", "") == 0);
	CHECK(sql_run(&s->q, "RELEASE command", "") == 0);
	store_session_answer(s, &head, r);
	s->actor = NULL;
}

void store_apply(struct store *s, uint64_t index, const void *entry, size_t n, struct store_result *ret)
{
	*ret = (struct store_result){0};
	if (index <= s->applied)
		return; /* delivered again after a restart */
	begin(s);
	apply_entry(s, entry, n, ret);
	CHECK(sql_run(&s->q, "UPDATE meta SET applied = ?, wall = ?", "uu", index, s->wall) == 0);
	s->applied = index;
	s->changes++;
	if (s->uncommitted >= STORE_COMMIT_ENTRIES)
		store_commit(s);
}

void store_commit(struct store *s)
{
	if (s->uncommitted == 0)
		return;
	CHECK(sql_run(&s->q, "COMMIT", "") == 0);
	s->uncommitted = 0;
}
