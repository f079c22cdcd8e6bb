/* SPDX-License-Identifier: Apache-2.0
 * The static store's file: its lines, its lock. */
#include "volume/static_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (1u << 20)
#define HEADER         "kedge-vol static store 1\n"

/* ---- writing ---- */

static void put_volume(const struct static_volume *v, struct buf *ret)
{
	char id[VOLUME_ID_TEXT];

	volume_id_text(v->id, id);
	buf_printf(ret,
		   "volume %s id %s size %" PRIu64 " version %" PRIu64
		   " epoch %u primary %u since %u fork %u cold %u vm %u grow %" PRIu64 "\n",
		   v->name, id, v->row.size, v->row.version, v->row.epoch, v->row.primary, v->row.primary_since,
		   v->row.fork, v->row.cold, v->row.vm_epoch, v->row.grow_to);
	for (size_t i = 0; i < v->row.n_members; i++) {
		const struct volume_member *m = &v->row.members[i];

		volume_id_text(m->replica, id);
		buf_printf(ret,
			   "member %s node %u replica %s in-sync %u incarnation %016" PRIx64 " reported %016" PRIx64
			   " room %" PRIu64 "\n",
			   v->name, m->node, id, m->in_sync, m->incarnation, m->reported, m->size);
	}
}

int static_write(const char *path, const struct static_store *s, struct err *e)
{
	struct buf b = {0};
	int rc;

	buf_printf(&b, HEADER);
	for (size_t i = 0; i < s->n_nodes; i++)
		buf_printf(&b, "node %u dir %s address %s\n", s->nodes[i].node, s->nodes[i].dir,
			   s->nodes[i].address[0] ? s->nodes[i].address : "-");
	for (size_t i = 0; i < s->n_volumes; i++)
		put_volume(&s->volumes[i], &b);
	rc = file_replace(path, b.data, b.len, 0600, e);
	buf_free(&b);
	return rc;
}

/* ---- reading ---- */

static bool read_node(const char *line, struct static_store *s)
{
	struct static_node n = {0};
	int end = 0;

	if (s->n_nodes == STATIC_NODES_MAX)
		return false;
	if (sscanf(line, "node %" SCNu32 " dir %1023s address %71s%n", &n.node, n.dir, n.address, &end) != 3 ||
	    line[end])
		return false;
	if (strcmp(n.address, "-") == 0)
		n.address[0] = '\0';
	s->nodes[s->n_nodes++] = n;
	return n.node >= 1 && n.node <= NODES_MAX;
}

static bool read_volume(const char *line, struct static_store *s)
{
	struct static_volume v = {0};
	struct volume_row *r = &v.row;
	char id[VOLUME_ID_TEXT];
	int end = 0;

	if (s->n_volumes == STATIC_VOLUMES_MAX)
		return false;
	if (sscanf(line,
		   "volume %63s id %32s size %" SCNu64 " version %" SCNu64 " epoch %" SCNu32 " primary %" SCNu32
		   " since %" SCNu32 " fork %" SCNu32 " cold %" SCNu32 " vm %" SCNu32 " grow %" SCNu64 "%n",
		   v.name, id, &r->size, &r->version, &r->epoch, &r->primary, &r->primary_since, &r->fork, &r->cold,
		   &r->vm_epoch, &r->grow_to, &end) != 11 ||
	    line[end])
		return false;
	if (!name_is_valid(v.name) || !volume_id_parse(id, v.id) || !volume_size_is_valid(r->size))
		return false;
	s->volumes[s->n_volumes++] = v;
	return true;
}

static bool read_member(const char *line, struct static_store *s)
{
	struct static_volume *v = s->n_volumes ? &s->volumes[s->n_volumes - 1] : NULL;
	struct volume_member m = {0};
	char name[NAME_BYTES_MAX], id[VOLUME_ID_TEXT];
	unsigned in_sync;
	int end = 0;

	if (sscanf(line,
		   "member %63s node %" SCNu32 " replica %32s in-sync %u incarnation %" SCNx64 " reported %" SCNx64
		   " room %" SCNu64 "%n",
		   name, &m.node, id, &in_sync, &m.incarnation, &m.reported, &m.size, &end) != 7 ||
	    line[end])
		return false;
	if (!v || strcmp(v->name, name) != 0 || v->row.n_members == VOLUME_MEMBERS_MAX || in_sync > 1 || m.node < 1 ||
	    m.node > NODES_MAX || !volume_id_parse(id, m.replica))
		return false;
	m.in_sync = in_sync;
	v->row.members[v->row.n_members++] = m;
	return true;
}

