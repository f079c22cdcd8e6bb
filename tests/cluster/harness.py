#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real clusters on one machine: real processes, libvirt, QEMU and guests, and the faults to give them.

    with Cluster(3) as c:
        c.apply(1, c.vm_yaml("till"))
        c.wait_for(lambda: c.runs_on("till"), 60, "till runs")

Nodes are numbered from 1 and called n1, n2, ... They listen on 127.0.0.N, or, with namespaces=True, live in network
namespaces of their own at 10.77.0.N, where partition() and heal() work.

usage: tests/cluster/harness.py --sweep RUN     removes what an interrupted test run left behind
"""
import atexit
import glob
import json as json_module
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

import processes
from witness import Witness

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("KEDGE_BUILD", os.path.join(ROOT, "build", "dev"))
GUEST = os.path.join(ROOT, "build", "guest")
LOGS = os.path.join(ROOT, "build", "test-logs")
RUN = os.environ.get("KEDGE_TEST_RUN", str(os.getpid()))
PREFIX = "kt-"
PORT = 7443
POLL_S = 0.05
COMMAND_S = 20

CONSOLE_LINE = re.compile(r"^kedge-guest boot=([0-9a-f]{8}) count=(\d+) uptime=([0-9.]+)\r?\n", re.MULTILINE)
live_clusters = []
LONG = bool(os.environ.get("KEDGE_TEST_LONG"))


def long_run(why):
    """For a case or a class that the usual run has no time for; `tests/run.sh --long` and KEDGE_TEST_LONG=1 have."""
    return unittest.skipUnless(LONG, why + "; KEDGE_TEST_LONG=1 runs it")


class KedgeError(AssertionError):
    """A `kedge` command that failed."""

    def __init__(self, argv, done):
        super().__init__("%s: exit code %d: %s" % (" ".join(argv), done.returncode, done.stderr.strip()))
        self.code = done.returncode
        self.stderr = done.stderr


class Line:
    """One line of a guest's console."""

    def __init__(self, boot, count, uptime):
        self.boot, self.count, self.uptime = boot, int(count), float(uptime)

    def __repr__(self):
        return "boot=%s count=%d" % (self.boot, self.count)


class Qemu:
    """A QEMU process that runs a guest, as seen at one instant."""

    def __init__(self, process, node):
        self.pid, self.node, self.cmdline = process.pid, node, process.argv
        self.state = processes.state(process.pid)

    @property
    def stopped(self):
        return self.state in processes.STOPPED

    def __repr__(self):
        return "%s/%d:%s" % (self.node, self.pid, self.state)


class Node:
    def __init__(self, number, path, host, port, namespace):
        self.number, self.name, self.dir = number, "n%d" % number, path
        self.host, self.port, self.namespace = host, port, namespace
        self.log = path + ".log"
        self.kedged = None
        self.bin = BUILD  # where its kedged is started from, and finds the others beside it

    @property
    def listen(self):
        return "%s:%d" % (self.host, self.port)

    def inside(self, argv):
        """The command as it is started in this node's network."""
        return ["nsenter", "--net=/run/netns/" + self.namespace, *argv] if self.namespace else list(argv)


