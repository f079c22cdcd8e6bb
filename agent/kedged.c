/* SPDX-License-Identifier: Apache-2.0
 * kedged: the agent of a node. It wires the parts, turns once per round of its loop, and performs what is decided. */
#include "agent/agent.h"

#include "agent/process.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TURN_MS              20
#define INFO_EVERY           USEC_PER_SEC
#define CHECKPOINT_EVERY     (10 * USEC_PER_SEC)
#define STARTED_BYTES_MAX    (1u << 20)
#define PEM_FILE_BYTES_MAX   (32u << 10)
#define VOTERS               3
#define EXIT_FATAL           70
#define RESERVED_DESCRIPTORS 20
#define WORKERS              "32" /* twice as many as there can be uploads */

static usec_t now_cb(void *ctx)
{
	(void)ctx;
	return clock_boottime();
}

static usec_t wall_cb(void *ctx)
{
	(void)ctx;
	return clock_wall();
}

/* ---- effects of the node's decisions ---- */

static void send_cb(void *ctx, node_id_t to, const void *p, size_t n)
{
	struct agent *agent = ctx;
	int rc = net_peer_send(agent->net, to, p, n);

	(void)rc; /* may be lost: whoever needs an answer asks again */
}

static bool is_up_cb(void *ctx, node_id_t node)
{
	return net_peer_is_up(((struct agent *)ctx)->net, node);
}

static void guard_watch_cb(void *ctx, size_t slot)
{
	guests_watch(((struct agent *)ctx)->guests, slot);
}

static void guard_drop_cb(void *ctx, size_t slot)
{
	guard_link_drop(((struct agent *)ctx)->guard, slot);
}

static void guard_kick_cb(void *ctx)
{
	guard_link_kick(((struct agent *)ctx)->guard);
}

static void freeze_cb(void *ctx, size_t slot)
{
	guests_freeze(((struct agent *)ctx)->guests, slot);
}

static void vm_start_cb(void *ctx, const struct store_vm *vm)
{
	struct agent *agent = ctx;
	struct store_vm row = *vm;
	char seed[PATH_BYTES_MAX];
	struct err e = {0};

	if (row.kernel_digest[0])
		images_path(agent->images, row.kernel_digest, row.spec.kernel);
	if (row.initrd_digest[0])
		images_path(agent->images, row.initrd_digest, row.spec.initrd);
	if (seed_file_make(agent, vm, seed, &e) < 0)
		log_error("vm %s: %s, ignoring: it starts without what cloud-init shall get", vm->spec.name, e.text);
	guests_start(agent->guests, &row, seed, agent->volumes);
}

static void vm_resume_cb(void *ctx, const char *vm, uint64_t gen)
{
	guests_resume(((struct agent *)ctx)->guests, vm, gen);
}

static void vm_shutdown_cb(void *ctx, const char *vm, uint64_t gen)
{
	guests_shutdown(((struct agent *)ctx)->guests, vm, gen);
}

static void vm_kill_cb(void *ctx, const char *vm, uint64_t gen)
{
	guests_kill(((struct agent *)ctx)->guests, vm, gen);
}

static bool disks_serve_cb(void *ctx, const struct store_vm *vm)
{
	struct agent *agent = ctx;

	return volumes_serve(agent->volumes, vm) && images_ready(agent->images, vm);
}

static usec_t files_progress_cb(void *ctx, const struct store_vm *vm)
{
	return images_progress(((struct agent *)ctx)->images, vm);
}

static void vm_forget_cb(void *ctx, const char *vm, uint64_t gen)
{
	struct agent *agent = ctx;

	seed_file_remove(agent, vm);
	guests_forget(agent->guests, vm, gen);
}

static _Noreturn void fatal_cb(void *ctx, const char *why)
{
	(void)ctx;
	log_error("%s: ending, so that the next start begins from what is on the disk", why);
	_exit(EXIT_FATAL);
}

