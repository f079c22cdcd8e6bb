/* SPDX-License-Identifier: Apache-2.0
 * The kernels and initrds that documents name. */
#include "cli/apply_files.h"

#include "cli/upload.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPIES_WANTED 2

const char *apply_files_digest(const struct apply_file *files, const char *path)
{
	for (; files->path[0]; files++)
		if (strcmp(files->path, path) == 0)
			return files->digest;
	return NULL;
}

static int add(struct apply_file *files, size_t *n, const char *path, struct err *e)
{
	int rc;

	if (path[0] == '\0' || apply_files_digest(files, path) || access(path, R_OK) < 0)
		return 0;
	rc = upload_digest(path, files[*n].digest, e);
	if (rc == 0)
		memcpy(files[(*n)++].path, path, strlen(path) + 1);
	return rc;
}

static int send_file(const struct args *args, const struct apply_file *file, struct err *e)
{
	struct upload u = {.label = file->path};
	struct rpc_answer answer = {0};
	char digest[DIGEST_BYTES_MAX];
	int rc = upload_open(file->path, &u.file, e);

	if (rc < 0)
		return rc;
	rc = upload_send(args, &u, &answer, e);
	(void)fclose(u.file);
	if (rc < 0)
		(void)err_wrap(e, rc, "send %.200s", file->path);
	else if (strcmp(text_of(answer.result, "digest", digest, sizeof digest), file->digest) != 0)
		rc = err_set(e, PROTO_E_CONFLICT, "%.200s changed while it was read: try again", file->path);
	rpc_free(&answer);
	return rc;
}

static int send_missing(const struct args *args, struct apply_file *files, size_t n, struct err *e)
{
	const char **digests = xcalloc(n, sizeof *digests);
	uint64_t *copies = xcalloc(n, sizeof *copies), nodes;
	int rc;

	for (size_t i = 0; i < n; i++)
		digests[i] = files[i].digest;
	rc = upload_copies(args, digests, n, copies, &nodes, e);
	for (size_t i = 0; i < n && rc == 0; i++) {
		files[i].sent = copies[i] == 0;
		if (files[i].sent)
			rc = send_file(args, &files[i], e);
	}
	free(copies);
	free(digests);
	return rc;
}

void apply_files_wait(const struct args *args, const struct apply_file *files)
{
	const char **digests;
	size_t n = 0, all = 0;

	while (files[all].path[0])
		all++;
	digests = xcalloc(all + 1, sizeof *digests);
	for (size_t i = 0; i < all; i++)
		if (files[i].sent)
			digests[n++] = files[i].digest;
	if (n > 0 && !upload_wait(args, digests, n, COPIES_WANTED))
		(void)fprintf(stderr,
			      "kedge: kernels and initrds are on one node only as yet: while it is down, their VMs "
			      "do not start\n");
	free(digests);
}

int apply_files_send(const struct args *args, const struct yaml_document *docs, size_t n, struct apply_file **ret,
		     struct err *e)
{
	struct apply_file *files = xcalloc(2 * n + 1, sizeof *files);
	size_t count = 0;
	int rc = 0;

	*ret = files;
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = add(files, &count, docs[i].kernel, e);
		if (rc == 0)
			rc = add(files, &count, docs[i].initrd, e);
	}
	if (rc == 0 && count > 0 && !args->dry_run)
		rc = send_missing(args, files, count, e);
	return rc;
}
