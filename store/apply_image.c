/* SPDX-License-Identifier: Apache-2.0
 * Commands about images and other files: their names, who holds them, who uses them. */
#include "store/internal.h"

#include <stdlib.h>
#include <string.h>

static uint64_t count(struct store *s, sqlite3_stmt *st)
{
	uint64_t n = 0;

	while (sql_row(&s->q, st))
		n = sql_u64(st, 0);
	return n;
}

static bool is_digest(const char *text)
{
	return strlen(text) == DIGEST_BYTES_MAX - 1 && strspn(text, "0123456789abcdef") == DIGEST_BYTES_MAX - 1;
}

static bool add_holder(struct store *s, const char *digest, uint32_t node, struct store_result *r)
{
	struct store_node room;

	if (!is_digest(digest) || !store_node(s, node, &room)) {
		store_refuse(r, PROTO_E_INVALID, "a digest has 64 hexadecimal digits, and its holder is a node");
		return false;
	}
	if (count(s, sql_query(&s->q, "SELECT count(*) FROM holders", "")) >= FILES_MAX) {
		store_refuse(r, PROTO_E_TOO_MANY, "a cluster holds at most %d files", FILES_MAX);
		return false;
	}
	(void)sql_run(&s->q, "INSERT INTO holders VALUES(?,?)", "su", digest, (uint64_t)node); /* or it is there */
	return true;
}

/* ---- images ---- */

static const char *why_no_image(const struct command_image_add *c)
{
	if (!name_is_valid(c->name))
		return "a name has letters, digits, '.', '_' and '-', at most 63";
	if (strcmp(c->format, "raw") != 0 && strcmp(c->format, "qcow2") != 0)
		return "its format must be raw or qcow2";
	return c->size == 0 || c->copies == 0 || c->copies > NODES_MAX ? "its size or its copies make no sense" : NULL;
}

void store_apply_image_add(struct store *s, const struct command_image_add *c, struct store_result *r)
{
	const char *why = why_no_image(c);

	if (why) {
		store_refuse(r, PROTO_E_INVALID, "image '%s': %s", c->name, why);
		return;
	}
	if (count(s, sql_query(&s->q, "SELECT count(*) FROM images", "")) >= IMAGES_MAX) {
		store_refuse(r, PROTO_E_TOO_MANY, "a cluster has at most %d images", IMAGES_MAX);
		return;
	}
	if (!add_holder(s, c->digest, c->node, r))
		return;
	if (sql_run(&s->q, "INSERT INTO images VALUES('default',?,?,?,?,?,?,?)", "ssuusuu", c->name, c->digest,
		    c->bytes, c->size, c->format, (uint64_t)c->copies, s->wall) < 0) {
		store_refuse(r, PROTO_E_EXISTS, "there is an image '%s': remove it first, or take another name",
			     c->name);
		return;
	}
	store_event_add(s, "image", c->name, "added by %s: %llu MiB", s->actor, (unsigned long long)(c->size >> 20));
}

void store_apply_image_rm(struct store *s, const struct command_image_rm *c, struct store_result *r)
{
	struct store_image image;
	sqlite3_stmt *st;

	if (!store_image(s, c->name, &image)) {
		store_refuse(r, PROTO_E_NOT_FOUND, "there is no image '%s'", c->name);
		return;
	}
	st = sql_query(&s->q,
		       "SELECT v.name FROM sources JOIN volumes v ON v.id = volume WHERE image=? AND filled=0"
		       " ORDER BY v.name LIMIT 1",
		       "s", c->name);
	while (sql_row(&s->q, st)) {
		char volume[NAME_BYTES_MAX];

		sql_str(st, 0, volume, sizeof volume);
		store_refuse(r, PROTO_E_CONFLICT, "image '%s': volume '%s' is being filled from it: wait for that",
			     c->name, volume);
	}
	if (r->code)
		return;
	CHECK(sql_run(&s->q, "DELETE FROM images WHERE tenant='default' AND name=?", "s", c->name) == 0);
	store_event_add(s, "image", c->name, "removed by %s", s->actor);
}

bool store_file_is_used(struct store *s, const char *digest)
{
	return count(s, sql_query(&s->q,
				  "SELECT (SELECT count(*) FROM images WHERE digest=?)"
				  " + (SELECT count(*) FROM vm_files WHERE kernel_digest=? OR initrd_digest=?)"
				  " + (SELECT count(*) FROM sources WHERE digest=? AND filled=0)",
				  "ssss", digest, digest, digest, digest)) > 0;
}

void store_apply_image_held(struct store *s, const struct command_image_held *c, struct store_result *r)
{
	if (c->held) {
		(void)add_holder(s, c->digest, c->node, r);
		return;
	}
	if (c->unused && store_file_is_used(s, c->digest)) {
		store_refuse(r, PROTO_E_CONFLICT, "the file is in use");
		return;
	}
	CHECK(sql_run(&s->q, "DELETE FROM holders WHERE digest=? AND node=?", "su", c->digest, (uint64_t)c->node) == 0);
}

/* ---- the files of a VM ---- */

