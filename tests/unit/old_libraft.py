#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The build refuses a libraft that breaks agreement, in words; and takes the one that is installed (the control)."""
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OLD = "Name: raft\nDescription: old\nVersion: 0.15.0\nLibs: -lraft\n"


def configure(pkg_config_path):
    with tempfile.TemporaryDirectory(prefix="kt-%d-cmake-" % os.getpid()) as build:
        env = {**os.environ, "PKG_CONFIG_PATH": pkg_config_path}
        return subprocess.run(["cmake", "-S", ROOT, "-B", build], env=env, capture_output=True, text=True, check=False)


def main():
    with tempfile.TemporaryDirectory(prefix="kt-%d-pc-" % os.getpid()) as pc:
        with open(pc + "/raft.pc", "w", encoding="utf-8") as f:
            f.write(OLD)
        refused = configure(pc)
    words = " ".join(refused.stderr.split())
    if refused.returncode == 0 or "libraft >= 0.22 is needed, found '0.15.0'" not in words or "diverge" not in words:
        sys.exit("libraft 0.15 was not refused with its reason: %d\n%s" % (refused.returncode, refused.stderr))
    taken = configure("")
    if taken.returncode != 0:
        sys.exit("the installed libraft was refused:\n" + taken.stderr)


if __name__ == "__main__":
    main()