/* ---- `started`: written aside by a worker, one at a time ---- */

static void path_of(const struct agent *agent, const char *file, char ret[PATH_BYTES_MAX + 32])
{
	(void)snprintf(ret, PATH_BYTES_MAX + 32, "%s/%s", agent->config.dir, file);
}

static void save_cb(uv_work_t *work)
{
	struct agent *agent = work->data;
	char path[PATH_BYTES_MAX + 32];

	path_of(agent, "started", path);
	agent->started_rc = file_replace(path, agent->started.data, agent->started.len, 0600, &agent->started_error);
}

static void saved_cb(uv_work_t *work, int status)
{
	struct agent *agent = work->data;

	(void)status;
	if (agent->started_rc < 0)
		fatal_cb(agent, agent->started_error.text);
	node_started_saved(agent->node, agent->started_seq);
}

static void started_save_cb(void *ctx, uint64_t seq)
{
	struct agent *agent = ctx;
	const char *vm;
	uint64_t gen;

	agent->started.len = 0;
	for (size_t i = 0; node_started(agent->node, i, &vm, &gen); i++)
		buf_printf(&agent->started, "%s %llu\n", vm, (unsigned long long)gen);
	agent->started_seq = seq;
	agent->saving.data = agent;
	CHECK(uv_queue_work(&agent->loop, &agent->saving, save_cb, saved_cb) == 0);
}

static int load_started(struct agent *agent, struct err *e)
{
	char path[PATH_BYTES_MAX + 32], vm[NAME_BYTES_MAX], *line, *save = NULL;
	struct buf text = {0};
	unsigned long long gen;
	int rc;

	path_of(agent, "started", path);
	rc = file_read(path, STARTED_BYTES_MAX, &text, e);
	if (rc == -ENOENT)
		return 0;
	buf_append(&text, "", 1);
	for (line = strtok_r((char *)text.data, "\n", &save); rc == 0 && line; line = strtok_r(NULL, "\n", &save))
		if (sscanf(line, "%63s %llu", vm, &gen) == 2)
			node_started_load(agent->node, vm, gen);
		else
			rc = err_set(e, -EUCLEAN, "%s is damaged: wipe this node's folder and join as a new node",
				     path);
	buf_free(&text);
	return rc;
}

/* ---- each turn ---- */

static void info_step(struct agent *agent, usec_t now)
{
	struct peer_node_info info;

	if (now < agent->next_info)
		return;
	agent->next_info = now + INFO_EVERY;
	guests_info(agent->guests, &info);
	volumes_info(agent->volumes, &info);
	info.applied = store_applied(agent->store);
	info.hash = store_hash(agent->store);
	node_set_info(agent->node, &info);
}

static void checkpoint_cb(uv_work_t *work)
{
	struct agent *agent = work->data;
	char path[PATH_BYTES_MAX + 32];

	path_of(agent, "state.db", path);
	if (store_checkpoint(path) < 0)
		log_warning("the state's write-ahead log cannot be moved into it, ignoring: tried again later");
}

static void checkpointed_cb(uv_work_t *work, int status)
{
	(void)status;
	((struct agent *)work->data)->is_checkpointing = false;
}

static void checkpoint_step(struct agent *agent, usec_t now)
{
	if (agent->is_checkpointing || now < agent->next_checkpoint ||
	    agent->checkpointed == store_applied(agent->store))
		return;
	agent->is_checkpointing = true;
	agent->next_checkpoint = now + CHECKPOINT_EVERY;
	agent->checkpointed = store_applied(agent->store);
	agent->checkpointing.data = agent;
	CHECK(uv_queue_work(&agent->loop, &agent->checkpointing, checkpoint_cb, checkpointed_cb) == 0);
}

static void tell_leadership(struct agent *agent)
{
	bool leading = node_leads(agent->node);

	if (leading != agent->leading)
		log_info("this node %s", leading ? "leads" : "does not lead any more");
	agent->leading = leading;
}

