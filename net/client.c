/* SPDX-License-Identifier: Apache-2.0
 * The blocking client of the command line: to the local socket, over TLS with a certificate, or with a join token. */
#include "net/blocking.h"
#include "net/internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SEND_MAX (30 * USEC_PER_SEC)

struct net_client {
	int fd;
	bool is_tls;
	bool has_identity;
	struct tls tls;
	struct tls_identity identity;
};

static struct net_client *client_new(int fd)
{
	struct net_client *c = xcalloc(1, sizeof *c);

	c->fd = fd;
	return c;
}

struct net_client *net_client_close(struct net_client *c)
{
	if (!c)
		return NULL;
	if (c->is_tls)
		tls_free(&c->tls);
	if (c->has_identity)
		tls_identity_free(&c->identity);
	(void)close(c->fd);
	free(c);
	return NULL;
}

int net_client_local(const char *path, struct net_client **ret, struct err *e)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd, rc;

	if (strlen(path) >= sizeof at.sun_path)
		return err_set(e, -ENAMETOOLONG, "connect to %s: the path is too long for a Unix socket", path);
	memcpy(at.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(e, -errno, "make a socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0) {
		rc = -errno;
		(void)close(fd);
		return err_set(e, rc, "connect to %s: %s", path, strerror(-rc));
	}
	*ret = client_new(fd);
	return 0;
}

