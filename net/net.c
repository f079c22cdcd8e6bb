/* SPDX-License-Identifier: Apache-2.0
 * The listener, the local socket, and the tick that keeps links alive. */
#include "net/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 128

int net_parse_address(const char *address, struct sockaddr_storage *ret, struct err *e)
{
	char host[ADDRESS_BYTES_MAX];
	const char *colon = strrchr(address, ':');
	char *end;
	long port;
	size_t n;

	if (!colon || (size_t)(colon - address) >= sizeof host)
		return err_set(e, -EINVAL, "address '%s': expected HOST:PORT", address);
	n = (size_t)(colon - address);
	if (n >= 2 && address[0] == '[' && address[n - 1] == ']') {
		address++;
		n -= 2;
	}
	memcpy(host, address, n);
	host[n] = '\0';
	port = strtol(colon + 1, &end, 10);
	if (end == colon + 1 || *end || port < 1 || port > 65535)
		return err_set(e, -EINVAL, "address '%s': the port must be a number from 1 to 65535", address);
	memset(ret, 0, sizeof *ret);
	if (uv_ip4_addr(host, (int)port, (struct sockaddr_in *)ret) == 0 ||
	    uv_ip6_addr(host, (int)port, (struct sockaddr_in6 *)ret) == 0)
		return 0;
	return err_set(e, -EINVAL, "address '%s': the host must be an IP address", address);
}

int net_address_check(const char *address, struct err *e)
{
	struct sockaddr_storage ignored;

	return net_parse_address(address, &ignored, e);
}

static const char *keep(struct net *net, const char *text)
{
	for (size_t i = 0; i < ARRAY_LEN(net->strings); i++)
		if (!net->strings[i]) {
			net->strings[i] = xstrdup(text);
			return net->strings[i];
		}
	CHECK(!"more strings than places");
	return NULL;
}

static void release(struct net *net)
{
	tls_identity_free(&net->identity);
	CHECK(pthread_mutex_destroy(&net->identity_lock) == 0);
	for (size_t i = 0; i < ARRAY_LEN(net->strings); i++)
		free(net->strings[i]);
	free(net);
}

int net_new(struct uv_loop_s *loop, const struct net_config *config, const struct net_callbacks *cb, struct net **ret,
	    struct err *e)
{
	struct net *net = xcalloc(1, sizeof *net);
	int rc;

	tls_global_init();
	net->loop = loop;
	net->cb = *cb;
	net->config = *config;
	net->config.listen = keep(net, config->listen);
	net->config.cluster = keep(net, config->cluster);
	net->config.ctl_sock = config->ctl_sock ? keep(net, config->ctl_sock) : NULL;
	CHECK(pthread_mutex_init(&net->identity_lock, NULL) == 0);
	rc = tls_identity_load(&net->identity, config->ca_cert, config->cert, config->key, e);
	if (rc == 0)
		rc = net_parse_address(config->listen, &net->listen_at, e);
	if (rc < 0) {
		release(net);
		return rc;
	}
	*ret = net;
	return 0;
}

static void tick_cb(uv_timer_t *timer)
{
	struct net *net = timer->data;
	usec_t now = clock_boottime();
	bool was_late = net->ticked_at && now > net->ticked_at + TICK_LATE;

	net->ticked_at = now;
	for (struct session *s = net->sessions, *next; s; s = next) {
		next = s->next;
		session_tick(s, now);
	}
	for (struct net_peer *p = net->peers, *next; p; p = next) {
		next = p->next;
		peer_tick(p, now, was_late);
	}
}

static void tcp_cb(uv_stream_t *listener, int status)
{
	if (status == 0)
		session_accept(listener->data, listener, false);
}

static void local_cb(uv_stream_t *listener, int status)
{
	if (status == 0)
		session_accept(listener->data, listener, true);
}

static int listen_tcp(struct net *net, struct err *e)
{
	int rc = uv_tcp_bind(&net->listener, (struct sockaddr *)&net->listen_at, 0);

	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&net->listener, BACKLOG, tcp_cb);
	return rc == 0 ? 0
		       : err_set(e, rc, "listen on %s: %s (is another agent running there?)", net->config.listen,
				 uv_strerror(rc));
}

static int listen_local(struct net *net, struct err *e)
{
	const char *path = net->config.ctl_sock;
	mode_t mask;
	int rc;

	if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
		return err_set(e, -ENAMETOOLONG, "listen on %s: the path of a Unix socket may have at most %zu bytes",
			       path, sizeof((struct sockaddr_un *)0)->sun_path - 1);
	(void)unlink(path);
	mask = umask(0077);
	rc = uv_pipe_bind(&net->local, path);
	(void)umask(mask);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&net->local, BACKLOG, local_cb);
	return rc == 0 ? 0 : err_set(e, rc, "listen on %s: %s", path, uv_strerror(rc));
}

int net_listen(struct net *net, struct err *e)
{
	int rc;

	CHECK(net->handles == 0);
	CHECK(uv_tcp_init(net->loop, &net->listener) == 0 && uv_pipe_init(net->loop, &net->local, 0) == 0 &&
	      uv_timer_init(net->loop, &net->timer) == 0);
	net->listener.data = net->local.data = net->timer.data = net;
	net->handles = 3;
	rc = listen_tcp(net, e);
	if (rc == 0 && net->config.ctl_sock)
		rc = listen_local(net, e);
	if (rc == 0)
		CHECK(uv_timer_start(&net->timer, tick_cb, 0, TICK_MS) == 0);
	return rc;
}

void net_counters(const struct net *net, struct net_counters *ret)
{
	*ret = net->counters;
}

void net_try_free(struct net *net)
{
	void (*closed)(void *ctx) = net->closed;
	void *ctx = net->closed_ctx;

	if (!net->closing || net->handles > 0 || net->sessions)
		return;
	release(net);
	closed(ctx);
}

static void handle_closed_cb(uv_handle_t *handle)
{
	struct net *net = handle->data;

	net->handles--;
	net_try_free(net);
}

/* Without a handle of its own there would be nothing to call back from. */
static void close_handles(struct net *net)
{
	if (net->handles == 0) {
		CHECK(uv_timer_init(net->loop, &net->timer) == 0);
		net->timer.data = net;
		net->handles = 1;
		uv_close((uv_handle_t *)&net->timer, handle_closed_cb);
		return;
	}
	uv_close((uv_handle_t *)&net->listener, handle_closed_cb);
	uv_close((uv_handle_t *)&net->local, handle_closed_cb);
	uv_close((uv_handle_t *)&net->timer, handle_closed_cb);
}

void net_close(struct net *net, void (*cb)(void *ctx), void *ctx)
{
	net->closing = true;
	net->closed = cb;
	net->closed_ctx = ctx;
	while (net->peers) {
		struct net_peer *p = net->peers;

		net->peers = p->next;
		peer_free(p);
	}
	for (struct session *s = net->sessions; s; s = s->next)
		session_close(s, -ESHUTDOWN, "this node stops");
	close_handles(net);
}
