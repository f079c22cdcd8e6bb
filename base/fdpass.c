/* SPDX-License-Identifier: Apache-2.0
 * Datagrams between two processes of one node, each with at most one file descriptor. */
#include "base/fdpass.h"

#include "base/check.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union room {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int fdpass_send(int sock, const void *p, size_t n, int fd)
{
	struct iovec iov = {(void *)p, n};
	union room room = {{0}};
	struct msghdr head = {.msg_iov = &iov, .msg_iovlen = 1};

	CHECK(n > 0); /* an empty datagram looks like the end */
	if (fd >= 0) {
		struct cmsghdr *c = &room.align;

		head.msg_control = room.bytes;
		head.msg_controllen = sizeof room.bytes;
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	return sendmsg(sock, &head, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* The first descriptor, or -1. The kernel's padding of the room lets a second one in: it must not stay open. */
static int take_fd(struct msghdr *head, size_t *ret_count)
{
	int fd = -1;

	*ret_count = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c; c = CMSG_NXTHDR(head, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int one;

			memcpy(&one, CMSG_DATA(c) + i * sizeof one, sizeof one);
			if ((*ret_count)++ == 0)
				fd = one;
			else
				(void)close(one);
		}
	}
	return fd;
}

int fdpass_recv_any(int sock, void *ret, size_t max, size_t *ret_n, int *ret_fd)
{
	struct iovec iov = {ret, max};
	union room room = {{0}};
	struct msghdr head = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room.bytes, .msg_controllen = sizeof room.bytes};
	ssize_t got = recvmsg(sock, &head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	size_t count;
	int fd;

	if (got < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	fd = take_fd(&head, &count);
	if (got > 0 && count <= 1 && !(head.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		*ret_n = (size_t)got;
		*ret_fd = fd;
		return 0;
	}
	if (fd >= 0)
		(void)close(fd);
	return got == 0 ? -ECONNRESET : -EPROTO;
}

int fdpass_recv(int sock, void *ret, size_t n, int *ret_fd)
{
	size_t got;
	int fd, rc = fdpass_recv_any(sock, ret, n, &got, &fd);

	if (rc < 0)
		return rc;
	if (got == n) {
		*ret_fd = fd;
		return 0;
	}
	if (fd >= 0)
		(void)close(fd);
	return -EPROTO;
}
