/* SPDX-License-Identifier: Apache-2.0
 * kedge: the command line of a cluster. Here is the table of commands, and how a command line is taken apart. */
#include "cli/command.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct command commands[] = {
	{"init", "--dir DIR --name NODE --listen HOST:PORT [--zone Z] [--cluster NAME]",
	 "make a new cluster and its first node",
	 "Makes the cluster's CA, the node's and the first administrator's certificates and DIR/kedge.conf.\n"
	 "  kedge init --dir /var/lib/kedge --name n1 --listen 10.0.0.1:7443",
	 "--dir --name --listen --zone --cluster", 0, command_init},
	{"token", "[--expires 1h] [--role node]", "print a token by which one more node may join",
	 "It can be used once. Hand it over like a password.", "--expires --role", 0, command_token},
	{"join", "--dir DIR --name NODE --listen HOST:PORT [--zone Z] TOKEN", "make this machine a node of a cluster",
	 "  kedge join --dir /var/lib/kedge --name n2 --listen 10.0.0.2:7443 \"$(ssh n1 kedge token)\"",
	 "--dir --name --listen --zone", 1, command_join},
	{"status", "[--stale]", "show the cluster, and what is wrong",
	 "Answers within two seconds, also without a quorum: then with what the one node knows.", "--stale", 0,
	 command_status},
	{"node ls", "[--stale]", "list the nodes", "", "--stale", 0, command_node_ls},
	{"node show", "NODE", "show all about one node", "", "--stale", 1, command_node_show},
	{"node fence-ack", "NODE [--yes]", "say that a node is off and stays off, so that its VMs may run elsewhere",
	 "A node whose lease is over is taken care of without this. It is for VMs that only that node could run, "
	 "before\n"
	 "their disks are forced elsewhere. If the node runs after all, its VMs run TWICE.",
	 "--yes", 1, command_node_fence_ack},
	{"node remove", "NODE [--yes]", "remove a node that is down, for good",
	 "Its replicas leave all volumes at once, and are made anew on other nodes. Refused while a VM is placed on "
	 "it, it\n"
	 "has what no other node has, or the others would be no majority. It may join again, as a new node with an "
	 "empty "
	 "folder.",
	 "--yes", 1, command_node_remove},
	{"apply", "-f FILE|- [--dry-run]", "make the cluster what a file says, all of it or nothing",
	 "  kind: vm\n  name: till-7\n  vcpus: 2\n  memory: 512MiB\n  run: true\n"
	 "  boot: {kernel: ./vmlinuz, initrd: ./initrd.img, cmdline: console=ttyS0}\n"
	 "  disks: [{name: root, size: 4GiB, replicas: 2, image: debian-12}]\n"
	 "  cloud-init: {user-data: ./user-data}\n  ---\n  kind: volume\n  name: scratch\n  size: 1GiB\n"
	 "Several documents are separated by ---. Paths are relative to the file; what is at them is\n"
	 "sent to the cluster now, which holds it. A disk that is not named any more stays as a volume.",
	 "-f --dry-run", 0, command_apply},
	{"delete", "vm|volume NAME", "stop a VM and forget it, or erase a volume",
	 "The disks of a VM stay, as volumes of nobody; to erase one: kedge delete volume VM.DISK", "", 2,
	 command_delete},
	{"vm ls", "[--stale]", "list the VMs", "", "--stale", 0, command_vm_ls},
	{"vm show", "NAME", "show all about one VM", "", "--stale", 1, command_vm_show},
	{"vm start", "NAME", "let a VM run", "", "", 1, command_vm_start},
	{"vm stop", "NAME", "shut a VM down; it stays stopped", "", "", 1, command_vm_stop},
	{"vm kill", "NAME", "end a VM at once, as by pulling its plug; it stays stopped", "", "", 1, command_vm_kill},
	{"vm restart", "NAME [--hard]", "shut a VM down (--hard: pull its plug) and start it again", "", "--hard", 1,
	 command_vm_restart},
	{"volume ls", "[--stale]", "list the volumes and their replicas", "", "--stale", 0, command_volume_ls},
	{"volume show", "NAME", "show all about one volume", "", "--stale", 1, command_volume_show},
	{"volume export", "NAME --node NODE", "serve a volume without a VM, on one node",
	 "It is at DIR/run/nbd.sock of that node then, as the export NAME:\n"
	 "  nbdinfo \"nbd+unix:///NAME?socket=DIR/run/nbd.sock\"",
	 "--node", 1, command_volume_export},
	{"volume force", "NAME --node NODE --accept-data-loss [--yes]",
	 "give up what the silent replicas had, and go on with an old one: DATA IS LOST",
	 "For when the node with the only replica that is in sync is gone for good. It says what would be lost and "
	 "asks;\n"
	 "--yes answers. A VM's node must be known to be off first: kedge node fence-ack NODE",
	 "--node --accept-data-loss --yes", 1, command_volume_force},
	{"volume unexport", "NAME", "serve it no more; clients are cut off", "", "", 1, command_volume_unexport},
	{"volume resync", "NAME", "wait until every replica of a volume is in sync, and show how far it is",
	 "Replicas that lack something are filled by themselves; this only watches. Ctrl-C ends the watching.", "", 1,
	 command_volume_resync},
	{"volume verify", "NAME [--primary-wins]", "compare all replicas block by block, and repair",
	 "What the majority of the replicas has is right. Where nobody can tell, only --primary-wins decides.",
	 "--primary-wins", 1, command_volume_verify},
	{"image add", "NAME FILE|- [--copies N]", "add an image that volumes can be filled from",
	 "A raw disk or a qcow2 image without a backing file; - reads standard input. It is checked, and held on two\n"
	 "nodes, or on N. To replace one: rm, then add.\n"
	 "  kedge image add debian-12 debian-12-genericcloud-amd64.qcow2\n"
	 "  disks: [{name: root, size: 4GiB, image: debian-12}]          # in the YAML of a VM",
	 "--copies", 2, command_image_add},
	{"image ls", "[--stale]", "list the images and the nodes that hold them", "", "--stale", 0, command_image_ls},
	{"image rm", "NAME", "remove an image", "Volumes that were filled from it stay as they are.", "", 1,
	 command_image_rm},
	{"events", "[--follow] [--limit N]", "show what happened", "", "--follow --limit --stale", 0, command_events},
};
const size_t n_commands = ARRAY_LEN(commands);

