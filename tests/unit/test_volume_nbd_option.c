/* SPDX-License-Identifier: Apache-2.0
 * The NBD handshake: every option, what is malformed, and what is not served now. */
#include "tests/unit/test_volume_nbd_help.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#define ALL_FLAGS                                                                            \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_FAST_ZERO)

static int set_up(void **state)
{
	static struct fixture f;

	fixture_begin(&f, ENGINE_AT_ONCE, NULL);
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	fixture_end(*state);
	return 0;
}

/* An option and its one reply. */
static uint32_t ask(struct fixture *f, int fd, uint32_t option, const void *data, size_t n)
{
	struct option_reply r;

	client_option(f, fd, option, data, (uint32_t)n);
	client_option_reply(f, fd, &r);
	assert_int_equal(r.option, option);
	return r.type;
}

static void list_names_all_exports(void **state)
{
	struct fixture *f = *state;
	const char *const names[EXPORTS] = {"a", "b", "ro"};
	int fd = client_greeted(f, 3);
	struct option_reply r;

	client_option(f, fd, NBD_OPT_LIST, NULL, 0);
	for (size_t i = 0; i < EXPORTS; i++) {
		client_option_reply(f, fd, &r);
		assert_int_equal(r.type, NBD_REP_SERVER);
		assert_int_equal(r.length, 4 + strlen(names[i]));
		assert_int_equal(nbd_get32(r.data), strlen(names[i]));
		assert_memory_equal(r.data + 4, names[i], strlen(names[i]));
	}
	client_option_reply(f, fd, &r);
	assert_int_equal(r.type, NBD_REP_ACK);
	assert_int_equal(ask(f, fd, NBD_OPT_LIST, "x", 1), NBD_REP_ERR_INVALID);
	client_close(fd);
}

static void export_name_with_and_without_zeroes(void **state)
{
	struct fixture *f = *state;
	uint8_t head[10 + NBD_EXPORT_NAME_ZEROES], zeroes[NBD_EXPORT_NAME_ZEROES] = {0};

	for (uint32_t no_zeroes = 0; no_zeroes < 2; no_zeroes++) {
		int fd = client_greeted(f, 1 | no_zeroes << 1);

		client_option(f, fd, NBD_OPT_EXPORT_NAME, "b", 1);
		assert_true(client_recv(f, fd, head, no_zeroes ? 10 : sizeof head));
		assert_int_equal(nbd_get64(head), DISK_BYTES);
		assert_int_equal(nbd_get16(head + 8), ALL_FLAGS);
		if (!no_zeroes)
			assert_memory_equal(head + 10, zeroes, sizeof zeroes);
		assert_int_equal(client_do(f, fd, 0, NBD_CMD_FLUSH, 0, 0, NULL, NULL), 0);
		client_close(fd);
	}
}

static void export_name_that_is_unknown_ends_it(void **state)
{
	struct fixture *f = *state;
	int fd = client_greeted(f, 3);

	client_option(f, fd, NBD_OPT_EXPORT_NAME, "nobody", 6);
	expect_end(f, fd);
}

static void expect_info(struct fixture *f, int fd, uint16_t type, struct option_reply *ret)
{
	client_option_reply(f, fd, ret);
	assert_int_equal(ret->type, NBD_REP_INFO);
	assert_int_equal(nbd_get16(ret->data), type);
}

