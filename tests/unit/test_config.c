/* SPDX-License-Identifier: Apache-2.0
 * kedge.conf: every key and default is taken as written, and every mistake is refused in one line with its place. */
#include "agent/config.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NODE "[node]\nid = 3\nname = n3\ncluster = c1\nlisten = 10.0.0.3:7443\n"

struct fixture {
	char dir[64];
	char path[96];
	struct config config;
	struct err e;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);

	(void)snprintf(f->dir, sizeof f->dir, "/tmp/kedge-config-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	(void)snprintf(f->path, sizeof f->path, "%s/kedge.conf", f->dir);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)unlink(f->path);
	(void)rmdir(f->dir);
	free(f);
	return 0;
}

static int load_bytes(struct fixture *f, const void *p, size_t n)
{
	assert_int_equal(file_replace(f->path, p, n, 0600, NULL), 0);
	f->e = (struct err){0};
	return config_load(f->path, &f->config, &f->e);
}

static int load(struct fixture *f, const char *text)
{
	return load_bytes(f, text, strlen(text));
}

static void good(struct fixture *f, const char *text)
{
	if (load(f, text) != 0)
		fail_msg("refused: %s", f->e.text);
}

/* @line 0: the mistake is that something is missing, so it has no line. */
static void refused_bytes(struct fixture *f, const void *p, size_t n, int line, const char *what)
{
	char place[128];
	struct config before;

	memset(&f->config, 0x5a, sizeof f->config);
	before = f->config;
	if (load_bytes(f, p, n) >= 0)
		fail_msg("taken, but should be refused: %s", what);
	if (line > 0)
		(void)snprintf(place, sizeof place, "%s:%d: ", f->path, line);
	else
		(void)snprintf(place, sizeof place, "%s: ", f->path);
	if (strncmp(f->e.text, place, strlen(place)) != 0 || !strstr(f->e.text, what))
		fail_msg("'%s' names not '%s' at '%s'", f->e.text, what, place);
	for (const char *c = f->e.text; *c; c++)
		assert_true((unsigned char)*c >= ' ');
	assert_memory_equal(&before, &f->config, sizeof before);
}

static void refused(struct fixture *f, const char *text, int line, const char *what)
{
	refused_bytes(f, text, strlen(text), line, what);
}

static void defaults(void **state)
{
	struct fixture *f = *state;
	const struct config *c = &f->config;
	char want[PATH_BYTES_MAX];

	good(f, NODE);
	assert_int_equal(c->id, 3);
	assert_string_equal(c->name, "n3");
	assert_string_equal(c->cluster, "c1");
	assert_string_equal(c->listen, "10.0.0.3:7443");
	assert_string_equal(c->zone, "");
	assert_string_equal(c->dir, f->dir);
	assert_ptr_equal(c->timing, &timing_lan);
	assert_string_equal(c->accel, "auto");
	assert_int_equal(c->level, LOG_LEVEL_INFO);
	(void)snprintf(want, sizeof want, "qemu:///embed?root=%s/libvirt", f->dir);
	assert_string_equal(c->uri, want);
	(void)snprintf(want, sizeof want, "%s/pki/ca.crt", f->dir);
	assert_string_equal(c->ca, want);
	(void)snprintf(want, sizeof want, "%s/pki/node.crt", f->dir);
	assert_string_equal(c->cert, want);
	(void)snprintf(want, sizeof want, "%s/pki/node.key", f->dir);
	assert_string_equal(c->key, want);
}

/* What is not the default stands on kedge-vol's command line. */
static void engine_options(void **state)
{
	static const char *const want[] = {"--direct",         "--resync-rate=0", "--scrub-rate=8",
					   "--scrub-every=90", "--memory=2048",   "--volume-memory=33"};
	struct fixture *f = *state;

	good(f, NODE "[volumes]\ndirect = yes\nresync-rate = unlimited\nscrub-rate = 8MiB\nscrub-every = 90d\n"
		     "memory = 2GiB\nvolume-memory = 33MiB\n");
	assert_int_equal(f->config.n_engine_options, ARRAY_LEN(want));
	for (size_t i = 0; i < ARRAY_LEN(want); i++)
		assert_string_equal(f->config.engine_options[i], want[i]);
	good(f, NODE "[volumes]\ndirect = no\nscrub-every = never\n");
	assert_int_equal(f->config.n_engine_options, 1);
	assert_string_equal(f->config.engine_options[0], "--scrub-every=0");
}

