/* SPDX-License-Identifier: Apache-2.0
 * Nodes with a real kedge-vol each, and the test in the place of the store. */
#include "tests/unit/engine_fixture.h"

#include "tests/unit/pki_help.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define HUNG (USEC_PER_SEC)

/* ---- time ---- */

void lab_turn(struct lab *lab)
{
	(void)uv_run(&lab->loop, UV_RUN_NOWAIT);
	for (size_t i = 0; i < lab->n; i++)
		if (lab->hosts[i].link)
			engine_link_step(lab->hosts[i].link);
	(void)poll(NULL, 0, 1);
}

void lab_run(struct lab *lab, usec_t time)
{
	usec_t end = clock_boottime() + time;

	while (clock_boottime() < end)
		lab_turn(lab);
}

/* ---- the store ---- */

bool store_is_in_sync(const struct lab *lab, node_id_t node)
{
	for (size_t i = 0; i < lab->n_members; i++)
		if (lab->members[i].node == node)
			return lab->members[i].in_sync;
	return false;
}

void store_tell(struct host *h)
{
	struct lab *lab = h->lab;
	struct buf members = {0};
	struct engine_row row = lab->row;

	if (!h->link || !engine_link_is_connected(h->link) || row.version == 0)
		return;
	for (size_t i = 0; i < lab->n_members; i++)
		message_encode(&engine_member_type, &lab->members[i], &members);
	row.serve = lab->serve[h->node - 1];
	row.gen = lab->gen;
	row.members = (struct message_bin){members.data, members.len};
	assert_true(engine_link_row(h->link, &row));
	buf_free(&members);
}

void store_commit(struct lab *lab, bool new_epoch)
{
	lab->row.version++;
	lab->row.epoch += new_epoch;
	for (size_t i = 0; i < lab->n; i++)
		store_tell(&lab->hosts[i]);
}

void store_create(struct lab *lab)
{
	lab->row = (struct engine_row){.id = ID,
				       .name = "disk",
				       .size = DISK_BYTES,
				       .version = 1,
				       .epoch = 1,
				       .primary = 1,
				       .primary_since = 1,
				       .vm_epoch = 1};
	lab->n_members = lab->n;
	for (size_t i = 0; i < lab->n; i++)
		lab->members[i] = (struct engine_member){.node = (uint32_t)i + 1, .in_sync = i == 0};
	lab->serve[0] = ENGINE_SERVE_VM;
	store_commit(lab, false);
}

static struct engine_member *member(struct lab *lab, node_id_t node)
{
	for (size_t i = 0; i < lab->n_members; i++)
		if (lab->members[i].node == node)
			return &lab->members[i];
	return NULL;
}

/* The table of VOLUME-PROTOCOL, section 1. */
static int commit_change(struct lab *lab, const struct engine_propose *p)
{
	struct engine_member *m = member(lab, p->node);

	if (p->epoch != lab->row.epoch)
		return -EAGAIN;
	if (p->kind == 0 && (!m || !m->in_sync || m->node == lab->row.primary))
		return -EINVAL;
	if (p->kind == 1 && (!m || m->in_sync || m->reported != p->incarnation))
		return -EINVAL;
	if (p->kind == 0)
		m->in_sync = false;
	if (p->kind == 1) {
		m->in_sync = true;
		m->incarnation = p->incarnation;
	}
	store_commit(lab, true);
	return 0;
}

/* ---- callbacks ---- */

static void connected_cb(void *ctx)
{
	struct host *h = ctx;

	h->connected++;
	store_tell(h);
}

/* As the store has it: when all in sync have room. */
static void try_to_grow(struct lab *lab)
{
	for (size_t i = 0; i < lab->n_members; i++)
		if (lab->members[i].in_sync && lab->members[i].size < lab->row.grow_to)
			return;
	if (lab->row.grow_to) {
		lab->row.size = lab->row.grow_to;
		lab->row.epoch++;
	}
	lab->row.grow_to = 0;
}

static void opened_cb(void *ctx, const struct engine_opened *msg)
{
	struct host *h = ctx;
	struct engine_member *m = member(h->lab, h->node);

	h->n_opened++;
	h->opened = *msg;
	assert_string_equal(msg->id, ID);
	if (!m || (m->reported == msg->incarnation && strcmp(m->replica, msg->replica) == 0 && m->size == msg->size))
		return;
	m->size = msg->size;
	memcpy(m->replica, msg->replica, sizeof m->replica);
	m->reported = msg->incarnation;
	if (m->in_sync && m->incarnation == 0)
		m->incarnation = msg->incarnation;
	try_to_grow(h->lab);
	store_commit(h->lab, false);
}

