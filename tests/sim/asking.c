/* SPDX-License-Identifier: Apache-2.0
 * What agents ask the leader for on behalf of their engines, over the links between them: lost with these, and its
 * outcome with the leader. */
#include "tests/sim/disks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* On its way to the leader, in its log, on its way back. */
struct asked {
	struct sim_volume *v;
	unsigned from, at; /* who asked, whom */
	uint64_t seq, life;
	int rc;
	size_t n;
	uint8_t body[];
};

/* Some come so late that much has changed. */
static usec_t delay_of(struct world *w)
{
	usec_t delay = 50 + sim_random(w, 1000);

	if (!w->healing && sim_chance(w, w->faults.lag))
		delay += sim_random(w, 8 * USEC_PER_SEC);
	return delay;
}

static struct asked *copy_of(const struct asked *a)
{
	struct asked *copy = xcalloc(1, sizeof *a + a->n);

	memcpy(copy, a, sizeof *a + a->n);
	return copy;
}

static void answer_event(struct world *w, struct event *e)
{
	const struct asked *a = e->p;

	if (w->hosts[e->node].agent_life == a->life)
		sim_engine_answered(a->v, a->from, a->seq, a->rc);
}

/* Back to who asked, if there is still a way. */
static void answer(const struct asked *a, int rc)
{
	struct world *w = a->v->w;
	struct asked *copy;

	if (!a->seq || (a->from != a->at && (!w->link[a->at][a->from] || w->cut[a->at][a->from])))
		return;
	copy = copy_of(a);
	copy->rc = rc;
	sim_after(w, delay_of(w), answer_event, OWNER_AGENT, a->from)->p = copy;
}

static void done(void *ctx, int status, const struct store_result *result)
{
	struct asked *a = ctx;
	int rc = -ETIMEDOUT;

	if (status == 0)
		rc = result->code == 0 ? 0 : result->code == PROTO_E_CONFLICT ? -EAGAIN : -EINVAL;
	answer(a, rc);
	free(a);
}

static void ask_event(struct world *w, struct event *e)
{
	struct host *h = &w->hosts[e->node];
	struct command_head head = {.actor = "engine", .bodies = 1};
	struct asked *a = e->p, *copy;
	struct buf entry = {0};

	if (!node_leads(h->node)) {
		answer(a, -ETIMEDOUT);
		return;
	}
	head.wall = 1700000000 * USEC_PER_SEC + w->now;
	command_begin(&head, &entry);
	buf_append(&entry, a->body, a->n);
	copy = copy_of(a);
	if (consensus_propose(h->consensus, entry.data, entry.len, done, copy) != 0) {
		answer(a, -ETIMEDOUT);
		free(copy);
	}
	buf_free(&entry);
}

void sim_ask(struct sim_volume *v, unsigned node, const struct message_type *type, const void *body, uint64_t seq)
{
	struct world *w = v->w;
	struct consensus_view raft;
	struct asked *a;
	struct buf b = {0};

	message_encode(type, body, &b);
	a = xcalloc(1, sizeof *a + b.len);
	*a = (struct asked){.v = v, .from = node, .at = node, .seq = seq, .life = w->hosts[node].agent_life};
	a->n = b.len;
	memcpy(a->body, b.data, b.len);
	buf_free(&b);
	consensus_view(w->hosts[node].consensus, &raft);
	if (raft.leader == 0)
		answer(a, -ETIMEDOUT);
	else
		a->at = raft.leader;
	if (raft.leader == node ||
	    (raft.leader && w->link[node][a->at] && !w->cut[node][a->at] && w->hosts[a->at].agent_up))
		sim_after(w, delay_of(w), ask_event, OWNER_AGENT, a->at)->p = a;
	else
		free(a);
}
