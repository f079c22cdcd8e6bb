#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One real engine with one replica: others' clients, crashes, and what it refuses."""
import json
import os
import random
import signal
import subprocess
import sys
import time
import unittest

from engines import Client, Disconnected, Engines, wait_for

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402

MIB = 1 << 20


class Case(unittest.TestCase):
    options = ()

    def setUp(self):
        self.e = Engines(1, options=self.options)
        self.addCleanup(self.e.close)

    def served(self, size="64MiB"):
        self.e.create("disk", size, 1)
        self.e.start(1)
        return self.e.client(1, "disk")


def rings_of_libuv():
    """How many rings of io_uring a loop of libuv has by itself: newer ones have one, for epoll."""
    program = ("import ctypes, os; uv = ctypes.CDLL('libuv.so.1'); loop = ctypes.create_string_buffer(uv.uv_loop_size()); "
               "uv.uv_loop_init(loop); print([os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') "
               "if os.path.lexists('/proc/self/fd/' + fd)].count('anon_inode:[io_uring]'))")
    return int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


class OthersClients(Case):
    way = (True, False)  # io_uring, O_DIRECT

    def test_way_of_io(self):
        """It does its I/O as it was told to, as the kernel says."""
        self.served().close()
        base = "/proc/%d/" % self.e.procs[1].pid
        links = {fd: os.readlink(base + "fd/" + fd) for fd in os.listdir(base + "fd")}
        data = next(fd for fd, path in links.items() if path == self.e.data(1, "disk"))
        with open(base + "fdinfo/" + data, encoding="utf-8") as f:
            flags = next(int(line.split()[1], 8) for line in f if line.startswith("flags:"))
        rings = list(links.values()).count("anon_inode:[io_uring]") - rings_of_libuv()
        self.assertEqual((rings == 1, bool(flags & os.O_DIRECT)), self.way, links)

    def test_nbdinfo(self):
        with self.served() as c:
            c.write(8 * MIB, os.urandom(MIB))
            c.flush()
        info = json.loads(self.e.run("nbdinfo", "--json", self.e.uri(1, "disk")).stdout)["exports"][0]
        self.assertEqual(info["export-size"], 64 * MIB)
        for flag in ("can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_cache", "can_df",
                     "can_fast_zero"):
            self.assertTrue(info[flag], flag)
        self.assertFalse(info["is_read_only"])
        self.assertEqual(info["block_size_preferred"], 4096, info)
        self.assertIn("base:allocation", info["contexts"])
        listed = json.loads(self.e.run("nbdinfo", "--list", "--json", "nbd+unix://?socket=" + self.e.sock(1)).stdout)
        self.assertEqual([x["export-name"] for x in listed["exports"]], ["disk"])

    def test_map_shows_holes(self):
        with self.served() as c:
            c.write(8 * MIB, os.urandom(MIB))
            c.flush()
        extents = json.loads(self.e.run("nbdinfo", "--map", "--json", self.e.uri(1, "disk")).stdout)
        data = [(x["offset"], x["length"]) for x in extents if not x["type"] & 1]
        self.assertEqual(data, [(8 * MIB, MIB)])
        self.assertEqual(sum(x["length"] for x in extents), 64 * MIB)

    def test_nbdcopy_there_and_back(self):
        self.served().close()
        path = self.e.root + "/image"
        with open(path, "wb") as f:
            f.truncate(64 * MIB)
            for at in (0, 5 * MIB + 4096, 64 * MIB - 4096):
                f.seek(at)
                f.write(os.urandom(4096))
        self.e.run("nbdcopy", "--flush", path, self.e.uri(1, "disk"))
        self.e.run("nbdcopy", self.e.uri(1, "disk"), path + ".back")
        self.e.run("cmp", path, path + ".back")
        self.e.run("qemu-img", "compare", "-f", "raw", "-F", "raw", path,
                   "nbd:unix:%s:exportname=disk" % self.e.sock(1))
        self.e.run("cmp", path, self.e.data(1, "disk"))

    def test_qemu_io(self):
        self.served().close()
        done = self.e.run("qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 192k", "-c", "write -z 1M 64k",
                          "-c", "discard 1088k 64k", "-c", "flush", "-c", "read -P 0 1M 128k",
                          "-c", "read -P 0x5a 1152k 64k", "nbd:unix:%s:exportname=disk" % self.e.sock(1))
        self.assertNotIn("rror", done.stdout + done.stderr)
        self.assertNotIn("attern", done.stdout + done.stderr)

    def test_fio_verifies(self):
        self.served().close()
        for depth, sizes in ((1, "4k"), (32, "512-64k"), (8, "4k-1m")):
            self.e.run("fio", "--name=v", "--ioengine=nbd", "--uri=" + self.e.uri(1, "disk"), "--rw=randrw",
                       "--bsrange=" + (sizes if "-" in sizes else "%s-%s" % (sizes, sizes)), "--bs_unaligned=0",
                       "--iodepth=%d" % depth, "--size=64m", "--io_size=24m", "--verify=crc32c", "--verify_fatal=1",
                       "--do_verify=1", "--randseed=%d" % depth, "--output=" + self.e.root + "/fio.txt", cwd=self.e.root)

    def test_unaligned(self):
        model = bytearray(64 * MIB)
        r = random.Random(7)
        with self.served() as c:
            for _ in range(300):
                at, n = r.randrange(0, 200000), r.randrange(1, 20000)
                if r.random() < 0.6:
                    data = r.randbytes(n)
                    c.write(at, data)
                    model[at:at + n] = data
                elif r.random() < 0.3:
                    c.zero(at, n)
                    model[at:at + n] = bytes(n)
                else:
                    self.assertEqual(c.read(at, n), bytes(model[at:at + n]))
            c.flush()
        with open(self.e.data(1, "disk"), "rb") as f:
            self.assertEqual(f.read(300000), bytes(model[:300000]))


