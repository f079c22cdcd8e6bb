/* SPDX-License-Identifier: Apache-2.0
 * What the files of the static store share. */
#ifndef KEDGE_VOLUME_STATIC_INTERNAL_H
#define KEDGE_VOLUME_STATIC_INTERNAL_H

#include "volume/static.h"

int static_write(const char *path, const struct static_store *s, struct err *e);

/* Change the store in memory; an error leaves the file as it was. */
typedef int (*static_change_fn)(void *ctx, struct static_store *s, struct err *e);

int static_transaction(const char *path, bool may_make, static_change_fn fn, void *ctx, struct err *e);

#endif
