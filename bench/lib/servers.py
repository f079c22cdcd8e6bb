# SPDX-License-Identifier: Apache-2.0
"""What is measured: our engines and their rivals, each with a full disk of its own and, by where(), the words that take
fio there."""
import json
import os
import re
import secrets
import shutil
import socket
import subprocess

import engines
from measure import ROOT, Failed, fill, fill_volume, read_once

CIPHER = "NORMAL:-CIPHER-ALL:+AES-128-GCM"  # what ours uses


def nbd(uri):
    return ["--ioengine=nbd", "--uri=" + uri]


class File:
    """The disk itself: the physical limit."""

    def __init__(self, folder, size, direct):
        self.path = "%s/raw%d.data" % (folder.path, direct)
        self.direct = direct
        fill(self.path, size)

    def where(self):
        return ["--ioengine=io_uring", "--filename=" + self.path, "--direct=%d" % self.direct]

    def close(self):
        os.unlink(self.path)


# ---- ours ----

class Kedge:
    """@replicas engines over TLS on loopback, synchronous; the first leads."""

    def __init__(self, size, replicas=1, options=()):
        nodes = list(range(1, replicas + 1))
        self.e = engines.Engines(replicas, name="bench", options=options, linked=replicas > 1)
        self.e.create("disk", "%dMiB" % size, *nodes)
        self.e.start_all()
        self.e.wait_in_sync("disk", nodes, 60)
        fill_volume(self.e, 1, "disk", size)
        for i in nodes:
            read_once(self.e.data(i, "disk"))

    def where(self):
        return nbd(self.e.uri(1, "disk"))

    def close(self):
        self.e.close()


# ---- theirs ----

class OnSocket:
    """A process @p of @folder that serves its one export at @sock."""

    def where(self):
        return nbd("nbd+unix:///?socket=" + self.sock)

    def close(self):
        self.folder.end(self.p)


class Nbdkit(OnSocket):
    def __init__(self, folder, size):
        self.folder = folder
        self.sock = folder.path + "/nbdkit.sock"
        path = folder.path + "/nbdkit.data"
        fill(path, size)
        self.p = folder.start(["nbdkit", "-f", "-U", self.sock, "file", path])
        folder.listens(self.p, lambda: os.path.exists(self.sock))


class QemuNbd(OnSocket):
    """Around the page cache. @path: of a file that is there; else a full one is made."""

    def __init__(self, folder, tools, size, aio, path=None):
        self.folder = folder
        self.sock = "%s/qemu-%s.sock" % (folder.path, aio)
        if not path:
            path = "%s/qemu-%s.data" % (folder.path, aio)
            fill(path, size)
        if os.path.exists(self.sock):
            os.unlink(self.sock)
        self.p = folder.start([tools.nbd, "--persistent", "--shared=4", "--format=raw", "--cache=none", "--aio=" + aio,
                               "--socket=" + self.sock, path])
        folder.listens(self.p, lambda: os.path.exists(self.sock))


class Tools:
    """The rival's programs: of @wanted, else the newest that is found."""

    def __init__(self, wanted=None):
        fetched = os.path.join(ROOT, "build", "qemu-backports", "bin")
        found = [wanted] if wanted else [d for d in (fetched, os.path.dirname(shutil.which("qemu-nbd") or "")) if d]
        found = [d for d in found if os.access(d + "/qemu-nbd", os.X_OK)] + \
                [d + "/bin" for d in found if os.access(d + "/bin/qemu-nbd", os.X_OK)]
        if not found:
            raise Failed("no qemu-nbd in %s (deploy/fetch-qemu-backports.sh gets one)" % (wanted or "the path"))
        folder = max(found, key=version)
        self.nbd = folder + "/qemu-nbd"
        self.daemon = next((p for p in (folder + "/qemu-storage-daemon", shutil.which("qemu-storage-daemon"),
                                        shutil.which("qemu-system-x86_64")) if p and os.access(p, os.X_OK)), None)
        self.words = "qemu-nbd %s" % ".".join(str(n) for n in version(folder))
        if version(folder) < (8,):
            self.words += " (a later one is faster over TCP: deploy/fetch-qemu-backports.sh)"

    def mirror_words(self):
        """How the program that mirrors begins, and what it is called."""
        if not self.daemon:
            raise Failed("neither qemu-storage-daemon nor qemu-system-x86_64 is here to mirror")
        if self.daemon.endswith("daemon"):
            return [self.daemon], "--"
        return [self.daemon, "-machine", "none", "-nodefaults", "-display", "none", "-S"], "-"


def version(folder):
    done = subprocess.run([folder + "/qemu-nbd", "--version"], capture_output=True, text=True, check=False)
    numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(int(n) for n in numbers.groups()) if numbers else (0,)


