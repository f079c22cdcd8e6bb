/* SPDX-License-Identifier: Apache-2.0
 * Resource files: whatever a file holds, it is read, or refused in one line that begins with its place. */
#include "cli/yaml.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const seeds[] = {
	"kind: vm\nname: till-7\nvcpus: 2\nmemory: 512MiB\nrun: false\npriority: 7\n"
	"boot: {kernel: ./vmlinuz, initrd: ./initrd.img, cmdline: console=ttyS0}\n"
	"disks: [{name: root, size: 4GiB, replicas: 2}, {name: more, size: 1.5GiB, image: debian}]\n"
	"cloud-init: {user-data: ./user-data, meta-data: ./meta-data}\n",
	"kind: volume\nname: scratch\nsize: 12MiB\nreplicas: 3\nimage: \"debian-12\"\n---\nkind: vm\nname: a\n",
	"# nothing but \xc3\xa4 comment\n---\n...\n",
	"kind: &a vm\nname: *a\nmemory: !!int 64\nvcpus: 0x2\nrun: yes\n",
};

bool fuzz_seed(unsigned i, struct buf *ret)
{
	if (i < ARRAY_LEN(seeds))
		buf_append(ret, seeds[i], strlen(seeds[i]));
	return i < ARRAY_LEN(seeds);
}

void fuzz_begin(void)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct buf text = {0};
	struct yaml_document *docs = NULL;
	struct err e = {0};
	size_t count = 0;
	int rc;

	buf_append(&text, p, n);
	rc = yaml_read("f.yaml", "/nowhere", &text, &docs, &count, &e);
	CHECK(rc == 0 || rc == -EINVAL);
	for (size_t i = 0; rc == 0 && i < count; i++)
		CHECK(docs[i].name[0] && memchr(docs[i].name, 0, sizeof docs[i].name) &&
		      docs[i].n_disks <= VM_DISKS_MAX);
	CHECK(rc == 0 || (strncmp(e.text, "f.yaml", 6) == 0 && !strchr(e.text, '\n')));
	free(docs);
	buf_free(&text);
	return 0;
}
