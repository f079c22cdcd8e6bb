#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Guests with disks: what a guest was told is written is there after its node dies, hangs or loses its agent (P1, P3)."""
import os
import random
import signal
import subprocess
import time

import disks
import harness
import processes

FAILOVER_S = 30


def disk_yaml(size="64MiB", replicas=2, name="root"):
    return "disks: [{name: %s, size: %s, replicas: %d}]\n" % (name, size, replicas)


class DiskCase(harness.ClusterCase):
    replicas = 2

    def setUp(self):
        super().setUp()
        self.c.wait_formed()
        self.c.wait_for(lambda: all(n["engine"] for n in self.c.status(self.c.leader())["nodes"]), 20, "all have engines")
        self.vms = []

    def tearDown(self):
        for node in self.c.nodes:
            if self.c.agent(node.number) is None:
                self.c.start(node.number)
        self.c.wait_formed()
        for vm, names in self.vms:
            self.c.delete(vm)
            for name in names:
                i = self.c.leader()
                self.c.wait_for(lambda n=name, i=i: disks.volume(self.c, i, n)["vm"] is None, 10, "the VM is gone")
                self.c.command(i, "delete", "volume", name)
                self.c.wait_for(lambda n=name, i=i: disks.volume(self.c, i, n) is None, 20, "%s is erased" % name)
        super().tearDown()

    def create(self, vm, replicas=None):
        """A guest that writes; returns its node's number once its disk has all its replicas."""
        extra = disk_yaml(replicas=replicas or self.replicas)
        self.c.apply(self.c.leader(), self.c.vm_yaml(vm, extra=extra))
        self.vms.append((vm, [vm + ".root"]))
        self.writes(vm)
        self.c.wait_for(lambda: disks.is_whole(self.c, self.c.leader(), vm + ".root"), 60, "all replicas are in sync")
        return self.writes(vm)

    def writes(self, vm, but=(), timeout=60):
        """Wait until @vm writes to its disk; returns its node."""
        i = self.c.wait_for(lambda: self.c.runs_on(vm, but=but), timeout, "%s runs" % vm)
        before = disks.last_written(self.c, vm, i)
        self.c.wait_for(lambda: disks.last_written(self.c, vm, i) > before, timeout, "%s writes on n%d" % (vm, i))
        return i

    def holder(self, vm, i):
        """The other node that has the disk."""
        names = disks.in_sync(self.c, i, vm + ".root")
        return next(self.c.node(n).number for n in names if n != "n%d" % i)

    def stop_node(self, i):
        found = processes.below(self.c.node(i).dir)
        for p in found:
            processes.send(p.pid, signal.SIGSTOP)
        return found

    def cont_node(self, found):
        for p in found:
            processes.send(p.pid, signal.SIGCONT)

    def happened(self, i, what, text):
        events = self.c.kedge(i, "events", "--limit", "500")["events"]
        return any(e["object"] == what and text in e["text"] for e in events)

    def check(self, vm, i):
        """Nothing that was told is lost, looked at in the replica's file on node @i."""
        looked = disks.check_log(self.c, vm, disks.data(self.c, i, vm + ".root"))
        self.assertGreater(looked, 0)
        return looked


