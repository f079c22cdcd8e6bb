/* SPDX-License-Identifier: Apache-2.0
 * Sending files to the cluster. */
#ifndef KEDGE_CLI_UPLOAD_H
#define KEDGE_CLI_UPLOAD_H

#include "cli/command.h"

#include <stdio.h>

struct upload {
	const char *label; /* for the human */
	FILE *file;
	const char *image; /* the name of the image that it becomes; NULL: only a file */
	uint64_t copies;   /* of an image */
};

/* [worker] Send it to the agent that the options name; progress goes to stderr where that is a terminal. What is cut
 * off leaves nothing behind. */
int upload_send(const struct args *args, const struct upload *u, struct rpc_answer *ret, struct err *e);

/* [worker] On how many nodes is each of these files? @ret_nodes: how many could have it. */
int upload_copies(const struct args *args, const char *const *digests, size_t n, uint64_t *ret, uint64_t *ret_nodes,
		  struct err *e) KEDGE_MUST_CHECK;

/* [worker] Wait a while until each file is on @wanted nodes, or on all: what only one node has is lost with it. Returns
 * whether they are. */
bool upload_wait(const struct args *args, const char *const *digests, size_t n, uint64_t wanted);

/* [worker] Open @path, a regular file. */
int upload_open(const char *path, FILE **ret, struct err *e) KEDGE_MUST_CHECK;

/* [worker] SHA-256 of the file. */
int upload_digest(const char *path, char ret[DIGEST_BYTES_MAX], struct err *e) KEDGE_MUST_CHECK;

#endif
