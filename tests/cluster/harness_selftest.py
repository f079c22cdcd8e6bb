#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The harness tested by itself, without Kedge: above all, that the witness for P1 sees what it must see."""
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

import disks  # noqa: F401  makes guest_log known
import guest_log
import harness
import processes
import witness
from harness import Cluster

SLEEPER = "import time; time.sleep(60)"


def fake(node, program, *args):
    """A process that looks from outside like @program of @node; argv[0] is free to choose."""
    argv = [program, "-c", SLEEPER, *args, node.dir + "/run/x"]
    p = subprocess.Popen(argv, executable=sys.executable, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 5
    while node.dir not in str(processes.look_at(p.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return p


def fake_qemu(node, vm):
    return fake(node, "qemu-system-x86_64", "-name", "guest=%s,debug-threads=on" % vm)


def write_line(node, vm, count, boot="0123abcd"):
    os.makedirs(node.dir + "/console", exist_ok=True)
    with open("%s/console/%s.log" % (node.dir, vm), "a", encoding="utf-8") as f:
        f.write("kedge-guest boot=%s count=%d uptime=1.50\r\n" % (boot, count))


class Bare(unittest.TestCase):
    """Cases with directories and nothing in them."""

    namespaces = False

    def setUp(self):
        self.c = Cluster(2, form=False, namespaces=self.namespaces, name="selftest")
        self.started = []
        for node in self.c.nodes:
            os.makedirs(node.dir)

    def tearDown(self):
        for p in self.started:
            p.kill()
            p.wait()
        self.c.close()

    def run_fake(self, i, vm="x"):
        p = fake_qemu(self.c.node(i), vm)
        self.started.append(p)
        return p

    def sampled(self):
        """Let the witness look some times."""
        target = self.c.witness.samples + 10
        self.c.wait_for(lambda: self.c.witness.samples >= target, 5, "the witness samples")


class Processes(Bare):
    def test_finds_qemus(self):
        p = self.run_fake(1)
        self.started.append(fake(self.c.node(1), "qemu-system-x86_64", "-machine", "none"))  # a capability probe
        found = self.c.qemus("x")
        self.assertEqual([(q.pid, q.node, q.stopped) for q in found], [(p.pid, "n1", False)])
        self.assertEqual(self.c.qemus("y"), [])
        p.send_signal(signal.SIGSTOP)
        self.c.wait_for(lambda: self.c.qemu("x", 1).stopped, 5, "stopped")
        self.assertTrue(processes.threads_stopped(p.pid))

    def test_kill_node_kills_one_node(self):
        first, second = self.run_fake(1), self.run_fake(2)
        self.started.append(fake(self.c.node(1), "kedge-guard"))
        self.assertIsNotNone(self.c.guard(1))
        self.c.kill_node(1)
        self.assertIsNotNone(first.wait(5))
        self.assertIsNone(self.c.guard(1))
        self.assertIsNone(second.poll())

    def test_close_leaves_nothing(self):
        p = self.run_fake(1)
        root = self.c.root
        self.c.close()
        self.assertIsNotNone(p.wait(5))
        self.assertFalse(os.path.exists(root))

    def test_sweep_removes_what_a_killed_test_left(self):
        script = ("import sys, time; sys.path.insert(0, %r); import harness, harness_selftest as t; "
                  "c = harness.Cluster(1, form=False, namespaces=True); "
                  "t.fake_qemu(c.node(1), 'x'); print(c.root, flush=True); time.sleep(60)" % os.path.dirname(__file__))
        run = "%d0" % os.getpid()
        p = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "KEDGE_TEST_RUN": run},
                             stdout=subprocess.PIPE, text=True)
        root = p.stdout.readline().strip()
        p.kill()
        p.wait()
        p.stdout.close()
        self.assertEqual(len(processes.below(root)), 1)
        harness.sweep(run)
        self.assertEqual(processes.below(root), [])
        self.assertFalse(os.path.exists(root))
        self.assertEqual([n for n in os.listdir("/run/netns") if run in n], [])


    def test_a_process_that_ends_does_not_run(self):
        """proc(5) shows a stopped process as R from SIGKILL until its memory is freed; no code of its own runs."""
        hold = "b = bytearray(300 << 20); print(len(b), flush=True); import time; time.sleep(60)"
        for _ in range(5):
            p = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
            self.started.append(p)
            p.stdout.readline()
            p.stdout.close()
            p.send_signal(signal.SIGSTOP)
            self.c.wait_for(lambda pid=p.pid: processes.state(pid) == "T", 5, "stopped")
            p.kill()
            seen = "T"
            while seen[-1] not in "ZX":
                seen += processes.state(p.pid)
                if seen[-1] not in "TZX":
                    time.sleep(witness.CONFIRM_S)
                    self.assertIn(processes.state(p.pid), processes.GONE)


class WitnessControls(Bare):
    """Each thing that the witness watches is done wrong once."""

    def test_sees_two_running(self):
        self.run_fake(1)
        self.run_fake(2)
        self.c.wait_for(lambda: self.c.witness.violations, 5, "the witness sees it")
        self.assertRaises(AssertionError, self.c.witness.check)

    def test_bears_one_frozen_and_one_running(self):
        first = self.run_fake(1)
        first.send_signal(signal.SIGSTOP)
        self.c.wait_for(lambda: self.c.qemu("x", 1).stopped, 5, "stopped")
        self.run_fake(2)
        self.sampled()
        self.c.witness.check()
        first.send_signal(signal.SIGCONT)
        self.c.wait_for(lambda: self.c.witness.violations, 5, "the witness sees the thaw")

    def test_bears_two_vms(self):
        self.run_fake(1, "x")
        self.run_fake(2, "y")
        self.sampled()
        self.c.witness.check()

    def test_sees_two_consoles_grow(self):
        for count in range(6):
            write_line(self.c.node(1), "x", count)
            write_line(self.c.node(2), "x", count)
            time.sleep(0.05)
        self.c.wait_for(lambda: self.c.witness.violations, 2, "the witness sees it")

    def test_bears_one_console_after_the_other(self):
        for i in (1, 2):
            for count in range(6):
                write_line(self.c.node(i), "x", count)
                time.sleep(0.05)
            time.sleep(0.3)
        self.sampled()
        self.c.witness.check()

    def test_a_witness_that_does_not_look_is_a_failure(self):
        idle = harness.Witness({})
        self.assertRaises(AssertionError, idle.check)

    def test_history_has_each_change(self):
        p = self.run_fake(1)
        self.sampled()
        p.send_signal(signal.SIGSTOP)
        self.sampled()
        p.kill()
        p.wait()
        self.sampled()
        self.assertEqual([e[4] for e in self.c.witness.events("x")], ["running", "stopped", "gone"])


class Pieces(Bare):
    def test_console_counts_complete_lines_only(self):
        write_line(self.c.node(1), "x", 1)
        write_line(self.c.node(1), "x", 2)
        with open(self.c.node(1).dir + "/console/x.log", "a", encoding="utf-8") as f:
            f.write("[ 1.0] noise\nkedge-guest boot=0123abcd count=3")
        self.assertEqual([line.count for line in self.c.console("x", 1)], [1, 2])
        self.assertEqual(self.c.console("x", 2), [])

    def test_set_option(self):
        path = self.c.root + "/a.conf"
        with open(path, "w", encoding="utf-8") as f:
            f.write("# comment\n[node]\nname = n1\n[hypervisor]\n; accel = auto\nuri = x\n[log]\n")
        harness.set_option(path, "hypervisor", "accel", "tcg")
        harness.set_option(path, "log", "level", "debug")
        harness.set_option(path, "new", "key", "1")
        with open(path, encoding="utf-8") as f:
            self.assertEqual(f.read(), "# comment\n[node]\nname = n1\n[hypervisor]\naccel = tcg\nuri = x\n[log]\n"
                                       "level = debug\n[new]\nkey = 1\n")

    def test_wait_for_fails_with_what_it_waited_for(self):
        with self.assertRaisesRegex(AssertionError, "the moon"):
            self.c.wait_for(lambda: False, 0.1, "the moon")


class Found(unittest.TestCase):
    """What a guest with its log in a file told, and found when it booted again."""

    @staticmethod
    def check(*lines):
        return guest_log.check_found([guest_log.Told(*line.split()) for line in lines])

    def test_a_log_that_goes_on(self):
        self.assertEqual(self.check("a found 0", "a wrote 1", "a wrote 2", "b found 2", "b wrote 3"), 3)
        self.assertEqual(self.check("b found 3", "b wrote 4", "a found 0", "a wrote 1", "a wrote 2"), 3) # 3 was not told

    def test_a_line_is_lost(self):
        for lines in (("a found 0", "a wrote 1", "a wrote 2", "b found 1"),
                      ("a found 0", "a wrote 1", "b found 0", "b wrote 1"),
                      ("a found 0", "a wrote 1", "a failed 2")):
            with self.assertRaises(guest_log.LogError, msg=lines):
                self.check(*lines)


class Network(Bare):
    namespaces = True

    def reaches(self, i, other):
        argv = self.c.node(i).inside(["ping", "-c", "1", "-W", "1", self.c.node(other).host])
        if shutil.which("ping") is None:
            argv = self.c.node(i).inside([sys.executable, "-c", "import socket; s = socket.socket(); s.settimeout(1)\n"
                                          "try: s.connect((%r, 9))\nexcept ConnectionRefusedError: pass"
                                          % self.c.node(other).host])
        return subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def test_partition_and_heal(self):
        self.c.wait_for(lambda: self.reaches(1, 2), 10, "n1 reaches n2")
        self.c.partition(1)
        self.assertFalse(self.reaches(1, 2))
        self.assertFalse(self.reaches(2, 1))
        self.assertTrue(self.reaches(2, 2))
        self.c.heal(1)
        self.assertTrue(self.reaches(1, 2))

    def test_close_removes_the_namespaces(self):
        self.c.close()
        self.assertEqual([n for n in os.listdir("/run/netns") if n.startswith(self.c.tag)], [])


if __name__ == "__main__":
    harness.main()