class Disks(DiskCase):
    def test_node_dies_and_comes_back(self):
        owner = self.create("till")
        self.c.kill_node(owner)
        killed = time.monotonic()
        last = disks.last_written(self.c, "till", owner)
        to = self.writes("till", but=(owner,), timeout=FAILOVER_S)
        found = next(t for t in disks.told(self.c, "till", to) if t.what == "found")
        print("    till: n%d -> n%d, writing again after %.1f s; told %d, found %d"
              % (owner, to, time.monotonic() - killed, last, found.n))
        self.assertGreaterEqual(found.n, last, "an acknowledged line is lost")
        self.check("till", to)
        self.assertEqual(len(disks.in_sync(self.c, to, "till.root")), self.replicas - 1)
        self.c.start(owner)
        self.c.wait_formed()
        self.c.wait_for(lambda: disks.is_whole(self.c, to, "till.root"), 60, "the replica that came back is in sync")
        self.assertEqual(self.writes("till"), to, "a node that came back moved the guest")
        self.c.command(to, "vm", "stop", "till")
        self.c.wait_for(lambda: not self.c.qemus("till"), 30, "till is stopped")
        paths = [disks.data(self.c, i, "till.root", to) for i in (owner, to)]
        self.c.wait_for(lambda: disks.same(paths), 20, "the replicas are the same, byte by byte")
        self.check("till", owner)

    @harness.long_run("Upgrade has most of it")
    def test_agent_killed_again_and_again(self):
        """kedged is killed and started on all nodes in turn: the guest goes on, nothing leaves the in-sync set."""
        owner = self.create("calm")
        before = disks.volume(self.c, owner, "calm.root")
        snapshot = self.c.snapshot("calm", owner)[0]
        for i in [n.number for n in self.c.nodes] * 2:
            self.c.kill(i)
            written = disks.last_written(self.c, "calm", owner)
            self.c.start(i)
            self.c.wait_formed()
            self.c.wait_for(lambda w=written: disks.last_written(self.c, "calm", owner) > w, 10, "the guest goes on")
        after = disks.volume(self.c, owner, "calm.root")
        self.assertEqual(self.c.snapshot("calm", owner)[0], snapshot)
        self.assertEqual(after["epoch"], before["epoch"], "a replica was removed")
        self.check("calm", owner)

    def test_engine_killed(self):
        """kedge-vol dies on the guest's node, then on the other one: the guest waits, and sees no error."""
        owner = self.create("brave")
        snapshot = self.c.snapshot("brave", owner)[0]
        for i in (owner, self.holder("brave", owner)):
            self.c.kill(i, "kedge-vol")
            written = disks.last_written(self.c, "brave", owner)
            self.c.wait_for(lambda w=written: disks.last_written(self.c, "brave", owner) > w + 5, 30, "it writes again")
        self.assertEqual(self.c.snapshot("brave", owner)[0], snapshot)
        self.c.wait_for(lambda: disks.is_whole(self.c, owner, "brave.root"), 60, "both are in sync again")
        self.check("brave", owner)

    def test_node_stands_still_and_goes_on(self):
        """All processes of the guest's node are stopped for longer than the takeover takes: what they write when they go
        on is refused by the others, and nobody was told that it was written."""
        owner = self.create("held")
        self.c.witness.excused.add("held")
        stopped = self.stop_node(owner)
        to = self.writes("held", but=(owner,), timeout=FAILOVER_S)
        self.cont_node(stopped)
        self.c.wait_for(lambda: self.c.qemu("held", owner) is None, 20, "the old guest is ended")
        told = [t for t in disks.told(self.c, "held", owner) if t.what == "wrote"]
        found = next(t for t in disks.told(self.c, "held", to) if t.what == "found")
        self.assertGreaterEqual(found.n, told[-1].n, "the old guest was told of a write that is lost")
        self.c.wait_for(lambda: disks.is_whole(self.c, to, "held.root"), 60, "the old primary has joined")
        self.check("held", to)


@harness.long_run("the same with three replicas")
class DisksOfThree(Disks):
    replicas = 3


