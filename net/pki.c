/* SPDX-License-Identifier: Apache-2.0
 * The cluster's own certificates: P-256 keys, requests, and a CA that any full node can sign with. */
#include "net/tls.h"

#include <errno.h>
#include <mbedtls/ecp.h>
#include <mbedtls/pem.h>
#include <mbedtls/sha256.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_csr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PEM_BYTES_MAX   8192
#define NOT_BEFORE      "20200101000000" /* nodes without a clock battery boot in 1970, others a little behind */
#define CA_NOT_AFTER    "20400101000000"
#define BUILD_TIME_MIN  1767225600 /* 2026-01-01: no certificate is signed before */
#define SECONDS_PER_DAY 86400
#define SERIAL_BYTES    16

static int failed(struct err *e, int rc, const char *what)
{
	char text[128];

	tls_error(rc, text, sizeof text);
	return err_set(e, -EINVAL, "%s: %s", what, text);
}

static int new_key(mbedtls_pk_context *key)
{
	int rc = mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));

	if (rc != 0)
		return rc;
	return mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), tls_random, NULL);
}

/* PEM parsers count the terminating zero. */
static void terminated(const struct buf *pem, struct buf *ret)
{
	buf_append(ret, pem->data, pem->len);
	buf_append(ret, "", 1);
}

static int parse_key(mbedtls_pk_context *key, const struct buf *pem)
{
	struct buf text = {0};
	int rc;

	terminated(pem, &text);
#if MBEDTLS_VERSION_MAJOR >= 3
	rc = mbedtls_pk_parse_key(key, text.data, text.len, NULL, 0, tls_random, NULL);
#else
	rc = mbedtls_pk_parse_key(key, text.data, text.len, NULL, 0);
#endif
	explicit_bzero(text.data, text.len);
	buf_free(&text);
	return rc;
}

static int parse_cert(mbedtls_x509_crt *cert, const struct buf *pem)
{
	struct buf text = {0};
	int rc;

	terminated(pem, &text);
	rc = mbedtls_x509_crt_parse(cert, text.data, text.len);
	buf_free(&text);
	return rc;
}

static int parse_request(mbedtls_x509_csr *csr, const struct buf *pem)
{
	struct buf text = {0};
	int rc;

	terminated(pem, &text);
	rc = mbedtls_x509_csr_parse(csr, text.data, text.len);
	buf_free(&text);
	return rc;
}

static int write_key(mbedtls_pk_context *key, struct buf *ret)
{
	unsigned char pem[PEM_BYTES_MAX];
	int rc = mbedtls_pk_write_key_pem(key, pem, sizeof pem);

	if (rc == 0)
		buf_append(ret, pem, strlen((char *)pem));
	explicit_bzero(pem, sizeof pem);
	return rc;
}

/* A positive random number, as X.509 wants serials. */
static int set_serial(mbedtls_x509write_cert *w)
{
	unsigned char serial[SERIAL_BYTES];

	random_bytes(serial, sizeof serial);
	serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40);
#if MBEDTLS_VERSION_MAJOR >= 3
	return mbedtls_x509write_crt_set_serial_raw(w, serial, sizeof serial);
#else
	{
		mbedtls_mpi mpi;
		int rc;

		mbedtls_mpi_init(&mpi);
		rc = mbedtls_mpi_read_binary(&mpi, serial, sizeof serial);
		if (rc == 0)
			rc = mbedtls_x509write_crt_set_serial(w, &mpi);
		mbedtls_mpi_free(&mpi);
		return rc;
	}
#endif
}

/* What a certificate says; names are in the form "CN=...,O=...". */
struct statement {
	const char *subject;
	const char *issuer;
	const char *not_after;
	mbedtls_pk_context *subject_key;
	mbedtls_pk_context *issuer_key;
	bool is_ca;
};

