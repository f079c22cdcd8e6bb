/* SPDX-License-Identifier: Apache-2.0
 * What the files of the replica share. */
#ifndef KEDGE_VOLUME_REPLICA_INTERNAL_H
#define KEDGE_VOLUME_REPLICA_INTERNAL_H

#include "volume/replica.h"

#include <stdatomic.h>

#define LABEL_BYTES 200

#define REMEDY_ANEW                                                                           \
	"remove the folder and the replica is made anew from another one; if there is none, " \
	"'data' still is the plain content"

/* A page in two copies; pair 0 is the state, pair 1 + i page i of the intents. */
struct pair {
	uint64_t seq;     /* of the newest */
	unsigned durable; /* 0 or 1: the copy that is known to be durable and the newest; never written over */
	bool differ;      /* only while opening: the other copy is damaged or older */
};

struct volume_replica {
	char label[LABEL_BYTES]; /* the folder, cut in front if it is long: for texts */
	const struct volume_sys *sys;
	int folder, data, meta, epochs;
	int direct;   /* only after a failed write-back: `meta` beside the page cache, or -1 */
	bool suspect; /* the page cache may show what the disk does not have */
	struct volume_super super;
	struct volume_state state;
	uint32_t extents;
	uint32_t pages; /* of intents */
	uint8_t *intents;
	struct pair *pairs; /* 1 + pages */
	unsigned losses;
	unsigned mended;
	_Atomic bool poisoned;
};

/* All of @n bytes, or a negative errno; a file that ends before is -ENODATA, a disk that takes nothing -ENOSPC. */
int sys_read_all(const struct volume_sys *sys, int fd, void *p, size_t n, uint64_t at);
int sys_write_all(const struct volume_sys *sys, int fd, const void *p, size_t n, uint64_t at);

/* The folder's path, cut in front to fit. */
void replica_label(const char *dir, char ret[LABEL_BYTES]);

/* Encode the newest content of a pair with sequence number @seq. */
void replica_pair_encode(const struct volume_replica *r, uint32_t pair, uint64_t seq, uint8_t *ret);

/* -EIO where an earlier write or fsync has poisoned it. */
int replica_check_usable(struct volume_replica *r, struct err *e);

/* Poison it: what failed may be half on the disk (V13). @rc and @what are for the text. Returns -EIO. */
int replica_poison(struct volume_replica *r, struct err *e, int rc, const char *what);

/* Make the state @s durable as it stands, whatever it says. */
int replica_put_state(struct volume_replica *r, const struct volume_state *s, struct err *e);

/* A fresh value, never 0 and never @old. */
uint64_t replica_fresh_incarnation(uint64_t old);

#endif
