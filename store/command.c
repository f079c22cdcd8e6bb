/* SPDX-License-Identifier: Apache-2.0
 * The commands of the replicated log, as tables. */
#include "store/command.h"

#define F(kind, field) MESSAGE_FIELD(T, kind, field)
#define TYPE(var, number) \
	const struct message_type var##_type = {number, #var, sizeof(T), ARRAY_LEN(var##_fields), var##_fields}

#define T struct command_head
static const struct message_field command_head_fields[] = {F(U64, session), F(U64, num), F(U64, wall), F(STR, actor),
							   F(U32, bodies)};
TYPE(command_head, COMMAND_HEAD);
#undef T

#define T struct command_genesis
static const struct message_field command_genesis_fields[] = {F(STR, cluster), F(STR, name)};
TYPE(command_genesis, COMMAND_GENESIS);
#undef T

#define T struct command_node_add
static const struct message_field command_node_add_fields[] = {F(U32, node), F(STR, name), F(STR, address),
							       F(STR, zone), F(STR, role), F(STR, token)};
TYPE(command_node_add, COMMAND_NODE_ADD);
#undef T

#define T struct command_token_add
static const struct message_field command_token_add_fields[] = {F(STR, id), F(STR, secret), F(STR, role),
								F(U64, expires)};
TYPE(command_token_add, COMMAND_TOKEN_ADD);
#undef T

#define T struct command_vm_put
static const struct message_field command_vm_put_fields[] = {
	F(STR, name),   F(U32, vcpus),   F(U64, memory_bytes), F(BOOL, run), F(STR, kernel),
	F(STR, initrd), F(STR, cmdline), F(U32, priority),     F(STR, uuid), F(STR, machine)};
TYPE(command_vm_put, COMMAND_VM_PUT);
#undef T

#define T struct command_vm_delete
static const struct message_field command_vm_delete_fields[] = {F(STR, name)};
TYPE(command_vm_delete, COMMAND_VM_DELETE);
#undef T

#define T struct command_vm_want
static const struct message_field command_vm_want_fields[] = {F(STR, name), F(BOOL, run), F(BOOL, hard)};
TYPE(command_vm_want, COMMAND_VM_WANT);
#undef T

#define T struct command_vm_restart
static const struct message_field command_vm_restart_fields[] = {F(STR, name), F(BOOL, hard)};
TYPE(command_vm_restart, COMMAND_VM_RESTART);
#undef T

#define T struct command_move
static const struct message_field command_move_fields[] = {F(STR, vm),      F(U32, to),     F(U64, gen),
							   F(BOOL, failed), F(STR, reason), F(BOOL, confirmed)};
TYPE(command_move, COMMAND_MOVE);
#undef T

#define T struct command_movable
static const struct message_field command_movable_fields[] = {F(STR, vm), F(U64, mver), F(BOOL, movable)};
TYPE(command_movable, COMMAND_MOVABLE);
#undef T

#define T struct command_want_movable
static const struct message_field command_want_movable_fields[] = {F(STR, vm), F(BOOL, want)};
TYPE(command_want_movable, COMMAND_WANT_MOVABLE);
#undef T

#define T struct command_volume_create
static const struct message_field command_volume_create_fields[] = {
	F(STR, id), F(STR, name), F(U64, size), F(U32, replicas), F(U32, nodes[0]), F(U32, nodes[1]), F(U32, nodes[2])};
_Static_assert(REPLICAS_MAX == 3, "a field each");
TYPE(command_volume_create, COMMAND_VOLUME_CREATE);
#undef T

#define T struct command_volume_change
static const struct message_field command_volume_change_fields[] = {F(STR, id),    F(U32, from), F(U32, kind),
								    F(U32, epoch), F(U32, node), F(U64, incarnation)};
TYPE(command_volume_change, COMMAND_VOLUME_CHANGE);
#undef T

#define T struct command_volume_report
static const struct message_field command_volume_report_fields[] = {F(STR, id), F(U32, node), F(STR, replica),
								    F(U64, incarnation), F(U64, room)};
TYPE(command_volume_report, COMMAND_VOLUME_REPORT);
#undef T

#define T struct command_volume_takeover
static const struct message_field command_volume_takeover_fields[] = {
	F(STR, id), F(U32, kind), F(U32, epoch), F(U32, node), F(BOOL, confirmed), F(BOOL, silent), F(STR, reason)};
