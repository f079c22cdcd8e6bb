/* SPDX-License-Identifier: Apache-2.0
 * The side of leases that asks for them. */
#include "consensus/lease.h"

void lease_node_init(struct lease_node *n, const struct timing *timing, uint64_t session)
{
	CHECK(session != 0);
	*n = (struct lease_node){.timing = timing, .session = PLANTED(seqreuse) ? 1 : session};
}

bool lease_node_due(const struct lease_node *n, node_id_t leader, usec_t now)
{
	return leader != 0 && (leader != n->asked || now >= n->next_at);
}

void lease_node_ask(struct lease_node *n, node_id_t leader, usec_t now, struct peer_lease_req *ret)
{
	size_t slot;

	n->num++;
	slot = n->num % LEASE_REQUESTS;
	n->sent[slot].num = n->num;
	n->sent[slot].at = now;
	n->asked = leader;
	n->next_at = now + n->timing->renew;
	*ret = (struct peer_lease_req){.session = n->session, .num = n->num};
}

bool lease_node_grant(struct lease_node *n, const struct peer_lease_grant *grant, usec_t now, usec_t *ret_deadline)
{
	size_t slot = grant->num % LEASE_REQUESTS;
	usec_t deadline;

	if (grant->session != n->session || n->sent[slot].num != grant->num) /* L2 */
		return false;
	if (n->accepted && (grant->num <= n->accepted_num || grant->term < n->term)) /* L3 */
		return false;
	deadline = (PLANTED(fromreceipt) ? now : n->sent[slot].at) + n->timing->lease; /* L1 */
	if (deadline <= now)
		return false; /* L3: a late grant is a lost grant */
	n->accepted = true;
	n->accepted_num = grant->num;
	n->term = grant->term;
	n->index = grant->index;
	*ret_deadline = deadline;
	return true;
}

bool lease_node_knows(const struct lease_node *n, uint64_t applied)
{
	if (!n->accepted)
		return PLANTED(idxrestart);
	return applied >= n->index;
}
