/* SPDX-License-Identifier: Apache-2.0
 * Structs as msgpack arrays, by a table of their fields: [version, id, field, field, ...].
 *
 * Fields are only ever added at the end: a reader ignores more than it knows, and zeroes what the writer did not have.
 * So a newer agent works with the previous release's (DESIGN, section 5). */
#ifndef KEDGE_PROTO_MESSAGE_H
#define KEDGE_PROTO_MESSAGE_H

#include "base/base.h"

#define MESSAGE_VERSION    1
#define MESSAGE_FIELDS_MAX 40

enum message_kind {
	MESSAGE_U64,  /* uint64_t */
	MESSAGE_U32,  /* uint32_t */
	MESSAGE_BOOL, /* bool */
	MESSAGE_STR,  /* char[size], terminated */
	MESSAGE_BIN,  /* struct message_bin: a view into the bytes read */
};

struct message_bin {
	const uint8_t *p;
	size_t n;
};

struct message_field {
	const char *name;
	enum message_kind kind;
	size_t offset;
	size_t size;
};

struct message_type {
	uint32_t id;
	const char *name;
	size_t size;
	size_t n_fields;
	const struct message_field *fields;
};

#define MESSAGE_FIELD(type, kind, field)                                                  \
	{                                                                                 \
#field, MESSAGE_##kind, offsetof(type, field), sizeof(((type *)0)->field) \
	}

/* [any] Append @msg to @ret. */
void message_encode(const struct message_type *t, const void *msg, struct buf *ret);

/* [any] Read the message that @p starts with into @ret (zeroed first), and its length into @ret_used (may be NULL).
 * -EBADMSG: not a @t, a field of another type, or a string that does not fit. */
int message_decode(const struct message_type *t, const uint8_t *p, size_t n, void *ret,
		   size_t *ret_used) KEDGE_MUST_CHECK;

/* [any] The id of the message that @p starts with. -EBADMSG when there is none. */
int message_id(const uint8_t *p, size_t n, uint32_t *ret) KEDGE_MUST_CHECK;

#endif
