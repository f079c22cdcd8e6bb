/* SPDX-License-Identifier: Apache-2.0
 * Makes the bulk links between volume engines. */
#include "agent/bulk_maker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define CONNECT_MAX     (USEC_PER_SEC)
#define SHAKE_MAX       (3 * USEC_PER_SEC)
#define BACK_OFF_MIN    (100 * USEC_PER_MS)
#define BACK_OFF_MAX    (500 * USEC_PER_MS)
#define LASTED          (USEC_PER_SEC) /* a link that did is no failed attempt */
#define TAKEN_MAX       (USEC_PER_SEC) /* until the engine says that it has what it was handed */
#define DIALLED_SHAKES  2              /* at a time: workers are few, and others need them too */
#define ACCEPTED_SHAKES 1              /* with somebody who has proved nothing yet */
#define ACCEPTED_MAX    32             /* that wait for that */
#define LOG_EVERY       (5 * USEC_PER_SEC)

enum attempt_state {
	ATTEMPT_CONNECTING,
	ATTEMPT_FAILED,  /* to connect; its handle closes */
	ATTEMPT_WAITING, /* for a worker */
	ATTEMPT_SHAKING,
};

/* To make one link. */
struct attempt {
	struct attempt *next;
	struct bulk_maker *maker;
	enum attempt_state state;
	node_id_t node; /* that is dialled; 0: it came to us */
	int fd;
	usec_t until;
	uv_poll_t poll; /* CONNECTING */
	uv_work_t work; /* SHAKING */
	uint8_t *first;
	size_t n_first;
	struct bulk_handover *made; /* a secret */
	int rc;
	struct err e;
};

struct peer {
	char address[ADDRESS_BYTES_MAX]; /* "": not to be dialled */
	bool up, worn;
	struct attempt *attempt;
	usec_t backoff, next_dial, up_at;
};

struct bulk_maker {
	uv_loop_t *loop;
	struct bulk_maker_callbacks cb;
	node_id_t self;
	char listen[ADDRESS_BYTES_MAX];
	struct net_bulk_identity *identity;
	struct peer peers[NODES_MAX + 1];
	struct attempt *attempts;                 /* the oldest first */
	unsigned dialled_shakes, accepted_shakes; /* now */
	unsigned accepted;                        /* all of them */
	usec_t next_log;
	bool closed;
};

static void try_free(struct bulk_maker *m)
{
	if (!m->closed || m->attempts)
		return;
	m->identity = net_bulk_identity_free(m->identity);
	free(m);
}

/* ---- attempts ---- */

static struct attempt *attempt_new(struct bulk_maker *m, node_id_t node, int fd, usec_t until)
{
	struct attempt *a = xcalloc(1, sizeof *a), **at = &m->attempts;

	*a = (struct attempt){.maker = m, .node = node, .fd = fd, .until = until};
	while (*at)
		at = &(*at)->next;
	*at = a;
	if (node)
		m->peers[node].attempt = a;
	else
		m->accepted++;
	return a;
}

static void attempt_free(struct attempt *a)
{
	struct bulk_maker *m = a->maker;
	struct attempt **at = &m->attempts;

	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	if (a->node)
		m->peers[a->node].attempt = NULL;
	else
		m->accepted--;
	(void)close(a->fd);
	if (a->made)
		explicit_bzero(a->made, sizeof *a->made);
	free(a->made);
	free(a->first);
	free(a);
	try_free(m);
}

static void back_off(struct peer *p, usec_t now)
{
	p->next_dial = now + p->backoff;
	p->backoff = p->backoff * 2 < BACK_OFF_MAX ? p->backoff * 2 : BACK_OFF_MAX;
}

/* ---- the handshake ---- */

static void shake_run(uv_work_t *work)
{
	struct attempt *a = CONTAINER_OF(work, struct attempt, work);
	const struct net_bulk_handshake h = {.fd = a->fd,
					     .is_client = a->node != 0,
					     .expected = a->node,
					     .first = a->first,
					     .n_first = a->n_first,
					     .deadline = a->until};

	a->rc = net_bulk_handshake(a->maker->identity, &h, a->made, &a->e);
}

