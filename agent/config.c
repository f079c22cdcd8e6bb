/* SPDX-License-Identifier: Apache-2.0
 * kedge.conf by libinih: every key is known, every value checked, before anything is started.
 *
 * libinih is handed one line at a time, so that a mistake has its line, an indented line is no "more of the value
 * above", and a line that is longer than its buffer is refused instead of read as two.
 */
#include "agent/config.h"

#include "net/net.h"

#include <errno.h>
#include <ini.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define REPLACE_AFTER_MIN (10 * USEC_PER_SEC)
#define SOCKET_PATH_BYTES sizeof(((struct sockaddr_un *)0)->sun_path)

struct reading {
	struct config *config;
	const char *path;
	const uint8_t *rest; /* of the file */
	size_t rest_bytes;
	int line;
	uint32_t seen; /* a bit for each of keys[] */
	struct err *e;
	int rc; /* negative after the first mistake: nothing more is read then */
};

struct key;

/* As libinih has it: 0 when the value was refused. */
typedef int (*setter)(struct reading *r, const struct key *k, const char *value);

struct key {
	const char *section;
	const char *name;
	setter set;
	size_t offset; /* the field of struct config, for those that are texts */
	size_t size;
	bool is_required;
};

/* ---- mistakes ---- */

static int refuse(struct reading *r, const struct key *k, const char *value, const char *why)
{
	r->rc = err_set(r->e, -EINVAL, "%.200s:%d: [%s] %s = %.80s: %s", r->path, r->line, k->section, k->name, value,
			why);
	return 0;
}

static int refuse_line(struct reading *r, const char *why)
{
	r->rc = err_set(r->e, -EINVAL, "%.200s:%d: %s", r->path, r->line, why);
	return 0;
}

/* ---- values ---- */

static int set_text(struct reading *r, const struct key *k, const char *value)
{
	size_t n = strlen(value);
	char why[64];

	if (n == 0)
		return refuse(r, k, value, "it must not be empty");
	if (n >= k->size) {
		(void)snprintf(why, sizeof why, "it is longer than %zu bytes", k->size - 1);
		return refuse(r, k, value, why);
	}
	memcpy((char *)r->config + k->offset, value, n + 1);
	return 1;
}

static int set_name(struct reading *r, const struct key *k, const char *value)
{
	if (!name_is_valid(value))
		return refuse(r, k, value,
			      "expected at most 63 letters, digits, '.', '_' and '-', beginning with a letter or "
			      "digit");
	return set_text(r, k, value);
}

static int set_zone(struct reading *r, const struct key *k, const char *value)
{
	return value[0] == '\0' ? 1 : set_name(r, k, value);
}

static int set_address(struct reading *r, const struct key *k, const char *value)
{
	struct err e = {0};

	if (net_address_check(value, &e) < 0)
		return refuse(r, k, value, e.text);
	return set_text(r, k, value);
}

/* Relative to the file's folder. */
static int set_path(struct reading *r, const struct key *k, const char *value)
{
	char text[PATH_BYTES_MAX];

	if (value[0] == '\0' || value[0] == '/')
		return set_text(r, k, value);
	if ((size_t)snprintf(text, sizeof text, "%s/%s", r->config->dir, value) >= sizeof text)
		return refuse(r, k, value, "the whole path is too long");
	return set_text(r, k, text);
}

static int set_accel(struct reading *r, const struct key *k, const char *value)
{
	if (strcmp(value, "auto") != 0 && strcmp(value, "kvm") != 0 && strcmp(value, "tcg") != 0)
		return refuse(r, k, value, "expected auto, kvm or tcg");
	return set_text(r, k, value);
}

static int set_id(struct reading *r, const struct key *k, const char *value)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(value, &end, 10);
	if (errno || value[0] < '0' || value[0] > '9' || *end || v < 1 || v > NODES_MAX)
		return refuse(r, k, value, "expected the node's number, as 'kedge init' or 'kedge join' wrote it");
	r->config->id = (node_id_t)v;
	return 1;
}

