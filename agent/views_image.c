/* SPDX-License-Identifier: Apache-2.0
 * What is shown of images, in the words of docs/WIRE.md. */
#include "agent/agent.h"

#include <stdio.h>
#include <stdlib.h>

static void pack_image(struct agent *agent, struct pack *p, const struct store_image *image,
		       const struct store_node *nodes, size_t n_nodes)
{
	uint64_t holders = store_holders(agent->store, image->digest);
	char created[32];

	clock_format(image->created, created, sizeof created);
	pack_map(p);
	pack_kv_str(p, "name", image->name);
	pack_kv_str(p, "digest", image->digest);
	pack_kv_str(p, "format", image->format);
	pack_kv_u64(p, "size", image->size);
	pack_kv_u64(p, "bytes", image->bytes);
	pack_kv_u64(p, "copies_wanted", image->copies);
	pack_key(p, "nodes");
	pack_array(p);
	for (size_t i = 0; i < n_nodes; i++)
		if (holders & 1ULL << (nodes[i].node - 1))
			pack_str(p, nodes[i].name);
	pack_end(p);
	pack_kv_str(p, "created", created);
	pack_end(p);
}

void view_images(struct agent *agent, struct pack *p)
{
	struct store_image *images = xcalloc(IMAGES_MAX, sizeof *images);
	struct store_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
	size_t n = store_images(agent->store, images, IMAGES_MAX),
	       n_nodes = store_nodes(agent->store, nodes, NODES_MAX);

	pack_map(p);
	pack_key(p, "images");
	pack_array(p);
	for (size_t i = 0; i < n; i++)
		pack_image(agent, p, &images[i], nodes, n_nodes);
	pack_end(p);
	pack_end(p);
	free(nodes);
	free(images);
}
