#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the cases that a test log tells of: prints `PASSED FAILED`.

usage: tests/count.py LOG | --self-test

It understands `ctest --verbose` with cmocka programs inside, and any program whose last line of the kind is
`N passed, N failed` (with or without a name before it).
"""
import re
import sys

CTEST_END = re.compile(r"^ *\d+/\d+ Test +#(\d+): \S+ \.*\s*(.*)$", re.MULTILINE)
CMOCKA = r"^%s: \[  (PASSED|FAILED)  \] (\d+) test\(s\)"
PLAIN = re.compile(r"\b(\d+) passed, (\d+) failed\b")


def count(text):
    programs = CTEST_END.findall(text)
    if programs:
        counts = [count_program(text, number, end) for number, end in programs]
        return sum(p for p, _ in counts), sum(f for _, f in counts)
    found = PLAIN.findall(text)
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def count_program(text, number, end):
    """One program under ctest: its cmocka cases, or itself; a crash is a failure more."""
    passed = failed = 0
    for kind, n in re.findall(CMOCKA % number, text, re.MULTILINE):
        if kind == "PASSED":
            passed += int(n)
        else:
            failed += int(n)
    if end.startswith("Passed"):
        return max(passed, 1), failed
    return passed, max(failed, 1)


CTEST_SAMPLE = """
1: [==========] Running 3 test(s).
1: [  PASSED  ] 3 test(s).
1/4 Test #1: unit_base ........................   Passed    0.01 sec
2: [  PASSED  ] 1 test(s).
2: [  FAILED  ] 2 test(s), listed below:
2/4 Test #2: unit_net .........................***Failed    0.01 sec
3/4 Test #3: unit_store .......................***Exception: SegFault  0.11 sec
12: plain program
4/4 Test #12: interop .........................   Passed    0.01 sec

50% tests passed, 2 tests failed out of 4
"""
SAMPLES = [
    (CTEST_SAMPLE, (5, 3)),
    ("x 1 passed, 0 failed\nstyle: 50 passed, 2 failed\n", (50, 2)),
    ("Segmentation fault\n", (0, 0)),
    ("", (0, 0)),
]


def main():
    if sys.argv[1:] == ["--self-test"]:
        wrong = [(count(text), want) for text, want in SAMPLES if count(text) != want]
        print("count: %d passed, %d failed %s" % (len(SAMPLES) - len(wrong), len(wrong), wrong or ""))
        return 1 if wrong else 0
    with open(sys.argv[1], encoding="utf-8", errors="replace") as f:
        print("%d %d" % count(f.read()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
