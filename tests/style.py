#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The style test: formatting, layers, length, complexity, banned calls and the other habits that can be checked.

usage: tests/style.py              check the tree, after checking that each rule can fail
       tests/style.py --self-test  only the latter: planted violations, each of which its rule must catch

Prints one line per violation and ends with the counts, one case per rule and one per planted violation.
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

# Which other folders' public header (folder/folder.h) a folder may include. None: anything.
LAYERS = {
    "base": [],
    "proto": ["base"],
    "net": ["base", "proto"],
    "store": ["base", "proto"],
    "scheduler": ["base"],
    "consensus": ["base", "proto", "net", "store"],
    "hypervisor": ["base"],
    "volume": ["base", "proto"],
    "guard": ["base"],
    "agent": ["base", "proto", "net", "store", "scheduler", "consensus", "hypervisor"],
    "cli": ["base", "proto", "net"],
    "tests": None,
    "bench": None,
}

# A library that has an owner: only these folders include its headers.
OWNED_LIBRARIES = {
    "raft": ["consensus"],
    "libvirt": ["hypervisor"],
    "sqlite3": ["store"],
    "mbedtls": ["net", "agent", "cli"],
    "uv": ["net", "consensus", "guard", "volume", "agent", "cli"],
}

LOGGING_FOLDERS = ["agent", "guard", "cli", "volume", "tests", "bench"]
PRINTING_FILES = {
    "base/log.c": "what the others log through",
    "base/check.c": "the last words before abort()",
    "store/sql.c": "the last words before abort()",
}

FUNCTION_LINES_MAX = 100
FUNCTION_LINES_P99 = 70
COMPLEXITY_MAX = 15
FILE_LINES_MAX = 600
LONG_FILES = {}  # path: why it is better long than cut

BANNED_CALLS = ["sprintf", "vsprintf", "strcpy", "strcat", "strtok", "atoi", "atol", "atof", "alloca", "rand", "srand",
                "random", "gets", "gettimeofday", "time"]
WALL_CLOCK_FILE = "base/clock.c"
CLANG_FORMAT_MAJOR = 14  # other releases format a little differently

ME = "tests/style.py"
TEXT_SUFFIXES = (".c", ".h", ".py", ".sh", ".cmake", ".txt", ".md", ".conf", ".yaml", ".json", ".service", "/run", "/init")


class Source:
    """A file of the tree; `code` is its text with comments and literals blanked, line for line."""

    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.folder = path.split("/")[0]
        self.is_c = path.endswith((".c", ".h"))
        self.is_header = path.endswith(".h")
        self.is_test = self.folder in ("tests", "bench")
        self.code = blank_comments(text) if self.is_c else text

    def find(self, pattern, text=None):
        """(line, match) of every match."""
        text = self.code if text is None else text
        for m in re.finditer(pattern, text, re.MULTILINE):
            yield text.count("\n", 0, m.start()) + 1, m


class Tree:
    def __init__(self, root, paths):
        self.root = root
        self.sources = []
        for path in sorted(paths):
            with open(os.path.join(root, path), encoding="utf-8") as f:
                self.sources.append(Source(path, f.read()))
        self.c = [s for s in self.sources if s.is_c]

    def run(self, command, **kwargs):
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False, **kwargs)


def blank_comments(text):
    token = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)

    def blank(m):
        piece = m.group(0)
        if piece[0] == '"' and is_include(text, m.start()):
            return piece
        return re.sub(r"[^\n]", " ", piece)

    return token.sub(blank, text)


def is_include(text, at):
    line = text[text.rfind("\n", 0, at) + 1:at]
    return re.match(r"\s*#\s*include\s*$", line) is not None


# --- rules: each yields (path, line, what) -------------------------------------------------------------------------

def rule_format(tree):
    for s in tree.c:
        done = tree.run(["clang-format", "--dry-run", "-Werror", s.path])
        if done.returncode != 0:
            first = re.search(r":(\d+):\d+: error: (.*)", done.stderr)
            line = int(first.group(1)) if first else 1
            yield s.path, line, "is not formatted (clang-format -i %s)" % s.path


