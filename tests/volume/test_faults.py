#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real engines over TLS under load, and everything around them that can fail but the power: links, processes, disks.
Afterwards every acknowledged write reads back, fio's own checksums hold, and the replicas are equal byte by byte."""
import os
import shutil
import signal
import subprocess
import sys
import time

from engines import wait_for
from load import MIB, Guest, LoadedCase, long_case

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402

REMOVED_AFTER_S = 0.4  # REPLICA_LOST in volume/core_internal.h


class Links(LoadedCase):
    """Each node in a network of its own."""

    namespaces = True

    def cut_and_heal(self, node, ways):
        """Longer than a member may be silent: it is removed, and joins again after the healing."""
        g, f = self.guest(), self.fio()
        self.e.partition(node, ways)
        self.e.wait_in_sync("disk", [i for i in self.all if i != node])
        g.goes_on()
        self.e.heal(node)
        self.settle()
        self.finish(g, f)

    def test_replica_is_cut_off(self):
        self.cut_and_heal(self.last, ("input", "output"))

    @long_case
    def test_replica_hears_nothing(self):
        self.cut_and_heal(self.last, ("input",))

    @long_case
    def test_replica_is_not_heard(self):
        self.cut_and_heal(self.last, ("output",))

    @long_case
    def test_primary_is_cut_off_and_goes_on_alone(self):
        """The store is on its side: it removes the others."""
        g, f = self.guest(), self.fio()
        self.e.partition(1)
        self.e.wait_in_sync("disk", [1])
        g.goes_on()
        self.e.heal(1)
        self.finish(g, f)

    def short_cut(self):
        """Returns how long it was at most."""
        began = time.monotonic()
        self.e.partition(self.last)
        time.sleep(0.05)  # the fault itself
        self.e.heal(self.last)
        return time.monotonic() - began

    def test_short_cut_is_not_noticed(self):
        g, f = self.guest(), self.fio()
        short = 0
        for _ in range(40):
            epoch = self.e.row("disk")["epoch"]
            took = self.short_cut()
            g.goes_on()
            if took < REMOVED_AFTER_S / 3:  # TCP repeats after 0.2 s, and then after 0.4 s
                self.assertEqual(self.e.row("disk")["epoch"], epoch, "removed after %.3f s" % took)
                short += 1
            if short == 5:
                break
            self.settle()
        self.assertGreater(short, 0, "this machine is too slow for a short cut")
        self.finish(g, f)

    @long_case
    def test_flapping_link(self):
        g, f = self.guest(), self.fio()
        self.flap(10)
        self.settle()
        self.finish(g, f)

    def flap(self, times):
        """Some cuts are noticed and some are not; some healings are too short for a handshake."""
        for turn in range(times):
            self.e.partition(self.last, (("input", "output"), ("input",), ("output",))[turn % 3])
            time.sleep((0.1, 0.45, 0.9, 0.3)[turn % 4])  # the fault itself
            self.e.heal(self.last)
            time.sleep((0.05, 0.3, 0.7)[turn % 3])

    @long_case
    def test_flapping_replica(self):
        g, f = self.guest(), self.fio()
        for turn in range(10):
            self.e.kill(self.last)
            time.sleep((0.0, 0.2, 0.6)[turn % 3])  # the fault itself
            self.e.start(self.last)
            time.sleep((0.0, 0.1, 0.5, 1.0)[turn % 4])
        self.settle()
        self.finish(g, f)

    def test_primary_is_cut_off_and_replaced(self):
        """It sees neither the others nor the store. What it acknowledged is at its successor; it acknowledges nothing
        more; and it steps down as soon as its successor can tell it, still without the store."""
        view = self.e.root + "/view"
        os.symlink(self.e.root, view)
        self.e.kill(1)
        self.e.views[1] = view + "/store"
        self.e.start(1)
        self.e.client(1, "disk").close()
        self.settle()
        g = self.guest()
        frozen = self.freeze_view(view)
        self.e.partition(1)
        silent = self.wait_silent(g)
        self.e.propose("takeover", "disk", "2")
        self.e.client(2, "disk", 30).close()
        self.assertEqual(g.done, silent)
        self.e.heal(1)
        g.goes_on()  # it was dropped by the old primary, and follows
        self.melt_view(view, frozen)
        self.finish(g)

    def freeze_view(self, view):
        """Node 1 still reads what the store was, and waits for ever for any change."""
        frozen = self.e.root + "/frozen"
        os.makedirs(frozen)
        shutil.copy(self.e.file, frozen + "/store")
        holder = subprocess.Popen(["flock", frozen + "/store.lock", "sleep", "3600"], start_new_session=True)
        self.addCleanup(self.end_group, holder)
        wait_for(lambda: subprocess.run(["flock", "-n", frozen + "/store.lock", "true"], check=False).returncode, 10,
                 "the store's lock is held")
        os.symlink(frozen, view + ".new")
        os.rename(view + ".new", view)
        return holder

    def melt_view(self, view, holder):
        os.symlink(self.e.root, view + ".new")
        os.rename(view + ".new", view)
        self.end_group(holder)

    @staticmethod
    def end_group(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait_silent(self, guest):
        """Nothing was acknowledged for longer than a removal takes. Returns how much was until then."""
        state = {"done": -1, "since": 0.0}

        def silent():
            if guest.done != state["done"]:
                state.update(done=guest.done, since=time.monotonic())
            return time.monotonic() - state["since"] > 3 * REMOVED_AFTER_S

        wait_for(silent, 30, "the cut-off primary acknowledges nothing")
        return state["done"]


class LinksOfTwo(Links):
    nodes = 2

    @long_case
    def test_replica_is_cut_off(self):
        super().test_replica_is_cut_off()

    @long_case
    def test_short_cut_is_not_noticed(self):
        super().test_short_cut_is_not_noticed()

    @long_case
    def test_primary_is_cut_off_and_replaced(self):
        super().test_primary_is_cut_off_and_replaced()


class Processes(LoadedCase):
    """Processes that stand still or die."""

    def stand_still(self, node):
        os.kill(self.e.procs[node].pid, signal.SIGSTOP)

    def go_on(self, node):
        os.kill(self.e.procs[node].pid, signal.SIGCONT)

    def test_replica_stands_still(self):
        """Shortly: whether it stays is a matter of the machine's speed, that nothing is lost is not. Then for long."""
        g, f = self.guest(), self.fio()
        for _ in range(3):
            self.stand_still(self.last)
            time.sleep(0.1)  # the fault itself
            self.go_on(self.last)
            g.goes_on()
        self.settle()
        self.stand_still(self.last)
        self.e.wait_in_sync("disk", self.all[:-1])
        g.goes_on()
        self.go_on(self.last)
        self.settle()
        self.finish(g, f)

    @long_case
    def test_primary_stands_still(self):
        """Nobody takes over: the guest waits, and goes on."""
        g, f = self.guest(), self.fio()
        for seconds in (0.1, 0.1, 0.5, 3.0):
            self.stand_still(1)
            time.sleep(seconds)  # the fault itself
            self.go_on(1)
            g.goes_on()
        self.settle()
        self.finish(g, f)

    @long_case
    def test_primary_stands_still_and_is_replaced(self):
        g = self.guest()
        self.stand_still(1)
        self.e.propose("takeover", "disk", "2")
        self.e.client(2, "disk", 30).close()
        self.go_on(1)
        g.goes_on()
        self.finish(g)


class Resync(LoadedCase):
    """Deaths in the middle of a resync. The wire tells what is sent a second time."""

    nodes = 2
    size = 384 * MIB
    namespaces = True

    def begin(self):
        """Node 1 is full of what cannot be left out; the last one has nothing yet."""
        for i in self.all[:-1]:
            self.e.start(i)
        self.e.wait_in_sync("disk", self.all[:-1], 60)
        with self.e.client(1, "disk") as c:
            for at in range(0, self.size, 4 * MIB):
                c.write(at, os.urandom(4 * MIB))
            c.flush()

    def copied(self):
        try:
            return os.stat(self.e.data(self.last, "disk")).st_blocks * 512
        except FileNotFoundError:
            return 0

    def start_last(self):
        """Until a good part of it is there, and much is still missing."""
        self.e.start(self.last)
        wait_for(lambda: self.copied() > self.size // 4, 60, "the resync is under way")

    def broken_off(self):
        self.assertNotIn(self.last, self.e.in_sync("disk"))
        self.assertLess(self.copied(), self.size * 9 // 10, "the resync was over too soon for this test")

    def test_joiner_is_killed(self):
        self.start_last()
        self.e.kill(self.last)
        self.broken_off()
        self.comes_to_its_end(lambda: self.e.start(self.last))

    @long_case
    def test_primary_is_killed(self):
        self.start_last()
        self.e.kill(1)
        self.broken_off()
        self.comes_to_its_end(lambda: self.e.start(1))

    def comes_to_its_end(self, again):
        """Only what was missing travels, and hashes of the rest."""
        there, before = self.copied(), self.e.received(self.last)
        again()
        self.settle()
        travelled = self.e.received(self.last) - before
        print("    %d MiB were there, %d MiB travelled afterwards" % (there // MIB, travelled // MIB))
        self.assertLess(travelled, (self.size - there) * 1.1 + 8 * MIB)
        self.assertGreater(travelled, (self.size - there) * 0.9)
        self.assert_equal()


class ResyncOfThree(Resync):
    nodes = 3

    @long_case
    def test_primary_is_killed_and_replaced(self):
        self.start_last()
        self.e.kill(1)
        self.broken_off()
        self.e.propose("takeover", "disk", "2")
        self.e.wait_in_sync("disk", [2, 3], 60)
        self.e.start(1)
        self.assert_equal()

    @long_case
    def test_joiner_is_killed(self):
        super().test_joiner_is_killed()


class Returning(LoadedCase):
    """What a replica gets when it comes back, whoever leads by then."""

    namespaces = True

    @long_case
    def test_only_what_changed_travels(self):
        """48 MiB are there. In each turn the primary dies, another takes over, and 1 MiB is written in 64 KiB blocks."""
        with self.e.client(1, "disk") as c:
            for at in range(48):
                c.write(at * MIB, os.urandom(MIB))
            c.flush()
        for turn in range(4):
            primary = int(self.e.row("disk")["primary"])
            heir = primary % 3 + 1
            self.e.kill(primary)
            self.e.propose("takeover", "disk", str(heir))
            with self.e.client(heir, "disk", 30) as c:
                for at in range(16):
                    c.write(at * 3 * MIB + turn * 65536, os.urandom(65536))
                c.flush()
            before = self.e.received(primary)
            self.e.start(primary)
            self.settle()
            travelled = self.e.received(primary) - before
            print("    %.1f MiB travelled to node %d" % (travelled / MIB, primary))
            self.assertLess(travelled, 2 * MIB)
            self.assertGreater(travelled, MIB * 9 // 10)
        self.assert_equal()


class Injected(LoadedCase):
    """System calls of an engine that fail, by strace."""

    def inject(self, node, call, fault, *only):
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", self.e.root + "/strace.log", *only, "-e", "trace=" + call,
                                   "-e", "inject=%s:%s" % (call, fault), "-p", str(self.e.procs[node].pid)])
        self.addCleanup(self.end, tracer)
        return tracer

    def fail_once(self, node, call):
        return self.inject(node, call, "error=EIO:when=5", "-P", os.path.realpath(self.e.data(node, "disk")))

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.terminate()
            process.wait()


class KernelSyncs(Injected):
    """What the kernel makes durable for an engine, or has begun to, can fail or be refused."""

    nodes = 2

    def setUp(self):
        super().setUp()
        self.at = 0

    def flush_little(self, c):
        c.write(self.at, b"l" * 4096)
        self.at = (self.at + 4096) % MIB
        c.flush()
        return True

    def refused(self):
        log = self.e.root + "/strace.log"
        if not os.path.exists(log):  # it has not begun
            return 0
        with open(log, encoding="utf-8", errors="replace") as f:
            return f.read().count("INJECTED")

    def test_what_was_sent_on_its_way_fails(self):
        """The next flush tells: the replica counts as one that lost its power (V13)."""
        before = self.incarnation(2)
        with self.e.client(1, "disk") as c:
            tracer = self.fail_once(2, "sync_file_range")
            wait_for(lambda: self.flush_little(c) and self.incarnation(2) != before, 60, "another incarnation")
            self.end(tracer)
        self.settle()
        self.assertIn("counts as one that lost power: Input/output error", self.e.log(2))
        self.assert_equal()

    def test_no_aio_is_left(self):
        """Then flushes go another way."""
        with self.e.client(1, "disk") as c:
            tracer = self.inject(1, "io_submit", "error=EAGAIN")
            wait_for(lambda: self.flush_little(c) and self.refused() > 5, 60, "refusals")
            self.end(tracer)
            self.assertEqual(c.read(0, 4096), b"l" * 4096)
        self.assert_equal()


class FailingDisks(Injected):
    """System calls on one replica's data fail once: it leaves, and comes back in another incarnation (V13)."""

    options = ("--threads",)  # system calls that can be made to fail

    def replica_fails(self, node, call):
        g, f = self.guest(), self.fio()
        before = self.incarnation(node)
        tracer = self.fail_once(node, call)
        wait_for(lambda: self.incarnation(node) != before, 60, "another incarnation: " + self.e.tails())
        self.end(tracer)
        g.goes_on()
        self.settle()
        self.assertEqual(self.e.member("disk", node)["incarnation"], self.incarnation(node))
        self.assertIn("counts as one that lost power: Input/output error", self.e.log(node))
        self.finish(g, f)

    def primary_fails(self, call):
        """It leads no more, and is in nobody's way."""
        g = self.guest()
        before = self.incarnation(1)
        tracer = self.fail_once(1, call)
        wait_for(lambda: self.incarnation(1) != before, 60, "another incarnation: " + self.e.tails())
        self.end(tracer)
        self.e.propose("takeover", "disk", "2")
        g.goes_on()
        self.finish(g)
        self.e.stop(1)  # nothing of what failed is left in it

    def test_write_fails_at_a_replica(self):
        self.replica_fails(self.last, "pwrite64")

    @long_case
    def test_flush_fails_at_a_replica(self):
        self.replica_fails(self.last, "fdatasync")

    def test_write_fails_at_the_primary(self):
        self.primary_fails("pwrite64")

    @long_case
    def test_flush_fails_at_the_primary(self):
        self.primary_fails("fdatasync")

    @long_case
    def test_write_fails_at_the_last_one(self):
        """Nobody else has what it has: the write waits, and is done (V13)."""
        for i in self.all[1:]:
            self.e.stop(i)
        self.e.wait_in_sync("disk", [1])
        g = self.guest()
        before = self.incarnation(1)
        tracer = self.fail_once(1, "pwrite64")
        wait_for(lambda: "I/O on its data" in self.e.log(1), 60, "a write failed")
        self.end(tracer)
        g.goes_on()
        self.assertEqual(self.incarnation(1), before)
        for i in self.all[1:]:
            self.e.start(i)
        self.finish(g)


class FailingDisksOfTwo(FailingDisks):
    nodes = 2

    @long_case
    def test_write_fails_at_a_replica(self):
        super().test_write_fails_at_a_replica()

    @long_case
    def test_flush_fails_at_the_primary(self):
        super().test_flush_fails_at_the_primary()


class FullDisks(LoadedCase):
    nodes = 2
    small = "mount --bind \"$0/run\" \"$1\" && mount -t tmpfs -o size=$2 none \"$0\" && mkdir -p \"$0/run\" && " \
            "mount --bind \"$1\" \"$0/run\" && dd if=/dev/zero of=\"$0/ballast\" bs=1M count=$3 2>&1 && exec \"${@:4}\""

    def start_small(self, node, size, ballast):
        """The node's folder is on a file system of its own, all but its sockets."""
        run = "%s/run%d" % (self.e.root, node)
        os.makedirs(run, exist_ok=True)
        os.makedirs(self.e.dir(node) + "/run", exist_ok=True)
        self.e.start(node, before=["unshare", "-m", "--propagation", "private", "bash", "-c", self.small,
                                   self.e.dir(node), run, size, str(ballast)])

    def make_room(self, node):
        self.e.run("nsenter", "-t", str(self.e.procs[node].pid), "-m", "rm", self.e.dir(node) + "/ballast")

    def begin(self):
        pass

    def test_replica_is_full(self):
        """It is taken out, the guest goes on, and with room it joins again."""
        self.e.start(1)
        self.start_small(2, "100m", 90)
        self.e.wait_in_sync("disk", [1, 2], 60)
        g = self.guest()
        wait_for(lambda: "No space left" in self.e.log(2), 60, "its disk is full")
        g.goes_on()
        self.e.wait_in_sync("disk", [1], 60)
        self.make_room(2)
        self.settle()
        g.stop()
        self.assert_there(g)
        with open("/proc/%d/root%s" % (self.e.procs[2].pid, self.e.data(2, "disk")), "rb") as a, \
                open(self.e.data(1, "disk"), "rb") as b:
            self.assertTrue(a.read() == b.read(), "replicas differ")

    def test_last_one_is_full_for_long(self):
        """For longer than intents stay: what is let go needs room too. The guest's writes wait, then all is done."""
        self.start_small(1, "14m", 8)
        g = self.guest_until_full()
        before = self.incarnation(1)
        self.stays_full()
        self.assertIn("write epochs", self.e.log(1), "nothing was let go")
        self.assertNotIn("counts as one that lost power", self.e.log(1))
        self.make_room(1)
        g.goes_on(1)
        g.stop()
        self.assert_there(g)
        self.assertEqual(self.incarnation(1), before)

    def guest_until_full(self):
        with self.e.client(1, "disk", 30) as c:
            c.write(40 * MIB, b"x" * 4096)  # an extent that is idle afterwards
        g = Guest(self.e, limit=24 * MIB, flushes=False)
        self.addCleanup(lambda: (g.dies.set(), g.ends.set()))
        g.start()
        wait_for(lambda: "No space left" in self.e.log(1), 60, "its disk is full")
        return g

    def stays_full(self):
        """Until the idle extent's intent was to be let go, and a little more: CLEAR_AFTER in volume/engine_volume.c."""
        end = time.monotonic() + 30
        while time.monotonic() < end and "write epochs" not in self.e.log(1):
            time.sleep(0.1)


if __name__ == "__main__":
    harness.main()