class Psk:
    """A key that both ends of a TLS link have."""

    def __init__(self, folder):
        self.dir = folder.path + "/psk"
        self.file = self.dir + "/keys.psk"
        if not os.path.exists(self.dir):
            os.makedirs(self.dir)
            with open(self.file, "w", encoding="utf-8") as f:
                f.write("kedge:%s\n" % secrets.token_hex(32))

    def qemu(self, end):
        name = ",username=kedge" if end == "client" else ""
        return "tls-creds-psk,id=tls,endpoint=%s,dir=%s,priority=%s%s" % (end, self.dir, CIPHER, name)

    def uri(self, port):
        return "nbds://kedge@127.0.0.1:%d/disk?tls-psk-file=%s" % (port, self.file)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_listening(port):
    """Without connecting: a server may end with its first guest."""
    with open("/proc/net/tcp", encoding="ascii") as f:
        return any(" 0100007F:%04X 00000000:0000 0A " % port in line for line in f)


class TlsTarget:
    """qemu-nbd over TCP and TLS before @path."""

    def __init__(self, folder, tools, path, cache, aio):
        self.folder, self.port = folder, free_port()
        self.psk = Psk(folder)
        self.p = folder.start([tools.nbd, "--object", self.psk.qemu("server"), "--tls-creds=tls", "--persistent",
                               "--shared=8", "--format=raw", "--cache=" + cache, "--aio=" + aio, "--discard=unmap",
                               "--bind=127.0.0.1", "--port=%d" % self.port, "--export-name=disk", path])
        folder.listens(self.p, lambda: is_listening(self.port))

    def close(self):
        self.folder.end(self.p)


class TlsNbdkit:
    """nbdkit over TCP and TLS before @path."""

    def __init__(self, folder, path):
        self.folder, self.port = folder, free_port()
        self.psk = Psk(folder)
        self.p = folder.start(["nbdkit", "-f", "--ipaddr=127.0.0.1", "--port=%d" % self.port, "--tls=require",
                               "--tls-psk=" + self.psk.file, "file", path])
        folder.listens(self.p, lambda: is_listening(self.port))

    def close(self):
        self.folder.end(self.p)


class Qmp:
    """The control socket of a QEMU program."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(30)
        self.s.connect(path)
        self.f = self.s.makefile("r", encoding="utf-8")
        self.f.readline()
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        self.s.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        for line in self.f:
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failed("%s: %s" % (command, answer["error"]["desc"]))
        raise Failed("%s: the program ended" % command)

    def close(self):
        self.f.close()
        self.s.close()


class Mirror:
    """QEMU's synchronous mirror: a disk that is written here and, by NBD over TLS, on qemu-nbd's target before a write is
    answered; served by NBD like ours. Its job is READY, so all of it goes both ways, before anything is measured."""

    def __init__(self, folder, tools, size, cache, aio):
        name = "%s/mirror-%s-%s" % (folder.path, cache, aio)
        self.folder, self.qmp, self.target = folder, None, None
        self.sock = name + ".sock"
        for path in (name + ".source", name + ".target"):
            fill(path, size)
        self.target = TlsTarget(folder, tools, name + ".target", cache, aio)
        words, dash = tools.mirror_words()
        self.p = folder.start(words + self.options(name, aio, dash))
        folder.listens(self.p, lambda: os.path.exists(name + ".qmp"))
        self.qmp = Qmp(name + ".qmp")
        self.begin()

    def options(self, name, aio, dash):
        target = "driver=nbd,node-name=target,export=disk,tls-creds=tls,server.type=inet,server.host=127.0.0.1," \
                 "server.port=%d" % self.target.port
        source = "driver=raw,node-name=disk,discard=unmap,file.driver=file,file.filename=%s,file.cache.direct=on," \
                 "file.aio=%s,cache.direct=on" % (name + ".source", aio)
        return [dash + "object", self.target.psk.qemu("client"), dash + "blockdev", source, dash + "blockdev", target,
                dash + "chardev", "socket,id=c,path=%s.qmp,server=on,wait=off" % name,
                *(["--monitor", "chardev=c"] if dash == "--" else ["-mon", "chardev=c,mode=control"])]

    def begin(self):
        self.qmp.call("nbd-server-start", addr={"type": "unix", "data": {"path": self.sock}})
        self.qmp.call("block-export-add", **{"type": "nbd", "id": "e", "node-name": "disk", "name": "disk",
                                             "writable": True})
        self.qmp.call("blockdev-mirror", **{"job-id": "m", "device": "disk", "target": "target", "sync": "full",
                                            "copy-mode": "write-blocking"})
        engines.wait_for(self.is_ready, 120, "the mirror is in step")
        engines.wait_for(self.is_active, 20, "the mirror is synchronous")

    def job(self):
        jobs = self.qmp.call("query-block-jobs")
        if not jobs:
            raise Failed("the mirror gave up")
        return jobs[0]

    def is_ready(self):
        return self.job()["ready"]

    def is_active(self):
        """Older ones do not tell."""
        return self.job().get("actively-synced", True)

    def check(self):
        """It still mirrors."""
        if not self.is_ready():
            raise Failed("the mirror fell behind while it was measured")

    def where(self):
        return nbd("nbd+unix:///disk?socket=" + self.sock)

    def close(self):
        if self.qmp:
            self.qmp.close()
        self.folder.end(self.p)
        self.target.close()
