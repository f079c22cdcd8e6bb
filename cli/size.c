/* SPDX-License-Identifier: Apache-2.0
 * Numbers as people write them. */
#include "cli/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t factor;
};

static bool parse(const char *text, const struct unit *units, size_t n, uint64_t *ret)
{
	unsigned long long v;
	uint64_t product;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return false;
	while (*end == ' ')
		end++;
	for (size_t i = 0; i < n; i++)
		if (strcmp(end, units[i].name) == 0) {
			if (__builtin_mul_overflow((uint64_t)v, units[i].factor, &product))
				return false;
			*ret = product;
			return true;
		}
	return false;
}

bool size_parse(const char *text, uint64_t *ret)
{
	static const struct unit units[] = {{"", 1},
					    {"B", 1},
					    {"KiB", 1ULL << 10},
					    {"MiB", 1ULL << 20},
					    {"GiB", 1ULL << 30},
					    {"TiB", 1ULL << 40},
					    {"kB", 1000ULL},
					    {"MB", 1000000ULL},
					    {"GB", 1000000000ULL},
					    {"TB", 1000000000000ULL}};

	return parse(text, units, ARRAY_LEN(units), ret);
}

bool duration_parse(const char *text, uint64_t *ret_seconds)
{
	static const struct unit units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};

	return parse(text, units, ARRAY_LEN(units), ret_seconds);
}

void size_format(uint64_t bytes, char *ret, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t i = 0;
	double v = (double)bytes;

	while (v >= 1024 && i + 1 < ARRAY_LEN(units)) {
		v /= 1024;
		i++;
	}
	(void)snprintf(ret, size, v < 10 && i > 0 ? "%.1f %s" : "%.0f %s", v, units[i]);
}
