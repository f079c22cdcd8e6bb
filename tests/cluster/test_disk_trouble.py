#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Guests with disks on nodes that do not die but are of no use: their engine, their disk, their agent's file (P1, P3, P6)."""
import os
import shutil
import signal
import subprocess
import time

import disks
import harness
import processes
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


class FailingDisk(DiskCase):
    """One system call on a replica's data fails, once: the replica is as good as one that lost power (V13)."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for node in cls.cluster.nodes:
            cls.use_threads(node)

    @classmethod
    def use_threads(cls, node):
        """Its engine is started anew by hand, so that its I/O is system calls, which can be made to fail."""
        c, i = cls.cluster, node.number
        c.kill(i)
        old = c.kill(i, "kedge-vol")
        c.wait_for(lambda: processes.has_ended(old), 20, "the engine has let go of its folder")  # else the next one ends
        argv = node.inside([os.path.join(harness.BUILD, "kedge-vol"), "--threads", "--dir", node.dir])
        with open(node.log, "ab") as log:
            cls.addClassCleanup(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                                 start_new_session=True).wait)
        c.start(i)
        c.wait_for(lambda: c.status(i)["quorum"], 20, "%s is back" % node.name)  # else what is said of it may be of before

    def fail_once(self, vm, i, call):
        """Its fifth call from now on, on the data of @vm's disk on node @i."""
        engine = self.c.signal(i, "kedge-vol", 0)
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", self.c.root + "/strace.log", "-P",
                                   os.path.realpath(disks.data(self.c, i, vm + ".root")), "-e", "trace=" + call,
                                   "-e", "inject=%s:error=EIO:when=5" % call, "-p", str(engine)])
        self.addCleanup(tracer.wait)
        self.addCleanup(tracer.terminate)

    def lost_power(self, i):
        with open(self.c.node(i).log, encoding="utf-8", errors="replace") as f:
            return "counts as one that lost power: Input/output error" in f.read()

    def test_a_replica_cannot_write(self):
        owner = self.create("spare")
        other = self.holder("spare", owner)
        snapshot = self.c.snapshot("spare", owner)[0]
        self.fail_once("spare", other, "pwrite64")
        self.c.wait_for(lambda: self.happened(owner, "spare.root", "n%d is out of sync" % other), 60, "it is removed")
        self.assertTrue(self.lost_power(other))
        self.c.wait_for(lambda: disks.is_whole(self.c, owner, "spare.root"), 60, "it rejoined")
        self.assertEqual(self.writes("spare"), owner)
        self.assertEqual(self.c.snapshot("spare", owner)[0], snapshot, "the guest noticed")
        self.check("spare", owner)

    def test_the_primary_cannot_flush(self):
        """Its guest is ended before another node leads (L16), and finds every line that it was told is written."""
        owner = self.create("frail")
        self.fail_once("frail", owner, "fdatasync")
        to = self.writes("frail", but=(owner,))
        self.assertTrue(self.lost_power(owner))
        last = disks.last_written(self.c, "frail", owner)
        found = next(t for t in disks.told(self.c, "frail", to) if t.what == "found")
        self.assertGreaterEqual(found.n, last, "an acknowledged line is lost")
        self.c.wait_for(lambda: disks.is_whole(self.c, to, "frail.root"), 60, "the failed replica rejoined")
        self.check("frail", to)
        self.c.command(to, "vm", "stop", "frail")
        self.c.wait_for(lambda: not self.c.qemus("frail"), 40, "frail is stopped")
        paths = [disks.data(self.c, i, "frail.root", to) for i in (owner, to)]
        self.c.wait_for(lambda: disks.same(paths), 20, "the replicas are the same, byte by byte")


@harness.long_run("the same with three replicas")
class FailingDiskOfThree(FailingDisk):
    replicas = 3


