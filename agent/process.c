/* SPDX-License-Identifier: Apache-2.0
 * Processes of the machine, by /proc and pidfd. */
#include "agent/process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CMDLINE_MAX (64u << 10)

int process_open(int32_t pid)
{
	int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	return fd >= 0 ? fd : pid > 0 ? -errno : -ESRCH;
}

int process_signal(int pidfd, int number)
{
	return syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0) == 0 ? 0 : -errno;
}

static bool read_proc(int32_t pid, const char *file, struct buf *ret)
{
	char path[64];

	(void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
	if (file_read(path, CMDLINE_MAX, ret, NULL) < 0)
		return false;
	buf_append(ret, "", 1);
	return true;
}

uint64_t process_start_time(int32_t pid)
{
	struct buf stat = {0};
	uint64_t start = 0;

	if (read_proc(pid, "stat", &stat)) {
		const char *at = strrchr((char *)stat.data, ')'); /* the name may hold anything */
		char state = 'Z';

		if (at &&
		    sscanf(at, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %lu",
			   &state, (unsigned long *)&start) == 2 &&
		    (state == 'Z' || state == 'X'))
			start = 0;
	}
	buf_free(&stat);
	return start;
}

/* The arguments follow each other, each with its zero. */
static bool is_guest_below(const struct buf *cmdline, const char *path)
{
	bool named = false, below = false, is_name = false;
	const char *arg = (const char *)cmdline->data, *end = arg + cmdline->len;

	for (; arg < end; arg += strlen(arg) + 1) {
		named |= is_name && strncmp(arg, "guest=", 6) == 0;
		is_name = strcmp(arg, "-name") == 0;
		below |= strstr(arg, path) != NULL;
	}
	return named && below;
}

size_t process_find_guests(const char *path, int32_t *ret, size_t max)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	size_t n = 0;

	CHECK(dir != NULL);
	while (n < max && (entry = readdir(dir))) {
		struct buf cmdline = {0};
		int32_t pid = isdigit((unsigned char)entry->d_name[0]) ? (int32_t)strtol(entry->d_name, NULL, 10) : 0;

		if (pid > 0 && read_proc(pid, "cmdline", &cmdline) && is_guest_below(&cmdline, path))
			ret[n++] = pid;
		buf_free(&cmdline);
	}
	(void)closedir(dir);
	return n;
}