static bool read_line(const char *line, struct static_store *s)
{
	if (strncmp(line, "node ", 5) == 0)
		return read_node(line, s);
	if (strncmp(line, "volume ", 7) == 0)
		return read_volume(line, s);
	if (strncmp(line, "member ", 7) == 0)
		return read_member(line, s);
	return false;
}

static int parse(const char *path, char *text, struct static_store *s, struct err *e)
{
	unsigned number = 1;

	if (strncmp(text, HEADER, strlen(HEADER)) != 0)
		return err_set(e, -EBADMSG, "%s: not a static store of this version", path);
	for (char *line = text + strlen(HEADER), *end; *line; line = end + 1) {
		number++;
		end = strchr(line, '\n');
		if (!end)
			return err_set(e, -EBADMSG, "%s:%u: the line does not end", path, number);
		*end = '\0';
		if (!read_line(line, s))
			return err_set(e, -EBADMSG, "%s:%u: makes no sense: %.60s", path, number, line);
	}
	return 0;
}

int static_read(const char *path, struct static_store **ret, struct err *e)
{
	struct static_store *s = xcalloc(1, sizeof *s);
	struct buf b = {0};
	int rc = file_read(path, FILE_BYTES_MAX, &b, e);

	if (rc == 0) {
		buf_append(&b, "", 1);
		rc = strlen((char *)b.data) + 1 == b.len ? parse(path, (char *)b.data, s, e)
							 : err_set(e, -EBADMSG, "%s: has zero bytes", path);
	}
	buf_free(&b);
	if (rc < 0) {
		free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

/* ---- finding ---- */

const struct static_volume *static_volume_find(const struct static_store *s, const char *name)
{
	for (size_t i = 0; i < s->n_volumes; i++)
		if (strcmp(s->volumes[i].name, name) == 0)
			return &s->volumes[i];
	return NULL;
}

const struct static_node *static_node_of(const struct static_store *s, const char *dir)
{
	struct stat mine, st;

	if (stat(dir, &mine) < 0)
		return NULL;
	for (size_t i = 0; i < s->n_nodes; i++)
		if (stat(s->nodes[i].dir, &st) == 0 && st.st_dev == mine.st_dev && st.st_ino == mine.st_ino)
			return &s->nodes[i];
	return NULL;
}

/* ---- changing ---- */

static int lock(const char *path, struct err *e)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return err_set(e, -errno, "lock '%s': %s", path, strerror(errno));
	do
		rc = flock(fd, LOCK_EX);
	while (rc < 0 && errno == EINTR);
	if (rc < 0) {
		rc = err_set(e, -errno, "lock '%s': %s", path, strerror(errno));
		(void)close(fd);
		return rc;
	}
	return fd;
}

/* It has the larger size as soon as all that are in sync have room for it. */
static void try_to_grow(struct volume_row *r)
{
	for (size_t i = 0; i < r->n_members; i++)
		if (r->members[i].in_sync && r->members[i].size < r->grow_to)
			return;
	if (r->grow_to > r->size) {
		r->size = r->grow_to;
		r->epoch++;
	}
	r->grow_to = 0;
}

/* The lock is a file of its own, since the store's is replaced. */
int static_transaction(const char *path, bool may_make, static_change_fn fn, void *ctx, struct err *e)
{
	char name[PATH_BYTES_MAX];
	struct static_store *s = NULL;
	int fd, rc;

	if (strlen(path) + 6 > sizeof name)
		return err_set(e, -ENAMETOOLONG, "%s: the path is too long", path);
	(void)snprintf(name, sizeof name, "%s.lock", path);
	fd = lock(name, e);
	if (fd < 0)
		return fd;
	rc = static_read(path, &s, e);
	if (rc == -ENOENT && may_make) {
		s = xcalloc(1, sizeof *s);
		rc = 0;
	}
	if (rc == 0)
		rc = fn(ctx, s, e);
	for (size_t i = 0; rc == 0 && i < s->n_volumes; i++)
		try_to_grow(&s->volumes[i].row); /* what changed may have been what it waited for */
	if (rc == 0)
		rc = static_write(path, s, e);
	free(s);
	(void)close(fd);
	return rc;
}
