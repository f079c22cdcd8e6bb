# SPDX-License-Identifier: Apache-2.0
"""What /proc says about the processes of a node: a witness that owes nothing to Kedge's own bookkeeping."""
import os
import signal
import time

STOPPED = "Tt"
GONE = "ZX"
PF_EXITING = 0x4  # of the kernel's include/linux/sched.h, in the flags of proc(5)


class Process:
    """One process, as its command line told when it was looked at."""

    def __init__(self, pid, argv):
        self.pid = pid
        self.argv = argv
        self.program = os.path.basename(argv[0])

    def is_below(self, path):
        return any(path + "/" in arg + "/" for arg in self.argv)

    @property
    def guest(self):
        """The VM that this QEMU runs; None for anything else, also for libvirt's capability probes."""
        if not self.program.startswith("qemu"):
            return None
        for flag, value in zip(self.argv, self.argv[1:]):
            if flag == "-name":
                first = value.split(",")[0]
                return first[len("guest="):] if first.startswith("guest=") else None
        return None

    def __repr__(self):
        return "%d %s" % (self.pid, " ".join(self.argv)[:120])


def look_at(pid):
    """The process @pid, or None when it is gone, a zombie or a kernel thread."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            raw = f.read()
    except OSError:
        return None
    argv = [arg.decode(errors="replace") for arg in raw.split(b"\0")[:-1]]
    return Process(pid, argv) if argv else None


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def own_line():
    """This process and its ancestors, which may well have the directory of a node on their command line."""
    line, pid = set(), os.getpid()
    while pid > 1:
        line.add(pid)
        fields = stat_fields(pid)
        if fields is None:
            break
        pid = int(fields[1])
    return line


def stat_fields(pid):
    """/proc/PID/stat from the third field (the state) on, or None."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()
    except OSError:
        return None


def is_exiting(fields):
    """From the result of stat_fields(): the kernel takes the process apart, none of its own code runs any more."""
    return bool(int(fields[6]) & PF_EXITING)


def has_ended(pid):
    """All of its threads, the kernel's for it, too; so its files are closed, and with them its locks and sockets."""
    fields = stat_fields(pid)
    return fields is None or (fields[0] in GONE and int(fields[17]) <= 1)


def has_sigkill(pid):
    """SIGKILL is pending: a thread that is woken for it goes straight into its end, past all code of its own."""
    try:
        with open("/proc/%d/status" % pid, encoding="utf-8", errors="replace") as f:
            pending = [int(line.split()[1], 16) for line in f if line.startswith(("SigPnd:", "ShdPnd:"))]
    except OSError:
        return True
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in pending)


def state(pid):
    """The letter of proc(5): T is stopped, R and S and D may execute, X is gone.

    The end of a process takes the kernel some ms, for as long as the memory it has to free; proc(5) shows R meanwhile,
    also when it was stopped before. That is X here. Looked at in the order in which a process goes through it."""
    fields = stat_fields(pid)
    if fields is None:
        return "X"
    letter = fields[0]
    if letter in STOPPED + GONE:
        return letter
    if is_exiting(fields) or has_sigkill(pid):
        return "X"
    fields = stat_fields(pid)
    return letter if fields and not is_exiting(fields) else "X"


def threads_stopped(pid):
    """True when no thread of @pid can execute."""
    try:
        tids = os.listdir("/proc/%d/task" % pid)
    except OSError:
        return True
    states = [state_of_thread(pid, tid) for tid in tids]
    return all(letter in STOPPED + GONE for letter in states)


def state_of_thread(pid, tid):
    try:
        with open("/proc/%d/task/%s/stat" % (pid, tid), encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def below(path, program=None):
    """Processes that have something below the directory @path on their command line."""
    mine = own_line()
    found = (look_at(pid) for pid in pids() if pid not in mine)
    return [p for p in found if p and p.is_below(path) and (program is None or p.program == program)]


def send(pid, number):
    """Signal @pid; False when it is gone."""
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def kill_below(path, seconds=10.0):
    """SIGKILL everything below @path until nothing is left: what was about to be forked counts too."""
    deadline = time.monotonic() + seconds
    while True:
        found = below(path)
        if not found:
            return
        for p in found:
            send(p.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError("could not kill: %s" % found)
        time.sleep(0.02)