static void info_and_go_tell_what_was_asked_for(void **state)
{
	struct fixture *f = *state;
	const uint32_t options[] = {NBD_OPT_INFO, NBD_OPT_GO};
	int fd = client_greeted(f, 3);
	struct option_reply r;
	uint8_t data[64], *p = nbd_put32(data, 2);

	memcpy(p, "ro", 2);
	p = nbd_put16(nbd_put16(nbd_put16(nbd_put16(p + 2, 3), NBD_INFO_NAME), NBD_INFO_BLOCK_SIZE), 77);
	assert_int_equal(ask(f, fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		client_option(f, fd, options[i], data, (uint32_t)(p - data));
		expect_info(f, fd, NBD_INFO_EXPORT, &r);
		assert_int_equal(r.length, 12);
		assert_int_equal(nbd_get64(r.data + 2), DISK_BYTES);
		assert_int_equal(nbd_get16(r.data + 10), ALL_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_DF);
		expect_info(f, fd, NBD_INFO_NAME, &r);
		assert_int_equal(r.length, 4);
		assert_memory_equal(r.data + 2, "ro", 2);
		expect_info(f, fd, NBD_INFO_BLOCK_SIZE, &r);
		assert_int_equal(r.length, 14);
		assert_int_equal(nbd_get32(r.data + 2), 1);
		assert_int_equal(nbd_get32(r.data + 6), 4096);
		assert_int_equal(nbd_get32(r.data + 10), NBD_PAYLOAD_MAX);
		client_option_reply(f, fd, &r);
		assert_int_equal(r.type, NBD_REP_ACK);
	}
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_FLUSH, 0, 0, NULL, NULL), 0);
	assert_int_equal(client_do(f, fd, 0, NBD_CMD_TRIM, 0, 4096, NULL, NULL), 1);
	client_close(fd);
}