static bool is_welcome(const struct attempt *a)
{
	const struct bulk_maker *m = a->maker;

	return a->node || (a->made->peer < m->self && m->cb.peer_known(m->cb.ctx, a->made->peer));
}

static unsigned *shakes_of(const struct attempt *a)
{
	return a->node ? &a->maker->dialled_shakes : &a->maker->accepted_shakes;
}

/* Whoever knocks must not fill the log. */
static void log_failure(struct bulk_maker *m, const struct err *e, usec_t now)
{
	if (now < m->next_log)
		return;
	m->next_log = now + LOG_EVERY;
	log_info("bulk link: %s", e->text);
}

static void shake_done(uv_work_t *work, int status)
{
	struct attempt *a = CONTAINER_OF(work, struct attempt, work);
	struct bulk_maker *m = a->maker;
	usec_t now = clock_boottime();

	(void)status;
	*shakes_of(a) -= 1;
	if (m->closed) {
		attempt_free(a);
		return;
	}
	if (a->rc == 0 && !is_welcome(a))
		a->rc = err_set(&a->e, -EACCES, "node %u has no business to dial", a->made->peer);
	if (a->rc < 0)
		log_failure(m, &a->e, now);
	if (a->node)
		back_off(&m->peers[a->node], now);
	if (a->node && a->rc == 0)
		m->peers[a->node].next_dial = now + TAKEN_MAX;
	if (a->rc == 0)
		m->cb.hand_over(m->cb.ctx, a->made, a->fd);
	attempt_free(a);
}

/* Where a worker is left for it. */
static void shake(struct attempt *a)
{
	if (*shakes_of(a) >= (a->node ? DIALLED_SHAKES : ACCEPTED_SHAKES))
		return;
	a->state = ATTEMPT_SHAKING;
	a->made = xcalloc(1, sizeof *a->made);
	*shakes_of(a) += 1;
	CHECK(uv_queue_work(a->maker->loop, &a->work, shake_run, shake_done) == 0);
}

/* ---- dialling ---- */

static void connect_closed(uv_handle_t *handle)
{
	struct attempt *a = CONTAINER_OF((uv_poll_t *)handle, struct attempt, poll);

	if (a->state == ATTEMPT_FAILED || a->maker->closed) {
		back_off(&a->maker->peers[a->node], clock_boottime());
		attempt_free(a);
		return;
	}
	a->state = ATTEMPT_WAITING;
	a->until = clock_boottime() + SHAKE_MAX;
}

static void connect_over(struct attempt *a, bool is_connected)
{
	if (uv_is_closing((uv_handle_t *)&a->poll))
		return;
	if (!is_connected)
		a->state = ATTEMPT_FAILED;
	uv_close((uv_handle_t *)&a->poll, connect_closed);
}

static void connect_cb(uv_poll_t *poll, int status, int events)
{
	struct attempt *a = CONTAINER_OF(poll, struct attempt, poll);
	socklen_t n = sizeof status;

	(void)events;
	if (status == 0 && getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &status, &n) < 0)
		status = -errno;
	connect_over(a, status == 0);
}

static void dial(struct bulk_maker *m, node_id_t node, usec_t now)
{
	struct peer *p = &m->peers[node];
	struct attempt *a;
	int fd;

	if (net_bulk_dial(p->address, m->listen, &fd, NULL) < 0) {
		back_off(p, now);
		return;
	}
	a = attempt_new(m, node, fd, now + CONNECT_MAX);
	CHECK(uv_poll_init(m->loop, &a->poll, fd) == 0);
	CHECK(uv_poll_start(&a->poll, UV_WRITABLE, connect_cb) == 0);
}

/* ---- turning ---- */

static void attempt_step(struct attempt *a, usec_t now)
{
	if (a->state == ATTEMPT_CONNECTING && now >= a->until)
		connect_over(a, false);
	else if (a->state == ATTEMPT_WAITING && now >= a->until)
		attempt_free(a);
	else if (a->state == ATTEMPT_WAITING)
		shake(a);
}