static int set_level(struct reading *r, const struct key *k, const char *value)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], value) == 0) {
			r->config->level = (enum log_level)i;
			return 1;
		}
	return refuse(r, k, value, "expected error, warning, info or debug");
}

/* "30s", "30m", "2h", "1d". 0: it is no time. */
static usec_t time_of(const char *value)
{
	static const struct {
		char unit;
		unsigned seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(value, &end, 10);
	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (!errno && value[0] >= '0' && value[0] <= '9' && end[0] == units[i].unit && !end[1] && n >= 1 &&
		    n <= 10000)
			return n * units[i].seconds * USEC_PER_SEC;
	return 0;
}

/* "never" is 0. */
static int set_time(struct reading *r, const struct key *k, const char *value)
{
	usec_t *field = (usec_t *)(void *)((char *)r->config + k->offset);

	*field = time_of(value);
	if (*field || strcmp(value, "never") == 0)
		return 1;
	return refuse(r, k, value, "expected a time such as 30m, 2h or 1d, or never");
}

/* A node whose agent is upgraded or hangs shortly shall not have its replicas copied. */
static int set_replace(struct reading *r, const struct key *k, const char *value)
{
	usec_t after = time_of(value);

	r->config->replace_after = after;
	if (after >= REPLACE_AFTER_MIN || (after == 0 && strcmp(value, "never") == 0))
		return 1;
	return refuse(r, k, value, "expected a time from 10s up such as 30m, 2h or 1d, or never");
}

static int set_reconnect(struct reading *r, const struct key *k, const char *value)
{
	usec_t delay = time_of(value);

	r->config->reconnect = (uint32_t)(delay / USEC_PER_SEC);
	if (delay <= 3600 * USEC_PER_SEC && (delay || strcmp(value, "never") == 0))
		return 1;
	return refuse(r, k, value, "expected a time up to 1h such as 60s or 5m, or never");
}

/* ---- what kedge-vol is started with: its options have the keys' names ---- */

static int engine_option(struct reading *r, const struct key *k, uint64_t n)
{
	struct config *c = r->config;

	CHECK(c->n_engine_options < CONFIG_ENGINE_OPTIONS_MAX);
	(void)snprintf(c->engine_options[c->n_engine_options++], sizeof c->engine_options[0], "--%s=%llu", k->name,
		       (unsigned long long)n);
	return 1;
}

/* "64MiB" or "2GiB", in MiB. 0: it is no such amount, or none below a million. */
static uint64_t mib_of(const char *value)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(value, &end, 10);
	if (errno || value[0] < '0' || value[0] > '9' || n >= 1000000)
		return 0;
	if (strcmp(end, "GiB") == 0)
		n <<= 10;
	else if (strcmp(end, "MiB") != 0)
		return 0;
	return n < 1000000 ? n : 0;
}

static int set_rate(struct reading *r, const struct key *k, const char *value)
{
	uint64_t n = mib_of(value);

	if (n == 0 && strcmp(value, "unlimited") != 0)
		return refuse(r, k, value, "expected an amount each second such as 64MiB or 1GiB, or unlimited");
	return engine_option(r, k, n);
}

static int set_memory(struct reading *r, const struct key *k, const char *value)
{
	uint64_t n = mib_of(value);

	if (n < ENGINE_MEMORY_MIN_MIB)
		return refuse(r, k, value, "expected an amount from 33MiB up such as 64MiB or 1GiB");
	return engine_option(r, k, n);
}

static int set_days(struct reading *r, const struct key *k, const char *value)
{
	usec_t every = time_of(value), day = 86400 * USEC_PER_SEC;

	if (every % day != 0 || (every == 0 && strcmp(value, "never") != 0))
		return refuse(r, k, value, "expected whole days such as 30d, or never");
	return engine_option(r, k, every / day);
}

