/* SPDX-License-Identifier: Apache-2.0
 * kedge-bulk-helper: keeps bulk links between volume engines that have no kedged: it has the node's key, does the
 * handshakes and hands each link to the engine beside it, as kedged does.
 *
 *   kedge-bulk-helper --make-pki DIR --nodes 1,2,3      writes ca, admin and n1, n2, ... (.crt and .key) below DIR
 *   kedge-bulk-helper --node N --listen HOST:PORT --ca FILE --cert FILE --key FILE --engine DIR/run/vol.sock
 *                     --peer M=HOST:PORT ...
 *
 * Of a pair the lower id dials. One thread per peer that is dialled and one per connection that was accepted; each
 * connects to the engine anew, so that it sees when the engine that has its link dies. When that engine says that a
 * link is worn, another one is made beside it; --no-renewal: not before it has ended, and --replace: the older one ends
 * as the newer one comes, as in engines of before. */
#include "net/internal.h"
#include "proto/proto.h"
#include "tests/unit/pki_help.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DIAL_MAX     USEC_PER_SEC
#define SHAKE_MAX    (5 * USEC_PER_SEC)
#define BACK_OFF_MIN (50 * USEC_PER_MS)
#define BACK_OFF_MAX (500 * USEC_PER_MS)
#define LASTED       USEC_PER_SEC /* a link that did is no failed attempt */
#define ACCEPTED_MAX 64

struct dialled {
	node_id_t node;
	struct sockaddr_storage at;
};

static struct {
	struct net_bulk_identity *id;
	node_id_t self;
	struct sockaddr_storage listen;
	struct sockaddr_un engine;
	struct dialled peers[NODES_MAX];
	size_t n_peers;
	atomic_uint accepted;
	bool no_renewal, replaces;
} helper;

/* ---- certificates ---- */

static int make_pki(const char *dir, const char *nodes)
{
	char text[512], *rest = text;

	CHECK(strlen(nodes) < sizeof text);
	memcpy(text, nodes, strlen(nodes) + 1);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
		log_error("make '%s': %s", dir, strerror(errno));
		return 1;
	}
	pki_ca(dir, "ca", PKI_CLUSTER);
	pki_identity(dir, "ca", "admin:root", PKI_CLUSTER, "admin");
	for (const char *one = strsep(&rest, ","); one; one = strsep(&rest, ",")) {
		char name[32], common_name[32];

		(void)snprintf(name, sizeof name, "n%s", one);
		(void)snprintf(common_name, sizeof common_name, "node:%s", one);
		pki_identity(dir, "ca", common_name, PKI_CLUSTER, name);
	}
	return 0;
}

/* ---- one link ---- */

static void pause_for(usec_t t)
{
	(void)poll(NULL, 0, (int)(t / USEC_PER_MS));
}

static int connect_engine(void)
{
	const struct timeval second = {.tv_sec = 1}; /* where it does not accept */
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second) == 0);
	if (connect(fd, (const struct sockaddr *)&helper.engine, sizeof helper.engine) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

/* What the engine says: is its link with @node worn? False also where it says nothing of that. */
static bool hears_worn(int engine, node_id_t node)
{
	uint8_t bytes[ENGINE_BYTES_MAX];
	struct engine_link_state msg;
	ssize_t n = recv(engine, bytes, sizeof bytes, MSG_DONTWAIT);
	uint32_t id;

	return n > 0 && message_id(bytes, (size_t)n, &id) == 0 && id == ENGINE_LINK &&
	       message_decode(&engine_link_state_type, bytes, (size_t)n, &msg, NULL) == 0 && msg.node == node &&
	       msg.up && msg.worn;
}

/* Until the link or the engine ends: false; or until another link with @node (0: of no interest) is to be made beside
 * this one: true. The engine ends a link by shutdown(), since this process has the socket too. */
static bool watch(int fd, int engine, node_id_t node)
{
	struct pollfd fds[] = {{.fd = fd, .events = POLLRDHUP}, {.fd = engine, .events = POLLIN | POLLRDHUP}};

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents)
			return false;
		if (fds[1].revents & (POLLRDHUP | POLLHUP | POLLERR)) {
			(void)shutdown(fd, SHUT_RDWR); /* nobody else has it now; the peer must see that */
			return false;
		}
		if (fds[1].revents && hears_worn(engine, node) && node && !helper.no_renewal)
			return true;
	}
}

static bool is_peer(node_id_t node)
{
	for (size_t i = 0; i < helper.n_peers; i++)
		if (helper.peers[i].node == node)
			return true;
	return false;
}

