#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What administrators type: mistakes are explained and change nothing; a VM's life from start to delete."""
import re

import harness

GOOD = "kind: vm\nname: good\nvcpus: 1\nmemory: 128MiB\nrun: false\nboot: {kernel: ./vmlinuz}\n"

# (what, document, line that the error names)
MISTAKES = [
    ("no YAML at all", "kind: vm\nname: [unclosed\n", (2, 3)),
    ("a tab", "kind: vm\n\tname: x\n", (2,)),
    ("not a mapping", "- kind: vm\n", (1,)),
    ("an empty kind", "kind:\nname: x\n", (1,)),
    ("an unknown kind", "kind: vmm\nname: x\n", (1,)),
    ("an unknown key", GOOD + "memroy: 1GiB\n", (7,)),
    ("an unknown key inside boot", GOOD.replace("{kernel: ./vmlinuz}", "{kernal: ./vmlinuz}"), (6,)),
    ("a key twice", GOOD + "vcpus: 2\n", (7,)),
    ("a size without a unit that exists", GOOD.replace("128MiB", "128XB"), (4,)),
    ("a size that is no number", GOOD.replace("128MiB", "much"), (4,)),
    ("a negative size", GOOD.replace("128MiB", "-128MiB"), (4,)),
    ("memory of nothing", GOOD.replace("128MiB", "0"), (4,)),
    ("memory beyond every machine", GOOD.replace("128MiB", "9999999TiB"), (4,)),
    ("memory beyond 64 bits", GOOD.replace("128MiB", "99999999999999999999999GiB"), (4,)),
    ("no CPU", GOOD.replace("vcpus: 1", "vcpus: 0"), (3,)),
    ("a million CPUs", GOOD.replace("vcpus: 1", "vcpus: 1000000"), (3,)),
    ("CPUs that are a word", GOOD.replace("vcpus: 1", "vcpus: two"), (3,)),
    ("run that is neither", GOOD.replace("run: false", "run: perhaps"), (5,)),
    ("a name with a slash", GOOD.replace("good", "../../etc"), (2,)),
    ("a name with a space", GOOD.replace("good", "a b"), (2,)),
    ("an empty name", GOOD.replace("good", "\"\""), (2,)),
    ("a name that is too long", GOOD.replace("good", "x" * 300), (2,)),
    ("a list for a word", GOOD.replace("name: good", "name: [good]"), (2,)),
    ("the same name twice", GOOD + "---\n" + GOOD, (8, 9)),
    ("a good document and a bad one", GOOD + "---\nkind: vm\nname: other\nvcpus: 0\n", (10,)),
]


class Mistakes(harness.ClusterCase):
    def rows(self):
        return [(r["name"], r["want"], r["generation"]) for r in self.c.kedge(1, "vm", "ls")["vms"]]

    def one_line(self, done):
        self.assertNotEqual(done.returncode, 0)
        lines = done.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        return lines[0]

    def check(self, text, wanted):
        line = self.one_line(self.c.apply(2, text, check=False))
        m = re.search(r"apply-[-\d]+\.yaml:(\d+):(\d+):? (.+)", line)
        self.assertIsNotNone(m, "no FILE:LINE:COLUMN in: " + line)
        self.assertIn(int(m.group(1)), wanted, line)
        self.assertGreaterEqual(int(m.group(2)), 1)
        self.assertGreater(len(m.group(3)), 10, line)

    def test_dry_run_changes_nothing(self):
        self.c.apply(2, GOOD, True, "--dry-run")
        self.assertEqual(self.rows(), [])

    def test_file_that_is_not_there(self):
        line = self.one_line(self.c.command(1, "apply", "-f", "/nonexistent/x.yaml", check=False))
        self.assertIn("/nonexistent/x.yaml", line)

    def test_running_needs_its_kernel(self):
        done = self.c.apply(1, GOOD.replace("run: false", "run: true"), check=False)
        self.assertIn("vmlinuz", self.one_line(done))
        self.assertEqual(self.rows(), [])

    def test_unknown_commands_and_names(self):
        for args in (["frobnicate"], ["vm", "frobnicate"], ["vm", "start", "nobody"], ["vm", "stop", "nobody"],
                     ["vm", "show", "nobody"], ["delete", "vm", "nobody"], ["delete", "frob", "x"],
                     ["status", "--frob"], ["apply"]):
            self.one_line(self.c.command(1, *args, check=False))

    def test_same_document_twice_changes_nothing(self):
        self.c.apply(1, GOOD)
        rows = self.rows()
        self.assertEqual(len(rows), 1)
        self.c.apply(3, GOOD)
        self.assertEqual(self.rows(), rows)
        self.c.command(1, "delete", "vm", "good")
        self.assertEqual(self.rows(), [])

    def test_admission_refuses_what_cannot_be_restarted(self):
        line = self.one_line(self.c.apply(1, self.c.vm_yaml("huge", memory="3TiB"), check=False))
        self.assertIn("huge", line)
        self.assertEqual(self.rows(), [])


