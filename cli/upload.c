/* SPDX-License-Identifier: Apache-2.0
 * Sending files to the cluster: piece by piece on one connection. */
#include "cli/upload.h"

#include "cli/size.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE_MAX_TIME (60 * USEC_PER_SEC)
#define END_MAX_TIME   (900 * USEC_PER_SEC) /* it is synced, and a large image is checked */
#define TELL_EVERY     (200 * USEC_PER_MS)
#define COPIES_MAX     (10 * USEC_PER_SEC)
#define LOOK_EVERY     (200 * USEC_PER_MS)

struct progress {
	const char *label;
	uint64_t done, total; /* total 0: not known */
	usec_t next;
	bool shown;
};

static void tell(struct progress *p, const char *more)
{
	usec_t now = clock_boottime();
	char done[32], total[32];

	if (!isatty(STDERR_FILENO) || (now < p->next && !more))
		return;
	p->next = now + TELL_EVERY;
	p->shown = true;
	size_format(p->done, done, sizeof done);
	size_format(p->total, total, sizeof total);
	(void)fprintf(stderr, "\r\033[K%s: %s%s%s%s", p->label, done, p->total ? " of " : "", p->total ? total : "",
		      more ? more : "");
}

static void tell_end(const struct progress *p)
{
	if (p->shown)
		(void)fprintf(stderr, "\r\033[K");
}

int upload_open(const char *path, FILE **ret, struct err *e)
{
	FILE *f = fopen(path, "re");
	struct stat st;

	if (!f)
		return err_set(e, PROTO_E_INVALID, "read %s: %s", path, strerror(errno));
	if (fstat(fileno(f), &st) < 0 || S_ISDIR(st.st_mode)) {
		(void)fclose(f);
		return err_set(e, PROTO_E_INVALID, "read %s: it is no file", path);
	}
	*ret = f;
	return 0;
}

int upload_digest(const char *path, char ret[DIGEST_BYTES_MAX], struct err *e)
{
	struct net_digest *sum;
	uint8_t *room;
	FILE *f;
	size_t n;
	int rc = upload_open(path, &f, e);

	if (rc < 0)
		return rc;
	sum = net_digest_new();
	room = xcalloc(1, UPLOAD_CHUNK_BYTES);
	while ((n = fread(room, 1, UPLOAD_CHUNK_BYTES, f)) > 0)
		net_digest_add(sum, room, n);
	if (ferror(f))
		rc = err_set(e, PROTO_E_INVALID, "read %s: %s", path, strerror(errno));
	net_digest_end(sum, ret);
	(void)net_digest_free(sum);
	free(room);
	(void)fclose(f);
	return rc;
}

/* One request; the map in @p is ended. */
static int exchange(struct net_client *client, const char *method, struct pack *p, usec_t patience,
		    struct rpc_answer *ret, struct err *e)
{
	int rc;

	pack_end(p);
	rpc_free(ret);
	rc = rpc_exchange(client, method, p->out, clock_boottime() + patience, ret, e);
	buf_free(p->out);
	return rc;
}

static int send_all(struct net_client *client, const struct upload *u, struct net_digest *sum,
		    struct progress *progress, struct rpc_answer *answer, struct err *e)
{
	uint8_t *room = xcalloc(1, UPLOAD_CHUNK_BYTES);
	struct buf params = {0};
	struct pack p;
	size_t n = 0;
	int rc;

	ask_begin(&p, &params);
	rc = exchange(client, "upload.begin", &p, PIECE_MAX_TIME, answer, e);
	while (rc == 0 && (n = fread(room, 1, UPLOAD_CHUNK_BYTES, u->file)) > 0) {
		net_digest_add(sum, room, n);
		ask_begin(&p, &params);
		pack_kv_u64(&p, "offset", progress->done);
		pack_key(&p, "data");
		pack_bin(&p, room, n);
		rc = exchange(client, "upload.data", &p, PIECE_MAX_TIME, answer, e);
		progress->done += n;
		tell(progress, NULL);
	}
	if (rc == 0 && ferror(u->file))
		rc = err_set(e, PROTO_E_INVALID, "read %s: %s", u->label, strerror(errno));
	free(room);
	return rc;
}

static int send_end(struct net_client *client, const struct upload *u, struct net_digest *sum,
		    struct rpc_answer *answer, struct err *e)
{
	char digest[DIGEST_BYTES_MAX];
	struct buf params = {0};
	struct pack p;

	net_digest_end(sum, digest);
	ask_begin(&p, &params);
	pack_kv_str(&p, "digest", digest);
	if (u->image) {
		pack_kv_str(&p, "name", u->image);
		pack_kv_u64(&p, "copies", u->copies);
	}
	return exchange(client, "upload.end", &p, END_MAX_TIME, answer, e);
}

int upload_send(const struct args *args, const struct upload *u, struct rpc_answer *ret, struct err *e)
{
	struct progress progress = {.label = u->label};
	struct net_digest *sum;
	struct net_client *client;
	struct stat st;
	int rc = ask_connect(args, &client, e);

	if (rc < 0)
		return rc;
	if (fstat(fileno(u->file), &st) == 0 && S_ISREG(st.st_mode))
		progress.total = (uint64_t)st.st_size;
	sum = net_digest_new();
	rc = send_all(client, u, sum, &progress, ret, e);
	if (rc == 0) {
		tell(&progress, ", being checked");
		rc = send_end(client, u, sum, ret, e);
	}
	tell_end(&progress);
	(void)net_digest_free(sum);
	(void)net_client_close(client);
	return rc;
}

/* ---- copies ---- */

int upload_copies(const struct args *args, const char *const *digests, size_t n, uint64_t *ret, uint64_t *ret_nodes,
		  struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	pack_key(&p, "digests");
	pack_array(&p);
	for (size_t i = 0; i < n; i++)
		pack_str(&p, digests[i]);
	pack_end(&p);
	rc = ask_read(args, "image.have", &p, &answer, e);
	for (size_t i = 0; i < n && rc == 0; i++)
		if (!unpack_u64(unpack_at(unpack_key(answer.result, "copies"), i), &ret[i]))
			rc = err_set(e, PROTO_E_INTERNAL, "the agent's answer makes no sense");
	if (rc == 0)
		*ret_nodes = number_of(answer.result, "nodes");
	rpc_free(&answer);
	return rc;
}

static bool are_enough(const uint64_t *copies, size_t n, uint64_t wanted)
{
	for (size_t i = 0; i < n; i++)
		if (copies[i] < wanted)
			return false;
	return true;
}

bool upload_wait(const struct args *args, const char *const *digests, size_t n, uint64_t wanted)
{
	const struct timespec pause = {.tv_nsec = (long)(LOOK_EVERY * 1000)};
	usec_t end = clock_boottime() + COPIES_MAX;
	uint64_t *copies = xcalloc(n, sizeof *copies), nodes = 0;
	bool enough = false;

	while (!enough) {
		enough = upload_copies(args, digests, n, copies, &nodes, NULL) == 0 &&
			 are_enough(copies, n, wanted < nodes ? wanted : nodes);
		if (enough || clock_boottime() >= end)
			break;
		(void)nanosleep(&pause, NULL);
	}
	free(copies);
	return enough;
}