static void every_key(void **state)
{
	struct fixture *f = *state;
	const struct config *c = &f->config;
	char want[PATH_BYTES_MAX];

	good(f, NODE "zone = rack-1\n[tls]\nca = my/ca.pem\ncert = /etc/c.pem\nkey = k.pem\n[timing]\nprofile = lan\n"
		     "[hypervisor]\nuri = qemu:///system\naccel = tcg\n[volumes]\n[log]\nlevel = debug\n");
	assert_string_equal(c->zone, "rack-1");
	(void)snprintf(want, sizeof want, "%s/my/ca.pem", f->dir);
	assert_string_equal(c->ca, want);
	assert_string_equal(c->cert, "/etc/c.pem");
	(void)snprintf(want, sizeof want, "%s/k.pem", f->dir);
	assert_string_equal(c->key, want);
	assert_string_equal(c->uri, "qemu:///system");
	assert_string_equal(c->accel, "tcg");
	assert_int_equal(c->level, LOG_LEVEL_DEBUG);
}

static void every_level_and_accelerator(void **state)
{
	static const char *const levels[] = {"error", "warning", "info", "debug"}, *const accels[] = {"auto", "kvm",
												      "tcg"};
	struct fixture *f = *state;
	char text[256];

	for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
		(void)snprintf(text, sizeof text, NODE "[log]\nlevel = %s\n", levels[i]);
		good(f, text);
		assert_int_equal(f->config.level, i);
	}
	for (size_t i = 0; i < ARRAY_LEN(accels); i++) {
		(void)snprintf(text, sizeof text, NODE "[hypervisor]\naccel = %s\n", accels[i]);
		good(f, text);
		assert_string_equal(f->config.accel, accels[i]);
	}
}

static void as_people_write(void **state)
{
	struct fixture *f = *state;
	char text[1024];

	good(f, "\xef\xbb\xbf; begun by an editor that marks UTF-8\r\n[node]\r\n  id=3\r\n\tname =n3 ; mine\r\n"
		"cluster = c1\r\nlisten = [fd00::3]:7443\r\nzone =\r\n\r\n# \xc3\xbc");
	assert_string_equal(f->config.name, "n3");
	assert_string_equal(f->config.listen, "[fd00::3]:7443");
	assert_string_equal(f->config.zone, "");
	/* what follows # may be as long as it likes, and says nothing: not even at the place where a buffer ends */
	(void)snprintf(text, sizeof text, NODE "# %0199dzone = b\n; %0500d\n", 0, 0);
	good(f, text);
	assert_string_equal(f->config.zone, "");
	/* indented is not "more of the line above" */
	good(f, NODE "  zone = b\n");
	assert_string_equal(f->config.listen, "10.0.0.3:7443");
	assert_string_equal(f->config.zone, "b");
}

static void unknown(void **state)
{
	struct fixture *f = *state;
	char text[256];

	refused(f, NODE "color = red\n", 6, "[node] color = red: there is no such key");
	refused(f, NODE "[colors]\n\nsky = blue\n", 8, "[colors] sky");
	refused(f, "id = 3\n" NODE, 1, "before any [section]");
	refused(f, NODE "[volumes]\nsize = 3\n", 7, "[volumes] size");
	refused(f, "[node]\nID = 3\n", 2, "ID");
	/* longer than the parser's room for a name */
	(void)snprintf(text, sizeof text, NODE "[log%060d]\nlevel = info\n", 0);
	refused(f, text, 7, "level");
}

static void no_key_at_all(void **state)
{
	struct fixture *f = *state;

	refused(f, NODE "just words\n", 6, "key = value");
	refused(f, NODE "[log\nlevel = info\n", 6, "key = value");
	refused(f, NODE "= 3\n", 6, "");
	/* the first mistake is the one that is told */
	refused(f, "[node]\nwords\nid = x\n", 2, "key = value");
	refused(f, "[node]\nid = x\nwords\nid = y\n", 2, "id = x");
}

