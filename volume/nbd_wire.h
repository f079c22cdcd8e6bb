/* SPDX-License-Identifier: Apache-2.0
 * The numbers of the NBD protocol, and its big-endian integers. */
#ifndef KEDGE_VOLUME_NBD_WIRE_H
#define KEDGE_VOLUME_NBD_WIRE_H

#include "base/base.h"

#include <endian.h>
#include <string.h>

/* ---- handshake ---- */

#define NBD_MAGIC_INIT   0x4e42444d41474943ULL
#define NBD_MAGIC_OPTION 0x49484156454f5054ULL
#define NBD_MAGIC_REPLY  0x0003e889045565a9ULL

#define NBD_GREETING_BYTES     18u
#define NBD_CLIENT_FLAGS_BYTES 4u
#define NBD_OPTION_HEAD_BYTES  16u
#define NBD_OPTION_REPLY_BYTES 20u
#define NBD_OPTION_BYTES_MAX   (64u << 10) /* of an option's data: names have at most 4096, and lists are short */
#define NBD_EXPORT_NAME_ZEROES 124u

enum { /* server's and client's handshake flags */
       NBD_FLAG_FIXED_NEWSTYLE = 1,
       NBD_FLAG_NO_ZEROES = 2,
};

enum nbd_option {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ACK          1u
#define NBD_REP_SERVER       2u
#define NBD_REP_INFO         3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_ERR_UNSUP    0x80000001u
#define NBD_REP_ERR_INVALID  0x80000003u
#define NBD_REP_ERR_UNKNOWN  0x80000006u
#define NBD_REP_ERR_TOO_BIG  0x80000009u

enum {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_BLOCK_SIZE = 3,
};

/* ---- transmission ---- */

enum { /* transmission flags */
       NBD_FLAG_HAS_FLAGS = 1 << 0,
       NBD_FLAG_READ_ONLY = 1 << 1,
       NBD_FLAG_SEND_FLUSH = 1 << 2,
       NBD_FLAG_SEND_FUA = 1 << 3,
       NBD_FLAG_SEND_TRIM = 1 << 5,
       NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
       NBD_FLAG_SEND_DF = 1 << 7,
       NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
       NBD_FLAG_SEND_CACHE = 1 << 10,
       NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

#define NBD_MAGIC_REQUEST    0x25609513u
#define NBD_MAGIC_SIMPLE     0x67446698u
#define NBD_MAGIC_STRUCTURED 0x668e33efu

#define NBD_REQUEST_BYTES    28u
#define NBD_SIMPLE_BYTES     16u
#define NBD_STRUCTURED_BYTES 20u

enum nbd_command {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

enum { /* flags of a command */
       NBD_CMD_FLAG_FUA = 1 << 0,
       NBD_CMD_FLAG_NO_HOLE = 1 << 1,
       NBD_CMD_FLAG_DF = 1 << 2,
       NBD_CMD_FLAG_REQ_ONE = 1 << 3,
       NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

#define NBD_REPLY_FLAG_DONE         1u
#define NBD_REPLY_TYPE_NONE         0u
#define NBD_REPLY_TYPE_OFFSET_DATA  1u
#define NBD_REPLY_TYPE_BLOCK_STATUS 5u
#define NBD_REPLY_TYPE_ERROR        0x8001u

enum { /* state flags of base:allocation */
       NBD_STATE_HOLE = 1,
       NBD_STATE_ZERO = 2,
};

#define NBD_CONTEXT_ALLOCATION    "base:allocation"
#define NBD_CONTEXT_ALLOCATION_ID 1u

/* ---- big-endian integers ---- */

static inline uint16_t nbd_get16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof v);
	return be16toh(v);
}

static inline uint32_t nbd_get32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return be32toh(v);
}

static inline uint64_t nbd_get64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return be64toh(v);
}

/* Each puts its value and returns what is behind it. */
static inline uint8_t *nbd_put16(uint8_t *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, sizeof v);
	return p + sizeof v;
}

static inline uint8_t *nbd_put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof v);
	return p + sizeof v;
}

static inline uint8_t *nbd_put64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof v);
	return p + sizeof v;
}

#endif
