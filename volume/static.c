/* SPDX-License-Identifier: Apache-2.0
 * The changes of a volume's row: the table of VOLUME-PROTOCOL, section 1. */
#include "volume/static_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char static_propose_help[] =
	"  node N DIR [HOST:PORT]          node N has its folder at DIR, and hears other engines at HOST:PORT\n"
	"  create NAME SIZE N[,N...]       a volume of SIZE bytes (or 512MiB, 4GiB): primary first, the others join\n"
	"  takeover NAME N [confirmed]     N leads; the old primary stays in sync only if it confirmed its stop\n"
	"  cold NAME N[,N...]              all in-sync members lost power: N leads, the others named stay in sync\n"
	"  force NAME N                    N leads though it is not in sync: DATA IS LOST\n"
	"  grow NAME SIZE                  the volume gets larger, while it is used\n"
	"  remove NAME N                   N leaves the in-sync set\n"
	"  member NAME +N | -N             N gets a replica, or gives it up\n"
	"  show                            the store as it is\n";

static struct static_volume *find(struct static_store *s, const char *name, struct err *e)
{
	for (size_t i = 0; i < s->n_volumes; i++)
		if (strcmp(s->volumes[i].name, name) == 0)
			return &s->volumes[i];
	(void)err_set(e, -ENOENT, "there is no volume '%s'", name);
	return NULL;
}

static struct volume_member *member(struct static_volume *v, node_id_t node, struct err *e)
{
	for (size_t i = 0; i < v->row.n_members; i++)
		if (v->row.members[i].node == node)
			return &v->row.members[i];
	(void)err_set(e, -EINVAL, "%s: node %u has no replica", v->name, node);
	return NULL;
}

static void next_epoch(struct volume_row *r)
{
	r->epoch++;
	r->version++;
}

/* ---- what an engine asks for ---- */

struct asked {
	const char *volume;
	node_id_t from;
	const struct volume_change *c;
};

static int remove_member(struct static_volume *v, struct volume_member *m, struct err *e)
{
	if (!m->in_sync || m->node == v->row.primary)
		return err_set(e, -EINVAL, "%s: node %u is %s", v->name, m->node,
			       m->in_sync ? "the primary: let another take over" : "not in sync");
	m->in_sync = false;
	next_epoch(&v->row);
	return 0;
}

static int change(void *ctx, struct static_store *s, struct err *e)
{
	const struct asked *a = ctx;
	struct static_volume *v = find(s, a->volume, e);
	struct volume_member *m;

	if (!v)
		return -ENOENT;
	if (v->row.epoch != a->c->epoch || v->row.primary != a->from)
		return err_set(e, -EAGAIN, "%s: epoch %u is over", a->volume, a->c->epoch);
	if (a->c->kind == VOLUME_BUMP) {
		next_epoch(&v->row);
		return 0;
	}
	m = member(v, a->c->node, e);
	if (!m)
		return -EINVAL;
	if (a->c->kind == VOLUME_REMOVE)
		return remove_member(v, m, e);
	if (m->in_sync)
		return err_set(e, -EINVAL, "%s: node %u is in sync already", a->volume, m->node);
	if (m->reported != a->c->incarnation) /* that replica was exchanged, or lost power, meanwhile */
		return err_set(e, -EINVAL, "%s: node %u reported another incarnation", a->volume, m->node);
	m->in_sync = true;
	m->incarnation = a->c->incarnation;
	next_epoch(&v->row);
	return 0;
}

int static_change(const char *path, const char *volume, node_id_t from, const struct volume_change *c, struct err *e)
{
	struct asked a = {volume, from, c};

	return static_transaction(path, false, change, &a, e);
}

struct report {
	const char *volume;
	node_id_t node;
	const uint8_t *replica;
	uint64_t incarnation, size;
};

static int report(void *ctx, struct static_store *s, struct err *e)
{
	static const uint8_t none[VOLUME_ID_BYTES];
	const struct report *r = ctx;
	struct static_volume *v = find(s, r->volume, e);
	struct volume_member *m = v ? member(v, r->node, e) : NULL;
	bool other;

	if (!m)
		return -ENOENT;
	other = memcmp(m->replica, r->replica, VOLUME_ID_BYTES) != 0;
	if (other && m->in_sync && memcmp(m->replica, none, VOLUME_ID_BYTES) != 0)
		return err_set(e, -ESTALE, "%s: the replica here is not the one that is in sync: its data is lost",
			       r->volume);
	memcpy(m->replica, r->replica, VOLUME_ID_BYTES);
	m->reported = r->incarnation;
	m->size = r->size;
	if (m->in_sync && m->incarnation == 0) /* CREATE: its first opening */
		m->incarnation = r->incarnation;
	v->row.version++;
	return 0;
}

