/* SPDX-License-Identifier: Apache-2.0
 * Static mode: a file that stands for the cluster's store. Each line is a node, a volume or a member; every change is a
 * compare-and-set under a lock, written aside and renamed; all engines watch it.
 *
 * Everything is [worker] (it blocks on the file), unless it says otherwise. */
#ifndef KEDGE_VOLUME_STATIC_H
#define KEDGE_VOLUME_STATIC_H

#include "volume/core.h"

#define STATIC_VOLUMES_MAX 256
#define STATIC_NODES_MAX   8

struct static_node {
	node_id_t node;
	char dir[PATH_BYTES_MAX];
	char address[ADDRESS_BYTES_MAX]; /* of its end for other engines, "" for none */
};

struct static_volume {
	char name[NAME_BYTES_MAX];
	uint8_t id[VOLUME_ID_BYTES];
	struct volume_row row;
};

struct static_store {
	size_t n_nodes, n_volumes;
	struct static_node nodes[STATIC_NODES_MAX];
	struct static_volume volumes[STATIC_VOLUMES_MAX];
};

/* Read @path. The result is free()d. -EBADMSG: a line makes no sense, named by its number; -ENOENT; or another errno.
 */
int static_read(const char *path, struct static_store **ret, struct err *e) KEDGE_MUST_CHECK;

/* [any] NULL: not there. */
const struct static_volume *static_volume_find(const struct static_store *s, const char *name);
/* [any] The node whose folder is @dir (the same file, however it is written); NULL: none. */
const struct static_node *static_node_of(const struct static_store *s, const char *dir);

/* What the engine of node @from asks for. 0; -EAGAIN: the epoch is another one by now; -EINVAL: the rules of section 1
 * forbid it; or the errno of the file. */
int static_change(const char *path, const char *volume, node_id_t from, const struct volume_change *change,
		  struct err *e) KEDGE_MUST_CHECK;

/* REPORT: the engine of @node opened its replica, whose files have room for @size bytes. A replica id and, for the
 * first primary, an incarnation that are not known yet are taken over. */
int static_report(const char *path, const char *volume, node_id_t node, const uint8_t replica[VOLUME_ID_BYTES],
		  uint64_t incarnation, uint64_t size, struct err *e) KEDGE_MUST_CHECK;

/* What the leader or an administrator does: `kedge-vol --propose FILE WORDS...`. -EINVAL with the grammar or with the
 * rule that forbids it; nothing was changed then. The file is made where it is missing. */
int static_propose(const char *path, int argc, char **argv, struct err *e) KEDGE_MUST_CHECK;

/* The grammar of the words, for --help. */
extern const char static_propose_help[];

#endif