static void missing(void **state)
{
	struct fixture *f = *state;

	refused(f, "", 0, "[node] id");
	refused(f, "[node]\nid = 3\ncluster = c1\nlisten = 1.2.3.4:5\n", 0, "[node] name");
	refused(f, "[node]\nid = 3\nname = n\nlisten = 1.2.3.4:5\n", 0, "[node] cluster");
	refused(f, "[node]\nid = 3\nname = n\ncluster = c\n", 0, "[node] listen");
}

static void twice(void **state)
{
	struct fixture *f = *state;

	refused(f, NODE "id = 4\n", 6, "[node] id");
	refused(f, NODE "[log]\nlevel = info\n[node]\nzone = a\n[log]\nlevel = info\n", 11, "[log] level");
	refused(f, NODE "zone =\nzone =\n", 7, "[node] zone");
}

static void bad_ids(void **state)
{
	static const char *const bad[] = {"",
					  "0",
					  "65",
					  "-1",
					  "+1",
					  "1 2",
					  "1x",
					  "0x1",
					  "one",
					  "1.0",
					  "18446744073709551617",
					  "-18446744073709551615"};
	struct fixture *f = *state;
	char text[128];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		(void)snprintf(text, sizeof text, "[node]\nid = %s\n", bad[i]);
		refused(f, text, 2, "[node] id");
	}
}

