/* SPDX-License-Identifier: Apache-2.0
 * Does KVM work here? /dev/kvm can exist, open, and even run a trivial guest, and still hang on a real kernel. So a
 * real kernel is booted: this machine's own, without a root, which panics and, by -no-reboot, ends QEMU. */
#include "hypervisor/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SIGN "Kernel panic" /* for the missing root: everything before it worked */

static bool newest_kernel(char ret[PATH_BYTES_MAX])
{
	static const char *const patterns[] = {"/boot/vmlinuz-*", "/boot/vmlinuz*"};

	ret[0] = '\0';
	for (size_t p = 0; p < ARRAY_LEN(patterns) && !ret[0]; p++) {
		glob_t found = {0};

		if (glob(patterns[p], 0, NULL, &found) == 0)
			for (size_t i = 0; i < found.gl_pathc; i++)
				if (access(found.gl_pathv[i], R_OK) == 0 && strverscmp(found.gl_pathv[i], ret) > 0)
					(void)snprintf(ret, PATH_BYTES_MAX, "%s", found.gl_pathv[i]);
		globfree(&found);
	}
	return ret[0] != '\0';
}

static bool no(char *why, size_t size, const char *text)
{
	(void)snprintf(why, size, "%s", text);
	return false;
}

static bool judge(int rc, const struct buf *out, char *why, size_t size)
{
	const char *text = (const char *)out->data;

	if (rc == -ETIME || rc == -ECANCELED)
		return no(why, size, "a trial guest did not come up in time");
	if (rc == 127)
		return no(why, size, "qemu-system-x86_64 cannot be run");
	if (rc == 0 && memmem(text, out->len, SIGN, strlen(SIGN)))
		return true;
	(void)snprintf(why, size, "a trial guest ended early: %.*s", (int)strcspn(text, "\r\n"), text);
	return false;
}

/* No -name: it must not look like a guest. */
bool probe_boot(const struct probe *p, char *why, size_t size)
{
	const char *const argv[] = {"qemu-system-x86_64",
				    "-accel",
				    p->accel,
				    "-machine",
				    p->machine,
				    "-m",
				    "256",
				    "-serial",
				    "stdio",
				    "-display",
				    "none",
				    "-nodefaults",
				    "-no-reboot",
				    "-kernel",
				    p->kernel,
				    "-append",
				    "console=ttyS0 panic=-1 quiet",
				    NULL};
	struct child c = {.argv = argv, .patience = p->patience, .cancel = p->cancel};
	struct buf out = {0};
	int rc = child_run(&c, &out);
	bool ok;

	if (!out.data)
		return no(why, size, "a trial guest cannot be started");
	ok = judge(rc, &out, why, size);
	buf_free(&out);
	return ok;
}

bool probe_kvm(const struct probe *p, char *why, size_t size)
{
	char kernel[PATH_BYTES_MAX];
	struct probe with = *p;
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		(void)snprintf(why, size, "/dev/kvm: %s", strerror(errno));
		return false;
	}
	(void)close(fd);
	if (!with.kernel) {
		if (!newest_kernel(kernel))
			return no(why, size, "/boot has no kernel to try it with (accel = kvm skips the trial)");
		with.kernel = kernel;
	}
	return probe_boot(&with, why, size);
}
