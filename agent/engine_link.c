/* SPDX-License-Identifier: Apache-2.0
 * The agent's end of kedge-vol. */
#include "agent/engine_link.h"

#include "agent/bulk_maker.h"
#include "agent/engine_health.h"
#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#define SPAWN_EVERY        (USEC_PER_SEC)
#define TRY_EVERY          (20 * USEC_PER_MS)
#define ECHOES             10 /* unanswered ones, until it counts as hung */
#define DATAGRAMS_PER_TURN 256
#define ORDERS_BYTES_MAX   (4u << 20) /* that wait: more are not taken */
#define ANSWERS_BYTES_MAX  (8u << 20) /* with them; beyond, it is a new connection's turn */

/* A connection. Freed when its handle is closed. */
struct channel {
	uv_poll_t poll;
	int fd;
	pid_t pid; /* of the engine */
	struct fdpass_queue queue;
	uint64_t echo;   /* the last one sent */
	bool is_echoed;  /* and answered */
	bool has_told;   /* all that stood when we came */
	bool is_leaving; /* it said so: its end is no death */
	char version[64];
	unsigned silent;
	usec_t next_echo;
};

struct engine_link {
	uv_loop_t *loop;
	struct engine_link_callbacks cb;
	char dir[PATH_BYTES_MAX];
	char path[PATH_BYTES_MAX];  /* of the socket */
	const char *const *options; /* of a new engine's command line */
	node_id_t self;
	int memfd;
	usec_t echo_every;
	struct channel *channel; /* NULL: not connected */
	pid_t killed;            /* an engine that was, and may still be there: a process dies when it can */
	pid_t lost;              /* the one whose connection ended: dead if another answers next; 0: none */
	struct engine_health health;
	usec_t spawned_at, next_try;
	struct bulk_maker *bulk;
};

/* ---- the connection ---- */

static void channel_closed(uv_handle_t *handle)
{
	free(CONTAINER_OF((uv_poll_t *)handle, struct channel, poll));
}

static void disconnect(struct engine_link *l)
{
	struct channel *c = l->channel;

	if (!c)
		return;
	l->channel = NULL;
	l->lost = c->is_leaving || c->pid == l->killed ? 0 : c->pid;
	(void)uv_poll_stop(&c->poll);
	uv_close((uv_handle_t *)&c->poll, channel_closed);
	(void)close(c->fd);
	fdpass_queue_clear(&c->queue);
}

/* It only wakes the loop: the step that follows reads and writes. */
static void poll_cb(uv_poll_t *poll, int status, int events)
{
	(void)poll;
	(void)status;
	(void)events;
}

static void watch(struct channel *c)
{
	CHECK(uv_poll_start(&c->poll, UV_READABLE | (c->queue.first ? UV_WRITABLE : 0), poll_cb) == 0);
}

/* False: not taken, or the connection ended. */
static bool say(struct engine_link *l, const struct message_type *type, const void *msg, size_t bytes_max)
{
	struct buf b = {0};
	int rc = -ENOTCONN;

	if (l->channel) {
		message_encode(type, msg, &b);
		CHECK(b.len <= ENGINE_BYTES_MAX);
		rc = fdpass_queue_send(&l->channel->queue, l->channel->fd, b.data, b.len, bytes_max);
		buf_free(&b);
	}
	if (rc == 0)
		watch(l->channel);
	else if (rc != -ENOBUFS || bytes_max == ANSWERS_BYTES_MAX)
		disconnect(l);
	return rc == 0;
}

static bool say_hello(struct engine_link *l)
{
	const struct engine_hello msg = {.node = l->self};
	struct buf b = {0};
	int rc;

	message_encode(&engine_hello_type, &msg, &b);
	rc = fdpass_send(l->channel->fd, b.data, b.len, l->memfd);
	buf_free(&b);
	if (rc < 0)
		disconnect(l);
	return rc == 0;
}

static int connect_engine(const char *path, pid_t *ret_pid)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct ucred cred;
	socklen_t n = sizeof cred;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	memcpy(at.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0) {
		int rc = -errno;

		(void)close(fd);
		return rc;
	}
	*ret_pid = cred.pid;
	return fd;
}

static bool open_channel(struct engine_link *l)
{
	struct channel *c;
	pid_t pid = 0;
	int fd = connect_engine(l->path, &pid);

	if (fd >= 0 && pid == l->killed) {
		(void)close(fd);
		return false;
	}
	l->killed = 0;
	if (fd < 0)
		return false;
	if (l->lost && l->lost != pid)
		engine_health_died(&l->health, clock_boottime());
	l->lost = 0;
	c = xcalloc(1, sizeof *c);
	c->fd = fd;
	c->pid = pid;
	c->is_echoed = true;
	CHECK(uv_poll_init(l->loop, &c->poll, fd) == 0);
	l->channel = c;
	watch(c);
	bulk_maker_all_down(l->bulk);
	return say_hello(l);
}