static void propose_cb(void *ctx, const struct engine_propose *msg)
{
	struct host *h = ctx;
	struct lab *lab = h->lab;

	assert_true(msg->kind < ARRAY_LEN(lab->asked));
	lab->asked[msg->kind]++;
	lab->last = *msg;
	if (!lab->is_mute)
		engine_link_proposed(h->link, msg->seq, commit_change(lab, msg));
}

static void status_cb(void *ctx, const struct engine_status *msg)
{
	struct host *h = ctx;

	h->n_statuses++;
	h->status = *msg;
}

static void dropped_cb(void *ctx, const struct engine_drop *msg)
{
	assert_string_equal(msg->id, ID);
	((struct host *)ctx)->n_dropped++;
}

static void finding_cb(void *ctx, const struct engine_finding *msg)
{
	struct host *h = ctx;

	h->n_findings++;
	h->finding = *msg;
}

static bool peer_known_cb(void *ctx, node_id_t node)
{
	const struct host *h = ctx;

	return h->lab->knows_peers && node != h->node;
}

static void bulk_cb(void *ctx, int fd, const uint8_t *first, size_t n)
{
	struct host *h = ctx;

	if (h->link)
		engine_link_accept(h->link, fd, first, n);
	else
		(void)close(fd);
}

/* ---- processes ---- */

void kedged_begin(struct host *h)
{
	const struct engine_link_config config = {.loop = &h->lab->loop,
						  .dir = h->dir,
						  .self = h->node,
						  .listen = h->address,
						  .ca_cert = h->ca,
						  .cert = h->cert,
						  .key = h->key,
						  .memfd = h->memfd,
						  .hung = h->lab->is_patient ? 0 : HUNG};
	const struct engine_link_callbacks cb = {.ctx = h,
						 .connected = connected_cb,
						 .opened = opened_cb,
						 .propose = propose_cb,
						 .status = status_cb,
						 .dropped = dropped_cb,
						 .finding = finding_cb,
						 .peer_known = peer_known_cb};

	assert_int_equal(engine_link_open(&config, &cb, &h->link, NULL), 0);
	for (size_t i = 0; i < h->lab->n; i++)
		if (&h->lab->hosts[i] != h)
			engine_link_peer(h->link, h->lab->hosts[i].node, h->lab->hosts[i].address);
}

void kedged_die(struct host *h)
{
	h->link = engine_link_close(h->link);
}

static void start_bounded(const struct host *h)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof path, "%s/log", h->dir);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd >= 0 && dup2(fd, 2) == 2)
		(void)execl(KEDGE_VOL, "kedge-vol", "--dir", h->dir, "--link-bytes", h->lab->link_mib, (char *)NULL);
}

pid_t engine_start(const struct host *h)
{
	pid_t parent = getpid(), child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
			_exit(126);
		if (h->lab->link_mib)
			start_bounded(h);
		else
			(void)execl(KEDGE_VOL, "kedge-vol", "--dir", h->dir, (char *)NULL);
		_exit(127);
	}
	return child;
}

pid_t engine_pid(const struct host *h)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct ucred cred = {0};
	socklen_t n = sizeof cred;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(at.sun_path, sizeof at.sun_path, "%.90s/run/volctl.sock", h->dir);
	if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0)
		cred.pid = 0;
	(void)close(fd);
	return cred.pid;
}

void engine_kill(const struct host *h)
{
	pid_t pid = engine_pid(h);

	if (pid <= 0)
		return;
	(void)kill(pid, SIGKILL);
	while (engine_pid(h) == pid)
		(void)poll(NULL, 0, 1);
	(void)waitpid(pid, NULL, 0); /* if it is a child */
}

size_t files_below(const struct host *h, const char *folder)
{
	char path[256];
	DIR *d;
	size_t n = 0;

	(void)snprintf(path, sizeof path, "%s/%s", h->dir, folder);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		(void)closedir(d);
	return n > 2 ? n - 2 : 0;
}

/* ---- set up ---- */

