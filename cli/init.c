/* SPDX-License-Identifier: Apache-2.0
 * kedge init: a new cluster's CA, its first node, its first administrator. */
#include "cli/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CERT_DAYS 3650

struct founding {
	struct buf ca_key, ca_cert, node_key, node_cert, admin_key, admin_cert;
	char cluster[40];
};

static int make_certificate(struct founding *f, const char *name, struct buf *ret_key, struct buf *ret_cert,
			    struct err *e)
{
	struct buf request = {0};
	int rc = net_pki_make_request(name, ret_key, &request, e);

	if (rc == 0)
		rc = net_pki_sign(&f->ca_key, &f->ca_cert, &request, name, f->cluster, CERT_DAYS, ret_cert, e);
	buf_free(&request);
	return rc;
}

static int make_all(struct founding *f, struct err *e)
{
	int rc;

	random_uuid(f->cluster);
	rc = net_pki_make_ca(f->cluster, &f->ca_key, &f->ca_cert, e);
	if (rc == 0)
		rc = make_certificate(f, "node:1", &f->node_key, &f->node_cert, e);
	if (rc == 0)
		rc = make_certificate(f, "admin:root", &f->admin_key, &f->admin_cert, e);
	return rc < 0 ? PROTO_E_INTERNAL : 0;
}

static int write_admin_and_mark(const struct founding *f, const char *dir, const char *cluster_name, struct err *e)
{
	char path[PATH_BYTES_MAX + 32];
	struct buf mark = {0};
	int rc;

	(void)snprintf(path, sizeof path, "%.1000s/pki/admin.crt", dir);
	rc = file_replace(path, f->admin_cert.data, f->admin_cert.len, 0644, e);
	(void)snprintf(path, sizeof path, "%.1000s/pki/admin.key", dir);
	if (rc == 0)
		rc = file_replace(path, f->admin_key.data, f->admin_key.len, 0600, e);
	buf_printf(&mark, "cluster=%s\nname=%s\n", f->cluster, cluster_name);
	(void)snprintf(path, sizeof path, "%.1000s/bootstrap", dir);
	if (rc == 0)
		rc = file_replace(path, mark.data, mark.len, 0600, e);
	buf_free(&mark);
	return rc < 0 ? PROTO_E_INVALID : 0;
}

static void print_done(const struct args *args, const struct founding *f)
{
	if (args->json)
		(void)printf("{\n  \"cluster\": \"%s\",\n  \"node\": \"%s\",\n  \"dir\": \"%s\"\n}\n", f->cluster,
			     args->name, args->dir);
	else
		(void)printf("cluster %s: the first node, %s, is ready in %s\n"
			     "  start it:       kedged --config %s/kedge.conf\n"
			     "  let others in:  KEDGE_DIR=%s kedge token\n"
			     "  keep a copy of %s/pki safe: whoever has ca.key and admin.key owns the cluster\n",
			     f->cluster, args->name, args->dir, args->dir, args->dir, args->dir);
}

int command_init(const struct args *args, struct err *e)
{
	const char *cluster_name = args->cluster ? args->cluster : "kedge";
	struct founding f = {0};
	struct node_files files = {.dir = args->dir,
				   .name = args->name,
				   .listen = args->listen,
				   .zone = args->zone,
				   .cluster = f.cluster,
				   .id = 1,
				   .ca_cert = &f.ca_cert,
				   .ca_key = &f.ca_key,
				   .cert = &f.node_cert,
				   .key = &f.node_key};
	int rc = node_files_check(&files, e);

	if (rc < 0)
		return rc;
	if (strlen(cluster_name) >= NAME_BYTES_MAX || strchr(cluster_name, '\n'))
		rc = err_set(e, PROTO_E_INVALID, "--cluster: at most %d letters", NAME_BYTES_MAX - 1);
	if (rc == 0)
		rc = make_all(&f, e);
	if (rc == 0)
		rc = write_admin_and_mark(&f, args->dir, cluster_name, e);
	if (rc == 0)
		rc = node_files_write(&files, e);
	if (rc < 0)
		node_files_remove(args->dir);
	else
		print_done(args, &f);
	buf_free(&f.ca_key);
	buf_free(&f.ca_cert);
	buf_free(&f.node_key);
	buf_free(&f.node_cert);
	buf_free(&f.admin_key);
	buf_free(&f.admin_cert);
	return rc;
}
