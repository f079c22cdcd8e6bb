/* SPDX-License-Identifier: Apache-2.0
 * Starting the node's other processes where no service manager does. */
#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int spawn_beside(const char *file, char ret[PATH_BYTES_MAX], struct err *e)
{
	char self[PATH_BYTES_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	char *slash;

	if (n < 0)
		return err_set(e, -errno, "find this program's folder: %s", strerror(errno));
	self[n] = '\0';
	slash = strrchr(self, '/');
	CHECK(slash != NULL);
	*slash = '\0';
	if (snprintf(ret, PATH_BYTES_MAX, "%s/%s", self, file) >= PATH_BYTES_MAX)
		return err_set(e, -ENAMETOOLONG, "find %s: the path is too long", file);
	return 0;
}

/* In the child: only async-signal-safe calls. Descriptors close by O_CLOEXEC. */
static _Noreturn void become(const char *const *argv)
{
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	(void)setsid();
	if (fork() != 0) /* the grandchild belongs to init: nobody has to wait for it */
		_exit(0);
	(void)dup2(null, 0);
	(void)dup2(null, 1);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)execv(argv[0], (char *const *)argv); /* which changes nothing in them (POSIX, exec, rationale) */
	_exit(127);
}

int spawn_detached(const char *program, const char *dir, const char *const *options, struct err *e)
{
	char path[PATH_BYTES_MAX];
	const char *argv[3 + SPAWN_OPTIONS_MAX + 1] = {path, "--dir", dir};
	int rc = spawn_beside(program, path, e);
	pid_t child;

	if (rc < 0)
		return rc;
	if (access(path, X_OK) < 0)
		return err_set(e, -errno, "start %s: %s", path, strerror(errno));
	for (size_t i = 0; options && options[i]; i++) {
		CHECK(i < SPAWN_OPTIONS_MAX);
		argv[3 + i] = options[i];
	}
	child = fork();
	if (child < 0)
		return err_set(e, -errno, "start %s: %s", path, strerror(errno));
	if (child == 0)
		become(argv);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}
