#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Scrubs of real engines: bits are changed behind their backs, found, told apart and repaired; and what a resync tells
of itself."""
import json
import mmap
import os
import random
import sys
import threading
import unittest

from engines import Engines, wait_for
from test_power import Machines

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402

MIB = 1 << 20
BLOCK = 64 << 10


class Scrub(unittest.TestCase):
    nodes = 3
    engines = Engines

    def setUp(self):
        self.e = self.engines(self.nodes, name="scrub", linked=True)
        self.addCleanup(self.e.close)
        self.e.create("disk", "32MiB", *range(1, self.nodes + 1))
        self.e.start_all()
        self.e.wait_in_sync("disk", range(1, self.nodes + 1))
        self.content = random.Random(7).randbytes(4 * MIB)
        with self.e.client(1, "disk") as c:
            for at in range(0, len(self.content), MIB):
                c.write(at, self.content[at:at + MIB])
            c.flush()

    def rot(self, node, at, data=b"rotten"):
        fd = os.open(self.e.data(node, "disk"), os.O_WRONLY)
        try:
            os.pwrite(fd, data, at)
        finally:
            os.close(fd)

    def bytes_at(self, node, at, n):
        with open(self.e.data(node, "disk"), "rb") as f:
            f.seek(at)
            return f.read(n)

    def status(self, node):
        volumes = json.loads(self.e.vol("--status", self.e.dir(node)).stdout)["volumes"]
        return next(v for v in volumes if v["name"] == "disk")

    def verify(self, *options, node=1):
        done = self.e.vol("--verify", self.e.dir(node), "disk", "--json", *options, check=False)
        self.assertIn(done.returncode, (0, 3), done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual(done.returncode == 3, bool(found["wrong"] or found["undecided"] or found["lost"]))
        self.assertEqual(found["bytes"], 32 * MIB)
        return found

    def findings(self):
        return [(f["offset"], f["verdict"], f.get("node")) for f in self.status(1)["scrub"]["findings"]]

    def assert_good(self, at):
        """Everywhere what was written."""
        for node in range(1, self.nodes + 1):
            wait_for(lambda n=node: self.bytes_at(n, at, BLOCK) == self.content[at:at + BLOCK], 10,
                     "node %d has its block again" % node)


class OfThree(Scrub):
    def test_nothing_is_wrong(self):
        self.assertEqual(self.verify()["wrong"], 0)
        self.assertEqual(self.findings(), [])

    def test_the_majority_is_right(self):
        self.rot(3, 5 * BLOCK + 100)
        self.rot(2, 9 * BLOCK)
        self.rot(1, 20 * BLOCK + 5000)  # the primary's own
        self.assertNotEqual(self.bytes_at(1, 20 * BLOCK, BLOCK), self.content[20 * BLOCK:21 * BLOCK])
        self.assertEqual(self.verify()["wrong"], 3)
        self.assertEqual(self.findings(), [(5 * BLOCK, "wrong", 3), (9 * BLOCK, "wrong", 2), (20 * BLOCK, "wrong", 1)])
        for block in (5, 9, 20):
            self.assert_good(block * BLOCK)
        with self.e.client(1, "disk") as c:
            self.assertEqual(c.read(20 * BLOCK, BLOCK), self.content[20 * BLOCK:21 * BLOCK])
            c.flush()
        self.assertEqual(self.verify()["wrong"], 0)

    def test_three_opinions(self):
        """Nobody can tell; then an administrator does."""
        for node in (1, 2, 3):
            self.rot(node, 7 * BLOCK, b"%d" % node)
        self.assertEqual(self.verify()["undecided"], 1)
        self.assertEqual(self.findings(), [(7 * BLOCK, "undecided", None)])
        self.assertEqual({self.bytes_at(n, 7 * BLOCK, 1) for n in (1, 2, 3)}, {b"1", b"2", b"3"})
        self.assertEqual(self.verify("--primary-wins")["wrong"], 2)
        for node in (1, 2, 3):
            wait_for(lambda n=node: self.bytes_at(n, 7 * BLOCK, 1) == b"1", 10, "node %d has the primary's" % node)

    def test_beside_a_guest(self):
        """It writes everywhere all the time: no false finding, and rot in what it leaves alone is found."""
        self.rot(3, 3 * BLOCK)
        ends, errors = threading.Event(), []

        def guest():
            r = random.Random(3)
            try:
                with self.e.client(1, "disk") as c:
                    while not ends.is_set():
                        c.write(r.randrange(MIB // 4096, 32 * MIB // 4096) * 4096, r.randbytes(4096))
            except Exception as e:
                errors.append(e)

        thread = threading.Thread(target=guest)
        thread.start()
        try:
            for expected in (1, 0, 0):
                found = self.verify()
                self.assertEqual((found["wrong"], found["undecided"], found["lost"]), (expected, 0, 0))
        finally:
            ends.set()
            thread.join(30)
        self.assertEqual(errors, [])
        self.assert_good(3 * BLOCK)

    def test_the_due_one_begins_by_itself(self):
        self.e.stop(1)
        self.e.propose("takeover", "disk", "2")
        self.rot(3, 20 * MIB)  # where nothing was written: else the settling of a new primary mends it
        self.e.stop(2)
        os.utime(self.e.replica(2, "disk"), (0, 0))
        self.e.start(2, options=["--scrub-rate", "0"])
        wait_for(lambda: self.status(2).get("scrub", {}).get("passes"), 60, "it was scrubbed")
        self.assertEqual(self.e.in_sync("disk"), [2, 3])
        self.assertEqual(self.status(2)["scrub"]["undecided"], 1)  # what changed at one of two
        wait_for(lambda: os.path.exists(self.e.replica(2, "disk") + "/scrubbed"), 10, "that is noted")

    def test_refusals(self):
        for argv, said in ((["--verify", self.e.dir(2), "disk"], "ask the engine of node 1"),
                           (["--verify", self.e.dir(1), "nodisk"], "there is no volume 'nodisk'"),
                           (["--status", self.e.root], "no engine runs in this folder")):
            done = self.e.vol(*argv, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(said, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)


class OfTwo(Scrub):
    nodes = 2

    def test_two_opinions(self):
        self.rot(2, 7 * BLOCK)
        self.assertEqual(self.verify()["undecided"], 1)
        self.assertEqual(self.bytes_at(2, 7 * BLOCK, 6), b"rotten")
        self.assertEqual(self.verify("--primary-wins")["wrong"], 1)
        self.assert_good(7 * BLOCK)

    def test_a_replica_given_up_and_wanted_again(self):
        """Both engines run all the time."""
        self.e.propose("remove", "disk", "2")
        self.e.propose("member", "disk", "-2")
        with self.e.client(1, "disk") as c:
            c.write(8 * MIB, self.content[:MIB])
            c.flush()
        self.e.propose("member", "disk", "+2")
        self.e.wait_in_sync("disk", [1, 2])
        self.assertEqual(self.bytes_at(2, 8 * MIB, MIB), self.content[:MIB])
        self.assertEqual(self.verify()["undecided"], 0)

    def test_a_resync_tells_how_far_it_is(self):
        """Beside a guest, so that its rate holds it back."""
        self.e.kill(2)
        self.e.wait_in_sync("disk", [1])
        with self.e.client(1, "disk") as c:
            for at in range(0, 32 * MIB, MIB):
                c.write(at, os.urandom(MIB))
            c.flush()
        self.e.stop(1)
        self.e.start(1, options=["--resync-rate", "4"])
        seen, ends = [], threading.Event()

        def guest():
            with self.e.client(1, "disk") as c:
                while not ends.is_set():
                    c.read(0, 4096)

        thread = threading.Thread(target=guest)
        thread.start()
        try:
            self.e.start(2)

            def looked():
                peers = self.status(1).get("peers", [])
                seen.extend(p for p in peers if "seconds_left" in p)
                return self.e.in_sync("disk") == [1, 2]

            wait_for(looked, 60, "it is in sync")
        finally:
            ends.set()
            thread.join(30)
        self.assertGreater(len(seen), 3)
        left = [p["needs_bytes"] for p in seen]
        self.assertEqual(left, sorted(left, reverse=True))
        self.assertGreater(seen[0]["seconds_left"], seen[-1]["seconds_left"])
        self.assertLess(seen[-1]["bytes_per_second"], 6 * MIB)

# A disk of 512 MiB in IMAGE whose sectors that are listed in BAD, "OFFSET LENGTH" a line, cannot be read until they are
# written. What nbdkit's eval plugin runs: $3 bytes at $4.
BAD_DISK = {
    "get_size": "stat -c %s IMAGE",
    "thread_model": "echo serialize_requests",
    "can_write": "exit 0",
    "can_flush": "exit 0",
    "flush": "exit 0",
    "pread": """
        while read -r at n; do
            if [ "$at" -lt $(($4 + $3)) ] && [ "$4" -lt $((at + n)) ]; then echo "EIO a bad sector" >&2; exit 1; fi
        done <BAD
        dd if=IMAGE iflag=skip_bytes,count_bytes skip="$4" count="$3" bs=1M status=none""",
    "pwrite": """
        dd of=IMAGE oflag=seek_bytes conv=notrunc seek="$4" bs=1M iflag=fullblock status=none || exit 1
        [ -s BAD ] || exit 0
        while read -r at n; do
            if [ "$at" -lt "$4" ] || [ $((at + n)) -gt $(($4 + $3)) ]; then echo "$at $n"; fi
        done <BAD >BAD.new
        mv BAD.new BAD"""}


class BadDisks(Machines):
    """Engines, some of them on disks with sectors that cannot be read."""

    bad = (1, 3)

    def server(self, i):
        open(self.parts(i) + "/bad", "ab").close()
        return ["eval"] + ["%s=%s" % (k, script.replace("IMAGE", self.parts(i) + "/image").replace(
            "BAD", self.parts(i) + "/bad")) for k, script in BAD_DISK.items()]

    def start(self, i, wait=True, options=(), before=()):
        (super().start if i in self.bad else super(Machines, self).start)(i, wait, options, before)

    def replica(self, i, name):
        return super().replica(i, name) if i in self.bad else super(Machines, self).replica(i, name)

    def forget(self, i):
        """Nothing of the replica's data is in memory: what is read next comes from the disk."""
        for path in (self.data(i, "disk"), self.parts(i) + "/fuse/disk"):
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)

    def spoil(self, i, content):
        """The sectors with this content, which is found once."""
        with open(self.parts(i) + "/image", "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as image:
            at = image.find(content)
            assert at >= 0 and image.find(content, at + 1) < 0
        with open(self.parts(i) + "/bad", "a", encoding="ascii") as f:
            f.write("%d %d\n" % (at, len(content)))

    def is_whole(self, i):
        return os.path.getsize(self.parts(i) + "/bad") == 0


class Unreadable(Scrub):
    """Sectors that the disk below cannot read any more, until they are written anew."""

    engines = BadDisks

    def test_unreadable_sectors(self):
        for node, block in ((3, 5), (1, 20)):  # the other one the primary's own, which it has to fetch
            self.e.forget(node)
            at = block * BLOCK + 4096
            self.e.spoil(node, self.content[at:at + 4096])
            with self.assertRaises(OSError):
                self.bytes_at(node, at, 4096)  # the control
            self.e.forget(node)
        found = self.verify()
        self.assertEqual((found["wrong"], found["undecided"], found["lost"]), (2, 0, 0))
        self.assertEqual(self.findings(), [(5 * BLOCK, "wrong", 3), (20 * BLOCK, "wrong", 1)])
        self.assertEqual([f["unreadable"] for f in self.status(1)["scrub"]["findings"]], [True, True])
        self.assertEqual(self.e.in_sync("disk"), [1, 2, 3])
        with self.e.client(1, "disk") as c:
            self.assertEqual(c.read(20 * BLOCK, BLOCK), self.content[20 * BLOCK:21 * BLOCK])
            c.flush()
        for node, block in ((3, 5), (1, 20)):
            self.e.forget(node)
            self.assertTrue(self.e.is_whole(node), "the sectors of node %d were written" % node)
            self.assert_good(block * BLOCK)
        self.assertEqual(self.verify()["wrong"], 0)


if __name__ == "__main__":
    harness.main()
