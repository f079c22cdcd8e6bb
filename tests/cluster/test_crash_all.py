#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every agent is killed at once under a stream of changes: each acknowledged change is there, once, everywhere (P4,
P6, P7)."""
import collections
import os
import random
import signal
import subprocess
import threading
import time

import harness
import processes

ROUNDS = 3 if harness.LONG else 1
WRITERS = 3


class Writer(threading.Thread):
    """Applies VMs that do not run, one after the other, through one node; remembers what was acknowledged."""

    def __init__(self, cluster, node, tag):
        super().__init__(daemon=True)
        self.cluster, self.node, self.tag = cluster, node, tag
        self.ends = threading.Event()
        self.tried, self.acknowledged = [], []

    def run(self):
        n = 0
        while not self.ends.is_set():
            n += 1
            name = "%s-%d-%04d" % (self.tag, self.node, n)
            self.tried.append(name)
            try:
                done = self.cluster.apply(self.node, self.cluster.vm_yaml(name, run=False), check=False)
            except subprocess.TimeoutExpired:
                continue
            if done.returncode == 0:
                self.acknowledged.append(name)
            else:
                time.sleep(0.05)


class CrashAll(harness.ClusterCase):
    def setUp(self):
        super().setUp()
        self.c.wait_formed()

    def kill_all_agents(self):
        """As nearly at one instant as signals go."""
        pids = [p.pid for p in processes.below(self.c.root, "kedged")]
        self.assertEqual(len(pids), 3)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for node in self.c.nodes:
            node.kedged.wait()

    def names(self):
        rows = collections.Counter()
        for i in (1, 2, 3):
            rows = collections.Counter(row["name"] for row in self.c.kedge(i, "vm", "ls")["vms"])
            self.assertEqual([name for name, n in rows.items() if n > 1], [], "twice on n%d" % i)
        return set(rows)

    def equal_hashes(self):
        """True once all three have applied the same entries; different hashes then are a failure at once."""
        states = [self.c.status(i, stale=True) for i in (1, 2, 3)]
        if len({s["applied"] for s in states}) != 1:
            return False
        self.assertEqual(len({s["hash"] for s in states}), 1, "the same log gave different states")
        return True

    def crash_round(self, tag):
        writers = [Writer(self.c, i, tag) for i in range(1, WRITERS + 1)]
        for w in writers:
            w.start()
        enough = random.randint(10, 40)
        self.c.wait_for(lambda: sum(len(w.acknowledged) for w in writers) >= enough, 30, "%d changes" % enough)
        self.kill_all_agents()
        for w in writers:
            w.ends.set()
        for w in writers:
            w.join(harness.COMMAND_S + 5)
        for node in self.c.nodes:
            self.c.start(node.number)
        self.c.wait_formed()
        acknowledged = {name for w in writers for name in w.acknowledged}
        tried = {name for w in writers for name in w.tried}
        return acknowledged, tried

    def test_acknowledged_changes_survive(self):
        for n in range(ROUNDS):
            before = self.names()
            acknowledged, tried = self.crash_round("c%d" % n)
            names = self.names()
            self.assertEqual(sorted(acknowledged - names), [], "acknowledged and lost")
            self.assertEqual(sorted(before - names), [], "lost, though it was there before")
            self.assertEqual(sorted(names - before - tried), [], "nobody asked for these")
            self.c.wait_for(self.equal_hashes, 20, "all have applied the same entries")
            print("    round %d: %d of %d tried were acknowledged, %d are there"
                  % (n + 1, len(acknowledged), len(tried), len(names - before)))

    def test_acknowledged_delete_stays(self):
        self.c.apply(1, self.c.vm_yaml("gone", run=False))
        self.c.command(2, "delete", "vm", "gone")
        self.kill_all_agents()
        for node in self.c.nodes:
            self.c.start(node.number)
        self.c.wait_formed()
        self.assertNotIn("gone", self.names())

    def test_guest_survives_a_restart_of_all_agents(self):
        """Within the lease nobody notices; beyond it the guest is frozen for a while, and never started anew."""
        owner = self.c.create("steady")
        before, count = self.c.snapshot("steady", owner)
        self.kill_all_agents()
        for node in self.c.nodes:
            self.c.start(node.number)
        self.c.wait_formed()
        self.c.wait_for(lambda: self.c.runs_on("steady") == owner, 20, "the guest goes on where it was")
        after, later = self.c.snapshot("steady", owner)
        self.assertEqual(after, before)
        self.assertGreater(later, count)
        self.c.delete("steady")

    def test_guest_comes_back_after_power_loss_of_all_nodes(self):
        owner = self.c.create("phoenix")
        boot = self.c.console("phoenix", owner)[-1].boot
        for node in self.c.nodes:
            self.c.kill_node(node.number)
        self.assertEqual(self.c.qemus("phoenix"), [])
        for node in self.c.nodes:
            self.c.start(node.number)
        to = self.c.wait_for(lambda: self.c.runs_on("phoenix"), 40, "the guest runs again, unasked")
        self.assertNotEqual(self.c.console("phoenix", to)[-1].boot, boot)
        self.c.wait_for(self.equal_hashes, 20, "all have applied the same entries")
        self.c.delete("phoenix")


if __name__ == "__main__":
    harness.main()
