/* SPDX-License-Identifier: Apache-2.0
 * CRC-32C (Castagnoli), the checksum of what is on disk. */
#ifndef KEDGE_BASE_CRC32C_H
#define KEDGE_BASE_CRC32C_H

#include "base/types.h"

/* [any] The CRC-32C of @n bytes, going on from @crc, which is 0 at the beginning: crc32c(crc32c(0, a), b) is that of a
 * and b behind each other. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);

#endif