static void check_cb(uv_check_t *check)
{
	struct agent *agent = check->data;
	usec_t now = clock_boottime();

	guard_link_step(agent->guard);
	consensus_step(agent->consensus);
	node_step(agent->node);
	volumes_step(agent->volumes);
	images_step(agent->images);
	guests_step(agent->guests, agent->volumes);
	consensus_step(agent->consensus);
	ctl_step(agent->ctl);
	founding_step(agent);
	port_step(agent);
	info_step(agent, now);
	checkpoint_step(agent, now);
	tell_leadership(agent);
}

static void timer_cb(uv_timer_t *timer)
{
	(void)timer; /* the turn itself is check_cb() */
}

/* ---- stopping: guests go on, and are frozen unless the agent comes back within the lease ---- */

static void part_closed_cb(void *ctx)
{
	((struct agent *)ctx)->closing--;
}

static void signal_cb(uv_signal_t *handle, int number)
{
	struct agent *agent = handle->data;

	if (agent->stopping)
		_exit(EXIT_FATAL);
	agent->stopping = true;
	log_info("signal %d: stopping; guests go on until their lease ends", number);
	uv_close((uv_handle_t *)&agent->check, NULL);
	uv_close((uv_handle_t *)&agent->timer, NULL);
	for (size_t i = 0; i < ARRAY_LEN(agent->signals); i++)
		uv_close((uv_handle_t *)&agent->signals[i], NULL);
	agent->closing = 2;
	guests_close(agent->guests);
	images_close(agent->images);
	volumes_close(agent->volumes);
	consensus_close(agent->consensus, part_closed_cb, agent);
	net_close(agent->net, part_closed_cb, agent);
}

static void release(struct agent *agent)
{
	CHECK(agent->closing == 0);
	CHECK(uv_loop_close(&agent->loop) == 0);
	agent->ctl = ctl_free(agent->ctl);
	agent->volumes = volumes_free(agent->volumes);
	agent->node = node_free(agent->node);
	agent->guests = guests_free(agent->guests);
	agent->images = images_free(agent->images);
	agent->guard = guard_link_close(agent->guard);
	agent->store = store_close(agent->store);
	buf_free(&agent->started);
	buf_free(&agent->ca_cert);
	buf_free(&agent->ca_key);
}

/* ---- starting ---- */

static int make_folders(const struct agent *agent, struct err *e)
{
	static const char *const names[] = {"run", "raft", "console", "log", "images"};
	char path[PATH_BYTES_MAX + 32];
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(names); i++) {
		path_of(agent, names[i], path);
		rc = file_make_folder(path, 0700, e);
	}
	return rc;
}

static int lock(const struct agent *agent, struct err *e)
{
	char path[PATH_BYTES_MAX + 32];
	int fd;

	path_of(agent, "run/kedged.lock", path);
	fd = file_lock(path, e); /* kept open: it goes with the process */
	if (fd == -EWOULDBLOCK)
		return err_set(e, fd, "an agent of %s runs already", agent->config.dir);
	return fd < 0 ? fd : 0;
}

static int load_ca(struct agent *agent, struct err *e)
{
	char path[PATH_BYTES_MAX + 32];
	int rc = file_read(agent->config.ca, PEM_FILE_BYTES_MAX, &agent->ca_cert, e);

	if (rc < 0)
		return rc;
	path_of(agent, "pki/ca.key", path);
	rc = file_read(path, PEM_FILE_BYTES_MAX, &agent->ca_key, e);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	return net_pki_fingerprint(&agent->ca_cert, agent->ca_fingerprint, e);
}