static int fill_in(mbedtls_x509write_cert *w, const struct statement *s)
{
	int rc;

	mbedtls_x509write_crt_set_version(w, MBEDTLS_X509_CRT_VERSION_3);
	mbedtls_x509write_crt_set_md_alg(w, MBEDTLS_MD_SHA256);
	mbedtls_x509write_crt_set_subject_key(w, s->subject_key);
	mbedtls_x509write_crt_set_issuer_key(w, s->issuer_key);
	rc = mbedtls_x509write_crt_set_subject_name(w, s->subject);
	if (rc == 0)
		rc = mbedtls_x509write_crt_set_issuer_name(w, s->issuer);
	if (rc == 0)
		rc = mbedtls_x509write_crt_set_validity(w, NOT_BEFORE, s->not_after);
	if (rc == 0)
		rc = set_serial(w);
	if (rc == 0)
		rc = mbedtls_x509write_crt_set_basic_constraints(w, s->is_ca, s->is_ca ? 0 : -1);
	if (rc == 0)
		rc = mbedtls_x509write_crt_set_subject_key_identifier(w);
	if (rc == 0)
		rc = mbedtls_x509write_crt_set_authority_key_identifier(w);
	if (rc == 0)
		rc = mbedtls_x509write_crt_set_key_usage(w, s->is_ca ? MBEDTLS_X509_KU_KEY_CERT_SIGN
								     : MBEDTLS_X509_KU_DIGITAL_SIGNATURE);
	return rc;
}

static int issue(const struct statement *s, struct buf *ret)
{
	unsigned char pem[PEM_BYTES_MAX];
	mbedtls_x509write_cert w;
	int rc;

	mbedtls_x509write_crt_init(&w);
	rc = fill_in(&w, s);
	if (rc == 0)
		rc = mbedtls_x509write_crt_pem(&w, pem, sizeof pem, tls_random, NULL);
	if (rc == 0)
		buf_append(ret, pem, strlen((char *)pem));
	mbedtls_x509write_crt_free(&w);
	return rc;
}

int net_pki_make_ca(const char *cluster, struct buf *ret_key, struct buf *ret_cert, struct err *e)
{
	struct buf key_pem = {0}, cert_pem = {0};
	char name[96];
	mbedtls_pk_context key;
	struct statement s = {name, name, CA_NOT_AFTER, &key, &key, true};
	int rc;

	tls_global_init();
	(void)snprintf(name, sizeof name, "CN=ca,O=%s", cluster);
	mbedtls_pk_init(&key);
	rc = new_key(&key);
	if (rc == 0)
		rc = write_key(&key, &key_pem);
	if (rc == 0)
		rc = issue(&s, &cert_pem);
	mbedtls_pk_free(&key);
	if (rc != 0) {
		buf_free(&key_pem);
		buf_free(&cert_pem);
		return failed(e, rc, "make the CA");
	}
	*ret_key = key_pem;
	*ret_cert = cert_pem;
	return 0;
}

static int write_request(mbedtls_pk_context *key, const char *name, struct buf *ret)
{
	unsigned char pem[PEM_BYTES_MAX];
	mbedtls_x509write_csr w;
	int rc;

	mbedtls_x509write_csr_init(&w);
	mbedtls_x509write_csr_set_md_alg(&w, MBEDTLS_MD_SHA256);
	mbedtls_x509write_csr_set_key(&w, key);
	rc = mbedtls_x509write_csr_set_subject_name(&w, name);
	if (rc == 0)
		rc = mbedtls_x509write_csr_pem(&w, pem, sizeof pem, tls_random, NULL);
	if (rc == 0)
		buf_append(ret, pem, strlen((char *)pem));
	mbedtls_x509write_csr_free(&w);
	return rc;
}

int net_pki_make_request(const char *common_name, struct buf *ret_key, struct buf *ret_csr, struct err *e)
{
	struct buf key_pem = {0}, csr_pem = {0};
	mbedtls_pk_context key;
	char name[96];
	int rc;

	tls_global_init();
	(void)snprintf(name, sizeof name, "CN=%s", common_name);
	mbedtls_pk_init(&key);
	rc = new_key(&key);
	if (rc == 0)
		rc = write_key(&key, &key_pem);
	if (rc == 0)
		rc = write_request(&key, name, &csr_pem);
	mbedtls_pk_free(&key);
	if (rc != 0) {
		buf_free(&key_pem);
		buf_free(&csr_pem);
		return failed(e, rc, "make a certificate request");
	}
	*ret_key = key_pem;
	*ret_csr = csr_pem;
	return 0;
}

