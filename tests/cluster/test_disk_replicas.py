#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Guests with disks whose replicas come and go: deaths in the middle of a resync, and links that flap (P1, P3, P6)."""
import os
import subprocess
import time

import disks
import harness
import processes
from test_disks import FAILOVER_S, DiskCase, disk_yaml

MIB = 1 << 20
SIZE = 256 * MIB
LOG = 4 * MIB  # of the guest, at the beginning of its disk


class SlowCluster(harness.Cluster):
    """A resync beside a guest takes some ten seconds, so that there is a middle of it."""

    def configure(self, i):
        super().configure(i)
        harness.set_option(os.path.join(self.node(i).dir, "kedge.conf"), "volumes", "resync-rate", "24MiB")


class Resync(DiskCase):
    """The disk is full of what cannot be left out, and another node gets a replica of it."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = SlowCluster(cls.nodes, name=cls.__name__)
        path = cls.cluster.root + "/noise"
        with open(path, "wb") as f:
            f.seek(LOG)
            for _ in range((SIZE - LOG) // MIB):
                f.write(os.urandom(MIB))
        cls.cluster.command(1, "image", "add", "noise", path)
        os.unlink(path)

    def yaml(self, vm, replicas):
        return self.c.vm_yaml(vm, extra=disk_yaml("256MiB", replicas).replace("}", ", image: noise}"))

    def create_full(self, vm, replicas):
        self.c.apply(self.c.leader(), self.yaml(vm, replicas))
        self.vms.append((vm, [vm + ".root"]))
        self.writes(vm)
        self.c.wait_for(lambda: disks.is_whole(self.c, self.c.leader(), vm + ".root"), 90, "all replicas are in sync")
        return self.writes(vm)

    def begin_another(self, vm, owner, replicas):
        """Returns the node that gets the next replica, of which a good part is there and much is still missing."""
        self.assertIn("--resync-rate=24", processes.look_at(self.c._pid(owner, "kedge-vol")).argv)
        self.c.apply(owner, self.yaml(vm, replicas))
        joiner = self.c.wait_for(lambda: self.joining(vm, owner), 30, "another node gets a replica")
        self.c.wait_for(lambda: self.copied(vm, joiner, owner) > SIZE // 8, 60, "the resync is under way")
        return joiner

    def joining(self, vm, i):
        rows = disks.volume(self.c, i, vm + ".root")["replicas"]
        return next((self.c.node(r["node"]).number for r in rows if r["state"] == "syncing"), None)

    def copied(self, vm, i, asked):
        try:
            return os.stat(disks.data(self.c, i, vm + ".root", asked)).st_blocks * 512
        except FileNotFoundError:
            return 0

    def was_broken_off(self, vm, joiner, asked):
        self.assertNotIn("n%d" % joiner, disks.in_sync(self.c, asked, vm + ".root"))
        copied = self.copied(vm, joiner, asked)
        self.assertLess(copied, SIZE * 9 // 10, "the resync was over too soon for this test")
        return copied

    def ends_well(self, vm, to, nodes):
        """All replicas are there in the end, and are the same."""
        name = vm + ".root"
        self.c.wait_for(lambda: disks.is_whole(self.c, to, name), 120, "all replicas are in sync")
        self.assertEqual(self.writes(vm), to)
        self.check(vm, to)
        self.c.command(to, "vm", "stop", vm)
        self.c.wait_for(lambda: not self.c.qemus(vm), 40, "it is stopped")
        paths = [disks.data(self.c, i, name, to) for i in nodes]
        self.c.wait_for(lambda: disks.same(paths), 20, "the replicas are the same, byte by byte")

    def test_both_ends_die_in_turn(self):
        """Two replicas. The joiner's node dies, then the only one that has all: nobody runs on half a disk."""
        owner = self.create_full("half", 1)
        joiner = self.begin_another("half", owner, 2)
        snapshot = self.c.snapshot("half", owner)[0]
        self.c.kill_node(joiner)
        copied = self.was_broken_off("half", joiner, owner)
        self.assertLess(copied, SIZE // 2, "it was faster than it may be beside a guest")
        self.assertEqual(self.writes("half"), owner)
        self.c.start(joiner)
        self.c.wait_for(lambda: self.copied("half", joiner, owner) > copied + SIZE // 8, 60, "it goes on where it was")
        self.assertEqual(self.c.snapshot("half", owner)[0], snapshot, "the guest noticed")
        last = disks.last_written(self.c, "half", owner)
        self.c.kill_node(owner)
        self.was_broken_off("half", joiner, joiner)
        self.c.wait_for(lambda: (self.c.vm(joiner, "half") or {}).get("reason"), 20, "it says what it waits for")
        self.c.holds_for(lambda: not self.c.qemus("half"), 5, "it runs nowhere")
        self.c.start(owner)
        self.c.wait_formed()
        to = self.writes("half")  # on either: without a guest the rest may be there before it is placed
        found = [t for t in disks.told(self.c, "half", to) if t.what == "found"][-1]
        self.assertGreaterEqual(found.n, last, "an acknowledged line is lost")
        self.ends_well("half", to, (owner, joiner))

    def test_the_primary_dies_with_another_in_sync(self):
        """Three replicas. The other that has all takes over, guest and resync; the joiner's engine dies meanwhile."""
        owner = self.create_full("most", 2)
        other = self.holder("most", owner)
        joiner = self.begin_another("most", owner, 3)
        last = disks.last_written(self.c, "most", owner)
        self.c.kill_node(owner)
        self.was_broken_off("most", joiner, other)
        self.c.kill(joiner, "kedge-vol")
        self.assertEqual(self.writes("most", but=(owner,), timeout=FAILOVER_S), other)
        found = next(t for t in disks.told(self.c, "most", other) if t.what == "found")
        self.assertGreaterEqual(found.n, last, "an acknowledged line is lost")
        self.c.start(owner)
        self.c.wait_formed()
        self.ends_well("most", other, (owner, other, joiner))


class Flapping(DiskCase):
    """A node's links go and come: some cuts are noticed and some are not, some healings are too short to begin anew."""

    namespaces = True
    cuts = (0.1, 0.6, 1.6, 0.3)  # an end with something to send gives up after a second
    pauses = (0.05, 0.3, 0.8)

    def flap(self, node, times=10):
        for turn in range(times):
            self.c.partition(node)
            time.sleep(self.cuts[turn % len(self.cuts)])  # the fault itself
            self.c.heal(node)
            time.sleep(self.pauses[turn % len(self.pauses)])

    def flaps_are_borne(self, vm, replicas):
        """First the links of a replica's node, then those of the guest's, which may freeze and go on, or be taken over."""
        owner = self.create(vm, replicas=replicas)
        others = [n for n in disks.in_sync(self.c, owner, vm + ".root") if n != "n%d" % owner]
        snapshot = self.c.snapshot(vm, owner)[0]
        epoch = disks.volume(self.c, owner, vm + ".root")["epoch"]
        for name in others:
            self.flap(self.c.node(name).number, times=10 // len(others))
        self.c.wait_for(lambda: disks.volume(self.c, owner, vm + ".root")["epoch"] > epoch, 20, "no cut was noticed")
        self.c.wait_formed()
        self.c.wait_for(lambda: disks.is_whole(self.c, owner, vm + ".root"), 60, "all replicas are in sync")
        self.assertEqual(self.c.snapshot(vm, owner)[0], snapshot, "the guest noticed")
        self.check(vm, self.writes(vm))
        self.flap(owner)
        self.c.wait_formed()
        to = self.writes(vm)
        self.c.wait_for(lambda: disks.is_whole(self.c, to, vm + ".root"), 60, "all replicas are in sync")
        self.check(vm, to)
        names = disks.in_sync(self.c, to, vm + ".root")
        self.c.command(to, "vm", "stop", vm)
        self.c.wait_for(lambda: not self.c.qemus(vm), 40, "it is stopped")
        paths = [disks.data(self.c, self.c.node(n).number, vm + ".root", to) for n in names]
        self.assertEqual(len(paths), replicas)
        self.c.wait_for(lambda: disks.same(paths), 20, "the replicas are the same, byte by byte")

    def test_a_link_that_only_one_end_knows_is_dead(self):
        """The primary gives the link up and cannot say so; the other end dials, as the lower node, and has nothing to
        send by which it would notice."""
        self.c.apply(1, "kind: volume\nname: half-open\nsize: 16MiB\nreplicas: 2\nnodes: [n1, n3]\n")
        self.c.wait_for(lambda: disks.is_whole(self.c, 3, "half-open"), 60, "both replicas are in sync")
        self.c.command(3, "volume", "export", "half-open", "--node", "n3")
        self.c.wait_for(lambda: self.written(3, "half-open"), 30, "it is served")
        ended = self.ended(3)
        self.c.wait_for(lambda: not self.unacked(1), 20, "TCP has acknowledged all")
        self.c.partition(1, ("input",))
        self.assertTrue(self.written(3, "half-open"))
        self.c.wait_for(lambda: disks.in_sync(self.c, 3, "half-open") == ["n3"], 20, "the deaf one is removed")
        self.c.wait_for(lambda: self.ended(3) > ended, 20, "the link is given up")
        self.c.heal(1)
        self.c.wait_for(lambda: disks.is_whole(self.c, 3, "half-open"), 30, "both replicas are in sync again")
        self.c.command(3, "volume", "unexport", "half-open")
        self.c.wait_for(lambda: self.c.command(3, "delete", "volume", "half-open", check=False).returncode == 0, 10,
                        "it is deleted")

    def written(self, i, name):
        uri = "nbd+unix:///%s?socket=%s/run/nbd.sock" % (name, self.c.node(i).dir)
        done = subprocess.run(["timeout", "15", "qemu-io", "-f", "raw", "-c", "write -f 0 4k", uri], capture_output=True,
                              check=False)
        return done.returncode == 0

    def unacked(self, i):
        done = subprocess.run(self.c.node(i).inside(["ss", "-tniH", "dst", self.c.node(3).host]), capture_output=True,
                              text=True, check=True)
        return "unacked:" in done.stdout

    def ended(self, i):
        with open(self.c.node(i).log, encoding="utf-8", errors="replace") as f:
            return f.read().count("link with node 1 ended")

    def test_two_replicas(self):
        self.flaps_are_borne("flap", 2)

    def test_three_replicas(self):
        self.flaps_are_borne("sway", 3)


if __name__ == "__main__":
    harness.main()
