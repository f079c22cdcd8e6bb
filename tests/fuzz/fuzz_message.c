/* SPDX-License-Identifier: Apache-2.0
 * Messages of peers, engines and administrators: whatever comes is refused, or is read as it is written. */
#include "proto/engine.h"
#include "proto/peer.h"
#include "proto/proto.h"
#include "proto/unpack.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct message_type *const types[] = {
	&peer_lease_req_type,  &peer_lease_ping_type, &peer_lease_pong_type,   &peer_lease_grant_type,
	&peer_lease_ages_type, &peer_lease_age_type,  &peer_stopped_type,      &peer_node_info_type,
	&peer_vm_state_type,   &peer_forward_type,    &peer_answer_type,       &peer_volume_verify_type,
	&peer_ask_type,        &peer_wait_type,       &peer_file_ask_type,     &peer_file_data_type,
	&peer_file_bad_type,   &engine_hello_type,    &engine_row_type,        &engine_member_type,
	&engine_drop_type,     &engine_proposed_type, &engine_verify_type,     &engine_echo_type,
	&engine_opened_type,   &engine_propose_type,  &engine_link_state_type, &engine_status_type,
	&engine_peer_type,     &engine_dropped_type,  &engine_finding_type,
};

/* A request of `kedge`, [0, id, "vm.start", [{name: "till"}]], and a map with one of every kind of value. */
static const char request[] = "\x94\x00\x01\xa8vm.start\x91\x81\xa4name\xa4till";
static const char values[] = "\x87\xa1"
			     "a\xc0\xa1"
			     "b\xc3\xa1"
			     "c\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa1"
			     "d\xd3\x80\x00\x00\x00\x00\x00\x00\x00\xa1"
			     "e\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xa1"
			     "f\xc4\x03\x00\x01\x02\xa1"
			     "g\xdc\x00\x02\xd9\x01x\xe0";

/* A message whose numbers are high, and whose strings and views are empty. */
static void put_message(const struct message_type *t, bool high, struct buf *ret)
{
	uint8_t *msg = xcalloc(1, t->size);

	for (size_t i = 0; high && i < t->n_fields; i++)
		if (t->fields[i].kind == MESSAGE_U64 || t->fields[i].kind == MESSAGE_U32)
			memset(msg + t->fields[i].offset, 0xff, t->fields[i].size);
	message_encode(t, msg, ret);
	free(msg);
}

bool fuzz_seed(unsigned i, struct buf *ret)
{
	if (i == 2 * ARRAY_LEN(types))
		buf_append(ret, request, sizeof request - 1);
	else if (i == 2 * ARRAY_LEN(types) + 1)
		buf_append(ret, values, sizeof values - 1);
	else if (i < 2 * ARRAY_LEN(types))
		put_message(types[i / 2], i % 2, ret);
	return i < 2 * ARRAY_LEN(types) + 2;
}

void fuzz_begin(void)
{
}

/* What was read is written, read and written again: both writings must be the same. */
static void there_and_back(const struct message_type *t, const uint8_t *p, size_t n)
{
	uint8_t *msg = xcalloc(1, t->size);
	struct buf first = {0}, second = {0};
	size_t used;

	if (message_decode(t, p, n, msg, &used) == 0) {
		CHECK(used <= n);
		message_encode(t, msg, &first);
		CHECK(message_decode(t, first.data, first.len, msg, &used) == 0 && used == first.len);
		message_encode(t, msg, &second);
		CHECK(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
	}
	buf_free(&first);
	buf_free(&second);
	free(msg);
}

static void read_value(const uint8_t *p, size_t n, size_t used)
{
	struct buf text = {0}, copy = {0};
	struct unpack u;
	size_t less, again;

	CHECK(used > 0 && used <= n);
	CHECK(unpack_scan(p, used - 1, &less) == -EAGAIN); /* it is whole with its last byte only */
	CHECK(unpack_open(&u, p, n) == 0);
	unpack_json(u.root, 0, &text);
	unpack_copy(u.root, &copy);
	CHECK(unpack_scan(copy.data, copy.len, &again) == 0 && again == copy.len);
	unpack_free(&u);
	buf_free(&text);
	buf_free(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	uint32_t id;
	size_t used;
	int rc = unpack_scan(p, n, &used);

	CHECK(rc == 0 || rc == -EAGAIN || rc == -EBADMSG);
	if (rc == 0)
		read_value(p, n, used);
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (message_id(p, n, &id) < 0 || id == types[i]->id)
			there_and_back(types[i], p, n);
	return 0;
}
