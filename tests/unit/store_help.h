/* SPDX-License-Identifier: Apache-2.0
 * What the tests of the store share: a store in memory, and entries of one or more bodies. */
#ifndef KEDGE_TESTS_UNIT_STORE_HELP_H
#define KEDGE_TESTS_UNIT_STORE_HELP_H

#include "store/store.h"

#define WALL 1000000

struct fixture {
	struct store *s;
	uint64_t index; /* of the last entry */
};

struct body {
	const struct message_type *type;
	const void *body;
};

/* Apply one entry of @n bodies, and commit. Returns the result's code. */
int apply_all(struct fixture *f, const struct body *bodies, uint32_t n);
/* The same of one body. */
int apply(struct fixture *f, const struct message_type *t, const void *body);

#endif
