/* SPDX-License-Identifier: Apache-2.0
 * Frames of the replication protocol as bytes. */
#include "volume/wire.h"

#include "proto/proto.h"

#include <errno.h>
#include <string.h>

#define LENGTHS    8
#define HEADER_MAX (64u + (VOLUME_EXTENTS_MAX / 8) + 1024u)
#define WIRE_ID    1

struct header {
	struct message_bin volume;
	uint32_t kind;
	uint64_t ballot, session, seq, offset, length, stamp;
	bool same;
	uint64_t result; /* a positive errno */
	struct message_bin replica;
	uint64_t incarnation, active, promised;
	struct message_bin intents, hash;
};

#define F(kind, field) MESSAGE_FIELD(struct header, kind, field)
static const struct message_field fields[] = {F(BIN, volume), F(U32, kind),     F(U64, ballot),  F(U64, session),
					      F(U64, seq),    F(U64, offset),   F(U64, length),  F(U64, stamp),
					      F(BOOL, same),  F(U64, result),   F(BIN, replica), F(U64, incarnation),
					      F(U64, active), F(U64, promised), F(BIN, intents), F(BIN, hash)};
static const struct message_type type = {WIRE_ID, "bulk", sizeof(struct header), ARRAY_LEN(fields), fields};

bool wire_has_data(const struct volume_frame *f)
{
	return f->kind == VOLUME_F_WRITE || (f->kind == VOLUME_F_COPY && !f->same) || f->kind == VOLUME_F_FETCHED;
}

static void put_u32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void wire_encode(const struct wire_frame *w, struct buf *ret)
{
	const struct volume_frame *f = &w->f;
	size_t at = ret->len;
	uint8_t lengths[LENGTHS] = {0};
	struct header h = {.volume = {w->volume, VOLUME_ID_BYTES},
			   .kind = f->kind,
			   .ballot = volume_ballot_pack(f->ballot),
			   .session = f->session,
			   .seq = f->seq,
			   .offset = f->offset,
			   .length = f->length,
			   .stamp = volume_ballot_pack(f->stamp),
			   .same = f->same,
			   .result = f->result < 0 ? (uint64_t)-f->result : 0,
			   .incarnation = f->incarnation,
			   .active = volume_ballot_pack(f->active),
			   .promised = volume_ballot_pack(f->promised)};

	if (f->kind == VOLUME_F_HELLO || f->kind == VOLUME_F_WELCOME)
		h.replica = (struct message_bin){f->replica, sizeof f->replica};
	if (f->kind == VOLUME_F_WELCOME)
		h.intents = (struct message_bin){f->intents, w->n_intents};
	if (f->kind == VOLUME_F_HASHED)
		h.hash = (struct message_bin){f->hash, sizeof f->hash};
	buf_append(ret, lengths, sizeof lengths);
	message_encode(&type, &h, ret);
	put_u32(ret->data + at, (uint32_t)(ret->len - at - LENGTHS));
	put_u32(ret->data + at + 4, wire_has_data(f) ? (uint32_t)f->length : 0);
}

/* A field that is there whole or not at all. */
static bool get_bin(const struct message_bin *b, uint8_t *ret, size_t n)
{
	if (b->n != 0 && b->n != n)
		return false;
	if (b->n)
		memcpy(ret, b->p, n);
	return true;
}

static bool take(const struct header *h, struct wire_frame *ret)
{
	struct volume_frame *f = &ret->f;

	*ret = (struct wire_frame){0};
	*f = (struct volume_frame){.kind = (enum volume_frame_kind)h->kind,
				   .ballot = volume_ballot_unpack(h->ballot),
				   .session = h->session,
				   .seq = h->seq,
				   .offset = h->offset,
				   .length = h->length,
				   .stamp = volume_ballot_unpack(h->stamp),
				   .same = h->same,
				   .result = h->result && h->result < 4096 ? -(int32_t)h->result
					     : h->result                   ? -EIO
									   : 0,
				   .incarnation = h->incarnation,
				   .active = volume_ballot_unpack(h->active),
				   .promised = volume_ballot_unpack(h->promised)};
	if (h->kind < VOLUME_F_HELLO || h->kind > VOLUME_F_INTENT || h->volume.n != VOLUME_ID_BYTES)
		return false;
	memcpy(ret->volume, h->volume.p, VOLUME_ID_BYTES);
	if (h->intents.n) {
		f->intents = h->intents.p;
		ret->n_intents = h->intents.n;
		f->n_intents = (uint32_t)h->intents.n * 8;
	}
	return get_bin(&h->replica, f->replica, sizeof f->replica) && get_bin(&h->hash, f->hash, sizeof f->hash);
}

static bool parse_lengths(const uint8_t *p, uint32_t *ret_header, uint32_t *ret_data)
{
	*ret_header = get_u32(p);
	*ret_data = get_u32(p + 4);
	return *ret_header != 0 && *ret_header <= HEADER_MAX && *ret_data <= WIRE_DATA_MAX;
}

static int decode_head(const uint8_t *p, uint32_t header, uint32_t data, struct wire_frame *ret)
{
	struct header h;

	if (message_decode(&type, p + LENGTHS, header, &h, NULL) < 0 || !take(&h, ret))
		return -EBADMSG;
	return (wire_has_data(&ret->f) ? ret->f.length != data || data == 0 : data != 0) ? -EBADMSG : 0;
}

long wire_decode(const uint8_t *p, size_t n, struct wire_frame *ret, size_t *ret_need)
{
	uint32_t header, data;

	*ret_need = LENGTHS;
	if (n < LENGTHS)
		return -EAGAIN;
	if (!parse_lengths(p, &header, &data))
		return -EBADMSG;
	*ret_need = LENGTHS + (size_t)header + data;
	if (n < *ret_need)
		return -EAGAIN;
	if (decode_head(p, header, data, ret) < 0)
		return -EBADMSG;
	if (data)
		ret->f.data = (void *)(p + LENGTHS + header);
	return (long)*ret_need;
}

size_t wire_peek(const uint8_t *p, size_t n, uint32_t least, uint32_t *ret_data)
{
	uint32_t header;

	if (n < LENGTHS || !parse_lengths(p, &header, ret_data) || *ret_data < least)
		return 0;
	return n >= LENGTHS + (size_t)header && n < LENGTHS + (size_t)header + *ret_data ? LENGTHS + (size_t)header : 0;
}

int wire_decode_apart(const uint8_t *head, size_t n, void *data, uint32_t n_data, struct wire_frame *ret)
{
	CHECK(n > LENGTHS && n == LENGTHS + get_u32(head));
	if (decode_head(head, (uint32_t)(n - LENGTHS), n_data, ret) < 0)
		return -EBADMSG;
	ret->f.data = data;
	ret->is_given = true;
	return 0;
}
