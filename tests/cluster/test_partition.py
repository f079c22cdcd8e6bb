#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A node without a quorum freezes its guests; they thaw in place if nobody took them over, else they end (P1, P5)."""
import subprocess
import time

import harness

FREEZE_S = 2.1 + 0.3
TAKEOVER_S = 15


class Partition(harness.ClusterCase):
    namespaces = True

    def setUp(self):
        super().setUp()
        self.cut = set()
        self.stopped = set()
        self.c.wait_formed()
        self.vm = "p%d" % (time.monotonic_ns() % 10 ** 9)
        self.owner = self.c.create(self.vm)
        self.others = [n.number for n in self.c.nodes if n.number != self.owner]
        self.before, self.count = self.c.snapshot(self.vm, self.owner)
        self.since = time.monotonic()

    def tearDown(self):
        self.heal()
        self.c.wait_formed()
        self.c.delete(self.vm)
        super().tearDown()

    def partition(self, i):
        self.cut.add(i)
        self.c.partition(i)

    def stop(self, i):
        self.stopped.add(i)
        self.c.stop(i)

    def heal(self):
        while self.cut:
            self.c.heal(self.cut.pop())
        while self.stopped:
            self.c.cont(self.stopped.pop())

    def wait_frozen(self):
        self.c.wait_for(lambda: self.c.qemu(self.vm, self.owner).stopped, FREEZE_S + 2, "the guest is frozen")
        frozen = time.monotonic() - self.since
        print("    frozen after %.2f s" % frozen)
        # Counted from the last renewal before the cut, so never later than this; the sampling adds a little.
        self.assertLess(frozen, FREEZE_S + 0.3)
        self.assertGreater(frozen, 1.0, "frozen though the lease cannot have ended yet")

    def thawed(self):
        """It counts again, in the same process and boot."""
        self.c.wait_for(lambda: self.c.runs_on(self.vm), TAKEOVER_S, "the guest counts again")
        after, later = self.c.snapshot(self.vm, self.owner)
        self.assertEqual(after, self.before)
        self.assertGreater(later, self.count)
        self.assertEqual({e[2] for e in self.c.witness.events(self.vm)}, {"n%d" % self.owner})

    def test_short_partition_is_not_noticed(self):
        self.partition(self.owner)
        time.sleep(1.0)  # well within the lease
        self.heal()
        self.c.holds_for(lambda: len(self.c.qemus(self.vm)) == 1, 2 * FREEZE_S, "one QEMU")
        after, later = self.c.snapshot(self.vm, self.owner)
        self.assertEqual(after, self.before)
        self.assertGreater(later, self.count + 15)
        self.assertLess(self.c.witness.stopped_for(self.vm, "n%d" % self.owner, self.since), 0.3)

    def test_taken_over_while_cut_off(self):
        self.partition(self.owner)
        to = self.c.wait_for(lambda: self.c.runs_on(self.vm, but=(self.owner,)), TAKEOVER_S, "it runs elsewhere")
        old = self.c.qemu(self.vm, self.owner)
        self.assertTrue(old is None or old.stopped, old)
        first = {}
        for at, _, node, _, state in self.c.witness.events(self.vm, self.since):
            first.setdefault("frozen" if node == "n%d" % self.owner and state == "stopped" else node, at)
        self.assertLess(first["frozen"], first["n%d" % to])
        print("    frozen after %.2f s, QEMU elsewhere after %.2f s"
              % (first["frozen"] - self.since, first["n%d" % to] - self.since))
        taken, _ = self.c.snapshot(self.vm, to)
        self.heal()
        self.c.wait_for(lambda: self.c.qemu(self.vm, self.owner) is None, 10, "the frozen guest is ended")
        self.c.wait_formed()
        self.assertEqual(self.c.runs_on(self.vm), to)
        self.assertEqual(self.c.snapshot(self.vm, to)[0], taken)

    def test_no_majority_anywhere_then_thaw_in_place(self):
        """The owner is cut off and another voter hangs: nobody can take over, so the guest waits and goes on. The one
        that hangs is the leader if it can be: going on it may still lead, and knows nothing of who lives."""
        leader = self.c.leader()
        self.partition(self.owner)
        self.stop(leader if leader in self.others else self.others[0])
        self.wait_frozen()
        self.c.holds_for(lambda: [q.node for q in self.c.qemus(self.vm)] == ["n%d" % self.owner], 5, "nobody starts it")
        self.heal()
        self.thawed()

    def test_every_link_down_is_a_pause(self):
        """The switch reboots: all guests pause and go on, none is restarted (DESIGN, section 6)."""
        for node in self.c.nodes:
            self.partition(node.number)
        self.wait_frozen()
        self.c.holds_for(lambda: self.c.qemu(self.vm, self.owner).stopped, 5, "the guest stays frozen")
        self.heal()
        self.thawed()

    def test_minority_changes_nothing(self):
        self.partition(self.owner)
        self.c.wait_for(lambda: self.c.leader_of(self.others) is not None, 15, "the others have a leader")
        self.c.wait_for(lambda: not self.c.status(self.owner)["quorum"], 15, "the minority knows that it is one")
        began = time.monotonic()
        self.c.status(self.owner)
        self.assertLess(time.monotonic() - began, 2.0)
        try:
            done = self.c.apply(self.owner, self.c.vm_yaml("minor", run=False), check=False)
            self.assertNotEqual(done.returncode, 0)
        except subprocess.TimeoutExpired:
            pass  # it waits for a quorum: no change either
        self.assertIsNone(self.c.vm(self.others[0], "minor"))
        self.heal()
        self.c.wait_formed()
        self.assertIsNone(self.c.vm(1, "minor"))

    def test_cut_off_bystander_changes_nothing_for_the_guest(self):
        bystander = next(i for i in self.others if i != self.c.leader())
        self.partition(bystander)
        self.c.holds_for(lambda: len(self.c.qemus(self.vm)) == 1, 5, "one QEMU")
        self.heal()
        self.c.wait_formed()
        after, later = self.c.snapshot(self.vm, self.owner)
        self.assertEqual(after, self.before)
        self.assertGreater(later, self.count + 15)


if __name__ == "__main__":
    harness.main()
