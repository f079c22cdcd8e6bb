/* SPDX-License-Identifier: Apache-2.0
 * Frames of the replication protocol as bytes of a bulk link (docs/WIRE.md): two lengths, a msgpack header, raw data.
 * [any] */
#ifndef KEDGE_VOLUME_WIRE_H
#define KEDGE_VOLUME_WIRE_H

#include "volume/core.h"

#define WIRE_DATA_MAX (32u << 20) /* bytes of data in a frame */

/* A frame and what its pointers are good for. */
struct wire_frame {
	uint8_t volume[VOLUME_ID_BYTES];
	struct volume_frame f; /* data and intents point into the bytes that were decoded */
	size_t n_intents;      /* bytes */
	bool is_given;         /* the data is memory of its own, page-aligned: whoever gets the frame frees it */
};

/* Append all but the data of @f to @ret; f.length bytes of data follow on the link where wire_has_data() says so. */
void wire_encode(const struct wire_frame *f, struct buf *ret);

bool wire_has_data(const struct volume_frame *f);

/* Read the frame that @p starts with. Returns the bytes it has, its data included; -EAGAIN: it is not whole yet,
 * @ret_need says how many bytes are needed at least; -EBADMSG: no such frame, the link must be closed. */
long wire_decode(const uint8_t *p, size_t n, struct wire_frame *ret, size_t *ret_need) KEDGE_MUST_CHECK;

/* Does a frame with at least @least bytes of data begin at @p, whose header is whole and whose data is not? Then how
 * many bytes its head has is returned, and @ret_data; else 0. */
size_t wire_peek(const uint8_t *p, size_t n, uint32_t least, uint32_t *ret_data);

/* Read a frame whose @n_data bytes of data are not behind its head. -EBADMSG: no such frame. */
int wire_decode_apart(const uint8_t *head, size_t n, void *data, uint32_t n_data,
		      struct wire_frame *ret) KEDGE_MUST_CHECK;

#endif
