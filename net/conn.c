/* SPDX-License-Identifier: Apache-2.0
 * Byte streams for the agent: the control port, local or by TLS, and joins. */
#include "net/internal.h"

#include <errno.h>
#include <stdlib.h>

void conn_session_open(struct session *s)
{
	struct net *net = s->net;
	struct net_conn *c = xcalloc(1, sizeof *c);

	c->session = s;
	c->protocol = !s->plain && s->protocol == TLS_JOIN ? NET_JOIN : NET_CTL;
	s->conn = c;
	net->cb.conn_open(net->cb.ctx, c, c->protocol);
}

void conn_session_data(struct session *s, const uint8_t *p, size_t n)
{
	s->net->cb.conn_data(s->net->cb.ctx, s->conn, p, n);
}

void conn_session_closed(struct session *s)
{
	struct net_conn *c = s->conn;

	s->conn = NULL;
	s->net->cb.conn_closed(s->net->cb.ctx, c);
	free(c);
}

int net_conn_send(struct net_conn *conn, const void *p, size_t n)
{
	return session_send(conn->session, p, n, CTL_QUEUE_BYTES_MAX);
}

void net_conn_close(struct net_conn *conn)
{
	session_drain(conn->session);
}

void net_conn_set_data(struct net_conn *conn, void *data)
{
	conn->data = data;
}

void *net_conn_data(const struct net_conn *conn)
{
	return conn->data;
}

enum net_protocol net_conn_protocol(const struct net_conn *conn)
{
	return conn->protocol;
}

const struct net_identity *net_conn_identity(const struct net_conn *conn)
{
	return &conn->session->identity;
}

const char *net_conn_token(const struct net_conn *conn)
{
	CHECK(conn->protocol == NET_JOIN);
	return conn->session->tls.psk_id;
}
