/* SPDX-License-Identifier: Apache-2.0
 * Resource files: good documents are read as written, and whatever else a file holds is refused in one line with its
 * place, soon and without a crash. */
#include "cli/yaml.h"

#include "cli/size.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define HEAD        "kind: vm\nname: a\n" /* what stands below it begins at line 3 */
#define STOPPED     HEAD "memory: 64MiB\nrun: false\n"
#define REFUSED_MAX (20 * USEC_PER_SEC) /* for hostile files, with sanitizers on a slow machine */

struct fixture {
	char dir[64];
	struct yaml_document *docs;
	size_t n;
	struct err e;
};

static void make_file(const struct fixture *f, const char *name)
{
	char path[128];

	(void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
	assert_int_equal(file_replace(path, "x", 1, 0600, NULL), 0);
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);

	(void)snprintf(f->dir, sizeof f->dir, "/tmp/kedge-yaml-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	make_file(f, "vmlinuz");
	make_file(f, "initrd.img");
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	static const char *const names[] = {"vmlinuz", "initrd.img"};
	struct fixture *f = *state;
	char path[128];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		(void)snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
		(void)unlink(path);
	}
	(void)rmdir(f->dir);
	free(f->docs);
	free(f);
	return 0;
}

static int read_bytes(struct fixture *f, const void *p, size_t n)
{
	struct buf text = {0};
	int rc;

	buf_append(&text, p, n);
	free(f->docs);
	f->docs = NULL;
	f->n = 0;
	f->e = (struct err){0};
	rc = yaml_read("vms.yaml", f->dir, &text, &f->docs, &f->n, &f->e);
	buf_free(&text);
	return rc;
}

static void good(struct fixture *f, const char *text, size_t documents)
{
	if (read_bytes(f, text, strlen(text)) != 0)
		fail_msg("refused: %s", f->e.text);
	assert_int_equal(f->n, documents);
}

static void assert_one_line(const struct fixture *f)
{
	assert_int_equal(strncmp(f->e.text, "vms.yaml:", 9), 0);
	for (const char *c = f->e.text; *c; c++)
		assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
}

static void refused_bytes(struct fixture *f, const void *p, size_t n, const char *place, const char *what)
{
	char start[64];

	if (read_bytes(f, p, n) != -EINVAL)
		fail_msg("taken, but should be refused: %s", what);
	assert_null(f->docs);
	assert_one_line(f);
	(void)snprintf(start, sizeof start, "vms.yaml:%s: ", place);
	if (strncmp(f->e.text, start, strlen(start)) != 0 || !strstr(f->e.text, what))
		fail_msg("'%s' names not '%s' at '%s'", f->e.text, what, place);
}

static void refused(struct fixture *f, const char *text, const char *place, const char *what)
{
	refused_bytes(f, text, strlen(text), place, what);
}

/* ---- what is good ---- */

static void the_least(void **state)
{
	struct fixture *f = *state;
	char path[PATH_BYTES_MAX];

	good(f, HEAD "memory: 64MiB\nboot: {kernel: vmlinuz}\n", 1);
	assert_string_equal(f->docs[0].name, "a");
	assert_int_equal(f->docs[0].vcpus, 1);
	assert_int_equal(f->docs[0].memory_bytes, 64 << 20);
	assert_true(f->docs[0].run);
	assert_int_equal(f->docs[0].priority, 100);
	(void)snprintf(path, sizeof path, "%s/vmlinuz", f->dir);
	assert_string_equal(f->docs[0].kernel, path);
	assert_string_equal(f->docs[0].initrd, "");
	assert_string_equal(f->docs[0].cmdline, "");
	assert_string_equal(f->docs[0].where, "vms.yaml:1:1");
}

static void everything(void **state)
{
	struct fixture *f = *state;
	char text[512], path[PATH_BYTES_MAX];

	(void)snprintf(text, sizeof text,
		       "kind: vm\nname: web-1.b_c\nvcpus: 256\nmemory: 4 GiB\nrun: yes\nboot:\n  kernel: %s/vmlinuz\n"
		       "  initrd: ./initrd.img\n  cmdline: \"console=ttyS0 a=\\\"b\\\"\"\nha: {priority: 1000}\n",
		       f->dir);
	good(f, text, 1);
	assert_string_equal(f->docs[0].name, "web-1.b_c");
	assert_int_equal(f->docs[0].vcpus, 256);
	assert_true(f->docs[0].memory_bytes == 4ULL << 30);
	assert_string_equal(f->docs[0].cmdline, "console=ttyS0 a=\"b\"");
	assert_int_equal(f->docs[0].priority, 1000);
	(void)snprintf(path, sizeof path, "%s/initrd.img", f->dir);
	assert_string_equal(f->docs[0].initrd, path);
}