static int set_direct(struct reading *r, const struct key *k, const char *value)
{
	struct config *c = r->config;

	if (strcmp(value, "no") == 0)
		return 1;
	if (strcmp(value, "yes") != 0)
		return refuse(r, k, value, "expected yes or no");
	CHECK(c->n_engine_options < CONFIG_ENGINE_OPTIONS_MAX);
	(void)snprintf(c->engine_options[c->n_engine_options++], sizeof c->engine_options[0], "--%s", k->name);
	return 1;
}

/* A configuration that breaks the inequality of the takeover would break P2: it is refused here. */
static int set_profile(struct reading *r, const struct key *k, const char *value)
{
	r->config->timing = timing_by_name(value);
	if (!r->config->timing || !timing_is_safe(r->config->timing))
		return refuse(r, k, value, "expected lan");
	return 1;
}

/* ---- keys ---- */

#define FIELD(field) offsetof(struct config, field), sizeof(((struct config *)0)->field)

static const struct key keys[] = {
	{"node", "id", set_id, FIELD(id), true},
	{"node", "name", set_name, FIELD(name), true},
	{"node", "cluster", set_name, FIELD(cluster), true},
	{"node", "listen", set_address, FIELD(listen), true},
	{"node", "zone", set_zone, FIELD(zone), false},
	{"tls", "ca", set_path, FIELD(ca), false},
	{"tls", "cert", set_path, FIELD(cert), false},
	{"tls", "key", set_path, FIELD(key), false},
	{"timing", "profile", set_profile, FIELD(timing), false},
	{"hypervisor", "uri", set_text, FIELD(uri), false},
	{"hypervisor", "accel", set_accel, FIELD(accel), false},
	{"volumes", "replace-after", set_replace, FIELD(replace_after), false},
	{"volumes", "reconnect", set_reconnect, FIELD(reconnect), false},
	{"volumes", "direct", set_direct, 0, 0, false},
	{"volumes", "resync-rate", set_rate, 0, 0, false},
	{"volumes", "scrub-rate", set_rate, 0, 0, false},
	{"volumes", "scrub-every", set_days, 0, 0, false},
	{"volumes", "memory", set_memory, 0, 0, false},
	{"volumes", "volume-memory", set_memory, 0, 0, false},
	{"images", "keep-unused", set_time, FIELD(keep_files), false},
	{"log", "level", set_level, FIELD(level), false},
};
_Static_assert(ARRAY_LEN(keys) <= 32, "struct reading has a bit for each");

static int key_cb(void *ctx, const char *section, const char *name, const char *value)
{
	const struct key unknown = {.section = section, .name = name};
	struct reading *r = ctx;

	if (section[0] == '\0')
		return refuse_line(r, "a key before any [section]");
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (strcmp(section, keys[i].section) != 0 || strcmp(name, keys[i].name) != 0)
			continue;
		if (r->seen & 1u << i)
			return refuse(r, &keys[i], value, "the key was there already");
		r->seen |= 1u << i;
		return keys[i].set(r, &keys[i], value);
	}
	return refuse(r, &unknown, value, "there is no such key");
}

/* ---- lines ---- */

static bool is_text(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((p[i] < ' ' && p[i] != '\t') || p[i] == 0x7f)
			return false;
	return true;
}

/* Take the next line off the rest: without its end, its indentation, and without a comment's words. */
static const uint8_t *next_line(struct reading *r, size_t *ret_n)
{
	const uint8_t *at = r->rest, *end = memchr(at, '\n', r->rest_bytes);
	size_t n = end ? (size_t)(end - at) : r->rest_bytes;

	r->rest += n + (end != NULL);
	r->rest_bytes -= n + (end != NULL);
	r->line++;
	if (n > 0 && at[n - 1] == '\r')
		n--;
	if (!is_text(at, n)) {
		(void)refuse_line(r, "bytes that are no text");
		return NULL;
	}
	for (; n > 0 && (*at == ' ' || *at == '\t'); n--)
		at++;
	*ret_n = n > 0 && (*at == ';' || *at == '#') ? 0 : n;
	return at;
}

