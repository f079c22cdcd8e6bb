#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A node dies: its guests run elsewhere, exactly once, and nobody had to say anything (P1, P2, P6)."""
import time

import harness

FAILOVER_S = 15  # 3.7 s by the timing table and 2 s of booting, on a busy machine


class Failover(harness.ClusterCase):
    def setUp(self):
        super().setUp()
        self.c.wait_formed()
        self.vms = []

    def tearDown(self):
        for node in self.c.nodes:
            if self.c.agent(node.number) is None:
                self.c.start(node.number)
        self.c.wait_formed()
        for vm in self.vms:
            self.c.delete(vm)
        super().tearDown()

    def create(self, vm):
        self.vms.append(vm)
        return self.c.create(vm)

    def elsewhere(self, vm, dead):
        """Wait until @vm runs on another node than @dead, and compare what Kedge says with what there is."""
        killed = time.monotonic()
        to = self.c.wait_for(lambda: self.c.runs_on(vm, but=(dead,)), FAILOVER_S, "%s runs elsewhere" % vm)
        print("    %s: n%d -> n%d, counting again after %.1f s" % (vm, dead, to, time.monotonic() - killed))
        self.assertEqual(len(self.c.qemus(vm)), 1)
        self.c.wait_for(lambda: self.row(to, vm) == ("running", "n%d" % to), 5, "vm ls agrees")
        return to

    def row(self, i, vm):
        row = self.c.vm(i, vm)
        return row["state"], row["node"]

    def test_node_of_a_vm_dies(self):
        owner = self.create("till")
        before = self.c.console("till", owner)[-1].boot
        others = [n.number for n in self.c.nodes if n.number != owner]
        self.c.kill_node(owner)
        to = self.elsewhere("till", owner)
        self.assertNotEqual(self.c.console("till", to)[-1].boot, before)
        down = self.c.wait_for(lambda: next(n for n in self.c.status(others[0])["nodes"]
                                            if n["name"] == "n%d" % owner)["state"] in ("suspect", "down"),
                               10, "the dead node is seen as down")
        self.assertTrue(down)
        snapshot, count = self.c.snapshot("till", to)
        self.c.start(owner)
        self.c.wait_formed()
        self.used_again(owner)
        self.assertEqual(self.c.snapshot("till", to)[0], snapshot, "the return of a node moved the guest")
        self.assertGreater(self.c.snapshot("till", to)[1], count)

    def used_again(self, i):
        """New guests are placed until one is on node @i."""
        for n in range(6):
            if self.create("more-%d" % n) == i:
                return
        raise AssertionError("n%d came back and got none of six guests" % i)

    @harness.long_run("the guests of others go on in the other cases too")
    def test_node_without_vms_dies_unnoticed(self):
        owner = self.create("calm")
        leader = self.c.leader()
        victim = next(n.number for n in self.c.nodes if n.number not in (owner, leader))
        before, count = self.c.snapshot("calm", owner)
        since = time.monotonic()
        self.c.kill_node(victim)
        self.c.holds_for(lambda: len(self.c.qemus("calm")) == 1, 5, "one QEMU")
        after, later = self.c.snapshot("calm", owner)
        self.assertEqual(after, before)
        self.assertGreater(later, count + 15)
        self.assertLess(self.c.witness.stopped_for("calm", "n%d" % owner, since), 0.3)

    def test_leader_dies_and_the_guests_of_others_go_on(self):
        vm, owner = self.on_a_node(lambda i: i != self.c.leader())
        leader = self.c.leader()
        before, count = self.c.snapshot(vm, owner)
        self.c.kill_node(leader)
        self.c.wait_for(lambda: self.c.leader() not in (None, leader), 10, "there is a new leader")
        self.c.holds_for(lambda: len(self.c.qemus(vm)) == 1, 5, "one QEMU")
        after, later = self.c.snapshot(vm, owner)
        self.assertEqual(after, before)
        self.assertGreater(later, count + 15)

    def on_a_node(self, wanted):
        """Create guests until one is on a node that @wanted accepts: (vm, node)."""
        for n in range(6):
            vm = "pick-%d" % n
            owner = self.create(vm)
            if wanted(owner):
                return vm, owner
        raise AssertionError("none of six guests is where the case needs it")

    def test_leader_and_owner_die_together(self):
        vm, owner = self.on_a_node(lambda i: i == self.c.leader())
        mine = [v for v in self.vms if self.c.qemu(v, owner)]
        self.c.kill_node(owner)
        for name in mine:
            self.elsewhere(name, owner)
        self.assertIn(vm, mine)


if __name__ == "__main__":
    harness.main()