TYPE(command_volume_takeover, COMMAND_VOLUME_TAKEOVER);
#undef T

#define T struct command_volume_member
static const struct message_field command_volume_member_fields[] = {F(STR, id), F(U32, node), F(BOOL, add),
								    F(STR, reason)};
TYPE(command_volume_member, COMMAND_VOLUME_MEMBER);
#undef T

#define T struct command_volume_erased
static const struct message_field command_volume_erased_fields[] = {F(STR, id), F(U32, node)};
TYPE(command_volume_erased, COMMAND_VOLUME_ERASED);
#undef T

#define T struct command_volume_set
static const struct message_field command_volume_set_fields[] = {F(STR, name),     F(U32, replicas), F(BOOL, has_nodes),
								 F(U32, nodes[0]), F(U32, nodes[1]), F(U32, nodes[2])};
TYPE(command_volume_set, COMMAND_VOLUME_SET);
#undef T

#define T struct command_volume_delete
static const struct message_field command_volume_delete_fields[] = {F(STR, name)};
TYPE(command_volume_delete, COMMAND_VOLUME_DELETE);
#undef T

#define T struct command_disk
static const struct message_field command_disk_fields[] = {F(STR, volume), F(STR, vm), F(U32, disk), F(STR, from)};
TYPE(command_disk, COMMAND_DISK);
#undef T

#define T struct command_export
static const struct message_field command_export_fields[] = {F(STR, volume), F(U32, node)};
TYPE(command_export, COMMAND_EXPORT);
#undef T

#define T struct command_node_fence
static const struct message_field command_node_fence_fields[] = {F(STR, name)};
TYPE(command_node_fence, COMMAND_NODE_FENCE);
#undef T

#define T struct command_image_add
static const struct message_field command_image_add_fields[] = {
	F(STR, name), F(STR, digest), F(U64, bytes), F(U64, size), F(STR, format), F(U32, copies), F(U32, node)};
TYPE(command_image_add, COMMAND_IMAGE_ADD);
#undef T

#define T struct command_image_rm
static const struct message_field command_image_rm_fields[] = {F(STR, name)};
TYPE(command_image_rm, COMMAND_IMAGE_RM);
#undef T

#define T struct command_image_held
static const struct message_field command_image_held_fields[] = {F(STR, digest), F(U32, node), F(BOOL, held),
								 F(BOOL, unused)};
TYPE(command_image_held, COMMAND_IMAGE_HELD);
#undef T

#define T struct command_vm_files
static const struct message_field command_vm_files_fields[] = {F(STR, vm), F(STR, kernel), F(STR, initrd),
							       F(BIN, user_data), F(BIN, meta_data)};
TYPE(command_vm_files, COMMAND_VM_FILES);
#undef T

#define T struct command_volume_image
static const struct message_field command_volume_image_fields[] = {F(STR, id), F(STR, image)};
TYPE(command_volume_image, COMMAND_VOLUME_IMAGE);
#undef T

#define T struct command_volume_filled
static const struct message_field command_volume_filled_fields[] = {F(STR, id), F(U32, primary_since)};
TYPE(command_volume_filled, COMMAND_VOLUME_FILLED);
#undef T

#define T struct command_volume_grow
static const struct message_field command_volume_grow_fields[] = {F(STR, name), F(U64, size)};
TYPE(command_volume_grow, COMMAND_VOLUME_GROW);
#undef T

#define T struct command_vm_end
static const struct message_field command_vm_end_fields[] = {F(STR, vm), F(U64, gen), F(STR, reason)};
TYPE(command_vm_end, COMMAND_VM_END);
#undef T

#define T struct command_node_engine
static const struct message_field command_node_engine_fields[] = {F(U32, node), F(BOOL, unsound)};
TYPE(command_node_engine, COMMAND_NODE_ENGINE);
#undef T

#define T struct command_node_remove
static const struct message_field command_node_remove_fields[] = {F(STR, name)};
TYPE(command_node_remove, COMMAND_NODE_REMOVE);
#undef T

void command_begin(const struct command_head *head, struct buf *ret)
{
	CHECK(head->bodies > 0);
	message_encode(&command_head_type, head, ret);
}
