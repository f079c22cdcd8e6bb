/* SPDX-License-Identifier: Apache-2.0
 * Errors: a negative errno-style code for the machine, one line of text for the human. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	e->code = code;
	va_start(ap, fmt);
	(void)vsnprintf(e->text, sizeof e->text, fmt, ap);
	va_end(ap);
	return code;
}

int err_wrap(struct err *e, int code, const char *fmt, ...)
{
	char inner[sizeof e->text];
	size_t n;
	va_list ap;

	if (!e)
		return code;
	memcpy(inner, e->text, sizeof inner);
	va_start(ap, fmt);
	(void)vsnprintf(e->text, sizeof e->text, fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	(void)snprintf(e->text + n, sizeof e->text - n, ": %s", inner);
	if (!e->code)
		e->code = code;
	return e->code;
}
