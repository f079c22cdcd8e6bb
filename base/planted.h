/* SPDX-License-Identifier: Apache-2.0
 * Planted bugs: the fatal mistakes of the protocol pages, switched on one at a time in test builds so that the
 * simulator can prove that it would catch them. In production PLANTED() is the constant false. */
#ifndef KEDGE_BASE_PLANTED_H
#define KEDGE_BASE_PLANTED_H

#ifdef KEDGE_TEST_BUILD
extern const char *planted_bug; /* the one that is on, or NULL */
#include <string.h>
#define PLANTED(name) (planted_bug && strcmp(planted_bug, #name) == 0)
#else
#define PLANTED(name) 0
#endif

#endif