class Cluster:
    def __init__(self, n=3, namespaces=False, form=True, name="cluster", spare=0, own_disks=False):
        """@n nodes that form a cluster, and @spare more that are only named."""
        self.name = name
        self.size = n
        self.tokens = []    # the ones that were used
        self.failed = False
        self.began = time.monotonic()
        self.root = self._make_root()
        self.tag = os.path.basename(self.root)
        self.hub = self.tag + "-hub" if namespaces else None
        self.port = PORT if namespaces else free_port(n + spare)
        self.nodes = [self._make_node(i, namespaces) for i in range(1, n + spare + 1)]
        self.witness = Witness({node.name: node.dir for node in self.nodes})
        live_clusters.append(self)
        try:
            build_guest()
            if namespaces:
                self._make_network()
            self.witness.start()
            for node in self.nodes if own_disks else []:
                self.own_disk(node.number)
            if form:
                self.form()
        except BaseException:
            self.failed = True
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.failed = self.failed or kind is not None
        self.close()

    # --- life ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _make_root():
        """Short, because a Unix socket's path has at most 107 bytes; with the run's number, for --sweep."""
        for i in range(1000):
            path = "/tmp/%s%s-%d-%d" % (PREFIX, RUN, os.getpid(), i)
            try:
                os.mkdir(path, 0o700)
                return path
            except FileExistsError:
                continue
        raise RuntimeError("no free name below /tmp")

    def _make_node(self, i, namespaces):
        host = "10.77.0.%d" % i if namespaces else "127.0.0.%d" % i
        return Node(i, "%s/n%d" % (self.root, i), host, self.port, "%s-n%d" % (self.tag, i) if namespaces else None)

    def own_disk(self, i, size="300M"):
        """Before node @i is made: its replicas lie on a file system of their own, which power_cut() mounts anew."""
        node = self.node(i)
        image, path = node.dir + ".img", node.dir + "/volumes"
        os.makedirs(path)
        subprocess.run(["truncate", "-s", size, image], check=True)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, path], check=True)

    def power_cut(self, i):
        """All processes are gone, and the file system is mounted anew: what was only cached counts as lost (V25)."""
        node = self.node(i)
        self.kill_node(i)
        unmount(node.dir + "/volumes")
        subprocess.run(["mount", "-o", "loop", node.dir + ".img", node.dir + "/volumes"], check=True)

    def form(self):
        """init on the first node, token and join on the others, all started."""
        self.init(1)
        self.start(1)
        self.wait_for(lambda: self.status(1)["quorum"], 30, "the first node has a quorum")
        for i in range(2, self.size + 1):
            self.tokens.append(self.token(1))
            self.join(i, self.tokens[-1])
            self.start(i)
        self.wait_formed()

    def wait_formed(self, timeout=60):
        self.wait_for(lambda: self.is_formed(), timeout, "%d voters are up, with a quorum" % self.size)

    def is_formed(self, i=1):
        status = self.status(i)
        up = [n for n in status["nodes"] if n["state"] == "up" and n["role"] == "voter"]
        return status["quorum"] and len(up) == self.size

    def init(self, i):
        node = self.node(i)
        self.command(i, "init", "--dir", node.dir, "--name", node.name, "--listen", node.listen)
        self.configure(i)

    def token(self, i, *args):
        return self.command(i, "token", *args).stdout.strip()

    def join(self, i, token, check=True):
        node = self.node(i)
        done = self.command(i, "join", "--dir", node.dir, "--name", node.name, "--listen", node.listen, token,
                            check=check)
        if done.returncode == 0:
            self.configure(i)
        return done

    def configure(self, i):
        set_option(os.path.join(self.node(i).dir, "kedge.conf"), "hypervisor", "accel", "tcg")

    def start(self, i):
        """Start kedged on node @i; nothing waits for it."""
        node = self.node(i)
        argv = node.inside([os.path.join(node.bin, "kedged"), "--config", os.path.join(node.dir, "kedge.conf")])
        with open(node.log, "ab") as log:
            log.write(b"--- %s: kedged is started at %.2f s\n" % (node.name.encode(), time.monotonic() - self.began))
            log.flush()
            node.kedged = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                           start_new_session=True)

    def close(self):
        """End every process, remove every namespace and file; keep the logs of a failure."""
        if self not in live_clusters:
            return
        live_clusters.remove(self)
        self.witness.stop()
        try:
            if self.failed:
                self._keep_logs()
        finally:  # also when nobody reads any more what is printed
            self._remove()

    def _remove(self):
        remove_processes(self.root + "/")
        for node in self.nodes:
            if node.kedged:
                node.kedged.wait()
        remove_namespaces(self.tag + "-")
        remove_mounts(self.root + "/")
        shutil.rmtree(self.root, ignore_errors=True)

    def _keep_logs(self):
        kept = os.path.join(LOGS, "%s-%d" % (self.name, os.getpid()))
        os.makedirs(kept, exist_ok=True)
        for node in self.nodes:
            for path in [node.log, node.dir + "/kedge.conf", *glob.glob(node.dir + "/console/*.log"),
                         *glob.glob(node.dir + "/log/*"), *glob.glob(node.dir + "/libvirt/log/qemu/*.log")]:
                if os.path.isfile(path):
                    shutil.copy(path, os.path.join(kept, node.name + "-" + os.path.basename(path)))
        with open(os.path.join(kept, "history.txt"), "w", encoding="utf-8") as f:
            for at, vm, node, pid, state in self.witness.history:
                f.write("%8.2f %s %s/%d %s\n" % (at - self.began, vm, node, pid, state))
        print("    logs are kept in %s" % os.path.relpath(kept, ROOT), flush=True)

    # --- commands -----------------------------------------------------------------------------------------------

    def node(self, i):
        """By number or by name."""
        return next(n for n in self.nodes if i in (n.number, n.name))

    def command(self, i, *args, check=True, timeout=COMMAND_S):
        """Run `kedge ARGS` on node @i; returns the CompletedProcess."""
        node = self.node(i)
        argv = node.inside([os.path.join(BUILD, "kedge"), *args])
        done = subprocess.run(argv, env={**os.environ, "KEDGE_DIR": node.dir}, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, check=False, cwd="/")
        if check and done.returncode != 0:
            raise KedgeError(["kedge", *args], done)
        return done

    def kedge(self, i, *args, json=True, check=True, timeout=COMMAND_S):
        """Like command(), but gives the parsed answer; with json=False, what was printed."""
        if not json:
            return self.command(i, *args, check=check, timeout=timeout).stdout
        done = self.command(i, *args, "--json", check=check, timeout=timeout)
        return json_module.loads(done.stdout) if done.returncode == 0 else None

    def status(self, i=1, stale=False):
        return self.kedge(i, "status", *(["--stale"] if stale else []))

    def vm(self, i, name):
        """The row of `vm ls`, or None."""
        rows = self.kedge(i, "vm", "ls")["vms"]
        return next((row for row in rows if row["name"] == name), None)

    def leader(self):
        """The number of the leader, as the first node says that knows one; None without."""
        return self.leader_of(n.number for n in self.nodes)

    def leader_of(self, numbers):
        for i in numbers:
            if self.agent(i) is None:
                continue
            try:
                name = self.status(i)["leader"]
            except (KedgeError, subprocess.TimeoutExpired, ValueError):
                continue
            if name:
                return self.node(name).number
        return None

    def apply(self, i, text, check=True, *args):
        path = os.path.join(self.root, "apply-%d-%d.yaml" % (i, time.monotonic_ns()))
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return self.command(i, "apply", "-f", path, *args, check=check)

    @staticmethod
    def vm_yaml(name, run=True, cmdline="console=ttyS0 quiet", memory="128MiB", extra=""):
        return ("---\nkind: vm\nname: %s\nvcpus: 1\nmemory: %s\nrun: %s\n"
                "boot: {kernel: %s/vmlinuz, initrd: %s/initrd.img, cmdline: \"%s\"}\n%s"
                % (name, memory, "true" if run else "false", GUEST, GUEST, cmdline, extra))

    # --- processes ----------------------------------------------------------------------------------------------

    def agent(self, i):
        """The pid of node @i's kedged, or None."""
        return self._pid(i, "kedged")

    def guard(self, i):
        return self._pid(i, "kedge-guard")

    def _pid(self, i, program):
        found = processes.below(self.node(i).dir, program)
        found = [p for p in found if processes.state(p.pid) not in processes.GONE]
        return found[0].pid if found else None

    def signal(self, i, program, number):
        """Signal kedged or kedge-guard of node @i; returns the pid."""
        pid = self._pid(i, program)
        if pid is None:
            raise AssertionError("%s does not run on n%d" % (program, i))
        processes.send(pid, number)
        return pid

    def kill(self, i, program="kedged"):
        pid = self.signal(i, program, signal.SIGKILL)
        if program == "kedged" and self.node(i).kedged:
            self.node(i).kedged.wait()
        return pid

    def stop(self, i, program="kedged"):
        return self.signal(i, program, signal.SIGSTOP)

    def cont(self, i, program="kedged"):
        return self.signal(i, program, signal.SIGCONT)

    def restart_with(self, section, key, value):
        """Every agent is killed and starts again with that in its configuration."""
        for node in self.nodes:
            set_option(os.path.join(node.dir, "kedge.conf"), section, key, value)
            self.kill(node.number)
            self.start(node.number)

    def kill_node(self, i):
        """The node loses power: every process of it is gone at once."""
        node = self.node(i)
        processes.kill_below(node.dir)
        if node.kedged:
            node.kedged.wait()

    def qemus(self, vm):
        """Every QEMU of @vm that has not ended."""
        found = []
        for p in processes.below(self.root):
            if p.guest == vm:
                node = next((n.name for n in self.nodes if p.is_below(n.dir)), "?")
                found.append(Qemu(p, node))
        return [q for q in found if q.state not in processes.GONE]

    def qemu(self, vm, i):
        return next((q for q in self.qemus(vm) if q.node == self.node(i).name), None)

    # --- guests -------------------------------------------------------------------------------------------------

    def console(self, vm, i):
        """The counted lines of @vm's console on node @i, complete ones only."""
        try:
            with open("%s/console/%s.log" % (self.node(i).dir, vm), encoding="utf-8", errors="replace", newline="") as f:
                return [Line(*m.groups()) for m in CONSOLE_LINE.finditer(f.read())]
        except FileNotFoundError:
            return []

    def snapshot(self, vm, i):
        """What must stay the same while a guest notices nothing: (pid, boot id), and its count."""
        line = self.console(vm, i)[-1]
        qemu = self.qemu(vm, i)
        return (qemu.pid if qemu else None, line.boot), line.count

    def runs_on(self, vm, but=()):
        """The number of the node where the guest is counting right now, with exactly one QEMU running; else None."""
        running = [q for q in self.qemus(vm) if not q.stopped]
        if len(running) != 1:
            return None
        i = self.node(running[0].node).number
        if i in but:
            return None
        before = len(self.console(vm, i))
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            if len(self.console(vm, i)) > before:
                return i
            time.sleep(POLL_S)
        return None

    def create(self, vm, **kwargs):
        """Apply a VM and wait for its counter; returns the node's number."""
        self.apply(self.leader() or 1, self.vm_yaml(vm, **kwargs))
        return self.wait_for(lambda: self.runs_on(vm), 60, "%s runs" % vm)

    def delete(self, vm):
        i = self.leader() or 1
        self.command(i, "delete", "vm", vm)
        self.wait_for(lambda: not self.qemus(vm), 30, "%s has no QEMU any more" % vm)

    # --- network ------------------------------------------------------------------------------------------------

    def _make_network(self):
        ip("netns", "add", self.hub)
        ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
        ip("-n", self.hub, "link", "set", "br0", "up")
        for node in self.nodes:
            port = "p%d" % node.number
            ip("netns", "add", node.namespace)
            ip("-n", self.hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", node.namespace)
            ip("-n", self.hub, "link", "set", port, "master", "br0", "up")
            ip("-n", node.namespace, "addr", "add", node.host + "/24", "dev", "eth0")
            ip("-n", node.namespace, "link", "set", "eth0", "up")
            ip("-n", node.namespace, "link", "set", "lo", "up")

    def partition(self, i, ways=("input", "output")):
        """Nothing goes in or out of node @i any more, or only one of the two."""
        chains = "".join(" chain %s { type filter hook %s priority 0; policy drop; %s lo accept; }\n"
                         % (way, way, {"input": "iif", "output": "oif"}[way]) for way in ways)
        self._nft(i, "table inet kedge_test {\n%s}\n" % chains)

    def heal(self, i):
        self._nft(i, "delete table inet kedge_test\n")

    def _nft(self, i, rules):
        subprocess.run(self.node(i).inside(["nft", "-f", "-"]), input=rules, text=True, check=True)

    # --- waiting ------------------------------------------------------------------------------------------------

    def wait_for(self, condition, timeout, what, poll=POLL_S):
        """Poll @condition until it is true and return its value; at the deadline fail with everything known."""
        deadline = time.monotonic() + timeout
        last = None
        while True:
            try:
                last = condition()
                if last:
                    return last
            except (KedgeError, subprocess.TimeoutExpired, ValueError, LookupError, AttributeError) as e:
                last = e
            if time.monotonic() > deadline:
                raise AssertionError("not within %g s: %s (last: %s)\n%s" % (timeout, what, last, self.describe()))
            time.sleep(poll)

    def holds_for(self, condition, seconds, what):
        """Fail as soon as @condition is not true within @seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not condition():
                raise AssertionError("does not hold: %s\n%s" % (what, self.describe()))
            time.sleep(POLL_S)

    def describe(self):
        """What a human wants to see when a test failed."""
        lines = []
        for node in self.nodes:
            lines.append("--- %s: kedged %s, guard %s" % (node.name, self.agent(node.number), self.guard(node.number)))
            try:
                done = self.command(node.number, "status", "--stale", check=False, timeout=5)
                lines += (done.stdout + done.stderr).splitlines()[:20]
            except (OSError, subprocess.TimeoutExpired) as e:
                lines.append("status: %s" % e)
            lines += ["%s.log: %s" % (node.name, text) for text in tail(node.log, 12)]
        lines += ["QEMU: %s %s" % (p, processes.state(p.pid)) for p in processes.below(self.root) if p.guest]
        return "\n".join("    " + line for line in lines)


# --- pieces ------------------------------------------------------------------------------------------------------

def build_guest():
    subprocess.run([os.path.join(ROOT, "deploy/guest/build.sh"), GUEST], stdout=subprocess.DEVNULL, check=True)


def free_port(n):
    """One port that is free on 127.0.0.1 to 127.0.0.n."""
    for port in range(PORT, PORT + 2000, 7):
        sockets = []
        try:
            for i in range(1, n + 1):
                s = socket.socket()
                sockets.append(s)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("127.0.0.%d" % i, port))
                s.listen(1)
            return port
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    raise RuntimeError("no free port")


def set_option(path, section, key, value):
    """Set one option of an INI file, keeping its comments."""
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines()
    header = "[%s]" % section
    if header not in lines:
        lines.append(header)
    at = lines.index(header) + 1
    end = next((i for i in range(at, len(lines)) if lines[i].startswith("[")), len(lines))
    old = next((i for i in range(at, end) if re.match(r"[;#]?\s*%s\s*=" % re.escape(key), lines[i])), None)
    if old is None:
        lines.insert(at, "%s = %s" % (key, value))
    else:
        lines[old] = "%s = %s" % (key, value)
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


def tail(path, n):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read().splitlines()[-n:]
    except OSError:
        return []


def unmount(path):
    """A process that was just killed may hold it a moment longer."""
    for _ in range(100):
        if subprocess.run(["umount", path], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
        time.sleep(POLL_S)
    raise AssertionError("%s cannot be unmounted" % path)


def ip(*args):
    subprocess.run(["ip", *args], check=True)


def remove_processes(prefix):
    """@prefix: the beginning of a path, such as "/tmp/kt-1-"."""
    mine = processes.own_line()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = [p for p in map(processes.look_at, processes.pids())
                 if p and p.pid not in mine and any(prefix in arg for arg in p.argv)]
        if not found:
            return
        for p in found:
            processes.send(p.pid, signal.SIGKILL)
        time.sleep(0.02)


def remove_namespaces(prefix):
    try:
        names = os.listdir("/run/netns")
    except FileNotFoundError:
        return
    for name in names:
        if name.startswith(prefix):
            subprocess.run(["ip", "netns", "del", name], check=False)


def remove_mounts(prefix):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        points = [line.split()[4] for line in f]
    for point in reversed(points):
        if point.startswith(prefix):
            subprocess.run(["umount", "--lazy", point], check=False)


def sweep(run):
    """Remove everything that the tests of @run made, wherever they were interrupted."""
    prefix = "%s%s-" % (PREFIX, run)
    remove_processes("/tmp/" + prefix)
    remove_namespaces(prefix)
    remove_mounts("/tmp/" + prefix)
    for path in glob.glob("/tmp/%s*" % prefix):
        shutil.rmtree(path, ignore_errors=True)


@atexit.register
def close_all():
    for cluster in list(live_clusters):
        cluster.failed = True
        cluster.close()


# --- running ------------------------------------------------------------------------------------------------------

class ClusterCase(unittest.TestCase):
    """Cases that share one cluster; P1 is checked after each of them."""

    nodes = 3
    spare = 0
    namespaces = False
    own_disks = False
    cluster = None

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls.nodes, namespaces=cls.namespaces, name=cls.__name__, spare=cls.spare,
                              own_disks=cls.own_disks)

    @classmethod
    def tearDownClass(cls):
        if cls.cluster:
            cls.cluster.close()

    def setUp(self):
        self.c = self.cluster

    def tearDown(self):
        self.c.witness.check()


class Result(unittest.TestResult):
    """One line per case, with its time; the counts at the end."""

    def __init__(self):
        super().__init__()
        self.passed = self.failed_cases = 0
        self._began = time.monotonic()

    def startTest(self, test):
        super().startTest(test)
        self._began = time.monotonic()
        print("%s ..." % name_of(test), flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1
        self._line("ok", test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._fail(test, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self._fail(test, self.errors[-1][1])

    def _fail(self, test, text):
        self.failed_cases += 1
        self._line("FAILED", test)
        print("\n".join("    " + line for line in text.splitlines()), flush=True)
        for cluster in live_clusters:
            cluster.failed = True

    def _line(self, word, test):
        print("%-6s %s (%.1f s)" % (word, name_of(test), time.monotonic() - self._began), flush=True)


def name_of(test):
    return test.id().replace("__main__.", "")


def interrupted(number, _frame):
    signal.signal(number, signal.SIG_IGN)  # asked twice, it tidies up once
    raise KeyboardInterrupt  # unittest lets nothing else through


def main():
    """Run the cases of the calling file: all, or those whose names contain an argument."""
    signal.signal(signal.SIGTERM, interrupted)
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    if len(sys.argv) > 1:
        suite = unittest.TestSuite(filter_suite(suite, sys.argv[1:]))
    result = Result()
    try:
        suite.run(result)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        result.failed_cases += 1
    close_all()
    print("%d passed, %d failed" % (result.passed, result.failed_cases), flush=True)
    sys.exit(1 if result.failed_cases or result.passed == 0 else 0)


def filter_suite(suite, words):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield unittest.TestSuite(filter_suite(test, words))
        elif any(word in test.id() for word in words):
            yield test


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--sweep":
        sweep(sys.argv[2])
    else:
        sys.exit(__doc__)