/* ---- help ---- */

static void print_help(void)
{
	(void)printf("kedge %s: virtual machines that survive their node\n\n", KEDGE_VERSION);
	for (size_t i = 0; i < n_commands; i++)
		(void)printf("  kedge %-15s %s\n", commands[i].words, commands[i].summary);
	(void)printf("\nOptions of every command:\n"
		     "  --json            the answer as JSON (docs/WIRE.md)\n"
		     "  --dir DIR         ask the agent of this node; default: the environment's KEDGE_DIR\n"
		     "  --context FILE    ask over the network: lines address=, ca=, cert=, key=\n"
		     "  --timeout 30s     how long to try\n"
		     "  --help            more about one command: kedge COMMAND --help\n"
		     "\nExit codes: 0 done, 1 and 2 wrong use");
	for (int code = PROTO_E_INVALID; code >= PROTO_E_INTERNAL; code--)
		(void)printf(", %d %s", proto_error_exit(code), proto_error_symbol(code));
	(void)printf(".\nStart: kedge init --help\n");
}

static void print_command_help(const struct command *c)
{
	(void)printf("usage: kedge %s %s\n\n%s.\n%s%s", c->words, c->usage, c->summary, c->help,
		     c->help[0] ? "\n" : "");
}

/* ---- the command line ---- */

struct option_slot {
	const char *name;
	size_t offset;
	bool is_flag;
};

#define VALUE(option, field)                                \
	{                                                   \
		option, offsetof(struct args, field), false \
	}
#define FLAG(option, field)                                \
	{                                                  \
		option, offsetof(struct args, field), true \
	}

static const struct option_slot options[] = {
	FLAG("--json", json),        VALUE("--dir", dir),
	VALUE("--context", context), VALUE("--timeout", timeout),
	VALUE("--name", name),       VALUE("--listen", listen),
	VALUE("--zone", zone),       VALUE("--cluster", cluster),
	VALUE("-f", file),           VALUE("--expires", expires),
	VALUE("--role", role),       VALUE("--limit", limit),
	FLAG("--stale", stale),      FLAG("--dry-run", dry_run),
	FLAG("--hard", hard),        FLAG("--follow", follow),
	VALUE("--node", node),       FLAG("--primary-wins", primary_wins),
	FLAG("--yes", yes),          FLAG("--accept-data-loss", accept_data_loss),
	VALUE("--copies", copies),
};

