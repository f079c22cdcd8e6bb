/* SPDX-License-Identifier: Apache-2.0
 * A program that is run for what it prints. */
#include "base/child.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS    50
#define REAP_MAX   (5 * USEC_PER_SEC) /* a process that hangs inside the kernel may not even die */
#define OUTPUT_MAX (256u << 10)

/* After fork() in a process with threads: nothing that takes a lock. */
static _Noreturn void become(const char *const *argv, int out, pid_t parent)
{
	int null = open("/dev/null", O_RDWR);

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* with our thread, that is, which waits for it */
	if (getppid() == parent && null >= 0 && dup2(null, 0) >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0) {
		(void)close_range(3, ~0U, 0);
		(void)execvp(argv[0], (char *const *)argv);
	}
	_exit(127);
}

static pid_t start(const char *const *argv, int *ret_out)
{
	pid_t parent = getpid(), pid;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0)
		become(argv, fds[1], parent);
	(void)close(fds[1]);
	if (pid < 0)
		(void)close(fds[0]);
	*ret_out = fds[0];
	return pid;
}

/* True at the end of what it prints. */
static bool read_some(const struct child *c, int out, struct buf *text)
{
	struct pollfd fd = {.fd = out, .events = POLLIN};
	char part[4096];
	ssize_t n;

	if (poll(&fd, 1, POLL_MS) <= 0)
		return false;
	n = read(out, part, sizeof part);
	if (n > 0 && c->told)
		c->told(c->ctx, part, (size_t)n);
	if (n > 0 && text->len < OUTPUT_MAX)
		buf_append(text, part, (size_t)n);
	return n == 0;
}

static int reap(pid_t pid)
{
	const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
	usec_t end = clock_boottime() + REAP_MAX;
	int status;
	pid_t got;

	while ((got = waitpid(pid, &status, WNOHANG)) == 0 && clock_boottime() < end)
		(void)nanosleep(&pause, NULL);
	if (got != pid)
		return -ETIME;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

int child_run(const struct child *c, struct buf *text)
{
	usec_t end = clock_boottime() + c->patience;
	int out, rc = 0;
	pid_t pid = start(c->argv, &out);

	if (pid < 0)
		return -EAGAIN;
	while (rc == 0 && !read_some(c, out, text)) {
		if (c->cancel && *c->cancel)
			rc = -ECANCELED;
		else if (clock_boottime() >= end)
			rc = -ETIME;
	}
	if (rc < 0) {
		(void)kill(pid, SIGKILL);
		(void)reap(pid);
	} else {
		rc = reap(pid);
	}
	(void)close(out);
	buf_append(text, "", 1);
	return rc;
}
