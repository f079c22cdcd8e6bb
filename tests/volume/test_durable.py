#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two engines: a write in steady state makes nothing durable, and a FLUSH syncs each member once. Counted by strace."""
import os
import random
import sys
import time
import unittest

from engines import Client, Engines
from syncs import MIB, Witness, set_intents

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402

SIZE = 64 * MIB
WRITES = 2000
LET_GO_S = 4.5  # extents that are idle for 5 s are let go, which does sync
DEPTH = 16


class Durable(unittest.TestCase):
    options = ("--threads",)  # system calls that strace can see

    def setUp(self):
        self.e = Engines(2, name="durable", options=self.options, linked=True)
        self.addCleanup(self.e.close)
        self.e.create("disk", "64MiB", 1, 2)
        self.e.start_all()
        self.e.wait_in_sync("disk", [1, 2])

    def writes(self, c, n):
        """@n writes of 4 KiB anywhere, several at a time, without any FLUSH."""
        r = random.Random(5)
        under_way = set()
        for at in r.sample(range(SIZE // 4096), n):
            under_way.add(c.begin(Client.WRITE, at * 4096, data=b"w" * 4096))
            if len(under_way) == DEPTH:
                self.ended(c, under_way)
        while under_way:
            self.ended(c, under_way)

    def ended(self, c, under_way):
        cookie, error, _ = c.end()
        self.assertEqual(error, 0)
        under_way.remove(cookie)

    def watched(self, c, act):
        """What both synced and wrote during @act, all intents being set. Again where the machine took so long that extents
        were let go meanwhile, which is no steady state."""
        for _ in range(5):
            began = time.monotonic()
            set_intents(c, SIZE)
            with Witness(self.e, 1) as primary, Witness(self.e, 2) as replica:
                act()
            if time.monotonic() - began < LET_GO_S:
                return primary, replica
        return self.skipTest("too slow a machine to stay in a steady state")

    def test_steady_writes_sync_nothing_and_a_flush_syncs_once(self):
        with self.e.client(1, "disk") as c:
            for w in self.watched(c, lambda: self.writes(c, WRITES)):
                self.assertEqual((dict(w.syncs), w.durable_writes), ({}, 0))
                self.assertEqual((w.writes["meta"], w.writes["epochs"]), (0, 0))
                self.assertGreaterEqual(w.writes["data"], WRITES)
            for w in self.watched(c, lambda: (c.write(0, b"f" * 4096), c.flush())):
                self.assertEqual((dict(w.syncs), w.durable_writes), ({"data": 1}, 0))
                self.assertEqual((w.writes["meta"], w.writes["epochs"]), (0, 0))

    def test_the_witness_sees_a_first_write(self):
        """The control: the intent of an extent that has none is made durable at both, and the witness counts it."""
        with self.e.client(1, "disk") as c:
            with Witness(self.e, 1) as primary, Witness(self.e, 2) as replica:
                c.write(0, b"c" * 4096)
            for w in (primary, replica):
                self.assertGreaterEqual(w.syncs["meta"], 1)
                self.assertGreaterEqual(w.writes["meta"], 1)


if __name__ == "__main__":
    harness.main()
