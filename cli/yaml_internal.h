/* SPDX-License-Identifier: Apache-2.0
 * What the two files of the reader share: mistakes with their places. */
#ifndef KEDGE_CLI_YAML_INTERNAL_H
#define KEDGE_CLI_YAML_INTERNAL_H

#include "cli/yaml.h"

#include <yaml.h>

struct reader {
	const char *file;
	const char *folder;
	const struct buf *text;
	yaml_document_t *doc;
	struct err *e;
	struct yaml_document *docs;
	size_t n;
};

/* yaml.c: return -EINVAL and say what is wrong, and where. */
int yaml_mistake_at(const struct reader *r, size_t line, size_t column, const char *what);
int yaml_document_read(struct reader *r, const yaml_node_t *root);

#endif
