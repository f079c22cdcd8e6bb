/* SPDX-License-Identifier: Apache-2.0
 * Non-blocking sockets used as if they blocked, until a deadline. */
#include "net/blocking.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

int blocking_wait(int fd, short events, usec_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	for (;;) {
		usec_t now = clock_boottime();
		int rc;

		if (now >= deadline)
			return -ETIMEDOUT;
		rc = poll(&pfd, 1, (int)((deadline - now + USEC_PER_MS - 1) / USEC_PER_MS));
		if (rc > 0)
			return 0;
		if (rc < 0 && errno != EINTR)
			return -errno;
	}
}

int blocking_send(int fd, const uint8_t *p, size_t n, usec_t deadline)
{
	while (n > 0) {
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);
		int rc;

		if (sent > 0) {
			p += sent;
			n -= (size_t)sent;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		rc = blocking_wait(fd, POLLOUT, deadline);
		if (rc < 0)
			return rc;
	}
	return 0;
}

long blocking_recv(int fd, uint8_t *p, size_t n, usec_t deadline)
{
	for (;;) {
		ssize_t got = recv(fd, p, n, 0);
		int rc;

		if (got >= 0)
			return got;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		rc = blocking_wait(fd, POLLIN, deadline);
		if (rc < 0)
			return rc;
	}
}
