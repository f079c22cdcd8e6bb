/* SPDX-License-Identifier: Apache-2.0
 * kedge join: make an own key, show the token, get a certificate; trust the CA only by the token's fingerprint. */
#include "cli/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN_MAX_TIME (30 * USEC_PER_SEC)
#define PEM_BYTES_MAX 16384

struct token {
	char address[ADDRESS_BYTES_MAX];
	char id[40];
	uint8_t secret[32];
	char fingerprint[65];
};

static bool parse_hex(const char *hex, uint8_t *ret, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned byte;

		if (strspn(hex + 2 * i, "0123456789abcdef") < 2 || sscanf(hex + 2 * i, "%2x", &byte) != 1)
			return false;
		ret[i] = (uint8_t)byte;
	}
	return hex[2 * n] == '\0';
}

/* Cut the last part off, at a colon. */
static char *last_part(char *text)
{
	char *colon = strrchr(text, ':');

	if (!colon)
		return NULL;
	*colon = '\0';
	return colon + 1;
}

/* kedge-join:ADDRESS:ID:SECRET:FINGERPRINT */
static bool parse_token(const char *text, struct token *ret)
{
	static const char prefix[] = "kedge-join:";
	uint8_t ignored[32];
	char copy[512];
	const char *part;

	if (strncmp(text, prefix, strlen(prefix)) != 0 || strlen(text) >= sizeof copy)
		return false;
	memcpy(copy, text + strlen(prefix), strlen(text + strlen(prefix)) + 1);
	part = last_part(copy);
	if (!part || strlen(part) != 64 || !parse_hex(part, ignored, 32))
		return false;
	memcpy(ret->fingerprint, part, 65);
	part = last_part(copy);
	if (!part || !parse_hex(part, ret->secret, 32))
		return false;
	part = last_part(copy);
	if (!part || part[0] == '\0' || strlen(part) >= sizeof ret->id)
		return false;
	memcpy(ret->id, part, strlen(part) + 1);
	if (strlen(copy) >= sizeof ret->address || net_address_check(copy, NULL) < 0)
		return false;
	memcpy(ret->address, copy, strlen(copy) + 1);
	return true;
}

/* HOST of HOST:PORT, without brackets. */
static void host_of(const char *address, char ret[ADDRESS_BYTES_MAX])
{
	char *end;

	(void)snprintf(ret, ADDRESS_BYTES_MAX, "%s", address[0] == '[' ? address + 1 : address);
	end = address[0] == '[' ? strchr(ret, ']') : strrchr(ret, ':');
	if (end)
		*end = '\0';
}

static bool take_pem(const struct msgpack_object *result, const char *key, struct buf *ret)
{
	const uint8_t *p;
	size_t n;

	if (!unpack_bin(unpack_key(result, key), &p, &n) || n > PEM_BYTES_MAX)
		return false;
	buf_append(ret, p, n);
	return true;
}

struct joining {
	struct buf key, request, ca_cert, ca_key, cert;
	char cluster[40];
	uint64_t node;
};

static int take_result(struct joining *j, const struct msgpack_object *result, const struct token *token, struct err *e)
{
	char fingerprint[65];

	j->node = number_of(result, "node");
	(void)take_pem(result, "ca_key", &j->ca_key);
	if (!take_pem(result, "ca_cert", &j->ca_cert) || !take_pem(result, "cert", &j->cert) || j->node == 0 ||
	    j->node > NODES_MAX || !unpack_str(unpack_key(result, "cluster"), j->cluster, sizeof j->cluster))
		return err_set(e, PROTO_E_INTERNAL, "the node's answer makes no sense");
	if (net_pki_fingerprint(&j->ca_cert, fingerprint, e) < 0)
		return PROTO_E_INTERNAL;
	if (strcmp(fingerprint, token->fingerprint) != 0)
		return err_set(e, PROTO_E_DENIED, "the cluster's CA is not the one that the token names");
	return 0;
}

static int ask(struct joining *j, const struct args *args, struct net_client *client, const struct token *token,
	       struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	struct pack p = {.out = &params};
	int rc;

	pack_map(&p);
	pack_kv_str(&p, "name", args->name);
	pack_kv_str(&p, "address", args->listen);
	pack_kv_str(&p, "zone", args->zone ? args->zone : "");
	pack_kv_str(&p, "ca", token->fingerprint);
	pack_key(&p, "request");
	pack_bin(&p, j->request.data, j->request.len);
	pack_end(&p);
	rc = rpc_exchange(client, "join", &params, clock_boottime() + JOIN_MAX_TIME, &answer, e);
	if (rc == 0)
		rc = take_result(j, answer.result, token, e);
	rpc_free(&answer);
	buf_free(&params);
	return rc;
}

static int join(struct joining *j, const struct args *args, const struct token *token, struct err *e)
{
	struct net_client *client = NULL;
	char host[ADDRESS_BYTES_MAX];
	int rc = net_pki_make_request("node", &j->key, &j->request, e);

	if (rc < 0)
		return PROTO_E_INTERNAL;
	host_of(args->listen, host);
	rc = net_client_join(token->address, host, token->id, token->secret, JOIN_MAX_TIME, &client, e);
	if (rc == -EPROTO || rc == -ECONNRESET)
		return err_wrap(e, PROTO_E_DENIED,
				"%s refuses the token: unknown, used or expired (make a new one: kedge token)",
				token->address) < 0
			       ? PROTO_E_DENIED
			       : 0;
	if (rc < 0)
		return PROTO_E_UNREACHABLE;
	rc = ask(j, args, client, token, e);
	client = net_client_close(client);
	return rc;
}

int command_join(const struct args *args, struct err *e)
{
	struct joining j = {0};
	struct token token;
	struct node_files files = {.dir = args->dir,
				   .name = args->name,
				   .listen = args->listen,
				   .zone = args->zone,
				   .cluster = j.cluster,
				   .ca_cert = &j.ca_cert,
				   .ca_key = &j.ca_key,
				   .cert = &j.cert,
				   .key = &j.key};
	int rc;

	if (!parse_token(args->words[0], &token))
		return err_set(e, PROTO_E_INVALID,
			       "this is no join token: copy the whole line that 'kedge token' printed");
	rc = node_files_check(&files, e);
	if (rc < 0)
		return rc;
	rc = join(&j, args, &token, e);
	files.id = (node_id_t)j.node;
	if (rc == 0)
		rc = node_files_write(&files, e);
	if (rc < 0)
		node_files_remove(args->dir);
	else if (args->json)
		(void)printf("{\n  \"cluster\": \"%s\",\n  \"node\": \"%s\",\n  \"id\": %u,\n  \"dir\": \"%s\"\n}\n",
			     j.cluster, args->name, files.id, args->dir);
	else
		(void)printf("node %s joined the cluster %s\n  start it:  kedged --config %s/kedge.conf\n", args->name,
			     j.cluster, args->dir);
	buf_free(&j.key);
	buf_free(&j.request);
	buf_free(&j.ca_cert);
	buf_free(&j.ca_key);
	buf_free(&j.cert);
	return rc;
}
