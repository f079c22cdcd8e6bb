/* SPDX-License-Identifier: Apache-2.0
 * What is left of guests when a case failed. */
#ifndef KEDGE_TESTS_UNIT_GUEST_HELP_H
#define KEDGE_TESTS_UNIT_GUEST_HELP_H

#include <stdbool.h>

/* End every QEMU that runs a guest of this folder, known to the test or not. Returns how many there were. */
unsigned guests_end_below(const char *folder);

/* Do so when this process dies, however it does: also when it is killed for being too slow. False: it cannot be done.
 */
bool guests_end_with_me(const char *folder);

#endif
