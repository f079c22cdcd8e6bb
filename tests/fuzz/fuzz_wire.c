/* SPDX-License-Identifier: Apache-2.0
 * Frames of the replication protocol: whatever comes is refused, or is the frame that it was written from. */
#include "tests/fuzz/fuzz.h"
#include "volume/wire.h"

#include <errno.h>
#include <string.h>

bool fuzz_seed(unsigned i, struct buf *ret)
{
	static uint8_t intents[8] = {1, 2, 3}, data[VOLUME_SECTOR_BYTES];
	struct wire_frame w = {.f = {.kind = (enum volume_frame_kind)(VOLUME_F_HELLO + i),
				     .ballot = {7, 3},
				     .session = 11,
				     .seq = UINT64_MAX,
				     .offset = 1 << 20,
				     .length = sizeof data,
				     .stamp = {6, 1},
				     .intents = intents},
			       .n_intents = sizeof intents};

	if (w.f.kind > VOLUME_F_INTENT)
		return false;
	wire_encode(&w, ret);
	if (wire_has_data(&w.f))
		buf_append(ret, data, sizeof data);
	return true;
}

void fuzz_begin(void)
{
}

/* Its kind says which fields travel; what was read once must be read again from what is written of it. */
static void there_and_back(const struct wire_frame *w)
{
	struct buf first = {0}, second = {0};
	struct wire_frame again;
	size_t need;

	wire_encode(w, &first);
	if (wire_has_data(&w->f))
		buf_append(&first, w->f.data, w->f.length);
	CHECK(wire_decode(first.data, first.len, &again, &need) == (long)first.len);
	wire_encode(&again, &second);
	CHECK(memcmp(first.data, second.data, second.len) == 0);
	CHECK(!wire_has_data(&w->f) || memcmp(again.f.data, w->f.data, w->f.length) == 0);
	buf_free(&first);
	buf_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct wire_frame w;
	size_t need, less;
	long used = wire_decode(p, n, &w, &need);

	CHECK(used > 0 || used == -EAGAIN || used == -EBADMSG);
	CHECK(used != -EAGAIN || need > n);
	if (used > 0) {
		CHECK((size_t)used <= n && (size_t)used == need);
		CHECK(!wire_has_data(&w.f) || w.f.length <= WIRE_DATA_MAX);
		there_and_back(&w);
		CHECK(wire_decode(p, (size_t)used - 1, &w, &less) == -EAGAIN && less <= (size_t)used);
	}
	return 0;
}
