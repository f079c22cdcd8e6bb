/* SPDX-License-Identifier: Apache-2.0
 * The part of apply that is about the files of a VM: its kernel and initrd by their digests, and what cloud-init gets.
 */
#ifndef KEDGE_AGENT_APPLY_FILES_H
#define KEDGE_AGENT_APPLY_FILES_H

#include "agent/methods.h"

/* [loop] The files of @vm as its document says; @old: the VM as it is, or NULL. The body goes to @c, behind that of the
 * VM itself; @ret_changed: is there anything to do? 0 or a PROTO_E_*. */
int apply_files(struct agent *agent, const struct msgpack_object *doc, const char *where,
		const struct command_vm_put *vm, const struct store_vm *old, struct change *c, bool *ret_changed,
		struct err *e);

#endif
