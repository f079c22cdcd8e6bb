/* SPDX-License-Identifier: Apache-2.0
 * Images and cloud-init in resource files. */
#include "cli/yaml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/kt-yaml-XXXXXX";

static int set_up(void **state)
{
	char path[64];
	FILE *f;

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	(void)snprintf(path, sizeof path, "%s/user-data", folder);
	f = fopen(path, "w");
	(void)fputs("#cloud-config\n", f);
	(void)fclose(f);
	(void)snprintf(path, sizeof path, "%s/large", folder);
	f = fopen(path, "w");
	for (unsigned i = 0; i <= SEED_BYTES_MAX; i++)
		(void)fputc('x', f);
	return fclose(f);
}

static int tear_down(void **state)
{
	char path[64];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/user-data", folder);
	(void)unlink(path);
	(void)snprintf(path, sizeof path, "%s/large", folder);
	(void)unlink(path);
	return rmdir(folder);
}

static int read_text(const char *text, struct yaml_document *ret, struct err *e)
{
	struct yaml_document *docs = NULL;
	struct buf b = {0};
	size_t n = 0;
	int rc;

	buf_printf(&b, "%s", text);
	rc = yaml_read("f", folder, &b, &docs, &n, e);
	if (rc == 0) {
		assert_int_equal(n, 1);
		*ret = docs[0];
	}
	free(docs);
	buf_free(&b);
	return rc;
}

static void refused(const char *text, const char *word)
{
	struct yaml_document doc;
	struct err e = {0};

	assert_int_equal(read_text(text, &doc, &e), -EINVAL);
	assert_non_null(strstr(e.text, word));
}

static void images_of_disks_and_volumes(void **state)
{
	struct yaml_document doc;

	(void)state;
	assert_int_equal(read_text("kind: vm\nname: a\nmemory: 64MiB\n"
				   "disks: [{name: root, size: 1MiB, image: debian-12}, {name: data, size: 1MiB}]\n",
				   &doc, NULL),
			 0);
	assert_string_equal(doc.disks[0].image, "debian-12");
	assert_string_equal(doc.disks[1].image, "");
	assert_int_equal(read_text("kind: volume\nname: a\nsize: 1MiB\nimage: x\n", &doc, NULL), 0);
	assert_string_equal(doc.volume.image, "x");
	refused("kind: volume\nname: a\nsize: 1MiB\nimage: ../x\n", "f:4:8: '../x' is no image's name");
	refused("kind: volume\nname: a\nsize: 1MiB\nimage: [x]\n", "must be a text");
}

#define VM "kind: vm\nname: a\nmemory: 64MiB\nrun: false\n"

static void cloud_init(void **state)
{
	struct yaml_document doc;
	char path[80];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/user-data", folder);
	assert_int_equal(read_text(VM "cloud-init: {user-data: ./user-data}\n", &doc, NULL), 0);
	assert_string_equal(doc.user_data, path);
	assert_string_equal(doc.meta_data, "");
	refused(VM "cloud-init: {user-data: ./none}\n", "f:5:25: user-data");
	refused(VM "cloud-init: {user-data: ./large}\n", "64 KiB");
	refused(VM "cloud-init: {userdata: ./user-data}\n", "is 'user-data' meant?");
	refused("kind: volume\nname: a\nsize: 1MiB\ncloud-init: {}\n", "no key");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(images_of_disks_and_volumes), cmocka_unit_test(cloud_init)};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
