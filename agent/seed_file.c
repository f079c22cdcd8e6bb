/* SPDX-License-Identifier: Apache-2.0
 * The disk for cloud-init of a VM that starts here: made from the row at each start, never copied between nodes. */
#include "agent/agent.h"

#include "agent/seed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void path_of(const struct agent *agent, const char *vm, char ret[PATH_BYTES_MAX])
{
	(void)snprintf(ret, PATH_BYTES_MAX, "%.900s/run/%s.cidata", agent->config.dir, vm);
}

/* Not synced: it is made anew at the next start. */
static int write_file(const char *path, const struct buf *disk, struct err *e)
{
	int fd, rc = 0;
	ssize_t n;

	(void)unlink(path); /* a hypervisor may have given it away */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(e, -errno, "write %s: %s", path, strerror(errno));
	n = write(fd, disk->data, disk->len);
	if (n < 0 || (size_t)n != disk->len)
		rc = err_set(e, n < 0 ? -errno : -ENOSPC, "write %s: %s", path, strerror(n < 0 ? errno : ENOSPC));
	(void)close(fd);
	return rc;
}

int seed_file_make(struct agent *agent, const struct store_vm *vm, char ret[PATH_BYTES_MAX], struct err *e)
{
	struct buf user_data = {0}, meta_data = {0}, disk = {0};
	int rc = 0;

	ret[0] = '\0';
	if (store_vm_seed(agent->store, vm->spec.name, &user_data, &meta_data)) {
		if (meta_data.len == 0)
			buf_printf(&meta_data, "instance-id: %s\nlocal-hostname: %s\n", vm->spec.uuid, vm->spec.name);
		seed_make(&user_data, &meta_data, &disk);
		path_of(agent, vm->spec.name, ret);
		rc = write_file(ret, &disk, e);
	}
	if (rc < 0)
		ret[0] = '\0';
	buf_free(&user_data);
	buf_free(&meta_data);
	buf_free(&disk);
	return rc;
}

void seed_file_remove(struct agent *agent, const char *vm)
{
	char path[PATH_BYTES_MAX];

	path_of(agent, vm, path);
	(void)unlink(path);
}