int static_report(const char *path, const char *volume, node_id_t node, const uint8_t replica[VOLUME_ID_BYTES],
		  uint64_t incarnation, uint64_t size, struct err *e)
{
	struct report r = {volume, node, replica, incarnation, size};

	return static_transaction(path, false, report, &r, e);
}

/* ---- what a leader or an administrator does ---- */

struct words {
	int n;
	char **v;
};

static int number(const char *text, node_id_t *ret, struct err *e)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || n < 1 || n > NODES_MAX)
		return err_set(e, -EINVAL, "'%.40s' is no node (1 to %d)", text, NODES_MAX);
	*ret = (node_id_t)n;
	return 0;
}

/* "1,3,2". Returns how many, or a negative errno. */
static int numbers(const char *text, node_id_t ret[VOLUME_MEMBERS_MAX], struct err *e)
{
	char copy[64], *word, *rest = copy;
	int n = 0, rc;

	if (strlen(text) >= sizeof copy)
		return err_set(e, -EINVAL, "'%.40s...' is no list of nodes", text);
	memcpy(copy, text, strlen(text) + 1);
	while ((word = strsep(&rest, ","))) {
		if (n == 3)
			return err_set(e, -EINVAL, "a volume has at most three replicas");
		rc = number(word, &ret[n], e);
		if (rc < 0)
			return rc;
		for (int i = 0; i < n; i++)
			if (ret[i] == ret[n])
				return err_set(e, -EINVAL, "node %u is named twice", ret[n]);
		n++;
	}
	return n;
}

static int size_of(const char *text, uint64_t *ret, struct err *e)
{
	static const struct {
		const char *unit;
		unsigned shift;
	} units[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		if (strcmp(end, units[i].unit) != 0 || text[0] < '0' || text[0] > '9' || errno)
			continue;
		if (n > VOLUME_SIZE_MAX >> units[i].shift || !volume_size_is_valid(n << units[i].shift))
			break;
		*ret = n << units[i].shift;
		return 0;
	}
	return err_set(e, -EINVAL, "'%.40s' is no size of a volume: a multiple of %u bytes up to 64TiB, as in 512MiB",
		       text, VOLUME_SECTOR_BYTES);
}

static bool has_node(const struct static_store *s, node_id_t node)
{
	for (size_t i = 0; i < s->n_nodes; i++)
		if (s->nodes[i].node == node)
			return true;
	return false;
}

static int do_node(const struct words *w, struct static_store *s, struct err *e)
{
	struct static_node n = {0};
	size_t i = 0;
	int rc = number(w->v[1], &n.node, e);

	if (rc < 0)
		return rc;
	if (w->v[2][0] != '/' || strlen(w->v[2]) >= sizeof n.dir || strpbrk(w->v[2], " \t\n"))
		return err_set(e, -EINVAL, "'%.60s' must be an absolute path without blanks", w->v[2]);
	memcpy(n.dir, w->v[2], strlen(w->v[2]));
	if (w->n > 3 && (strlen(w->v[3]) >= sizeof n.address || strpbrk(w->v[3], " \t\n")))
		return err_set(e, -EINVAL, "'%.60s' is no HOST:PORT", w->v[3]);
	if (w->n > 3)
		memcpy(n.address, w->v[3], strlen(w->v[3]));
	while (i < s->n_nodes && s->nodes[i].node != n.node)
		i++;
	if (i == STATIC_NODES_MAX)
		return err_set(e, -EINVAL, "there are %d nodes already", STATIC_NODES_MAX);
	s->nodes[i] = n;
	s->n_nodes += i == s->n_nodes;
	return 0;
}

