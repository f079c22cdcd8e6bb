/* SPDX-License-Identifier: Apache-2.0
 * The files that make a folder a node's: keys, certificates, and last the configuration. */
#include "cli/command.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const pki_files[] = {"pki/ca.crt",   "pki/ca.key",    "pki/node.crt",
					"pki/node.key", "pki/admin.crt", "pki/admin.key"};

static void path_of(const char *dir, const char *file, char ret[PATH_BYTES_MAX + 32])
{
	(void)snprintf(ret, PATH_BYTES_MAX + 32, "%.1000s/%s", dir, file);
}

static int check_listen(const char *listen, struct err *e)
{
	if (net_address_check(listen, e) < 0)
		return PROTO_E_INVALID;
	if (strlen(listen) >= ADDRESS_BYTES_MAX)
		return err_set(e, PROTO_E_INVALID, "--listen: too long");
	if (strncmp(listen, "0.0.0.0:", 8) == 0 || strncmp(listen, "[::]:", 5) == 0)
		return err_set(e, PROTO_E_INVALID,
			       "--listen: give the address by which the other nodes reach this one, not all of them");
	return 0;
}

int node_files_check(const struct node_files *f, struct err *e)
{
	char path[PATH_BYTES_MAX + 32];
	int rc;

	if (!f->dir || !f->name || !f->listen)
		return err_set(e, PROTO_E_INVALID, "--dir, --name and --listen are needed");
	if (strlen(f->dir) > 60)
		return err_set(e, PROTO_E_INVALID,
			       "--dir: at most 60 letters, because the paths of the sockets in it are limited");
	if (!name_is_valid(f->name))
		return err_set(e, PROTO_E_INVALID, "--name: letters, digits, '.', '_' and '-', at most %d",
			       NAME_BYTES_MAX - 1);
	if (f->zone && f->zone[0] && !name_is_valid(f->zone))
		return err_set(e, PROTO_E_INVALID, "--zone: letters, digits, '.', '_' and '-'");
	rc = check_listen(f->listen, e);
	if (rc < 0)
		return rc;
	path_of(f->dir, "kedge.conf", path);
	if (access(path, F_OK) == 0)
		return err_set(e, PROTO_E_EXISTS, "%s is a node already: choose another --dir, or remove it", f->dir);
	path_of(f->dir, "pki", path);
	rc = file_make_folder(path, 0700, e);
	if (rc < 0)
		return PROTO_E_INVALID;
	(void)chmod(f->dir, 0700);
	return 0;
}

static int write_one(const char *dir, const char *file, const struct buf *content, unsigned mode, struct err *e)
{
	char path[PATH_BYTES_MAX + 32];

	path_of(dir, file, path);
	return file_replace(path, content->data, content->len, mode, e);
}

static void make_config(const struct node_files *f, struct buf *ret)
{
	buf_printf(ret,
		   "# Kedge: the configuration of this node. `kedged --check-config FILE` looks whether it is good.\n"
		   "# Lines with ; show the defaults. Changes count from the next start of kedged on.\n"
		   "\n"
		   "[node]\n"
		   "# Given when the node joined: leave as they are.\n"
		   "id = %u\n"
		   "name = %s\n"
		   "cluster = %s\n"
		   "# The one port of this node; its links to other nodes start from this address too.\n"
		   "listen = %s\n"
		   "# Nodes that fail together (a rack, a room) share a zone.\n"
		   "zone = %s\n",
		   f->id, f->name, f->cluster, f->listen, f->zone ? f->zone : "");
	buf_printf(
		ret,
		"\n"
		"[tls]\n"
		"# Paths are relative to this file.\n"
		"; ca = pki/ca.crt\n"
		"; cert = pki/node.crt\n"
		"; key = pki/node.key\n"
		"\n"
		"[timing]\n"
		"# How fast failures are noticed; the same on every node.\n"
		"; profile = lan\n"
		"\n"
		"[hypervisor]\n"
		"# qemu:///system on a production node with libvirtd; none: this node runs no VMs.\n"
		"# The default is an own, embedded driver below this folder.\n"
		"; uri = qemu:///embed?root=DIR/libvirt\n"
		"# auto tries KVM with a real kernel first; kvm and tcg skip the trial.\n"
		"; accel = auto\n"
		"\n"
		"[volumes]\n"
		"# A node that is silent for so long has its replicas placed anew on others (10s\n"
		"# or longer; the leader's counts); or never.\n"
		"; replace-after = 1h\n"
		"# How long a guest waits for a volume engine that is gone before it is paused, which it does not\n"
		"# notice either; it goes on when the engine is back. never: it is paused at once.\n"
		"; reconnect = 60s\n"
		"# The lines from here to [images] count when kedged was started anew, and then kedge-vol too: end\n"
		"# that by SIGTERM, and kedged starts it while guests wait.\n"
		"# yes: around the page cache, which leaves the memory to guests (figures: docs/decisions/0020).\n"
		"; direct = no\n"
		"# How much a replica that comes back is sent each second while guests read or write; or unlimited.\n"
		"; resync-rate = 64MiB\n"
		"# All replicas of a volume are compared block by block every so many days (or never), at this rate.\n"
		"; scrub-every = 30d\n"
		"; scrub-rate = 16MiB\n"
		"# What the requests of all guests, and those of one disk, may take up; who wants more waits.\n"
		"; memory = 256MiB\n"
		"; volume-memory = 64MiB\n"
		"\n"
		"[images]\n"
		"# Files of images, kernels and initrds that nothing refers to any more go after so long; or never.\n"
		"; keep-unused = 10m\n"
		"\n"
		"[log]\n"
		"# error, warning, info or debug\n"
		"; level = info\n");
}

int node_files_write(const struct node_files *f, struct err *e)
{
	struct buf conf = {0};
	int rc = write_one(f->dir, "pki/ca.crt", f->ca_cert, 0644, e);

	if (rc == 0 && f->ca_key && f->ca_key->len > 0)
		rc = write_one(f->dir, "pki/ca.key", f->ca_key, 0600, e);
	if (rc == 0)
		rc = write_one(f->dir, "pki/node.crt", f->cert, 0644, e);
	if (rc == 0)
		rc = write_one(f->dir, "pki/node.key", f->key, 0600, e);
	make_config(f, &conf);
	if (rc == 0)
		rc = write_one(f->dir, "kedge.conf", &conf, 0600, e);
	buf_free(&conf);
	return rc < 0 ? PROTO_E_INVALID : 0;
}

void node_files_remove(const char *dir)
{
	char path[PATH_BYTES_MAX + 32];

	path_of(dir, "kedge.conf", path);
	if (access(path, F_OK) == 0)
		return;
	for (size_t i = 0; i < ARRAY_LEN(pki_files); i++) {
		path_of(dir, pki_files[i], path);
		(void)unlink(path);
	}
	path_of(dir, "bootstrap", path);
	(void)unlink(path);
	path_of(dir, "pki", path);
	(void)rmdir(path);
	(void)rmdir(dir); /* stays when something else lies in it */
}
