/* SPDX-License-Identifier: Apache-2.0
 * The kernels and initrds that documents name. */
#include "cli/apply_files.h"

#include "cli/upload.h"

#include <string.h>
#include <unistd.h>

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

static int send_missing(const struct args *args, const struct apply_file *files, size_t n, struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	pack_key(&p, "digests");
	pack_array(&p);
	for (size_t i = 0; i < n; i++)
		pack_str(&p, files[i].digest);
	pack_end(&p);
	rc = ask_read(args, "image.have", &p, &answer, e);
	for (size_t i = 0; i < n && rc == 0; i++) {
		bool have = false;

		(void)unpack_bool(unpack_at(unpack_key(answer.result, "have"), i), &have);
		if (!have)
			rc = send_file(args, &files[i], e);
	}
	rpc_free(&answer);
	return rc;
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