/* The handshake on @fd, and handing it over. @expected 0: the peer has dialled. */
static bool hand_over(int fd, node_id_t expected, int engine)
{
	const struct net_bulk_handshake h = {
		.fd = fd, .is_client = expected != 0, .expected = expected, .deadline = clock_boottime() + SHAKE_MAX};
	struct bulk_handover *o = xcalloc(1, sizeof *o);
	struct err e = {0};
	node_id_t node;
	int rc = net_bulk_handshake(helper.id, &h, o, &e);

	node = o->peer;
	if (rc == 0 && !expected && (node >= helper.self || !is_peer(node)))
		rc = err_set(&e, -EACCES, "node %u has no business to dial", node);
	if (rc == 0 && fdpass_send(engine, o, sizeof *o, fd) < 0)
		rc = err_set(&e, -EPIPE, "link with node %u: the engine does not take it", node);
	explicit_bzero(o, sizeof *o);
	free(o);
	if (rc < 0)
		log_info("%s", e.text);
	else
		log_info("link with node %u handed over", node);
	return rc == 0;
}

/* A link that is worn: it stays until the engine ends it. */
struct worn {
	int fd, engine;
};

static void *worn_run(void *ctx)
{
	struct worn *w = ctx;

	(void)watch(w->fd, w->engine, 0);
	log_info("a link that was renewed ended");
	(void)close(w->fd);
	(void)close(w->engine);
	free(w);
	return NULL;
}

static void start_thread(void *(*run)(void *), void *ctx)
{
	pthread_t thread;

	CHECK(pthread_create(&thread, NULL, run, ctx) == 0);
	CHECK(pthread_detach(thread) == 0);
}

static void leave_worn(int fd, int engine)
{
	struct worn *w = xcalloc(1, sizeof *w);

	*w = (struct worn){fd, engine};
	start_thread(worn_run, w);
}

/* ---- dialling ---- */

static socklen_t size_of(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static bool finish_connect(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLOUT};
	int error = 0;
	socklen_t n = sizeof error;

	return poll(&pfd, 1, (int)(DIAL_MAX / USEC_PER_MS)) == 1 &&
	       getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0;
}

/* From the address that the node listens at, as kedged does. */
static int dial(const struct dialled *to)
{
	struct sockaddr_storage from = helper.listen;
	int fd = socket(to->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK(fd >= 0);
	if (from.ss_family == AF_INET)
		((struct sockaddr_in *)&from)->sin_port = 0;
	else
		((struct sockaddr_in6 *)&from)->sin6_port = 0;
	if (bind(fd, (struct sockaddr *)&from, size_of(&from)) == 0 &&
	    (connect(fd, (const struct sockaddr *)&to->at, size_of(&to->at)) == 0 || errno == EINPROGRESS) &&
	    finish_connect(fd))
		return fd;
	(void)close(fd);
	return -1;
}

static void *dial_run(void *ctx)
{
	const struct dialled *to = ctx;
	usec_t back_off = BACK_OFF_MIN;
	int worn = -1; /* its socket, which is no more ours: a duplicate */

	for (;;) {
		int engine = connect_engine(), fd = engine < 0 ? -1 : dial(to);
		usec_t since = clock_boottime();
		bool is_made = fd >= 0 && hand_over(fd, to->node, engine);

		if (is_made && worn >= 0) {
			if (helper.replaces)
				(void)shutdown(worn, SHUT_RDWR);
			(void)close(worn);
			worn = -1;
		}
		if (is_made && watch(fd, engine, to->node)) {
			worn = dup(fd);
			leave_worn(fd, engine);
			continue;
		}
		if (is_made)
			log_info("link with node %u ended", to->node);
		if (fd >= 0)
			(void)close(fd);
		if (engine >= 0)
			(void)close(engine);
		if (clock_boottime() - since > LASTED)
			back_off = BACK_OFF_MIN;
		pause_for(back_off);
		back_off = back_off * 2 < BACK_OFF_MAX ? back_off * 2 : BACK_OFF_MAX;
	}
	return NULL;
}

/* ---- accepting ---- */

static void *accepted_run(void *ctx)
{
	int fd = (int)(intptr_t)ctx, engine = connect_engine();

	if (engine >= 0) {
		if (hand_over(fd, 0, engine))
			(void)watch(fd, engine, 0);
		(void)close(engine);
	}
	(void)close(fd);
	atomic_fetch_sub(&helper.accepted, 1);
	return NULL;
}

static void accept_one(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0) {
		pause_for(BACK_OFF_MIN); /* out of descriptors, or the peer is gone already */
		return;
	}
	if (atomic_fetch_add(&helper.accepted, 1) >= ACCEPTED_MAX) {
		atomic_fetch_sub(&helper.accepted, 1);
		(void)close(fd);
		return;
	}
	start_thread(accepted_run, (void *)(intptr_t)fd);
}

