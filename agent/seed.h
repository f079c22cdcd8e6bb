/* SPDX-License-Identifier: Apache-2.0
 * The small read-only disk by which cloud-init gets its data (NoCloud): ISO 9660 with the label cidata. */
#ifndef KEDGE_AGENT_SEED_H
#define KEDGE_AGENT_SEED_H

#include "base/base.h"

/* [any] Append the disk with both files to @ret. */
void seed_make(const struct buf *user_data, const struct buf *meta_data, struct buf *ret);

#endif
