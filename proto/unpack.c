/* SPDX-License-Identifier: Apache-2.0
 * Reading msgpack that a stranger may have sent. */
#include "proto/unpack.h"

#include <errno.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

/* What a value's first byte says: @head bytes belong to the value itself, of them the last @size hold a count when
 * @counted; @values values follow (per count, when counted), or count bytes when @is_bytes. */
struct shape {
	uint8_t head;
	bool counted;
	bool is_bytes;
	uint8_t values;
	uint32_t fixed; /* the count, for forms that carry it in the first byte */
};

static bool shape_of_small(uint8_t b, struct shape *ret)
{
	if (b <= 0x7f || b >= 0xe0) /* fixint */
		*ret = (struct shape){.head = 1};
	else if (b <= 0x8f) /* fixmap */
		*ret = (struct shape){.head = 1, .values = 2, .fixed = b & 0x0f};
	else if (b <= 0x9f) /* fixarray */
		*ret = (struct shape){.head = 1, .values = 1, .fixed = b & 0x0f};
	else if (b <= 0xbf) /* fixstr */
		*ret = (struct shape){.head = 1, .is_bytes = true, .fixed = b & 0x1f};
	else
		return false;
	return true;
}

static bool shape_of(uint8_t b, struct shape *ret)
{
	static const struct shape wide[32] = {
		[0xc0 - 0xc0] = {.head = 1}, /* nil */
		[0xc2 - 0xc0] = {.head = 1},
		[0xc3 - 0xc0] = {.head = 1},
		[0xc4 - 0xc0] = {.head = 2, .counted = true, .is_bytes = true}, /* bin 8, 16, 32 */
		[0xc5 - 0xc0] = {.head = 3, .counted = true, .is_bytes = true},
		[0xc6 - 0xc0] = {.head = 5, .counted = true, .is_bytes = true},
		[0xca - 0xc0] = {.head = 5}, /* float 32, 64 */
		[0xcb - 0xc0] = {.head = 9},
		[0xcc - 0xc0] = {.head = 2}, /* uint 8 to 64 */
		[0xcd - 0xc0] = {.head = 3},
		[0xce - 0xc0] = {.head = 5},
		[0xcf - 0xc0] = {.head = 9},
		[0xd0 - 0xc0] = {.head = 2}, /* int 8 to 64 */
		[0xd1 - 0xc0] = {.head = 3},
		[0xd2 - 0xc0] = {.head = 5},
		[0xd3 - 0xc0] = {.head = 9},
		[0xd9 - 0xc0] = {.head = 2, .counted = true, .is_bytes = true}, /* str 8, 16, 32 */
		[0xda - 0xc0] = {.head = 3, .counted = true, .is_bytes = true},
		[0xdb - 0xc0] = {.head = 5, .counted = true, .is_bytes = true},
		[0xdc - 0xc0] = {.head = 3, .counted = true, .values = 1}, /* array 16, 32 */
		[0xdd - 0xc0] = {.head = 5, .counted = true, .values = 1},
		[0xde - 0xc0] = {.head = 3, .counted = true, .values = 2}, /* map 16, 32 */
		[0xdf - 0xc0] = {.head = 5, .counted = true, .values = 2},
	};

	if (shape_of_small(b, ret))
		return true;
	*ret = wide[b - 0xc0];
	return ret->head != 0; /* 0xc1 is never used; extension types are not ours */
}

static uint64_t count_of(const struct shape *s, const uint8_t *p)
{
	uint64_t count = s->fixed;

	for (unsigned i = 1; s->counted && i < s->head; i++)
		count = count << 8 | p[i];
	return count;
}

int unpack_scan(const uint8_t *p, size_t n, size_t *ret_used)
{
	uint64_t left[UNPACK_DEPTH_MAX + 1] = {1}; /* values still to come, per depth */
	size_t at = 0;
	int depth = 0;

	for (;;) {
		struct shape s;
		uint64_t count;

		while (left[depth] == 0) {
			if (depth == 0) {
				*ret_used = at;
				return 0;
			}
			depth--;
		}
		if (at >= n)
			return -EAGAIN;
		if (!shape_of(p[at], &s))
			return -EBADMSG;
		if (n - at < s.head)
			return -EAGAIN;
		left[depth]--;
		count = count_of(&s, p + at);
		at += s.head;
		if (s.is_bytes) {
			if (n - at < count)
				return count > FRAME_BYTES_MAX ? -EBADMSG : -EAGAIN;
			at += count;
		} else if (s.values) {
			if (count > FRAME_BYTES_MAX || depth == UNPACK_DEPTH_MAX)
				return -EBADMSG;
			left[++depth] = count * s.values;
		}
	}
}

