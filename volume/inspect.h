/* SPDX-License-Identifier: Apache-2.0
 * What is in a replica's folder, for people and programs: reads only, also beside a running engine. */
#ifndef KEDGE_VOLUME_INSPECT_H
#define KEDGE_VOLUME_INSPECT_H

#include "base/base.h"

#include <stdio.h>

/* [worker] Print superblock, state, intents, stamps, allocated bytes and every damage of the replica in @dir to
 * @out, as lines or as one JSON object (docs/DISK.md). Opens the files read-only; for an instant it asks for the
 * shared lock, to tell whether an engine has the replica open. Pages that look torn are read again, since that
 * engine may be writing.
 * 0: sound. -EBADMSG: damage, all of it named in the output; @e has the first. -ENOTSUP: a newer format. Else the
 * errno of what hindered it. */
int volume_inspect(const char *dir, FILE *out, bool json, struct err *e) KEDGE_MUST_CHECK;

#endif
