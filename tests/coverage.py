#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many lines of each folder the programs of a build with --coverage have reached, by gcov.

usage: tests/coverage.py BUILD [--files]        --files: each file too

A line counts once, however many programs it was compiled into, and is reached if one of them did so.
"""
import collections
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def notes(build):
    """The .gcno files: of all that was compiled, also of what never ran."""
    for folder, _, names in os.walk(build):
        for name in names:
            if name.endswith(".gcno"):
                yield os.path.join(folder, name)


def gcov(path):
    """What gcov says of one object, as it prints it: one JSON document."""
    done = subprocess.run(["gcov", "--json-format", "--stdout", path], capture_output=True, text=True, check=True,
                          cwd=os.path.dirname(path))
    return json.loads(done.stdout)


def lines_of(build):
    """{file: {line: was it reached}} of the product's own files."""
    found = collections.defaultdict(dict)
    for path in notes(build):
        for entry in gcov(path)["files"]:
            name = os.path.relpath(os.path.join(ROOT, entry["file"]), ROOT)
            if name.startswith(("..", "/", "tests/", "build/", "bench/")):
                continue
            for line in entry["lines"]:
                number = line["line_number"]
                found[name][number] = found[name].get(number, False) or line["count"] > 0
    return found


def table(rows):
    for name, lines in rows:
        reached = sum(lines)
        print("%-28s %6d of %6d lines  %5.1f %%" % (name, reached, len(lines), 100.0 * reached / len(lines)))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    found = lines_of(os.path.abspath(sys.argv[1]))
    if not any(any(lines.values()) for lines in found.values()):
        sys.exit("coverage: error: nothing ran below %s, or it was not built with --coverage" % sys.argv[1])
    folders = collections.defaultdict(list)
    for name, lines in sorted(found.items()):
        folders[name.split("/")[0]] += lines.values()
    if "--files" in sys.argv:
        table((name, list(lines.values())) for name, lines in sorted(found.items()))
    table(sorted(folders.items()))
    table([("all", [reached for lines in folders.values() for reached in lines])])


if __name__ == "__main__":
    main()