int unpack_open(struct unpack *u, const uint8_t *p, size_t n)
{
	msgpack_object *root;
	size_t used, at = 0;

	*u = (struct unpack){0};
	if (unpack_scan(p, n, &used) < 0)
		return -EBADMSG;
	u->zone = msgpack_zone_new(2048);
	CHECK(u->zone != NULL);
	root = msgpack_zone_malloc(u->zone, sizeof *root);
	CHECK(root != NULL);
	if (msgpack_unpack((const char *)p, used, &at, u->zone, root) < 0)
		return -EBADMSG;
	u->root = root;
	return 0;
}

void unpack_free(struct unpack *u)
{
	if (u->zone)
		msgpack_zone_free(u->zone);
	*u = (struct unpack){0};
}

static bool str_is(const msgpack_object *o, const char *s)
{
	size_t n = strlen(s);

	return o->type == MSGPACK_OBJECT_STR && o->via.str.size == n && memcmp(o->via.str.ptr, s, n) == 0;
}

const struct msgpack_object *unpack_key(const struct msgpack_object *o, const char *key)
{
	if (!unpack_is_map(o))
		return NULL;
	for (uint32_t i = 0; i < o->via.map.size; i++)
		if (str_is(&o->via.map.ptr[i].key, key))
			return &o->via.map.ptr[i].val;
	return NULL;
}

const struct msgpack_object *unpack_at(const struct msgpack_object *o, size_t i)
{
	return unpack_is_array(o) && i < o->via.array.size ? &o->via.array.ptr[i] : NULL;
}

size_t unpack_count(const struct msgpack_object *o)
{
	if (unpack_is_map(o))
		return o->via.map.size;
	return unpack_is_array(o) ? o->via.array.size : 0;
}

bool unpack_pair(const struct msgpack_object *o, size_t i, const struct msgpack_object **ret_key,
		 const struct msgpack_object **ret_value)
{
	if (!unpack_is_map(o) || i >= o->via.map.size)
		return false;
	*ret_key = &o->via.map.ptr[i].key;
	*ret_value = &o->via.map.ptr[i].val;
	return true;
}

bool unpack_u64(const struct msgpack_object *o, uint64_t *ret)
{
	if (!o || o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return false;
	*ret = o->via.u64;
	return true;
}

bool unpack_i64(const struct msgpack_object *o, int64_t *ret)
{
	if (!o || (o->type != MSGPACK_OBJECT_NEGATIVE_INTEGER &&
		   (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER || o->via.u64 > INT64_MAX)))
		return false;
	*ret = o->via.i64;
	return true;
}

bool unpack_bool(const struct msgpack_object *o, bool *ret)
{
	if (!o || o->type != MSGPACK_OBJECT_BOOLEAN)
		return false;
	*ret = o->via.boolean;
	return true;
}

bool unpack_str(const struct msgpack_object *o, char *ret, size_t size)
{
	CHECK(size > 0);
	if (!o || o->type != MSGPACK_OBJECT_STR || o->via.str.size >= size)
		return false;
	if (o->via.str.size && memchr(o->via.str.ptr, 0, o->via.str.size))
		return false;
	memset(ret, 0, size);
	if (o->via.str.size)
		memcpy(ret, o->via.str.ptr, o->via.str.size);
	return true;
}

bool unpack_bin(const struct msgpack_object *o, const uint8_t **ret, size_t *ret_n)
{
	if (!o || o->type != MSGPACK_OBJECT_BIN)
		return false;
	*ret = (const uint8_t *)o->via.bin.ptr;
	*ret_n = o->via.bin.size;
	return true;
}

bool unpack_is_map(const struct msgpack_object *o)
{
	return o && o->type == MSGPACK_OBJECT_MAP;
}

bool unpack_is_array(const struct msgpack_object *o)
{
	return o && o->type == MSGPACK_OBJECT_ARRAY;
}

bool unpack_is_nil(const struct msgpack_object *o)
{
	return o && o->type == MSGPACK_OBJECT_NIL;
}

bool unpack_is_str(const struct msgpack_object *o)
{
	return o && o->type == MSGPACK_OBJECT_STR;
}

static int write_to_buf(void *data, const char *p, size_t n)
{
	buf_append(data, p, n);
	return 0;
}

void unpack_copy(const struct msgpack_object *o, struct buf *out)
{
	msgpack_packer pk;

	msgpack_packer_init(&pk, out, write_to_buf);
	(void)msgpack_pack_object(&pk, *o);
}