static void spawn(struct engine_link *l, usec_t now)
{
	struct err e = {0};

	if (l->spawned_at && now < l->spawned_at + SPAWN_EVERY)
		return;
	l->spawned_at = now;
	if (spawn_detached("kedge-vol", l->dir, l->options, &e) < 0)
		log_error("%s", e.text);
}

/* ---- what it says ---- */

static void echo_came(struct engine_link *l, const void *msg)
{
	const struct engine_echo *m = msg;

	if (m->number != l->channel->echo)
		return;
	l->channel->is_echoed = true;
	l->channel->has_told = true; /* it tells all it has when it is greeted, before it answers the first */
}

static void opened_came(struct engine_link *l, const void *msg)
{
	l->cb.opened(l->cb.ctx, msg);
}

static void propose_came(struct engine_link *l, const void *msg)
{
	l->cb.propose(l->cb.ctx, msg);
}

static void link_came(struct engine_link *l, const void *msg)
{
	const struct engine_link_state *m = msg;

	if (m->node >= 1 && m->node <= NODES_MAX)
		bulk_maker_set_up(l->bulk, m->node, m->up, m->up && m->worn);
}

static void status_came(struct engine_link *l, const void *msg)
{
	l->cb.status(l->cb.ctx, msg);
}

static void dropped_came(struct engine_link *l, const void *msg)
{
	l->cb.dropped(l->cb.ctx, msg);
}

static void finding_came(struct engine_link *l, const void *msg)
{
	l->cb.finding(l->cb.ctx, msg);
}

static void about_came(struct engine_link *l, const void *msg)
{
	const struct engine_about *m = msg;

	memcpy(l->channel->version, m->version, sizeof l->channel->version);
	l->channel->is_leaving = m->leaving;
}

static const struct {
	const struct message_type *type;
	void (*fn)(struct engine_link *l, const void *msg);
} messages[] = {
	{&engine_echo_type, echo_came},       {&engine_opened_type, opened_came}, {&engine_propose_type, propose_came},
	{&engine_link_state_type, link_came}, {&engine_status_type, status_came}, {&engine_dropped_type, dropped_came},
	{&engine_finding_type, finding_came}, {&engine_about_type, about_came},
};

/* False: it makes no sense. */
static bool take(struct engine_link *l, const uint8_t *p, size_t n)
{
	union {
		struct engine_echo echo;
		struct engine_opened opened;
		struct engine_propose propose;
		struct engine_link_state link;
		struct engine_status status;
		struct engine_drop dropped;
		struct engine_finding finding;
		struct engine_about about;
	} msg;
	uint32_t id;

	if (message_id(p, n, &id) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
		if (messages[i].type->id != id)
			continue;
		if (message_decode(messages[i].type, p, n, &msg, NULL) < 0)
			return false;
		messages[i].fn(l, &msg);
		return true;
	}
	return true; /* of a newer release */
}

static void read_some(struct engine_link *l)
{
	uint8_t bytes[ENGINE_BYTES_MAX];
	size_t n;
	int fd;

	for (unsigned i = 0; i < DATAGRAMS_PER_TURN && l->channel; i++) {
		int rc = fdpass_recv_any(l->channel->fd, bytes, sizeof bytes, &n, &fd);

		if (rc == -EAGAIN)
			return;
		if (rc == 0 && fd >= 0)
			(void)close(fd);
		if (rc == 0 && !take(l, bytes, n)) {
			log_warning("the volume engine said something that makes no sense: connecting anew");
			rc = -EBADMSG;
		}
		if (rc < 0)
			disconnect(l);
	}
}

/* ---- turning ---- */

static void greet(struct engine_link *l, usec_t now)
{
	if (now < l->next_try)
		return;
	l->next_try = now + TRY_EVERY;
	if (!open_channel(l)) {
		spawn(l, now);
		return;
	}
	log_info("the volume engine is there (process %d)", (int)l->channel->pid);
	l->cb.connected(l->cb.ctx);
}

/* Counted in turns of ours, so that a loop that stood still itself blames nobody. */
static void ask_for_echo(struct engine_link *l, usec_t now)
{
	struct channel *c = l->channel;
	struct engine_echo msg;

	if (now < c->next_echo)
		return;
	c->next_echo = now + l->echo_every;
	if (!c->is_echoed && ++c->silent >= ECHOES) {
		log_warning("the volume engine hangs (process %d): it is replaced", (int)c->pid);
		(void)kill(c->pid, SIGKILL);
		l->killed = c->pid;
		engine_health_died(&l->health, now);
		disconnect(l);
		return;
	}
	if (!c->is_echoed)
		return;
	c->silent = 0;
	c->is_echoed = false;
	msg.number = ++c->echo;
	(void)say(l, &engine_echo_type, &msg, ANSWERS_BYTES_MAX);
}

static void send_waiting(struct engine_link *l)
{
	int rc = fdpass_queue_flush(&l->channel->queue, l->channel->fd);

	if (rc < 0 && rc != -EAGAIN)
		disconnect(l);
	else
		watch(l->channel);
}