def rule_layer(tree):
    for s in tree.c:
        if s.folder not in LAYERS:
            yield s.path, 1, "folder %s/ is not in the table of layers" % s.folder
            continue
        allowed = LAYERS[s.folder]
        for line, m in s.find(r'^\s*#\s*include\s*"([^"]*)"'):
            why = include_is_wrong(s.folder, m.group(1), allowed)
            if why:
                yield s.path, line, "includes \"%s\": %s" % (m.group(1), why)


def include_is_wrong(folder, name, allowed):
    if allowed is None:
        return None
    target = name.split("/")[0]
    if target == folder:
        return None
    if target not in LAYERS:
        return "write it as folder/file.h"
    if target not in allowed:
        return "%s/ may not use %s/" % (folder, target)
    if name != "%s/%s.h" % (target, target):
        return "of another folder only %s/%s.h may be included" % (target, target)
    return None


def rule_library(tree):
    for s in tree.c:
        if s.is_test:
            continue
        for line, m in s.find(r"^\s*#\s*include\s*<(\w+)[./]"):
            owners = OWNED_LIBRARIES.get(m.group(1))
            if owners is not None and s.folder not in owners:
                yield s.path, line, "uses %s, which belongs to %s" % (m.group(1), ", ".join(owners))
        if s.path == "consensus/consensus.h":
            for line, m in s.find(r"<raft"):
                yield s.path, line, "no raft type belongs in the public header"


def rule_sentence(tree):
    head = re.compile(r"/\* SPDX-License-Identifier: Apache-2\.0\n \* [^\s*](?:(?!\*/).)*?\.", re.DOTALL)
    for s in tree.c:
        if not head.match(s.text):
            yield s.path, 1, "must begin with the SPDX line and one sentence that says what the file is for"


def rule_alone(tree):
    flags = ["-x", "c", "-std=gnu11", "-D_GNU_SOURCE", "-DKEDGE_VERSION=\"\"", "-I.", "-fsyntax-only",
             "-Werror=implicit-function-declaration", *pkg_config_flags()]

    def compiles(s):
        return s, tree.run(["gcc", *flags, s.path])

    headers = [s for s in tree.c if s.is_header]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for s, done in pool.map(compiles, headers):
            if done.returncode != 0:
                error = next((line for line in done.stderr.splitlines() if "error:" in line), done.stderr[:200])
                yield s.path, 1, "does not compile alone: %s" % error


