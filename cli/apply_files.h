/* SPDX-License-Identifier: Apache-2.0
 * The kernels and initrds that documents name: sent to the cluster, unless it has them. */
#ifndef KEDGE_CLI_APPLY_FILES_H
#define KEDGE_CLI_APPLY_FILES_H

#include "cli/command.h"
#include "cli/yaml.h"

/* The last one in an array has no path. */
struct apply_file {
	char path[PATH_BYTES_MAX];
	char digest[DIGEST_BYTES_MAX];
	bool sent; /* now: the cluster did not have it */
};

/* [worker] Read every file that @docs name and send those that the cluster has not; not with --dry-run. A stopped VM's
 * need not be there. @ret: malloc()ed, by whatever it returns. */
int apply_files_send(const struct args *args, const struct yaml_document *docs, size_t n, struct apply_file **ret,
		     struct err *e) KEDGE_MUST_CHECK;

/* [worker] After what names them was applied: wait a while until no node alone has what was sent. */
void apply_files_wait(const struct args *args, const struct apply_file *files);

/* [any] NULL: it was not there. */
const char *apply_files_digest(const struct apply_file *files, const char *path);

#endif
