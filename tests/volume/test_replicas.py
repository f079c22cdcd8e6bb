#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two and three real engines over TLS: what was acknowledged is read back after any of them died, and replicas are equal
byte by byte once all is settled."""
import hashlib
import json
import os
import random
import re
import signal
import sys
import threading
import time
import unittest

from engines import Client, Disconnected, Engines, wait_for

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402

MIB = 1 << 20
SIZE = 64 * MIB
SECTOR = 4096


class Writer(threading.Thread):
    """A guest that writes, sends again what had no answer after each lost connection, and remembers what was
    acknowledged."""

    def __init__(self, e, node, seed):
        super().__init__(daemon=True)
        self.e, self.node = e, node
        self.r = random.Random(seed)
        self.acked, self.open = {}, {}
        self.value = seed << 32
        self.ends = threading.Event()
        self.error = None
        self.longest = 0.0

    def run(self):
        try:
            while not self.ends.is_set():
                try:
                    with Client(self.e.sock(self.node), "disk") as c:
                        self.session(c)
                except (OSError, Disconnected):
                    time.sleep(0.02)
        except Exception as e:  # told to the test by stop()
            self.error = e

    def session(self, c):
        pending = {}
        for at, value in list(self.open.items()):
            pending[c.begin(Client.WRITE, at, data=value.to_bytes(8, "big") * 512)] = at
        while pending or not self.ends.is_set():
            while len(pending) < 8 and not self.ends.is_set():
                at = self.r.randrange(0, SIZE // SECTOR) * SECTOR
                if at in self.open:
                    continue
                self.value += 1
                self.open[at] = self.value
                pending[c.begin(Client.WRITE, at, data=self.value.to_bytes(8, "big") * 512)] = at
            began = time.monotonic()
            cookie, error, _ = c.end()
            self.longest = max(self.longest, time.monotonic() - began)
            if error:
                raise AssertionError("the guest saw the error %d" % error)
            at = pending.pop(cookie)
            self.acked[at] = self.open.pop(at)

    def stop(self):
        self.ends.set()
        self.join(60)
        if self.error:
            raise self.error
        if self.is_alive():
            raise AssertionError("the writer hangs")

    def kill(self):
        """The guest is dead: what it had not been told of may be there or not."""
        self.ends.set()
        self.join(30)
        if self.error:
            raise self.error


class Replicas(unittest.TestCase):
    nodes = 3

    def setUp(self):
        self.e = Engines(self.nodes, name="replicas", linked=True)
        self.addCleanup(self.e.close)
        self.e.create("disk", "64MiB", *range(1, self.nodes + 1))
        self.e.start_all()
        self.all = list(range(1, self.nodes + 1))
        self.e.wait_in_sync("disk", self.all)

    def writer(self, node, seed=1):
        w = Writer(self.e, node, seed)
        w.start()
        wait_for(lambda: len(w.acked) > 50 or w.error, 30, "it writes: " + self.e.log(node)[-500:])
        return w

    def assert_there(self, node, *writers):
        """Every acknowledged write, and of the others the old or the new one."""
        wanted, maybe = {}, {}
        for w in writers:
            for at, value in w.acked.items():
                wanted[at] = value
                maybe.pop(at, None)
            for at, value in w.open.items():
                maybe.setdefault(at, set()).add(value)
        with self.e.client(node, "disk") as c:
            for at in set(wanted) | set(maybe):
                got = int.from_bytes(c.read(at, SECTOR)[:8], "big")
                self.assertIn(got, maybe.get(at, set()) | {wanted.get(at, 0)}, "at %d" % at)
            c.flush()

    def is_settled(self):
        """The primary has compared itself with all others, and none lacks anything: what is on the disks is the same."""
        status = json.loads(self.e.vol("--status", self.e.dir(int(self.e.row("disk")["primary"]))).stdout)
        peers = next(v for v in status["volumes"] if v["name"] == "disk").get("peers", [])
        return len(peers) == len(self.all) - 1 and all(p["in_sync"] and p["known"] and not p["needs_bytes"] for p in peers)

    def assert_equal(self):
        wait_for(self.is_settled, 60, "the replicas are settled")
        hashes = {}
        for i in self.all:
            with open(self.e.data(i, "disk"), "rb") as f:
                hashes[i] = hashlib.sha256(f.read()).hexdigest()
        self.assertEqual(len(set(hashes.values())), 1, hashes)

    def takeover(self, to):
        self.e.propose("takeover", "disk", str(to))

    # ---- cases

    def test_joined_replicas_are_equal(self):
        w = self.writer(1)
        w.stop()
        self.assert_there(1, w)
        self.assert_equal()

    def test_replica_is_killed_and_comes_back(self):
        w = self.writer(1)
        for _ in range(3):
            victim = self.all[-1]
            self.e.kill(victim)
            self.e.wait_in_sync("disk", self.all[:-1])
            count = len(w.acked) + len(w.open)
            wait_for(lambda c=count: w.value - (1 << 32) > c + 100, 30, "it goes on writing")
            self.e.start(victim)
            self.e.wait_in_sync("disk", self.all, 60)
        w.stop()
        self.assert_there(1, w)
        self.assert_equal()
        print("    longest wait of the guest: %.2f s" % w.longest)

    def test_primary_is_killed_and_another_takes_over(self):
        writers = []
        primary = 1
        for turn in range(3):
            w = self.writer(primary, turn + 1)
            writers.append(w)
            self.e.kill(primary)
            w.kill()
            others = [i for i in self.all if i != primary]
            self.takeover(others[0])
            self.assert_there(others[0], *writers)
            self.e.start(primary)
            self.e.wait_in_sync("disk", self.all, 60)
            primary = others[0]
        self.assert_there(primary, *writers)
        self.assert_equal()

    def test_engine_of_the_primary_restarts(self):
        w = self.writer(1)
        for _ in range(3):
            self.e.kill(1)
            self.e.start(1)
            count = w.value
            wait_for(lambda c=count: w.value > c + 100, 30, "it goes on: " + self.e.log(1)[-500:])
        w.stop()
        self.e.wait_in_sync("disk", self.all, 60)
        self.assert_there(1, w)
        self.assert_equal()

    def test_all_engines_are_killed_at_once(self):
        """What was acknowledged is in somebody's kernel: nobody lost power."""
        writers = []
        for turn in range(3):
            w = self.writer(1, turn + 1)
            writers.append(w)
            for i in self.all:
                self.e.procs[i].kill()
            for i in self.all:
                self.e.kill(i)
            w.kill()
            self.e.start_all()
            self.e.wait_in_sync("disk", self.all, 60)
            self.assert_there(1, *writers)
        self.assert_equal()

    def test_hung_primary_is_fenced(self):
        """It stands still for longer than the takeover takes. Its late writes are refused: it may still answer those that
        all had before, and no other."""
        w = self.writer(1)
        os.kill(self.e.procs[1].pid, signal.SIGSTOP)
        time.sleep(0.3)
        self.takeover(2)
        with self.e.client(2, "disk") as c:
            c.write(0, b"\xff" * SECTOR)
            c.flush()
            os.kill(self.e.procs[1].pid, signal.SIGCONT)
            w.kill()
            self.assertEqual(c.read(0, SECTOR), b"\xff" * SECTOR)
        w.acked.pop(0, None)
        w.open.pop(0, None)
        self.assert_there(2, w)
        self.e.wait_in_sync("disk", self.all, 60)
        self.assert_equal()

    def test_hung_replica_is_removed(self):
        w = self.writer(1)
        os.kill(self.e.procs[self.all[-1]].pid, signal.SIGSTOP)
        self.e.wait_in_sync("disk", self.all[:-1])
        count = w.value
        wait_for(lambda: w.value > count + 100, 30, "it goes on")
        os.kill(self.e.procs[self.all[-1]].pid, signal.SIGCONT)
        self.e.wait_in_sync("disk", self.all, 60)
        w.stop()
        self.assert_there(1, w)
        self.assert_equal()
        print("    longest wait of the guest: %.2f s" % w.longest)

    def test_grows_while_members_die(self):
        """Larger three times below a guest that writes: with all in sync (the last block is a short one then), while a
        member is away, and as one is killed in that moment. What was written to each new end is there after a takeover."""
        w = self.writer(1)
        victim, old, wide = self.all[-1], SIZE, {}
        for turn, size in enumerate((SIZE + 3 * SECTOR, 100 * MIB, 200 * MIB + SECTOR)):
            if turn == 1:
                self.e.kill(victim)
            self.e.propose("grow", "disk", str(size))
            if turn == 2:
                self.e.kill(victim)
            wait_for(lambda s=size: self.e.row("disk")["size"] == str(s), 30, "the store says the new size")
            wait_for(lambda s=size: self.size_at(1) == s, 30, "the primary serves it")
            with self.e.client(1, "disk") as c:
                for at in {old, size - SECTOR, *(w.r.randrange(old, size) // SECTOR * SECTOR for _ in range(20))}:
                    wide[at] = os.urandom(SECTOR)
                    c.write(at, wide[at])
                c.flush()
            if turn:
                self.e.start(victim)
            self.e.wait_in_sync("disk", self.all, 60)
            old = size
        self.assertIn("never shrinks", self.e.propose("grow", "disk", "64MiB", check=False).stderr)
        w.stop()
        self.e.kill(1)
        self.takeover(victim)
        self.assert_there(victim, w)
        with self.e.client(victim, "disk") as c:
            for at, data in wide.items():
                self.assertEqual(c.read(at, SECTOR), data, "at %d" % at)
        self.e.start(1)
        self.e.wait_in_sync("disk", self.all, 60)
        self.e.vol("--inspect", self.e.replica(1, "disk"))
        self.assert_equal()

    def size_at(self, i):
        return int(self.e.run("nbdinfo", "--size", self.e.uri(i, "disk")).stdout)

    def test_only_what_changed_travels(self):
        """48 MiB are written with all in sync, 1 MiB while one is away: it gets a little more than that."""
        victim = self.all[-1]
        with self.e.client(1, "disk") as c:
            for at in range(48):
                c.write(at * MIB, os.urandom(MIB))
            c.flush()
            self.wait_cleared()
            self.e.stop(victim)
            self.e.wait_in_sync("disk", self.all[:-1])
            for at in range(16):
                c.write(at * 3 * MIB, os.urandom(65536))
            c.flush()
            self.e.start(victim)
            self.e.wait_in_sync("disk", self.all, 60)
            c.flush()
        self.e.stop(victim)
        received = [int(n) for n in re.findall(r"(\d+) received", self.e.log(victim))]
        print("    received when it came back: %.1f MiB" % (received[-1] / MIB))
        self.assertLess(received[-1], 3 * MIB)
        self.assertGreater(received[-1], MIB // 2)
        self.assert_equal()

    def wait_cleared(self):
        for i in self.all:
            wait_for(lambda i=i: self.e.inspect(i, "disk")["intents_set"] == 0, 40, "intents of %d are cleared" % i)

    def test_fio_verifies(self):
        self.e.run("fio", "--name=v", "--ioengine=nbd", "--uri=" + self.e.uri(1, "disk"), "--rw=randrw",
                   "--bsrange=4k-256k", "--iodepth=16", "--size=64m", "--io_size=48m", "--verify=crc32c",
                   "--verify_fatal=1", "--do_verify=1", "--output=" + self.e.root + "/fio.txt", cwd=self.e.root)
        self.assert_equal()


class Two(Replicas):
    nodes = 2


if __name__ == "__main__":
    harness.main()
