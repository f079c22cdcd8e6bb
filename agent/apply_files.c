/* SPDX-License-Identifier: Apache-2.0
 * The part of apply that is about the files of a VM. */
#include "agent/apply_files.h"

#include "agent/image_file.h"

#include <string.h>

static int refuse(struct err *e, const char *where, const char *name, const char *what)
{
	return err_set(e, PROTO_E_INVALID, "%s%svm '%s': %s", where, where[0] ? ": " : "", name, what);
}

/* A document without the digest of a path that is the same as before means the file of before: it was not there where
 * the document was read. */
static bool read_digest(const struct msgpack_object *doc, const char *key, const char *path, const char *old_path,
			const char *old_digest, char ret[DIGEST_BYTES_MAX])
{
	const struct msgpack_object *o = unpack_key(doc, key);

	if (path[0] == '\0')
		return true;
	if (o && !unpack_is_nil(o))
		return unpack_str(o, ret, DIGEST_BYTES_MAX) && image_is_digest(ret);
	if (strcmp(path, old_path) == 0)
		memcpy(ret, old_digest, DIGEST_BYTES_MAX);
	return true;
}

static bool read_seed(const struct msgpack_object *doc, const char *key, struct message_bin *ret)
{
	const struct msgpack_object *o = unpack_key(doc, key);

	if (!o || unpack_is_nil(o))
		return true;
	return unpack_bin(o, &ret->p, &ret->n) && ret->n <= SEED_BYTES_MAX &&
	       (ret->n == 0 || !memchr(ret->p, 0, ret->n));
}

static bool is_seed(const struct buf *b, const struct message_bin *m)
{
	return b->len == m->n && (m->n == 0 || memcmp(b->data, m->p, m->n) == 0);
}

static bool is_same(struct agent *agent, const struct command_vm_files *f, const struct store_vm *old)
{
	struct buf user_data = {0}, meta_data = {0};
	bool same;

	(void)store_vm_seed(agent->store, f->vm, &user_data, &meta_data);
	same = strcmp(f->kernel, old ? old->kernel_digest : "") == 0 &&
	       strcmp(f->initrd, old ? old->initrd_digest : "") == 0 && is_seed(&user_data, &f->user_data) &&
	       is_seed(&meta_data, &f->meta_data);
	buf_free(&user_data);
	buf_free(&meta_data);
	return same;
}

int apply_files(struct agent *agent, const struct msgpack_object *doc, const char *where,
		const struct command_vm_put *vm, const struct store_vm *old, struct change *c, bool *ret_changed,
		struct err *e)
{
	struct command_vm_files f = {0};

	memcpy(f.vm, vm->name, sizeof f.vm);
	if (!read_digest(doc, "kernel_digest", vm->kernel, old ? old->spec.kernel : "", old ? old->kernel_digest : "",
			 f.kernel) ||
	    !read_digest(doc, "initrd_digest", vm->initrd, old ? old->spec.initrd : "", old ? old->initrd_digest : "",
			 f.initrd))
		return refuse(e, where, vm->name, "a digest has 64 hexadecimal digits");
	if (!read_seed(doc, "user_data", &f.user_data) || !read_seed(doc, "meta_data", &f.meta_data) ||
	    f.user_data.n + f.meta_data.n > SEED_BYTES_MAX)
		return refuse(e, where, vm->name, "user-data and meta-data must be texts of at most 64 KiB together");
	*ret_changed = !is_same(agent, &f, old);
	if (*ret_changed) {
		message_encode(&command_vm_files_type, &f, &c->bodies);
		c->n_bodies++;
	}
	return 0;
}
