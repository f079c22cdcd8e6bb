/* SPDX-License-Identifier: Apache-2.0
 * The replicated state machine as libraft sees it: the store. */
#include "consensus/internal.h"

#include <stdlib.h>
#include <string.h>

/* libraft does not tell the index: inside apply it is the last applied one plus one. */
static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	struct consensus *c = fsm->data;
	uint64_t index = raft_last_applied(&c->raft) + 1;
	struct store_result r;

	store_apply(c->store, index, buf->base, buf->len, &r);
	for (struct proposal *p = c->proposals; p; p = p->next)
		if (!p->is_barrier && p->req.apply.index == index)
			p->result = r;
	*result = NULL;
	return 0;
}

/* libraft 0.22 applies a change of members and takes note of it only in its next event, or not at all where the next
 * change is in the log already. A snapshot meanwhile would say that older members are the last ones, and once the log
 * behind it is cut, so would this node after its next start for good: a voter that takes itself for none. Refused, it
 * is taken when no change is under way. */
static bool members_are_behind(const struct consensus *c)
{
	return c->raft.configuration_uncommitted_index != 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	struct consensus *c = fsm->data;
	struct raft_buffer *b;

	if (members_are_behind(c))
		return RAFT_BUSY;
	b = raft_malloc(sizeof *b);
	CHECK(b != NULL && !c->snapshotting);
	store_snapshot(c->store, &b->base, &b->len);
	c->snapshotting = true;
	*bufs = b;
	*n_bufs = 1;
	return 0;
}

static int fsm_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	struct consensus *c = fsm->data;

	if (*bufs) {
		CHECK(*n_bufs == 1);
		free((*bufs)[0].base);
		raft_free(*bufs);
	}
	*bufs = NULL;
	*n_bufs = 0;
	c->snapshotting = false;
	return 0;
}

/* At the start libraft hands its last snapshot over: the database is kept if it is of this cluster and at or past it.
 * One that the leader sent at run time always replaces. */
static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	struct consensus *c = fsm->data;
	struct store_cluster mine;
	char cluster[40];
	uint64_t index;
	bool keep;

	if (store_image_index(buf->base, buf->len, cluster, &index) < 0)
		return RAFT_CORRUPT;
	store_cluster(c->store, &mine);
	keep = !c->started && strcmp(cluster, mine.cluster) == 0 && store_applied(c->store) >= index;
	if (!keep && store_restore(c->store, buf->base, buf->len) < 0)
		return RAFT_CORRUPT;
	raft_free(buf->base);
	return 0;
}

void fsm_init(struct consensus *c)
{
	c->fsm = (struct raft_fsm){
		.version = 2,
		.data = c,
		.apply = fsm_apply,
		.snapshot = fsm_snapshot,
		.restore = fsm_restore,
		.snapshot_finalize = fsm_snapshot_finalize,
	};
}
