#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent dies or hangs: within the lease the guest notices nothing, after it the guard has frozen it (P1, P2)."""
import time

import harness

LEASE_S = 2.1
SHORT_S = 0.3    # a stop of this length is no freeze to a guest
TAKEOVER_S = 15


class Guard(harness.ClusterCase):
    def setUp(self):
        super().setUp()
        self.c.wait_formed()
        self.vm = "g%d" % (time.monotonic_ns() % 10 ** 9)
        self.owner = self.c.create(self.vm)
        self.name = "n%d" % self.owner
        self.since = time.monotonic()

    def tearDown(self):
        self.c.wait_for(self.agents_run, 10, "every agent runs")
        self.c.wait_formed()
        self.c.delete(self.vm)
        super().tearDown()

    def agents_run(self):
        for node in self.c.nodes:
            if self.c.agent(node.number) is None:
                self.c.start(node.number)
            else:
                self.c.cont(node.number)
        return all(self.c.agent(node.number) for node in self.c.nodes)

    def assert_unnoticed(self, before, count, seconds):
        """Same process, same boot, still counting at its pace, never stopped for long."""
        after, later = self.c.snapshot(self.vm, self.owner)
        self.assertEqual(after, before)
        self.assertGreater(later, count + seconds * 5 * 0.7)
        self.assertLess(self.c.witness.stopped_for(self.vm, self.name, self.since), SHORT_S)

    def assert_frozen_before_start(self):
        """In the witness's history: the old QEMU stopped (or gone) before another node's was there."""
        events = self.c.witness.events(self.vm, self.since)
        frozen = [at for at, _, node, _, state in events if node == self.name and state in ("stopped", "gone")]
        started = [at for at, _, node, _, state in events if node != self.name]
        self.assertTrue(frozen and started, events)
        self.assertLess(frozen[0], started[0])
        print("    frozen after %.2f s, QEMU elsewhere after %.2f s" % (frozen[0] - self.since, started[0] - self.since))

    def taken_over(self):
        to = self.c.wait_for(lambda: self.c.runs_on(self.vm, but=(self.owner,)), TAKEOVER_S, "it runs elsewhere")
        self.assert_frozen_before_start()
        old = self.c.qemu(self.vm, self.owner)
        self.assertTrue(old is None or old.stopped, old)
        return to

    def ended_here(self, to):
        """The agent is back: the frozen guest is ended, the other goes on."""
        before, _ = self.c.snapshot(self.vm, to)
        self.c.wait_for(lambda: self.c.qemu(self.vm, self.owner) is None, 10, "the frozen guest is ended")
        self.c.wait_formed()
        self.assertEqual(self.c.runs_on(self.vm), to)
        self.assertEqual(self.c.snapshot(self.vm, to)[0], before)

    def test_agent_killed_and_back_within_the_lease(self):
        before, count = self.c.snapshot(self.vm, self.owner)
        self.c.kill(self.owner)
        self.c.start(self.owner)
        self.c.holds_for(lambda: len(self.c.qemus(self.vm)) == 1, 4 * LEASE_S, "one QEMU")
        self.assert_unnoticed(before, count, 4 * LEASE_S)

    def test_agent_killed_again_and_again(self):
        before, count = self.c.snapshot(self.vm, self.owner)
        for _ in range(5):
            self.c.kill(self.owner)
            self.c.start(self.owner)
            self.c.wait_for(lambda: self.c.status(self.owner)["quorum"], 10, "the agent answers")
            self.c.wait_for(lambda: self.c.is_formed(self.owner), 10, "it is up again")
        self.c.holds_for(lambda: len(self.c.qemus(self.vm)) == 1, 2 * LEASE_S, "one QEMU")
        self.assertEqual(self.c.snapshot(self.vm, self.owner)[0], before)
        self.assertGreater(self.c.snapshot(self.vm, self.owner)[1], count)

    def test_agent_stays_dead(self):
        self.c.kill(self.owner)
        to = self.taken_over()
        self.c.start(self.owner)
        self.ended_here(to)

    def test_agent_hangs(self):
        self.c.stop(self.owner)
        to = self.taken_over()
        self.c.cont(self.owner)
        self.ended_here(to)

    @harness.long_run("the agent dies shortly in another case")
    def test_agent_hangs_shortly(self):
        before, count = self.c.snapshot(self.vm, self.owner)
        self.c.stop(self.owner)
        time.sleep(1.0)  # well within the lease
        self.c.cont(self.owner)
        self.c.holds_for(lambda: len(self.c.qemus(self.vm)) == 1, 2 * LEASE_S, "one QEMU")
        self.assert_unnoticed(before, count, 2 * LEASE_S)

    def test_guard_killed(self):
        before, count = self.c.snapshot(self.vm, self.owner)
        old = self.c.kill(self.owner, "kedge-guard")
        self.c.wait_for(lambda: self.c.guard(self.owner) not in (None, old), 2, "there is a new guard")
        self.c.holds_for(lambda: len(self.c.qemus(self.vm)) == 1, 2 * LEASE_S, "one QEMU")
        self.assert_unnoticed(before, count, 2 * LEASE_S)

    def test_new_guard_freezes_too(self):
        """The guard that replaced a dead one keeps the promise when the agent then dies."""
        old = self.c.kill(self.owner, "kedge-guard")
        self.c.wait_for(lambda: self.c.guard(self.owner) not in (None, old), 2, "there is a new guard")
        self.c.wait_for(lambda: self.c.runs_on(self.vm) == self.owner, 10, "the guest goes on")
        self.since = time.monotonic()
        self.c.kill(self.owner)
        to = self.taken_over()
        self.c.start(self.owner)
        self.ended_here(to)

    def test_guard_hangs(self):
        """kedged replaces a guard without a beat, or lets the guest go; it never runs twice (P1 is checked after)."""
        old = self.c.stop(self.owner, "kedge-guard")
        self.c.wait_for(lambda: self.c.guard(self.owner) not in (None, old) or self.c.runs_on(self.vm, (self.owner,)),
                        TAKEOVER_S, "there is a new guard, or it runs elsewhere")
        self.c.wait_for(lambda: self.c.runs_on(self.vm), TAKEOVER_S, "the guest runs")
        harness.processes.send(old, harness.signal.SIGCONT)
        self.c.holds_for(lambda: len([q for q in self.c.qemus(self.vm) if not q.stopped]) <= 1, 3, "at most one runs")
        self.c.wait_for(lambda: self.c.runs_on(self.vm), TAKEOVER_S, "the guest runs")


if __name__ == "__main__":
    harness.main()