static void unknown_export_is_told_and_more_may_follow(void **state)
{
	struct fixture *f = *state;
	int fd = client_greeted(f, 3);
	char long_name[NAME_BYTES_MAX + 1] = {0};
	uint8_t data[512];

	memset(long_name, 'a', NAME_BYTES_MAX);
	assert_int_equal(ask(f, fd, NBD_OPT_INFO, data, option_data(data, "nobody", NULL)), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(ask(f, fd, NBD_OPT_GO, data, option_data(data, long_name, NULL)), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(ask(f, fd, NBD_OPT_GO, data, option_data(data, "", NULL)), NBD_REP_ERR_UNKNOWN);
	(void)option_data(data, "a?", NULL); /* a name with a zero in it is not the name before the zero */
	data[5] = 0;
	assert_int_equal(ask(f, fd, NBD_OPT_GO, data, 8), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(ask(f, fd, NBD_OPT_INFO, data, 0), NBD_REP_ERR_INVALID);
	client_option(f, fd, NBD_OPT_LIST, NULL, 0);
	client_close(fd);
}

static void malformed_options_are_invalid(void **state)
{
	struct fixture *f = *state;
	int fd = client_greeted(f, 3);
	uint8_t data[64];
	size_t n = option_data(data, "a", NULL);

	for (size_t cut = 0; cut < n; cut++)
		assert_int_equal(ask(f, fd, NBD_OPT_GO, data, cut), NBD_REP_ERR_INVALID);
	assert_int_equal(ask(f, fd, NBD_OPT_GO, data, n + 1), NBD_REP_ERR_INVALID);
	(void)nbd_put32(data, UINT32_MAX);
	assert_int_equal(ask(f, fd, NBD_OPT_GO, data, n), NBD_REP_ERR_INVALID);
	assert_int_equal(ask(f, fd, NBD_OPT_STRUCTURED_REPLY, "x", 1), NBD_REP_ERR_INVALID);
	/* contexts need structured replies */
	n = option_data(data, "a", NBD_CONTEXT_ALLOCATION);
	assert_int_equal(ask(f, fd, NBD_OPT_SET_META_CONTEXT, data, n), NBD_REP_ERR_INVALID);
	assert_int_equal(ask(f, fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	for (size_t cut = 0; cut < n; cut++)
		assert_int_equal(ask(f, fd, NBD_OPT_SET_META_CONTEXT, data, cut), NBD_REP_ERR_INVALID);
	assert_int_equal(ask(f, fd, NBD_OPT_LIST_META_CONTEXT, data, n + 1), NBD_REP_ERR_INVALID);
	(void)nbd_put32(data + 5, UINT32_MAX); /* so many queries */
	assert_int_equal(ask(f, fd, NBD_OPT_LIST_META_CONTEXT, data, n), NBD_REP_ERR_INVALID);
	client_close(fd);
}

static void unknown_and_absurd_options_are_answered(void **state)
{
	struct fixture *f = *state;
	int fd = client_greeted(f, 3);
	static uint8_t junk[NBD_OPTION_BYTES_MAX + 5000];
	struct option_reply r;

	assert_int_equal(ask(f, fd, 5, NULL, 0), NBD_REP_ERR_UNSUP); /* STARTTLS */
	assert_int_equal(ask(f, fd, 11, NULL, 0), NBD_REP_ERR_UNSUP);
	assert_int_equal(ask(f, fd, 0xdeadbeef, junk, NBD_OPTION_BYTES_MAX), NBD_REP_ERR_UNSUP);
	assert_int_equal(ask(f, fd, NBD_OPT_GO, junk, sizeof junk), NBD_REP_ERR_TOO_BIG);
	assert_int_equal(ask(f, fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	client_option(f, fd, NBD_OPT_ABORT, "why", 3);
	client_option_reply(f, fd, &r);
	assert_int_equal(r.type, NBD_REP_ACK);
	expect_end(f, fd);
}

static void wrong_magic_and_flags_end_it(void **state)
{
	struct fixture *f = *state;
	uint8_t junk[16] = {0};
	int fd = client_greeted(f, 3);

	client_send(f, fd, junk, sizeof junk);
	expect_end(f, fd);
	expect_end(f, client_greeted(f, 4));
	expect_end(f, client_greeted(f, 0x80000003u));
}

static void contexts_are_listed_and_chosen(void **state)
{
	struct fixture *f = *state;
	const struct {
		uint32_t option;
		const char *query;
		bool found;
	} cases[] = {
		{NBD_OPT_LIST_META_CONTEXT, "base:", true},       {NBD_OPT_LIST_META_CONTEXT, "base:allocation", true},
		{NBD_OPT_LIST_META_CONTEXT, "base:other", false}, {NBD_OPT_LIST_META_CONTEXT, "qemu:", false},
		{NBD_OPT_LIST_META_CONTEXT, "", false},           {NBD_OPT_SET_META_CONTEXT, "base:", false},
		{NBD_OPT_SET_META_CONTEXT, "x-y:z", false},       {NBD_OPT_SET_META_CONTEXT, "base:allocation", true},
	};
	int fd = client_greeted(f, 3);
	struct option_reply r;
	uint8_t data[64];

	assert_int_equal(ask(f, fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		client_option(f, fd, cases[i].option, data, (uint32_t)option_data(data, "a", cases[i].query));
		client_option_reply(f, fd, &r);
		if (cases[i].found) {
			assert_int_equal(r.type, NBD_REP_META_CONTEXT);
			assert_int_equal(r.length, 4 + strlen(NBD_CONTEXT_ALLOCATION));
			assert_memory_equal(r.data + 4, NBD_CONTEXT_ALLOCATION, r.length - 4);
			client_option_reply(f, fd, &r);
		}
		assert_int_equal(r.type, NBD_REP_ACK);
	}
	/* without a query: all */
	(void)nbd_put32(data + option_data(data, "a", "") - 8, 0);
	client_option(f, fd, NBD_OPT_LIST_META_CONTEXT, data, 9);
	client_option_reply(f, fd, &r);
	assert_int_equal(r.type, NBD_REP_META_CONTEXT);
	client_option_reply(f, fd, &r);
	assert_int_equal(r.type, NBD_REP_ACK);
	assert_int_equal(ask(f, fd, NBD_OPT_SET_META_CONTEXT, data, option_data(data, "no", "base:allocation")),
			 NBD_REP_ERR_UNKNOWN);
	client_close(fd);
}

static uint32_t status_after(struct fixture *f, const char *context_of, const char *export, bool cleared)
{
	int fd = client_greeted(f, 3);
	struct option_reply r;
	uint8_t data[64];
	uint32_t error;

	assert_int_equal(ask(f, fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	client_option(f, fd, NBD_OPT_SET_META_CONTEXT, data,
		      (uint32_t)option_data(data, context_of, NBD_CONTEXT_ALLOCATION));
	client_option_reply(f, fd, &r);
	client_option_reply(f, fd, &r);
	assert_int_equal(r.type, NBD_REP_ACK);
	if (cleared)
		assert_int_equal(ask(f, fd, NBD_OPT_SET_META_CONTEXT, data, 2), NBD_REP_ERR_INVALID);
	client_option(f, fd, NBD_OPT_GO, data, (uint32_t)option_data(data, export, NULL));
	client_option_reply(f, fd, &r);
	client_option_reply(f, fd, &r);
	error = client_do(f, fd, 0, NBD_CMD_BLOCK_STATUS, 0, 4096, NULL, data);
	client_close(fd);
	return error;
}

static void a_context_is_for_the_export_it_was_chosen_for(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(status_after(f, "a", "a", false), 0);
	assert_int_equal(status_after(f, "a", "b", false), 22);
	assert_int_equal(status_after(f, "a", "a", true), 22);
}

static void what_is_not_served_now_ends_without_a_word(void **state)
{
	struct fixture *f = *state;
	const uint32_t options[] = {NBD_OPT_INFO, NBD_OPT_GO};
	uint8_t data[64];
	int fd;

	f->engine.disks[0].refuse = -EAGAIN;
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		fd = client_greeted(f, 3);
		client_option(f, fd, options[i], data, (uint32_t)option_data(data, "a", NULL));
		expect_end(f, fd);
	}
	fd = client_greeted(f, 3);
	client_option(f, fd, NBD_OPT_EXPORT_NAME, "a", 1);
	expect_end(f, fd);
	assert_int_equal(f->engine.gone, 0); /* it never had the export */
}

static void a_handshake_byte_by_byte_and_all_at_once(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[128], *p = nbd_put32(bytes, 3), greeting[NBD_GREETING_BYTES], rest[20 + 12 + 20 + 16];

	p = nbd_put32(nbd_put32(nbd_put64(p, NBD_MAGIC_OPTION), NBD_OPT_GO), 7);
	p += option_data(p, "a", NULL);
	p = nbd_put16(nbd_put16(nbd_put32(p, NBD_MAGIC_REQUEST), 0), NBD_CMD_FLUSH);
	p = nbd_put32(nbd_put64(nbd_put64(p, 42), 0), 0);
	for (size_t step = 1; step <= (size_t)(p - bytes); step += (size_t)(p - bytes) - 1) {
		int fd = client_connect(f);

		for (const uint8_t *at = bytes; at < p; at += step) {
			client_send(f, fd, at, step);
			turn(f);
		}
		assert_true(client_recv(f, fd, greeting, sizeof greeting));
		assert_true(client_recv(f, fd, rest, sizeof rest));
		assert_true(nbd_get64(rest + sizeof rest - 8) == 42);
		client_close(fd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(list_names_all_exports, set_up, tear_down),
		cmocka_unit_test_setup_teardown(export_name_with_and_without_zeroes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(export_name_that_is_unknown_ends_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(info_and_go_tell_what_was_asked_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unknown_export_is_told_and_more_may_follow, set_up, tear_down),
		cmocka_unit_test_setup_teardown(malformed_options_are_invalid, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unknown_and_absurd_options_are_answered, set_up, tear_down),
		cmocka_unit_test_setup_teardown(wrong_magic_and_flags_end_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(contexts_are_listed_and_chosen, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_context_is_for_the_export_it_was_chosen_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_not_served_now_ends_without_a_word, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_handshake_byte_by_byte_and_all_at_once, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
