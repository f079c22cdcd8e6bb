/* SPDX-License-Identifier: Apache-2.0
 * Where the log is kept: libraft's raft_io, on disk in production, on virtual time in the simulator. */
#ifndef KEDGE_CONSENSUS_BACKEND_H
#define KEDGE_CONSENSUS_BACKEND_H

#include "consensus/consensus.h"

#include <raft.h>

/* [loop] As consensus_open(), on @io, which must outlive the consensus object. Its send and start are replaced: the
 * messages travel by the callbacks. @closed(io) when it is no longer used. */
int consensus_open_on(const struct consensus_config *config, const struct consensus_callbacks *cb, struct raft_io *io,
		      void (*closed)(struct raft_io *io), struct consensus **ret, struct err *e) KEDGE_MUST_CHECK;

#endif