static int do_create(const struct words *w, struct static_store *s, struct err *e)
{
	struct static_volume v = {0};
	node_id_t nodes[VOLUME_MEMBERS_MAX];
	uint64_t size = 0;
	int n = numbers(w->v[3], nodes, e), rc = n < 0 ? n : size_of(w->v[2], &size, e);

	if (rc < 0)
		return rc;
	if (!name_is_valid(w->v[1]))
		return err_set(e, -EINVAL, "'%.60s' is no name", w->v[1]);
	if (static_volume_find(s, w->v[1]))
		return err_set(e, -EEXIST, "there is a volume '%s'", w->v[1]);
	if (s->n_volumes == STATIC_VOLUMES_MAX)
		return err_set(e, -EINVAL, "there are %d volumes already", STATIC_VOLUMES_MAX);
	memcpy(v.name, w->v[1], strlen(w->v[1]));
	random_bytes(v.id, sizeof v.id);
	v.row = (struct volume_row){
		.version = 1, .size = size, .epoch = 1, .primary = nodes[0], .primary_since = 1, .vm_epoch = 1};
	for (int i = 0; i < n; i++) {
		if (!has_node(s, nodes[i]))
			return err_set(e, -EINVAL, "there is no node %u (propose 'node %u DIR' first)", nodes[i],
				       nodes[i]);
		v.row.members[i] = (struct volume_member){.node = nodes[i], .in_sync = i == 0};
	}
	v.row.n_members = (size_t)n;
	s->volumes[s->n_volumes++] = v;
	return 0;
}

static void lead(struct volume_row *r, node_id_t node)
{
	next_epoch(r);
	r->primary = node;
	r->primary_since = r->vm_epoch = r->epoch;
}

/* "NAME N": a volume, and its member on a node. */
static int member_named(const struct words *w, struct static_store *s, struct static_volume **ret_v,
			struct volume_member **ret_m, struct err *e)
{
	struct static_volume *v = find(s, w->v[1], e);
	node_id_t node = 0;

	if (!v)
		return -ENOENT;
	if (number(w->v[2], &node, e) < 0)
		return -EINVAL;
	*ret_v = v;
	*ret_m = member(v, node, e);
	return *ret_m ? 0 : -EINVAL;
}

static int do_takeover(const struct words *w, struct static_store *s, struct err *e)
{
	struct static_volume *v;
	struct volume_member *m, *old;
	int rc = member_named(w, s, &v, &m, e);

	if (rc < 0)
		return rc;
	if (!m->in_sync)
		return err_set(e, -EINVAL, "%s: node %u is not in sync (force would lose data)", v->name, m->node);
	if (w->n > 3 && strcmp(w->v[3], "confirmed") != 0)
		return err_set(e, -EINVAL, "'%.40s': only 'confirmed' may stand here", w->v[3]);
	old = member(v, v->row.primary, NULL);
	if (old && old != m && w->n == 3)
		old->in_sync = false;
	lead(&v->row, m->node);
	return 0;
}

static bool is_lost(const struct volume_member *m)
{
	return m->reported != 0 && m->reported != m->incarnation;
}

static int do_cold(const struct words *w, struct static_store *s, struct err *e)
{
	struct static_volume *v = find(s, w->v[1], e);
	node_id_t nodes[VOLUME_MEMBERS_MAX];
	int n = v ? numbers(w->v[2], nodes, e) : -EINVAL;

	if (n < 0)
		return n;
	for (size_t i = 0; i < v->row.n_members; i++)
		if (v->row.members[i].in_sync && !is_lost(&v->row.members[i])) /* V27 */
			return err_set(
				e, -EINVAL,
				"%s: node %u is in sync and did not report a power loss: takeover, or wait for it",
				v->name, v->row.members[i].node);
	for (int i = 0; i < n; i++) {
		struct volume_member *m = member(v, nodes[i], e);

		if (!m || !m->in_sync)
			return err_set(e, -EINVAL, "%s: node %u is not in sync", v->name, nodes[i]);
	}
	for (size_t i = 0; i < v->row.n_members; i++) {
		struct volume_member *m = &v->row.members[i];
		bool named = false;

		for (int k = 0; k < n; k++)
			named |= nodes[k] == m->node;
		m->in_sync = named;
		if (named)
			m->incarnation = m->reported;
	}
	lead(&v->row, nodes[0]);
	v->row.cold = v->row.epoch;
	return 0;
}