#define COMMON_OPTIONS 4 /* the first ones */

static bool knows(const struct command *c, size_t option)
{
	const char *name = options[option].name, *at;

	if (option < COMMON_OPTIONS)
		return true;
	for (at = strstr(c->options, name); at; at = strstr(at + 1, name))
		if (at[strlen(name)] == ' ' || at[strlen(name)] == '\0')
			return true;
	return false;
}

/* How many of @argv the words of @c are; 0: not this command. */
static int match(const struct command *c, int argc, char **argv)
{
	char words[64];
	int n = strchr(c->words, ' ') ? 2 : 1;

	if (argc < n)
		return 0;
	(void)snprintf(words, sizeof words, n == 2 ? "%.20s %.20s" : "%.20s", argv[0], n == 2 ? argv[1] : "");
	return strcmp(words, c->words) == 0 ? n : 0;
}

static const struct command *find_command(int argc, char **argv, int *ret_used)
{
	for (size_t i = 0; i < n_commands; i++) {
		*ret_used = match(&commands[i], argc, argv);
		if (*ret_used > 0)
			return &commands[i];
	}
	return NULL;
}

/* One option at argv[*at], with its value. */
static int take_option(const struct command *c, int argc, char **argv, int *at, struct args *args, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		if (strcmp(options[i].name, argv[*at]) != 0 || !knows(c, i))
			continue;
		if (options[i].is_flag) {
			*(bool *)((char *)args + options[i].offset) = true;
			return 0;
		}
		if (*at + 1 >= argc)
			return err_set(e, PROTO_E_INVALID, "%s needs a value (kedge %s --help)", argv[*at], c->words);
		*(const char **)(void *)((char *)args + options[i].offset) = argv[++*at];
		return 0;
	}
	return err_set(e, PROTO_E_INVALID, "%s does not know the option '%.40s' (kedge %s --help)", c->words, argv[*at],
		       c->words);
}

static int parse(const struct command *c, int argc, char **argv, struct args *args, bool *ret_help, struct err *e)
{
	for (int i = 0; i < argc; i++) {
		int rc = 0;

		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			*ret_help = true;
		else if (argv[i][0] == '-' && argv[i][1])
			rc = take_option(c, argc, argv, &i, args, e);
		else if (args->n_words == ARGS_MAX)
			rc = err_set(e, PROTO_E_INVALID, "too many words (kedge %s --help)", c->words);
		else
			args->words[args->n_words++] = argv[i];
		if (rc < 0)
			return rc;
	}
	if (!*ret_help && args->n_words != c->n_words)
		return err_set(e, PROTO_E_INVALID, "usage: kedge %s %s", c->words, c->usage);
	return 0;
}

static int fail(int rc, const struct err *e)
{
	(void)fprintf(stderr, "kedge: %s\n", e->text[0] ? e->text : proto_error_text(rc));
	return proto_error_exit(rc);
}

static int no_such_command(int argc, char **argv)
{
	struct err e = {0};

	if (argc == 0 || strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0 || strcmp(argv[0], "help") == 0) {
		print_help();
		return 0;
	}
	if (strcmp(argv[0], "--version") == 0) {
		(void)printf("kedge %s\n", KEDGE_VERSION);
		return 0;
	}
	(void)err_set(&e, PROTO_E_INVALID, "there is no command '%.40s%s%.40s' (kedge --help lists them)", argv[0],
		      argc > 1 ? " " : "", argc > 1 ? argv[1] : "");
	return fail(PROTO_E_INVALID, &e);
}

int main(int argc, char **argv)
{
	struct args args = {0};
	struct err e = {0};
	const struct command *c;
	bool help = false;
	int used, rc;

	(void)signal(SIGPIPE, SIG_IGN);
	argc--;
	argv++;
	if (argc > 1 && strcmp(argv[0], "help") == 0) {
		argc--;
		argv++;
		help = true;
	}
	c = find_command(argc, argv, &used);
	if (!c)
		return no_such_command(argc, argv);
	rc = parse(c, argc - used, argv + used, &args, &help, &e);
	if (rc == 0 && help)
		print_command_help(c);
	else if (rc == 0)
		rc = c->run(&args, &e);
	return rc < 0 ? fail(rc, &e) : 0;
}