void bulk_maker_step(struct bulk_maker *m, bool is_wanted)
{
	usec_t now = clock_boottime();

	for (struct attempt *a = m->attempts, *next; a; a = next) {
		next = a->next;
		attempt_step(a, now);
	}
	for (node_id_t n = m->self + 1; is_wanted && n <= NODES_MAX; n++) {
		struct peer *p = &m->peers[n];

		if (p->address[0] && (!p->up || p->worn) && !p->attempt && now >= p->next_dial)
			dial(m, n, now);
	}
}

void bulk_maker_accept(struct bulk_maker *m, int fd, const uint8_t *first, size_t n)
{
	struct attempt *a;

	if (n > NET_BULK_FIRST_BYTES_MAX || m->accepted >= ACCEPTED_MAX) {
		(void)close(fd);
		return;
	}
	a = attempt_new(m, 0, fd, clock_boottime() + SHAKE_MAX);
	a->state = ATTEMPT_WAITING;
	a->first = xcalloc(1, n + 1);
	if (n > 0)
		memcpy(a->first, first, n);
	a->n_first = n;
	shake(a);
}

void bulk_maker_peer(struct bulk_maker *m, node_id_t node, const char *address)
{
	struct peer *p = &m->peers[node];

	CHECK(node >= 1 && node <= NODES_MAX && node != m->self);
	if (!address)
		address = "";
	CHECK(strlen(address) < sizeof p->address);
	if (strcmp(p->address, address) == 0)
		return;
	memcpy(p->address, address, strlen(address) + 1);
	p->backoff = BACK_OFF_MIN;
	p->next_dial = 0;
}

void bulk_maker_set_up(struct bulk_maker *m, node_id_t node, bool up, bool worn)
{
	struct peer *p = &m->peers[node];
	usec_t now = clock_boottime();

	CHECK(node >= 1 && node <= NODES_MAX);
	if (worn && !p->worn)
		p->next_dial = 0;
	p->worn = worn;
	if (up) {
		p->up_at = now;
	} else if (p->up) {
		if (now >= p->up_at + LASTED)
			p->backoff = BACK_OFF_MIN;
		back_off(p, now);
	}
	p->up = up;
}

void bulk_maker_all_down(struct bulk_maker *m)
{
	for (node_id_t n = 1; n <= NODES_MAX; n++) {
		m->peers[n].up = m->peers[n].worn = false;
		m->peers[n].next_dial = 0;
		m->peers[n].backoff = BACK_OFF_MIN;
	}
}

/* ---- life ---- */

int bulk_maker_open(const struct bulk_maker_config *config, const struct bulk_maker_callbacks *cb,
		    struct bulk_maker **ret, struct err *e)
{
	int rc = net_address_check(config->listen, e);
	struct bulk_maker *m;

	if (rc < 0)
		return rc;
	CHECK(config->self >= 1 && config->self <= NODES_MAX && strlen(config->listen) < sizeof m->listen);
	m = xcalloc(1, sizeof *m);
	m->loop = config->loop;
	m->self = config->self;
	m->cb = *cb;
	memcpy(m->listen, config->listen, strlen(config->listen));
	rc = net_bulk_identity_load(config->ca_cert, config->cert, config->key, &m->identity, e);
	if (rc == 0 && net_bulk_identity_node(m->identity) != config->self)
		rc = err_set(e, -EACCES, "the certificate '%s' is not that of node %u", config->cert, config->self);
	if (rc < 0) {
		m->closed = true;
		try_free(m);
		return rc;
	}
	for (node_id_t n = 1; n <= NODES_MAX; n++)
		m->peers[n].backoff = BACK_OFF_MIN;
	*ret = m;
	return 0;
}

struct bulk_maker *bulk_maker_close(struct bulk_maker *m)
{
	if (!m)
		return NULL;
	for (struct attempt *a = m->attempts, *next; a; a = next) {
		next = a->next;
		if (a->state == ATTEMPT_CONNECTING)
			connect_over(a, false);
		else if (a->state == ATTEMPT_SHAKING)
			(void)shutdown(a->fd, SHUT_RDWR); /* the worker sees the end */
		else if (a->state == ATTEMPT_WAITING)
			attempt_free(a);
	}
	m->closed = true;
	try_free(m);
	return NULL;
}