class Cut(DiskCase):
    namespaces = True

    def test_owner_is_cut_off(self):
        """Taken over on the majority's side; the old guest stands still, then ends, and lost nothing it was told of."""
        owner = self.create("cut")
        self.c.partition(owner)
        to = self.writes("cut", but=(owner,), timeout=FAILOVER_S)
        told = [t for t in disks.told(self.c, "cut", owner) if t.what == "wrote"]
        found = next(t for t in disks.told(self.c, "cut", to) if t.what == "found")
        self.assertGreaterEqual(found.n, told[-1].n)
        self.c.heal(owner)
        self.c.wait_for(lambda: self.c.qemu("cut", owner) is None, 20, "the old guest is ended")
        self.c.wait_for(lambda: disks.is_whole(self.c, to, "cut.root"), 60, "the old primary has joined")
        self.check("cut", to)

    def test_failovers_at_random_moments(self):
        """Its node is killed, stands still or is cut off, again and again, with whatever the guest does at that moment."""
        turns = 20 if harness.LONG else 2
        seed = int(os.environ.get("KEDGE_TEST_SEED", time.time_ns() % 1000000))
        chance = random.Random(seed)
        print("    seed %d (KEDGE_TEST_SEED)" % seed)
        owner = self.create("again")
        self.c.witness.excused.add("again") # it stands still whole, guard and all
        for turn in range(turns):
            kind = chance.choice(("kill", "stop", "cut"))
            time.sleep(chance.random()) # which moment is what varies
            stopped = []
            if kind == "kill":
                self.c.kill_node(owner)
            elif kind == "stop":
                stopped = self.stop_node(owner)
            else:
                self.c.partition(owner)
            to = self.writes("again", but=(owner,), timeout=FAILOVER_S)
            print("    turn %d: %s, n%d -> n%d" % (turn + 1, kind, owner, to))
            if kind == "kill":
                self.c.start(owner)
            elif kind == "stop":
                self.cont_node(stopped)
            else:
                self.c.heal(owner)
            self.c.wait_formed()
            self.c.wait_for(lambda o=owner: self.c.qemu("again", o) is None, 30, "the old guest is ended")
            self.c.wait_for(lambda t=to: disks.is_whole(self.c, t, "again.root"), 60, "both replicas are in sync")
            self.check("again", to)
            owner = to

    def test_a_guest_that_nobody_else_can_run_goes_on(self):
        """One replica, on a node that is cut off: it is not frozen for nothing (L20 to L22), and stays what it is."""
        owner = self.create("alone", replicas=1)
        self.create("two")
        self.c.wait_for(lambda: self.happened(owner, "alone", "no other node can run it"), 20, "its owner is told")
        snapshot = self.c.snapshot("alone", owner)[0]
        self.c.partition(owner)
        since = time.monotonic()
        self.c.wait_for(lambda: self.c.leader_of(n.number for n in self.c.nodes if n.number != owner), 20, "others lead")
        self.c.holds_for(lambda: not self.c.qemu("alone", owner).stopped, 5, "it is not frozen")
        self.assertLess(self.c.witness.stopped_for("alone", "n%d" % owner, since), 0.3)
        self.c.heal(owner)
        self.c.wait_formed()
        self.assertEqual(self.c.snapshot("alone", owner)[0], snapshot)
        self.check("alone", self.writes("alone"))
        self.writes("two", timeout=FAILOVER_S)


@harness.long_run("the same with three replicas")
class CutOfThree(Cut):
    replicas = 3


class Power(DiskCase):
    own_disks = True

    def test_all_nodes_lose_power(self):
        """They come back one after the other, the guest's node last: it runs by itself, with all that was synced."""
        owner = self.create("dark")
        told = disks.last_written(self.c, "dark", owner)
        for i in (1, 2, 3):
            self.c.power_cut(i)
        for i in [n for n in (1, 2, 3) if n != owner] + [owner]:
            self.c.start(i)
            time.sleep(1)
        to = self.writes("dark")
        found = [t for t in disks.told(self.c, "dark", to) if t.what == "found"][-1]
        self.assertGreaterEqual(found.n, told)
        self.assertTrue(self.happened(to, "dark.root", "after a power loss of all"), "no COLD: nothing was tried")
        self.c.wait_for(lambda: disks.is_whole(self.c, to, "dark.root"), 60, "all replicas are in sync")
        self.check("dark", to)

    def test_owner_loses_power_and_comes_back(self):
        """Shorter than a takeover takes: its replica is not what was in sync any more, so the other one leads."""
        owner = self.create("dip")
        self.c.power_cut(owner)
        self.c.start(owner)
        to = self.writes("dip", timeout=FAILOVER_S)
        self.assertNotEqual(to, owner, "a replica that lost power leads")
        self.c.wait_for(lambda: disks.is_whole(self.c, to, "dip.root"), 60, "both are in sync again")
        self.check("dip", to)

    @harness.long_run("waits for two minutes")
    def test_all_nodes_lose_power_and_one_stays_dead(self):
        """What only it had is waited for, COLD_WAIT long; then the guest runs without it, with all that was synced."""
        owner = self.create("cold")
        told = disks.last_written(self.c, "cold", owner)
        other = self.holder("cold", owner)
        for i in (1, 2, 3):
            self.c.power_cut(i)
        for i in [n for n in (1, 2, 3) if n != owner]:
            self.c.start(i)
        self.c.wait_for(lambda: "waits for another to report" in (self.c.vm(other, "cold")["reason"] or ""), 60,
                        "it says what it waits for")
        self.assertEqual(self.writes("cold", timeout=200), other)
        found = [t for t in disks.told(self.c, "cold", other) if t.what == "found"][-1]
        self.assertGreaterEqual(found.n, told)
        self.assertTrue(self.happened(other, "cold.root", "without the replicas that stayed silent"))

    def test_three_replicas_two_deaths(self):
        owner = self.create("three", replicas=3)
        dead = []
        for _ in range(2):
            self.c.power_cut(owner)
            dead.append(owner)
            if len(dead) == 1:
                owner = self.writes("three", but=(owner,), timeout=FAILOVER_S)
        self.c.start(dead[0]) # a quorum, but what it has is old
        last = next(n.number for n in self.c.nodes if n.number not in dead)
        self.assertEqual(self.writes("three", timeout=FAILOVER_S), last)
        self.c.start(dead[1])
        self.c.wait_formed()
        self.c.wait_for(lambda: disks.is_whole(self.c, last, "three.root"), 60, "all three are in sync")
        self.check("three", last)


