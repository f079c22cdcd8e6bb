/* SPDX-License-Identifier: Apache-2.0
 * `started`: the highest generation of each VM whose start was ever begun on this node (LEASE-PROTOCOL, section 1). */
#include "agent/node_internal.h"

#include <stdio.h>
#include <string.h>

static struct started *find(const struct node *n, const char *vm)
{
	for (size_t i = 0; i < n->n_started; i++)
		if (strcmp(n->started[i].vm, vm) == 0)
			return &n->started[i];
	return NULL;
}

void node_started_load(struct node *n, const char *vm, uint64_t gen)
{
	struct started *s = find(n, vm);

	if (!s) {
		if (n->n_started == n->cap_started) {
			n->cap_started = n->cap_started ? n->cap_started * 2 : 16;
			n->started = xrealloc(n->started, n->cap_started * sizeof *n->started);
		}
		s = &n->started[n->n_started++];
		*s = (struct started){0};
		(void)snprintf(s->vm, sizeof s->vm, "%s", vm);
	}
	if (gen > s->gen)
		s->gen = gen;
}

uint64_t node_started_gen(const struct node *n, const char *vm)
{
	const struct started *s = find(n, vm);

	return s && !PLANTED(reusegen) ? s->gen : 0;
}

bool node_started(const struct node *n, size_t i, const char **ret_vm, uint64_t *ret_gen)
{
	if (i >= n->n_started)
		return false;
	*ret_vm = n->started[i].vm;
	*ret_gen = n->started[i].gen;
	return true;
}

/* May the entry go? It keeps a generation from being begun here again (L13), and lets one be given back (L16): both
 * only for the generation that the VM's row has. Where the applied state has no row, and all generations up to the
 * entry's have been drawn from the cluster's counter by then, a later row of that name has a higher one (decision
 * 0002), and no entry is as good as this one.
 *
 * The counter is looked at, since the state can be older than this file: a power cut takes it back behind the very
 * entry that placed the VM here, and its row is not gone then, but not there yet. And nothing is decided by a state
 * that is older than the one that this is judged by, also not after a power cut: what was applied here is committed, so
 * every later grant carries an index behind it, and L6 comes before each start and each report. */
static bool is_over(struct node *n, const struct started *s, uint64_t gen_max)
{
	return s->gen <= gen_max && !node_find_vm(n, s->vm) && !node_instance(n, s->vm);
}

static void prune(struct node *n)
{
	struct store_cluster cluster = {0};

	store_cluster(n->config.store, &cluster);
	for (size_t i = 0; i < n->n_started;)
		if (is_over(n, &n->started[i], cluster.gen_max))
			n->started[i] = n->started[--n->n_started];
		else
			i++;
}

void node_started_step(struct node *n)
{
	if (n->saving || n->saved_seq == n->save_seq)
		return;
	prune(n);
	n->saving = true;
	n->saving_seq = n->save_seq;
	n->env.started_save(n->env.ctx, n->saving_seq);
}

void node_started_saved(struct node *n, uint64_t seq)
{
	CHECK(n->saving && seq == n->saving_seq);
	n->saving = false;
	n->saved_seq = seq;
}
