/* SPDX-License-Identifier: Apache-2.0
 * The log on disk, by libraft's own uv backend; its transport is a dummy, for the messages travel on our links. */
#include "consensus/internal.h"

#include <errno.h>
#include <raft/uv.h>
#include <stdlib.h>

struct disk {
	struct raft_io io;
	struct raft_uv_transport transport;
};

static int transport_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
	(void)t;
	(void)id;
	(void)address;
	return 0;
}

static int transport_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
	(void)t;
	(void)cb;
	return 0;
}

static int transport_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id, const char *address,
			     raft_uv_connect_cb cb)
{
	(void)t;
	(void)req;
	(void)id;
	(void)address;
	(void)cb;
	return RAFT_NOCONNECTION; /* never called: send is replaced */
}

static void transport_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
	cb(t);
}

static void disk_closed(struct raft_io *io)
{
	struct disk *d = CONTAINER_OF(io, struct disk, io);

	raft_uv_close(&d->io);
	free(d);
}

int consensus_open(const struct consensus_config *config, const struct consensus_callbacks *cb, struct consensus **ret,
		   struct err *e)
{
	struct disk *d = xcalloc(1, sizeof *d);
	int rv;

	d->transport = (struct raft_uv_transport){
		.version = 1,
		.init = transport_init,
		.listen = transport_listen,
		.connect = transport_connect,
		.close = transport_close,
	};
	rv = raft_uv_init(&d->io, config->loop, config->dir, &d->transport);
	if (rv != 0) {
		(void)err_set(e, -EIO, "open the log in '%s': %s", config->dir, d->io.errmsg);
		free(d);
		return -EIO;
	}
	/* Else a corrupt tail is silently renamed away, and a voter forgets what it acknowledged. */
	raft_uv_set_auto_recovery(&d->io, false);
	rv = consensus_open_on(config, cb, &d->io, disk_closed, ret, e);
	if (rv < 0)
		disk_closed(&d->io);
	return rv;
}
