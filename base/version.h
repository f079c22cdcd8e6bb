/* SPDX-License-Identifier: Apache-2.0
 * Which release this program is of, at one place in the file, so that the version can be told from what runs. */
#ifndef KEDGE_BASE_VERSION_H
#define KEDGE_BASE_VERSION_H

/* [any] "0.1.0". */
const char *version_own(void);

#endif
