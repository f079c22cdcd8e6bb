/* SPDX-License-Identifier: Apache-2.0
 * The worst case of a failover, walked for each profile line by line as base/timing.h tells it. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* ms, of the design's table for `lan` */
#define INFLIGHT 20
#define ELECT    560 /* median of simulated elections */
#define DECIDE   50
#define COMMIT   100
#define LEARN    60
#define PROMOTE  150
#define SAVE     50
#define START    900

static void worst_case_is_under_the_goal(void **state KEDGE_UNUSED)
{
	unsigned takeover = (unsigned)(timing_lan.takeover / USEC_PER_MS);
	unsigned lease_out = INFLIGHT + takeover;
	unsigned leader_ready = ELECT + LAN_POLL_MS + 30 + LAN_HEAR_MS;
	unsigned at = lease_out > leader_ready ? lease_out : leader_ready;

	assert_int_equal(lease_out, 2430);
	at += DECIDE;
	assert_int_equal(at, 2480);
	at += COMMIT;
	assert_int_equal(at, 2580);
	at += LEARN + PROMOTE + SAVE;
	assert_int_equal(at, 2840);
	at += START;
	assert_int_equal(at, 3740);
	assert_true(at < 4000);
}

static void takeover_covers_the_slowest_clock(void **state KEDGE_UNUSED)
{
	struct timing t = timing_lan;
	double d = t.drift_ppm / 1e6;

	assert_true(timing_is_safe(&t));
	/* The owner's clock is slow: its lease and freeze last longer; the leader's is fast: its wait is shorter. */
	assert_true((double)t.takeover * (1 - d) > (double)(t.lease + t.freeze_max) * (1 + d));
	t.takeover = t.lease;
	assert_false(timing_is_safe(&t));
	t.takeover = t.lease + t.freeze_max; /* drift forgotten */
	assert_false(timing_is_safe(&t));
}

static void usual_election_freezes_nobody(void **state KEDGE_UNUSED)
{
	unsigned lost = (LAN_LEASE_MS - LAN_G_MS) / LAN_RENEW_MS - 1;

	assert_int_equal(lost, 9);
	assert_true(LAN_LEASE_MS >= LAN_RENEW_MS + LAN_G_MS + 640 + LAN_HEARTBEAT_MS + LAN_BARRIER_MS + LAN_G_MS);
}

static void profiles_are_found_by_name(void **state KEDGE_UNUSED)
{
	assert_ptr_equal(timing_by_name("lan"), &timing_lan);
	assert_null(timing_by_name("moon"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(worst_case_is_under_the_goal),
		cmocka_unit_test(takeover_covers_the_slowest_clock),
		cmocka_unit_test(usual_election_freezes_nobody),
		cmocka_unit_test(profiles_are_found_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