class Threads(OthersClients):
    """The same without io_uring."""

    options = ("--threads",)
    way = (False, False)


class Direct(OthersClients):
    """The same around the page cache."""

    options = ("--direct",)
    way = (True, True)


class FailingDisks(Case):
    options = ("--threads",)  # system calls that can be made to fail

    def test_failed_flush_is_a_power_loss(self):
        """The flush is never acknowledged; the replica comes back in another incarnation, and serves once the loss is
        accepted as the cold start that it is (V13, V25, V27)."""
        with self.served() as c:
            c.write(0, b"a" * 4096)
            c.flush()
            before = self.e.inspect(1, "disk")["incarnation"]
            tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", self.e.root + "/strace.log", "-e", "trace=fdatasync",
                                       "-e", "inject=fdatasync:error=EIO:when=1", "-p", str(self.e.procs[1].pid)])
            self.addCleanup(tracer.wait)
            self.addCleanup(tracer.kill)
            wait_for(lambda: self.is_traced(), 10, "strace is attached")
            c.write(4096, b"b" * 4096)
            self.assertRaises(Disconnected, c.flush)
        tracer.terminate()
        tracer.wait()
        wait_for(lambda: self.e.inspect(1, "disk")["incarnation"] != before, 10, "another incarnation")
        self.assertRaises((OSError, Disconnected), Client, self.e.sock(1), "disk")
        wait_for(lambda: self.e.propose("cold", "disk", "1", check=False).returncode == 0, 10, "the loss was reported")
        with self.e.client(1, "disk") as c:
            self.assertEqual(c.read(0, 4096), b"a" * 4096)

    def test_killed_after_a_failed_sync(self):
        """It dies as it opens the replica anew, before the new incarnation is durable. The kernel tells nobody of the
        error once more; the next engine knows of it all the same."""
        self.e.create("disk", "64MiB", 1)
        self.e.start(1, options=["--threads"])
        with self.e.client(1, "disk") as c:
            c.write(0, b"a" * 4096)
            c.flush()
            before = self.e.inspect(1, "disk")["incarnation"]
            tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", self.e.root + "/strace.log", "-e", "trace=fdatasync,flock",
                                       "-e", "inject=fdatasync:error=EIO:when=1", "-e", "inject=flock:signal=KILL:when=1",
                                       "-p", str(self.e.procs[1].pid)])
            self.addCleanup(tracer.wait)
            self.addCleanup(tracer.kill)
            wait_for(self.is_traced, 10, "strace is attached")
            c.write(4096, b"b" * 4096)
            self.assertRaises(Disconnected, c.flush)
        self.assertEqual(self.e.procs.pop(1).wait(30), -signal.SIGKILL)
        self.assertEqual(self.e.inspect(1, "disk")["incarnation"], before)  # not yet
        self.e.start(1)
        wait_for(lambda: self.e.inspect(1, "disk")["incarnation"] != before, 10, "another incarnation")
        wait_for(lambda: self.e.propose("cold", "disk", "1", check=False).returncode == 0, 10, "the loss was reported")
        self.e.client(1, "disk").close()
        after = self.e.inspect(1, "disk")["incarnation"]
        self.e.kill(1)
        self.e.start(1)  # and only once
        self.e.client(1, "disk").close()
        self.assertEqual(self.e.inspect(1, "disk")["incarnation"], after)

    def is_traced(self):
        with open("/proc/%d/status" % self.e.procs[1].pid, encoding="utf-8") as f:
            return "TracerPid:\t0\n" not in f.read()

    def test_full_disk_is_waited_for(self):
        """The last replica's write waits for room, and is then done; nobody sees an error (V13)."""
        self.e.create("disk", "64MiB", 1)
        small = "mount -t tmpfs -o size=12m none \"$0\" && dd if=/dev/zero of=\"$0/ballast\" bs=1M count=6 2>&1 && " \
                "mkdir -p \"$0/run\" && mount --bind \"$1\" \"$0/run\" && exec \"${@:2}\""
        shared = self.e.root + "/run"
        os.makedirs(shared)
        os.makedirs(self.e.dir(1) + "/run")
        self.e.start(1, wait=False, before=["unshare", "-m", "--propagation", "private", "bash", "-c", small,
                                            self.e.dir(1), shared])
        path = shared + "/nbd.sock"
        c = wait_for(lambda: self.attempt(path), 15, "served: " + self.e.log(1))
        with c:
            sent = {c.begin(Client.WRITE, at * MIB, data=bytes([at + 1]) * MIB): at for at in range(10)}
            c.s.settimeout(2)
            self.assertRaises(TimeoutError, lambda: [sent.pop(c.end()[0]) for _ in range(10)])
            self.assertTrue(sent)
            c.s.settimeout(20)
            self.e.run("nsenter", "-t", str(self.e.procs[1].pid), "-m", "rm", self.e.dir(1) + "/ballast")
            while sent:
                cookie, error, _ = c.end()
                self.assertEqual(error, 0)
                sent.pop(cookie)
            for at in range(10):
                self.assertEqual(c.read(at * MIB, 16), bytes([at + 1]) * 16)

    def attempt(self, path):
        try:
            return Client(path, "disk")
        except (OSError, Disconnected):
            return None


