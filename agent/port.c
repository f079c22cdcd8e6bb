/* SPDX-License-Identifier: Apache-2.0
 * What comes over the net, and to whom it goes. */
#include "agent/agent.h"

#include <stdio.h>

static void peer_frame_cb(void *ctx, node_id_t from, const uint8_t *p, size_t n)
{
	struct agent *agent = ctx;
	uint32_t id;

	if (message_id(p, n, &id) < 0) {
		net_peer_drop(agent->net, from, "a frame is no message");
	} else if (id >= PEER_RAFT_FIRST) {
		if (consensus_receive(agent->consensus, from, p, n) < 0)
			net_peer_drop(agent->net, from, "a frame of raft makes no sense");
	} else if (!ctl_frame(agent->ctl, from, p, n) && !volumes_frame(agent->volumes, p, n) &&
		   !images_frame(agent->images, from, p, n)) {
		(void)node_receive(agent->node, from, p, n); /* a newer release may know more kinds */
	}
}

static void peer_up_cb(void *ctx, node_id_t node)
{
	(void)ctx;
	log_info("node %u: linked", node);
}

static void peer_down_cb(void *ctx, node_id_t node, const char *reason)
{
	struct agent *agent = ctx;

	log_info("node %u: link lost: %s", node, reason);
	consensus_link_down(agent->consensus, node);
	ctl_link_down(agent->ctl, node);
	images_link_down(agent->images, node);
}

/* Numbers are given once, in turn: one that is not there and not above the highest was removed (P8). What is above it
 * this node has not read of yet: one that just joined reads the log from its beginning, and needs whoever leads. Then
 * the certificate alone must do. */
static bool peer_known_cb(void *ctx, node_id_t node)
{
	struct agent *agent = ctx;
	struct store_cluster cluster = {0};
	struct store_node found;

	store_cluster(agent->store, &cluster);
	return node > cluster.node_max || store_node(agent->store, node, &found);
}

static void conn_open_cb(void *ctx, struct net_conn *conn, enum net_protocol protocol)
{
	struct agent *agent = ctx;

	if (protocol == NET_JOIN)
		join_open(agent, conn);
	else
		ctl_open(agent->ctl, conn);
}

static bool is_join(const struct net_conn *conn)
{
	return net_conn_protocol(conn) == NET_JOIN;
}

static void conn_data_cb(void *ctx, struct net_conn *conn, const uint8_t *p, size_t n)
{
	struct agent *agent = ctx;

	if (is_join(conn))
		join_data(agent, conn, p, n);
	else
		ctl_data(agent->ctl, conn, p, n);
}

static void conn_closed_cb(void *ctx, struct net_conn *conn)
{
	struct agent *agent = ctx;

	if (is_join(conn))
		join_closed(agent, conn);
	else
		ctl_closed(agent->ctl, conn);
}

static bool join_secret_cb(void *ctx, const char *id, uint8_t ret[32])
{
	return join_secret(ctx, id, ret);
}

static void drop_removed(struct agent *agent)
{
	for (node_id_t node = 1; node <= NODES_MAX; node++) {
		bool was_up = net_peer_is_up(agent->net, node);

		if (node == agent->config.id || peer_known_cb(agent, node))
			continue;
		net_peer_remove(agent->net, node); /* tells nobody */
		if (was_up)
			peer_down_cb(agent, node, "it was removed from the cluster");
	}
}

void port_step(struct agent *agent)
{
	struct store_node nodes[NODES_MAX];
	struct err e = {0};
	size_t n;

	if (agent->peers_known == store_changes(agent->store))
		return;
	agent->peers_known = store_changes(agent->store);
	n = store_nodes(agent->store, nodes, NODES_MAX);
	for (size_t i = 0; i < n; i++)
		if (nodes[i].node != agent->config.id &&
		    net_peer_add(agent->net, nodes[i].node, nodes[i].address, &e) < 0)
			log_warning("%s, ignoring: node %s gets no link", e.text, nodes[i].name);
	drop_removed(agent);
}

static void bulk_cb(void *ctx, int fd, const uint8_t *first, size_t n)
{
	volumes_accept(((struct agent *)ctx)->volumes, fd, first, n);
}

int port_open(struct agent *agent, struct err *e)
{
	char sock[PATH_BYTES_MAX + 32];
	const struct config *c = &agent->config;
	const struct net_config config = {.self = c->id,
					  .listen = c->listen,
					  .cluster = c->cluster,
					  .ca_cert = c->ca,
					  .cert = c->cert,
					  .key = c->key,
					  .ctl_sock = sock};
	const struct net_callbacks cb = {.ctx = agent,
					 .peer_frame = peer_frame_cb,
					 .peer_up = peer_up_cb,
					 .peer_down = peer_down_cb,
					 .peer_known = peer_known_cb,
					 .conn_open = conn_open_cb,
					 .conn_data = conn_data_cb,
					 .conn_closed = conn_closed_cb,
					 .join_secret = join_secret_cb,
					 .bulk = bulk_cb};
	int rc;

	(void)snprintf(sock, sizeof sock, "%s/run/ctl.sock", c->dir);
	rc = net_new(&agent->loop, &config, &cb, &agent->net, e);
	return rc < 0 ? rc : net_listen(agent->net, e);
}