class Paused(DiskCase):
    """Where QEMU does not wait for the engine, as under a libvirt before 9.2: it pauses the guest, and Kedge resumes it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.restart_with("volumes", "reconnect", "never")

    def test_engine_killed(self):
        owner = self.create("wait")
        snapshot = self.c.snapshot("wait", owner)[0]
        self.c.kill(owner, "kedge-vol")
        written = disks.last_written(self.c, "wait", owner)
        self.c.wait_for(lambda: disks.last_written(self.c, "wait", owner) > written + 20, 30, "it writes again")
        self.assertEqual(self.c.snapshot("wait", owner)[0], snapshot)
        with open(self.c.node(owner).log, encoding="utf-8", errors="replace") as f:
            self.assertIn("paused, since a disk is not served", f.read(), "nothing was tried")
        self.check("wait", owner)


class Full(DiskCase):
    """A disk that is full loses writes: that replica is as good as one that lost power (V13)."""

    own_disks = True

    def fill(self, i):
        path = self.c.node(i).dir + "/volumes/ballast"
        subprocess.run(["dd", "if=/dev/zero", "of=" + path, "bs=64k", "status=none"], stderr=subprocess.DEVNULL, check=False)
        self.addCleanup(self.empty, path)

    @staticmethod
    def empty(path):
        if os.path.exists(path):
            os.remove(path)

    @harness.long_run("FailingDisk has most of it")
    def test_the_other_replica_is_full(self):
        owner = self.create("half")
        other = self.holder("half", owner)
        snapshot = self.c.snapshot("half", owner)[0]
        self.fill(other)
        self.c.wait_for(lambda: "n%d" % other not in disks.in_sync(self.c, owner, "half.root"), 60, "it is out of sync")
        written = disks.last_written(self.c, "half", owner)
        self.c.wait_for(lambda: disks.last_written(self.c, "half", owner) > written + 5, 30, "the guest goes on")
        self.assertEqual(self.c.snapshot("half", owner)[0], snapshot)
        self.empty(self.c.node(other).dir + "/volumes/ballast")
        self.c.wait_for(lambda: disks.is_whole(self.c, owner, "half.root"), 60, "there is room again: in sync")
        self.check("half", owner)

    def test_the_primary_is_full(self):
        """Its guest is ended, and runs where the writes are not lost."""
        owner = self.create("brim")
        self.fill(owner)
        to = self.writes("brim", but=(owner,), timeout=60)
        self.check("brim", to)


@harness.long_run("the same with three replicas")
class FullOfThree(Full):
    replicas = 3


class Loss(DiskCase):
    """The node with the only replica that is in sync is gone for good."""

    def test_force(self):
        owner = self.create("lost")
        other = self.holder("lost", owner)
        self.c.kill_node(other)
        self.c.wait_for(lambda: disks.in_sync(self.c, owner, "lost.root") == ["n%d" % owner], 20, "one replica is left")
        written = disks.last_written(self.c, "lost", owner)
        self.c.wait_for(lambda: disks.last_written(self.c, "lost", owner) > written + 3, 30, "it writes what will be lost")
        self.c.kill_node(owner) # before the other one is back
        self.c.start(other)
        i = self.c.wait_for(lambda: self.c.leader_of(n.number for n in self.c.nodes if n.number != owner), 30, "a leader")
        force = ["volume", "force", "lost.root", "--node", "n%d" % other]
        self.c.wait_for(lambda: "silent" in (self.c.vm(i, "lost")["reason"] or ""), 30, "it says what it waits for")
        self.denied(i, "accept-data-loss", *force)
        self.denied(i, "not confirmed", *force, "--accept-data-loss")
        self.denied(i, "fence-ack", *force, "--accept-data-loss", "--yes")
        self.denied(i, "is up", "node", "fence-ack", "n%d" % other, "--yes")
        self.c.command(i, "node", "fence-ack", "n%d" % owner, "--yes")
        said = self.c.command(i, *force, "--accept-data-loss", "--yes").stdout
        self.assertIn("IS LOST", said)
        self.assertEqual(self.writes("lost", timeout=FAILOVER_S), other)
        self.assertTrue(self.happened(other, "lost.root", "DATA IS LOST"))
        self.c.start(owner)
        self.c.wait_formed()
        self.c.wait_for(lambda: disks.is_whole(self.c, other, "lost.root"), 60, "the old one joined, as what it is not")
        self.assertEqual(self.writes("lost"), other)

    def denied(self, i, word, *argv):
        done = self.c.command(i, *argv, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(word, done.stderr)


class Replicas(DiskCase):
    """How many there are, and where."""

    def test_more_and_fewer(self):
        owner = self.create("grow")
        self.c.apply(owner, self.c.vm_yaml("grow", extra=disk_yaml(replicas=3)))
        self.c.wait_for(lambda: len(disks.in_sync(self.c, owner, "grow.root")) == 3, 60, "three replicas")
        self.c.apply(owner, self.c.vm_yaml("grow", extra=disk_yaml(replicas=1)))
        self.c.wait_for(lambda: disks.in_sync(self.c, owner, "grow.root") == ["n%d" % owner] and
                        disks.is_whole(self.c, owner, "grow.root"), 60, "one replica")
        for n in self.c.nodes:
            self.c.wait_for(lambda n=n: len(disks.folders(self.c, n.number)) == (n.number == owner), 20, "others erased")
        self.check("grow", self.writes("grow"))

    def test_moved(self):
        """Replicas go to the nodes that are named, first the one that does not lead, then the one that does."""
        owner = self.create("tide")
        other = self.holder("tide", owner)
        third = next(n.number for n in self.c.nodes if n.number not in (owner, other))
        self.apply_nodes("tide", owner, third)
        self.c.wait_for(lambda: self.are_on("tide", owner, third), 60, "the other replica has moved")
        self.assertEqual(self.writes("tide"), owner)
        self.apply_nodes("tide", third, other)
        self.c.wait_for(lambda: "restart the VM to move it" in str(disks.volume(self.c, owner, "tide.root")["problem"]), 60,
                        "it says what is in the way")
        self.c.command(owner, "vm", "restart", "tide")
        to = self.writes("tide", but=(owner,))
        self.c.wait_for(lambda: self.are_on("tide", third, other), 60, "the old primary has given its replica up")
        self.check("tide", to)

    def apply_nodes(self, vm, *nodes):
        extra = disk_yaml().replace("}", ", nodes: [%s]}" % ", ".join("n%d" % i for i in nodes))
        self.c.apply(self.c.leader(), self.c.vm_yaml(vm, extra=extra))

    def are_on(self, vm, *nodes):
        i = self.c.leader()
        holders = {n.number for n in self.c.nodes if disks.folders(self.c, n.number)}
        return disks.is_whole(self.c, i, vm + ".root") and holders == set(nodes) and \
            set(disks.in_sync(self.c, i, vm + ".root")) == {"n%d" % n for n in nodes}


class Growth(DiskCase):
    """A disk gets larger under its guest, which writes to the new end at once."""

    def said(self, vm, what, i):
        return [t.n for t in disks.told(self.c, vm, i) if t.what == what]

    def test_grows_and_fails_over(self):
        owner = self.create("wide")
        snapshot = self.c.snapshot("wide", owner)[0]
        size = 100 << 20
        self.c.apply(owner, self.c.vm_yaml("wide", extra=disk_yaml(size="100MiB")))
        self.c.wait_for(lambda: size in self.said("wide", "grown", owner), 60, "the guest has written to the new end")
        self.assertEqual(self.c.snapshot("wide", owner)[0], snapshot, "it was restarted for that")
        self.assertEqual(disks.volume(self.c, owner, "wide.root")["size"], size)
        self.assertTrue(disks.is_whole(self.c, owner, "wide.root"), "a replica was lost over it")
        self.c.kill_node(owner)
        to = self.writes("wide", but=(owner,), timeout=FAILOVER_S)
        self.assertEqual(self.said("wide", "size", to)[-1], size)
        self.assertGreater(self.said("wide", "end", to)[-1], 0, "what was written to the end is lost")
        self.check("wide", to)
        self.c.apply(to, self.c.vm_yaml("wide", extra=disk_yaml(size="200MiB"))) # one replica is away
        self.c.wait_for(lambda: 200 << 20 in self.said("wide", "grown", to), 60, "it grows without it")
        self.c.start(owner)
        self.c.wait_formed()
        self.c.wait_for(lambda: disks.is_whole(self.c, to, "wide.root"), 60, "the one that was away has grown and joined")
        self.c.command(to, "vm", "stop", "wide")
        self.c.wait_for(lambda: not self.c.qemus("wide"), 30, "it is stopped")
        paths = [disks.data(self.c, i, "wide.root", to) for i in (owner, to)]
        self.assertEqual({os.path.getsize(p) for p in paths}, {200 << 20})
        self.c.wait_for(lambda: disks.same(paths), 20, "the replicas are the same, byte by byte")


class Exports(DiskCase):
    def test_served_without_a_vm(self):
        leader = self.c.leader()
        self.c.apply(leader, "kind: volume\nname: scratch\nsize: 16MiB\nreplicas: 2\n")
        self.c.wait_for(lambda: disks.is_whole(self.c, leader, "scratch"), 60, "both replicas are in sync")
        names = [r["node"] for r in disks.volume(self.c, leader, "scratch")["replicas"]]
        for name in names:
            i = self.c.node(name).number
            self.c.command(leader, "volume", "export", "scratch", "--node", name)
            self.c.wait_for(lambda i=i: self.nbd(i, "scratch", "--size"), 30, "it is served on %s" % name)
            for other in [n.number for n in self.c.nodes if n.number != i]:
                self.assertFalse(self.nbd(other, "scratch", "--size"), "and nowhere else")
        refused = self.c.command(leader, "delete", "volume", "scratch", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("unexport it first", refused.stderr)
        self.c.command(leader, "volume", "unexport", "scratch")
        self.c.wait_for(lambda: not self.nbd(i, "scratch", "--size"), 10, "it is not served any more")
        self.c.wait_for(lambda: self.c.command(leader, "delete", "volume", "scratch", check=False).returncode == 0, 10,
                        "it is deleted")
        self.c.wait_for(lambda: all(not disks.folders(self.c, n.number) for n in self.c.nodes), 20, "its files are gone")

    def nbd(self, i, name, *args):
        uri = "nbd+unix:///%s?socket=%s/run/nbd.sock" % (name, self.c.node(i).dir)
        done = subprocess.run(["timeout", "5", "nbdinfo", *args, uri], capture_output=True, text=True, check=False)
        return done.returncode == 0 and done.stdout.strip()


class BadInput(DiskCase):
    def refused(self, text, *words):
        done = self.c.apply(self.c.leader(), text, check=False)
        self.assertNotEqual(done.returncode, 0, text)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_refused_before_anything_changes(self):
        before = self.c.kedge(1, "volume", "ls")
        self.refused("kind: volume\nname: a\nsize: 1000\n", "multiple of 4 KiB")
        self.refused("kind: volume\nname: a\nsize: 1MiB\nreplicas: 4\n", "from 1 to 3")
        self.refused("kind: volume\nname: a\nsize: 60TiB\n", "have room")
        self.refused("kind: volume\nname: a\nsize: 1MiB\nnodes: [n9]\n", "kedge node ls")
        self.refused("kind: volume\nname: a\nsize: 1MiB\nnodes: [n1, n1]\n", "twice")
        self.refused("kind: volume\nname: a\nsize: 1MiB\nreplicas: 1\nnodes: [n1, n2]\n", "more of them")
        self.refused(self.c.vm_yaml("x", extra="disks: [{name: a.b, size: 1MiB}]\n"), "disk's name")
        self.refused(self.c.vm_yaml("x", extra="disks: [{name: a, size: 1MiB}, {name: a, size: 1MiB}]\n"), "already")
        self.assertEqual(self.c.kedge(1, "volume", "ls"), before)

    def test_a_volume_that_is_used(self):
        owner = self.create("busy")
        for argv in (["delete", "volume", "busy.root"], ["volume", "export", "busy.root", "--node", "n1"]):
            done = self.c.command(owner, *argv, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("busy", done.stderr)
        self.refused(self.c.vm_yaml("busy", extra=disk_yaml(size="32MiB")), "cannot shrink")
        self.refused("kind: volume\nname: busy.root\nsize: 32MiB\n", "cannot shrink")
        self.refused(self.c.vm_yaml("busy", extra=disk_yaml(size="60TiB")), "has no room")
        self.assertEqual(disks.volume(self.c, owner, "busy.root")["size"], 64 << 20)
        self.assertEqual(self.writes("busy"), owner)


if __name__ == "__main__":
    harness.main()
