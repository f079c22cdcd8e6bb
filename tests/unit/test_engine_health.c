/* SPDX-License-Identifier: Apache-2.0
 * When a volume engine counts as one that cannot be relied on, and when it is forgiven. */
#include "agent/engine_health.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define T0     (1000 * USEC_PER_SEC)
#define MINUTE (60 * USEC_PER_SEC)

static void two_deaths_are_borne(void **state KEDGE_UNUSED)
{
	struct engine_health h = {0};

	assert_false(engine_health_is_unsound(&h, T0));
	engine_health_died(&h, T0);
	engine_health_died(&h, T0 + 1);
	assert_false(engine_health_is_unsound(&h, T0 + 2));
}

static void the_third_within_ten_minutes_is_too_many(void **state KEDGE_UNUSED)
{
	struct engine_health h = {0};

	engine_health_died(&h, T0);
	engine_health_died(&h, T0 + 5 * MINUTE);
	engine_health_died(&h, T0 + 10 * MINUTE);
	assert_true(engine_health_is_unsound(&h, T0 + 10 * MINUTE));
}

static void deaths_that_are_far_apart_are_borne(void **state KEDGE_UNUSED)
{
	struct engine_health h = {0};

	for (unsigned i = 0; i < 20; i++) {
		engine_health_died(&h, T0 + i * 5 * MINUTE + i);
		assert_false(engine_health_is_unsound(&h, T0 + i * 5 * MINUTE + i));
	}
}

/* Not before it has lived for ten minutes, however far the deaths of before lie back. */
static void it_heals_by_itself(void **state KEDGE_UNUSED)
{
	struct engine_health h = {0};

	for (unsigned i = 0; i < 3; i++)
		engine_health_died(&h, T0 + i);
	assert_true(engine_health_is_unsound(&h, T0 + 9 * MINUTE));
	engine_health_died(&h, T0 + 9 * MINUTE); /* with the second and the third: one too many again */
	engine_health_died(&h, T0 + 18 * MINUTE);
	assert_true(engine_health_is_unsound(&h, T0 + 18 * MINUTE));
	assert_true(engine_health_is_unsound(&h, T0 + 28 * MINUTE));
	assert_false(engine_health_is_unsound(&h, T0 + 28 * MINUTE + 1));
	engine_health_died(&h, T0 + 40 * MINUTE); /* and begins anew */
	engine_health_died(&h, T0 + 41 * MINUTE);
	assert_false(engine_health_is_unsound(&h, T0 + 41 * MINUTE));
	engine_health_died(&h, T0 + 42 * MINUTE);
	assert_true(engine_health_is_unsound(&h, T0 + 42 * MINUTE));
}

static void one_that_does_not_come_is_unsound(void **state KEDGE_UNUSED)
{
	struct engine_health h = {0};

	engine_health_present(&h, false, T0);
	engine_health_present(&h, false, T0 + MINUTE);
	assert_false(engine_health_is_unsound(&h, T0 + MINUTE));
	assert_true(engine_health_is_unsound(&h, T0 + MINUTE + 1));
	engine_health_present(&h, true, T0 + 2 * MINUTE);
	assert_false(engine_health_is_unsound(&h, T0 + 2 * MINUTE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_deaths_are_borne),
		cmocka_unit_test(the_third_within_ten_minutes_is_too_many),
		cmocka_unit_test(deaths_that_are_far_apart_are_borne),
		cmocka_unit_test(it_heals_by_itself),
		cmocka_unit_test(one_that_does_not_come_is_unsound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