static void several(void **state)
{
	struct fixture *f = *state;

	good(f,
	     "# two\n---\nkind: vm\nname: b\nmemory: 32MiB\nrun: no\n---\nkind: vm\nname: a\nmemory: 4TiB\nrun: "
	     "no\n...\n",
	     2);
	assert_string_equal(f->docs[0].name, "b");
	assert_string_equal(f->docs[0].where, "vms.yaml:3:1");
	assert_string_equal(f->docs[1].name, "a");
	assert_string_equal(f->docs[1].where, "vms.yaml:8:1");
	assert_false(f->docs[1].run);
}

/* A VM that does not run may name files that are not here. */
static void stopped_needs_no_files(void **state)
{
	struct fixture *f = *state;

	good(f, STOPPED "boot: {kernel: nowhere}\n", 1);
	good(f, STOPPED, 1);
}

static void other_ways_to_write(void **state)
{
	static const char wide[] =
		"\xff\xfek\0i\0n\0d\0:\0 \0v\0m\0\n\0n\0a\0m\0e\0:\0 \0w\0\n\0m\0e\0m\0o\0r\0y\0:\0 \0"
		"1\0G\0B\0\n\0r\0u\0n\0:\0 \0n\0o\0\n\0";
	struct fixture *f = *state;

	good(f, "{\"kind\": \"vm\", \"name\": \"a\", \"memory\": \"67108864\", \"run\": \"false\"}", 1); /* JSON */
	good(f, "kind: vm\r\nname: &n a\r\nmemory: 64MiB\r\nrun: false\r\nboot: {kernel: *n}\r\n", 1);
	good(f, STOPPED "boot:\n  kernel: k\n  cmdline: >\n    console=ttyS0\n    quiet\n", 1);
	assert_string_equal(f->docs[0].cmdline, "console=ttyS0 quiet\n");
	assert_int_equal(read_bytes(f, wide, sizeof wide - 1), 0); /* UTF-16 */
	assert_string_equal(f->docs[0].name, "w");
	assert_int_equal(f->docs[0].memory_bytes, 1000000000);
}

static void sizes(void **state KEDGE_UNUSED)
{
	static const char *const bad[] = {"",
					  "MiB",
					  "-1",
					  "+1",
					  "1 M",
					  "1.5GiB",
					  "0x10",
					  "1mib",
					  "1e9",
					  " 1",
					  "1iB",
					  "1 GiB ",
					  "18446744073709551616",
					  "16777216TiB"};
	uint64_t v = 7;

	assert_true(size_parse("18446744073709551615", &v) && v == UINT64_MAX);
	assert_true(size_parse("3 KiB", &v) && v == 3072);
	assert_true(duration_parse("2d", &v) && v == 172800);
	v = 7;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (size_parse(bad[i], &v))
			fail_msg("'%s' was taken as a size", bad[i]);
	assert_false(duration_parse("1", &v));
	assert_false(duration_parse("300000000000000d", &v));
	assert_int_equal(v, 7); /* untouched on failure */
}

/* ---- mistakes ---- */

static void unknown_keys(void **state)
{
	struct fixture *f = *state;
	struct buf text = {0};

	refused(f, HEAD "memroy: 64MiB\n", "3:1", "no key 'memroy' here: is 'memory' meant?");
	refused(f, HEAD "colour: red\n", "3:1", "no key 'colour'");
	refused(f, HEAD "boot:\n  kernal: x\n", "4:3", "is 'kernel' meant?");
	refused(f, HEAD "ha: {prio: 3}\n", "3:6", "no key 'prio'");
	refused(f, HEAD "<<: {vcpus: 2}\n", "3:1", "no key '<<'");
	refused(f, HEAD "? [a]\n: 1\n", "3:3", "a key must be a word");
	refused(f, HEAD "? \"run\\0\"\n: 1\n", "3:3", "a key must be a word");
	refused(f, HEAD "\"two\\nlines\": 1\n", "3:1", "no key 'two?lines'");
	buf_printf(&text, HEAD "? ");
	while (text.len < YAML_BYTES_MAX)
		buf_append(&text, "kkkkkkkkkkkkkkkk", 16);
	refused_bytes(f, text.data, text.len, "3:3", "no key 'kkk");
	buf_free(&text);
	refused(f, HEAD "disks: {}\n", "3:8", "must be a list");
	refused(f, HEAD "ha:\n  on-quorum-loss: run\n", "4:19", "does not know that part");
}