static int listen_at(const char *address)
{
	int fd = socket(helper.listen.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
	if (bind(fd, (struct sockaddr *)&helper.listen, size_of(&helper.listen)) < 0 || listen(fd, 16) < 0) {
		log_error("listen at %s: %s", address, strerror(errno));
		exit(1);
	}
	return fd;
}

/* ---- the command line ---- */

static void usage(const char *why)
{
	(void)fprintf(stderr,
		      "%s\nusage: kedge-bulk-helper --make-pki DIR --nodes N,N,...\n"
		      "       kedge-bulk-helper --node N --listen HOST:PORT --ca FILE --cert FILE --key FILE "
		      "--engine SOCKET --peer N=HOST:PORT ... [--no-renewal|--replace]\n",
		      why);
	exit(2);
}

static void parse_at(const char *address, struct sockaddr_storage *ret)
{
	struct err e = {0};

	if (net_parse_address(address, ret, &e) < 0)
		usage(e.text);
}

static node_id_t parse_node(const char *text, char end, const char **ret_rest)
{
	char *rest;
	unsigned long v = strtoul(text, &rest, 10);

	if (rest == text || *rest != end || v < 1 || v > NODES_MAX)
		usage("a node is a number from 1 to 64");
	*ret_rest = *rest ? rest + 1 : rest;
	return (node_id_t)v;
}

static void add_peer(const char *text)
{
	const char *address;
	struct dialled *p = &helper.peers[helper.n_peers];

	if (helper.n_peers == NODES_MAX)
		usage("too many peers");
	p->node = parse_node(text, '=', &address);
	parse_at(address, &p->at);
	helper.n_peers++;
}

enum option_id {
	O_MAKE_PKI,
	O_NODES,
	O_NODE,
	O_LISTEN,
	O_CA,
	O_CERT,
	O_KEY,
	O_ENGINE,
	O_PEER,
	O_NO_RENEWAL,
	O_REPLACE,
	O_COUNT
};

static void read_options(int argc, char **argv, const char *values[O_COUNT])
{
	static const struct option options[] = {{"make-pki", 1, NULL, O_MAKE_PKI},
						{"nodes", 1, NULL, O_NODES},
						{"node", 1, NULL, O_NODE},
						{"listen", 1, NULL, O_LISTEN},
						{"ca", 1, NULL, O_CA},
						{"cert", 1, NULL, O_CERT},
						{"key", 1, NULL, O_KEY},
						{"engine", 1, NULL, O_ENGINE},
						{"peer", 1, NULL, O_PEER},
						{"no-renewal", 0, NULL, O_NO_RENEWAL},
						{"replace", 0, NULL, O_REPLACE},
						{NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c < 0 || c >= O_COUNT)
			usage("unknown option");
		values[c] = optarg;
		if (c == O_PEER)
			add_peer(optarg);
		helper.no_renewal |= c == O_NO_RENEWAL;
		helper.replaces |= c == O_REPLACE;
	}
	if (optind < argc)
		usage("an argument too many");
}

static void set_up(const char *values[O_COUNT])
{
	const char *rest;
	struct err e = {0};

	for (int i = O_NODE; i <= O_ENGINE; i++)
		if (!values[i])
			usage("an option is missing");
	helper.self = parse_node(values[O_NODE], '\0', &rest);
	parse_at(values[O_LISTEN], &helper.listen);
	helper.engine.sun_family = AF_UNIX;
	if (strlen(values[O_ENGINE]) >= sizeof helper.engine.sun_path)
		usage("the engine's socket: the path is too long");
	memcpy(helper.engine.sun_path, values[O_ENGINE], strlen(values[O_ENGINE]) + 1);
	if (net_bulk_identity_load(values[O_CA], values[O_CERT], values[O_KEY], &helper.id, &e) < 0) {
		log_error("%s", e.text);
		exit(1);
	}
	if (net_bulk_identity_node(helper.id) != helper.self)
		usage("the certificate is another node's");
}

int main(int argc, char **argv)
{
	const char *values[O_COUNT] = {NULL};
	int listener;

	read_options(argc, argv, values);
	if (values[O_MAKE_PKI])
		return values[O_NODES] ? make_pki(values[O_MAKE_PKI], values[O_NODES]) : (usage("--nodes?"), 2);
	set_up(values);
	(void)signal(SIGPIPE, SIG_IGN);
	listener = listen_at(values[O_LISTEN]);
	log_info("node %u listens at %s", helper.self, values[O_LISTEN]);
	for (size_t i = 0; i < helper.n_peers; i++)
		if (helper.peers[i].node > helper.self)
			start_thread(dial_run, &helper.peers[i]);
	for (;;)
		accept_one(listener);
}
