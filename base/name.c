/* SPDX-License-Identifier: Apache-2.0
 * Names of VMs, nodes and zones. ASCII only, whatever the locale says. */
#include "base/name.h"

#include "base/limits.h"

#include <string.h>

#define ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

bool name_is_valid(const char *name)
{
	size_t n = strlen(name);

	return n < NAME_BYTES_MAX && strspn(name, ALNUM) > 0 && strspn(name, ALNUM "._-") == n;
}
