/* SPDX-License-Identifier: Apache-2.0
 * The traps of libraft, one case each: what it demands of its sends, what it gets wrong, and what it never tells. One
 * real node with libraft's own log on a real disk; the other end of its links is played here. */
#include "consensus/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#define FRAMES_MAX 4096
#define ROOM_ALL   SIZE_MAX

struct fixture {
	char dir[64];
	struct uv_loop_s loop;
	struct uv_timer_s beat; /* the loop turns at least this often */
	struct store *store;
	struct consensus *c;
	bool is_open;

	/* what went out */
	struct buf frames[FRAMES_MAX];
	size_t n_frames;
	size_t room; /* frames that the link still takes, then -EAGAIN */
	int broken;  /* else the link's error */

	/* what libraft was given, and its answers */
	int got[16];
	unsigned got_entries[16];
	size_t n_got;
	int told, told_status;
	struct raft_io_send reqs[4];
	size_t n_reqs;
	int done, done_status;
	size_t odd_entries;
	int (*append)(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[], unsigned n,
		      raft_io_append_cb cb);
};

static struct fixture *now; /* libraft's receive callback has no room for a context */

/* ---- the played end ---- */

static int send_cb(void *ctx, node_id_t to, const void *p, size_t n)
{
	struct fixture *f = ctx;

	assert_int_equal(to, 2);
	if (f->broken)
		return f->broken;
	if (f->room != ROOM_ALL && f->room-- == 0) {
		f->room = 0;
		return -EAGAIN;
	}
	assert_true(f->n_frames < FRAMES_MAX);
	buf_append(&f->frames[f->n_frames++], p, n);
	return 0;
}

static _Noreturn void fatal_cb(void *ctx, const char *why)
{
	(void)ctx;
	fail_msg("fatal: %s", why);
	abort();
}

/* Takes what a message owns, as libraft would. */
static void record(struct raft_io *io, struct raft_message *m)
{
	(void)io;
	assert_true(now->n_got < ARRAY_LEN(now->got));
	now->got_entries[now->n_got] = 0;
	now->got[now->n_got] = m->type;
	if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries) {
		now->got_entries[now->n_got] = m->append_entries.n_entries;
		assert_true(m->append_entries.entries[0].type == RAFT_CHANGE || now->n_got == 0);
		for (unsigned i = 1; i < m->append_entries.n_entries; i++)
			assert_int_not_equal(m->append_entries.entries[i].type, RAFT_CHANGE);
		raft_free(m->append_entries.entries[0].batch);
		raft_free(m->append_entries.entries);
	}
	if (m->type == RAFT_INSTALL_SNAPSHOT) {
		raft_configuration_close(&m->install_snapshot.conf);
		raft_free(m->install_snapshot.data.base);
	}
	now->n_got++;
}

static int watched_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[], unsigned n,
			  raft_io_append_cb cb)
{
	for (unsigned i = 0; i < n; i++)
		now->odd_entries += entries[i].buf.len % 8 != 0;
	return now->append(io, req, entries, n, cb);
}

static void told_cb(struct raft_io_send *req, int status)
{
	struct fixture *f = req->data;

	f->told++;
	f->told_status = status;
}

static void done_cb(void *ctx, int status, const struct store_result *result)
{
	struct fixture *f = ctx;

	(void)result;
	f->done++;
	f->done_status = status;
}

/* ---- the node ---- */

static void nothing(struct uv_timer_s *t KEDGE_UNUSED)
{
}

static int open_node(struct fixture *f, struct err *e)
{
	struct consensus_config config = {
		.self = 1, .address = "127.0.0.1:1", .timing = &timing_lan, .dir = f->dir, .loop = &f->loop};
	struct consensus_callbacks cb = {.ctx = f, .send = send_cb, .fatal = fatal_cb};
	int rc;

	assert_int_equal(store_open(":memory:", &f->store, e), 0);
	config.store = f->store;
	rc = consensus_open(&config, &cb, &f->c, e);
	if (rc < 0)
		return rc;
	f->is_open = true;
	rc = consensus_bootstrap(f->c, e);
	if (rc != 0 && rc != -EEXIST)
		return rc;
	f->append = f->c->io->append;
	f->c->io->append = watched_append;
	return consensus_start(f->c, e);
}

