/* SPDX-License-Identifier: Apache-2.0
 * The table of error codes, as functions. */
#include "proto/error.h"

#include "base/base.h"

static const struct {
	int code;
	int exit_code;
	const char *symbol;
	const char *text;
} errors[] = {
#define X(name, code, symbol, exit_code, text) {code, exit_code, symbol, text},
	PROTO_ERRORS(X)
#undef X
};

static int find(int code)
{
	for (size_t i = 0; i < ARRAY_LEN(errors); i++)
		if (errors[i].code == code)
			return (int)i;
	return -1;
}

const char *proto_error_symbol(int code)
{
	int i = find(code);

	return i < 0 ? "internal" : errors[i].symbol;
}

const char *proto_error_text(int code)
{
	int i = find(code);

	return i < 0 ? "an unexpected failure: see the agent's log" : errors[i].text;
}

int proto_error_exit(int code)
{
	int i = find(code);

	if (code == 0)
		return 0;
	return i < 0 ? 1 : errors[i].exit_code;
}
