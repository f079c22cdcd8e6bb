/* SPDX-License-Identifier: Apache-2.0
 * Ten thousand NBD sessions that were valid before some of their bytes were changed: the server outlives them, keeps
 * nothing of them, and another connection goes on beside them. Those that were left valid are answered in full. */
#include "tests/unit/test_volume_nbd_help.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <cmocka.h>

#define SESSIONS      10000u
#define REQUESTS_MAX  12u
#define SESSION_BYTES (256u << 10)

struct session {
	uint8_t bytes[SESSION_BYTES];
	size_t n;
	unsigned requests; /* that are answered, before DISC */
	size_t answers;    /* bytes of the handshake's answers */
};

static struct fixture f;
static struct session session;
static uint32_t seed = 20240607;
static uint8_t trash[65536], own[4096], back[4096];

static uint32_t below(uint32_t n)
{
	return next_random(&seed) % n;
}

static void put_option(struct session *s, uint32_t option, const void *data, size_t n)
{
	uint8_t *p = nbd_put64(s->bytes + s->n, NBD_MAGIC_OPTION);

	p = nbd_put32(nbd_put32(p, option), (uint32_t)n);
	if (n > 0)
		memcpy(p, data, n);
	s->n = (size_t)(p - s->bytes) + n;
}

static void put_handshake(struct session *s)
{
	uint8_t data[128];
	size_t context = 4 + strlen(NBD_CONTEXT_ALLOCATION);

	s->n = (size_t)(nbd_put32(s->bytes, 3) - s->bytes);
	s->answers = NBD_GREETING_BYTES;
	if (below(4) == 0) {
		put_option(s, NBD_OPT_LIST, NULL, 0);
		s->answers += NBD_OPTION_REPLY_BYTES * (EXPORTS + 1) + 4 * EXPORTS + 1 + 6 + 2;
	}
	put_option(s, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	put_option(s, NBD_OPT_SET_META_CONTEXT, data, option_data(data, "a", NBD_CONTEXT_ALLOCATION));
	s->answers += 3 * NBD_OPTION_REPLY_BYTES + context;
	if (below(4) == 0) {
		put_option(s, NBD_OPT_INFO, data, option_data(data, "a", NULL));
		s->answers += 2 * NBD_OPTION_REPLY_BYTES + 12;
	}
	put_option(s, NBD_OPT_GO, data, option_data(data, "a", NULL));
	s->answers += 2 * NBD_OPTION_REPLY_BYTES + 12;
}

static void put_request(struct session *s)
{
	static const uint16_t commands[] = {NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_WRITE,        NBD_CMD_FLUSH,
					    NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS};
	uint16_t command = commands[below(ARRAY_LEN(commands))];
	uint32_t offset = below(DISK_BYTES), length = 1 + below(below(4) ? 5000 : 20000);
	uint8_t *p = nbd_put32(s->bytes + s->n, NBD_MAGIC_REQUEST);

	if (below(2)) {
		offset &= ~4095u;
		length = (length + 4095) & ~4095u;
	}
	if (command == NBD_CMD_FLUSH)
		offset = length = 0;
	p = nbd_put16(nbd_put16(p, (uint16_t)below(2)), command);
	p = nbd_put32(nbd_put64(nbd_put64(p, s->requests++), offset), length);
	s->n = (size_t)(p - s->bytes);
	if (command == NBD_CMD_WRITE) {
		memset(p, (int)below(256), length);
		s->n += length;
	}
}

static void put_session(struct session *s)
{
	unsigned n = below(REQUESTS_MAX);
	uint8_t *p;

	s->requests = 0;
	put_handshake(s);
	while (n-- > 0)
		put_request(s);
	p = nbd_put32(s->bytes + s->n, NBD_MAGIC_REQUEST);
	p = nbd_put16(nbd_put16(p, 0), NBD_CMD_DISC);
	s->n = (size_t)(nbd_put32(nbd_put64(nbd_put64(p, 0), 0), 0) - s->bytes);
}

static void change(struct session *s)
{
	static const uint8_t nasty[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	size_t head = s->n < 400 ? s->n : 400, some = 1 + below(16), at;

	if (s->n == 0)
		return;
	at = below((uint32_t)(below(4) ? head : s->n));
	switch (below(6)) {
	case 0:
		s->bytes[at] ^= (uint8_t)(1u << below(8));
		break;
	case 1:
		s->bytes[at] = nasty[below(sizeof nasty)];
		break;
	case 2: /* a number */
		for (size_t i = at; i < s->n && i < at + 4; i++)
			s->bytes[i] = nasty[below(2) * 4];
		break;
	case 3: /* some bytes less */
		some = some < s->n - at ? some : s->n - at;
		memmove(s->bytes + at, s->bytes + at + some, s->n - at - some);
		s->n -= some;
		break;
	case 4: /* some twice */
		some = some < s->n - at ? some : s->n - at;
		memmove(s->bytes + at + some, s->bytes + at, s->n - at);
		s->n += some;
		break;
	default: /* an end */
		if (below(4) == 0 && at > 0)
			s->n = at;
		break;
	}
}

/* Send all of it as the server takes it, and throw away what it says; it may end whenever it likes. */
static void play(const struct session *s, int fd)
{
	size_t at = 0;
	unsigned idle = 0;

	while (idle < 30) {
		ssize_t got = recv(fd, trash, sizeof trash, 0), sent = 0;

		if (got == 0 || (got < 0 && errno != EAGAIN))
			break;
		if (at < s->n) {
			size_t n = 1 + below(below(2) ? 40 : 8192);

			sent = send(fd, s->bytes + at, n < s->n - at ? n : s->n - at, MSG_NOSIGNAL);
			at += sent > 0 ? (size_t)sent : 0;
		}
		if (below(3) == 0)
			turn(&f);
		idle = got > 0 || sent > 0 ? 0 : idle + 1;
		if (below(2000) == 0)
			break; /* it is the client who ends */
	}
}

/* Nothing was changed: as many answers as requests, then the end. */
static void play_valid(const struct session *s, int fd)
{
	bool seen[REQUESTS_MAX] = {false};

	client_send(&f, fd, s->bytes, s->n);
	assert_true(client_recv(&f, fd, trash, s->answers));
	for (unsigned i = 0; i < s->requests; i++) {
		struct answer a;

		client_answer(&f, fd, 0, &a, trash, sizeof trash);
		assert_true(a.cookie < s->requests && !seen[a.cookie]);
		seen[a.cookie] = true;
	}
	assert_false(client_recv(&f, fd, trash, 1));
}

static void disturb(void)
{
	if (f.engine.n_pending > 0 && below(4) == 0)
		engine_drop(&f, below((uint32_t)f.engine.n_pending));
	if (below(20) == 0)
		nbd_server_drop(f.server, &f.engine.disks[0]);
}

static void steady(int fd, unsigned i)
{
	uint64_t offset = below(DISK_BYTES - sizeof own);

	memset(own, (int)i, sizeof own);
	assert_int_equal(client_do(&f, fd, 0, NBD_CMD_WRITE, offset, sizeof own, own, NULL), 0);
	assert_int_equal(client_do(&f, fd, 0, NBD_CMD_READ, offset, sizeof back, NULL, back), 0);
	assert_memory_equal(own, back, sizeof own);
}

static void ten_thousand_sessions(void **state)
{
	struct nbd_limits l = nbd_limits_default;
	struct nbd_status s;
	int good;

	(void)state;
	l.requests = 6;
	l.own_bytes = 16384;
	fixture_begin(&f, ENGINE_RANDOM, &l);
	memcpy(f.engine.disks[1].name, "steady", 7);
	good = client_open(&f, "steady", 0);
	for (unsigned i = 0; i < SESSIONS; i++) {
		unsigned changes = below(6);
		int fd = client_connect(&f);

		put_session(&session);
		for (unsigned k = 0; k < changes; k++)
			change(&session);
		if (changes == 0) {
			play_valid(&session, fd);
		} else {
			play(&session, fd);
			disturb();
		}
		client_close(fd);
		if (i % 50 == 0)
			steady(good, i);
	}
	do {
		turn(&f);
		nbd_server_status(f.server, &s);
	} while (s.connections > 1 || s.lingering > 0);
	assert_int_equal(s.requests, 0);
	assert_int_equal(s.bytes, 0);
	assert_int_equal(s.shared_bytes, 0);
	assert_int_equal(s.accepted, SESSIONS + 1);
	assert_true(f.engine.gone > SESSIONS / 10 && f.engine.submitted > SESSIONS);
	client_close(good);
	fixture_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ten_thousand_sessions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