static void turn(struct fixture *f)
{
	(void)uv_run(&f->loop, UV_RUN_ONCE);
	consensus_step(f->c);
}

static void turn_until(struct fixture *f, const int *count, int wanted)
{
	usec_t deadline = clock_boottime() + 20 * USEC_PER_SEC;

	while (*count < wanted) {
		assert_true(clock_boottime() < deadline);
		turn(f);
	}
}

static void closed_cb(void *ctx)
{
	((struct fixture *)ctx)->is_open = false;
}

static void close_node(struct fixture *f)
{
	if (f->is_open)
		consensus_close(f->c, closed_cb, f);
	while (f->is_open)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	if (f->store)
		f->store = store_close(f->store);
}

static void lead(struct fixture *f)
{
	struct consensus_view v = {0};

	for (usec_t end = clock_boottime() + 20 * USEC_PER_SEC; !v.is_leader;) {
		assert_true(clock_boottime() < end);
		turn(f);
		consensus_view(f->c, &v);
	}
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);
	struct err e = {0};

	now = f;
	f->room = ROOM_ALL;
	(void)snprintf(f->dir, sizeof f->dir, "/tmp/kt-%d-raft-XXXXXX", (int)getpid());
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(uv_timer_init(&f->loop, &f->beat), 0);
	assert_int_equal(uv_timer_start(&f->beat, nothing, 10, 10), 0);
	assert_int_equal(open_node(f, &e), 0);
	lead(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[96];

	close_node(f);
	uv_close((uv_handle_t *)&f->beat, NULL);
	while (uv_run(&f->loop, UV_RUN_DEFAULT))
		;
	assert_int_equal(uv_loop_close(&f->loop), 0);
	(void)snprintf(command, sizeof command, "rm -rf '%s'", f->dir);
	assert_int_equal(system(command), 0);
	for (size_t i = 0; i < f->n_frames; i++)
		buf_free(&f->frames[i]);
	free(f);
	return 0;
}

static void propose(struct fixture *f, size_t n)
{
	struct command_head head = {.wall = 1, .actor = "test", .bodies = 1};
	struct command_vm_put put = {.name = "a", .uuid = "u", .vcpus = 1, .memory_bytes = 1 << 20, .machine = "m"};
	struct buf entry = {0};

	command_begin(&head, &entry);
	memset(put.kernel, 'k', n); /* entries of every length modulo 8 */
	message_encode(&command_vm_put_type, &put, &entry);
	assert_int_equal(consensus_propose(f->c, entry.data, entry.len, done_cb, f), 0);
	buf_free(&entry);
}

static void post(struct fixture *f, struct raft_message *m, raft_io_send_cb cb)
{
	struct raft_io_send *req = &f->reqs[f->n_reqs++];

	req->data = f;
	m->server_id = 2;
	m->server_address = "127.0.0.1:2";
	assert_int_equal(f->c->io->send(f->c->io, req, m, cb), 0);
}

/* The answers that are on their way to the other end, as its libraft would get them. */
static struct raft_message last_sent;
static void keep(void *ctx, struct raft_message *m)
{
	(void)ctx;
	last_sent = *m;
	if (m->type == RAFT_INSTALL_SNAPSHOT)
		raft_configuration_close(&m->install_snapshot.conf), raft_free(m->install_snapshot.data.base);
}

static const struct raft_message *sent(struct fixture *f)
{
	const struct buf *b = &f->frames[f->n_frames - 1];

	assert_true(f->n_frames > 0);
	assert_int_equal(wire_decode(1, "x", b->data, b->len, keep, NULL), 0);
	return &last_sent;
}

/* ---- the contract of io->send ---- */

