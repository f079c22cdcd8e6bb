/* SPDX-License-Identifier: Apache-2.0
 * The first entry of a new cluster. `kedge init` leaves a mark; the first start makes a one-node raft group, logs the
 * cluster's identity and its first node in one entry, and removes the mark. Any crash on the way begins again. */
#include "agent/agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MARK_BYTES_MAX 4096

static void mark_path(const struct agent *agent, char ret[PATH_BYTES_MAX + 16])
{
	(void)snprintf(ret, PATH_BYTES_MAX + 16, "%s/bootstrap", agent->config.dir);
}

bool founding_is_due(const struct agent *agent)
{
	char path[PATH_BYTES_MAX + 16];

	mark_path(agent, path);
	return access(path, F_OK) == 0;
}

/* The line `name=...` of the mark; a cluster without a name is called kedge. */
static void read_name(const struct agent *agent, char ret[NAME_BYTES_MAX])
{
	char path[PATH_BYTES_MAX + 16], *line, *save = NULL;
	struct buf mark = {0};

	(void)snprintf(ret, NAME_BYTES_MAX, "kedge");
	mark_path(agent, path);
	if (file_read(path, MARK_BYTES_MAX, &mark, NULL) < 0)
		return;
	buf_append(&mark, "", 1);
	for (line = strtok_r((char *)mark.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (strncmp(line, "name=", 5) == 0 && line[5])
			(void)snprintf(ret, NAME_BYTES_MAX, "%s", line + 5);
	buf_free(&mark);
}

static void founded(void *ctx, int status, const struct store_result *result)
{
	((struct agent *)ctx)->founding = FOUNDING_DUE;
	if (status == 0 && result->code != 0)
		log_error("the cluster cannot be founded: %s", result->text);
}

static void propose(struct agent *agent)
{
	struct command_head head = {.wall = clock_wall(), .actor = "init", .bodies = 2};
	struct command_genesis genesis = {0};
	struct command_node_add node = {.node = agent->config.id, .role = "node"};
	struct buf entry = {0};

	memcpy(genesis.cluster, agent->config.cluster, sizeof genesis.cluster);
	read_name(agent, genesis.name);
	memcpy(node.name, agent->config.name, sizeof node.name);
	memcpy(node.address, agent->config.listen, sizeof node.address);
	memcpy(node.zone, agent->config.zone, sizeof node.zone);
	command_begin(&head, &entry);
	message_encode(&command_genesis_type, &genesis, &entry);
	message_encode(&command_node_add_type, &node, &entry);
	if (consensus_propose(agent->consensus, entry.data, entry.len, founded, agent) == 0)
		agent->founding = FOUNDING_LOGGED;
	buf_free(&entry);
}

void founding_step(struct agent *agent)
{
	char path[PATH_BYTES_MAX + 16];
	struct store_cluster cluster;

	if (agent->founding != FOUNDING_DUE || !node_leads(agent->node))
		return;
	store_cluster(agent->store, &cluster);
	if (cluster.cluster[0] == '\0') {
		propose(agent);
		return;
	}
	mark_path(agent, path);
	if (unlink(path) < 0 && errno != ENOENT)
		log_warning("remove %s: %s, ignoring: it is tried again at the next start", path, strerror(errno));
	agent->founding = FOUNDING_OVER;
	log_info("the cluster '%s' is founded", cluster.name);
}
