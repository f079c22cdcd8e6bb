/* SPDX-License-Identifier: Apache-2.0
 * One NBD connection after the other: the server outlives each, and keeps nothing of it. */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/test_volume_nbd_help.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define IDLE_TURNS 4 /* of the loop without a byte: nothing more comes of it */

static struct fixture f;

static void remove_socket(void)
{
	(void)unlink(f.path);
	(void)rmdir(f.folder);
}

void fuzz_begin(void)
{
	struct nbd_limits l = nbd_limits_default;

	l.requests = 6;
	l.own_bytes = 16384;
	fixture_begin(&f, ENGINE_RANDOM, &l);
	(void)atexit(remove_socket);
}

static void put_option(struct buf *ret, uint32_t option, const void *data, size_t n)
{
	uint8_t head[NBD_OPTION_HEAD_BYTES];

	(void)nbd_put32(nbd_put32(nbd_put64(head, NBD_MAGIC_OPTION), option), (uint32_t)n);
	buf_append(ret, head, sizeof head);
	buf_append(ret, data, n);
}

static void put_request(struct buf *ret, uint16_t command, uint64_t offset, uint32_t length)
{
	uint8_t head[28], *p = nbd_put16(nbd_put16(nbd_put32(head, NBD_MAGIC_REQUEST), 0), command);

	p = nbd_put32(nbd_put64(nbd_put64(p, command), offset), length);
	buf_append(ret, head, (size_t)(p - head));
	if (command == NBD_CMD_WRITE)
		memset(buf_reserve(ret, length), 'w', length), ret->len += length;
}

static void put_handshake(struct buf *ret, bool is_structured)
{
	uint8_t data[128], flags[4];

	(void)nbd_put32(flags, 3);
	buf_append(ret, flags, sizeof flags);
	put_option(ret, NBD_OPT_LIST, "", 0);
	if (is_structured) {
		put_option(ret, NBD_OPT_STRUCTURED_REPLY, "", 0);
		put_option(ret, NBD_OPT_SET_META_CONTEXT, data, option_data(data, "a", NBD_CONTEXT_ALLOCATION));
	}
	put_option(ret, NBD_OPT_INFO, data, option_data(data, "ro", NULL));
	put_option(ret, NBD_OPT_GO, data, option_data(data, "a", NULL));
}

bool fuzz_seed(unsigned i, struct buf *ret)
{
	static const uint16_t commands[] = {NBD_CMD_READ,  NBD_CMD_WRITE, NBD_CMD_TRIM,
					    NBD_CMD_CACHE, NBD_CMD_FLUSH, NBD_CMD_WRITE_ZEROES};

	if (i > 3)
		return false;
	put_handshake(ret, i % 2);
	for (size_t k = 0; k < ARRAY_LEN(commands); k++)
		put_request(ret, commands[k],
			    commands[k] == NBD_CMD_FLUSH ? 0
			    : i < 2                      ? 4096
							 : 1234,
			    commands[k] == NBD_CMD_FLUSH ? 0
			    : i < 2                      ? 4096
							 : 77);
	if (i % 2)
		put_request(ret, NBD_CMD_BLOCK_STATUS, 0, DISK_BYTES);
	put_request(ret, NBD_CMD_DISC, 0, 0);
	return true;
}

/* Send it as the server takes it, and throw away what it says. */
static void play(int fd, const uint8_t *p, size_t n)
{
	static uint8_t trash[65536];
	unsigned idle = 0;

	while (idle < IDLE_TURNS) {
		ssize_t got = recv(fd, trash, sizeof trash, 0), sent = n ? send(fd, p, n, MSG_NOSIGNAL) : 0;

		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && n == 0))
			break;
		p += sent > 0 ? sent : 0;
		n -= sent > 0 ? (size_t)sent : 0;
		turn(&f);
		idle = got > 0 || sent > 0 || f.engine.n_pending > 0 ? 0 : idle + 1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct nbd_status s;
	int fd = client_connect(&f);

	f.engine.seed = 1;
	play(fd, p, n);
	client_close(fd);
	do {
		turn(&f);
		nbd_server_status(f.server, &s);
	} while (s.connections > 0 || s.lingering > 0);
	CHECK(s.requests == 0 && s.bytes == 0 && s.shared_bytes == 0);
	return 0;
}
