/* SPDX-License-Identifier: Apache-2.0
 * What is left of guests when a case failed. */
#ifndef KEDGE_TESTS_UNIT_GUEST_HELP_H
#define KEDGE_TESTS_UNIT_GUEST_HELP_H

/* End every QEMU that runs a guest of this folder, known to the test or not. Returns how many there were. */
unsigned guests_end_below(const char *folder);

#endif
