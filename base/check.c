/* SPDX-License-Identifier: Apache-2.0
 * Assertions that stay on in production. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void check_failed(const char *file, int line, const char *condition)
{
	(void)fprintf(stderr, "kedge: %s:%d: check failed: %s\n", file, line, condition);
	(void)fflush(stderr);
	abort();
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	CHECK(p != NULL);
	return p;
}

void *xrealloc(void *p, size_t size)
{
	void *q = realloc(p, size);

	CHECK(q != NULL);
	return q;
}

char *xstrdup(const char *s)
{
	char *p = strdup(s);

	CHECK(p != NULL);
	return p;
}