static void bad_values(void **state)
{
	static const struct {
		const char *text, *what;
	} bad[] = {
		{"[node]\nname =", "[node] name"},
		{"[node]\nname = two words", "[node] name"},
		{"[node]\nname = -n", "[node] name"},
		{"[node]\nname = n/../m", "[node] name"},
		{"[node]\nname = n \xc3\xbc", "[node] name"},
		{"[node]\nzone = a,b", "[node] zone"},
		{"[node]\ncluster =", "[node] cluster"},
		{"[node]\ncluster = a b", "[node] cluster"},
		{"[node]\nlisten =", "[node] listen"},
		{"[node]\nlisten = here", "[node] listen"},
		{"[node]\nlisten = 1.2.3.4", "[node] listen"},
		{"[node]\nlisten = 1.2.3.4:0", "[node] listen"},
		{"[node]\nlisten = 1.2.3.4:65536", "[node] listen"},
		{"[node]\nlisten = host:7443", "IP address"},
		{"[tls]\nca =", "[tls] ca"},
		{"[tls]\ncert =", "[tls] cert"},
		{"[tls]\nkey =", "[tls] key"},
		{"[volumes]\nreplace-after = 9s", "from 10s up"},
		{"[volumes]\nreplace-after = 0s", "from 10s up"},
		{"[volumes]\nreplace-after = soon", "from 10s up"},
		{"[volumes]\ndirect = maybe", "yes or no"},
		{"[volumes]\nresync-rate = 64", "or unlimited"},
		{"[volumes]\nresync-rate = 0MiB", "or unlimited"},
		{"[volumes]\nscrub-rate = -1MiB", "or unlimited"},
		{"[volumes]\nscrub-rate = 1000000MiB", "or unlimited"},
		{"[volumes]\nscrub-rate = 999999GiB", "or unlimited"},
		{"[volumes]\nscrub-every = 36h", "whole days"},
		{"[volumes]\nscrub-every = 0d", "whole days"},
		{"[volumes]\nmemory = 32MiB", "from 33MiB up"},
		{"[volumes]\nvolume-memory = unlimited", "from 33MiB up"},
		{"[hypervisor]\nuri =", "[hypervisor] uri"},
		{"[hypervisor]\naccel = KVM", "expected auto, kvm or tcg"},
		{"[hypervisor]\naccel =", "expected auto, kvm or tcg"},
		{"[log]\nlevel = 7", "expected error, warning, info or debug"},
		{"[log]\nlevel =", "expected error, warning, info or debug"},
		{"[timing]\nprofile = wan", "expected lan"},
		{"[timing]\nprofile =", "expected lan"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		refused(f, bad[i].text, 2, bad[i].what);
}

static void too_long(void **state)
{
	static const char *const keys[] = {"[node]\nname",   "[node]\nzone", "[node]\ncluster",
					   "[node]\nlisten", "[tls]\nca",    "[hypervisor]\naccel"};
	struct fixture *f = *state;
	char text[600], name[2 * NAME_BYTES_MAX];

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		(void)snprintf(text, sizeof text, "%s = %0400d\n", keys[i], 1);
		refused(f, text, 2, "bytes");
	}
	/* the last that fits and the first that does not */
	memset(name, 'n', sizeof name);
	(void)snprintf(text, sizeof text, "[node]\nid = 3\ncluster = c\nlisten = 1.2.3.4:5\nname = %.*s\n",
		       NAME_BYTES_MAX - 1, name);
	good(f, text);
	assert_int_equal(strlen(f->config.name), NAME_BYTES_MAX - 1);
	(void)snprintf(text, sizeof text, "[node]\nname = %.*s\n", NAME_BYTES_MAX, name);
	refused(f, text, 2, "[node] name");
	(void)snprintf(text, sizeof text, "[node]\nlisten = [%.*s]:1\n", ADDRESS_BYTES_MAX, name);
	refused(f, text, 2, "[node] listen");
	(void)snprintf(text, sizeof text, "[node]\ncluster = %.40s\n", name);
	refused(f, text, 2, "[node] cluster");
}

static void no_text(void **state)
{
	static const char nul[] = NODE "zone = a\0b\n", bell[] = NODE "zone = \a\n", in_comment[] = NODE "; \0\n";
	struct fixture *f = *state;
	uint8_t bytes[4096];
	uint32_t seed = 1;

	refused_bytes(f, nul, sizeof nul - 1, 6, "no text");
	refused_bytes(f, bell, sizeof bell - 1, 6, "no text");
	refused_bytes(f, in_comment, sizeof in_comment - 1, 6, "no text");
	for (int round = 0; round < 200; round++) {
		for (size_t i = 0; i < sizeof bytes; i++)
			bytes[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
		assert_true(load_bytes(f, bytes, sizeof bytes) < 0);
		assert_null(strchr(f->e.text, '\n'));
	}
}

static void too_large(void **state)
{
	struct fixture *f = *state;
	struct buf text = {0};

	buf_append(&text, NODE, strlen(NODE));
	while (text.len <= CONF_BYTES_MAX)
		buf_append(&text, "#\n", 2);
	assert_int_equal(load_bytes(f, text.data, text.len), -EFBIG);
	assert_non_null(strstr(f->e.text, f->path));
	assert_int_equal(load_bytes(f, text.data, CONF_BYTES_MAX), 0);
	buf_free(&text);
}

static void no_file(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX + 64];

	assert_int_equal(config_load(f->path, &f->config, &f->e), -ENOENT);
	assert_non_null(strstr(f->e.text, f->path));
	assert_int_equal(config_load("/nowhere/kedge.conf", &f->config, &f->e), -ENOENT);
	assert_int_equal(config_load(f->dir, &f->config, &f->e), -EISDIR);
	memset(path, 'x', sizeof path);
	path[sizeof path - 1] = '\0';
	assert_int_equal(config_load(path, &f->config, &f->e), -ENAMETOOLONG);
	assert_null(strchr(f->e.text, '\n'));
	assert_true(config_load("", &f->config, NULL) < 0);
}

/* The sockets in it could not be bound: it is said here and not by an assertion later. */
static void too_long_a_folder(void **state)
{
	struct fixture *f = *state;
	char dir[192], path[256];

	(void)snprintf(dir, sizeof dir, "%s/%0100d", f->dir, 0);
	(void)snprintf(path, sizeof path, "%s/kedge.conf", dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(file_replace(path, NODE, strlen(NODE), 0600, NULL), 0);
	assert_int_equal(config_load(path, &f->config, &f->e), -ENAMETOOLONG);
	assert_non_null(strstr(f->e.text, dir));
	(void)unlink(path);
	(void)rmdir(dir);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(defaults),        TEST(engine_options), TEST(every_key),     TEST(every_level_and_accelerator),
		TEST(as_people_write), TEST(unknown),        TEST(no_key_at_all), TEST(missing),
		TEST(twice),           TEST(bad_ids),        TEST(bad_values),    TEST(too_long),
		TEST(no_text),         TEST(too_large),      TEST(no_file),       TEST(too_long_a_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
