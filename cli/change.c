/* SPDX-License-Identifier: Apache-2.0
 * The commands that change something: apply, delete, a VM's life, tokens. */
#include "cli/command.h"
#include "cli/apply_files.h"
#include "cli/size.h"
#include "cli/yaml.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Print {} or the result with --json, else @fmt with the name. */
static int change_named(const struct args *args, const char *method, const char *done, struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	pack_kv_str(&p, "name", args->words[0]);
	pack_kv_bool(&p, "hard", args->hard);
	rc = ask_change(args, method, &p, &answer, e);
	if (rc == 0 && args->json)
		print_json(answer.result, 2);
	else if (rc == 0)
		(void)printf("vm %s: %s\n", args->words[0], done);
	rpc_free(&answer);
	return rc;
}

int command_vm_start(const struct args *args, struct err *e)
{
	return change_named(args, "vm.start", "will run", e);
}

int command_vm_stop(const struct args *args, struct err *e)
{
	return change_named(args, "vm.stop", "is asked to shut down, and ended after 30 s if it does not", e);
}

int command_vm_kill(const struct args *args, struct err *e)
{
	return change_named(args, "vm.kill", "is ended at once, and stays stopped", e);
}

int command_vm_restart(const struct args *args, struct err *e)
{
	return change_named(args, "vm.restart", "is ended and starts anew", e);
}

int command_delete(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	struct pack p;
	int rc;

	if (strcmp(args->words[0], "vm") != 0 && strcmp(args->words[0], "volume") != 0)
		return err_set(e, PROTO_E_INVALID, "delete: there is no kind '%.40s': expected vm or volume",
			       args->words[0]);
	ask_begin(&p, &params);
	pack_kv_str(&p, "kind", args->words[0]);
	pack_kv_str(&p, "name", args->words[1]);
	rc = ask_change(args, "delete", &p, &answer, e);
	if (rc == 0 && args->json)
		print_json(answer.result, 2);
	else if (rc == 0)
		(void)printf("%s %s: deleted%s\n", args->words[0], args->words[1],
			     strcmp(args->words[0], "vm") == 0
				     ? " (a running one is shut down first; its disks stay, as volumes)"
				     : " with its data");
	rpc_free(&answer);
	return rc;
}

/* ---- tokens ---- */

int command_token(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	uint64_t seconds = 3600;
	struct pack p;
	char token[512];
	int rc;

	if (args->expires && (!duration_parse(args->expires, &seconds) || seconds == 0))
		return err_set(e, PROTO_E_INVALID, "--expires: '%.40s' is no time such as 30m, 1h or 2d",
			       args->expires);
	ask_begin(&p, &params);
	pack_kv_u64(&p, "expires_sec", seconds);
	pack_kv_str(&p, "role", args->role ? args->role : "node");
	rc = ask_change(args, "token.create", &p, &answer, e);
	if (rc == 0 && args->json)
		print_json(answer.result, 2);
	else if (rc == 0)
		(void)printf("%s\n", text_of(answer.result, "token", token, sizeof token));
	rpc_free(&answer);
	return rc;
}

/* ---- apply ---- */

static int read_all(FILE *f, const char *name, struct buf *ret, struct err *e)
{
	size_t n;

	do {
		n = fread(buf_reserve(ret, 65536), 1, 65536, f);
		ret->len += n;
	} while (n > 0 && ret->len <= YAML_BYTES_MAX);
	if (ferror(f))
		return err_set(e, PROTO_E_INVALID, "read %s: %s", name, strerror(errno));
	if (ret->len > YAML_BYTES_MAX)
		return err_set(e, PROTO_E_INVALID, "read %s: it is larger than %d MiB", name, YAML_BYTES_MAX >> 20);
	return 0;
}

/* @ret_folder: what relative paths in it are relative to. */
static int read_file(const char *path, struct buf *ret, char ret_folder[PATH_MAX], struct err *e)
{
	bool is_stdin = strcmp(path, "-") == 0;
	char *slash;
	FILE *f;
	int rc;

	if (!realpath(is_stdin ? "." : path, ret_folder))
		return err_set(e, PROTO_E_INVALID, "read %s: %s", path, strerror(errno));
	slash = strrchr(ret_folder, '/');
	if (!is_stdin && slash)
		*slash = '\0';
	f = is_stdin ? stdin : fopen(path, "re");
	if (!f)
		return err_set(e, PROTO_E_INVALID, "read %s: %s", path, strerror(errno));
	rc = read_all(f, path, ret, e);
	if (!is_stdin)
		(void)fclose(f);
	return rc;
}

static void pack_volume(struct pack *p, const struct yaml_volume *v)
{
	pack_kv_u64(p, "size", v->size);
	if (v->replicas)
		pack_kv_u64(p, "replicas", v->replicas);
	if (v->image[0])
		pack_kv_str(p, "image", v->image);
	if (!v->has_nodes)
		return;
	pack_key(p, "nodes");
	pack_array(p);
	for (size_t i = 0; i < v->n_nodes; i++)
		pack_str(p, v->nodes[i]);
	pack_end(p);
}