static bool can_be_had(struct store *s, const struct command_vm_files *c, const char *what, const char *digest,
		       struct store_result *r)
{
	if (digest[0] == '\0' || store_holders(s, digest) != 0)
		return true;
	store_refuse(r, PROTO_E_CONFLICT, "VM '%s': no node has its %s any more: apply it again", c->vm, what);
	return false;
}

/* As a text with its zero; NULL: it is none. */
static char *text_of(const struct message_bin *b)
{
	char *text = b->n <= SEED_BYTES_MAX && !memchr(b->p ? b->p : (const uint8_t *)"", 0, b->n)
			     ? xcalloc(b->n + 1, 1)
			     : NULL;

	if (text && b->n)
		memcpy(text, b->p, b->n);
	return text;
}

static void put_files(struct store *s, const struct command_vm_files *c, const char *user_data, const char *meta_data,
		      struct store_result *r)
{
	store_vm_files_release(s, c->vm);
	if (c->user_data.n + c->meta_data.n +
		    count(s, sql_query(&s->q, "SELECT sum(length(CAST(user_data || meta_data AS BLOB))) FROM vm_files",
				       "")) >
	    SEED_BYTES_TOTAL) {
		store_refuse(r, PROTO_E_TOO_MANY, "VM '%s': all user-data of a cluster have at most %u MiB", c->vm,
			     SEED_BYTES_TOTAL >> 20);
		return;
	}
	CHECK(sql_run(&s->q, "INSERT INTO vm_files VALUES('default',?,?,?,?,?)", "sssss", c->vm, c->kernel, c->initrd,
		      user_data, meta_data) == 0);
}

void store_apply_vm_files(struct store *s, const struct command_vm_files *c, struct store_result *r)
{
	char *user_data = text_of(&c->user_data), *meta_data = text_of(&c->meta_data);
	struct store_vm vm;

	if (!store_vm(s, c->vm, &vm))
		store_refuse(r, PROTO_E_NOT_FOUND, "there is no VM '%s'", c->vm);
	else if (!user_data || !meta_data || c->user_data.n + c->meta_data.n > SEED_BYTES_MAX)
		store_refuse(r, PROTO_E_INVALID, "VM '%s': user-data and meta-data are texts of at most %u KiB", c->vm,
			     SEED_BYTES_MAX >> 10);
	else if (can_be_had(s, c, "kernel", c->kernel, r) && can_be_had(s, c, "initrd", c->initrd, r))
		put_files(s, c, user_data, meta_data, r);
	free(user_data);
	free(meta_data);
}

void store_vm_files_release(struct store *s, const char *vm)
{
	CHECK(sql_run(&s->q, "DELETE FROM vm_files WHERE tenant='default' AND vm=?", "s", vm) == 0);
}

/* ---- volumes from images ---- */

void store_apply_volume_image(struct store *s, const struct command_volume_image *c, struct store_result *r)
{
	struct store_image image;
	struct store_volume v;

	if (!store_volume_by_id(s, c->id, &v) || v.image[0] || v.epoch != 1)
		store_refuse(r, PROTO_E_INVALID, "only a new volume is filled from an image");
	else if (!store_image(s, c->image, &image))
		store_refuse(r, PROTO_E_NOT_FOUND, "volume '%s': there is no image '%s'", v.name, c->image);
	else if (image.size > v.size)
		store_refuse(r, PROTO_E_INVALID, "volume '%s': the image '%s' is larger: it has %llu bytes", v.name,
			     c->image, (unsigned long long)image.size);
	if (r->code)
		return;
	CHECK(sql_run(&s->q, "INSERT INTO sources VALUES(?,?,?,?,0)", "ssss", c->id, image.name, image.digest,
		      image.format) == 0);
}

/* A compare-and-set: what another primary wrote, or this one before it was away, counts for nothing. */
void store_apply_volume_filled(struct store *s, const struct command_volume_filled *c, struct store_result *r)
{
	struct store_volume v;

	if (!store_volume_by_id(s, c->id, &v) || v.deleting) {
		store_refuse(r, PROTO_E_NOT_FOUND, "there is no such volume");
		return;
	}
	if (v.primary_since != c->primary_since) {
		store_refuse(r, PROTO_E_CONFLICT, "volume '%s' is led since epoch %u, not %u", v.name, v.primary_since,
			     c->primary_since);
		return;
	}
	if (!v.filling)
		return;
	CHECK(sql_run(&s->q, "UPDATE sources SET filled=1 WHERE volume=?", "s", c->id) == 0);
	store_event_add(s, "volume", v.name, "filled from image %s", v.image);
}

bool store_disk_is_filling(struct store *s, const char *vm, char ret[NAME_BYTES_MAX])
{
	sqlite3_stmt *st = sql_query(&s->q,
				     "SELECT v.name FROM volumes v JOIN sources ON volume = v.id"
				     " WHERE v.tenant='default' AND v.vm=? AND filled=0 ORDER BY v.disk LIMIT 1",
				     "s", vm);
	bool found = false;

	while (sql_row(&s->q, st)) {
		sql_str(st, 0, ret, NAME_BYTES_MAX);
		found = true;
	}
	return found;
}

void store_source_release(struct store *s, const char *id)
{
	CHECK(sql_run(&s->q, "DELETE FROM sources WHERE volume=?", "s", id) == 0);
}
