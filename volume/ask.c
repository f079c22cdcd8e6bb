/* SPDX-License-Identifier: Apache-2.0
 * The asking side of engine_ask.c. */
#include "volume/ask.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_SECONDS 10
#define PROGRESS_MS    200

static int dial(const char *dir, struct err *e)
{
	const struct timeval limit = {.tv_sec = ANSWER_SECONDS};
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd, rc;

	if ((size_t)snprintf(to.sun_path, sizeof to.sun_path, "%s/run/volctl.sock", dir) >= sizeof to.sun_path)
		return err_set(e, -ENAMETOOLONG, "%s: too long for a socket's path", dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, -errno, "socket: %s", strerror(errno));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
		return fd;
	rc = errno == ENOENT ? -ECONNREFUSED : -errno;
	(void)close(fd);
	return err_set(e, rc, "%s: no engine runs in this folder (kedge-vol --static FILE --dir DIR)", dir);
}

/* One line there, everything back. */
static int ask(const char *dir, const char *line, struct buf *ret, struct err *e)
{
	int fd = dial(dir, e), rc = 0;
	ssize_t n = 1;

	if (fd < 0)
		return fd;
	if (send(fd, line, strlen(line), MSG_NOSIGNAL) < 0)
		rc = err_set(e, -errno, "%s: the engine: %s", dir, strerror(errno));
	while (rc == 0 && n > 0) {
		char part[4096];

		n = recv(fd, part, sizeof part, 0);
		if (n > 0)
			buf_append(ret, part, (size_t)n);
		else if (n < 0 && errno == EAGAIN)
			rc = err_set(e, -ETIMEDOUT, "%s: the engine does not answer", dir);
		else if (n < 0)
			rc = err_set(e, -errno, "%s: the engine: %s", dir, strerror(errno));
	}
	(void)close(fd);
	buf_append(ret, "", 1);
	if (rc == 0 && ret->len == 1)
		rc = err_set(e, -ECONNRESET, "%s: the engine hung up", dir);
	return rc;
}

/* The answer without its newline; an error is the caller's. */
static int ask_line(const char *dir, const char *line, char *ret, size_t size, struct err *e)
{
	static const char error[] = "error: ";
	struct buf answer = {0};
	int rc = ask(dir, line, &answer, e);

	if (rc == 0) {
		(void)snprintf(ret, size, "%s", (const char *)answer.data);
		ret[strcspn(ret, "\n")] = '\0';
		if (strncmp(ret, error, sizeof error - 1) == 0)
			rc = err_set(e, -EINVAL, "%s", ret + sizeof error - 1);
	}
	buf_free(&answer);
	return rc;
}

int volume_ask_status(const char *dir, FILE *out, struct err *e)
{
	struct buf answer = {0};
	int rc = ask(dir, "status\n", &answer, e);

	if (rc == 0)
		(void)fputs((const char *)answer.data, out);
	buf_free(&answer);
	return rc;
}

struct pass {
	bool on;
	uint64_t bytes, size, wrong, undecided, lost, skipped;
};

static int look(const char *dir, const char *name, struct pass *ret, struct err *e)
{
	char line[256], answer[256], state[8];
	int rc;

	(void)snprintf(line, sizeof line, "progress %s\n", name);
	rc = ask_line(dir, line, answer, sizeof answer, e);
	if (rc < 0)
		return rc;
	if (sscanf(answer, "%7s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, state,
		   &ret->bytes, &ret->size, &ret->wrong, &ret->undecided, &ret->lost, &ret->skipped) != 7)
		return err_set(e, -EPROTO, "%s: the engine answers '%s'", dir, answer);
	ret->on = strcmp(state, "on") == 0;
	return 0;
}

static void show(const char *name, const struct pass *p, bool json, FILE *out)
{
	static const char *const forms[] = {
		"%s: %" PRIu64 " of %" PRIu64 " bytes compared: %" PRIu64
		" blocks were wrong and are repaired, %" PRIu64 " differ and nobody can tell whose is right, %" PRIu64
		" cannot be read, %" PRIu64 " were too busy\n",
		"{\"name\": \"%s\", \"bytes\": %" PRIu64 ", \"size\": %" PRIu64 ", \"wrong\": %" PRIu64
		", \"undecided\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"skipped\": %" PRIu64 "}\n"};

	(void)fprintf(out, forms[json], name, p->bytes, p->size, p->wrong, p->undecided, p->lost, p->skipped);
}

int volume_ask_verify(const char *dir, const char *name, bool primary_wins, bool json, FILE *out, FILE *progress,
		      struct err *e)
{
	const struct timespec nap = {.tv_nsec = PROGRESS_MS * 1000000L};
	char line[256], answer[256];
	struct pass p;
	int rc;

	(void)snprintf(line, sizeof line, "verify %s%s\n", name, primary_wins ? " primary-wins" : "");
	rc = ask_line(dir, line, answer, sizeof answer, e);
	if (rc == 0)
		rc = look(dir, name, &p, e);
	while (rc == 0 && p.on) {
		if (progress)
			(void)fprintf(progress, "\r%3.0f %%", 100.0 * (double)p.bytes / (double)p.size);
		(void)nanosleep(&nap, NULL);
		rc = look(dir, name, &p, e);
	}
	if (progress)
		(void)fprintf(progress, "\r     \r");
	if (rc < 0)
		return rc;
	show(name, &p, json, out);
	if (p.bytes < p.size)
		return err_set(e, -ECANCELED, "%s: the comparison was broken off: the volume is not led here any more",
			       name);
	return p.wrong || p.undecided || p.lost ? -EBADMSG : 0;
}
