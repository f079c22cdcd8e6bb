/* SPDX-License-Identifier: Apache-2.0
 * The commands about images. */
#include "cli/upload.h"

#include "cli/size.h"

#include <stdlib.h>
#include <string.h>

#define DIGEST_SHOWN 12

static int read_copies(const struct args *args, uint64_t *ret, struct err *e)
{
	char *end;

	*ret = 2;
	if (!args->copies)
		return 0;
	*ret = strtoull(args->copies, &end, 10);
	if (args->copies[0] < '0' || args->copies[0] > '9' || *end || *ret < 1 || *ret > NODES_MAX)
		return err_set(e, PROTO_E_INVALID, "--copies: '%.40s' is no number from 1 to %d", args->copies,
			       NODES_MAX);
	return 0;
}

/* Nothing large is sent for a name that cannot be had. */
static int check_name(const struct args *args, struct err *e)
{
	const char *name = args->words[0];
	struct rpc_answer answer = {0};
	const struct msgpack_object *images;
	struct buf params = {0};
	struct pack p;
	int rc;

	if (!name_is_valid(name))
		return err_set(
			e, PROTO_E_INVALID,
			"image '%.80s': a name has letters, digits, '.', '_' and '-', at most %d, beginning with a "
			"letter or digit",
			name, NAME_BYTES_MAX - 1);
	ask_begin(&p, &params);
	rc = ask_read(args, "image.list", &p, &answer, e);
	images = rc < 0 ? NULL : unpack_key(answer.result, "images");
	for (size_t i = 0; i < unpack_count(images) && rc == 0; i++) {
		char taken[NAME_BYTES_MAX];

		if (strcmp(text_of(unpack_at(images, i), "name", taken, sizeof taken), name) == 0)
			rc = err_set(
				e, PROTO_E_EXISTS,
				"there is an image '%s': remove it first, or take another name (kedge image rm %s)",
				name, name);
	}
	rpc_free(&answer);
	return rc;
}

static void print_added(const struct args *args, const struct msgpack_object *result, uint64_t copies)
{
	char size[32], format[16], digest[DIGEST_BYTES_MAX];
	const char *const digests[] = {text_of(result, "digest", digest, sizeof digest)};
	bool enough = upload_wait(args, digests, 1, copies);

	if (args->json) {
		print_json(result, 2);
		return;
	}
	size_format(number_of(result, "size"), size, sizeof size);
	(void)printf("image %s: added, a disk of %s (%s)%s, sha256 %s\n", args->words[0], size,
		     text_of(result, "format", format, sizeof format),
		     enough ? "" : ", not copied to others yet (kedge image ls)", digest);
}

int command_image_add(const struct args *args, struct err *e)
{
	bool is_stdin = strcmp(args->words[1], "-") == 0;
	struct upload u = {.label = is_stdin ? "standard input" : args->words[1], .image = args->words[0]};
	struct rpc_answer answer = {0};
	int rc = read_copies(args, &u.copies, e);

	if (rc == 0)
		rc = check_name(args, e);
	if (rc < 0)
		return rc;
	u.file = stdin;
	rc = is_stdin ? 0 : upload_open(args->words[1], &u.file, e);
	if (rc < 0)
		return rc;
	rc = upload_send(args, &u, &answer, e);
	if (rc < 0)
		(void)err_wrap(e, rc, "image %s", args->words[0]);
	else
		print_added(args, answer.result, u.copies);
	if (!is_stdin)
		(void)fclose(u.file);
	rpc_free(&answer);
	return rc;
}

static void add_row(struct table *t, const struct msgpack_object *image)
{
	const struct msgpack_object *nodes = unpack_key(image, "nodes");
	char text[CELL_BYTES], size[32];
	struct buf list = {0};

	for (size_t i = 0; i < unpack_count(nodes); i++) {
		char node[NAME_BYTES_MAX] = "";

		(void)unpack_str(unpack_at(nodes, i), node, sizeof node);
		buf_printf(&list, "%s%s", i ? ", " : "", node);
	}
	if (unpack_count(nodes) < number_of(image, "copies_wanted"))
		buf_printf(&list, "%s(%zu of %llu)", unpack_count(nodes) ? " " : "", unpack_count(nodes),
			   (unsigned long long)number_of(image, "copies_wanted"));
	buf_append(&list, "", 1);
	table_cell(t, "%s", text_of(image, "name", text, sizeof text));
	size_format(number_of(image, "size"), size, sizeof size);
	table_cell(t, "%s", size);
	table_cell(t, "%s", text_of(image, "format", text, sizeof text));
	size_format(number_of(image, "bytes"), size, sizeof size);
	table_cell(t, "%s", size);
	table_cell(t, "%.190s", (char *)list.data);
	table_cell(t, "%.*s", DIGEST_SHOWN, text_of(image, "digest", text, sizeof text));
	buf_free(&list);
}

int command_image_ls(const struct args *args, struct err *e)
{
	static const char *const titles[] = {"IMAGE", "SIZE", "FORMAT", "FILE", "COPIES", "SHA-256"};
	struct rpc_answer answer = {0};
	int rc = ask_and_maybe_print(args, "image.list", &answer, e);
	const struct msgpack_object *images = rc > 0 ? unpack_key(answer.result, "images") : NULL;
	struct table t;

	if (rc > 0 && unpack_count(images) == 0) {
		(void)printf("no images yet: kedge image add --help\n");
	} else if (rc > 0) {
		table_begin(&t, ARRAY_LEN(titles), titles);
		for (size_t i = 0; i < unpack_count(images); i++)
			add_row(&t, unpack_at(images, i));
		table_print(&t, "");
	}
	rpc_free(&answer);
	return rc < 0 ? rc : 0;
}

int command_image_rm(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	pack_kv_str(&p, "name", args->words[0]);
	rc = ask_change(args, "image.rm", &p, &answer, e);
	if (rc == 0 && args->json)
		print_json(answer.result, 2);
	else if (rc == 0)
		(void)printf("image %s: removed (its files go in a while; volumes made from it stay)\n",
			     args->words[0]);
	rpc_free(&answer);
	return rc;
}