static char *line_cb(char *ret, int size, void *ctx)
{
	struct reading *r = ctx;
	const uint8_t *at;
	char why[64];
	size_t n;

	if (r->rc < 0 || r->rest_bytes == 0)
		return NULL;
	at = next_line(r, &n);
	if (!at)
		return NULL;
	if (n >= (size_t)size) {
		(void)snprintf(why, sizeof why, "a line longer than %d bytes", size - 1);
		(void)refuse_line(r, why);
		return NULL;
	}
	memcpy(ret, at, n);
	ret[n] = '\0';
	return ret;
}

/* ---- the whole ---- */

/* A folder whose name is too long for the sockets in it is refused here, where it can be said. */
static int find_folder(struct config *c, const char *path, struct err *e)
{
	char copy[PATH_MAX], real[PATH_MAX];

	if ((size_t)snprintf(copy, sizeof copy, "%s", path) >= sizeof copy)
		return err_set(e, -ENAMETOOLONG, "read '%.200s...': the path is too long", path);
	if (!realpath(dirname(copy), real))
		return err_set(e, -errno, "read '%.200s': %s", path, strerror(errno));
	if (strlen(real) + sizeof "/run/guard.sock" > SOCKET_PATH_BYTES)
		return err_set(e, -ENAMETOOLONG, "read '%.200s': its folder's path is longer than %zu bytes", path,
			       SOCKET_PATH_BYTES - sizeof "/run/guard.sock");
	memcpy(c->dir, real, strlen(real) + 1);
	return 0;
}

static void defaults(struct config *c)
{
	c->timing = &timing_lan;
	c->level = LOG_LEVEL_INFO;
	c->replace_after = 3600 * USEC_PER_SEC;
	c->reconnect = 60;
	c->keep_files = 600 * USEC_PER_SEC;
	memcpy(c->accel, "auto", sizeof "auto");
	(void)snprintf(c->uri, sizeof c->uri, "qemu:///embed?root=%.900s/libvirt", c->dir);
	(void)snprintf(c->ca, sizeof c->ca, "%.900s/pki/ca.crt", c->dir);
	(void)snprintf(c->cert, sizeof c->cert, "%.900s/pki/node.crt", c->dir);
	(void)snprintf(c->key, sizeof c->key, "%.900s/pki/node.key", c->dir);
}

static int parse(struct reading *r)
{
	int line = ini_parse_stream(line_cb, r, key_cb, r); /* that of the first mistake, if it was told of one */

	if (line > 0 && (r->rc == 0 || line < r->line))
		return err_set(r->e, -EINVAL, "%.200s:%d: neither a [section] nor key = value", r->path, line);
	if (line < 0)
		return err_set(r->e, -ENOMEM, "read '%.200s': out of memory", r->path);
	for (size_t i = 0; i < ARRAY_LEN(keys) && r->rc == 0; i++)
		if (keys[i].is_required && !(r->seen & 1u << i))
			r->rc = err_set(r->e, -EINVAL, "%.200s: [%s] %s is missing", r->path, keys[i].section,
					keys[i].name);
	return r->rc;
}

int config_load(const char *path, struct config *ret, struct err *e)
{
	struct config config = {0};
	struct reading r = {.config = &config, .path = path, .e = e};
	struct buf text = {0};
	int rc = find_folder(&config, path, e);

	if (rc == 0)
		rc = file_read(path, CONF_BYTES_MAX, &text, e);
	if (rc == 0) {
		defaults(&config);
		r.rest = text.data;
		r.rest_bytes = text.len;
		rc = parse(&r);
	}
	buf_free(&text);
	if (rc == 0)
		*ret = config;
	return rc;
}
