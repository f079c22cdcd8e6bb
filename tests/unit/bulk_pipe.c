/* SPDX-License-Identifier: Apache-2.0
 * One end of a bulk link as a filter, so that another TLS implementation can be put at the other end.
 *
 *   bulk_pipe client|server HOST:PORT CA CERT KEY [WRITE_BYTES]
 *
 * The server takes one connection. Standard input goes out in records of writes of WRITE_BYTES, what comes in goes to
 * standard output. At the end of the input close_notify is sent. Exit code: 0 after the peer's close_notify, 3 after a
 * record that was refused, 4 when the connection ended without close_notify, 5 when the handshake failed. */
#include "net/internal.h"
#include "proto/proto.h"
#include "volume/record.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define SHAKE_MAX       (10 * USEC_PER_SEC)
#define WRITE_BYTES_MAX (1u << 20)
#define QUEUE_BYTES_MAX (4u << 20)

enum { EXIT_REFUSED = 3, EXIT_CUT = 4, EXIT_NO_HANDSHAKE = 5 };

static socklen_t size_of(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static int connected(bool is_client, const char *address)
{
	struct sockaddr_storage at;
	struct sockaddr *to = (struct sockaddr *)&at;
	int fd, on = 1, listener;

	CHECK(net_parse_address(address, &at, NULL) == 0);
	fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0);
	if (is_client) {
		CHECK(connect(fd, to, size_of(&at)) == 0);
		return fd;
	}
	listener = fd;
	CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
	CHECK(bind(listener, to, size_of(&at)) == 0 && listen(listener, 1) == 0);
	(void)fprintf(stderr, "listening\n");
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(fd >= 0);
	(void)close(listener);
	return fd;
}

static void print_all(struct buf *plain)
{
	for (size_t at = 0; at < plain->len;) {
		ssize_t n = write(STDOUT_FILENO, plain->data + at, plain->len - at);

		CHECK(n > 0);
		at += (size_t)n;
	}
	plain->len = 0;
}

struct filter {
	struct record *r;
	int fd;
	size_t write_bytes;
	bool input_ended;
	struct buf wire, plain;
};

static void read_input(struct filter *f)
{
	static uint8_t bytes[WRITE_BYTES_MAX];
	ssize_t n = read(STDIN_FILENO, bytes, f->write_bytes);
	const struct iovec v[] = {{bytes, (size_t)n / 2}, {bytes + n / 2, (size_t)(n - n / 2)}};

	CHECK(n >= 0);
	f->input_ended = n == 0;
	CHECK((n > 0 ? record_seal(f->r, v, 2, &f->wire) : record_close_notify(f->r, &f->wire)) == 0);
}

static void send_some(struct filter *f)
{
	ssize_t n = send(f->fd, f->wire.data, f->wire.len, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n > 0)
		buf_consume(&f->wire, (size_t)n);
	else if (errno != EAGAIN)
		f->wire.len = 0; /* reading will tell */
}

static int receive(struct filter *f, const uint8_t *p, size_t n)
{
	long rc = record_open(f->r, p, n, &f->plain);

	print_all(&f->plain);
	if (rc == -ESHUTDOWN)
		return EXIT_SUCCESS;
	return rc < 0 ? EXIT_REFUSED : -1;
}

/* -1: go on. */
static int read_wire(struct filter *f)
{
	uint8_t bytes[65536];
	ssize_t n = recv(f->fd, bytes, sizeof bytes, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return -1;
	return n <= 0 ? EXIT_CUT : receive(f, bytes, (size_t)n);
}

static int run(struct filter *f)
{
	int rc = -1;

	while (rc < 0) {
		bool want_input = !f->input_ended && f->wire.len < QUEUE_BYTES_MAX;
		struct pollfd fds[] = {
			{.fd = f->fd, .events = (short)(POLLIN | (f->wire.len > 0 ? POLLOUT : 0))},
			{.fd = want_input ? STDIN_FILENO : -1, .events = POLLIN},
		};

		CHECK(poll(fds, 2, -1) > 0);
		if (fds[1].revents)
			read_input(f);
		if (f->wire.len > 0)
			send_some(f);
		if (fds[0].revents & ~POLLOUT)
			rc = read_wire(f);
	}
	/* The peer's close_notify is answered, as RFC 5246 has it. */
	if (rc == EXIT_SUCCESS && !f->input_ended)
		CHECK(record_close_notify(f->r, &f->wire) == 0);
	while (rc == EXIT_SUCCESS && f->wire.len > 0)
		send_some(f);
	return rc;
}

int main(int argc, char **argv)
{
	bool is_client = argc > 1 && strcmp(argv[1], "client") == 0;
	struct filter f = {.write_bytes = argc > 6 ? strtoul(argv[6], NULL, 10) : 65536};
	struct net_bulk_handshake h = {.is_client = is_client};
	struct net_bulk_identity *id = NULL;
	struct bulk_handover o;
	struct err e = {0};
	int rc;

	CHECK(argc >= 6 && f.write_bytes > 0 && f.write_bytes <= WRITE_BYTES_MAX);
	CHECK(net_bulk_identity_load(argv[3], argv[4], argv[5], &id, &e) == 0);
	h.fd = f.fd = connected(is_client, argv[2]);
	h.deadline = clock_boottime() + SHAKE_MAX;
	rc = net_bulk_handshake(id, &h, &o, &e);
	id = net_bulk_identity_free(id);
	if (rc < 0) {
		(void)fprintf(stderr, "refused %d %s\n", -rc, e.text);
		(void)close(f.fd);
		return EXIT_NO_HANDSHAKE;
	}
	(void)fprintf(stderr, "linked peer=%u cipher=%u early=%u\n", o.peer, o.cipher, o.n_early);
	CHECK(record_new(&o, &f.r, &e) == 0);
	rc = receive(&f, o.early, o.n_early);
	if (rc < 0)
		rc = run(&f);
	(void)close(f.fd);
	f.r = record_free(f.r);
	buf_free(&f.wire);
	buf_free(&f.plain);
	return rc;
}