static int open_store(struct agent *agent, struct err *e)
{
	struct store_cluster cluster = {0};
	char path[PATH_BYTES_MAX + 32];
	int rc;

	path_of(agent, "state.db", path);
	rc = store_open(path, &agent->store, e);
	if (rc < 0)
		return rc;
	store_cluster(agent->store, &cluster);
	if (cluster.cluster[0] && strcmp(cluster.cluster, agent->config.cluster) != 0)
		return err_set(e, -EINVAL, "%s belongs to the cluster %s, kedge.conf to %s", path, cluster.cluster,
			       agent->config.cluster);
	return 0;
}

static int raft_send_cb(void *ctx, node_id_t to, const void *p, size_t n)
{
	return net_peer_send(((struct agent *)ctx)->net, to, p, n);
}

static int open_consensus(struct agent *agent, struct err *e)
{
	char dir[PATH_BYTES_MAX + 32];
	struct consensus_config config = {.self = agent->config.id,
					  .address = agent->config.listen,
					  .timing = agent->config.timing,
					  .store = agent->store,
					  .dir = dir,
					  .loop = &agent->loop};
	const struct consensus_callbacks cb = {.ctx = agent, .send = raft_send_cb, .fatal = fatal_cb};
	int rc;

	path_of(agent, "raft", dir);
	rc = consensus_open(&config, &cb, &agent->consensus, e);
	if (rc < 0)
		return rc;
	agent->founding = founding_is_due(agent) ? FOUNDING_DUE : FOUNDING_OVER;
	if (agent->founding == FOUNDING_DUE) {
		rc = consensus_bootstrap(agent->consensus, e);
		if (rc < 0 && rc != -EEXIST) /* an earlier start came this far */
			return rc;
	}
	return consensus_start(agent->consensus, e);
}

static int open_node(struct agent *agent, struct err *e)
{
	const struct node_env env = {.ctx = agent,
				     .now = now_cb,
				     .wall = wall_cb,
				     .send = send_cb,
				     .is_up = is_up_cb,
				     .guard_watch = guard_watch_cb,
				     .guard_drop = guard_drop_cb,
				     .guard_kick = guard_kick_cb,
				     .freeze = freeze_cb,
				     .started_save = started_save_cb,
				     .vm_start = vm_start_cb,
				     .vm_resume = vm_resume_cb,
				     .vm_shutdown = vm_shutdown_cb,
				     .vm_kill = vm_kill_cb,
				     .vm_forget = vm_forget_cb,
				     .disks_serve = disks_serve_cb,
				     .files_progress = files_progress_cb};
	const struct node_config config = {.self = agent->config.id,
					   .timing = agent->config.timing,
					   .store = agent->store,
					   .consensus = agent->consensus,
					   .page = agent->page,
					   .session = random_u64(),
					   .voters_max = VOTERS,
					   .replace_after = agent->config.replace_after};
	int rc;

	agent->node = node_new(&config, &env);
	rc = load_started(agent, e);
	if (rc == 0)
		rc = guests_open(&agent->loop, &agent->config, agent->page, agent->guard, &agent->guests, e);
	if (rc == 0)
		guests_adopt(agent->guests, agent->node);
	if (rc == 0)
		node_adopt_exports(agent->node);
	return rc;
}

static void open_handles(struct agent *agent)
{
	static const int numbers[] = {SIGTERM, SIGINT};

	CHECK(uv_check_init(&agent->loop, &agent->check) == 0 && uv_timer_init(&agent->loop, &agent->timer) == 0);
	agent->check.data = agent;
	CHECK(uv_check_start(&agent->check, check_cb) == 0);
	CHECK(uv_timer_start(&agent->timer, timer_cb, 0, TURN_MS) == 0);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		CHECK(uv_signal_init(&agent->loop, &agent->signals[i]) == 0);
		agent->signals[i].data = agent;
		CHECK(uv_signal_start(&agent->signals[i], signal_cb, numbers[i]) == 0);
	}
}