/* The request proves that its maker holds the key. */
static int check_request(mbedtls_x509_csr *csr, struct err *e)
{
	unsigned char hash[32];
	int rc;

	if (!mbedtls_pk_can_do(&csr->pk, MBEDTLS_PK_ECKEY) || mbedtls_pk_get_bitlen(&csr->pk) != 256)
		return err_set(e, -EINVAL, "certificate request: the key is no P-256 key");
#if MBEDTLS_VERSION_MAJOR >= 3
	rc = mbedtls_sha256(csr->cri.p, csr->cri.len, hash, 0);
	if (rc == 0)
		rc = mbedtls_pk_verify(&csr->pk, MBEDTLS_MD_SHA256, hash, sizeof hash, csr->MBEDTLS_PRIVATE(sig).p,
				       csr->MBEDTLS_PRIVATE(sig).len);
#else
	rc = mbedtls_sha256_ret(csr->cri.p, csr->cri.len, hash, 0);
	if (rc == 0)
		rc = mbedtls_pk_verify(&csr->pk, MBEDTLS_MD_SHA256, hash, sizeof hash, csr->sig.p, csr->sig.len);
#endif
	return rc == 0 ? 0 : failed(e, rc, "certificate request: its signature");
}

static void validity_end(unsigned days, char ret[16])
{
	time_t now = (time_t)(clock_wall() / USEC_PER_SEC);
	struct tm tm;

	if (now < BUILD_TIME_MIN)
		now = BUILD_TIME_MIN;
	now += (time_t)days * SECONDS_PER_DAY;
	CHECK(gmtime_r(&now, &tm) != NULL);
	CHECK(strftime(ret, 16, "%Y%m%d%H%M%S", &tm) == 14);
}

struct signing {
	mbedtls_pk_context key;
	mbedtls_x509_crt ca;
	mbedtls_x509_csr csr;
};

static int sign(struct signing *g, const char *common_name, const char *cluster, unsigned days, struct buf *ret,
		struct err *e)
{
	char subject[200], issuer[200], not_after[16];
	struct statement s = {subject, issuer, not_after, &g->csr.pk, &g->key, false};
	int rc = check_request(&g->csr, e);

	if (rc < 0)
		return rc;
	(void)snprintf(subject, sizeof subject, "CN=%s,O=%s", common_name, cluster);
	(void)snprintf(issuer, sizeof issuer, "CN=ca,O=%s", cluster);
	validity_end(days, not_after);
	rc = issue(&s, ret);
	return rc == 0 ? 0 : failed(e, rc, "sign the certificate");
}

int net_pki_sign(const struct buf *ca_key, const struct buf *ca_cert, const struct buf *csr_pem,
		 const char *common_name, const char *cluster, unsigned days, struct buf *ret_cert, struct err *e)
{
	struct signing g;
	int rc;

	tls_global_init();
	mbedtls_pk_init(&g.key);
	mbedtls_x509_crt_init(&g.ca);
	mbedtls_x509_csr_init(&g.csr);
	rc = parse_key(&g.key, ca_key);
	if (rc == 0)
		rc = parse_cert(&g.ca, ca_cert);
	if (rc != 0)
		rc = failed(e, rc, "read the CA");
	else if ((rc = parse_request(&g.csr, csr_pem)) != 0)
		rc = failed(e, rc, "read the certificate request");
	else
		rc = sign(&g, common_name, cluster, days, ret_cert, e);
	mbedtls_x509_csr_free(&g.csr);
	mbedtls_x509_crt_free(&g.ca);
	mbedtls_pk_free(&g.key);
	return rc;
}

int net_pki_fingerprint(const struct buf *cert_pem, char ret[65], struct err *e)
{
	mbedtls_x509_crt cert;
	unsigned char hash[32];
	int rc;

	mbedtls_x509_crt_init(&cert);
	rc = parse_cert(&cert, cert_pem);
	if (rc == 0)
#if MBEDTLS_VERSION_MAJOR >= 3
		rc = mbedtls_sha256(cert.raw.p, cert.raw.len, hash, 0);
#else
		rc = mbedtls_sha256_ret(cert.raw.p, cert.raw.len, hash, 0);
#endif
	mbedtls_x509_crt_free(&cert);
	if (rc != 0)
		return failed(e, rc, "read the certificate");
	for (size_t i = 0; i < sizeof hash; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", hash[i]);
	return 0;
}
