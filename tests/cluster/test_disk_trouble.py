#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Guests with disks on nodes that do not die but are of no use: their engine, their disk, their agent's file (P1, P3, P6)."""
import disks
import harness
from test_disks import DiskCase


class Unsound(DiskCase):
    """An engine that dies again and again: the third time its guest runs elsewhere (DESIGN, section 2)."""

    def kill_engine(self, i):
        """Returns once the next one is there, as the node itself says."""
        old = self.c.kill(i, "kedge-vol")
        self.c.wait_for(lambda: self.engine(i) not in (None, old), 20, "a new engine")
        self.c.wait_for(lambda: self.node_of(i)["engine"], 20, "kedged knows it")

    def engine(self, i):
        return self.c._pid(i, "kedge-vol")

    def node_of(self, i, asked=None):
        return next(n for n in self.c.status(asked or i, stale=True)["nodes"] if n["name"] == "n%d" % i)

    def test_engine_dies_three_times(self):
        owner = self.create("weary")
        snapshot = self.c.snapshot("weary", owner)[0]
        for _ in range(2):
            self.kill_engine(owner)
            self.assertEqual(self.writes("weary"), owner)
        self.assertEqual(self.c.snapshot("weary", owner)[0], snapshot, "twice is borne")
        last = disks.last_written(self.c, "weary", owner)
        self.kill_engine(owner)
        to = self.writes("weary", but=(owner,))
        found = next(t for t in disks.told(self.c, "weary", to) if t.what == "found")
        self.assertGreaterEqual(found.n, last, "an acknowledged line is lost")
        self.check("weary", to)
        self.assertTrue(self.happened(to, "weary", "volume engine"))
        self.assertTrue(self.happened(to, "n%d" % owner, "died again and again"))
        problems = self.c.status(self.c.leader())["problems"]
        self.assertTrue(any("n%d: its volume engine died" % owner in p for p in problems), problems)
        self.assertTrue(self.node_of(owner, self.c.leader())["engine_unsound"])
        self.assertFalse(self.node_of(to, self.c.leader())["engine_unsound"])
        self.c.wait_for(lambda: disks.is_whole(self.c, to, "weary.root"), 60, "both replicas are in sync")
        self.stays_where_it_is_better_than_nowhere(owner, to)

    def stays_where_it_is_better_than_nowhere(self, owner, to):
        """Its node dies: it runs again where the engine is unsound, since no other node has the disk (P6)."""
        self.c.kill_node(to)
        self.writes("weary", but=(to,))
        self.assertEqual(self.c.runs_on("weary"), owner)
        self.check("weary", owner)


if __name__ == "__main__":
    harness.main()
