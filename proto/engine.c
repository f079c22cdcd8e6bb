/* SPDX-License-Identifier: Apache-2.0
 * The messages between kedged and kedge-vol, as tables. */
#include "proto/engine.h"

#define F(kind, field) MESSAGE_FIELD(T, kind, field)
#define TYPE(var, number) \
	const struct message_type var##_type = {number, #var, sizeof(T), ARRAY_LEN(var##_fields), var##_fields}

#define T struct engine_hello
static const struct message_field engine_hello_fields[] = {F(U32, node)};
TYPE(engine_hello, ENGINE_HELLO);
#undef T

#define T struct engine_row
static const struct message_field engine_row_fields[] = {
	F(STR, id),      F(STR, name),          F(U64, size),    F(U64, version), F(U32, epoch),
	F(U32, primary), F(U32, primary_since), F(U32, fork),    F(U32, cold),    F(U32, vm_epoch),
	F(U32, serve),   F(U64, gen),           F(BIN, members), F(U64, grow_to)};
TYPE(engine_row, ENGINE_ROW);
#undef T

#define T struct engine_member
static const struct message_field engine_member_fields[] = {F(U32, node),        F(STR, replica),  F(BOOL, in_sync),
							    F(U64, incarnation), F(U64, reported), F(U64, size)};
TYPE(engine_member, ENGINE_MEMBER);
#undef T

#define T struct engine_drop
static const struct message_field engine_drop_fields[] = {F(STR, id)};
#define engine_dropped_fields engine_drop_fields
TYPE(engine_drop, ENGINE_DROP);
TYPE(engine_dropped, ENGINE_DROPPED);
#undef T

#define T struct engine_proposed
static const struct message_field engine_proposed_fields[] = {F(U64, seq), F(U32, error)};
TYPE(engine_proposed, ENGINE_PROPOSED);
#undef T

#define T struct engine_verify
static const struct message_field engine_verify_fields[] = {F(STR, id), F(BOOL, primary_wins)};
TYPE(engine_verify, ENGINE_VERIFY);
#undef T

#define T struct engine_echo
static const struct message_field engine_echo_fields[] = {F(U64, number)};
TYPE(engine_echo, ENGINE_ECHO);
#undef T

#define T struct engine_opened
static const struct message_field engine_opened_fields[] = {F(STR, id), F(STR, replica), F(U64, incarnation),
							    F(U64, size)};
TYPE(engine_opened, ENGINE_OPENED);
#undef T

#define T struct engine_propose
static const struct message_field engine_propose_fields[] = {F(U64, seq),   F(STR, id),   F(U32, kind),
							     F(U32, epoch), F(U32, node), F(U64, incarnation)};
TYPE(engine_propose, ENGINE_PROPOSE);
#undef T

#define T struct engine_link_state
static const struct message_field engine_link_state_fields[] = {F(U32, node), F(BOOL, up), F(BOOL, worn)};
TYPE(engine_link_state, ENGINE_LINK);
#undef T

#define T struct engine_status
static const struct message_field engine_status_fields[] = {
	F(STR, id),           F(BOOL, leads),  F(BOOL, serves),    F(U32, epoch),    F(U64, need),
	F(U64, waiting),      F(U32, clients), F(BOOL, scrubbing), F(U64, scrub_at), F(U64, scrub_bad),
	F(U64, scrub_passes), F(STR, problem), F(BIN, peers),      F(U64, size)};
TYPE(engine_status, ENGINE_STATUS);
#undef T

#define T struct engine_peer
static const struct message_field engine_peer_fields[] = {F(U32, node), F(BOOL, connected), F(BOOL, known),
							  F(U64, need), F(U64, need_total), F(U64, busy_us)};
TYPE(engine_peer, ENGINE_PEER);
#undef T

#define T struct engine_finding
static const struct message_field engine_finding_fields[] = {F(STR, id),          F(U32, verdict), F(U32, node),
							     F(BOOL, unreadable), F(U64, offset),  F(U64, length)};
TYPE(engine_finding, ENGINE_FINDING);
#undef T

#define T struct engine_about
static const struct message_field engine_about_fields[] = {F(STR, version), F(BOOL, leaving)};
TYPE(engine_about, ENGINE_ABOUT);
#undef T
