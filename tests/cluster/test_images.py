#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images, kernels and initrds: held by the cluster, not by paths; what is damaged or not whole changes nothing."""
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import disks  # makes guest_log known
import guest_log
import harness
import processes

KEEP_S = 1
MIB = 1 << 20


class ImageCluster(harness.Cluster):
    def configure(self, i):
        super().configure(i)
        harness.set_option(os.path.join(self.node(i).dir, "kedge.conf"), "images", "keep-unused", "%ds" % KEEP_S)


class ImageCase(harness.ClusterCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = ImageCluster(cls.nodes, name=cls.__name__)

    def setUp(self):
        super().setUp()
        self.c.wait_formed()
        self.c.wait_for(lambda: all(n["engine"] for n in self.c.status(self.c.leader())["nodes"]), 20, "all have engines")

    def tearDown(self):
        for node in self.c.nodes:
            if self.c.agent(node.number) is None:
                self.c.start(node.number)
        self.c.wait_formed()
        for image in self.images():
            self.c.wait_for(lambda n=image: self.c.command(1, "image", "rm", n, check=False).returncode == 0, 20,
                            "%s is removed" % image)
        super().tearDown()

    def path(self, name):
        return os.path.join(self.c.root, name)

    def make_raw(self, name, size, seed=1):
        """Noise, a hole, and noise up to the end."""
        noise = random.Random(seed)
        path = self.path(name)
        with open(path, "wb") as f:
            f.write(noise.randbytes(size // 4))
            f.seek(size - size // 4)
            f.write(noise.randbytes(size // 4))
        return path

    def make_qcow2(self, name, raw):
        path = self.path(name)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True, timeout=60)
        return path

    def images(self):
        return {row["name"]: row for row in self.c.kedge(1, "image", "ls")["images"]}

    def held(self, digest):
        """The nodes that have the file, by what lies in their folders."""
        return [n.number for n in self.c.nodes if os.path.exists(self.file(n.number, digest))]

    def file(self, i, digest):
        return "%s/images/%s" % (self.c.node(i).dir, digest)

    def left_behind(self):
        return [name for n in self.c.nodes for name in os.listdir(n.dir + "/images") if name.endswith(".part")]

    def refused(self, done, *words):
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)


def digest_of(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Images(ImageCase):
    def test_added_listed_removed(self):
        raw = self.make_raw("a.raw", 5 * MIB)
        qcow2 = self.make_qcow2("a.qcow2", raw)
        added = self.c.kedge(1, "image", "add", "raw-a", raw)
        self.assertEqual((added["digest"], added["format"], added["size"]), (digest_of(raw), "raw", 5 * MIB))
        with open(qcow2, "rb") as f:
            done = subprocess.run([harness.BUILD + "/kedge", "image", "add", "q", "-", "--copies", "3", "--json"], stdin=f,
                                  env={**os.environ, "KEDGE_DIR": self.c.node(2).dir}, capture_output=True, check=True,
                                  timeout=30)
        self.assertEqual(json.loads(done.stdout)["format"], "qcow2")
        rows = self.images()
        self.assertEqual((rows["q"]["digest"], rows["q"]["size"]), (digest_of(qcow2), 5 * MIB))
        self.c.wait_for(lambda: len(self.images()["raw-a"]["nodes"]) == 2, 10, "two nodes hold the first")
        self.c.wait_for(lambda: len(self.images()["q"]["nodes"]) == 3, 10, "all hold the second")
        for name, path in (("raw-a", raw), ("q", qcow2)):
            holders = self.held(digest_of(path))
            self.assertEqual(["n%d" % i for i in holders], self.images()[name]["nodes"])
            for i in holders:
                self.assertEqual(digest_of(self.file(i, digest_of(path))), digest_of(path))
        self.refused(self.c.command(3, "image", "add", "q", raw, check=False), "remove it first")
        self.c.command(3, "image", "rm", "q")
        self.c.command(1, "image", "add", "q", raw) # the same content under two names
        self.c.wait_for(lambda: not self.held(digest_of(qcow2)), KEEP_S + 15, "the old files are gone")
        self.c.command(1, "image", "rm", "raw-a")
        self.c.holds_for(lambda: len(self.held(digest_of(raw))) == 2, KEEP_S + 3, "what the other name needs stays")
        self.c.command(1, "image", "rm", "q")
        self.c.wait_for(lambda: not self.held(digest_of(raw)), KEEP_S + 15, "the files are gone")
        self.refused(self.c.command(1, "image", "rm", "q", check=False), "no image 'q'")

    def test_bad_input(self):
        raw = self.make_raw("b.raw", 2 * MIB)
        qcow2 = self.make_qcow2("b.qcow2", raw)
        size = os.path.getsize(qcow2)
        for left in (100, size // 2, size - 65536):
            cut = self.path("cut.qcow2")
            with open(qcow2, "rb") as f, open(cut, "wb") as g:
                g.write(f.read(left))
            self.refused(self.c.command(1, "image", "add", "bad", cut, check=False), "image bad", "whole")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, self.path("over.qcow2")],
                       check=True, timeout=20)
        self.refused(self.c.command(1, "image", "add", "bad", self.path("over.qcow2"), check=False), "backing file")
        open(self.path("empty"), "wb").close()
        self.refused(self.c.command(1, "image", "add", "bad", self.path("empty"), check=False), "empty")
        self.refused(self.c.command(1, "image", "add", "bad", self.path("nothing"), check=False), "No such file")
        self.refused(self.c.command(1, "image", "add", "../bad", raw, check=False), "a name has")
        self.refused(self.c.command(1, "image", "add", "bad", raw, "--copies", "0", check=False), "--copies")
        self.assertEqual(self.images(), {})
        self.assertEqual(self.left_behind(), [])
        self.assertEqual([self.held(digest_of(p)) for p in (raw, qcow2)], [[], []])

    def test_cut_off(self):
        """The sender is killed, and the agent that receives."""
        for victim in ("sender", "agent"):
            sender = subprocess.Popen([harness.BUILD + "/kedge", "image", "add", "half", "-"], stdin=subprocess.PIPE,
                                      env={**os.environ, "KEDGE_DIR": self.c.node(1).dir}, stderr=subprocess.DEVNULL)
            sender.stdin.write(os.urandom(2 * MIB))
            sender.stdin.flush()
            self.c.wait_for(self.left_behind, 10, "it is being written")
            if victim == "sender":
                sender.kill()
            else:
                self.c.kill(1)
                self.c.start(1)
                sender.stdin.close()
            self.assertNotEqual(sender.wait(timeout=30), 0)
            self.c.wait_for(lambda: not self.left_behind(), 10, "nothing is left behind")
            self.c.wait_formed()
        self.assertEqual(self.images(), {})

    def test_damaged_on_a_holder(self):
        """A copy that rots is not passed on, and is replaced."""
        raw = self.make_raw("r.raw", 3 * MIB, seed=9)
        digest = digest_of(raw)
        self.c.command(1, "image", "add", "rot", raw, "--copies", "3")
        self.c.wait_for(lambda: len(self.images()["rot"]["nodes"]) == 3, 10, "all hold it")
        with open(self.file(2, digest), "r+b") as f:
            f.seek(MIB)
            f.write(b"rot")
        os.unlink(self.file(3, digest))
        self.c.kill(3)
        self.c.start(3) # it looks what it has, and asks one of the others
        self.c.wait_formed()
        self.c.wait_for(lambda: self.held(digest) == [1, 2, 3] and all(digest_of(self.file(i, digest)) == digest
                                                                       for i in (1, 2, 3)), 20, "all are right again")


class Kernels(ImageCase):
    def setUp(self):
        super().setUp()
        self.kernel, self.initrd = self.path("vmlinuz"), self.path("initrd.img")
        shutil.copy(harness.GUEST + "/vmlinuz", self.kernel)
        shutil.copy(harness.GUEST + "/initrd.img", self.initrd)
        self.digests = [digest_of(self.kernel), digest_of(self.initrd)]

    def yaml(self, vm, extra="", run=True):
        return self.c.vm_yaml(vm, extra=extra, run=run).replace(harness.GUEST, self.c.root)

    def create(self, vm, extra=""):
        """A guest whose kernel and initrd are nowhere but in the cluster."""
        self.c.apply(self.c.leader(), self.yaml(vm, extra))
        os.unlink(self.kernel)
        os.unlink(self.initrd)
        return self.c.wait_for(lambda: self.c.runs_on(vm), 60, "%s runs" % vm)

    def delete(self, vm):
        self.c.command(self.c.leader(), "vm", "kill", vm)
        self.c.delete(vm)
        self.c.wait_for(lambda: not any(self.held(d) for d in self.digests), KEEP_S + 20, "its files are gone")

    def test_failover_without_paths(self):
        user_data = "#cloud-config\nhostname: %s\n" % ("x" * 3000)
        with open(self.path("user-data"), "w", encoding="utf-8") as f:
            f.write(user_data)
        owner = self.create("mover", "cloud-init: {user-data: ./user-data}\n")
        os.unlink(self.path("user-data"))
        row = self.c.vm(owner, "mover")
        self.assertEqual((row["kernel"], row["kernel_digest"]), (self.kernel, self.digests[0]))
        self.c.wait_for(lambda: all(len(self.held(d)) == 3 for d in self.digests), 10, "all nodes have them")
        self.check_seed("mover", owner, user_data, row["uuid"])
        qemu = self.c.qemu("mover", owner)
        self.assertIn(self.file(owner, self.digests[0]), qemu.cmdline)
        # the rest is to find its kernel damaged, and to have it from the other one
        other = next(n.number for n in self.c.nodes if n.number != owner)
        with open(self.file(other, self.digests[0]), "r+b") as f:
            f.seek(100000)
            f.write(b"rot")
        self.c.kill_node(owner)
        to = self.c.wait_for(lambda: self.c.runs_on("mover", but=(owner,)), 30, "it runs elsewhere")
        print("    n%d -> n%d, damaged on n%d" % (owner, to, other))
        self.check_seed("mover", to, user_data, row["uuid"])
        self.c.start(owner)
        self.c.wait_formed()
        self.delete("mover")
        self.c.wait_for(lambda: not os.path.exists(self.seed("mover", to)), 5, "the disk for cloud-init is gone with it")

    def test_damaged_where_it_starts(self):
        """All copies but one are damaged while the guest is stopped: wherever it starts, the good one is had."""
        owner = self.create("picky")
        self.c.wait_for(lambda: all(len(self.held(d)) == 3 for d in self.digests), 10, "all nodes have them")
        self.c.command(owner, "vm", "kill", "picky")
        self.c.wait_for(lambda: not self.c.qemus("picky"), 10, "it is stopped")
        good = self.c.leader()
        for i in [n.number for n in self.c.nodes if n.number != good]:
            with open(self.file(i, self.digests[1]), "r+b") as f:
                f.truncate(1000)
        self.c.command(good, "vm", "start", "picky")
        self.c.wait_for(lambda: self.c.runs_on("picky"), 40, "it runs")
        self.delete("picky")

    def test_stopped_without_files(self):
        """A stopped VM may be defined where its files are not yet; what is sent once is not sent again."""
        os.unlink(self.kernel)
        self.c.apply(1, self.yaml("later", run=False))
        self.assertIsNone(self.c.vm(1, "later")["kernel_digest"])
        shutil.copy(harness.GUEST + "/vmlinuz", self.kernel)
        self.assertIn("changed", self.c.apply(1, self.yaml("later", run=False)).stdout)
        self.assertEqual(self.c.vm(1, "later")["kernel_digest"], self.digests[0])
        self.assertIn("unchanged", self.c.apply(2, self.yaml("later", run=False)).stdout)
        os.unlink(self.kernel)
        self.assertIn("unchanged", self.c.apply(2, self.yaml("later", run=False)).stdout)
        self.delete("later")

    def seed(self, vm, i):
        return "%s/run/%s.cidata" % (self.c.node(i).dir, vm)

    def check_seed(self, vm, i, user_data, uuid):
        path = self.seed(vm, i)
        self.assertTrue(any(path in arg for arg in self.c.qemu(vm, i).cmdline), "QEMU has the disk")
        folder = tempfile.mkdtemp(dir=self.c.root)
        subprocess.run(["cmake", "-E", "tar", "xf", path], check=True, cwd=folder, timeout=10) # it reads ISO 9660
        found = {name.lower().split(".")[0]: open(os.path.join(folder, name), encoding="utf-8").read()
                 for name in os.listdir(folder)}
        self.assertEqual(found, {"user-data": user_data, "meta-data": "instance-id: %s\nlocal-hostname: %s\n" % (uuid, vm)})
        label = subprocess.run(["blkid", "-p", "-s", "LABEL", "-o", "value", path], check=True, capture_output=True,
                               text=True, timeout=10).stdout.strip()
        self.assertEqual(label, "cidata")


class Filled(ImageCase):
    """Volumes from images."""

    def tearDown(self):
        for node in self.c.nodes:
            if self.c.agent(node.number) is None:
                self.c.start(node.number)
        self.c.wait_formed()
        i = self.c.leader()
        for row in self.c.kedge(i, "vm", "ls")["vms"]: # of a case that failed
            self.c.delete(row["name"])
        for row in self.c.kedge(i, "volume", "ls")["volumes"]:
            self.c.wait_for(lambda n=row["name"]: self.c.command(i, "delete", "volume", n, check=False).returncode == 0
                            or disks.volume(self.c, i, n) is None, 20, "%s is deleted" % row["name"])
        super().tearDown()

    def add(self, name, size=8 * MIB, qcow2=False, seed=1):
        raw = self.make_raw(name + ".raw", size, seed)
        self.c.command(1, "image", "add", name, self.make_qcow2(name + ".qcow2", raw) if qcow2 else raw)
        return raw

    def whole(self, volume):
        i = self.c.leader()
        self.c.wait_for(lambda: not disks.volume(self.c, i, volume)["filling"] and disks.is_whole(self.c, i, volume), 60,
                        "%s is filled, on both" % volume)
        return disks.volume(self.c, i, volume)

    def check(self, volume, raw, size):
        """The content of both replicas is the image's, byte for byte, and zero behind it."""
        names = [r["node"] for r in disks.volume(self.c, self.c.leader(), volume)["replicas"]]
        paths = [disks.data(self.c, self.c.node(n).number, volume) for n in names]
        with open(raw, "rb") as f:
            wanted = f.read()
        wanted += b"\0" * (size - len(wanted))
        self.assertEqual(len(paths), 2)
        for path in paths:
            with open(path, "rb") as f:
                self.assertTrue(f.read() == wanted, "%s differs from the image" % path)

    def test_from_raw_and_qcow2(self):
        for name, qcow2 in (("raw-i", False), ("qcow2-i", True)):
            raw = self.add(name, qcow2=qcow2, seed=len(name))
            self.c.apply(2, "kind: volume\nname: v-%s\nsize: 12MiB\nreplicas: 2\nimage: %s\n" % (name, name))
            self.assertEqual(self.whole("v-" + name)["image"], name)
            self.check("v-" + name, raw, 12 * MIB)
        text = "kind: volume\nname: v-raw-i\nsize: 12MiB\nreplicas: 2\nimage: %s\n"
        self.assertIn("unchanged", self.c.apply(2, text % "raw-i").stdout)
        self.refused(self.c.apply(2, text % "qcow2-i", check=False), "not made from that image")

    def test_refused(self):
        self.add("large", 8 * MIB)
        before = self.c.kedge(1, "volume", "ls")
        self.refused(self.c.apply(1, "kind: volume\nname: v\nsize: 4MiB\nimage: large\n", check=False), "larger", "8 MiB")
        self.refused(self.c.apply(1, "kind: volume\nname: v\nsize: 4MiB\nimage: none\n", check=False), "no image 'none'")
        self.refused(self.c.apply(1, self.c.vm_yaml("x", extra="disks: [{name: a, size: 4MiB, image: large}]\n"), False),
                     "larger")
        self.assertEqual(self.c.kedge(1, "volume", "ls"), before)
        self.assertIsNone(self.c.vm(1, "x"))

    def fillers(self):
        """qemu-img processes that fill a volume, with the node of each."""
        return [(n.number, p) for n in self.c.nodes for p in processes.below(n.dir) if "convert" in p.argv]

    def slow_apply(self, vm="guest", image="big", size=96 * MIB, before="", disk="root"):
        """A VM whose disk takes a while to fill; returns the raw image, and who fills it."""
        raw = self.add(image, size, seed=5)
        self.c.wait_for(lambda: len(self.images()[image]["nodes"]) == 2, 30, "two nodes hold it")
        yaml = self.c.vm_yaml(vm, extra="disks: [%s{name: %s, size: %d, image: %s}]\n" % (before, disk, size, image))
        applying = threading.Thread(target=self.c.apply, args=(self.c.leader(), yaml)) # it waits for copies, filling does not
        applying.start()
        found = self.c.wait_for(self.fillers, 30, "it is being filled", poll=0.01)[0]
        processes.send(found[1].pid, signal.SIGSTOP)
        applying.join()
        return raw, found

    def finish(self, vm, raw):
        """It is filled, and only then does the guest start; nothing but the guest's log is other than the image."""
        self.c.wait_for(lambda: not disks.volume(self.c, self.c.leader(), vm + ".root")["filling"], 60, "it is filled")
        i = self.c.wait_for(lambda: self.c.runs_on(vm), 60, "it runs")
        self.c.command(i, "vm", "kill", vm)
        self.c.delete(vm)
        self.whole(vm + ".root")
        primary = self.c.node(disks.volume(self.c, self.c.leader(), vm + ".root")["primary"]).number
        skip = guest_log.RING * guest_log.BLOCK
        with open(raw, "rb") as f, open(disks.data(self.c, primary, vm + ".root"), "rb") as g:
            f.seek(skip)
            g.seek(skip)
            self.assertTrue(f.read() == g.read(), "the volume differs from the image")
        return i

    def test_waits_and_says_so(self):
        raw, (_, filler) = self.slow_apply()
        leader = self.c.leader()
        row = self.c.wait_for(lambda: [r for r in [self.c.vm(leader, "guest")] if "%" in r["reason"]], 10,
                              "the reason says how far it is")[0]
        self.assertEqual(row["state"], "waiting")
        self.assertIn("being filled from image 'big'", row["reason"])
        self.assertEqual(self.c.qemus("guest"), [])
        self.refused(self.c.command(leader, "image", "rm", "big", check=False), "being filled")
        processes.send(filler.pid, signal.SIGCONT)
        self.finish("guest", raw)

    def test_filling_node_dies(self):
        raw, (node, filler) = self.slow_apply()
        leader = self.c.leader()
        self.c.wait_for(lambda: len(disks.in_sync(self.c, leader, "guest.root")) == 2, 30, "both replicas are in sync")
        self.c.kill_node(node)
        other = self.c.wait_for(lambda: [n for n, _ in self.fillers() if n != node], 40, "another one fills it", poll=0.01)
        print("    n%d -> n%s" % (node, other))
        self.c.wait_for(lambda: self.c.runs_on("guest", but=(node,)), 60, "it runs elsewhere")
        self.c.start(node)
        self.c.wait_formed()
        self.finish("guest", raw)

    @harness.long_run("takes half a minute; another node dies while it fills a disk above")
    def test_a_disk_is_added_and_its_node_dies(self):
        """It is filled elsewhere, so that the guest can run there: nobody waits for the dead node."""
        root = "{name: root, size: 16MiB}"
        self.c.apply(self.c.leader(), self.c.vm_yaml("grown", extra="disks: [%s]\n" % root))
        self.c.wait_for(lambda: self.c.runs_on("grown"), 60, "it runs")
        self.whole("grown.root")
        _, (node, filler) = self.slow_apply("grown", "more", before=root + ", ", disk="data")
        leader = self.c.leader()
        self.c.wait_for(lambda: len(disks.in_sync(self.c, leader, "grown.data")) == 2, 30, "both replicas are in sync")
        owner = self.c.wait_for(lambda: self.c.runs_on("grown"), 60, "it runs")
        self.assertEqual(owner, node, "the disks of a VM are led together")
        self.c.kill_node(node)
        to = self.c.wait_for(lambda: self.c.runs_on("grown", but=(node,)), 60, "it runs elsewhere, with both")
        self.assertFalse(disks.volume(self.c, to, "grown.data")["filling"])
        del filler

    def test_engine_and_agent_die(self):
        """Without the engine filling fails, and begins anew; what fills does not outlive its agent."""
        raw, (node, filler) = self.slow_apply()
        self.c.kill(node, "kedge-vol")
        processes.send(filler.pid, signal.SIGCONT)
        node, again = self.c.wait_for(lambda: [(n, p) for n, p in self.fillers() if p.pid != filler.pid], 30,
                                      "it is being filled again", poll=0.01)[0]
        processes.send(again.pid, signal.SIGSTOP)
        self.c.kill(node)
        self.c.wait_for(lambda: processes.state(again.pid) in processes.GONE, 5, "the filler has ended")
        self.c.start(node)
        self.c.wait_formed()
        self.finish("guest", raw)


@harness.long_run("makes and boots a real Debian")
class Debian(ImageCase):
    """Its own boot loader, kernel and cloud-init, and its root on a volume."""

    def text(self, i):
        with open("%s/console/debian.log" % self.c.node(i).dir, encoding="utf-8", errors="replace") as f:
            return f.read()

    def cpu_s(self, i):
        with open("/proc/%d/stat" % self.c.qemu("debian", i).pid, encoding="utf-8") as f:
            return sum(int(n) for n in f.read().rpartition(")")[2].split()[11:13]) / os.sysconf("SC_CLK_TCK")

    def test_boots_and_its_node_dies(self):
        image = harness.ROOT + "/build/debian.qcow2"
        subprocess.run([harness.ROOT + "/deploy/debian-image.sh", "--out", image], check=True, timeout=1800)
        self.c.command(1, "image", "add", "debian", image, timeout=200)
        user_data = harness.ROOT + "/deploy/guest/user-data"
        self.c.apply(1, "kind: vm\nname: debian\nvcpus: 1\nmemory: 512MiB\nrun: true\ncloud-init: {user-data: %s}\n"
                        "disks: [{name: root, size: 2GiB, replicas: 2, image: debian}]\n" % user_data)
        owner = self.c.wait_for(lambda: self.c.runs_on("debian"), 900, "it boots, and cloud-init starts its program")
        print("    the first boot took %d s of CPU" % self.cpu_s(owner))
        self.c.wait_for(lambda: "cloud-init of debian has run, its root has  2.0GB" in self.text(owner), 60,
                        "it has its name, and its root is as large as the volume")
        self.c.wait_for(lambda: disks.is_whole(self.c, self.c.leader(), "debian.root"), 60, "both replicas are in sync")
        self.c.wait_for(lambda: disks.last_written(self.c, "debian", owner) > 2, 60, "it writes")
        self.c.kill_node(owner)
        to = self.c.wait_for(lambda: self.c.runs_on("debian", but=(owner,)), 900, "it boots elsewhere")
        print("    the second boot took %d s of CPU" % self.cpu_s(to))
        told = [t for i in (owner, to) for t in disks.told(self.c, "debian", i)]
        self.assertGreater(guest_log.check_found(told), 2)
        self.assertNotIn("cloud-init of", self.text(to), "for cloud-init it is the same instance")


if __name__ == "__main__":
    harness.main()