static int do_force(const struct words *w, struct static_store *s, struct err *e)
{
	struct static_volume *v;
	struct volume_member *m;
	int rc = member_named(w, s, &v, &m, e);

	if (rc < 0)
		return rc;
	if (m->in_sync) /* V31 */
		return err_set(e, -EINVAL, "%s: node %u is in sync: takeover loses nothing", v->name, m->node);
	if (m->reported == 0)
		return err_set(e, -EINVAL, "%s: node %u never opened its replica", v->name, m->node);
	for (size_t i = 0; i < v->row.n_members; i++)
		v->row.members[i].in_sync = &v->row.members[i] == m;
	m->incarnation = m->reported;
	lead(&v->row, m->node);
	v->row.fork = v->row.epoch;
	return 0;
}

static int do_grow(const struct words *w, struct static_store *s, struct err *e)
{
	struct static_volume *v = find(s, w->v[1], e);
	uint64_t size = 0;
	int rc = v ? size_of(w->v[2], &size, e) : -ENOENT;

	if (rc < 0)
		return rc;
	if (size <= v->row.size)
		return err_set(e, -EINVAL, "%s: it has %llu bytes already, and never shrinks", v->name,
			       (unsigned long long)v->row.size);
	v->row.grow_to = size;
	v->row.version++;
	return 0;
}

static int do_remove(const struct words *w, struct static_store *s, struct err *e)
{
	struct static_volume *v;
	struct volume_member *m;
	int rc = member_named(w, s, &v, &m, e);

	return rc < 0 ? rc : remove_member(v, m, e);
}

static const char *why_not_add(const struct static_store *s, const struct static_volume *v,
			       const struct volume_member *m, node_id_t node)
{
	if (m)
		return "has a replica";
	if (!has_node(s, node))
		return "is not known";
	return v->row.n_members == 3 ? "would be a fourth" : NULL;
}

static const char *why_not_drop(const struct volume_member *m)
{
	if (!m)
		return "has no replica";
	return m->in_sync ? "is in sync: remove it first" : NULL;
}

static int do_member(const struct words *w, struct static_store *s, struct err *e)
{
	struct static_volume *v = find(s, w->v[1], e);
	bool adds = w->v[2][0] == '+';
	struct volume_member *m;
	node_id_t node = 0;
	const char *why;

	if (!v)
		return -ENOENT;
	if (!adds && w->v[2][0] != '-')
		return err_set(e, -EINVAL, "'%.40s' must be +N or -N", w->v[2]);
	if (number(w->v[2] + 1, &node, e) < 0)
		return -EINVAL;
	m = member(v, node, NULL);
	why = adds ? why_not_add(s, v, m, node) : why_not_drop(m);
	if (why)
		return err_set(e, -EINVAL, "%s: node %u %s", v->name, node, why);
	if (adds)
		v->row.members[v->row.n_members++] = (struct volume_member){.node = node};
	else
		*m = v->row.members[--v->row.n_members];
	v->row.version++;
	return 0;
}

static const struct {
	const char *word;
	int min, max; /* words, itself included */
	int (*fn)(const struct words *w, struct static_store *s, struct err *e);
} commands[] = {
	{"node", 3, 4, do_node},     {"create", 4, 4, do_create}, {"takeover", 3, 4, do_takeover},
	{"cold", 3, 3, do_cold},     {"force", 3, 3, do_force},   {"remove", 3, 3, do_remove},
	{"member", 3, 3, do_member}, {"grow", 3, 3, do_grow},
};

static int propose(void *ctx, struct static_store *s, struct err *e)
{
	const struct words *w = ctx;

	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].word, w->v[0]) == 0 && w->n >= commands[i].min && w->n <= commands[i].max)
			return commands[i].fn(w, s, e);
	return err_set(e, -EINVAL, "'%.40s' with %d words is no change (see --help)", w->v[0], w->n);
}

static int show(const char *path, struct err *e)
{
	struct buf b = {0};
	int rc = file_read(path, 1u << 20, &b, e);

	if (rc == 0)
		(void)fwrite(b.data, 1, b.len, stdout);
	buf_free(&b);
	return rc;
}

int static_propose(const char *path, int argc, char **argv, struct err *e)
{
	struct words w = {argc, argv};

	if (argc == 1 && strcmp(argv[0], "show") == 0)
		return show(path, e);
	return static_transaction(path, argc > 0 && strcmp(argv[0], "node") == 0, propose, &w, e);
}
