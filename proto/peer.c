/* SPDX-License-Identifier: Apache-2.0
 * The frames on a link between two nodes, as tables. */
#include "proto/peer.h"

#define F(kind, field) MESSAGE_FIELD(T, kind, field)
#define TYPE(var, number) \
	const struct message_type var##_type = {number, #var, sizeof(T), ARRAY_LEN(var##_fields), var##_fields}

#define T struct peer_lease_req
static const struct message_field peer_lease_req_fields[] = {F(U64, session), F(U64, num)};
TYPE(peer_lease_req, PEER_LEASE_REQ);
#undef T

#define T struct peer_lease_round
static const struct message_field peer_lease_ping_fields[] = {F(U64, term), F(U64, round)};
#define peer_lease_pong_fields peer_lease_ping_fields
TYPE(peer_lease_ping, PEER_LEASE_PING);
TYPE(peer_lease_pong, PEER_LEASE_PONG);
#undef T

#define T struct peer_lease_grant
static const struct message_field peer_lease_grant_fields[] = {F(U64, term), F(U64, session), F(U64, num),
							       F(U64, index)};
TYPE(peer_lease_grant, PEER_LEASE_GRANT);
#undef T

#define T struct peer_lease_age
static const struct message_field peer_lease_ages_fields[] = {F(U64, term), F(U64, age)};
#define peer_lease_age_fields peer_lease_ages_fields
TYPE(peer_lease_ages, PEER_LEASE_AGES);
TYPE(peer_lease_age, PEER_LEASE_AGE);
#undef T

#define T struct peer_stopped
static const struct message_field peer_stopped_fields[] = {F(STR, vm), F(U64, gen), F(BOOL, failed), F(STR, reason),
							   F(BOOL, elsewhere)};
TYPE(peer_stopped, PEER_STOPPED);
#undef T

#define T struct peer_node_info
static const struct message_field peer_node_info_fields[] = {F(U64, memory_bytes),
							     F(U32, cpus),
							     F(STR, accel),
							     F(STR, version),
							     F(U64, applied),
							     F(U64, hash),
							     F(BOOL, guard_realtime),
							     F(BOOL, runs_vms),
							     F(BIN, vms),
							     F(BOOL, has_engine),
							     F(U64, disk_free),
							     F(BIN, volumes),
							     F(BIN, waits),
							     F(BOOL, engine_unsound),
							     F(STR, engine_version),
							     F(STR, guard_version),
							     F(STR, agent_version)};
TYPE(peer_node_info, PEER_NODE_INFO);
#undef T

#define T struct peer_vm_state
static const struct message_field peer_vm_state_fields[] = {F(STR, vm), F(U64, gen), F(STR, state)};
TYPE(peer_vm_state, PEER_VM_STATE);
#undef T

#define T struct peer_wait
static const struct message_field peer_wait_fields[] = {F(STR, object), F(STR, text)};
TYPE(peer_wait, PEER_WAIT);
#undef T

#define T struct peer_file_ask
static const struct message_field peer_file_ask_fields[] = {F(STR, digest), F(U64, offset)};
#define peer_file_bad_fields peer_file_ask_fields
TYPE(peer_file_ask, PEER_FILE_ASK);
TYPE(peer_file_bad, PEER_FILE_BAD);
#undef T

#define T struct peer_file_data
static const struct message_field peer_file_data_fields[] = {F(STR, digest), F(U64, offset), F(U64, total),
							     F(U32, error), F(BIN, data)};
TYPE(peer_file_data, PEER_FILE_DATA);
#undef T

#define T struct peer_forward
static const struct message_field peer_forward_fields[] = {F(U64, id), F(U32, role), F(STR, actor), F(BIN, request)};
TYPE(peer_forward, PEER_FORWARD);
#undef T

#define T struct peer_ask
static const struct message_field peer_ask_fields[] = {F(STR, vm), F(U64, mver)};
TYPE(peer_ask, PEER_ASK);
#undef T

#define T struct engine_verify
static const struct message_field peer_volume_verify_fields[] = {F(STR, id), F(BOOL, primary_wins)};
TYPE(peer_volume_verify, PEER_VOLUME_VERIFY);
#undef T

#define T struct peer_answer
static const struct message_field peer_answer_fields[] = {F(U64, id), F(BIN, response)};
TYPE(peer_answer, PEER_ANSWER);
#undef T