static void wrong_kinds(void **state)
{
	struct fixture *f = *state;

	refused(f, "kind: volumes\n", "1:7", "expected vm or volume");
	refused(f, "kind: pod\n", "1:7", "no kind 'pod'");
	refused(f, "kind: [vm]\n", "1:7", "expected vm");
	refused(f, "kind: \"vm\\0x\"\n", "1:7", "expected vm");
	refused(f, "name: a\nmemory: 64MiB\nrun: no\n", "1:1", "needs the key 'kind'");
	refused(f, "kind: vm\nmemory: 64MiB\nrun: no\n", "1:1", "needs the key 'name'");
	refused(f, "---\n" HEAD "run: no\n", "2:1", "needs the key 'memory'");
	refused(f, STOPPED "boot: {initrd: x}\n", "5:7", "needs the key 'kernel'");
	refused(f, HEAD "memory: 64MiB\n", "1:1", "needs boot.kernel");
}

static void wrong_types(void **state)
{
	struct fixture *f = *state;

	refused(f, "just a text\n", "1:1", "must be a mapping");
	refused(f, "- kind: vm\n", "1:1", "must be a mapping");
	refused(f, "kind: vm\nname: [a]\n", "2:7", "a name must be a text");
	refused(f, "kind: vm\nname: {a: b}\n", "2:7", "a name must be a text");
	refused(f, HEAD "memory: [64MiB]\n", "3:9", "must be a size");
	refused(f, HEAD "run: 1\n", "3:6", "true or false");
	refused(f, HEAD "run: {a: b}\n", "3:6", "true or false");
	refused(f, HEAD "run: \"true\\0\"\n", "3:6", "true or false");
	refused(f, HEAD "run:\n", "3:5", "true or false");
	refused(f, HEAD "boot: vmlinuz\n", "3:7", "boot must be a mapping");
	refused(f, HEAD "boot:\n", "3:6", "boot must be a mapping");
	refused(f, HEAD "ha: [1]\n", "3:5", "ha must be a mapping");
	refused(f, HEAD "boot: {kernel: [x]}\n", "3:16", "kernel must be a text");
	refused(f, HEAD "boot: {kernel: k, cmdline: {a: b}}\n", "3:28", "cmdline must be a text");
	refused(f, HEAD "boot: {kernel: ''}\n", "3:16", "kernel must not be empty");
}

static void wrong_names(void **state)
{
	static const char *const bad[] = {"''", "-a", "'a b'", "a/b", "..", "\"a\\nb\"", "\xc3\xbc", "~", "\"\\e[1m\""};
	struct fixture *f = *state;
	char text[256];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		(void)snprintf(text, sizeof text, "kind: vm\nname: %s\n", bad[i]);
		refused(f, text, "2:7", "name");
	}
	refused(f, "kind: vm\nname: \"a\\0b\"\n", "2:7", "a name must be a text");
	(void)snprintf(text, sizeof text, "kind: vm\nname: %0*d\n", NAME_BYTES_MAX, 0);
	refused(f, text, "2:7", "longer than 63 bytes");
	(void)snprintf(text, sizeof text, "kind: vm\nname: %0*d\nmemory: 64MiB\nrun: no\n", NAME_BYTES_MAX - 1, 0);
	good(f, text, 1);
}

