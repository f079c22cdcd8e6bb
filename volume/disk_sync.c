/* SPDX-License-Identifier: Apache-2.0
 * io_submit(2) with IOCB_CMD_FDSYNC: a kernel worker of the very CPU that asks does it. io_uring hands a sync to a
 * worker of its own, which is woken wherever a CPU is idle; in a virtual machine that wake took half as long as the
 * flush. */
#include "volume/disk_sync.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SYNCS_MAX 64 /* under way, of a loop */

bool disk_syncs_open(struct disk_syncs *s, int event)
{
	aio_context_t context = 0;

	*s = (struct disk_syncs){.event = event};
	if (syscall(SYS_io_setup, SYNCS_MAX, &context) < 0)
		return false;
	s->context = context;
	return true;
}

void disk_syncs_close(struct disk_syncs *s)
{
	CHECK(s->under_way == 0);
	if (s->context)
		(void)syscall(SYS_io_destroy, s->context);
	s->context = 0;
}

bool disk_sync_begin(struct disk_syncs *s, int fd, void *tag)
{
	struct iocb cb = {.aio_data = (uintptr_t)tag,
			  .aio_lio_opcode = IOCB_CMD_FDSYNC,
			  .aio_fildes = (uint32_t)fd,
			  .aio_flags = IOCB_FLAG_RESFD,
			  .aio_resfd = (uint32_t)s->event};
	struct iocb *p = &cb;

	if (!s->context || s->under_way == SYNCS_MAX || syscall(SYS_io_submit, s->context, 1, &p) != 1)
		return false;
	s->under_way++;
	return true;
}

void *disk_sync_ended(struct disk_syncs *s, int *ret)
{
	struct timespec at_once = {0};
	struct io_event e;
	long n;

	if (s->under_way == 0)
		return NULL;
	do
		n = syscall(SYS_io_getevents, s->context, 0, 1, &e, &at_once);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		return NULL;
	s->under_way--;
	*ret = (int)e.res;
	return (void *)(uintptr_t)e.data;
}
