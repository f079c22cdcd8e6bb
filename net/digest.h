/* SPDX-License-Identifier: Apache-2.0
 * SHA-256 of what comes piece by piece. */
#ifndef KEDGE_NET_DIGEST_H
#define KEDGE_NET_DIGEST_H

#include "base/base.h"

struct net_digest;

/* [any] */
struct net_digest *net_digest_new(void);
void net_digest_add(struct net_digest *d, const void *p, size_t n);
/* [any] The digest of all that was added, as hexadecimal digits; nothing is added afterwards. */
void net_digest_end(struct net_digest *d, char ret[DIGEST_BYTES_MAX]);
/* [any] NULL is allowed; returns NULL. */
struct net_digest *net_digest_free(struct net_digest *d);

#endif