static void impossible_sizes(void **state)
{
	static const char *const sizes_[] = {"31MiB", "0", "4097GiB", "33554431", "5TiB"},
				 *const no_sizes[] = {"-1GiB", "99999999999999999999", "17000000TiB", "1.5GiB", "lots",
						      "''",    "\"64MiB\\0\"",         "64 MiB x"},
				 *const vcpus[] = {"0",       "257", "-1", "2.5",        "0x2",
						   "two",     "[2]", "''", "4294967297", "99999999999999999999999",
						   "\"2\\0\""},
				 *const priorities[] = {"-1", "1001", "high", "''", "4294967296"};
	struct fixture *f = *state;
	char text[256];

	for (size_t i = 0; i < ARRAY_LEN(sizes_); i++) {
		(void)snprintf(text, sizeof text, HEAD "memory: %s\n", sizes_[i]);
		refused(f, text, "3:9", "memory must be from 32 MiB to 4 TiB");
	}
	for (size_t i = 0; i < ARRAY_LEN(no_sizes); i++) {
		(void)snprintf(text, sizeof text, HEAD "memory: %s\n", no_sizes[i]);
		refused(f, text, "3:9", "memory must be a size");
	}
	for (size_t i = 0; i < ARRAY_LEN(vcpus); i++) {
		(void)snprintf(text, sizeof text, HEAD "vcpus: %s\n", vcpus[i]);
		refused(f, text, "3:8", "vcpus must be a number from 1 to 256");
	}
	for (size_t i = 0; i < ARRAY_LEN(priorities); i++) {
		(void)snprintf(text, sizeof text, HEAD "ha: {priority: %s}\n", priorities[i]);
		refused(f, text, "3:16", "priority must be a number from 0 to 1000");
	}
}

static void duplicates(void **state)
{
	struct fixture *f = *state;

	refused(f, STOPPED "---\n" STOPPED, "7:7", "vm 'a' stands in this file twice");
	refused(f, HEAD "name: b\n", "3:1", "'name' stands here twice");
	refused(f, HEAD "boot: {kernel: a, kernel: b}\n", "3:19", "'kernel' stands here twice");
	refused(f, HEAD "memory: &x 64MiB\nrun: &x false\n", "4:6", "duplicate anchor");
}

static void too_long(void **state)
{
	struct fixture *f = *state;
	struct buf text = {0};

	buf_printf(&text, STOPPED "boot: {kernel: k, cmdline: '%0*d'}\n", CMDLINE_BYTES_MAX - 1, 0);
	assert_int_equal(read_bytes(f, text.data, text.len), 0);
	text.len = 0;
	buf_printf(&text, STOPPED "boot: {kernel: k, cmdline: '%0*d'}\n", CMDLINE_BYTES_MAX, 0);
	refused_bytes(f, text.data, text.len, "5:28", "cmdline is longer than 2047 bytes");
	text.len = 0;
	buf_printf(&text, STOPPED "boot: {kernel: /%0*d}\n", PATH_BYTES_MAX, 0);
	refused_bytes(f, text.data, text.len, "5:16", "kernel is longer than 1023 bytes");
	text.len = 0;
	buf_printf(&text, STOPPED "boot: {kernel: %0*d}\n", PATH_BYTES_MAX - 10, 0);
	refused_bytes(f, text.data, text.len, "5:16", "whole path is longer than 1023 bytes");
	text.len = 0;
	for (int i = 0; i < 300; i++)
		buf_printf(&text, "---\nkind: vm\nname: a%d\nmemory: 64MiB\nrun: no\n", i);
	refused_bytes(f, text.data, text.len, "1282:1", "more than 256 documents");
	buf_free(&text);
}

static void missing_files(void **state)
{
	struct fixture *f = *state;

	refused(f, HEAD "memory: 64MiB\nboot:\n  kernel: nowhere\n", "5:11", "No such file");
	refused(f, HEAD "memory: 64MiB\nboot:\n  kernel: \"no\\nwhere\"\n", "5:11", "/no?where'");
	refused(f, HEAD "memory: 64MiB\nboot:\n  kernel: vmlinuz\n  initrd: x/y\n", "6:11", "initrd '");
	refused(f, HEAD "memory: 64MiB\nboot: {kernel: ../../tmp}\n", "4:16", "no regular file");
	refused(f, HEAD "memory: 64MiB\nboot: {kernel: vmlinuz/x}\n", "4:16", "Not a directory");
}

/* The reason is told however long the file's own name is. */
static void long_file_names(void **state)
{
	struct fixture *f = *state;
	char file[2000];
	struct buf text = {0};

	memset(file, 'f', sizeof file);
	file[sizeof file - 1] = '\0';
	buf_printf(&text, "kind: vm\nname: -\n");
	assert_int_equal(yaml_read(file, f->dir, &text, &f->docs, &f->n, &f->e), -EINVAL);
	assert_non_null(strstr(f->e.text, "fff:2:7: "));
	assert_int_equal(yaml_read(file, f->dir, &text, &f->docs, &f->n, NULL), -EINVAL);
	buf_free(&text);
}

