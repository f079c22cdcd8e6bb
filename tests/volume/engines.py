# SPDX-License-Identifier: Apache-2.0
"""Real volume engines on one machine, and a client that says what was acknowledged.

    with Engines(1) as e:
        e.create("disk", "64MiB", 1)
        e.start(1)
        with e.client(1, "disk") as c:
            c.write(0, b"x" * 4096)

What is left behind by an interrupted run is found by its folder, as that of the clusters (tests/cluster/harness.py)."""
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))
import harness  # noqa: E402
import processes  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("KEDGE_BUILD", os.path.join(ROOT, "build", "dev"))
RUN = os.environ.get("KEDGE_TEST_RUN", str(os.getpid()))
LOGS = os.path.join(ROOT, "build", "test-logs")
POLL_S = 0.02


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("not within %s s: %s" % (seconds, what))
        time.sleep(POLL_S)


class Disconnected(Exception):
    """The engine ended the connection."""


class Client:
    """The NBD protocol, plain: fixed newstyle, EXPORT_NAME, simple replies, one request after the other or several."""

    READ, WRITE, DISC, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
    FUA = 1

    def __init__(self, path, export):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.cookie = 0
        try:
            self.s.connect(path)
            self._shake(export)
        except (OSError, Disconnected):
            self.s.close()
            raise

    def _shake(self, export):
        magic, option, flags = struct.unpack(">8s8sH", self._get(18))
        if magic != b"NBDMAGIC" or option != b"IHAVEOPT" or not flags & 1:
            raise AssertionError("no fixed newstyle server")
        self.s.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, len(export)) + export.encode())
        self.size, self.flags = struct.unpack(">QH", self._get(10))

    def _get(self, n):
        data = b""
        while len(data) < n:
            try:
                part = self.s.recv(n - len(data))
            except ConnectionError as e:
                raise Disconnected() from e
            if not part:
                raise Disconnected()
            data += part
        return data

    def begin(self, kind, offset=0, length=0, data=b"", fua=False):
        self.cookie += 1
        head = struct.pack(">IHHQQI", 0x25609513, self.FUA if fua else 0, kind, self.cookie, offset, len(data) or length)
        try:
            self.s.sendall(head + data)
        except OSError as e:
            raise Disconnected() from e
        return self.cookie

    def end(self, read_lengths=None):
        """One answer: (cookie, error, data)."""
        magic, error, cookie = struct.unpack(">IIQ", self._get(16))
        assert magic == 0x67446698, hex(magic)
        n = (read_lengths or {}).get(cookie, 0)
        return cookie, error, self._get(n) if n and not error else b""

    def _call(self, kind, offset=0, length=0, data=b"", fua=False):
        cookie = self.begin(kind, offset, length, data, fua)
        got, error, back = self.end({cookie: length} if kind == self.READ else None)
        assert got == cookie
        if error:
            raise OSError(error, os.strerror(error))
        return back

    def read(self, offset, length):
        return self._call(self.READ, offset, length)

    def write(self, offset, data, fua=False):
        self._call(self.WRITE, offset, data=data, fua=fua)

    def zero(self, offset, length):
        self._call(self.ZEROES, offset, length)

    def trim(self, offset, length):
        self._call(self.TRIM, offset, length)

    def flush(self):
        self._call(self.FLUSH)

    def close(self):
        self.s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Engines:
    def __init__(self, n, name="volume", options=(), linked=False, namespaces=False):
        """@namespaces: each node has a network of its own, where partition() and heal() work."""
        self.root = "/tmp/kt-%s-%s-%d" % (RUN, name, time.monotonic_ns() % 10 ** 6)
        self.n = n
        self.options = list(options)
        self.procs = {}
        self.failed = False
        os.makedirs(self.root)
        harness.live_clusters.append(self)
        self.file = self.root + "/store"
        self.helpers = {}
        self.helper_options = []
        self.views = {}   # node: where it finds the store, if not as the others
        self.relays = {}  # (node, the one it dials): what stands between them, instead of the other's address
        self.tag = os.path.basename(self.root)
        self.namespaces = namespaces
        if namespaces:
            self._make_network()
        self.linked = linked
        self.port = 10000 + time.monotonic_ns() % 10000  # below those that the kernel gives to others
        for i in range(1, n + 1):
            os.makedirs(self.dir(i))
            self.propose("node", str(i), self.dir(i), self.address(i))
        if linked:
            self.run(BUILD + "/kedge-bulk-helper", "--make-pki", self.root + "/pki", "--nodes",
                     ",".join(str(i) for i in range(1, n + 1)))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.failed = kind is not None
        self.close()

    def dir(self, i):
        return "%s/n%d" % (self.root, i)

    def address(self, i):
        if self.namespaces:
            return "10.77.0.%d:%d" % (i, harness.PORT)
        return "127.0.0.%d:%d" % (i, self.port)

    # ---- networks, as those of the clusters

    def namespace(self, i):
        return "%s-n%d" % (self.tag, i)

    def inside(self, i):
        """What makes a command run in the network of node @i."""
        return ["nsenter", "--net=/run/netns/" + self.namespace(i)] if self.namespaces else []

    def _make_network(self):
        hub = self.tag + "-hub"
        harness.ip("netns", "add", hub)
        harness.ip("-n", hub, "link", "add", "br0", "type", "bridge")
        harness.ip("-n", hub, "link", "set", "br0", "up")
        for i in range(1, self.n + 1):
            port, space = "p%d" % i, self.namespace(i)
            harness.ip("netns", "add", space)
            harness.ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            harness.ip("-n", hub, "link", "set", port, "master", "br0", "up")
            harness.ip("-n", space, "addr", "add", "10.77.0.%d/24" % i, "dev", "eth0")
            harness.ip("-n", space, "link", "set", "eth0", "up")
            harness.ip("-n", space, "link", "set", "lo", "up")

    def partition(self, i, ways=("input", "output")):
        """Nothing goes in or out of node @i any more, or only one way."""
        rules = "".join(" chain %s { type filter hook %s priority 0; policy drop; }\n" % (way, way) for way in ways)
        self._nft(i, "table inet kedge_test {\n%s}\n" % rules)

    def heal(self, i):
        self._nft(i, "delete table inet kedge_test\n")

    def _nft(self, i, rules):
        subprocess.run([*self.inside(i), "nft", "-f", "-"], input=rules, text=True, check=True, timeout=30)

    def received(self, i):
        """Bytes that came to node @i, as its network counts them."""
        shown = json.loads(self.run("ip", "-n", self.namespace(i), "-s", "-j", "link", "show", "dev", "eth0").stdout)
        return shown[0]["stats64"]["rx"]["bytes"]

    # ---- processes

    def start_helper(self, i):
        """What makes the links: it has the node's key, as kedged will."""
        argv = [*self.inside(i), BUILD + "/kedge-bulk-helper", "--node", str(i), "--listen", self.address(i),
                "--ca", self.root + "/pki/ca.crt", "--cert", "%s/pki/n%d.crt" % (self.root, i),
                "--key", "%s/pki/n%d.key" % (self.root, i), "--engine", self.dir(i) + "/run/vol.sock"]
        for other in range(1, self.n + 1):
            if other != i:
                argv += ["--peer", "%d=%s" % (other, self.relays.get((i, other), self.address(other)))]
        argv += self.helper_options
        with open("%s/h%d.log" % (self.root, i), "ab") as log:
            self.helpers[i] = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    def start_all(self):
        for i in range(1, self.n + 1):
            self.start(i)

    def in_sync(self, name):
        """The nodes of the in-sync set, as the store has it."""
        with open(self.file, encoding="utf-8") as f:
            lines = [line.split() for line in f if line.startswith("member %s " % name)]
        return sorted(int(w[3]) for w in lines if w[7] == "1")

    def member(self, name, node):
        """The store's line of a replica, as a dict of texts."""
        with open(self.file, encoding="utf-8") as f:
            words = next(w for w in map(str.split, f) if w[:4] == ["member", name, "node", str(node)])
        return dict(zip(words[2::2], words[3::2]))

    def tails(self):
        """The last words of all engines."""
        return "".join("\n--- %d: %s" % (i, self.log(i)[-700:]) for i in range(1, self.n + 1) if i in self.procs)

    def wait_in_sync(self, name, nodes, seconds=30):
        wait_for(lambda: self.in_sync(name) == sorted(nodes), seconds,
                 "%s in sync on %s, not only %s" % (name, nodes, self.in_sync(name)))

    def sock(self, i):
        return self.dir(i) + "/run/nbd.sock"

    def uri(self, i, export):
        return "nbd+unix:///%s?socket=%s" % (export, self.sock(i))

    def run(self, *argv, check=True, **kwargs):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, **kwargs)
        if check and done.returncode != 0:
            raise AssertionError("%s: exit code %d: %s%s" % (" ".join(argv), done.returncode, done.stdout, done.stderr))
        return done

    def vol(self, *argv, check=True):
        return self.run(BUILD + "/kedge-vol", *argv, check=check)

    def propose(self, *words, check=True):
        return self.vol("--propose", self.file, *words, check=check)

    def create(self, name, size, *nodes):
        self.propose("create", name, size, ",".join(str(i) for i in nodes))

    def row(self, name):
        """The volume's line of the store, as a dict of texts."""
        with open(self.file, encoding="utf-8") as f:
            words = next(line.split() for line in f if line.startswith("volume %s " % name))
        return dict(zip(words[2::2], words[3::2]))

    def replica(self, i, name):
        return "%s/volumes/%s" % (self.dir(i), self.row(name)["id"])

    def inspect(self, i, name):
        return json.loads(self.vol("--inspect", self.replica(i, name), "--json").stdout)

    def start(self, i, wait=True, options=(), before=()):
        """@before: a command that ends in executing what follows it."""
        log = open("%s/n%d.log" % (self.root, i), "ab")
        self.procs[i] = subprocess.Popen([*self.inside(i), *before, BUILD + "/kedge-vol", "--static",
                                          self.views.get(i, self.file), "--dir", self.dir(i), *self.options, *options],
                                         stdout=log, stderr=log, start_new_session=True)
        log.close()
        if wait:
            wait_for(lambda: os.path.exists(self.sock(i)) and self.can_connect(i), 10, "engine %d listens" % i)
        if self.linked and i not in self.helpers:
            self.start_helper(i)

    def can_connect(self, i):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(self.sock(i))
            return True
        except OSError:
            return False

    def log(self, i):
        with open("%s/n%d.log" % (self.root, i), encoding="utf-8", errors="replace") as f:
            return f.read()

    def signal(self, i, number):
        p = self.procs.pop(i)
        p.send_signal(number)
        return p.wait(30)

    def kill(self, i):
        self.signal(i, signal.SIGKILL)

    def stop(self, i):
        code = self.signal(i, signal.SIGTERM)
        if code != 0:
            raise AssertionError("engine %d ended with %d: %s" % (i, code, self.log(i)[-2000:]))

    def client(self, i, export, seconds=15):
        """A connection, once the volume is served there."""
        def attempt():
            try:
                return Client(self.sock(i), export)
            except (OSError, Disconnected):
                return None
        return wait_for(attempt, seconds, "%s is served by %d: %s" % (export, i, self.log(i)[-500:]))

    def data(self, i, name):
        return self.replica(i, name) + "/data"

    def close(self):
        for p in [*self.procs.values(), *self.helpers.values()]:
            p.kill()
            p.wait()
        self.procs, self.helpers = {}, {}
        processes.kill_below(self.root)
        harness.remove_namespaces(self.tag + "-")
        if self.failed:
            kept = os.path.join(LOGS, os.path.basename(self.root))
            os.makedirs(kept, exist_ok=True)
            for name in os.listdir(self.root):
                if name.endswith(".log") or name == "store":
                    shutil.copy(os.path.join(self.root, name), kept)
            print("    logs are kept in %s" % os.path.relpath(kept, ROOT), flush=True)
        shutil.rmtree(self.root, ignore_errors=True)
        if self in harness.live_clusters:
            harness.live_clusters.remove(self)