static void pack_vm(struct pack *p, const struct yaml_document *doc, const struct apply_file *files)
{
	pack_kv_u64(p, "vcpus", doc->vcpus);
	pack_kv_u64(p, "memory", doc->memory_bytes);
	pack_kv_bool(p, "run", doc->run);
	pack_kv_str(p, "kernel", doc->kernel);
	pack_kv_str(p, "kernel_digest", apply_files_digest(files, doc->kernel));
	pack_kv_str(p, "initrd", doc->initrd);
	pack_kv_str(p, "initrd_digest", apply_files_digest(files, doc->initrd));
	pack_kv_str(p, "cmdline", doc->cmdline);
	pack_kv_u64(p, "priority", doc->priority);
	pack_key(p, "disks");
	pack_array(p);
	for (size_t i = 0; i < doc->n_disks; i++) {
		pack_map(p);
		pack_kv_str(p, "name", doc->disks[i].name);
		pack_volume(p, &doc->disks[i]);
		pack_end(p);
	}
	pack_end(p);
}

static int pack_seed(struct pack *p, const char *key, const char *path, struct err *e)
{
	struct buf text = {0};
	int rc = path[0] ? file_read(path, SEED_BYTES_MAX, &text, e) : 0;

	if (rc == 0 && path[0]) {
		pack_key(p, key);
		pack_bin(p, text.data, text.len);
	}
	buf_free(&text);
	return rc < 0 ? PROTO_E_INVALID : 0;
}

static int pack_document(struct pack *p, const struct yaml_document *doc, const struct apply_file *files, struct err *e)
{
	int rc = 0;

	pack_map(p);
	pack_kv_str(p, "kind", doc->is_volume ? "volume" : "vm");
	pack_kv_str(p, "name", doc->name);
	pack_kv_str(p, "where", doc->where);
	if (doc->is_volume) {
		pack_volume(p, &doc->volume);
	} else {
		pack_vm(p, doc, files);
		rc = pack_seed(p, "user_data", doc->user_data, e);
		if (rc == 0)
			rc = pack_seed(p, "meta_data", doc->meta_data, e);
	}
	pack_end(p);
	return rc;
}

static int pack_documents(struct pack *p, const struct yaml_document *docs, size_t n, const struct apply_file *files,
			  struct err *e)
{
	int rc = 0;

	pack_key(p, "documents");
	pack_array(p);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = pack_document(p, &docs[i], files, e);
	pack_end(p);
	return rc;
}

static void print_changes(const struct msgpack_object *changes, bool dry_run)
{
	for (size_t i = 0; i < unpack_count(changes); i++) {
		const struct msgpack_object *c = unpack_at(changes, i);
		char kind[16], name[NAME_BYTES_MAX], action[16];

		(void)text_of(c, "action", action, sizeof action);
		(void)printf("%s %s: %s%s\n", text_of(c, "kind", kind, sizeof kind),
			     text_of(c, "name", name, sizeof name),
			     dry_run && strcmp(action, "none") != 0 ? "would be " : "",
			     strcmp(action, "create") == 0   ? "created"
			     : strcmp(action, "update") == 0 ? "changed"
							     : "unchanged");
	}
}

static int send_documents(const struct args *args, const struct yaml_document *docs, size_t n,
			  const struct apply_file *files, struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	rc = pack_documents(&p, docs, n, files, e);
	if (rc < 0) {
		buf_free(&params);
		return rc;
	}
	pack_kv_bool(&p, "dry_run", args->dry_run);
	rc = ask_change(args, "apply", &p, &answer, e);
	if (rc == 0 && args->json)
		print_json(answer.result, 2);
	else if (rc == 0)
		print_changes(unpack_key(answer.result, "changes"), args->dry_run);
	rpc_free(&answer);
	return rc;
}

int command_apply(const struct args *args, struct err *e)
{
	char folder[PATH_MAX];
	struct buf text = {0};
	struct yaml_document *docs = NULL;
	struct apply_file *files = NULL;
	size_t n = 0;
	int rc;

	if (!args->file)
		return err_set(e, PROTO_E_INVALID, "apply: -f FILE is missing (- for standard input)");
	rc = read_file(args->file, &text, folder, e);
	if (rc == 0 &&
	    yaml_read(strcmp(args->file, "-") == 0 ? "<stdin>" : args->file, folder, &text, &docs, &n, e) < 0)
		rc = PROTO_E_INVALID;
	if (rc == 0)
		rc = apply_files_send(args, docs, n, &files, e);
	if (rc == 0)
		rc = send_documents(args, docs, n, files, e);
	if (rc == 0 && !args->dry_run)
		apply_files_wait(args, files);
	free(files);
	free(docs);
	buf_free(&text);
	return rc;
}
