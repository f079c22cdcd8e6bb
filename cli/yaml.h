/* SPDX-License-Identifier: Apache-2.0
 * Resource files: YAML documents, several to a file, checked before anything is sent. */
#ifndef KEDGE_CLI_YAML_H
#define KEDGE_CLI_YAML_H

#include "base/base.h"

/* A volume, or a disk of a VM. */
struct yaml_volume {
	char name[NAME_BYTES_MAX]; /* of a disk */
	uint64_t size;
	uint32_t replicas;          /* 0: not said */
	char image[NAME_BYTES_MAX]; /* it is filled from; "": none */
	bool has_nodes;             /* said, if only that there are none */
	size_t n_nodes;             /* that shall have a replica */
	char nodes[REPLICAS_MAX][NAME_BYTES_MAX];
};

/* A VM or a volume as a document says it; paths are absolute. */
struct yaml_document {
	bool is_volume;
	struct yaml_volume volume;
	size_t n_disks;
	struct yaml_volume disks[VM_DISKS_MAX];
	char name[NAME_BYTES_MAX];
	uint32_t vcpus;
	uint64_t memory_bytes;
	bool run;
	char kernel[PATH_BYTES_MAX];
	char initrd[PATH_BYTES_MAX];
	char cmdline[CMDLINE_BYTES_MAX];
	char user_data[PATH_BYTES_MAX]; /* files for cloud-init */
	char meta_data[PATH_BYTES_MAX];
	uint32_t priority;
	char where[PATH_BYTES_MAX + 40]; /* FILE:LINE:COLUMN of the document */
};

/* [any] Read the documents in @text (of the file called @file; paths in it are relative to @folder) into a malloc()ed
 * array. On a mistake -EINVAL, and @e says FILE:LINE:COLUMN: what, why. Files that a running VM needs must be there,
 * and those for cloud-init. */
int yaml_read(const char *file, const char *folder, const struct buf *text, struct yaml_document **ret, size_t *ret_n,
	      struct err *e) KEDGE_MUST_CHECK;

#endif
