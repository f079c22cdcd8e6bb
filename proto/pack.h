/* SPDX-License-Identifier: Apache-2.0
 * Writing msgpack into a buffer. Maps and arrays are counted while they are written. */
#ifndef KEDGE_PROTO_PACK_H
#define KEDGE_PROTO_PACK_H

#include "base/base.h"

#define PACK_DEPTH_MAX 12

/* One value is written to @out. Zero-initialise, set out. The rest is private. */
struct pack {
	struct buf *out;
	unsigned depth;
	struct {
		size_t at; /* where the count is patched in */
		uint32_t count;
		bool is_map;
	} open[PACK_DEPTH_MAX];
};

/* [any] Containers: every begin has its end. Inside a map write key and value in turn. */
void pack_map(struct pack *p);
void pack_array(struct pack *p);
void pack_end(struct pack *p);

/* [any] Values. */
void pack_nil(struct pack *p);
void pack_bool(struct pack *p, bool v);
void pack_u64(struct pack *p, uint64_t v);
void pack_i64(struct pack *p, int64_t v);
void pack_str(struct pack *p, const char *s);
void pack_bin(struct pack *p, const void *v, size_t n);

/* [any] A value that is packed already, copied as it is; must be exactly one. */
void pack_raw(struct pack *p, const void *v, size_t n);

/* [any] Key and value of a map in one call. pack_kv_str() packs nil for NULL. */
void pack_key(struct pack *p, const char *key);
void pack_kv_str(struct pack *p, const char *key, const char *s);
void pack_kv_u64(struct pack *p, const char *key, uint64_t v);
void pack_kv_bool(struct pack *p, const char *key, bool v);

#endif
