/* SPDX-License-Identifier: Apache-2.0
 * What is left of guests when a case failed. */
#include "tests/unit/guest_help.h"

#include "agent/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define GUESTS 64

unsigned guests_end_below(const char *folder)
{
	int32_t pids[GUESTS];
	size_t n = process_find_guests(folder, pids, GUESTS);

	for (size_t i = 0; i < n; i++)
		(void)kill(pids[i], SIGKILL);
	return (unsigned)n;
}

/* Its end of the pipe is ours alone, so that it is closed by our death. */
static _Noreturn void wait_and_end(const int fds[2], const char *folder)
{
	char byte;

	(void)close(fds[1]);
	while (read(fds[0], &byte, 1) > 0)
		;
	(void)guests_end_below(folder);
	_exit(0);
}

bool guests_end_with_me(const char *folder)
{
	int fds[2], status;
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return false;
	child = fork();
	if (child == 0) {
		(void)setsid();
		if (fork() == 0) /* nobody's child: whoever kills us and ours does not find it */
			wait_and_end(fds, folder);
		_exit(0);
	}
	(void)close(fds[0]);
	return child > 0 && waitpid(child, &status, 0) == child;
}
