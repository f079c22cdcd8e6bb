/* SPDX-License-Identifier: Apache-2.0
 * A core by itself, whose effects are only noted down. */
#ifndef KEDGE_TESTS_UNIT_CORE_HELP_H
#define KEDGE_TESTS_UNIT_CORE_HELP_H

#include "volume/core.h"

#define SIZE    (2 * (uint64_t)VOLUME_EXTENT_BYTES + VOLUME_BLOCK_BYTES)
#define BLOCKS  (2 * VOLUME_EXTENT_BLOCKS + 1)
#define IOS_MAX 4096

struct fixture {
	struct volume_core *c;
	uint64_t state_seq;
	bool intents;
	struct volume_io *ios[IOS_MAX];
	size_t n_ios;
	uint32_t maps[IOS_MAX];
	size_t n_maps;
	struct volume_frame sent; /* the last one */
	size_t n_sent, n_unlinked, n_dropped, n_replies;
	struct volume_finding finding; /* the last one */
	size_t n_findings;
	int rc;
	uint8_t bits[8];
	struct volume_ballot stamps[3 * VOLUME_EXTENT_BLOCKS];
};

int set_up(void **state);
int tear_down(void **state);
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)

void open_core(struct fixture *f, node_id_t self);

/* The store's row: one member, which leads, in epoch 1 or in @epoch. */
void row(struct fixture *f, node_id_t primary);
void row_in(struct fixture *f, node_id_t primary, uint32_t epoch);

/* Everything that was begun ends well. */
void settle(struct fixture *f);

#endif