def add_mistake_cases():
    """One case for each row of the table, so that each counts and is named."""
    for what, text, wanted in MISTAKES:
        def case(self, text=text, wanted=wanted):
            self.check(text, wanted)
            self.assertEqual(self.rows(), [])
        setattr(Mistakes, "test_mistake_" + re.sub(r"\W+", "_", what), case)


class Lifecycle(harness.ClusterCase):
    def setUp(self):
        super().setUp()
        self.c.wait_formed()

    def wait_gone(self, vm):
        self.c.wait_for(lambda: not self.c.qemus(vm), 20, "%s has no QEMU" % vm)

    def wait_row(self, vm, want, state):
        self.c.wait_for(lambda: self.is_row(vm, want, state), 20, "%s is wanted %s and is %s" % (vm, want, state))

    def is_row(self, vm, want, state):
        row = self.c.vm(1, vm)
        return row is not None and (row["want"], row["state"]) == (want, state)

    def said_goodbye(self, vm, i):
        with open("%s/console/%s.log" % (self.c.node(i).dir, vm), encoding="utf-8", errors="replace") as f:
            return len(re.findall(r"^kedge-guest boot=[0-9a-f]+ powering off", f.read(), re.MULTILINE))

    def test_a_life(self):
        owner = self.c.create("life")
        self.wait_row("life", "running", "running")
        boot = self.c.console("life", owner)[-1].boot
        self.c.command(3, "vm", "stop", "life")
        self.wait_gone("life")
        self.wait_row("life", "stopped", "stopped")
        self.assertEqual(self.said_goodbye("life", owner), 1, "the guest was not asked to power off")
        self.c.command(2, "vm", "start", "life")
        owner = self.c.wait_for(lambda: self.c.runs_on("life"), 30, "it runs again")
        second = self.c.console("life", owner)[-1].boot
        self.assertNotEqual(second, boot)
        self.c.command(1, "vm", "restart", "life")
        owner = self.c.wait_for(lambda: self.runs_anew("life", second), 40, "it runs anew")
        self.assertEqual(len(self.c.qemus("life")), 1)
        self.c.command(1, "delete", "vm", "life")
        self.wait_gone("life")
        self.c.wait_for(lambda: self.c.vm(1, "life") is None, 10, "it is not listed any more")

    def runs_anew(self, vm, boot):
        i = self.c.runs_on(vm)
        return i if i and self.c.console(vm, i)[-1].boot != boot else None

    def test_kill_does_not_ask(self):
        owner = self.c.create("doomed")
        pid = self.c.qemu("doomed", owner).pid
        self.c.command(1, "vm", "kill", "doomed")
        self.c.wait_for(lambda: harness.processes.state(pid) in "XZ", 10, "its QEMU is gone")
        self.assertEqual(self.said_goodbye("doomed", owner), 0)
        self.c.command(1, "vm", "start", "doomed")
        self.c.wait_for(lambda: self.c.runs_on("doomed"), 30, "it runs again")
        self.c.delete("doomed")

    def test_run_false_is_not_started(self):
        self.c.apply(1, self.c.vm_yaml("idle", run=False))
        self.c.holds_for(lambda: not self.c.qemus("idle"), 3, "nobody starts it")
        self.wait_row("idle", "stopped", "stopped")
        self.c.command(1, "delete", "vm", "idle")

    def test_killed_qemu_is_started_again(self):
        owner = self.c.create("tough")
        boot = self.c.console("tough", owner)[-1].boot
        harness.processes.send(self.c.qemu("tough", owner).pid, harness.signal.SIGKILL)
        self.c.wait_for(lambda: self.runs_anew("tough", boot), 30, "it was started again, unasked")
        self.assertEqual(len(self.c.qemus("tough")), 1)
        self.c.delete("tough")

    @harness.long_run("waits for the second and third start; one that was killed is started again in another case")
    def test_crashing_guest_is_started_with_back_off(self):
        self.c.create("loop", cmdline="console=ttyS0 quiet kedge.exit=3")
        self.c.wait_for(lambda: len(self.pauses("loop")) >= 3, 90, "it was started again three times")
        pauses = self.pauses("loop")
        print("    pauses: %s s" % ", ".join("%.1f" % p for p in pauses))
        self.assertGreater(pauses[2], pauses[0], "the pauses do not grow")
        self.assertIn("reason", self.c.vm(1, "loop"))
        self.c.delete("loop")

    def pauses(self, vm):
        """Seconds from each end of its QEMU to the next one's start."""
        pauses, gone, known = [], None, set()
        for at, _, _, pid, state in self.c.witness.events(vm):
            if state == "gone":
                gone = at
            elif pid not in known:
                known.add(pid)
                if gone is not None:
                    pauses.append(at - gone)
        return pauses


add_mistake_cases()

if __name__ == "__main__":
    harness.main()
