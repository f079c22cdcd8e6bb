/* SPDX-License-Identifier: Apache-2.0
 * Messages: what is written is read; what a stranger sends is refused, never trusted. */
#include "store/command.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct message_type *const types[] = {
	&command_head_type,    &command_genesis_type,   &command_node_add_type, &command_token_add_type,
	&command_vm_put_type,  &command_vm_delete_type, &command_vm_want_type,  &command_vm_restart_type,
	&command_move_type,    &peer_lease_req_type,    &peer_lease_grant_type, &peer_lease_ping_type,
	&peer_lease_pong_type, &peer_stopped_type,      &peer_node_info_type,   &peer_vm_state_type,
	&peer_lease_age_type,  &peer_lease_ages_type,
};

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void a_move_comes_back_as_it_was(void **state KEDGE_UNUSED)
{
	struct command_move in = {.vm = "till-7", .to = 3, .gen = UINT64_MAX, .failed = true, .reason = "why"}, out;
	struct buf b = {0};
	size_t used = 0;

	message_encode(&command_move_type, &in, &b);
	assert_int_equal(message_decode(&command_move_type, b.data, b.len, &out, &used), 0);
	assert_int_equal(used, b.len);
	assert_string_equal(out.vm, in.vm);
	assert_int_equal(out.to, in.to);
	assert_true(out.gen == in.gen && out.failed);
	for (size_t n = 0; n < b.len; n++) /* truncated anywhere */
		assert_int_equal(message_decode(&command_move_type, b.data, n, &out, NULL), -EBADMSG);
	assert_int_equal(message_decode(&command_head_type, b.data, b.len, &out, NULL), -EBADMSG);
	buf_free(&b);
}

static void text_that_does_not_fit_is_refused(void **state KEDGE_UNUSED)
{
	char name[NAME_BYTES_MAX + 1];
	struct command_vm_delete out;
	struct buf b = {0};
	struct pack p = {.out = &b};

	memset(name, 'a', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	pack_array(&p);
	pack_u64(&p, MESSAGE_VERSION);
	pack_u64(&p, COMMAND_VM_DELETE);
	pack_str(&p, name);
	pack_end(&p);
	assert_int_equal(message_decode(&command_vm_delete_type, b.data, b.len, &out, NULL), -EBADMSG);
	buf_free(&b);
}

/* A newer writer's fields are skipped, an older one's missing fields are zero. */
static void releases_understand_each_other(void **state KEDGE_UNUSED)
{
	struct command_vm_want out;
	struct buf b = {0};
	struct pack p = {.out = &b};

	pack_array(&p);
	pack_u64(&p, MESSAGE_VERSION);
	pack_u64(&p, COMMAND_VM_WANT);
	pack_str(&p, "a");
	pack_bool(&p, true);
	pack_bool(&p, true);
	pack_str(&p, "a field of tomorrow");
	pack_end(&p);
	assert_int_equal(message_decode(&command_vm_want_type, b.data, b.len, &out, NULL), 0);
	assert_true(out.run && out.hard);
	b.len = 0;
	pack_array(&p);
	pack_u64(&p, MESSAGE_VERSION);
	pack_u64(&p, COMMAND_VM_WANT);
	pack_str(&p, "a");
	pack_end(&p);
	assert_int_equal(message_decode(&command_vm_want_type, b.data, b.len, &out, NULL), 0);
	assert_false(out.run || out.hard);
	buf_free(&b);
}

static void lengths_are_not_believed(void **state KEDGE_UNUSED)
{
	static const uint8_t lies[][6] = {
		{0xdd, 0xff, 0xff, 0xff, 0xff, 0x00}, /* an array of 4 G elements */
		{0xdf, 0xff, 0xff, 0xff, 0xff, 0x00}, /* a map */
		{0xdb, 0xff, 0xff, 0xff, 0xff, 'a'},  /* a text */
		{0xc6, 0xff, 0xff, 0xff, 0xff, 'a'},  /* bytes */
	};
	struct unpack u;

	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		assert_int_equal(unpack_open(&u, lies[i], sizeof lies[i]), -EBADMSG);
		unpack_free(&u);
	}
}

static void nesting_has_an_end(void **state KEDGE_UNUSED)
{
	uint8_t deep[100000];
	size_t used;

	memset(deep, 0x91, sizeof deep); /* an array in an array in an array ... */
	assert_int_equal(unpack_scan(deep, sizeof deep, &used), -EBADMSG);
}

/* Random bytes, and good messages with random bytes changed: an answer, never a crash (run with sanitizers too). */
static void garbage_is_survived(void **state KEDGE_UNUSED)
{
	uint64_t x = 88172645463325252ULL;
	uint8_t bytes[256];
	unsigned read = 0;

	for (unsigned round = 0; round < 40000; round++) {
		const struct message_type *t = types[next(&x) % ARRAY_LEN(types)];
		uint8_t msg[8192] = {0};
		struct buf b = {0};
		struct unpack u;
		size_t used, n;

		assert_true(t->size <= sizeof msg);
		message_encode(t, msg, &b);
		n = b.len < sizeof bytes ? b.len : sizeof bytes;
		memcpy(bytes, b.data, n);
		buf_free(&b);
		if (round % 2)
			n = next(&x) % sizeof bytes;
		for (unsigned i = 0; i < (round % 2 ? n : 1 + next(&x) % 4); i++)
			bytes[round % 2 ? i : next(&x) % n] = (uint8_t)next(&x);
		if (message_decode(t, bytes, n, msg, &used) == 0) {
			assert_true(used <= n);
			read++;
		}
		(void)!unpack_scan(bytes, n, &used);
		(void)!unpack_open(&u, bytes, n);
		unpack_free(&u);
	}
	assert_true(read > 0); /* the control: some are still messages */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_move_comes_back_as_it_was),
		cmocka_unit_test(text_that_does_not_fit_is_refused),
		cmocka_unit_test(releases_understand_each_other),
		cmocka_unit_test(lengths_are_not_believed),
		cmocka_unit_test(nesting_has_an_end),
		cmocka_unit_test(garbage_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