static int start(struct agent *agent, struct err *e)
{
	int rc = make_folders(agent, e);

	if (rc == 0)
		rc = lock(agent, e);
	if (rc == 0)
		rc = load_ca(agent, e);
	if (rc == 0)
		rc = guard_link_open(agent->config.dir, &agent->guard, &agent->page, e);
	if (rc == 0)
		rc = open_store(agent, e);
	if (rc == 0)
		rc = open_consensus(agent, e);
	if (rc == 0)
		rc = open_node(agent, e);
	if (rc == 0)
		rc = volumes_open(agent, guard_link_memfd(agent->guard), &agent->volumes, e);
	if (rc == 0)
		agent->images = images_open(agent);
	if (rc == 0)
		rc = port_open(agent, e);
	if (rc < 0)
		return rc;
	agent->ctl = ctl_new(agent);
	open_handles(agent);
	log_info("kedged %s: node %s (%u) of cluster %s, listening on %s", version_own(), agent->config.name,
		 agent->config.id, agent->config.cluster, agent->config.listen);
	return 0;
}

static int usage(int code)
{
	(void)fprintf(code ? stderr : stdout,
		      "usage: kedged --config FILE         run this node (FILE: DIR/kedge.conf, by 'kedge init' or "
		      "'kedge join')\n"
		      "       kedged --check-config FILE   only look whether FILE is good\n"
		      "       kedged --version\n");
	return code;
}

enum what { WHAT_NOTHING, WHAT_RUN, WHAT_CHECK, WHAT_VERSION, WHAT_HELP };

static enum what parse(int argc, char **argv, const char **ret_path)
{
	static const struct option options[] = {{"config", required_argument, NULL, WHAT_RUN},
						{"check-config", required_argument, NULL, WHAT_CHECK},
						{"version", no_argument, NULL, WHAT_VERSION},
						{"help", no_argument, NULL, WHAT_HELP},
						{NULL, 0, NULL, 0}};
	enum what what = WHAT_NOTHING;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == '?' || what != WHAT_NOTHING)
			return WHAT_NOTHING;
		what = (enum what)c;
		*ret_path = optarg;
	}
	return optind == argc ? what : WHAT_NOTHING;
}

/* libuv closes and makes anew a pipe of its own in every forked child, by a handler of pthread_atfork(). libvirt's
 * child forks once more after it closed everything and took the lowest descriptors for itself: libuv would then close
 * those. So the lowest are taken for good, and libuv's pipe never lies among them (docs/PLATFORM.md). */
static void reserve_low_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		CHECK(fd >= 0);
	} while (fd < RESERVED_DESCRIPTORS);
}

static int run(const char *path, bool only_check)
{
	static struct agent agent;
	struct err e = {0};

	if (config_load(path, &agent.config, &e) < 0) {
		(void)fprintf(stderr, "kedged: %s\n", e.text);
		return 2;
	}
	if (only_check) {
		(void)printf("%s is good\n", path);
		return 0;
	}
	log_setup(agent.config.level, getenv("JOURNAL_STREAM") != NULL);
	(void)setenv("UV_THREADPOOL_SIZE", WORKERS,
		     0); /* before the first: long work must not keep short work waiting */
	(void)signal(SIGPIPE, SIG_IGN);
	reserve_low_descriptors();
	CHECK(uv_loop_init(&agent.loop) == 0);
	if (start(&agent, &e) < 0) {
		log_error("%s", e.text);
		return 1;
	}
	(void)uv_run(&agent.loop, UV_RUN_DEFAULT);
	release(&agent);
	return 0;
}

int main(int argc, char **argv)
{
	const char *path = NULL;
	enum what what = parse(argc, argv, &path);

	switch (what) {
	case WHAT_RUN:
	case WHAT_CHECK:
		return run(path, what == WHAT_CHECK);
	case WHAT_VERSION:
		(void)printf("kedged %s\n", version_own());
		return 0;
	default:
		return usage(what == WHAT_HELP ? 0 : 2);
	}
}
