/* SPDX-License-Identifier: Apache-2.0
 * Structs as msgpack arrays. */
#include "proto/message.h"

#include "proto/pack.h"
#include "proto/unpack.h"

#include <errno.h>
#include <string.h>

static void encode_field(struct pack *p, const struct message_field *f, const void *msg)
{
	const void *at = (const char *)msg + f->offset;
	const struct message_bin *bin = at;

	switch (f->kind) {
	case MESSAGE_U64:
		pack_u64(p, *(const uint64_t *)at);
		break;
	case MESSAGE_U32:
		pack_u64(p, *(const uint32_t *)at);
		break;
	case MESSAGE_BOOL:
		pack_bool(p, *(const bool *)at);
		break;
	case MESSAGE_STR:
		CHECK(memchr(at, 0, f->size) != NULL);
		pack_str(p, at);
		break;
	case MESSAGE_BIN:
		pack_bin(p, bin->p, bin->n);
		break;
	}
}

void message_encode(const struct message_type *t, const void *msg, struct buf *ret)
{
	struct pack p = {.out = ret};

	CHECK(t->n_fields <= MESSAGE_FIELDS_MAX);
	pack_array(&p);
	pack_u64(&p, MESSAGE_VERSION);
	pack_u64(&p, t->id);
	for (size_t i = 0; i < t->n_fields; i++)
		encode_field(&p, &t->fields[i], msg);
	pack_end(&p);
}

static bool decode_u32(const struct msgpack_object *o, uint32_t *ret)
{
	uint64_t v;

	if (!unpack_u64(o, &v) || v > UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool decode_field(const struct message_field *f, const struct msgpack_object *o, void *msg)
{
	void *at = (char *)msg + f->offset;
	struct message_bin *bin = at;

	switch (f->kind) {
	case MESSAGE_U64:
		return unpack_u64(o, at);
	case MESSAGE_U32:
		return decode_u32(o, at);
	case MESSAGE_BOOL:
		return unpack_bool(o, at);
	case MESSAGE_STR:
		return unpack_str(o, at, f->size);
	case MESSAGE_BIN:
		return unpack_bin(o, &bin->p, &bin->n);
	}
	return false;
}

static bool header_is(const struct msgpack_object *root, uint32_t id)
{
	uint64_t version, got;

	return unpack_u64(unpack_at(root, 0), &version) && version >= 1 && unpack_u64(unpack_at(root, 1), &got) &&
	       got == id;
}

int message_decode(const struct message_type *t, const uint8_t *p, size_t n, void *ret, size_t *ret_used)
{
	struct unpack u;
	size_t used;
	bool ok;

	if (unpack_scan(p, n, &used) < 0)
		return -EBADMSG;
	ok = unpack_open(&u, p, used) == 0 && header_is(u.root, t->id);
	if (ok) {
		memset(ret, 0, t->size);
		for (size_t i = 0; ok && i < t->n_fields && i + 2 < unpack_count(u.root); i++)
			ok = decode_field(&t->fields[i], unpack_at(u.root, i + 2), ret);
	}
	unpack_free(&u);
	if (!ok)
		return -EBADMSG;
	if (ret_used)
		*ret_used = used;
	return 0;
}

int message_id(const uint8_t *p, size_t n, uint32_t *ret)
{
	struct unpack u;
	uint64_t id = 0;
	int rc = unpack_open(&u, p, n);

	if (rc == 0 && (!unpack_u64(unpack_at(u.root, 1), &id) || id > UINT32_MAX))
		rc = -EBADMSG;
	unpack_free(&u);
	if (rc == 0)
		*ret = (uint32_t)id;
	return rc;
}
