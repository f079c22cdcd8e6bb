/* SPDX-License-Identifier: Apache-2.0
 * Asking an agent: one request, one answer, again and again until it is there or the time is over. */
#ifndef KEDGE_CLI_RPC_H
#define KEDGE_CLI_RPC_H

#include "net/net.h"
#include "proto/proto.h"

/* Whom to ask: a local socket, or an address with a certificate. */
struct rpc_target {
	char sock[PATH_BYTES_MAX + 16];
	char dir[PATH_BYTES_MAX]; /* for the remedy in messages */
	char address[ADDRESS_BYTES_MAX];
	char ca[PATH_BYTES_MAX], cert[PATH_BYTES_MAX], key[PATH_BYTES_MAX]; /* with address */
};

struct rpc_answer {
	struct unpack unpacked;
	struct buf bytes;
	const struct msgpack_object *result;
};

/* [worker] Call @method with @params (one packed map) until @timeout is over. A connection that cannot be made at all
 * is an error at once; one that is lost, and the errors that pass (no leader, unknown outcome), are tried again:
 * changes carry session and number in @params, so they are applied once. Returns 0 or a PROTO_E_*. rpc_free() in any
 * case. */
int rpc_call(const struct rpc_target *to, const char *method, const struct buf *params, usec_t timeout,
	     struct rpc_answer *ret, struct err *e) KEDGE_MUST_CHECK;
void rpc_free(struct rpc_answer *a);

/* [worker] A connection for rpc_exchange(). */
int rpc_connect(const struct rpc_target *to, usec_t deadline, struct net_client **ret, struct err *e) KEDGE_MUST_CHECK;

/* [worker] The same once, on a connection that is there. */
int rpc_exchange(struct net_client *client, const char *method, const struct buf *params, usec_t deadline,
		 struct rpc_answer *ret, struct err *e) KEDGE_MUST_CHECK;

#endif