static size_t address_size(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static int bind_to(int fd, const char *host, struct err *e)
{
	char address[ADDRESS_BYTES_MAX + 8];
	struct sockaddr_storage from;
	int rc;

	(void)snprintf(address, sizeof address, "%s:1", host);
	rc = net_parse_address(address, &from, e);
	if (rc < 0)
		return rc;
	if (from.ss_family == AF_INET)
		((struct sockaddr_in *)&from)->sin_port = 0;
	else
		((struct sockaddr_in6 *)&from)->sin6_port = 0;
	if (bind(fd, (struct sockaddr *)&from, (socklen_t)address_size(&from)) < 0)
		return err_set(e, -errno, "use the local address %s: %s", host, strerror(errno));
	return 0;
}

static int finish_connect(int fd, usec_t deadline)
{
	int error = 0, rc = blocking_wait(fd, POLLOUT, deadline);
	socklen_t n = sizeof error;

	if (rc < 0)
		return rc;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		return -errno;
	return -error;
}

/* A connected socket, or a negative errno. */
static int dial(const char *address, const char *bind_host, usec_t deadline, struct err *e)
{
	struct sockaddr_storage to;
	int fd, rc = net_parse_address(address, &to, e);

	if (rc < 0)
		return rc;
	fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(e, -errno, "make a socket: %s", strerror(errno));
	rc = bind_host ? bind_to(fd, bind_host, e) : 0;
	if (rc == 0) {
		rc = connect(fd, (struct sockaddr *)&to, (socklen_t)address_size(&to)) == 0 ? 0 : -errno;
		if (rc == -EINPROGRESS)
			rc = finish_connect(fd, deadline);
		if (rc < 0)
			(void)err_set(e, rc, "connect to %s: %s", address, strerror(-rc));
	}
	if (rc < 0) {
		(void)close(fd);
		return rc;
	}
	return fd;
}

static int flush_out(struct net_client *c, usec_t deadline, struct err *e)
{
	int rc = blocking_send(c->fd, c->tls.out.data, c->tls.out.len, deadline);

	c->tls.out.len = 0;
	return rc < 0 ? err_set(e, rc, "send: %s", strerror(-rc)) : 0;
}

/* Wait for more of the wire's bytes. */
static long fill_in(struct net_client *c, usec_t deadline, struct err *e)
{
	uint8_t bytes[16384];
	long n = blocking_recv(c->fd, bytes, sizeof bytes, deadline);

	if (n < 0)
		return err_set(e, (int)n, "receive: %s", strerror((int)-n));
	buf_append(&c->tls.in, bytes, (size_t)n);
	return n;
}

static int handshake(struct net_client *c, usec_t deadline, struct err *e)
{
	for (;;) {
		int rc = tls_handshake(&c->tls, e);
		long n;

		if (rc < 0 && rc != -EAGAIN) {
			(void)flush_out(c, deadline, NULL); /* the alert */
			return rc;
		}
		if (flush_out(c, deadline, rc == 0 ? e : NULL) < 0 && rc == 0)
			return -EPIPE;
		if (rc == 0)
			return 0;
		n = fill_in(c, deadline, e);
		if (n < 0)
			return (int)n;
		if (n == 0)
			return err_set(e, -ECONNRESET, "TLS handshake: the peer closed the connection");
	}
}

static int start_tls(struct net_client *c, usec_t deadline, struct err *e)
{
	struct net_identity id;
	int rc = handshake(c, deadline, e);

	if (rc < 0 || !c->has_identity)
		return rc;
	if (tls_peer_identity(&c->tls, &id) < 0 || id.role != NET_ROLE_NODE)
		return err_set(e, -EACCES, "TLS handshake: the certificate there is no node's");
	return 0;
}

int net_client_tls(const char *address, const char *ca_cert, const char *cert, const char *key, usec_t timeout,
		   struct net_client **ret, struct err *e)
{
	usec_t deadline = clock_boottime() + timeout;
	int fd = dial(address, NULL, deadline, e), rc;
	struct net_client *c;

	if (fd < 0)
		return fd;
	tls_global_init();
	c = client_new(fd);
	c->has_identity = true;
	rc = tls_identity_load(&c->identity, ca_cert, cert, key, e);
	if (rc == 0) {
		c->is_tls = true;
		rc = tls_init(&c->tls, TLS_CTL, true, &c->identity, e);
	}
	if (rc == 0)
		rc = start_tls(c, deadline, e);
	if (rc < 0) {
		(void)net_client_close(c);
		return rc;
	}
	*ret = c;
	return 0;
}

int net_client_join(const char *address, const char *bind_host, const char *id, const uint8_t secret[32],
		    usec_t timeout, struct net_client **ret, struct err *e)
{
	usec_t deadline = clock_boottime() + timeout;
	struct net_client *c;
	int fd, rc;

	if (strlen(id) >= sizeof c->tls.psk_id)
		return err_set(e, -EINVAL, "the token's id is too long");
	fd = dial(address, bind_host, deadline, e);
	if (fd < 0)
		return fd;
	tls_global_init();
	c = client_new(fd);
	memcpy(c->tls.psk_id, id, strlen(id) + 1);
	memcpy(c->tls.psk, secret, sizeof c->tls.psk);
	c->is_tls = true;
	rc = tls_init(&c->tls, TLS_JOIN, true, NULL, e);
	if (rc == 0)
		rc = start_tls(c, deadline, e);
	if (rc < 0) {
		(void)net_client_close(c);
		return rc;
	}
	*ret = c;
	return 0;
}

int net_client_send(struct net_client *c, const void *p, size_t n, struct err *e)
{
	usec_t deadline = clock_boottime() + SEND_MAX;
	int rc;

	if (!c->is_tls) {
		rc = blocking_send(c->fd, p, n, deadline);
		return rc < 0 ? err_set(e, rc, "send: %s", strerror(-rc)) : 0;
	}
	if (tls_write(&c->tls, p, n) < 0)
		return err_set(e, -EPROTO, "send: TLS failed");
	return flush_out(c, deadline, e);
}

static long recv_tls(struct net_client *c, uint8_t *p, size_t size, usec_t deadline, struct err *e)
{
	for (;;) {
		long n = tls_read(&c->tls, p, size);

		if (n >= 0)
			return n;
		if (n != -EAGAIN)
			return err_set(e, (int)n, "receive: damaged TLS record");
		n = fill_in(c, deadline, e);
		if (n <= 0)
			return n;
	}
}

long net_client_recv(struct net_client *c, usec_t deadline, struct buf *ret, struct err *e)
{
	uint8_t bytes[16384];
	long n;

	if (c->is_tls) {
		n = recv_tls(c, bytes, sizeof bytes, deadline, e);
	} else {
		n = blocking_recv(c->fd, bytes, sizeof bytes, deadline);
		if (n < 0)
			(void)err_set(e, (int)n, "receive: %s", strerror((int)-n));
	}
	if (n > 0)
		buf_append(ret, bytes, (size_t)n);
	return n;
}