/* ---- no YAML at all ---- */

static void nothing(void **state)
{
	struct fixture *f = *state;

	refused(f, "", "1:1", "no document");
	refused(f, "# a comment\n", "1:1", "no document");
	refused(f, "---\n", "2:1", "must be a mapping");
	refused(f, STOPPED "---\n", "6:1", "must be a mapping");
}

static void no_yaml(void **state)
{
	static const char nul[] = HEAD "run: \0no\n", bytes[] = "kind: vm\n# \xc3\xbc \xff\n", short_[] = "a: \xe2\x82";
	struct fixture *f = *state;

	refused(f, HEAD "run: [\n", "4:1", "this is no YAML");
	refused(f, "kind: vm\n\tname: a\n", "2:1", "this is no YAML");
	refused(f, "kind: vm\nname: \"a\n", "3:1", "this is no YAML");
	refused(f, "kind: vm\nname: a: b\n", "2:8", "this is no YAML");
	refused(f, "kind: *nothing\n", "1:7", "undefined alias");
	refused(f, "kind: \"\\q\"\n", "1:8", "this is no YAML");
	/* what the bytes of the file forbid has a place too */
	refused_bytes(f, nul, sizeof nul - 1, "3:6", "control characters");
	refused_bytes(f, bytes, sizeof bytes - 1, "2:5", "UTF-8");
	refused_bytes(f, short_, sizeof short_ - 1, "1:4", "UTF-8");
	refused(f, "kind: vm\nname: \x01\n", "2:7", "control characters");
	refused(f, "kind: vm\nname: \x1b[1m\n", "2:7", "control characters");
}

/* libvirt takes no such text, and would say so only when the VM starts. */
static void no_control_characters_in_texts(void **state)
{
	struct fixture *f = *state;

	refused(f, STOPPED "boot: {kernel: k, cmdline: \"a\\x01\"}\n", "5:28", "control characters");
	refused(f, STOPPED "boot: {kernel: \"k\\e\"}\n", "5:16", "control characters");
}

static void random_bytes_are_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[2048];
	uint32_t seed = 1;

	for (int round = 0; round < 300; round++) {
		for (size_t i = 0; i < sizeof bytes; i++)
			bytes[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
		assert_int_equal(read_bytes(f, bytes, sizeof bytes), -EINVAL);
		assert_one_line(f);
	}
}

/* A good file with bytes changed, left out and doubled: good or refused, with a place. */
static void changed_files(void **state)
{
	static const char good_text[] =
		STOPPED "vcpus: 2\nboot: &b\n  kernel: \"vmlinuz\"\n  initrd: 'i'\n  cmdline: |\n    a\n"
			"ha: {priority: 3}\n---\n{kind: vm, name: c, memory: 1GiB, run: no}\n";
	static const char marks[] = "[]{}:,-?&*!|>'\"%@`#\n\t \\\0\xff";
	struct fixture *f = *state;
	uint32_t seed = 2;

	for (int round = 0; round < 4000; round++) {
		char text[2 * sizeof good_text];
		size_t n = sizeof good_text - 1;

		memcpy(text, good_text, n);
		for (int changes = 0; changes < 3; changes++) {
			size_t at = ((seed = seed * 1664525 + 1013904223) >> 8) % n;
			size_t mark = ((seed = seed * 1664525 + 1013904223) >> 8) % (sizeof marks - 1);

			if (mark % 3 == 0)
				memmove(text + at, text + at + 1, --n - at);
			else
				text[at] = marks[mark];
		}
		if (read_bytes(f, text, n) < 0)
			assert_one_line(f);
	}
}

/* ---- hostile files: as large as a file may be ---- */

static void refused_soon(struct fixture *f, const char *begin, const char *again, const char *what)
{
	usec_t start = clock_boottime();
	struct buf text = {0};

	buf_append(&text, begin, strlen(begin));
	while (text.len + strlen(again) <= YAML_BYTES_MAX)
		buf_append(&text, again, strlen(again));
	assert_int_equal(read_bytes(f, text.data, text.len), -EINVAL);
	buf_free(&text);
	assert_one_line(f);
	if (!strstr(f->e.text, what))
		fail_msg("'%s' says not '%s'", f->e.text, what);
	assert_true(clock_boottime() - start < REFUSED_MAX);
}

