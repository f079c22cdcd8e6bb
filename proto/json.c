/* SPDX-License-Identifier: Apache-2.0
 * Showing a msgpack value as JSON (RFC 8259). */
#include "proto/unpack.h"

#include <inttypes.h>
#include <msgpack.h>
#include <string.h>

static void json_string(const char *s, size_t n, struct buf *ret)
{
	buf_append(ret, "\"", 1);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '"' || c == '\\')
			buf_printf(ret, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			buf_printf(ret, "\\u%04x", c);
		else
			buf_append(ret, &s[i], 1);
	}
	buf_append(ret, "\"", 1);
}

static void newline(int indent, struct buf *ret)
{
	if (indent < 0)
		return;
	buf_append(ret, "\n", 1);
	for (int i = 0; i < indent; i++)
		buf_append(ret, "  ", 2);
}

static void json_value(const msgpack_object *o, int indent, struct buf *ret);

static void json_array(const msgpack_object *o, int indent, struct buf *ret)
{
	int deeper = indent < 0 ? -1 : indent + 1;

	buf_append(ret, "[", 1);
	for (uint32_t i = 0; i < o->via.array.size; i++) {
		if (i)
			buf_append(ret, ",", 1);
		newline(deeper, ret);
		json_value(&o->via.array.ptr[i], deeper, ret);
	}
	if (o->via.array.size)
		newline(indent, ret);
	buf_append(ret, "]", 1);
}

static void json_map(const msgpack_object *o, int indent, struct buf *ret)
{
	int deeper = indent < 0 ? -1 : indent + 1;

	buf_append(ret, "{", 1);
	for (uint32_t i = 0; i < o->via.map.size; i++) {
		if (i)
			buf_append(ret, ",", 1);
		newline(deeper, ret);
		json_value(&o->via.map.ptr[i].key, deeper, ret);
		buf_append(ret, ": ", indent < 0 ? 1 : 2);
		json_value(&o->via.map.ptr[i].val, deeper, ret);
	}
	if (o->via.map.size)
		newline(indent, ret);
	buf_append(ret, "}", 1);
}

static void json_bin(const msgpack_object *o, struct buf *ret)
{
	buf_append(ret, "\"", 1);
	for (uint32_t i = 0; i < o->via.bin.size; i++)
		buf_printf(ret, "%02x", (unsigned char)o->via.bin.ptr[i]);
	buf_append(ret, "\"", 1);
}

static void json_value(const msgpack_object *o, int indent, struct buf *ret)
{
	switch (o->type) {
	case MSGPACK_OBJECT_BOOLEAN:
		buf_printf(ret, "%s", o->via.boolean ? "true" : "false");
		break;
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		buf_printf(ret, "%" PRIu64, o->via.u64);
		break;
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		buf_printf(ret, "%" PRId64, o->via.i64);
		break;
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		buf_printf(ret, "%.17g", o->via.f64);
		break;
	case MSGPACK_OBJECT_STR:
		json_string(o->via.str.ptr, o->via.str.size, ret);
		break;
	case MSGPACK_OBJECT_BIN:
		json_bin(o, ret);
		break;
	case MSGPACK_OBJECT_ARRAY:
		json_array(o, indent, ret);
		break;
	case MSGPACK_OBJECT_MAP:
		json_map(o, indent, ret);
		break;
	default:
		buf_printf(ret, "null");
	}
}

void unpack_json(const struct msgpack_object *o, int indent, struct buf *ret)
{
	json_value(o, indent, ret);
}