static void sends_are_answered_in_the_next_step(void **state)
{
	struct fixture *f = *state;
	struct raft_message m = {.type = RAFT_REQUEST_VOTE};

	post(f, &m, told_cb);
	assert_int_equal(f->told, 0); /* libraft's state is half changed while it sends */
	consensus_step(f->c);
	assert_int_equal(f->told, 1);
	assert_int_equal(f->told_status, 0);
}

static void a_send_may_have_no_callback(void **state)
{
	struct fixture *f = *state;
	struct raft_message m = {.type = RAFT_TIMEOUT_NOW};

	post(f, &m, NULL);
	consensus_step(f->c);
	assert_int_equal(sent(f)->type, RAFT_TIMEOUT_NOW);
}

static void a_full_or_broken_link_makes_raft_probe(void **state)
{
	struct fixture *f = *state;
	struct raft_message m = {.type = RAFT_REQUEST_VOTE};

	f->room = 0;
	post(f, &m, told_cb);
	consensus_step(f->c);
	assert_int_equal(f->told_status, RAFT_NOCONNECTION);
	f->told_status = 0;
	f->broken = -ENOTCONN;
	post(f, &m, told_cb);
	consensus_step(f->c);
	assert_int_equal(f->told_status, RAFT_NOCONNECTION);
	assert_int_equal(f->told, 2);
}

static void what_raft_sends_is_copied(void **state)
{
	struct fixture *f = *state;
	char text[16] = "0123456789abcde";
	struct raft_entry entry = {.term = 1, .type = RAFT_COMMAND, .buf = {text, sizeof text}};
	struct raft_message m = {.type = RAFT_APPEND_ENTRIES};
	bool found = false;

	m.append_entries.entries = &entry;
	m.append_entries.n_entries = 1;
	post(f, &m, told_cb);
	memset(text, 'x', sizeof text);
	for (size_t i = 0; i + sizeof text <= f->frames[0].len; i++)
		found |= memcmp(f->frames[0].data + i, "0123456789abcde", sizeof text) == 0;
	assert_true(found);
	consensus_step(f->c);
}

/* ---- receiving ---- */

static void a_change_of_members_is_first_in_its_batch(void **state)
{
	struct fixture *f = *state;
	char text[8] = {0};
	struct raft_entry entries[] = {
		{.term = 1, .type = RAFT_COMMAND, .buf = {text, 8}},
		{.term = 1, .type = RAFT_COMMAND, .buf = {text, 8}},
		{.term = 1, .type = RAFT_CHANGE, .buf = {text, 8}},
		{.term = 1, .type = RAFT_COMMAND, .buf = {text, 8}},
		{.term = 1, .type = RAFT_CHANGE, .buf = {text, 8}},
	};
	struct raft_message m = {.type = RAFT_APPEND_ENTRIES};

	m.append_entries.entries = entries;
	m.append_entries.n_entries = ARRAY_LEN(entries);
	post(f, &m, told_cb);
	f->c->recv = record;
	assert_int_equal(consensus_receive(f->c, 2, f->frames[0].data, f->frames[0].len), 0);
	assert_int_equal(f->n_got, 3);
	assert_int_equal(f->got_entries[0], 2);
	assert_int_equal(f->got_entries[1], 2);
	assert_int_equal(f->got_entries[2], 1);
}

/* One snapshot of @bytes on its way to node 2; the frames are kept. */
static void send_snapshot(struct fixture *f, size_t bytes)
{
	struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT};
	char *data = xcalloc(1, bytes);

	m.install_snapshot.last_index = 40;
	m.install_snapshot.last_term = 3;
	raft_configuration_init(&m.install_snapshot.conf);
	assert_int_equal(raft_configuration_add(&m.install_snapshot.conf, 1, "127.0.0.1:1", RAFT_VOTER), 0);
	m.install_snapshot.data = (struct raft_buffer){data, bytes};
	f->c->got_term = 7;
	post(f, &m, told_cb);
	f->c->got_term = 0;
	raft_configuration_close(&m.install_snapshot.conf);
	free(data);
}

