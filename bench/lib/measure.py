# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: files that are full and read once, fio, sides that take turns, ratios, and an end of all
processes that were started, also after a failure."""
import argparse
import collections
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "volume"))
os.environ.setdefault("KEDGE_BUILD", os.path.join(ROOT, "build", "release"))
import engines  # noqa: E402
import harness  # noqa: E402

MIB = 1 << 20
FIO_LIMIT_S = 120  # beyond the time that a row was given

ROWS = [
    ("4k random write, depth 1", ["--rw=randwrite", "--bs=4k", "--iodepth=1"]),
    ("4k random write, depth 32", ["--rw=randwrite", "--bs=4k", "--iodepth=32"]),
    ("4k random write, depth 1, fsync after each", ["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"]),
    ("4k random write, depth 32, fsync after each", ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--fsync=1"]),
    ("4k random read, depth 1", ["--rw=randread", "--bs=4k", "--iodepth=1"]),
    ("4k random read, depth 32", ["--rw=randread", "--bs=4k", "--iodepth=32"]),
    ("1m sequential write", ["--rw=write", "--bs=1m", "--iodepth=4"]),
    ("1m sequential read", ["--rw=read", "--bs=1m", "--iodepth=4"]),
]


# ---- processes and the folder of a run ----

class Failed(Exception):
    """A benchmark cannot go on: one line for whoever started it."""


class Folder:
    """The folder of a run, and all that was started for it. Its name is one that the tests' sweep knows."""

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="kt-%s-bench-" % engines.RUN, dir="/tmp")
        self.started = []

    def start(self, argv, **kwargs):
        """A process of this run; its words go to a file, of which failed() tells the end."""
        with open(self.log(argv), "ab") as log:
            p = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, **kwargs)
        self.started.append(p)
        return p

    def log(self, argv):
        return "%s/%s.log" % (self.path, os.path.basename(argv[0]))

    def listens(self, p, is_there):
        """Wait until @p, which was just started, can be reached."""
        def there():
            if p.poll() is not None:
                with open(self.log(p.args), encoding="utf-8", errors="replace") as f:
                    raise Failed("%s ended with %d: %s" % (p.args[0], p.returncode, f.read()[-500:].strip()))
            return is_there()
        engines.wait_for(there, 20, "%s listens" % p.args[0])

    def end(self, p):
        if p in self.started:
            self.started.remove(p)
        p.terminate()
        try:
            p.wait(10)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()

    def close(self):
        for p in list(self.started):
            self.end(p)
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def interrupted(number, _):
    sys.exit(128 + number)


def run(main):
    """Run @main, then end every engine that is still there. The exit code is main's, or 1 with a line."""
    began = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        code = main()
    except (Failed, AssertionError, subprocess.CalledProcessError) as e:
        print("%s: %s%s" % (os.path.basename(sys.argv[0]), e, getattr(e, "stderr", None) or ""), file=sys.stderr)
        code = 1
    finally:
        harness.close_all()
    print("%.0f s" % (time.monotonic() - began))
    sys.exit(code)


# ---- options that all have ----

def parser(text):
    p = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", "--runs", type=int, default=3, metavar="N",
                   help="each side is measured N times, in turn (default 3, the least)")
    p.add_argument("--seconds", type=int, default=3, metavar="S", help="of each measurement (default 3)")
    p.add_argument("--only", default="", metavar="WORD", help="only rows that have WORD in their name")
    p.add_argument("--build", metavar="DIR", help="where ours were built (default $KEDGE_BUILD, else build/release)")
    p.add_argument("--qemu", metavar="DIR", help="where the rival's tools are: qemu-nbd, qemu-storage-daemon (default: the "
                   "newest of build/qemu-backports, which deploy/fetch-qemu-backports.sh fills, and the installed ones)")
    p.add_argument("--json", metavar="FILE", help="write all that was measured there too")
    return p


def keep(args, report):
    """Write what was measured where --json says. Returns the exit code."""
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(report, f, indent=1)
    return 0


def parse(p):
    args = p.parse_args()
    args.rounds = max(args.rounds, 3)
    if args.build:
        engines.BUILD = os.path.abspath(args.build)
    for program in ("kedge-vol", "kedge-bulk-helper"):
        if not os.access(engines.BUILD + "/" + program, os.X_OK):
            p.error("no %s in %s: build it there (cmake --preset release && cmake --build --preset release), "
                    "or name another build by --build" % (program, engines.BUILD))
    return args


# ---- measuring ----

Speed = collections.namedtuple("Speed", "iops mean_us p99_us")


def fio(where, row, size, seconds):
    """One fio job of @size MiB: requests per second, and what one takes until it is answered, its fsync included."""
    done = subprocess.run(["fio", "--name=b", "--output-format=json", "--time_based", "--runtime=%d" % seconds,
                           "--size=%dm" % size, "--randrepeat=1", "--group_reporting", *where, *row],
                          capture_output=True, text=True, check=True, timeout=seconds + FIO_LIMIT_S)
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    if job["error"]:
        raise Failed("fio: %s" % done.stderr.strip())
    kind = max("read", "write", key=lambda k: job[k]["total_ios"])
    mean, p99 = 0.0, 0.0
    for lat in (job[kind]["clat_ns"], job["sync"]["lat_ns"]):
        if lat.get("N"):
            mean += lat["mean"] / 1000
            p99 += lat.get("percentile", {}).get("99.000000", 0) / 1000
    return Speed(job["read"]["iops"] + job["write"]["iops"], mean, p99)


def fill(path, size):
    """A file of @size MiB that nobody can compress, on the disk and in the page cache."""
    with open(path, "wb") as f:
        for _ in range(size):
            f.write(os.urandom(MIB))
        f.flush()
        os.fsync(f.fileno())
    read_once(path)


def read_once(path):
    with open(path, "rb") as f:
        while f.read(MIB):
            pass


def fill_volume(e, node, name, size):
    """The same for a volume, through its primary."""
    with e.client(node, name) as c:
        for at in range(size):
            c.write(at * MIB, os.urandom(MIB))
        c.flush()
        for at in range(size):
            c.read(at * MIB, MIB)


def in_turn(rounds, sides, measure):
    """@sides: name -> anything; @measure of each, A B A B. Returns name -> the list of what it gave. What one has left in
    the page cache is written before the next begins: else a side pays for whoever came before it."""
    seen = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            os.sync()
            seen[name].append(measure(side))
    return seen


def ratio(ours, theirs):
    """The median of the ratios of each round."""
    return statistics.median(a / b if b else float("inf") for a, b in zip(ours, theirs))


def spread(values, form="%.0f"):
    return "/".join(form % v for v in (min(values), statistics.median(values), max(values)))


def verdict(is_met):
    return "met" if is_met else "MISSED"
