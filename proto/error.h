/* SPDX-License-Identifier: Apache-2.0
 * Every error that crosses a process border: code, symbol in JSON, exit code of the CLI, what to do about it. */
#ifndef KEDGE_PROTO_ERROR_H
#define KEDGE_PROTO_ERROR_H

/* X(name, code, symbol, exit code, text) */
#define PROTO_ERRORS(X)                                                                                              \
	X(INVALID, -1001, "invalid", 2, "the request makes no sense")                                                \
	X(NOT_FOUND, -1002, "not-found", 3, "there is no such object")                                               \
	X(EXISTS, -1003, "exists", 4, "the name is taken")                                                           \
	X(CONFLICT, -1004, "conflict", 5, "the object changed meanwhile: read it again")                             \
	X(DENIED, -1005, "denied", 6, "your role does not allow this")                                               \
	X(NO_LEADER, -1006, "no-leader", 7, "the cluster has no leader: a majority of the voters must be up")        \
	X(UNKNOWN_OUTCOME, -1007, "unknown-outcome", 8, "the leader was lost: the change may or may not be applied") \
	X(OLD_REQUEST, -1008, "old-request", 9, "this request is too old to know whether it was applied")            \
	X(TOO_MANY, -1009, "too-many", 10, "a limit is reached")                                                     \
	X(TIMED_OUT, -1010, "timed-out", 11, "no answer in time")                                                    \
	X(UNKNOWN_METHOD, -1011, "unknown-method", 12, "this agent does not know the method")                        \
	X(UNREACHABLE, -1012, "unreachable", 13, "the agent cannot be reached")                                      \
	X(INTERNAL, -1013, "internal", 14, "an unexpected failure: see the agent's log")

enum proto_error {
#define X(name, code, symbol, exit_code, text) PROTO_E_##name = (code),
	PROTO_ERRORS(X)
#undef X
};

/* [any] "not-found" for PROTO_E_NOT_FOUND; "internal" for what is not in the table. */
const char *proto_error_symbol(int code);

/* [any] One line for humans. */
const char *proto_error_text(int code);

/* [any] 0 for 0, else what the CLI exits with; 1 for what is not in the table. */
int proto_error_exit(int code);

#endif
