#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Engines on other file systems than ext4: what they write, punch and lose there, and how they tell mounts apart.

Each node's file system is on a loop device, in a mount namespace that stays while its holder does: engines come and go
in it."""
import os
import subprocess
import sys

from engines import Client, Engines, wait_for
from load import MIB, LoadedCase, long_case

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402

# $0 the node's folder, $1 where its parts are
HOLDER = """
set -e
mount --bind "$0/run" "$1/run"
mount -o loop "$1/image" "$0"
mkdir -p "$0/run"
mount --bind "$1/run" "$0/run"
echo >"$1/ready"
exec sleep infinity
"""


class Mounted(Engines):
    """Engines, each on a file system of its own."""

    mkfs = ("mkfs.xfs", "-q")

    def __init__(self, *args, **kwargs):
        self.holders = {}
        super().__init__(*args, **kwargs)

    def parts(self, i):
        return "%s/m%d" % (self.root, i)

    def build(self, i):
        os.makedirs(self.parts(i) + "/run")
        os.makedirs(self.dir(i) + "/run")
        with open(self.parts(i) + "/image", "wb") as f:
            f.truncate(512 * MIB)
        self.run(*self.mkfs, self.parts(i) + "/image")

    def mount(self, i):
        ready = self.parts(i) + "/ready"
        if os.path.exists(ready):
            os.unlink(ready)
        self.holders[i] = subprocess.Popen(["unshare", "-m", "--propagation", "private", "bash", "-c", HOLDER,
                                            self.dir(i), self.parts(i)], start_new_session=True)
        wait_for(lambda: os.path.exists(ready) or self.holders[i].poll() is not None, 30, "it is mounted")
        assert self.holders[i].poll() is None, "mount"

    def unmount(self, i):
        """Its engine has ended. The loop device goes with the last that uses it."""
        p = self.holders.pop(i)
        p.kill()
        p.wait()
        wait_for(lambda: self.run("losetup", "-j", self.parts(i) + "/image").stdout == "", 30, "the loop device is free")

    def start(self, i, wait=True, options=(), before=()):
        if not os.path.isdir(self.parts(i)):
            self.build(i)
        if i not in self.holders:
            self.mount(i)
        super().start(i, wait, options, [*before, "nsenter", "-t", str(self.holders[i].pid), "-m"])

    def can_connect(self, i):
        return super().can_connect(i) or self.procs[i].poll() is not None

    def seen(self, i, path):
        """A path of node @i, from here."""
        return "/proc/%d/root%s" % (self.holders[i].pid, path)

    def replica(self, i, name):
        return self.seen(i, super().replica(i, name))

    def close(self):
        for p in [*self.procs.values(), *self.holders.values()]:
            p.kill()
            p.wait()
        self.procs, self.holders = {}, {}
        super().close()


class OnBtrfs(Mounted):
    mkfs = ("mkfs.btrfs", "-q")


class Xfs(LoadedCase):
    nodes = 2
    engines = Mounted

    def used(self, i):
        return os.stat(self.e.data(i, "disk")).st_blocks * 512

    def test_load_kills_and_holes(self):
        g, f = self.guest(), self.fio()
        self.e.kill(2)
        self.e.wait_in_sync("disk", [1])
        g.goes_on()
        before = self.incarnation(1), self.incarnation(2)
        self.e.start(2)
        self.settle()
        f.stop()
        self.e.kill(1)
        self.e.start(1)
        g.goes_on()
        self.finish(g)
        self.assertEqual((self.incarnation(1), self.incarnation(2)), before, "a restart is no loss")
        used = self.used(1), self.used(2)
        with self.e.client(1, "disk") as c:
            c.trim(0, 16 * MIB)
            c.zero(16 * MIB, 8 * MIB)
            c.flush()
            self.assertEqual(c.read(0, 24 * MIB), bytes(24 * MIB))
        for i in self.all:
            self.assertLess(self.used(i), used[i - 1] - 8 * MIB, "holes are punched (V10)")
        self.assert_equal()

    def test_another_mount_is_a_loss(self):
        """V25: in the same mount a restart is none."""
        first = self.incarnation(2)
        self.e.stop(2)
        self.e.start(2)
        self.assert_equal()  # so it is there
        self.assertEqual(self.incarnation(2), first)
        self.e.stop(2)
        self.e.unmount(2)
        self.e.start(2)
        wait_for(lambda: self.incarnation(2) != first, 30, "another incarnation")
        self.settle()
        self.assert_equal()

    @long_case
    def test_last_one_is_full(self):
        """Its write waits for room, and is then done (V13)."""
        self.e.kill(2)
        self.e.wait_in_sync("disk", [1])
        ballast = self.e.seen(1, self.e.dir(1) + "/ballast")
        left = os.statvfs(self.e.replica(1, "disk"))
        self.e.run("fallocate", "-l", str(left.f_bavail * left.f_frsize - 24 * MIB), ballast)
        with self.e.client(1, "disk") as c:
            sent = {c.begin(Client.WRITE, at * MIB, data=os.urandom(MIB)) for at in range(40)}
            c.s.settimeout(3)
            with self.assertRaises(TimeoutError):
                while sent:
                    cookie, error, _ = c.end()
                    self.assertEqual(error, 0)
                    sent.remove(cookie)
            self.assertTrue(sent)
            c.s.settimeout(60)
            os.unlink(ballast)
            while sent:
                cookie, error, _ = c.end()
                self.assertEqual(error, 0)
                sent.remove(cookie)
            c.flush()
        self.e.start(2)
        self.assert_equal()


@long_case
class Btrfs(Xfs):
    """Where even metadata needs room to be written over: a full disk is a lost replica there."""

    engines = OnBtrfs
    test_last_one_is_full = None


class Failing(Mounted):
    """On ext4 over a disk whose writes fail while there is a file "bad"."""

    mkfs = ("mkfs.ext4", "-q")

    def build(self, i):
        super().build(i)
        at = self.parts(i)
        os.rename(at + "/image", at + "/file")
        os.makedirs(at + "/fuse")
        os.symlink(at + "/fuse/disk", at + "/image")
        open(at + "/fuse/disk", "wb").close()
        with open("%s/m%d.log" % (self.root, i), "ab") as log:
            for argv in (["nbdkit", "-f", "-U", at + "/nbd.sock", "--filter=error", "file", at + "/file", "error-pwrite=EIO",
                          "error-pwrite-rate=100%", "error-pwrite-file=" + at + "/bad"],
                         ["nbdfuse", at + "/fuse/disk", "nbd+unix:///?socket=" + at + "/nbd.sock"]):
                self.below.append(subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True))
                wait_for(lambda: os.path.exists(at + "/nbd.sock"), 20, "nbdkit listens")
        wait_for(lambda: os.path.getsize(at + "/fuse/disk") > 0, 20, "nbdfuse has its file")

    def __init__(self, *args, **kwargs):
        self.below = []
        super().__init__(*args, **kwargs)

    def close(self):
        for p in [*self.procs.values(), *self.holders.values()]:
            p.kill()
            p.wait()
        for i in self.holders:
            disk = self.parts(i) + "/fuse/disk"
            wait_for(lambda d=disk: self.run("umount", d, check=False).returncode == 0, 30, "the disk is free")
        for p in reversed(self.below):
            p.kill()
            p.wait()
        super().close()


class KilledInASync(LoadedCase):
    nodes = 1
    engines = Failing

    def test_an_error_that_the_dead_was_told(self):
        """A sync fails as its engine dies: the kernel has told it, and tells nobody that opens the file afterwards. What
        it had acknowledged is in the cache, which calls it clean, and nowhere else."""
        with self.e.client(1, "disk") as c:
            c.write(0, b"a" * 65536)
            c.flush()
            c.write(0, b"b" * 65536)
        first = self.incarnation(1)
        bad = self.e.parts(1) + "/bad"
        open(bad, "wb").close()
        self.e.kill(1)
        with open(self.e.data(1, "disk"), "rb") as f:
            self.assertRaises(OSError, os.fdatasync, f)  # in the place of the engine that dies
        os.unlink(bad)
        with open(self.e.data(1, "disk"), "rb") as f:
            os.fdatasync(f)  # the control: nobody is told any more
        self.e.start(1)
        wait_for(lambda: self.incarnation(1) != first, 30, "another incarnation: " + self.e.log(1))
        wait_for(lambda: self.e.propose("cold", "disk", "1", check=False).returncode == 0, 10, "the loss was reported")
        with self.e.client(1, "disk") as c:
            c.write(65536, b"c" * 4096)
            c.flush()
        second = self.incarnation(1)
        self.e.kill(1)
        self.e.start(1)
        self.e.client(1, "disk").close()
        self.assertEqual(self.incarnation(1), second, "and only once")


if __name__ == "__main__":
    harness.main()
