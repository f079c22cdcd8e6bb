/* SPDX-License-Identifier: Apache-2.0
 * TLS 1.2 over memory, by mbedTLS 2.28 (Debian 12) or 3.6 (Debian 13). */
#include "net/tls.h"

#include <errno.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif

const char *const tls_alpn[TLS_PROTOCOLS] = {"kedge-peer/1", "kedge-ctl/1", "kedge-join/1", "kedge-bulk/1"};

static const char *alpn_lists[TLS_PROTOCOLS][2] = {
	{"kedge-peer/1", NULL}, {"kedge-ctl/1", NULL}, {"kedge-join/1", NULL}, {"kedge-bulk/1", NULL}};

static const int suites_ecdsa[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
				   MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
				   MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, 0};
/* Those that volume/record.c knows; the cheaper one first. */
static const int suites_bulk[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
				  MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, 0};
static const int suites_psk[] = {MBEDTLS_TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256, 0};

void tls_global_init(void)
{
#if MBEDTLS_VERSION_MAJOR >= 3
	CHECK(psa_crypto_init() == PSA_SUCCESS);
#endif
}

int tls_random(void *ctx, unsigned char *p, size_t n)
{
	(void)ctx;
	random_bytes(p, n);
	return 0;
}

void tls_error(int code, char *ret, size_t size)
{
	mbedtls_strerror(code, ret, size);
}

/* ---- identities ---- */

static int load_key(mbedtls_pk_context *key, const char *path)
{
#if MBEDTLS_VERSION_MAJOR >= 3
	return mbedtls_pk_parse_keyfile(key, path, NULL, tls_random, NULL);
#else
	return mbedtls_pk_parse_keyfile(key, path, NULL);
#endif
}

static int load_failed(struct err *e, int rc, const char *what, const char *path)
{
	char text[128];

	tls_error(rc, text, sizeof text);
	return err_set(e, -EINVAL, "read the %s '%s': %s", what, path, text);
}

int tls_identity_load(struct tls_identity *id, const char *ca, const char *cert, const char *key, struct err *e)
{
	int rc;

	mbedtls_x509_crt_init(&id->ca);
	mbedtls_x509_crt_init(&id->cert);
	mbedtls_pk_init(&id->key);
	rc = mbedtls_x509_crt_parse_file(&id->ca, ca);
	if (rc != 0)
		return load_failed(e, rc, "CA certificate", ca);
	rc = mbedtls_x509_crt_parse_file(&id->cert, cert);
	if (rc != 0)
		return load_failed(e, rc, "certificate", cert);
	rc = load_key(&id->key, key);
	return rc == 0 ? 0 : load_failed(e, rc, "private key", key);
}

void tls_identity_free(struct tls_identity *id)
{
	mbedtls_x509_crt_free(&id->ca);
	mbedtls_x509_crt_free(&id->cert);
	mbedtls_pk_free(&id->key);
}

/* ---- sessions ---- */

static int bio_send(void *ctx, const unsigned char *p, size_t n)
{
	struct tls *t = ctx;

	buf_append(&t->out, p, n);
	return (int)n;
}

static int bio_recv(void *ctx, unsigned char *p, size_t n)
{
	struct tls *t = ctx;

	if (t->in.len == 0)
		return MBEDTLS_ERR_SSL_WANT_READ;
	if (n > t->in.len)
		n = t->in.len;
	memcpy(p, t->in.data, n);
	buf_consume(&t->in, n);
	return (int)n;
}

/* A node without a clock battery boots in 1970: a certificate that is not valid yet is no error. */
static int verify_cb(void *ctx, mbedtls_x509_crt *cert, int depth, uint32_t *flags)
{
	(void)ctx;
	(void)cert;
	(void)depth;
	*flags &= ~(uint32_t)MBEDTLS_X509_BADCERT_FUTURE;
	return 0;
}

static int psk_cb(void *ctx, mbedtls_ssl_context *ssl, const unsigned char *id, size_t n)
{
	struct tls *t = ctx;

	if (!t->psk_known || n != strlen(t->psk_id) || memcmp(id, t->psk_id, n) != 0)
		return MBEDTLS_ERR_SSL_UNKNOWN_IDENTITY;
	return mbedtls_ssl_set_hs_psk(ssl, t->psk, sizeof t->psk);
}