static void too_deep(void **state)
{
	struct fixture *f = *state;

	refused(f, "[[[[[[[[[[[[[[[[[[[[[[[[", "1:17", "nested deeper than 16");
	refused_soon(f, "", "[", "nested deeper than 16");
	refused_soon(f, "", "{", "nested deeper than 16");
	refused_soon(f, "", "[a, ", "nested deeper than 16");
	refused_soon(f, "", "{a: {", "nested deeper than 16");
	refused_soon(f, "", "{? ", "nested deeper than 16");
	refused_soon(f, "", "- ", "nested deeper than 16");
	refused_soon(f, "", "? ", "nested deeper than 16");
	refused_soon(f, HEAD "boot:\n  kernel: ", "[{", "nested deeper than 16");
}

static void huge(void **state)
{
	struct fixture *f = *state;

	refused_soon(f, "- ", "\n- a", "must be a mapping");
	refused_soon(f, HEAD "memory: ", "9", "must be a size");
	refused_soon(f, HEAD "boot:\n  kernel: ", "k", "longer than");
	refused_soon(f, "", "\n", "no document");
	refused_soon(f, "", "---\n", "must be a mapping");
	refused_soon(f, "kind: \"", "\\x41", "this is no YAML");
	refused_soon(f, "", "a\n", "must be a mapping");
	refused_soon(f, "", "!<a> ", "");
	refused_soon(f, "kind: |\n", "\n", "expected vm");
}

static void directives(void **state)
{
	struct fixture *f = *state;
	usec_t start = clock_boottime();
	struct buf text = {0};

	good(f, "%YAML 1.1\n%TAG !k! tag:k,2026:\n---\n" STOPPED, 1);
	refused(f, "%YAML 2.0\n---\n" STOPPED, "1:1", "incompatible YAML document");
	for (unsigned i = 0; text.len + 32 < YAML_BYTES_MAX; i++)
		buf_printf(&text, "%%TAG !a%x! x\n", i);
	buf_printf(&text, "---\n" STOPPED);
	refused_bytes(f, text.data, text.len, "65:1", "more than 64 directives");
	assert_true(clock_boottime() - start < REFUSED_MAX);
	buf_free(&text);
}

static void anchors_and_aliases(void **state)
{
	struct fixture *f = *state;
	usec_t start = clock_boottime();
	struct buf text = {0};

	/* the bomb: each level ten times the one below; itself inside itself */
	refused(f,
		"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c "
		"[*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
		"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nkind: vm\n",
		"1:1", "no key 'a'");
	refused(f, "&a\nkind: vm\nname: a\nmemory: 64MiB\nrun: no\nboot: *a\n", "2:1", "no key 'kind'");
	refused(f, "&a [*a]\n", "1:1", "must be a mapping");
	refused_soon(f, "kind: &a vm\nname: [", "*a,", "");
	for (int i = 0; i < 100; i++) /* many in a file, one in a document */
		buf_printf(&text, "---\nkind: vm\nname: &n a%d\nmemory: 64MiB\nrun: no\nboot: {kernel: *n}\n", i);
	assert_int_equal(read_bytes(f, text.data, text.len), 0);
	text.len = 0;
	buf_printf(&text, "[");
	for (unsigned i = 0; text.len + 16 < YAML_BYTES_MAX; i++)
		buf_printf(&text, "&a%x ,", i);
	buf_printf(&text, "]\n");
	assert_int_equal(read_bytes(f, text.data, text.len), -EINVAL);
	assert_one_line(f);
	assert_non_null(strstr(f->e.text, "more than 64 anchors"));
	assert_true(clock_boottime() - start < REFUSED_MAX);
	buf_free(&text);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(the_least),
		TEST(everything),
		TEST(several),
		TEST(stopped_needs_no_files),
		TEST(other_ways_to_write),
		TEST(sizes),
		TEST(unknown_keys),
		TEST(wrong_kinds),
		TEST(wrong_types),
		TEST(wrong_names),
		TEST(impossible_sizes),
		TEST(duplicates),
		TEST(too_long),
		TEST(missing_files),
		TEST(long_file_names),
		TEST(nothing),
		TEST(no_yaml),
		TEST(no_control_characters_in_texts),
		TEST(random_bytes_are_refused),
		TEST(changed_files),
		TEST(too_deep),
		TEST(huge),
		TEST(directives),
		TEST(anchors_and_aliases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