static void a_snapshot_waits_until_ours_is_written(void **state)
{
	struct fixture *f = *state;

	send_snapshot(f, 100);
	f->c->recv = record;
	f->c->snapshotting = true;
	assert_int_equal(consensus_receive(f->c, 2, f->frames[0].data, f->frames[0].len), 0);
	consensus_step(f->c);
	assert_int_equal(f->n_got, 0);
	f->c->snapshotting = false;
	consensus_step(f->c);
	assert_int_equal(f->n_got, 1);
	assert_int_equal(f->got[0], RAFT_INSTALL_SNAPSHOT);
}

static void a_snapshot_during_an_install_is_lost_and_not_leaked(void **state)
{
	struct fixture *f = *state;

	send_snapshot(f, 100);
	f->c->recv = record;
	f->c->raft.snapshot.installing = true;
	assert_int_equal(consensus_receive(f->c, 2, f->frames[0].data, f->frames[0].len), 0);
	f->c->raft.snapshot.installing = false;
	assert_int_equal(f->n_got, 0);
	consensus_step(f->c);
}

static void a_big_snapshot_lets_others_pass(void **state)
{
	struct fixture *f = *state;
	struct raft_message vote = {.type = RAFT_REQUEST_VOTE};

	f->room = 2;
	vote.request_vote.candidate_id = 2; /* it comes back as if the other end had sent it */
	send_snapshot(f, 4u << 20);
	consensus_step(f->c);
	assert_int_equal(f->n_frames, 2);
	assert_int_equal(f->told, 0);
	f->room = 1;
	post(f, &vote, told_cb);
	f->room = ROOM_ALL;
	consensus_step(f->c);
	consensus_step(f->c);
	assert_int_equal(f->told, 2);
	f->c->recv = record;
	for (size_t i = 0; i < f->n_frames; i++) {
		assert_true(f->frames[i].len <= FRAME_BYTES_MAX);
		assert_int_equal(consensus_receive(f->c, 2, f->frames[i].data, f->frames[i].len), 0);
	}
	assert_int_equal(f->n_got, 2);
	assert_int_equal(f->got[0], RAFT_REQUEST_VOTE);
	assert_int_equal(f->got[1], RAFT_INSTALL_SNAPSHOT);
}

static void pieces_end_with_their_link(void **state)
{
	struct fixture *f = *state;

	f->room = 2;
	send_snapshot(f, 4u << 20);
	consensus_step(f->c);
	assert_int_equal(consensus_receive(f->c, 2, f->frames[0].data, f->frames[0].len), 0);
	consensus_link_down(f->c, 2);
	consensus_step(f->c);
	assert_int_equal(f->told_status, RAFT_NOCONNECTION);
	assert_int_equal(consensus_receive(f->c, 2, f->frames[1].data, f->frames[1].len), -EBADMSG);
}

/* ---- what it gets wrong ---- */

static void a_refused_pre_vote_tells_the_true_term(void **state)
{
	struct fixture *f = *state;
	struct raft_message m = {.type = RAFT_REQUEST_VOTE_RESULT};

	f->c->raft.current_term += 5;
	m.request_vote_result = (struct raft_request_vote_result){.version = 2, .term = 1, .pre_vote = true};
	post(f, &m, told_cb);
	assert_true(sent(f)->request_vote_result.term == f->c->raft.current_term);
	consensus_step(f->c);
}

static void a_snapshot_goes_out_with_its_own_term(void **state)
{
	struct fixture *f = *state;

	send_snapshot(f, 8);
	assert_true(sent(f)->install_snapshot.last_term == 7);
	consensus_step(f->c);
}