class Upgrade(DiskCase):
    """The files of a node are replaced by another version, and its agent is stopped and started, node by node."""

    programs = ("kedged", "kedge-vol", "kedge-guard", "kedge-hypervisor.so")
    lease_s = 2.1

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.cluster
        cls.versions = [cls.version_of(harness.BUILD), "9.8.7"]
        for node in c.nodes:
            bins = "%s/bin-%s" % (c.root, node.name)
            os.mkdir(bins)
            for version in cls.versions:
                cls.install(bins, version)
            cls.install(bins, cls.versions[0])
            c.kill(node.number)
            node.bin = bins
            c.start(node.number)
            c.wait_formed()

    @staticmethod
    def version_of(bins):
        return subprocess.run([bins + "/kedged", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]

    @classmethod
    def install(cls, bins, version):
        """As a package does: new files take the names of the old ones, which go on running."""
        old = b"\0" + cls.versions[0].encode() + b"\0"
        new = b"\0" + version.encode() + b"\0"
        assert len(old) == len(new)
        for name in cls.programs:
            with open(os.path.join(harness.BUILD, name), "rb") as f:
                content = f.read()
            with open(bins + "/.new", "wb") as f:
                f.write(content.replace(old, new))
            shutil.copymode(os.path.join(harness.BUILD, name), bins + "/.new")
            os.rename(bins + "/.new", os.path.join(bins, name))
        assert cls.version_of(bins) == version

    def upgrade(self, i, version):
        """Returns how long the node had no agent."""
        node = self.c.node(i)
        self.install(node.bin, version)
        began = time.monotonic()
        self.c.signal(i, "kedged", signal.SIGTERM)
        self.assertEqual(node.kedged.wait(), 0)
        self.c.start(i)
        self.c.wait_for(lambda: self.versions_of(i)["agent_version"] == version, 20, "the new agent answers")
        self.c.wait_formed()
        return time.monotonic() - began

    def versions_of(self, i):
        node = next(n for n in self.c.status(i, stale=True)["nodes"] if n["name"] == "n%d" % i)
        return {k: v for k, v in node.items() if k.endswith("_version")}

    def pauses(self, vm, since):
        return [h for h in self.c.witness.history if h[1] == vm and h[0] > since and h[4] == "stopped"]

    def test_all_nodes_one_by_one_and_back(self):
        owner = self.create("steady")
        before = disks.volume(self.c, owner, "steady.root")
        snapshot = self.c.snapshot("steady", owner)[0]
        engines = [self.c._pid(n.number, "kedge-vol") for n in self.c.nodes]
        began, longest = time.monotonic(), 0.0
        for version in reversed(self.versions):
            for i in [n.number for n in self.c.nodes]:
                longest = max(longest, self.upgrade(i, version))
                written = disks.last_written(self.c, "steady", owner)
                self.c.wait_for(lambda w=written: disks.last_written(self.c, "steady", owner) > w, 20, "it writes on")
                self.assertEqual(self.versions_of(i), {"agent_version": version, "engine_version": self.versions[0],
                                                       "guard_version": self.versions[0]})
        after = disks.volume(self.c, owner, "steady.root")
        print("    6 upgrades, at most %.1f s until all are formed again" % longest)
        self.assertEqual(self.c.snapshot("steady", owner)[0], snapshot, "the guest was started again")
        self.assertEqual([self.c._pid(n.number, "kedge-vol") for n in self.c.nodes], engines)
        self.assertEqual(after["epoch"], before["epoch"], "a replica was removed")
        self.assertEqual(after["replicas"], before["replicas"])
        if longest < self.lease_s:
            self.assertEqual(self.pauses("steady", began), [])
        self.check("steady", owner)
        self.engine_too(owner, snapshot)

    def engine_too(self, owner, snapshot):
        """The engine goes on as the old one until it is told to end; that is no death, and the guest waits shortly."""
        self.install(self.c.node(owner).bin, self.versions[1])
        for _ in range(3):
            old = self.c.signal(owner, "kedge-vol", signal.SIGTERM)
            self.c.wait_for(lambda o=old: self.c._pid(owner, "kedge-vol") not in (None, o), 20, "a new engine")
            self.c.wait_for(lambda: self.versions_of(owner)["engine_version"] == self.versions[1], 20, "its version")
            self.assertEqual(self.writes("steady"), owner)
        self.assertEqual(self.c.snapshot("steady", owner)[0], snapshot)
        self.assertFalse(self.c.kedge(owner, "node", "show", "n%d" % owner)["node"]["engine_unsound"])
        self.check("steady", owner)


class AwayCase(DiskCase):
    """Replicas of a node that stays away are placed anew soon (`replace-after`)."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.restart_with("volumes", "replace-after", "10s")

    def replaced(self, vm, owner, other, third):
        """@other has died: @third gets a replica, and the row is whole without it."""
        name = vm + ".root"
        self.c.wait_for(lambda: sorted(disks.in_sync(self.c, owner, name)) == sorted(["n%d" % owner, "n%d" % third]),
                        90, "the third node has all")
        self.c.wait_for(lambda: self.states(owner, name).get("n%d" % other) == "leaving", 30, "the old one leaves")
        self.assertTrue(disks.is_whole(self.c, owner, name))

    def states(self, i, name):
        return {r["node"]: r["state"] for r in disks.volume(self.c, i, name)["replicas"]}


@harness.long_run("Removed has most of it")
class Away(AwayCase):
    """A node that stays away, and comes back."""

    def test_replaced_and_erased(self):
        owner = self.create("loyal")
        other = self.holder("loyal", owner)
        third = next(n.number for n in self.c.nodes if n.number not in (owner, other))
        self.c.kill_node(other)
        self.replaced("loyal", owner, other, third)
        self.assertEqual(self.writes("loyal"), owner)
        self.assertEqual(len(disks.folders(self.c, other)), 1)
        self.c.start(other)
        self.c.wait_for(lambda: disks.folders(self.c, other) == [], 60, "the old replica is erased")
        self.c.wait_for(lambda: "n%d" % other not in self.states(owner, "loyal.root"), 20, "its place is free")
        self.c.wait_formed()
        last = disks.last_written(self.c, "loyal", owner)
        self.c.kill_node(owner)
        self.assertEqual(self.writes("loyal", but=(owner,)), third)
        found = next(t for t in disks.told(self.c, "loyal", third) if t.what == "found")
        self.assertGreaterEqual(found.n, last, "an acknowledged line is lost")
        self.check("loyal", third)


class Removed(AwayCase):
    """In a cluster of its own, since the removed node never comes back."""

    def tearDown(self):
        self.c.witness.check() # what DiskCase tidies up would need all nodes

    def refused(self, text, *args):
        i = self.c.leader()
        done = self.c.command(i, *args, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(text, done.stderr)

    def remove(self, i):
        return ("node", "remove", "n%d" % i, "--yes")

    def test_removed(self):
        owner = self.create("rest")
        other = self.holder("rest", owner)
        third = next(n.number for n in self.c.nodes if n.number not in (owner, other))
        self.c.apply(owner, "kind: volume\nname: only\nsize: 16MiB\nreplicas: 3\n")
        self.c.wait_for(lambda: disks.is_whole(self.c, owner, "only"), 60, "three replicas")
        self.refused("is up", *self.remove(other))
        self.refused("there is no node", *self.remove(9))
        self.c.kill_node(other)
        self.replaced("rest", owner, other, third)
        self.c.command(owner, "delete", "volume", "only")
        self.c.wait_for(lambda: list(self.states(owner, "only").values()) == ["leaving"], 30, "the dead one holds it")
        self.c.wait_for(lambda: self.c.leader(), 20, "a leader")
        self.c.wait_for(lambda: self.c.command(self.c.leader(), *self.remove(other), check=False).returncode == 0, 20,
                        "it is removed")
        self.assertIsNone(disks.volume(self.c, owner, "only"), "a deleted volume waits for a node that is gone")
        self.assertEqual(sorted(self.states(owner, "rest.root")), sorted(["n%d" % owner, "n%d" % third]))
        self.assertNotIn("n%d" % other, [n["name"] for n in self.c.status(owner)["nodes"]])
        self.assertEqual(self.writes("rest"), owner)
        self.comes_to_the_door(owner, other)
        self.joins_anew(owner, other)

    def comes_to_the_door(self, owner, other):
        """Its certificate opens nothing any more (P8), and it disturbs nobody."""
        term = self.c.status(owner)["term"]
        others = [n.number for n in self.c.nodes if n.number != other]
        before = [self.linked(i, other) for i in others]
        self.assertTrue(all(before), "it never was linked: nothing is looked at")
        self.c.start(other)
        self.c.wait_for(lambda: self.c.agent(other) and not self.c.status(other)["quorum"], 20, "it is alone")
        time.sleep(3) # long enough for some elections of its own
        status = self.c.status(owner)
        self.assertEqual((status["term"], status["quorum"]), (term, True))
        self.assertFalse(self.c.status(other)["quorum"])
        self.assertEqual([self.linked(i, other) for i in others], before, "it was let in")
        self.c.kill_node(other)

    def linked(self, i, other):
        with open(self.c.node(i).log, encoding="utf-8", errors="replace") as f:
            return f.read().count("info node %d: linked" % self.c.node(other).number)

    def joins_anew(self, owner, other):
        """With an empty folder, under its old name and address, as another node."""
        node = self.c.node(other)
        shutil.rmtree(node.dir)
        self.c.join(other, self.c.token(owner))
        self.c.start(other)
        self.c.wait_formed()
        self.assertEqual(next(n["id"] for n in self.c.status(owner)["nodes"] if n["name"] == node.name), 4)
        self.check("rest", owner)


if __name__ == "__main__":
    harness.main()
