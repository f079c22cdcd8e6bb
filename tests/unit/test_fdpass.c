/* SPDX-License-Identifier: Apache-2.0
 * Datagrams with descriptors: what was sent arrives once, and what is malformed arrives not at all and leaks nothing.
 */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define FDS_MAX 8

struct fixture {
	int ends[2];
	int null;
	size_t open; /* how many descriptors are open */
};

static size_t count_open(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static int set_up(void **state)
{
	static struct fixture f;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f.ends), 0);
	f.null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(f.null >= 0);
	f.open = count_open();
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	bool has_leaked = count_open() != f->open;

	for (size_t i = 0; i < ARRAY_LEN(f->ends); i++)
		if (f->ends[i] >= 0)
			(void)close(f->ends[i]);
	(void)close(f->null);
	return has_leaked;
}

/* Any length, any number of descriptors. */
static void send_raw(const struct fixture *f, size_t bytes, size_t n_fds)
{
	char data[64] = "0123456789";
	struct iovec iov = {data, bytes};
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} room = {{0}};
	struct msghdr head = {.msg_iov = &iov, .msg_iovlen = 1};

	assert_true(n_fds <= FDS_MAX && bytes <= sizeof data);
	if (n_fds > 0) {
		head.msg_control = room.bytes;
		head.msg_controllen = CMSG_SPACE(n_fds * sizeof f->null);
		room.align.cmsg_level = SOL_SOCKET;
		room.align.cmsg_type = SCM_RIGHTS;
		room.align.cmsg_len = CMSG_LEN(n_fds * sizeof f->null);
		for (size_t i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(&room.align) + i * sizeof f->null, &f->null, sizeof f->null);
	}
	assert_int_equal(sendmsg(f->ends[0], &head, MSG_NOSIGNAL), bytes);
}

static void it_arrives_with_its_descriptor(void **state)
{
	struct fixture *f = *state;
	struct stat sent, got;
	char text[4];
	int fd = 77;

	assert_int_equal(fdpass_send(f->ends[0], "one", 4, -1), 0);
	assert_int_equal(fdpass_send(f->ends[0], "two", 4, f->null), 0);
	assert_int_equal(fdpass_recv(f->ends[1], text, sizeof text, &fd), 0);
	assert_string_equal(text, "one");
	assert_int_equal(fd, -1);
	assert_int_equal(fdpass_recv(f->ends[1], text, sizeof text, &fd), 0);
	assert_string_equal(text, "two");
	assert_true(fd >= 0 && fd != f->null);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fstat(f->null, &sent), 0);
	assert_int_equal(fstat(fd, &got), 0);
	assert_int_equal(sent.st_rdev, got.st_rdev);
	(void)close(fd);
}

static void nothing_blocks(void **state)
{
	struct fixture *f = *state;
	unsigned sent = 0, received = 0;
	char text[4];
	int fd = 77, rc;

	assert_int_equal(fdpass_recv(f->ends[1], text, sizeof text, &fd), -EAGAIN);
	assert_int_equal(fd, 77);
	while ((rc = fdpass_send(f->ends[0], "abc", 4, -1)) == 0)
		sent++;
	assert_int_equal(rc, -EAGAIN);
	while ((rc = fdpass_recv(f->ends[1], text, sizeof text, &fd)) == 0)
		received++;
	assert_int_equal(rc, -EAGAIN);
	assert_int_equal(sent, received);
	assert_true(sent > SLOTS_MAX); /* room for a whole answer of the guard */
}

static void the_end_is_told(void **state)
{
	struct fixture *f = *state;
	char text[4];
	int fd = 77;

	assert_int_equal(fdpass_send(f->ends[0], "abc", 4, f->null), 0);
	(void)close(f->ends[0]);
	f->ends[0] = -1;
	assert_int_equal(fdpass_recv(f->ends[1], text, sizeof text, &fd), 0); /* last words count */
	(void)close(fd);
	fd = 77;
	assert_int_equal(fdpass_recv(f->ends[1], text, sizeof text, &fd), -ECONNRESET);
	assert_int_equal(fdpass_send(f->ends[1], "abc", 4, -1), -EPIPE);
	assert_int_equal(fd, 77);
	f->open--;
}

static void malformed_ones_leak_nothing(void **state)
{
	static const size_t lengths[] = {0, 1, 7, 9, 16, 64};
	struct fixture *f = *state;
	char data[8];
	int fd = 77;

	for (size_t i = 0; i < ARRAY_LEN(lengths); i++)
		for (size_t n_fds = 0; n_fds <= FDS_MAX; n_fds++) {
			int want = lengths[i] == 0 ? -ECONNRESET : -EPROTO;

			send_raw(f, lengths[i], n_fds);
			assert_int_equal(fdpass_recv(f->ends[1], data, sizeof data, &fd), want);
		}
	for (size_t n_fds = 2; n_fds <= FDS_MAX; n_fds++) {
		send_raw(f, sizeof data, n_fds);
		assert_int_equal(fdpass_recv(f->ends[1], data, sizeof data, &fd), -EPROTO);
	}
	assert_int_equal(fd, 77);
	send_raw(f, sizeof data, 1); /* the positive control */
	assert_int_equal(fdpass_recv(f->ends[1], data, sizeof data, &fd), 0);
	assert_true(fd >= 0 && fd != 77);
	(void)close(fd);
}

static void any_length_up_to_a_bound_is_taken(void **state)
{
	struct fixture *f = *state;
	char data[8];
	size_t n = 99;
	int fd = 77;

	for (size_t length = 1; length <= sizeof data; length++)
		for (size_t n_fds = 0; n_fds <= 1; n_fds++) {
			send_raw(f, length, n_fds);
			assert_int_equal(fdpass_recv_any(f->ends[1], data, sizeof data, &n, &fd), 0);
			assert_int_equal(n, length);
			assert_memory_equal(data, "01234567", length);
			assert_int_equal(fd >= 0, n_fds);
			if (fd >= 0)
				(void)close(fd);
		}
	n = 99;
	fd = 77;
	for (size_t n_fds = 0; n_fds <= FDS_MAX; n_fds++) {
		send_raw(f, sizeof data + 1, n_fds);
		assert_int_equal(fdpass_recv_any(f->ends[1], data, sizeof data, &n, &fd), -EPROTO);
		if (n_fds < 2)
			continue;
		send_raw(f, 3, n_fds);
		assert_int_equal(fdpass_recv_any(f->ends[1], data, sizeof data, &n, &fd), -EPROTO);
	}
	send_raw(f, 0, 1);
	assert_int_equal(fdpass_recv_any(f->ends[1], data, sizeof data, &n, &fd), -ECONNRESET);
	assert_int_equal(n, 99);
	assert_int_equal(fd, 77);
}

static void errors_are_passed_on(void **state KEDGE_UNUSED)
{
	char text[4];
	int fd;

	assert_int_equal(fdpass_send(-1, "abc", 4, -1), -EBADF);
	assert_int_equal(fdpass_recv(-1, text, sizeof text, &fd), -EBADF);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(it_arrives_with_its_descriptor),
		TEST(nothing_blocks),
		TEST(the_end_is_told),
		TEST(malformed_ones_leak_nothing),
		TEST(any_length_up_to_a_bound_is_taken),
		TEST(errors_are_passed_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
