# SPDX-License-Identifier: Apache-2.0
"""What keeps a volume busy while it is hurt: a guest that remembers what was acknowledged, and fio, which checks itself.
And what must be true afterwards."""
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
import unittest

from engines import Client, Disconnected, Engines, wait_for

MIB = 1 << 20
SIZE = 64 * MIB
HALF = SIZE // 2  # the guest has the first, fio the second
SECTOR = 512
CHUNK = 4 * MIB


def is_long():
    """All cases, or those of the default run? A case that is named on the command line always runs."""
    return bool(os.environ.get("KEDGE_TEST_LONG")) or len(sys.argv) > 1


long_case = unittest.skipUnless(is_long(), "only with --long")


class Guest(threading.Thread):
    """Writes and zeroes of random sizes, several at a time, never two on one sector. It follows the primary, and sends
    again what had no answer after each lost connection. A sector holds the number of its last write."""

    def __init__(self, e, seed=1, limit=HALF, flushes=True, remembers=False, name="disk"):
        super().__init__(daemon=True)
        self.volume = name
        self.e, self.limit, self.flushes, self.remembers = e, limit, flushes, remembers
        self.r = random.Random(seed)
        self.acked = {}    # sector: number
        self.history = {}  # sector: every number that it was to get, in order
        self.nth = {}      # sector: which of them was acknowledged last
        self.flushed = {}  # the same, as it was before the last acknowledged flush
        self.open = {}     # number: (kind, first sector, sectors)
        self.locked = set()
        self.value = seed << 32
        self.done = 0
        self.ends = threading.Event()
        self.dies = threading.Event()
        self.error = None
        self.longest = 0.0

    def run(self):
        try:
            while not self.ends.is_set() or (self.open and not self.dies.is_set()):
                try:
                    with Client(self.e.sock(int(self.e.row(self.volume)["primary"])), self.volume) as c:
                        self.session(c)
                except (OSError, Disconnected):
                    time.sleep(0.02)
        except Exception as e:  # told to the test by stop()
            self.error = e

    def choose(self):
        while True:
            n = self.r.choice((1, 8, 8, 8, 32, 128, 256))
            first = self.r.randrange(0, self.limit // SECTOR - n + 1)
            if self.r.random() < 0.8:
                first -= first % 8
            if not self.locked.intersection(range(first, first + n)):
                return first, n

    def send(self, c, number):
        kind, first, n = self.open[number]
        if kind == Client.ZEROES:
            return c.begin(kind, first * SECTOR, n * SECTOR)
        return c.begin(kind, first * SECTOR, data=content(number) * n)

    def session(self, c):
        pending = {self.send(c, number): number for number in list(self.open)}
        flush, covered = None, None
        while pending or flush or not self.ends.is_set():
            if self.dies.is_set():
                return
            depth = self.r.choice((1, 4, 16))
            while len(pending) < depth and not self.ends.is_set():
                first, n = self.choose()
                self.value += 1
                self.open[self.value] = (Client.ZEROES if self.r.random() < 0.05 else Client.WRITE, first, n)
                self.locked.update(range(first, first + n))
                self.remember(self.value)
                pending[self.send(c, self.value)] = self.value
            if self.flushes and not flush and self.r.random() < 0.02:
                covered = dict(self.nth)
                flush = c.begin(Client.FLUSH)
            if not pending and not flush:
                time.sleep(0.01)
                continue
            began = time.monotonic()
            try:
                cookie, error, _ = c.end()
            finally:
                self.longest = max(self.longest, time.monotonic() - began)
            if error:
                raise AssertionError("the guest saw the error %d" % error)
            if cookie == flush:
                flush, self.flushed = None, covered
                continue
            self.finish(pending.pop(cookie))

    def remember(self, number):
        kind, first, n = self.open[number]
        for sector in range(first, first + n) if self.remembers else ():
            self.history.setdefault(sector, []).append(0 if kind == Client.ZEROES else number)

    def finish(self, number):
        kind, first, n = self.open.pop(number)
        for sector in range(first, first + n):
            self.acked[sector] = 0 if kind == Client.ZEROES else number
            if self.remembers:
                self.nth[sector] = len(self.history[sector]) - 1
        self.locked.difference_update(range(first, first + n))
        self.done += 1

    def maybe(self):
        """Sectors of what has no answer: the numbers that they may have too."""
        found = {}
        for number, (kind, first, n) in self.open.items():
            for sector in range(first, first + n):
                found.setdefault(sector, set()).add(0 if kind == Client.ZEROES else number)
        return found

    def stop(self):
        """Everything that it sent is answered."""
        self.ends.set()
        self.join(120)
        if self.error:
            raise self.error
        if self.is_alive():
            raise AssertionError("the guest hangs with %d requests" % len(self.open))

    def kill(self):
        """It is dead: what it had not been told of may be there or not."""
        self.dies.set()
        self.ends.set()
        self.join(60)
        if self.error:
            raise self.error
        if self.is_alive():
            raise AssertionError("the guest hangs")

    def goes_on(self, n=50, seconds=60):
        count = self.done
        wait_for(lambda: self.done > count + n or self.error or not self.is_alive(), seconds,
                 "the guest goes on: " + self.e.tails())
        if self.error:
            raise self.error


def content(number):
    return number.to_bytes(8, "big") * (SECTOR // 8)


class Fio(threading.Thread):
    """fio on the second half, again and again with other sizes and depths; it reads back and verifies each run."""

    def __init__(self, e, node, seed=1):
        super().__init__(daemon=True)
        self.e, self.node, self.seed = e, node, seed
        self.ends = threading.Event()
        self.runs = 0
        self.failed = None
        self.process = None

    def run(self):
        r = random.Random(self.seed)
        while not self.ends.is_set() and not self.failed:
            sizes = r.choice(("4k-4k", "512-64k", "4k-256k"))
            argv = ["fio", "--name=v", "--thread", "--ioengine=nbd", "--uri=" + self.e.uri(self.node, "disk"), "--rw=randrw",
                    "--bsrange=" + sizes, "--bs_unaligned=0", "--iodepth=%d" % r.choice((1, 8, 32)),
                    "--offset=%d" % HALF, "--size=%d" % HALF, "--io_size=8m", "--verify=crc32c", "--verify_fatal=1",
                    "--do_verify=1", "--randseed=%d" % r.randrange(1 << 30)]
            with open(self.e.root + "/fio.log", "ab") as log:
                self.process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self.e.root, start_new_session=True)
                try:
                    code = self.process.wait(180)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    code = self.process.wait()
            if code != 0 and not self.ends.is_set():
                self.failed = "%s: exit code %d" % (" ".join(argv), code)
            self.runs += code == 0

    def goes_on(self, seconds=120):
        count = self.runs
        wait_for(lambda: self.runs > count or self.failed, seconds, "fio goes on: " + self.e.tails())
        if self.failed:
            raise AssertionError(self.failed)

    def stop(self):
        """After at least one whole run."""
        if self.runs == 0:
            self.goes_on()
        self.ends.set()
        if self.process:
            self.process.kill()
        self.join(60)
        if self.failed:
            raise AssertionError(self.failed)


class LoadedCase(unittest.TestCase):
    """Engines with a volume on all of them, and what is checked in the end."""

    nodes = 3
    size = SIZE
    options = ()
    namespaces = False
    engines = Engines

    def setUp(self):
        self.e = self.engines(self.nodes, name="faults", options=self.options, linked=True, namespaces=self.namespaces)
        self.addCleanup(self.e.close)
        self.all = list(range(1, self.nodes + 1))
        self.last = self.nodes
        self.e.create("disk", "%d" % self.size, *self.all)
        self.begin()

    def begin(self):
        self.e.start_all()
        self.e.wait_in_sync("disk", self.all, 60)

    def guest(self, seed=1, **kwargs):
        g = Guest(self.e, seed, **kwargs)
        self.addCleanup(lambda: (g.dies.set(), g.ends.set()))
        g.start()
        g.goes_on()
        return g

    def fio(self, node=1, seed=1):
        f = Fio(self.e, node, seed)
        self.addCleanup(lambda: (f.ends.set(), f.process and f.process.kill()))
        f.start()
        return f

    def assert_there(self, guest):
        """Every acknowledged write reads back, and of the others the old content or the new one."""
        maybe = guest.maybe()
        for sector, got in self.sectors(guest.limit, guest.volume):
            allowed = maybe.get(sector, set()) | {guest.acked.get(sector, 0)}
            if not any(got == content(number) for number in allowed):
                self.fail("sector %d has %s, not one of %s" % (sector, got[:8].hex(), ["%x" % n for n in allowed]))

    def sectors(self, limit, name="disk"):
        """What the primary has, sector by sector."""
        with self.e.client(int(self.e.row(name)["primary"]), name, 60) as c:
            for at in range(0, limit, CHUNK):
                data = c.read(at, CHUNK)
                for i in range(0, CHUNK, SECTOR):
                    yield (at + i) // SECTOR, data[i:i + SECTOR]

    def settle(self, seconds=120, name="disk"):
        self.e.wait_in_sync(name, self.all, seconds)

    def differences(self, name="disk"):
        """The first sectors that are not the same everywhere: (number, what each node has)."""
        found = []
        files = {i: open(self.e.data(i, name), "rb") for i in self.all}
        try:
            for n in range(os.path.getsize(self.e.data(1, name)) // SECTOR):
                got = {i: f.read(SECTOR) for i, f in files.items()}
                if len(set(got.values())) > 1:
                    found.append((n, {i: data[:12].hex() for i, data in got.items()}))
        finally:
            for f in files.values():
                f.close()
        return "%d sectors differ, the first: %s" % (len(found), found[:5])

    def assert_equal(self, name="disk"):
        """The guest is silent and all are in sync: the replicas hold the same bytes."""
        self.settle(name=name)
        with self.e.client(int(self.e.row(name)["primary"]), name, 60) as c:
            c.flush()
        hashes = {}
        for i in self.all:
            with open(self.e.data(i, name), "rb") as f:
                hashes[i] = hashlib.file_digest(f, "sha256").hexdigest()
        self.assertEqual(len(set(hashes.values())), 1, "%s: %s" % (hashes, self.differences(name)))

    def finish(self, guest, fio=None):
        if fio:
            fio.stop()
        guest.stop()
        self.settle(name=guest.volume)
        self.assert_there(guest)
        self.assert_equal(guest.volume)
        print("    %d writes, %s fio runs; longest wait of the guest: %.2f s"
              % (guest.done, fio.runs if fio else "no", guest.longest))

    def incarnation(self, i):
        return self.e.member("disk", i)["reported"]