static void only_tls12(mbedtls_ssl_config *conf)
{
#if MBEDTLS_VERSION_MAJOR >= 3
	mbedtls_ssl_conf_min_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
	mbedtls_ssl_conf_max_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
#else
	mbedtls_ssl_conf_min_version(conf, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
	mbedtls_ssl_conf_max_version(conf, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#endif
}

/* ---- secrets, for whoever does the records himself ---- */

static void keep_secrets(struct tls *t, const unsigned char *master, const unsigned char *client_random,
			 const unsigned char *server_random, mbedtls_tls_prf_types prf)
{
	memcpy(t->secrets.master, master, sizeof t->secrets.master);
	memcpy(t->secrets.randoms, server_random, 32);
	memcpy(t->secrets.randoms + 32, client_random, 32);
	t->secrets.prf = prf;
	t->secrets.known = true;
}

#if MBEDTLS_VERSION_MAJOR >= 3
static void export_cb(void *ctx, mbedtls_ssl_key_export_type type, const unsigned char *secret, size_t n,
		      const unsigned char client_random[32], const unsigned char server_random[32],
		      mbedtls_tls_prf_types prf)
{
	struct tls *t = ctx;

	if (type == MBEDTLS_SSL_KEY_EXPORT_TLS12_MASTER_SECRET && n == sizeof t->secrets.master)
		keep_secrets(t, secret, client_random, server_random, prf);
}
#else
static int export_cb(void *ctx, const unsigned char *master, const unsigned char *key_block, size_t mac_bytes,
		     size_t key_bytes, size_t iv_bytes, const unsigned char client_random[32],
		     const unsigned char server_random[32], mbedtls_tls_prf_types prf)
{
	(void)key_block;
	(void)mac_bytes;
	(void)key_bytes;
	(void)iv_bytes;
	keep_secrets(ctx, master, client_random, server_random, prf);
	return 0;
}
#endif

static void export_secrets(struct tls *t)
{
#if MBEDTLS_VERSION_MAJOR >= 3
	mbedtls_ssl_set_export_keys_cb(&t->ssl, export_cb, t);
#else
	mbedtls_ssl_conf_export_keys_ext_cb(&t->conf, export_cb, t);
#endif
}

int tls_key_block(const struct tls *t, uint8_t *ret, size_t n)
{
	const struct tls_secrets *s = &t->secrets;

	if (!s->known)
		return -EPROTO;
	return mbedtls_ssl_tls_prf(s->prf, s->master, sizeof s->master, "key expansion", s->randoms, sizeof s->randoms,
				   ret, n) == 0
		       ? 0
		       : -EPROTO;
}

/* ---- setting up ---- */

static int configure_psk(struct tls *t, bool is_client)
{
	mbedtls_ssl_conf_ciphersuites(&t->conf, suites_psk);
	mbedtls_ssl_conf_authmode(&t->conf, MBEDTLS_SSL_VERIFY_NONE); /* the PSK is the proof of both ends */
	if (is_client)
		return mbedtls_ssl_conf_psk(&t->conf, t->psk, sizeof t->psk, (const unsigned char *)t->psk_id,
					    strlen(t->psk_id));
	mbedtls_ssl_conf_psk_cb(&t->conf, psk_cb, t);
	return 0;
}

static int configure_certificates(struct tls *t, struct tls_identity *id)
{
	mbedtls_ssl_conf_ciphersuites(&t->conf, t->protocol == TLS_BULK ? suites_bulk : suites_ecdsa);
	mbedtls_ssl_conf_authmode(&t->conf, MBEDTLS_SSL_VERIFY_REQUIRED);
	mbedtls_ssl_conf_verify(&t->conf, verify_cb, NULL);
	mbedtls_ssl_conf_ca_chain(&t->conf, &id->ca, NULL);
	return mbedtls_ssl_conf_own_cert(&t->conf, &id->cert, &id->key);
}

static int configure(struct tls *t, bool is_client, struct tls_identity *id)
{
	int rc = mbedtls_ssl_config_defaults(&t->conf, is_client ? MBEDTLS_SSL_IS_CLIENT : MBEDTLS_SSL_IS_SERVER,
					     MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);

	if (rc != 0)
		return rc;
	only_tls12(&t->conf);
	mbedtls_ssl_conf_rng(&t->conf, tls_random, NULL);
	rc = t->protocol == TLS_JOIN ? configure_psk(t, is_client) : configure_certificates(t, id);
	if (rc == 0)
		rc = mbedtls_ssl_conf_alpn_protocols(&t->conf, alpn_lists[t->protocol]);
	if (rc == 0)
		rc = mbedtls_ssl_setup(&t->ssl, &t->conf);
	if (rc == 0)
		rc = mbedtls_ssl_set_hostname(&t->ssl, NULL); /* names are checked by tls_peer_identity() */
	return rc;
}

int tls_init(struct tls *t, enum tls_protocol protocol, bool is_client, struct tls_identity *id, struct err *e)
{
	char text[128];
	int rc;

	CHECK((id == NULL) == (protocol == TLS_JOIN));
	t->protocol = protocol;
	mbedtls_ssl_init(&t->ssl);
	mbedtls_ssl_config_init(&t->conf);
	rc = configure(t, is_client, id);
	if (rc != 0) {
		tls_error(rc, text, sizeof text);
		return err_set(e, -ENOMEM, "set up TLS: %s", text);
	}
	if (protocol == TLS_BULK)
		export_secrets(t);
	mbedtls_ssl_set_bio(&t->ssl, t, bio_send, bio_recv, NULL);
	return 0;
}

void tls_free(struct tls *t)
{
	mbedtls_ssl_free(&t->ssl);
	mbedtls_ssl_config_free(&t->conf);
	buf_free(&t->in);
	buf_free(&t->out);
	explicit_bzero(t->psk, sizeof t->psk);
	explicit_bzero(&t->secrets, sizeof t->secrets);
}

/* The peer must have chosen the protocol that we offered. */
static int check_alpn(const struct tls *t, struct err *e)
{
	const char *chosen = mbedtls_ssl_get_alpn_protocol(&t->ssl);

	if (!chosen || strcmp(chosen, tls_alpn[t->protocol]) != 0)
		return err_set(e, -EPROTO, "TLS handshake: the peer does not speak %s", tls_alpn[t->protocol]);
	return 0;
}

int tls_handshake(struct tls *t, struct err *e)
{
	char text[128];
	int rc = mbedtls_ssl_handshake(&t->ssl);

	if (rc == 0)
		return check_alpn(t, e);
	if (rc == MBEDTLS_ERR_SSL_WANT_READ || rc == MBEDTLS_ERR_SSL_WANT_WRITE)
		return -EAGAIN;
	tls_error(rc, text, sizeof text);
	return err_set(e, -EPROTO, "TLS handshake: %s", text);
}

long tls_read(struct tls *t, uint8_t *p, size_t n)
{
	int rc = mbedtls_ssl_read(&t->ssl, p, n);

	if (rc >= 0)
		return rc;
	if (rc == MBEDTLS_ERR_SSL_WANT_READ || rc == MBEDTLS_ERR_SSL_WANT_WRITE)
		return -EAGAIN;
	return rc == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY ? 0 : -EPROTO;
}

int tls_write(struct tls *t, const void *p, size_t n)
{
	const uint8_t *at = p;

	while (n > 0) {
		int rc = mbedtls_ssl_write(&t->ssl, at, n);

		if (rc <= 0)
			return -EPROTO;
		at += rc;
		n -= (size_t)rc;
	}
	return 0;
}

void tls_close_notify(struct tls *t)
{
	(void)mbedtls_ssl_close_notify(&t->ssl);
}

/* ---- who is there ---- */

static bool name_part(const mbedtls_x509_name *name, const char *oid, size_t oid_n, char *ret, size_t size)
{
	for (; name; name = name->next) {
		if (name->oid.len != oid_n || memcmp(name->oid.p, oid, oid_n) != 0)
			continue;
		if (name->val.len >= size || memchr(name->val.p, 0, name->val.len))
			return false;
		memcpy(ret, name->val.p, name->val.len);
		ret[name->val.len] = '\0';
		return true;
	}
	return false;
}

static enum net_role role_of(const char *cn, const char **ret_rest)
{
	static const struct {
		const char *prefix;
		enum net_role role;
	} roles[] = {{"node:", NET_ROLE_NODE},
		     {"admin:", NET_ROLE_ADMIN},
		     {"operator:", NET_ROLE_OPERATOR},
		     {"viewer:", NET_ROLE_VIEWER}};

	for (size_t i = 0; i < ARRAY_LEN(roles); i++)
		if (strncmp(cn, roles[i].prefix, strlen(roles[i].prefix)) == 0) {
			*ret_rest = cn + strlen(roles[i].prefix);
			return roles[i].role;
		}
	return NET_ROLE_NONE;
}

static bool parse_node(const char *text, node_id_t *ret)
{
	char *end;
	unsigned long v;

	if (text[0] < '1' || text[0] > '9')
		return false;
	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno || *end || v > NODES_MAX)
		return false;
	*ret = (node_id_t)v;
	return true;
}

static int identity_of(const mbedtls_x509_crt *cert, struct net_identity *ret)
{
	struct net_identity id = {0};
	char cn[NAME_BYTES_MAX + 16];
	const char *rest;

	if (!cert ||
	    !name_part(&cert->subject, MBEDTLS_OID_AT_CN, MBEDTLS_OID_SIZE(MBEDTLS_OID_AT_CN), cn, sizeof cn) ||
	    !name_part(&cert->subject, MBEDTLS_OID_AT_ORGANIZATION, MBEDTLS_OID_SIZE(MBEDTLS_OID_AT_ORGANIZATION),
		       id.cluster, sizeof id.cluster))
		return -EACCES;
	id.role = role_of(cn, &rest);
	if (id.role == NET_ROLE_NONE || strlen(rest) >= sizeof id.name)
		return -EACCES;
	if (id.role == NET_ROLE_NODE && !parse_node(rest, &id.node))
		return -EACCES;
	memcpy(id.name, rest, strlen(rest) + 1);
	*ret = id;
	return 0;
}

int tls_peer_identity(const struct tls *t, struct net_identity *ret)
{
	return identity_of(mbedtls_ssl_get_peer_cert(&t->ssl), ret);
}

int tls_identity_self(const struct tls_identity *id, struct net_identity *ret)
{
	return identity_of(&id->cert, ret);
}
