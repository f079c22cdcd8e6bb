/* SPDX-License-Identifier: Apache-2.0
 * How fast one core seals and opens records: prints MB/s for a row of write sizes. */
#include "proto/proto.h"
#include "volume/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>

#define TIME_EACH (USEC_PER_SEC / 2)

static struct record *session(enum bulk_cipher cipher)
{
	struct bulk_handover h = {.magic = BULK_MAGIC, .version = BULK_VERSION, .peer = 1, .cipher = cipher};
	struct record *r = NULL;

	h.write_seq = h.read_seq = 1; /* the same keys both ways: what one session seals another opens */
	CHECK(record_new(&h, &r, NULL) == 0);
	return r;
}

/* A small header before each payload, as the engine's frames have one. */
static void measure(enum bulk_cipher cipher, size_t n)
{
	static uint8_t head[40];
	uint8_t *payload = xcalloc(1, n);
	const struct iovec v[] = {{head, sizeof head}, {payload, n}};
	struct record *out = session(cipher), *in = session(cipher);
	struct buf sealed = {0}, plain = {0};
	usec_t seal_time = 0, open_time = 0;
	uint64_t bytes = 0;

	while (seal_time + open_time < TIME_EACH) {
		usec_t t0 = clock_boottime(), t1;

		for (int i = 0; i < 16; i++)
			CHECK(record_seal(out, v, 2, &sealed) == 0);
		t1 = clock_boottime();
		seal_time += t1 - t0;
		CHECK(record_open(in, sealed.data, sealed.len, &plain) == (long)(16 * (n + sizeof head)));
		open_time += clock_boottime() - t1;
		bytes += plain.len;
		sealed.len = plain.len = 0;
	}
	(void)printf("AES-%d-GCM %8zu bytes: seal %6.0f MB/s, open %6.0f MB/s\n",
		     cipher == BULK_AES_128_GCM ? 128 : 256, n, (double)bytes / (double)seal_time,
		     (double)bytes / (double)open_time);
	out = record_free(out);
	in = record_free(in);
	buf_free(&sealed);
	buf_free(&plain);
	free(payload);
}

int main(void)
{
	static const size_t sizes[] = {512, 4096, 16384, 65536, 1u << 20};

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		measure(BULK_AES_128_GCM, sizes[i]);
	measure(BULK_AES_256_GCM, 65536);
	return 0;
}