static void entries_below_the_commit_index_are_never_refused(void **state)
{
	struct fixture *f = *state;
	struct raft_message m = {.type = RAFT_APPEND_ENTRIES_RESULT};

	propose(f, 1);
	turn_until(f, &f->done, 1);
	m.append_entries_result.term = f->c->raft.current_term;
	m.append_entries_result.rejected = f->c->raft.commit_index;
	post(f, &m, told_cb);
	assert_int_equal(sent(f)->append_entries_result.rejected, 0);
	assert_true(sent(f)->append_entries_result.last_log_index == f->c->raft.commit_index);
	m.append_entries_result.rejected = f->c->raft.commit_index + 1; /* that one may well contradict */
	post(f, &m, told_cb);
	assert_true(sent(f)->append_entries_result.rejected == f->c->raft.commit_index + 1);
	consensus_step(f->c);
}

/* ---- what it never tells ---- */

static void entries_of_any_length_survive_a_restart(void **state)
{
	struct fixture *f = *state;
	struct err e = {0};
	uint64_t hash, applied;

	for (int i = 0; i < 16; i++) {
		propose(f, (size_t)i + 1);
		turn_until(f, &f->done, i + 1);
		assert_int_equal(f->done_status, 0);
		assert_true(store_applied(f->store) == raft_last_applied(&f->c->raft));
	}
	assert_int_equal(f->odd_entries, 0);
	hash = store_hash(f->store);
	applied = store_applied(f->store);
	close_node(f);
	assert_int_equal(open_node(f, &e), 0);
	lead(f);
	f->done = 0;
	assert_int_equal(consensus_barrier(f->c, done_cb, f), 0);
	turn_until(f, &f->done, 1);
	assert_true(store_applied(f->store) == applied);
	assert_true(store_hash(f->store) == hash);
}

static void lost_leadership_is_an_unknown_outcome(void **state)
{
	struct fixture *f = *state;

	propose(f, 1);
	f->c->raft.current_term++; /* as when another leader's message came in this very turn */
	consensus_step(f->c);
	assert_int_equal(f->done, 1);
	assert_int_equal(f->done_status, PROTO_E_UNKNOWN_OUTCOME);
	f->c->raft.current_term--;
}

/* Flip a byte in the middle of the longest segment. */
static void damage(const char *path)
{
	char name[512], longest[512] = "";
	DIR *d = opendir(path);
	struct dirent *entry;
	off_t size = 0;
	uint8_t byte;
	struct stat st;
	int fd;

	assert_non_null(d);
	while ((entry = readdir(d))) {
		(void)snprintf(name, sizeof name, "%s/%.200s", path, entry->d_name);
		if (strchr(entry->d_name, '-') && stat(name, &st) == 0 && st.st_size > size) {
			size = st.st_size;
			memcpy(longest, name, sizeof longest);
		}
	}
	(void)closedir(d);
	fd = open(longest, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, size / 2), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, size / 2), 1);
	(void)close(fd);
}

static void a_damaged_log_is_refused_and_kept(void **state)
{
	struct fixture *f = *state;
	struct err e = {0};

	for (int i = 0; i < 16; i++) {
		propose(f, 100);
		turn_until(f, &f->done, i + 1);
	}
	close_node(f);
	damage(f->dir);
	for (int i = 0; i < 2; i++) { /* and again: nothing was renamed or cut away in silence */
		assert_int_equal(open_node(f, &e), -EUCLEAN);
		assert_non_null(strstr(e.text, "join again"));
		close_node(f);
	}
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(sends_are_answered_in_the_next_step),
		TEST(a_send_may_have_no_callback),
		TEST(a_full_or_broken_link_makes_raft_probe),
		TEST(what_raft_sends_is_copied),
		TEST(a_change_of_members_is_first_in_its_batch),
		TEST(a_snapshot_waits_until_ours_is_written),
		TEST(a_snapshot_during_an_install_is_lost_and_not_leaked),
		TEST(a_big_snapshot_lets_others_pass),
		TEST(pieces_end_with_their_link),
		TEST(a_refused_pre_vote_tells_the_true_term),
		TEST(a_snapshot_goes_out_with_its_own_term),
		TEST(entries_below_the_commit_index_are_never_refused),
		TEST(entries_of_any_length_survive_a_restart),
		TEST(lost_leadership_is_an_unknown_outcome),
		TEST(a_damaged_log_is_refused_and_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