class Crashes(Case):
    def test_killed_again_and_again(self):
        """Every acknowledged write is there after each SIGKILL; unacknowledged ones are there or not."""
        r = random.Random(11)
        acked = {}
        open_writes = {}
        self.e.create("disk", "64MiB", 1)
        value = 0
        for _ in range(6):
            self.e.start(1)
            with self.e.client(1, "disk") as c:
                for at, values in open_writes.items():
                    got = int.from_bytes(c.read(at, 4096)[:8], "big")
                    self.assertIn(got, values | {acked.get(at, 0)})
                    acked[at] = got
                open_writes = {}
                for at, wanted in acked.items():
                    self.assertEqual(int.from_bytes(c.read(at, 4096)[:8], "big"), wanted)
                end = time.monotonic() + 0.5 + r.random()
                pending = {}
                while time.monotonic() < end:
                    while len(pending) < 16:
                        at = r.randrange(0, 64 * MIB // 4096) * 4096
                        if at in pending.values():
                            continue
                        value += 1
                        cookie = c.begin(Client.WRITE, at, data=value.to_bytes(8, "big") * 512)
                        pending[cookie] = at
                        open_writes.setdefault(at, set()).add(value)
                    cookie, error, _ = c.end()
                    self.assertEqual(error, 0)
                    at = pending.pop(cookie)
                    acked[at] = max(open_writes.pop(at))
                self.e.kill(1)
                self.assertRaises(Disconnected, self.drain, c)
        self.assertGreater(len(acked), 100)

    def drain(self, c):
        while True:
            c.end()

    def test_start_counts_as_new_ballot(self):
        with self.served() as c:
            c.write(0, b"x" * 4096)
            c.flush()
        before = self.e.inspect(1, "disk")
        self.e.kill(1)
        self.e.start(1)
        self.e.client(1, "disk").close()
        after = self.e.inspect(1, "disk")
        self.assertGreater(after["promised"], before["promised"])
        self.assertEqual(after["incarnation"], before["incarnation"])

    def test_intents_are_cleared_when_idle(self):
        with self.served() as c:
            c.write(20 * MIB, b"x" * 4096)
            self.assertEqual(self.e.inspect(1, "disk")["intents_set"], 1)
            wait_for(lambda: self.e.inspect(1, "disk")["intents_set"] == 0, 30, "the intent goes")

    def test_ends_well(self):
        with self.served() as c:
            c.write(0, b"y" * 65536)
            self.e.stop(1)
            self.assertRaises(Disconnected, self.drain, c)
        self.e.start(1)
        with self.e.client(1, "disk") as c:
            self.assertEqual(c.read(0, 65536), b"y" * 65536)

    def test_stopped_process_goes_on(self):
        with self.served() as c:
            os.kill(self.e.procs[1].pid, signal.SIGSTOP)
            cookie = c.begin(Client.WRITE, 0, data=b"z" * 4096)
            time.sleep(0.3)
            os.kill(self.e.procs[1].pid, signal.SIGCONT)
            self.assertEqual(c.end()[:2], (cookie, 0))


class Limits(Case):
    def test_little_memory_is_enough(self):
        """Four times as much is wanted at once as may be taken up: it only waits."""
        self.e.create("disk", "64MiB", 1)
        self.e.start(1, options=["--memory", "33", "--volume-memory", "33"])
        data = os.urandom(2 * MIB)
        with self.e.client(1, "disk") as c:
            c.write(0, data)
            lengths = {c.begin(c.READ, 0, 2 * MIB): 2 * MIB for _ in range(64)}
            for _ in range(64):
                _, error, got = c.end(lengths)
                self.assertEqual((error, got == data), (0, True))


class Refused(Case):
    def refused(self, done, *words):
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_bad_changes(self):
        self.e.create("disk", "64MiB", 1)
        with open(self.e.file, encoding="utf-8") as f:
            before = f.read()
        for words, why in ((("create", "disk", "64MiB", "1"), "there is a volume"),
                           (("create", "odd", "4097", "1"), "multiple of 4096"),
                           (("create", "none", "0", "1"), "multiple of 4096"),
                           (("create", "huge", "65TiB", "1"), "64TiB"),
                           (("create", "far", "64MiB", "7"), "no node 7"),
                           (("create", "two", "64MiB", "1,1"), "twice"),
                           (("takeover", "disk", "2"), "no replica"),
                           (("force", "disk", "1"), "in sync"),
                           (("cold", "disk", "1"), "power loss"),
                           (("remove", "disk", "1"), "primary"),
                           (("member", "disk", "-1"), "in sync"),
                           (("takeover", "nothing", "1"), "no volume"),
                           (("dance", "disk"), "no change")):
            self.refused(self.e.propose(*words, check=False), why)
        with open(self.e.file, encoding="utf-8") as f:
            self.assertEqual(f.read(), before)

    def test_second_engine(self):
        self.served().close()
        self.refused(self.e.vol("--static", self.e.file, "--dir", self.e.dir(1), check=False), "an engine runs")

    def test_numbers_that_make_no_sense(self):
        for words in (("--memory", "32"), ("--volume-memory", "1"), ("--resync-rate", "-1"), ("--scrub-rate", "fast"),
                      ("--scrub-every", "1000000"), ("--memory", "")):
            done = self.e.vol("--static", self.e.file, "--dir", self.e.dir(1), *words, check=False)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), words)

    def test_foreign_folder(self):
        self.refused(self.e.vol("--static", self.e.file, "--dir", "/tmp", check=False), "no node", "--propose")

    def test_broken_store(self):
        with open(self.e.file, "a", encoding="utf-8") as f:
            f.write("volume x\n")
        self.refused(self.e.vol("--static", self.e.file, "--dir", self.e.dir(1), check=False), "store:3", "volume x")

    def test_damaged_replica(self):
        self.served().close()
        self.e.stop(1)
        with open(self.e.replica(1, "disk") + "/meta", "r+b") as f:
            f.seek(100)
            f.write(b"rot")
        self.e.start(1)
        wait_for(lambda: "meta" in self.e.log(1) and "disk" in self.e.log(1), 10, "the damage is named")
        self.assertRaises((OSError, Disconnected), Client, self.e.sock(1), "disk")

    def test_unknown_export(self):
        self.served().close()
        done = self.e.run("nbdinfo", self.e.uri(1, "other"), check=False)
        self.assertNotEqual(done.returncode, 0)

    def test_beyond_the_end(self):
        with self.served() as c:
            for call in (lambda: c.read(64 * MIB - 100, 4096), lambda: c.write(64 * MIB, b"x" * 512)):
                self.assertRaises(OSError, call)
            c.write(64 * MIB - 512, b"x" * 512)


if __name__ == "__main__":
    harness.main()
