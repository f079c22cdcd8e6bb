#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and tests this tree on Debian 13, in a chroot: with gcc and clang, and the quickstart of three nodes.
#
# usage: tests/debian13.sh [--dir DIR] [COMMAND...]
#
# DIR keeps the chroot for the next time; without it one is made below /var/tmp (3 GiB) and removed in the end. COMMAND is
# run in the tree instead of the usual tests. Needs root and a mirror of Debian, which it reads from this machine's own
# sources. What it mounts and starts lives in namespaces of its own, and ends with this script.
set -euo pipefail

source_dir=$(cd "$(dirname "$0")/.." && pwd)
dir='' child='' temporary=''
die() {
	echo "debian13: $*" >&2
	exit 1
}
say() { printf 'debian13: [%2d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

while [ $# -gt 0 ]; do
	case "$1" in
	--dir)
		dir=$(realpath -m "${2:?--dir needs a directory}")
		shift
		;;
	-h | --help)
		sed -n '3,9s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	-*) die "unknown option '$1' (see --help)" ;;
	*) break ;;
	esac
	shift
done
[ "$(id -u)" -eq 0 ] || die "must run as root: it makes a chroot"

clean() {
	local status=$?
	trap - EXIT INT TERM HUP
	if [ -n "$child" ]; then
		kill -KILL "$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	[ -z "$temporary" ] || rm -rf --one-file-system "$dir"
	exit "$status"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

# inside NET SCRIPT: runs it with that tree as root, with the machine's network or (NET is alone) with a loopback of its own.
inside() {
	local net=()
	[ "$1" != alone ] || net=(--net)
	unshare --mount --pid --fork --kill-child=KILL "${net[@]}" bash -euc '
		tree=$1
		mount --bind "$tree" "$tree"
		mount --rbind /dev "$tree/dev" && mount --rbind /sys "$tree/sys"
		mount -t proc proc "$tree/proc" && mount -t tmpfs tmpfs "$tree/run"
		[ "$2" != alone ] || ip link set lo up
		cd "$tree" && pivot_root . . && umount -l . && cd /root/kedge # rather than chroot: tests enter namespaces
		exec env HOME=/root LC_ALL=C.UTF-8 /bin/bash -o pipefail -c "$3"
	' - "$dir/tree" "$1" "$2" </dev/null &
	child=$!
	wait "$child" || {
		child=''
		return 1
	}
	child=''
}

make_tree() {
	local mirror
	command -v debootstrap >/dev/null || {
		say "installing debootstrap"
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
	}
	mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Identifier: Packages' |
		awk '$1 == "Debian" && $2 ~ /^[a-z]+$/ {print $3; exit}')
	[ -n "$mirror" ] || die "no mirror of Debian is configured in /etc/apt (or 'apt-get update' never ran)"
	say "making a Debian 13 from $mirror"
	rm -rf --one-file-system "$dir/tree"
	unshare --mount --pid --fork --kill-child=KILL debootstrap --variant=minbase trixie "$dir/tree.new" "$mirror" \
		>"$dir/debootstrap.log" 2>&1 </dev/null &
	child=$!
	wait "$child" || {
		tail -n 20 "$dir/debootstrap.log" >&2
		die "debootstrap failed (is Debian 13, trixie, on that mirror?)"
	}
	child=''
	mv "$dir/tree.new" "$dir/tree"
}

copy_sources() { # as they are, with what is not committed; the build of before stays
	mkdir -p "$dir/tree/root/kedge"
	(cd "$dir/tree/root/kedge" && find . -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +)
	(cd "$source_dir" && git ls-files -co --exclude-standard -z | while IFS= read -r -d '' path; do
		[ ! -e "$path" ] || printf '%s\0' "$path"
	done | tar -c --null -T -) | tar -x -C "$dir/tree/root/kedge"
}

failed=()
check() { # WHAT SCRIPT
	say "$1 ..."
	if inside alone "$2"; then
		say "$1: passed"
	else
		say "$1: FAILED"
		failed+=("$1")
	fi
}

if [ -z "$dir" ]; then
	dir=$(mktemp -d /var/tmp/kedge-debian13.XXXXXX)
	temporary=1
fi
mkdir -p "$dir"
rm -rf --one-file-system "$dir/tree.new"
[ -d "$dir/tree" ] || make_tree
copy_sources
say "installing what the build and the tests need"
inside net 'deploy/install-deps.sh && deploy/guest/build.sh build/guest && rm -rf .git && git init -q && git add -A'
if [ $# -gt 0 ]; then
	check "$*" "$*"
else
	check "tests, built by gcc" 'tests/run.sh --quick --no-install'
	check "volume engine" 'KEDGE_BUILD=$PWD/build/dev python3 tests/volume/test_engine.py'
	check "built by clang" 'cmake -B build/clang -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER=clang >build/clang.log &&
		cmake --build build/clang >>build/clang.log || { tail -n 40 build/clang.log; exit 1; }'
	check "unit tests, built by clang" 'ctest --test-dir build/clang -j 2 --no-tests=error --output-on-failure | tail -n 40'
	check "planted bugs, built by clang" 'build/clang/kedge-sim --planted tests/sim/planted.seeds | tail -n 3 &&
		build/clang/kedge-volume-sim --planted tests/volume_sim/planted.seeds | tail -n 3'
	check "quickstart" 'deploy/quickstart.sh --dir /tmp/q && deploy/quickstart.sh --stop --dir /tmp/q'
fi
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
say "all passed"
