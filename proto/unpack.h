/* SPDX-License-Identifier: Apache-2.0
 * Reading msgpack that a stranger may have sent: nothing is allocated before every length was held against the bytes
 * that are really there. */
#ifndef KEDGE_PROTO_UNPACK_H
#define KEDGE_PROTO_UNPACK_H

#include "base/base.h"

#define UNPACK_DEPTH_MAX 16

struct msgpack_object; /* a value, of msgpack-c; valid as long as its struct unpack and the bytes that it read */

struct unpack {
	void *zone; /* private */
	const struct msgpack_object *root;
};

/* [any] Look whether @p starts with one whole value nested at most UNPACK_DEPTH_MAX deep, and set @ret_used to its
 * length. -EAGAIN: more bytes are needed. -EBADMSG: never a value, whatever follows. Allocates nothing. */
int unpack_scan(const uint8_t *p, size_t n, size_t *ret_used) KEDGE_MUST_CHECK;

/* [any] Read the one value that @p starts with. Strings point into @p. unpack_free() afterwards, also on failure.
 * -EBADMSG when it is not whole or not msgpack. */
int unpack_open(struct unpack *u, const uint8_t *p, size_t n) KEDGE_MUST_CHECK;
void unpack_free(struct unpack *u);

/* [any] The value of @key in a map, the @i-th of an array; NULL when it is not there or @o is no such thing (NULL too,
 * so that look-ups can be chained). */
const struct msgpack_object *unpack_key(const struct msgpack_object *o, const char *key);
const struct msgpack_object *unpack_at(const struct msgpack_object *o, size_t i);

/* [any] Elements of an array or pairs of a map; 0 for anything else. */
size_t unpack_count(const struct msgpack_object *o);

/* [any] The @i-th pair of a map; false past its end. */
bool unpack_pair(const struct msgpack_object *o, size_t i, const struct msgpack_object **ret_key,
		 const struct msgpack_object **ret_value);

/* [any] Copy a value out; false (and @ret untouched) when @o is NULL, of another type, too big, or, for a string, holds
 * a zero byte or does not fit into @size with its terminating zero. */
bool unpack_u64(const struct msgpack_object *o, uint64_t *ret);
bool unpack_i64(const struct msgpack_object *o, int64_t *ret);
bool unpack_bool(const struct msgpack_object *o, bool *ret);
bool unpack_str(const struct msgpack_object *o, char *ret, size_t size);
bool unpack_bin(const struct msgpack_object *o, const uint8_t **ret, size_t *ret_n);

/* [any] */
bool unpack_is_map(const struct msgpack_object *o);
bool unpack_is_array(const struct msgpack_object *o);
bool unpack_is_nil(const struct msgpack_object *o);
bool unpack_is_str(const struct msgpack_object *o);

/* [any] Write @o into @out as msgpack. */
void unpack_copy(const struct msgpack_object *o, struct buf *out);

/* [any] Append @o to @ret as JSON, in one line when @indent < 0. Binary data is shown as hexadecimal digits. */
void unpack_json(const struct msgpack_object *o, int indent, struct buf *ret);

#endif