void engine_link_step(struct engine_link *l)
{
	usec_t now = clock_boottime();

	if (l->channel) {
		bool has_told = l->channel->has_told;

		read_some(l);
		if (!l->channel)
			log_warning("the volume engine is gone");
		if (!l->channel && !has_told)
			l->next_try = now + SPAWN_EVERY; /* it does not want us: another release */
	}
	if (!l->channel)
		greet(l, now);
	engine_health_present(&l->health, l->channel != NULL, now);
	if (l->channel)
		ask_for_echo(l, now);
	if (l->channel && l->channel->queue.first)
		send_waiting(l);
	bulk_maker_step(l->bulk, l->channel && l->channel->has_told);
}

bool engine_link_is_connected(const struct engine_link *l)
{
	return l->channel != NULL;
}

bool engine_link_is_unsound(struct engine_link *l)
{
	return engine_health_is_unsound(&l->health, clock_boottime());
}

const char *engine_link_version(const struct engine_link *l)
{
	return l->channel ? l->channel->version : "";
}

/* ---- orders ---- */

bool engine_link_row(struct engine_link *l, const struct engine_row *row)
{
	return say(l, &engine_row_type, row, ORDERS_BYTES_MAX);
}

bool engine_link_drop(struct engine_link *l, const char *id)
{
	struct engine_drop msg = {0};

	(void)snprintf(msg.id, sizeof msg.id, "%s", id);
	return say(l, &engine_drop_type, &msg, ORDERS_BYTES_MAX);
}

bool engine_link_verify(struct engine_link *l, const char *id, bool primary_wins)
{
	struct engine_verify msg = {.primary_wins = primary_wins};

	(void)snprintf(msg.id, sizeof msg.id, "%s", id);
	return say(l, &engine_verify_type, &msg, ORDERS_BYTES_MAX);
}

void engine_link_proposed(struct engine_link *l, uint64_t seq, int rc)
{
	const struct engine_proposed msg = {.seq = seq, .error = rc < 0 ? (uint32_t)-rc : 0};

	(void)say(l, &engine_proposed_type, &msg, ANSWERS_BYTES_MAX);
}

void engine_link_page(struct engine_link *l, int memfd)
{
	int own = fcntl(memfd, F_DUPFD_CLOEXEC, 0);

	CHECK(own >= 0);
	(void)close(l->memfd);
	l->memfd = own;
	if (l->channel)
		(void)say_hello(l);
}

/* ---- bulk links ---- */

static bool peer_known_cb(void *ctx, node_id_t node)
{
	const struct engine_link *l = ctx;

	return l->cb.peer_known(l->cb.ctx, node);
}

/* An engine that does not take it, or is gone: the link ends with our socket, and is made anew. */
static void hand_over_cb(void *ctx, const struct bulk_handover *h, int fd)
{
	struct engine_link *l = ctx;
	int rc = l->channel ? fdpass_send(l->channel->fd, h, sizeof *h, fd) : -ENOTCONN;

	if (rc < 0)
		log_info("bulk link with node %u: the volume engine does not take it", h->peer);
}

void engine_link_peer(struct engine_link *l, node_id_t node, const char *address)
{
	bulk_maker_peer(l->bulk, node, address);
}

void engine_link_accept(struct engine_link *l, int fd, const uint8_t *first, size_t n)
{
	if (l->channel)
		bulk_maker_accept(l->bulk, fd, first, n);
	else
		(void)close(fd); /* nobody would take it */
}

/* ---- life ---- */

int engine_link_open(const struct engine_link_config *config, const struct engine_link_callbacks *cb,
		     struct engine_link **ret, struct err *e)
{
	struct engine_link *l = xcalloc(1, sizeof *l);
	const struct bulk_maker_config bulk = {.loop = config->loop,
					       .self = config->self,
					       .listen = config->listen,
					       .ca_cert = config->ca_cert,
					       .cert = config->cert,
					       .key = config->key};
	const struct bulk_maker_callbacks bulk_cb = {l, peer_known_cb, hand_over_cb};
	int rc = 0;

	l->loop = config->loop;
	l->cb = *cb;
	l->self = config->self;
	l->options = config->options;
	l->echo_every = (config->hung ? config->hung : ENGINE_HUNG) / ECHOES;
	(void)snprintf(l->dir, sizeof l->dir, "%s", config->dir);
	(void)snprintf(l->path, sizeof l->path, "%.900s/run/vol.sock", config->dir);
	if (strlen(l->path) >= sizeof((struct sockaddr_un *)0)->sun_path)
		rc = err_set(e, -ENAMETOOLONG, "%s: too long for a socket's path", l->path);
	if (rc == 0)
		rc = bulk_maker_open(&bulk, &bulk_cb, &l->bulk, e);
	if (rc < 0) {
		free(l);
		return rc;
	}
	l->memfd = fcntl(config->memfd, F_DUPFD_CLOEXEC, 0);
	CHECK(l->memfd >= 0);
	*ret = l;
	return 0;
}

struct engine_link *engine_link_close(struct engine_link *l)
{
	if (!l)
		return NULL;
	disconnect(l);
	l->bulk = bulk_maker_close(l->bulk);
	(void)close(l->memfd);
	free(l);
	return NULL;
}
