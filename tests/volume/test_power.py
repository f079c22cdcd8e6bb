#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Machines that lose their power: what a disk had not been told to flush is gone with it.

A machine's disk is an image behind nbdkit, whose cache keeps everything until a flush; nbdfuse makes it a file, a loop
device a disk, and ext4 is on it, with the engine's folder. To end nbdkit and the engine by SIGKILL is the power cut.
After it the machine has another boot id. Loop device and ext4 are in a mount namespace that goes with the engine; nbdfuse
is not in it: who answers for a disk must not be the one to unmount it."""
import os
import socket
import subprocess
import sys
import unittest
import uuid

from engines import Client, Disconnected, Engines, wait_for
from load import MIB, LoadedCase, content

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402

BOOT_ID = "/proc/sys/kernel/random/boot_id"
# $0 the node's folder, $1 where its parts are; then the engine's command
MACHINE = """
set -e
mount --bind "$0/run" "$1/run"
mount -o loop "$1/fuse/disk" "$0"
mkdir -p "$0/run"
mount --bind "$1/run" "$0/run"
mount --bind "$1/boot_id" %s
exec "${@:2}"
""" % BOOT_ID


class Machines(Engines):
    """Engines, each with a disk that can lose its power."""

    def __init__(self, *args, **kwargs):
        self.disks = {}  # node: its nbdkit and nbdfuse
        super().__init__(*args, **kwargs)

    def parts(self, i):
        return "%s/m%d" % (self.root, i)

    def build(self, i):
        for path in (self.parts(i) + "/fuse", self.parts(i) + "/run", self.dir(i) + "/run"):
            os.makedirs(path)
        with open(self.parts(i) + "/image", "wb") as f:
            f.truncate(512 * MIB)
        self.run("mkfs.ext4", "-q", self.parts(i) + "/image")
        self.boot(i)

    def boot(self, i):
        with open(self.parts(i) + "/boot_id", "w", encoding="ascii") as f:
            f.write("%s\n" % uuid.uuid4())

    def server(self, i):
        """What nbdkit serves."""
        return ["--filter=cache", "file", self.parts(i) + "/image", "cache=writeback"]

    def power_up(self, i):
        at, sock = self.parts(i), self.parts(i) + "/nbd.sock"
        with open("%s/m%d.log" % (self.root, i), "ab") as log:
            kit = subprocess.Popen(["nbdkit", "-f", "-U", sock, *self.server(i)], stdout=log, stderr=log,
                                   start_new_session=True)
            self.disks[i] = [kit]
            wait_for(lambda: self.listens(sock), 20, "nbdkit listens")
            fuse = subprocess.Popen(["nbdfuse", at + "/fuse/disk", "nbd+unix:///?socket=" + sock],
                                    stdout=log, stderr=log, start_new_session=True)
            self.disks[i].append(fuse)
        wait_for(lambda: self.is_mounted(i), 20, "nbdfuse has its file")

    @staticmethod
    def listens(path):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
            return True
        except OSError:
            return False

    @staticmethod
    def mounted():
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            return [line.split()[4] for line in f]

    def is_mounted(self, i):
        return self.parts(i) + "/fuse/disk" in self.mounted() and os.path.getsize(self.parts(i) + "/fuse/disk") > 0

    def start(self, i, wait=True, options=(), before=()):
        if not os.path.isdir(self.parts(i)):
            self.build(i)
            open(self.parts(i) + "/fuse/disk", "wb").close()
        if i not in self.disks:
            self.power_up(i)
        super().start(i, False, options, [*before, "unshare", "-m", "--propagation", "private", "bash", "-c", MACHINE,
                                          self.dir(i), self.parts(i)])
        if wait:
            wait_for(lambda: self.can_connect(i) or self.procs[i].poll() is not None, 30, "engine %d listens" % i)
            if self.procs[i].poll() is not None:
                raise AssertionError("engine %d: %s" % (i, self.log(i)[-1000:]))

    def replica(self, i, name):
        return "/proc/%d/root%s" % (self.procs[i].pid, super().replica(i, name))

    def cut_power(self, *nodes):
        """All of it at once; then what the kernel still holds of the dead machine is cleared away."""
        for i in nodes:
            self.disks[i][0].kill()
            self.procs[i].kill()
        for i in nodes:
            self.kill(i)
            self.clear_away(i)
            self.boot(i)

    def clear_away(self, i):
        """The engine has ended, and its namespace with it."""
        disk = self.parts(i) + "/fuse/disk"
        wait_for(lambda: disk not in self.mounted() or
                 self.run("umount", disk, check=False).returncode == 0, 30, "the disk is free")
        for p in reversed(self.disks.pop(i)):
            p.kill()
            p.wait(30)
        if os.path.exists(self.parts(i) + "/nbd.sock"):
            os.unlink(self.parts(i) + "/nbd.sock")

    def close(self):
        for p in self.procs.values():
            p.kill()
            p.wait()
        self.procs = {}
        for i in list(self.disks):
            self.clear_away(i)
        super().close()


class PowerCase(LoadedCase):
    engines = Machines

    def assert_flushed_is_there(self, guest):
        """Of each sector the content that a flush covered, or one that was to come after it. Returns how many sectors
        lost an acknowledged write that no flush covered."""
        lost = 0
        for sector, got in self.sectors(guest.limit):
            history = guest.history.get(sector, [])
            first = guest.flushed.get(sector, -1)
            allowed = history[first:] if first >= 0 else [0, *history]
            self.assertTrue(any(got == content(n) for n in allowed), "sector %d has %s, flushed was %s, then %s" % (
                sector, got[:8].hex(), "%x" % history[first] if first >= 0 else "nothing",
                ["%x" % n for n in allowed]))
            after = history[guest.nth[sector]:] if sector in guest.nth else [0, *history]
            lost += not any(got == content(n) for n in after)
        return lost

    def everything(self):
        return [got for _, got in self.sectors(32 * MIB)]

    def cold(self, nodes):
        wait_for(lambda: self.e.propose("cold", "disk", nodes, check=False).returncode == 0, 60, "all tell their loss")

    def busy_guest(self, seed):
        """One that flushes, and then writes what is not flushed."""
        g = self.guest(seed, remembers=True)
        wait_for(lambda: g.flushed or g.error, 60, "it has flushed")
        g.goes_on(200)
        g.flushes = False
        g.goes_on(100)
        return g


class OneReplica(PowerCase):
    nodes = 1

    def test_what_was_flushed_is_there(self):
        lost = 0
        for turn in range(2):
            g = self.busy_guest(turn + 1)
            self.e.cut_power(1)
            g.kill()
            self.e.start(1)
            self.cold("1")
            lost += self.assert_flushed_is_there(g)
            self.wipe()
        self.assertGreater(lost, 0, "nothing was lost: that was no power cut")
        print("    %d sectors lost what was not flushed" % lost)

    def wipe(self):
        with self.e.client(1, "disk") as c:
            c.zero(0, 32 * MIB)
            c.flush()

    def test_fua_is_a_flush_of_its_own(self):
        lost = 0
        with self.e.client(1, "disk") as c:
            for i in range(0, 64, 2):
                c.write(i * 65536, bytes([i + 1]) * 65536)
                c.write((i + 1) * 65536, bytes([i + 2]) * 4096, fua=True)
            c.write(100 * 65536, b"x" * 65536)
        self.e.cut_power(1)
        self.e.start(1)
        self.cold("1")
        with self.e.client(1, "disk", 60) as c:
            for i in range(0, 64, 2):
                self.assertEqual(c.read((i + 1) * 65536, 4096), bytes([i + 2]) * 4096)
            lost = c.read(100 * 65536, 65536) != b"x" * 65536
        self.assertTrue(lost, "a write without FUA was not lost: that was no power cut")


class Boots(unittest.TestCase):
    def test_another_boot_is_another_incarnation(self):
        """The same files on the same mount: a restart is no loss, another boot id is one (V25)."""
        with Engines(1) as e:
            e.create("disk", "64MiB", 1)
            e.start(1)
            e.client(1, "disk").close()
            e.stop(1)
            first = e.member("disk", 1)["reported"]
            e.start(1)
            e.client(1, "disk").close()
            e.stop(1)
            self.assertEqual(e.member("disk", 1)["reported"], first)
            with open(e.root + "/boot_id", "w", encoding="ascii") as f:
                f.write("%s\n" % uuid.uuid4())
            e.start(1, before=["unshare", "-m", "--propagation", "private", "bash", "-c",
                               "mount --bind \"$0\" %s; exec \"$@\"" % BOOT_ID, e.root + "/boot_id"])
            wait_for(lambda: e.member("disk", 1)["reported"] != first, 20, "another incarnation")
            self.assertRaises((OSError, Disconnected), Client, e.sock(1), "disk")


class TwoReplicas(PowerCase):
    nodes = 2

    def test_one_is_cut(self):
        """The replica, then the primary: nobody loses anything that was acknowledged."""
        g = self.guest()
        self.e.cut_power(2)
        self.e.wait_in_sync("disk", [1], 60)
        g.goes_on()
        self.e.start(2)
        self.settle()
        g.goes_on()
        self.e.cut_power(1)
        self.e.propose("takeover", "disk", "2")
        g.goes_on()
        self.e.start(1)
        self.finish(g)

    def test_what_was_read_after_a_cut_stays(self):
        """One disk kept what no flush covered, the other lost it. A guest reads after the cold start what the first one
        has; then all is cut again, and the other one leads (V27)."""
        g = self.busy_guest(1)
        with open(self.e.data(1, "disk"), "rb") as f:
            os.fsync(f)
        self.e.cut_power(1, 2)
        g.kill()
        self.e.start_all()
        self.cold("1,2")
        seen = self.everything()
        kept = [sector for sector, n in g.nth.items()
                if n != g.flushed.get(sector) and seen[sector] == content(g.acked[sector])]
        self.assertTrue(kept, "the disks do not differ")
        self.settle()  # if their link took longer than a member may be silent, the other one was removed, and joins
        self.e.cut_power(1, 2)
        self.e.start_all()
        self.cold("2,1")
        self.assertTrue(self.everything() == seen, "the guest read what is not there any more")
        self.assert_equal()

    def test_both_are_cut(self):
        lost = 0
        for turn in range(2):
            g = self.busy_guest(turn + 1)
            self.e.cut_power(1, 2)
            g.kill()
            self.e.start_all()
            self.cold("1,2" if turn == 0 else "2,1")
            lost += self.assert_flushed_is_there(g)
            self.assert_equal()
            with self.e.client(int(self.e.row("disk")["primary"]), "disk") as c:
                c.zero(0, 32 * MIB)
                c.flush()
        self.assertGreater(lost, 0, "nothing was lost: that was no power cut")
        print("    %d sectors lost what was not flushed" % lost)


if __name__ == "__main__":
    harness.main()
