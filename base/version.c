/* SPDX-License-Identifier: Apache-2.0
 * Which release this program is of. */
#include "base/version.h"

static const char text[] = KEDGE_VERSION;

const char *version_own(void)
{
	return text;
}
