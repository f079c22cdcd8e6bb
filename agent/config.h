/* SPDX-License-Identifier: Apache-2.0
 * kedge.conf: what this node is and where it listens. docs: the comments that `kedge init` writes into it. */
#ifndef KEDGE_AGENT_CONFIG_H
#define KEDGE_AGENT_CONFIG_H

#include "base/base.h"

#define CONFIG_ENGINE_OPTIONS_MAX 6

struct config {
	char dir[PATH_BYTES_MAX]; /* the folder that kedge.conf lies in, absolute */
	node_id_t id;
	char name[NAME_BYTES_MAX];
	char cluster[40];
	char listen[ADDRESS_BYTES_MAX];
	char zone[NAME_BYTES_MAX];
	char ca[PATH_BYTES_MAX], cert[PATH_BYTES_MAX], key[PATH_BYTES_MAX];
	const struct timing *timing;
	char uri[PATH_BYTES_MAX]; /* "none": this node runs no VMs */
	char accel[8];
	usec_t replace_after;                               /* 0: never */
	uint32_t reconnect;                                 /* seconds */
	char engine_options[CONFIG_ENGINE_OPTIONS_MAX][32]; /* for kedge-vol's command line: what is not the default */
	size_t n_engine_options;
	usec_t keep_files; /* that nothing refers to; 0: for ever */
	enum log_level level;
};

/* [any] Read and check @path. Every mistake is refused in one line with the file, the line and what is allowed.
 * -EINVAL, or the errno of reading the file. */
int config_load(const char *path, struct config *ret, struct err *e) KEDGE_MUST_CHECK;

#endif