static void free_address(char ret[ADDRESS_BYTES_MAX])
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
	(void)close(fd);
	(void)snprintf(ret, ADDRESS_BYTES_MAX, "127.0.0.1:%u", ntohs(at.sin_port));
}

static void listen_at(struct host *h)
{
	const struct net_config config = {.self = h->node,
					  .listen = h->address,
					  .cluster = PKI_CLUSTER,
					  .ca_cert = h->ca,
					  .cert = h->cert,
					  .key = h->key};
	const struct net_callbacks cb = {.ctx = h, .peer_known = peer_known_cb, .bulk = bulk_cb};

	assert_int_equal(net_new(&h->lab->loop, &config, &cb, &h->net, NULL), 0);
	assert_int_equal(net_listen(h->net, NULL), 0);
	h->lab->nets++;
}

static void host_init(struct lab *lab, size_t i)
{
	struct host *h = &lab->hosts[i];
	char name[16], common_name[16];

	*h = (struct host){.lab = lab, .node = (node_id_t)i + 1};
	(void)snprintf(name, sizeof name, "n%u", h->node);
	(void)snprintf(common_name, sizeof common_name, "node:%u", h->node);
	pki_identity(lab->root, "ca", common_name, PKI_CLUSTER, name);
	(void)snprintf(h->ca, sizeof h->ca, "%s/ca.crt", lab->root);
	(void)snprintf(h->cert, sizeof h->cert, "%s/%s.crt", lab->root, name);
	(void)snprintf(h->key, sizeof h->key, "%s/%s.key", lab->root, name);
	(void)snprintf(h->dir, sizeof h->dir, "%s/%s", lab->root, name);
	assert_int_equal(file_make_folder(h->dir, 0700, NULL), 0);
	free_address(h->address);
	h->memfd = memfd_create("kedge-test-page", MFD_CLOEXEC);
	assert_int_equal(ftruncate(h->memfd, sizeof *h->page), 0);
	h->page = mmap(NULL, sizeof *h->page, PROT_READ | PROT_WRITE, MAP_SHARED, h->memfd, 0);
	assert_true(h->page != MAP_FAILED);
	h->page->magic = GUARD_PAGE_MAGIC;
	h->page->version = GUARD_PAGE_VERSION;
	listen_at(h);
}

static int set_up_lab(void **state, size_t n)
{
	struct lab *lab = xcalloc(1, sizeof *lab);

	*state = lab;
	assert_int_equal(uv_loop_init(&lab->loop), 0);
	(void)snprintf(lab->root, sizeof lab->root, "/tmp/kedge-engine-XXXXXX");
	assert_non_null(mkdtemp(lab->root));
	pki_ca(lab->root, "ca", PKI_CLUSTER);
	lab->knows_peers = true;
	lab->n = n;
	for (size_t i = 0; i < n; i++)
		host_init(lab, i);
	return 0;
}

int set_up_one(void **state)
{
	return set_up_lab(state, 1);
}

int set_up_two(void **state)
{
	return set_up_lab(state, 2);
}

static int remove_cb(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static void net_closed_cb(void *ctx)
{
	((struct lab *)ctx)->nets--;
}

int tear_down_lab(void **state)
{
	struct lab *lab = *state;

	for (size_t i = 0; i < lab->n; i++)
		kedged_die(&lab->hosts[i]);
	for (size_t i = 0; i < lab->n; i++) {
		struct host *h = &lab->hosts[i];

		/* One that was started a moment ago may not listen yet: the lock tells when none is left. */
		for (int lock = -1; lock < 0 && files_below(h, "run") > 0; (void)poll(NULL, 0, 1)) {
			char path[128];

			engine_kill(h);
			(void)snprintf(path, sizeof path, "%s/run/vol.lock", h->dir);
			lock = file_lock(path, NULL);
			if (lock >= 0)
				(void)close(lock);
		}
		net_close(h->net, net_closed_cb, lab);
		(void)munmap(h->page, sizeof *h->page);
		(void)close(h->memfd);
	}
	while (uv_run(&lab->loop, UV_RUN_ONCE))
		;
	assert_int_equal(lab->nets, 0);
	assert_int_equal(uv_loop_close(&lab->loop), 0);
	(void)nftw(lab->root, remove_cb, 16, FTW_DEPTH | FTW_PHYS);
	free(lab);
	return 0;
}
