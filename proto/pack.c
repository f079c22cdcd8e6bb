/* SPDX-License-Identifier: Apache-2.0
 * Writing msgpack into a buffer. */
#include "proto/pack.h"

#include <msgpack.h>
#include <string.h>

static int write_to_buf(void *data, const char *p, size_t n)
{
	buf_append(data, p, n);
	return 0;
}

static msgpack_packer packer(struct pack *p)
{
	msgpack_packer pk;

	msgpack_packer_init(&pk, p->out, write_to_buf);
	return pk;
}

static void count_one(struct pack *p)
{
	if (p->depth > 0)
		p->open[p->depth - 1].count++;
}

/* The 32-bit forms are used, so that the count can be patched in when it is known. */
static void begin(struct pack *p, uint8_t tag, bool is_map)
{
	const uint8_t head[5] = {tag};

	CHECK(p->depth < PACK_DEPTH_MAX);
	count_one(p);
	p->open[p->depth].at = p->out->len + 1;
	p->open[p->depth].count = 0;
	p->open[p->depth].is_map = is_map;
	p->depth++;
	buf_append(p->out, head, sizeof head);
}

void pack_map(struct pack *p)
{
	begin(p, 0xdf, true);
}

void pack_array(struct pack *p)
{
	begin(p, 0xdd, false);
}

void pack_end(struct pack *p)
{
	uint32_t count;
	uint8_t *at;

	CHECK(p->depth > 0);
	p->depth--;
	count = p->open[p->depth].count;
	if (p->open[p->depth].is_map) {
		CHECK(count % 2 == 0);
		count /= 2;
	}
	at = p->out->data + p->open[p->depth].at;
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(count >> (24 - 8 * i));
}

void pack_nil(struct pack *p)
{
	msgpack_packer pk = packer(p);

	count_one(p);
	(void)msgpack_pack_nil(&pk);
}

void pack_bool(struct pack *p, bool v)
{
	msgpack_packer pk = packer(p);

	count_one(p);
	(void)(v ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk));
}

void pack_u64(struct pack *p, uint64_t v)
{
	msgpack_packer pk = packer(p);

	count_one(p);
	(void)msgpack_pack_uint64(&pk, v);
}

void pack_i64(struct pack *p, int64_t v)
{
	msgpack_packer pk = packer(p);

	count_one(p);
	(void)msgpack_pack_int64(&pk, v);
}

void pack_str(struct pack *p, const char *s)
{
	msgpack_packer pk = packer(p);
	size_t n = strlen(s);

	count_one(p);
	(void)msgpack_pack_str(&pk, n);
	(void)msgpack_pack_str_body(&pk, s, n);
}

void pack_bin(struct pack *p, const void *v, size_t n)
{
	msgpack_packer pk = packer(p);

	count_one(p);
	(void)msgpack_pack_bin(&pk, n);
	(void)msgpack_pack_bin_body(&pk, v, n);
}

void pack_raw(struct pack *p, const void *v, size_t n)
{
	CHECK(n > 0);
	count_one(p);
	buf_append(p->out, v, n);
}

void pack_key(struct pack *p, const char *key)
{
	pack_str(p, key);
}

void pack_kv_str(struct pack *p, const char *key, const char *s)
{
	pack_str(p, key);
	if (s)
		pack_str(p, s);
	else
		pack_nil(p);
}

void pack_kv_u64(struct pack *p, const char *key, uint64_t v)
{
	pack_str(p, key);
	pack_u64(p, v);
}

void pack_kv_bool(struct pack *p, const char *key, bool v)
{
	pack_str(p, key);
	pack_bool(p, v);
}
