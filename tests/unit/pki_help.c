/* SPDX-License-Identifier: Apache-2.0
 * Certificates for tests. */
#include "tests/unit/pki_help.h"

#include "net/net.h"

#include <stdio.h>

static void write_pem(const char *dir, const char *name, const char *suffix, struct buf *pem)
{
	char path[512];

	CHECK(snprintf(path, sizeof path, "%s/%s.%s", dir, name, suffix) < (int)sizeof path);
	CHECK(file_replace(path, pem->data, pem->len, 0600, NULL) == 0);
	buf_free(pem);
}

static void read_pem(const char *dir, const char *name, const char *suffix, struct buf *ret)
{
	char path[512];

	CHECK(snprintf(path, sizeof path, "%s/%s.%s", dir, name, suffix) < (int)sizeof path);
	CHECK(file_read(path, 65536, ret, NULL) == 0);
}

void pki_ca(const char *dir, const char *name, const char *cluster)
{
	struct buf key = {0}, cert = {0};

	CHECK(net_pki_make_ca(cluster, &key, &cert, NULL) == 0);
	write_pem(dir, name, "key", &key);
	write_pem(dir, name, "crt", &cert);
}

void pki_identity(const char *dir, const char *ca, const char *common_name, const char *cluster, const char *name)
{
	struct buf ca_key = {0}, ca_cert = {0}, key = {0}, request = {0}, cert = {0};

	read_pem(dir, ca, "key", &ca_key);
	read_pem(dir, ca, "crt", &ca_cert);
	CHECK(net_pki_make_request("whatever", &key, &request, NULL) == 0);
	CHECK(net_pki_sign(&ca_key, &ca_cert, &request, common_name, cluster, 30, &cert, NULL) == 0);
	write_pem(dir, name, "key", &key);
	write_pem(dir, name, "crt", &cert);
	buf_free(&ca_key);
	buf_free(&ca_cert);
	buf_free(&request);
}
