/* SPDX-License-Identifier: Apache-2.0
 * Asking an agent. */
#include "cli/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AGAIN_AFTER (200 * USEC_PER_MS)

void rpc_free(struct rpc_answer *a)
{
	unpack_free(&a->unpacked);
	buf_free(&a->bytes);
	*a = (struct rpc_answer){0};
}

static int receive(struct net_client *client, usec_t deadline, struct buf *ret, struct err *e)
{
	size_t used;
	int rc;

	while ((rc = unpack_scan(ret->data, ret->len, &used)) == -EAGAIN) {
		long n = net_client_recv(client, deadline, ret, e);

		if (n == -ETIMEDOUT)
			return err_set(e, PROTO_E_TIMED_OUT, "the agent gave no answer in time");
		if (n <= 0)
			return err_set(e, PROTO_E_UNREACHABLE, "the agent closed the connection");
	}
	return rc == 0 ? 0 : err_set(e, PROTO_E_INTERNAL, "the agent's answer is not msgpack");
}

static int take_error(const struct msgpack_object *error, struct err *e)
{
	char text[300];
	int64_t code = PROTO_E_INTERNAL;

	(void)unpack_i64(unpack_key(error, "code"), &code);
	if (!unpack_str(unpack_key(error, "text"), text, sizeof text))
		(void)err_set(e, (int)code, "%s", proto_error_text((int)code));
	else
		(void)err_set(e, (int)code, "%s", text);
	return code < 0 ? (int)code : PROTO_E_INTERNAL;
}

int rpc_exchange(struct net_client *client, const char *method, const struct buf *params, usec_t deadline,
		 struct rpc_answer *ret, struct err *e)
{
	struct buf request = {0};
	struct pack p = {.out = &request};
	int rc;

	pack_array(&p);
	pack_u64(&p, 0);
	pack_u64(&p, 1);
	pack_str(&p, method);
	pack_array(&p);
	pack_raw(&p, params->data, params->len);
	pack_end(&p);
	pack_end(&p);
	rc = net_client_send(client, request.data, request.len, e);
	buf_free(&request);
	if (rc < 0)
		return err_set(e, PROTO_E_UNREACHABLE, "the agent closed the connection");
	rc = receive(client, deadline, &ret->bytes, e);
	if (rc < 0)
		return rc;
	if (unpack_open(&ret->unpacked, ret->bytes.data, ret->bytes.len) < 0 || unpack_count(ret->unpacked.root) != 4)
		return err_set(e, PROTO_E_INTERNAL, "the agent's answer makes no sense");
	if (!unpack_is_nil(unpack_at(ret->unpacked.root, 2)))
		return take_error(unpack_at(ret->unpacked.root, 2), e);
	ret->result = unpack_at(ret->unpacked.root, 3);
	return 0;
}

int rpc_connect(const struct rpc_target *to, usec_t deadline, struct net_client **ret, struct err *e)
{
	usec_t now = clock_boottime();
	int rc;

	if (to->address[0]) {
		rc = net_client_tls(to->address, to->ca, to->cert, to->key, deadline > now ? deadline - now : 1, ret,
				    e);
		return rc < 0 ? err_wrap(e, PROTO_E_UNREACHABLE, "no agent at %s", to->address) : 0;
	}
	rc = net_client_local(to->sock, ret, e);
	if (rc < 0)
		return err_set(e, PROTO_E_UNREACHABLE,
			       "no agent answers at %s: %s (start it: kedged --config %s/kedge.conf)", to->sock,
			       strerror(-rc), to->dir);
	return 0;
}

static bool passes(int rc)
{
	return rc == PROTO_E_NO_LEADER || rc == PROTO_E_UNKNOWN_OUTCOME || rc == PROTO_E_TIMED_OUT ||
	       rc == PROTO_E_UNREACHABLE;
}

int rpc_call(const struct rpc_target *to, const char *method, const struct buf *params, usec_t timeout,
	     struct rpc_answer *ret, struct err *e)
{
	const struct timespec pause = {0, (long)(AGAIN_AFTER * 1000)};
	usec_t deadline = clock_boottime() + timeout;
	bool was_connected = false;
	int rc;

	for (;;) {
		struct net_client *client = NULL;

		rpc_free(ret);
		rc = rpc_connect(to, deadline, &client, e);
		if (rc < 0 && !was_connected)
			return PROTO_E_UNREACHABLE;
		if (rc == 0) {
			was_connected = true;
			rc = rpc_exchange(client, method, params, deadline, ret, e);
		} else {
			rc = PROTO_E_UNREACHABLE;
		}
		client = net_client_close(client);
		if (!passes(rc) || clock_boottime() + AGAIN_AFTER >= deadline)
			return rc;
		(void)nanosleep(&pause, NULL);
	}
}
