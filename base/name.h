/* SPDX-License-Identifier: Apache-2.0
 * Names of VMs, nodes and zones. */
#ifndef KEDGE_BASE_NAME_H
#define KEDGE_BASE_NAME_H

#include "base/types.h"

/* [any] Letters, digits, '.', '_' and '-', beginning with a letter or digit, shorter than NAME_BYTES_MAX. */
bool name_is_valid(const char *name);

#endif
