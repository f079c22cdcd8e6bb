/* SPDX-License-Identifier: Apache-2.0
 * What the tests of the store share. */
#include "tests/unit/store_help.h"

int apply_all(struct fixture *f, const struct body *bodies, uint32_t n)
{
	struct command_head head = {.wall = WALL, .actor = "test", .bodies = n};
	struct store_result r;
	struct buf entry = {0};

	command_begin(&head, &entry);
	for (uint32_t i = 0; i < n; i++)
		message_encode(bodies[i].type, bodies[i].body, &entry);
	store_apply(f->s, ++f->index, entry.data, entry.len, &r);
	store_commit(f->s);
	buf_free(&entry);
	return r.code;
}

int apply(struct fixture *f, const struct message_type *t, const void *body)
{
	return apply_all(f, &(struct body){t, body}, 1);
}
