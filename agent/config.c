/* SPDX-License-Identifier: Apache-2.0
 * kedge.conf by libinih: every key is known, every value checked, before anything is started. */
#include "agent/config.h"

#include <errno.h>
#include <ini.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reading {
	struct config *config;
	const char *path;
	struct err *e;
	int rc;
};

struct key {
	const char *section;
	const char *name;
	size_t offset;
	size_t size;
	bool is_path; /* relative to the file's folder */
};

#define KEY(section, name, field, is_path)                                                                  \
	{                                                                                                   \
		section, name, offsetof(struct config, field), sizeof(((struct config *)0)->field), is_path \
	}

static const struct key keys[] = {
	KEY("node", "name", name, false),
	KEY("node", "cluster", cluster, false),
	KEY("node", "listen", listen, false),
	KEY("node", "zone", zone, false),
	KEY("tls", "ca", ca, true),
	KEY("tls", "cert", cert, true),
	KEY("tls", "key", key, true),
	KEY("hypervisor", "uri", uri, false),
	KEY("hypervisor", "accel", accel, false),
};

static int refuse(struct reading *r, const char *section, const char *name, const char *why)
{
	r->rc = err_set(r->e, -EINVAL, "%s: [%s] %s: %s", r->path, section, name, why);
	return 0;
}

static int set_text(struct reading *r, const struct key *k, const char *value)
{
	char text[2 * PATH_BYTES_MAX];
	bool is_relative = k->is_path && value[0] != '/';
	int n = snprintf(text, sizeof text, "%s%s%s", is_relative ? r->config->dir : "", is_relative ? "/" : "", value);

	if (n < 0 || (size_t)n >= k->size)
		return refuse(r, k->section, k->name, "the value is too long");
	memcpy((char *)r->config + k->offset, text, (size_t)n + 1);
	return 1;
}

static int set_id(struct reading *r, const char *value)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(value, &end, 10);
	if (errno || end == value || *end || v < 1 || v > NODES_MAX)
		return refuse(r, "node", "id", "expected the node's number, as 'kedge init' or 'kedge join' wrote it");
	r->config->id = (node_id_t)v;
	return 1;
}

static int set_level(struct reading *r, const char *value)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], value) == 0) {
			r->config->level = (enum log_level)i;
			return 1;
		}
	return refuse(r, "log", "level", "expected error, warning, info or debug");
}

/* A configuration that breaks the inequality of the takeover would break P2: it is refused here. */
static int set_profile(struct reading *r, const char *value)
{
	r->config->timing = timing_by_name(value);
	if (!r->config->timing || !timing_is_safe(r->config->timing))
		return refuse(r, "timing", "profile", "expected lan");
	return 1;
}

static bool is(const char *section, const char *name, const char *wanted_section, const char *wanted)
{
	return strcmp(section, wanted_section) == 0 && strcmp(name, wanted) == 0;
}

static int key_cb(void *ctx, const char *section, const char *name, const char *value)
{
	struct reading *r = ctx;

	if (is(section, name, "node", "id"))
		return set_id(r, value);
	if (is(section, name, "log", "level"))
		return set_level(r, value);
	if (is(section, name, "timing", "profile"))
		return set_profile(r, value);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (is(section, name, keys[i].section, keys[i].name))
			return set_text(r, &keys[i], value);
	return refuse(r, section, name, "there is no such key");
}

static int defaults(struct config *c, const char *path, struct err *e)
{
	char copy[PATH_MAX], real[PATH_MAX];

	memset(c, 0, sizeof *c);
	if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy || !realpath(dirname(copy), real))
		return err_set(e, -errno, "read %s: %s", path, strerror(errno));
	if (strlen(real) + sizeof "/libvirt" >= sizeof c->dir)
		return err_set(e, -ENAMETOOLONG, "read %s: the path is too long", path);
	memcpy(c->dir, real, strlen(real) + 1);
	c->timing = &timing_lan;
	c->level = LOG_LEVEL_INFO;
	memcpy(c->accel, "auto", sizeof "auto");
	(void)snprintf(c->uri, sizeof c->uri, "qemu:///embed?root=%.900s/libvirt", c->dir);
	(void)snprintf(c->ca, sizeof c->ca, "%.900s/pki/ca.crt", c->dir);
	(void)snprintf(c->cert, sizeof c->cert, "%.900s/pki/node.crt", c->dir);
	(void)snprintf(c->key, sizeof c->key, "%.900s/pki/node.key", c->dir);
	return 0;
}

static int check(const struct config *c, const char *path, struct err *e)
{
	if (c->id == 0 || c->name[0] == '\0' || c->cluster[0] == '\0' || c->listen[0] == '\0')
		return err_set(e, -EINVAL, "%s: [node] id, name, cluster and listen must be there", path);
	if (strcmp(c->accel, "auto") != 0 && strcmp(c->accel, "kvm") != 0 && strcmp(c->accel, "tcg") != 0)
		return err_set(e, -EINVAL, "%s: [hypervisor] accel: expected auto, kvm or tcg, not '%s'", path,
			       c->accel);
	return 0;
}

int config_load(const char *path, struct config *ret, struct err *e)
{
	struct reading r = {ret, path, e, 0};
	int rc = defaults(ret, path, e);

	if (rc < 0)
		return rc;
	rc = ini_parse(path, key_cb, &r);
	if (rc < 0)
		return err_set(e, -ENOENT, "read %s: %s", path, strerror(errno));
	if (r.rc < 0)
		return r.rc;
	if (rc > 0)
		return err_set(e, -EINVAL, "%s:%d: neither a [section] nor key = value", path, rc);
	return check(ret, path, e);
}
