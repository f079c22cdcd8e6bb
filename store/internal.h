/* SPDX-License-Identifier: Apache-2.0
 * What the store's files share. */
#ifndef KEDGE_STORE_INTERNAL_H
#define KEDGE_STORE_INTERNAL_H

#include "store/sql.h"
#include "store/store.h"

struct store {
	struct sql q;
	char path[PATH_BYTES_MAX];
	uint64_t applied;
	uint64_t changes;
	uint64_t wall;        /* of the entry being applied; never goes back */
	unsigned uncommitted; /* entries in the open transaction */
	const char *actor;    /* of the entry being applied */
};

#define STORE_COMMIT_ENTRIES 64

extern const char store_schema[];
extern const char *const store_tables[]; /* with their order; NULL at the end */

/* Bodies of commands: change the tables and fill @r. Everything is undone when r->code is set. */
void store_apply_genesis(struct store *s, const struct command_genesis *c, struct store_result *r);
void store_apply_node_add(struct store *s, const struct command_node_add *c, struct store_result *r);
void store_apply_token_add(struct store *s, const struct command_token_add *c, struct store_result *r);
void store_apply_vm_put(struct store *s, const struct command_vm_put *c, struct store_result *r);
void store_apply_vm_delete(struct store *s, const struct command_vm_delete *c, struct store_result *r);
void store_apply_vm_want(struct store *s, const struct command_vm_want *c, struct store_result *r);
void store_apply_vm_restart(struct store *s, const struct command_vm_restart *c, struct store_result *r);
void store_apply_move(struct store *s, const struct command_move *c, struct store_result *r);
void store_apply_movable(struct store *s, const struct command_movable *c, struct store_result *r);
void store_apply_want_movable(struct store *s, const struct command_want_movable *c, struct store_result *r);
void store_apply_volume_create(struct store *s, const struct command_volume_create *c, struct store_result *r);
void store_apply_volume_change(struct store *s, const struct command_volume_change *c, struct store_result *r);
void store_apply_volume_report(struct store *s, const struct command_volume_report *c, struct store_result *r);
void store_apply_volume_takeover(struct store *s, const struct command_volume_takeover *c, struct store_result *r);
void store_apply_volume_member(struct store *s, const struct command_volume_member *c, struct store_result *r);
void store_apply_volume_erased(struct store *s, const struct command_volume_erased *c, struct store_result *r);
void store_apply_volume_grow(struct store *s, const struct command_volume_grow *c, struct store_result *r);
void store_apply_volume_set(struct store *s, const struct command_volume_set *c, struct store_result *r);
void store_apply_volume_delete(struct store *s, const struct command_volume_delete *c, struct store_result *r);
void store_apply_disk(struct store *s, const struct command_disk *c, struct store_result *r);
void store_apply_node_fence(struct store *s, const struct command_node_fence *c, struct store_result *r);
void store_apply_export(struct store *s, const struct command_export *c, struct store_result *r);
void store_apply_image_add(struct store *s, const struct command_image_add *c, struct store_result *r);
void store_apply_image_rm(struct store *s, const struct command_image_rm *c, struct store_result *r);
void store_apply_image_held(struct store *s, const struct command_image_held *c, struct store_result *r);
void store_apply_vm_files(struct store *s, const struct command_vm_files *c, struct store_result *r);
void store_apply_volume_image(struct store *s, const struct command_volume_image *c, struct store_result *r);
void store_apply_vm_end(struct store *s, const struct command_vm_end *c, struct store_result *r);
void store_apply_node_engine(struct store *s, const struct command_node_engine *c, struct store_result *r);
void store_apply_node_remove(struct store *s, const struct command_node_remove *c, struct store_result *r);
void store_apply_volume_filled(struct store *s, const struct command_volume_filled *c, struct store_result *r);

/* Write the row back, as a new version; it grows if that is what was waited for. */
void store_volume_put(struct store *s, struct store_volume *v);
/* Its last replica is erased: nothing is left of it. */
void store_volume_delete(struct store *s, const struct store_volume *v);
/* By name, and not one that is being deleted. False: @r says why not. */
bool store_volume_must_find(struct store *s, const char *name, struct store_volume *ret, struct store_result *r);
/* Are all disks of @vm led by @node? Else MOVE is refused: it comes in one entry with their takeovers. */
bool store_disks_are_led(struct store *s, const char *vm, uint32_t node);
/* The name of a disk of @vm that is not filled yet. False: there is none. */
bool store_disk_is_filling(struct store *s, const char *vm, char ret[NAME_BYTES_MAX]);
/* Does anything refer to the file? */
bool store_file_is_used(struct store *s, const char *digest);
/* The volume @id shall be erased: what it was to be filled from is free. */
void store_source_release(struct store *s, const char *id);
void store_vm_files_release(struct store *s, const char *vm);
/* @vm is gone: its volumes are kept, and nobody's. */
void store_disks_release(struct store *s, const char *vm);
/* Generations are drawn from one counter of the cluster, so that none is ever reused, not even by a VM that was deleted
 * and defined again under the same name. */
uint64_t store_next_gen(struct store *s);
/* VMs and exports. */
uint64_t store_count_vms(struct store *s);

/* Sessions: true when @head was answered before, or is refused; then @r is the answer. */
bool store_session_known(struct store *s, const struct command_head *head, struct store_result *r);
void store_session_answer(struct store *s, const struct command_head *head, const struct store_result *r);

/* Append to the ring of events. */
void store_event_add(struct store *s, const char *kind, const char *object, const char *fmt, ...) KEDGE_PRINTF(4, 5);

void store_refuse(struct store_result *r, int code, const char *fmt, ...) KEDGE_PRINTF(3, 4);

#endif
