/* SPDX-License-Identifier: Apache-2.0
 * What cannot be undone: giving up data, and saying that a node is off. Both say what they do, and ask. */
#include "cli/command.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* True: the administrator typed @word, or said --yes. */
static bool confirmed(const struct args *args, const char *word)
{
	char line[NAME_BYTES_MAX + 2];

	if (args->yes)
		return true;
	if (!isatty(STDIN_FILENO))
		return false;
	(void)printf("Type '%s' to go on: ", word);
	(void)fflush(stdout);
	if (!fgets(line, sizeof line, stdin))
		return false;
	line[strcspn(line, "\n")] = '\0';
	return strcmp(line, word) == 0;
}

static int say_what_is_lost(const struct args *args, struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0}, list = {0};
	const struct msgpack_object *v;
	char since[CELL_BYTES];
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	pack_kv_str(&p, "name", args->words[0]);
	rc = ask_read(args, "volume.show", &p, &answer, e);
	if (rc == 0 && !args->json) {
		v = unpack_key(answer.result, "volume");
		describe_replicas(unpack_key(v, "replicas"), &list);
		(void)text_of(v, "degraded_since", since, sizeof since);
		(void)printf(
			"volume %s has replicas on %s.\nThe one on %s shall lead. What was written since it was in "
			"sync%s%s IS LOST,\nalso where the others come back.\n",
			args->words[0], (char *)list.data, args->node, since[0] ? ", which was at " : "", since);
		buf_free(&list);
	}
	rpc_free(&answer);
	return rc;
}

static int change(const struct args *args, const char *method, const char *done, struct err *e)
{
	struct rpc_answer answer = {0};
	struct buf params = {0};
	struct pack p;
	int rc;

	ask_begin(&p, &params);
	pack_kv_str(&p, "name", args->words[0]);
	if (args->node)
		pack_kv_str(&p, "node", args->node);
	pack_kv_bool(&p, "accept_data_loss", args->accept_data_loss);
	rc = ask_change(args, method, &p, &answer, e);
	if (rc == 0 && args->json)
		print_json(answer.result, 2);
	else if (rc == 0)
		(void)printf("%s: %s\n", args->words[0], done);
	rpc_free(&answer);
	return rc;
}

int command_volume_force(const struct args *args, struct err *e)
{
	int rc;

	if (!args->node || !args->accept_data_loss)
		return err_set(e, PROTO_E_INVALID, "volume force: --node NODE and --accept-data-loss are needed");
	rc = say_what_is_lost(args, e);
	if (rc < 0)
		return rc;
	if (!confirmed(args, args->words[0]))
		return err_set(e, PROTO_E_INVALID, "volume force: not confirmed, nothing was changed (--yes answers)");
	return change(args, "volume.force", "led by what is left", e);
}

int command_node_fence_ack(const struct args *args, struct err *e)
{
	if (!args->yes && !args->json)
		(void)printf("Is %s off, and does it stay off? If it runs after all, its VMs run twice.\n",
			     args->words[0]);
	if (!confirmed(args, args->words[0]))
		return err_set(e, PROTO_E_INVALID,
			       "node fence-ack: not confirmed, nothing was changed (--yes answers)");
	return change(args, "node.fence_ack", "its VMs may run elsewhere", e);
}

int command_node_remove(const struct args *args, struct err *e)
{
	if (!args->yes && !args->json)
		(void)printf(
			"%s leaves the cluster for good, with its replicas. To come back it joins as a new node.\n",
			args->words[0]);
	if (!confirmed(args, args->words[0]))
		return err_set(e, PROTO_E_INVALID, "node remove: not confirmed, nothing was changed (--yes answers)");
	return change(args, "node.remove", "no member any more", e);
}