def pkg_config_flags():
    flags = []
    for name in ("raft", "libuv", "sqlite3", "msgpack-c", "msgpack", "yaml-0.1", "inih", "libxml-2.0", "libvirt", "cmocka"):
        done = subprocess.run(["pkg-config", "--cflags", name], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            flags += done.stdout.split()
    return flags


def functions(tree):
    """(path, line, name, lines, complexity) of every function outside the tests, from pmccabe."""
    paths = [s.path for s in tree.c if not s.is_test]
    done = tree.run(["pmccabe", *paths])
    for line in done.stdout.splitlines():
        m = re.match(r"(\d+)\s+\d+\s+\d+\s+(\d+)\s+(\d+)\s+(\S+)\(\d+\): (\S+)", line)
        if m:
            yield m.group(4), int(m.group(2)), m.group(5), int(m.group(3)), int(m.group(1))


def rule_length(tree):
    lengths = []
    for path, line, name, lines, _ in functions(tree):
        lengths.append(lines)
        if lines > FUNCTION_LINES_MAX and not name.endswith("_tick"):
            yield path, line, "%s() has %d lines, at most %d" % (name, lines, FUNCTION_LINES_MAX)
    lengths.sort()
    p99 = lengths[min(len(lengths) - 1, len(lengths) * 99 // 100)] if len(lengths) >= 100 else 0
    if p99 > FUNCTION_LINES_P99:
        yield ".", 0, "99 %% of the functions should have at most %d lines, it is %d" % (FUNCTION_LINES_P99, p99)


def rule_complexity(tree):
    for path, line, name, _, complexity in functions(tree):
        if complexity > COMPLEXITY_MAX and not name.endswith("_tick"):
            yield path, line, "%s() has complexity %d, at most %d" % (name, complexity, COMPLEXITY_MAX)


def rule_banned(tree):
    call = r"(?<![\w.>])(%s)\s*\(" % "|".join(BANNED_CALLS)
    for s in tree.c:
        for line, m in s.find(call):
            if not (m.group(1) in ("time", "gettimeofday") and s.path == WALL_CLOCK_FILE):
                yield s.path, line, "%s() is banned" % m.group(1)
        if s.path != WALL_CLOCK_FILE:
            for line, m in s.find(r"\bCLOCK_REALTIME\w*"):
                yield s.path, line, "the wall clock is read in %s only" % WALL_CLOCK_FILE
        for line, m in s.find(r"(?<!PLANTED\()\bvolatile\b(?!\s+sig_atomic_t)"):
            if not re.search(r"(asm|__asm__)\s+$", s.code[:m.start()]):
                yield s.path, line, "volatile does not order threads: use <stdatomic.h>"


def rule_compiler(tree):
    """What the compiler sees better than a pattern does: the flags must be on."""
    flags = next((s for s in tree.sources if s.path == "cmake/targets.cmake"), None)
    for flag in ("-Wall", "-Wextra", "-Werror", "-Wvla", "-Wshadow", "-Wmissing-prototypes"):
        if flags is None or not re.search(r"(?<![\w-])%s(?![\w-])" % flag, flags.text):
            yield "cmake/targets.cmake", 1, "%s is not among the flags" % flag


def rule_leftover(tree):
    marks = r"\b(TODO|FIXME)\b" # the words themselves, wherever they stand
    for s in tree.sources:
        if s.path == ME or s.path.endswith(".md"):
            continue
        for line, m in s.find(marks, s.text):
            yield s.path, line, "%s: do it or drop it" % m.group(1)
        if s.is_c:
            for line, m in s.find(r"^\s*#\s*if\s+0\b"):
                yield s.path, line, "dead code under #if 0"


def rule_size(tree):
    for s in tree.c:
        lines = s.text.count("\n")
        if lines > FILE_LINES_MAX and s.path not in LONG_FILES:
            yield s.path, lines, "has %d lines, at most %d: cut it in two or name it with a reason" % (lines, FILE_LINES_MAX)


def rule_machine(tree):
    paths = r"/wo" r"rk/[a-z]|/ho" r"me/[a-z]+/"
    for s in tree.sources:
        for line, m in s.find(paths, s.text):
            yield s.path, line, "'%s...' is a path of one machine" % m.group(0)


def rule_logging(tree):
    spoken = r"(?<![\w.>])(log_(?:line|error|warning|info|debug)|v?printf|puts|perror|syslog)\s*\(|\b(stderr|stdout)\b"
    for s in tree.c:
        if s.folder in LOGGING_FOLDERS or s.path in PRINTING_FILES or s.path == "base/log.h":
            continue
        for line, m in s.find(spoken):
            yield s.path, line, "%s in a library folder: whoever decides logs" % (m.group(1) or m.group(2))


def rule_guard(tree):
    for s in tree.c:
        if not s.is_header:
            continue
        name = "KEDGE_" + re.sub(r"[^A-Z0-9]", "_", s.path.upper())
        if not re.search(r"^#ifndef %s\n#define %s\n" % (name, name), s.code, re.MULTILINE):
            yield s.path, 1, "the include guard must be %s" % name
        elif not s.code.rstrip().endswith("#endif"):
            yield s.path, 1, "something follows the include guard's #endif"


RULES = [rule_format, rule_layer, rule_library, rule_sentence, rule_alone, rule_length, rule_complexity, rule_banned,
         rule_compiler, rule_leftover, rule_size, rule_machine, rule_logging, rule_guard]

# --- positive controls: a tree that no rule objects to, and single changes of it that one rule must catch ----------

HEAD = "/* SPDX-License-Identifier: Apache-2.0\n * A file of the self-test. */\n"
GOOD = {
    "cmake/targets.cmake": "add_compile_options(-Wall -Wextra -Werror -Wvla -Wshadow -Wmissing-prototypes)\n",
    "base/base.h": HEAD + "#ifndef KEDGE_BASE_BASE_H\n#define KEDGE_BASE_BASE_H\n\nint base_one(void);\n\n#endif\n",
    "base/one.c": HEAD + "#include \"base/base.h\"\n\nint base_one(void)\n{\n\treturn 1; /* not \"time()\" */\n}\n",
    "store/two.c": HEAD + "#include \"base/base.h\"\n\n#include <sqlite3.h>\n\nint store_two(void)\n{\n"
                          "\treturn base_one();\n}\n",
}


def function(name, body):
    return HEAD + "int %s(int a)\n{\n%s\treturn a;\n}\n" % (name, body)


def header(guard, body):
    return HEAD + "#ifndef %s\n#define %s\n\n%s\n\n#endif\n" % (guard, guard, body)


def planted():
    """(rule, what, {path: text}): each must be caught by its rule, and by no other unless named."""
    yield rule_format, "spaces for tabs", {"base/x.c": function("base_x", "    a  =  1;\n")}
    yield rule_layer, "a forbidden folder", {"scheduler/x.c": HEAD + "#include \"store/store.h\"\n"}
    yield rule_layer, "another folder's private header", {"net/x.c": HEAD + "#include \"base/clock.h\"\n"}
    yield rule_layer, "a header without its folder", {"net/x.c": HEAD + "#include \"clock.h\"\n"}
    yield rule_layer, "a folder that is in no layer", {"misc/x.c": function("misc_x", "")}
    yield rule_library, "raft outside consensus", {"agent/x.c": HEAD + "#include <raft.h>\n"}
    yield rule_library, "libuv in a pure folder", {"scheduler/x.c": HEAD + "#include <uv.h>\n"}
    yield rule_library, "a raft type in the public header", {
        "consensus/consensus.h": header("KEDGE_CONSENSUS_CONSENSUS_H", "#include <raft.h>")}
    yield rule_sentence, "no licence line", {"base/x.c": "/* A file. */\nint base_x;\n"}
    yield rule_sentence, "no sentence", {"base/x.c": "/* SPDX-License-Identifier: Apache-2.0 */\nint base_x;\n"}
    yield rule_alone, "a header that needs another", {"base/x.h": header("KEDGE_BASE_X_H", "size_t base_x(void);")}
    yield rule_length, "a long function", {"base/x.c": function("base_x", "\ta++;\n" * 101)}
    yield rule_length, "too many longish functions", {
        "base/x.c": HEAD + "\n".join("int base_%d(int a)\n{\n%s\treturn a;\n}\n" % (i, "\ta++;\n" * (80 if i < 3 else 0))
                                     for i in range(100))}
    yield rule_complexity, "a branchy function", {"base/x.c": function("base_x", "\tif (a)\n\t\ta--;\n" * 15)}
    for call in ("sprintf(s, f)", "strcpy(s, f)", "strcat(s, f)", "strtok(s, f)", "atoi(s)", "alloca(8)", "rand()",
                 "time(NULL)", "gettimeofday(s, f)"):
        yield rule_banned, call, {"base/x.c": function("base_x", "\ta = %s;\n" % call)}
    yield rule_banned, "the wall clock", {"base/x.c": function("base_x", "\ta = CLOCK_REALTIME;\n")}
    yield rule_banned, "volatile", {"base/x.c": HEAD + "static volatile int stop;\n"}
    yield rule_banned, "a banned call in a test", {"tests/x.c": function("test_x", "\ta = atoi(s);\n")}
    yield rule_compiler, "no -Wvla", {"cmake/targets.cmake": "add_compile_options(-Wall -Wextra -Werror -Wshadow)\n"}
    yield rule_leftover, "a note to oneself", {"base/x.c": HEAD + "/* TODO: all of it */\n"}
    yield rule_leftover, "a note in a script", {"deploy/x.sh": "# FIXME\n"}
    yield rule_leftover, "dead code", {"base/x.c": HEAD + "#if 0\nint base_x;\n#endif\n"}
    yield rule_size, "a long file", {"base/x.c": HEAD + "\n".join("extern int base_%d;" % i for i in range(620)) + "\n"}
    yield rule_machine, "a path", {"docs/x.md": "see /wo" "rk/shared/file\n"}
    yield rule_logging, "a library that logs", {"net/x.c": function("net_x", "\tlog_info(\"hello\");\n")}
    yield rule_logging, "a library that prints", {"net/x.c": function("net_x", "\tfprintf(stderr, \"hello\");\n")}
    yield rule_guard, "another guard", {"base/x.h": header("X_H", "int base_x(void);")}
    yield rule_guard, "no guard", {"base/x.h": HEAD + "int base_x(void);\n"}


def violations(rule, root, files):
    for path, text in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)
    shutil.copy(os.path.join(repository(), ".clang-format"), root)
    return list(rule(Tree(root, files)))


def self_test():
    """Returns the number of controls that held and that did not."""
    passed = failed = 0
    for rule in RULES:
        with tempfile.TemporaryDirectory(prefix="kedge-style-") as root:
            found = violations(rule, root, GOOD)
        if found:
            print("self-test: %s objects to the good tree: %s" % (rule_name(rule), found[0]))
            failed += 1
    controlled = set()
    for rule, what, files in planted():
        controlled.add(rule)
        with tempfile.TemporaryDirectory(prefix="kedge-style-") as root:
            found = violations(rule, root, {**GOOD, **files})
        if any(path in files or path == "." for path, _, _ in found):
            passed += 1
        else:
            print("self-test: %s did not catch: %s" % (rule_name(rule), what))
            failed += 1
    for rule in set(RULES) - controlled:
        print("self-test: %s has no control" % rule_name(rule))
        failed += 1
    return passed, failed


# --- the tree ------------------------------------------------------------------------------------------------------

def repository():
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def tracked(root):
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    paths = [p for p in done.stdout.split("\0") if p.endswith(TEXT_SUFFIXES)]
    return [p for p in paths if os.path.isfile(os.path.join(root, p))]


def rule_name(rule):
    return rule.__name__.replace("rule_", "")


def missing_tools():
    for tool in ("clang-format", "pmccabe", "gcc", "pkg-config", "git"):
        if shutil.which(tool) is None:
            yield tool


def drop_foreign_formatter():
    version = subprocess.run(["clang-format", "--version"], capture_output=True, text=True, check=True).stdout
    m = re.search(r"version (\d+)", version)
    if m and int(m.group(1)) != CLANG_FORMAT_MAJOR:
        print("style: clang-format %s is not %d: formatting is not checked" % (m.group(1), CLANG_FORMAT_MAJOR))
        RULES.remove(rule_format)


def check_tree(root):
    tree = Tree(root, tracked(root))
    if not tree.c:
        print("style: no C file is tracked here")
        return 0, 1
    passed = failed = 0
    for rule in RULES:
        found = list(rule(tree))
        for path, line, what in found:
            print("%s:%d: %s [%s]" % (path, line, what, rule_name(rule)))
        passed, failed = (passed, failed + 1) if found else (passed + 1, failed)
    return passed, failed


def main():
    missing = list(missing_tools())
    if missing:
        print("style: missing: %s (run deploy/install-deps.sh)" % " ".join(missing))
        return 2
    drop_foreign_formatter()
    passed, failed = self_test()
    if "--self-test" not in sys.argv[1:]:
        more = check_tree(repository())
        passed, failed = passed + more[0], failed + more[1]
    print("style: %d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
