/* SPDX-License-Identifier: Apache-2.0
 * A guest of a real engine: NBD by hand, one request at a time, and the lab turns while it waits. */
#include "tests/unit/engine_fixture.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define GUEST_BYTES 4096

struct nbd_head {
	uint32_t magic;
	uint16_t flags, command;
	uint64_t cookie, offset;
	uint32_t length;
} __attribute__((packed));

struct nbd_answer {
	uint32_t magic, error;
	uint64_t cookie;
} __attribute__((packed));

static bool get(struct host *h, int fd, void *p, size_t n)
{
	usec_t end = clock_boottime() + 8 * USEC_PER_SEC;
	size_t have = 0;

	while (have < n) {
		ssize_t got = recv(fd, (char *)p + have, n - have, MSG_DONTWAIT);

		if (got == 0 || (got < 0 && errno != EAGAIN))
			return false;
		if (got > 0)
			have += (size_t)got;
		else
			lab_turn(h->lab);
		if (clock_boottime() > end)
			fail_msg("no answer");
	}
	return true;
}

static void put(int fd, const void *p, size_t n)
{
	(void)!send(fd, p, n, MSG_NOSIGNAL);
}

int guest_open(struct host *h, const char *name)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct {
		uint32_t flags;
		char magic[8];
		uint32_t option, length;
		char name[32];
	} __attribute__((packed)) hello = {htonl(3), "IHAVEOP", htonl(1), htonl((uint32_t)strlen(name)), ""};
	char bytes[18];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(at.sun_path, sizeof at.sun_path, "%.90s/run/nbd.sock", h->dir);
	memcpy(hello.magic, "IHAVEOPT", 8);
	memcpy(hello.name, name, strlen(name));
	if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0 && get(h, fd, bytes, 18)) {
		put(fd, &hello, 20 + strlen(name));
		if (get(h, fd, bytes, 10))
			return fd;
	}
	(void)close(fd);
	return -1;
}

static void begin(int fd, uint16_t command, uint64_t offset, uint32_t length, char byte)
{
	struct {
		struct nbd_head head;
		char data[GUEST_BYTES];
	} __attribute__((packed)) m = {.head = {.magic = htonl(0x25609513),
						.command = htons(command),
						.cookie = command,
						.offset = htobe64(offset),
						.length = htonl(length)}};

	memset(m.data, byte, sizeof m.data);
	put(fd, &m, command == 1 ? sizeof m : sizeof m.head);
}

void guest_begin_write(int fd, uint64_t offset, char byte)
{
	begin(fd, 1, offset, GUEST_BYTES, byte);
}

void guest_begin_read(int fd, uint64_t offset)
{
	begin(fd, 0, offset, GUEST_BYTES, 0);
}

void guest_begin_long_read(int fd, uint32_t length)
{
	begin(fd, 0, 0, length, 0);
}

static bool end(struct host *h, int fd, uint64_t cookie, void *data, size_t n)
{
	struct nbd_answer a;

	if (!get(h, fd, &a, sizeof a))
		return false;
	assert_int_equal(ntohl(a.magic), 0x67446698);
	assert_int_equal(a.error, 0);
	assert_int_equal(a.cookie, cookie);
	return n == 0 || get(h, fd, data, n);
}

bool guest_end_write(struct host *h, int fd)
{
	return end(h, fd, 1, NULL, 0);
}

bool guest_end_read(struct host *h, int fd, char *ret)
{
	char data[GUEST_BYTES];

	if (!end(h, fd, 0, data, sizeof data))
		return false;
	assert_memory_equal(data, data + 1, sizeof data - 1);
	*ret = data[0];
	return true;
}

bool guest_writes(struct host *h, int fd, uint64_t offset, char byte)
{
	guest_begin_write(fd, offset, byte);
	return guest_end_write(h, fd);
}

bool guest_reads(struct host *h, int fd, uint64_t offset, char byte)
{
	char got = 0;

	guest_begin_read(fd, offset);
	return guest_end_read(h, fd, &got) && got == byte;
}

bool guest_is_ended(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

	assert_true(n <= 0);
	return n == 0 || errno != EAGAIN;
}

void guest_close(int fd)
{
	if (fd >= 0)
		(void)close(fd);
}
