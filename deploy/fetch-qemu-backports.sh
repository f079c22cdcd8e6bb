#!/usr/bin/env bash
# Puts the QEMU tools of Debian 12's backports (qemu-nbd, qemu-img, qemu-io, qemu-storage-daemon) into a folder of their
# own, beside the installed ones, which stay as they are: qemu-nbd 7.2 stalls over TCP, and a benchmark wants its best rival.
#
# usage: deploy/fetch-qemu-backports.sh [DIR]      (default: build/qemu-backports)
#   DIR/bin/TOOL then runs it, with the libraries that this machine lacks.
#
# Needs no root: packages are looked up and verified through the machine's own Debian mirror in lists of its own, and
# unpacked without being installed. Nothing is fetched when DIR is there already. On Debian 13 the installed QEMU is as
# new: nothing is done.
set -euo pipefail

dir=${1:-$(dirname "$0")/../build/qemu-backports}
case "$dir" in
-h | --help)
	sed -n '2,10s/^# \{0,1\}//p' "$0"
	exit 0
	;;
esac
. /etc/os-release
if [ "${VERSION_ID:-}" != 12 ]; then
	echo "fetch-qemu-backports: Debian ${VERSION_ID:-?} has no such backport: its own QEMU is used"
	exit 0
fi
[ ! -x "$dir/bin/qemu-nbd" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,debs,tree,bin}

# The mirror and the keyring that this machine already uses for its release.
uri='' keyring=''
for source in /etc/apt/sources.list.d/*.sources; do
	[ -e "$source" ] && grep -qE '^Suites:.*\bbookworm\b' "$source" || continue
	uri=$(awk '/^URIs:/ {print $2; exit}' "$source")
	keyring=$(awk '/^Signed-By:/ {print $2; exit}' "$source")
	[[ "$uri" == *security* ]] || break
done
if [ -z "$uri" ]; then
	uri=$(awk '$1 == "deb" { for (i = 2; i < NF; i++) if ($i ~ /^(https?|file|mirror)/ && $(i+1) == "bookworm") { print $i; exit } }' \
		/etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true)
fi
if [ -z "$uri" ]; then
	echo "fetch-qemu-backports: no Debian mirror with the suite bookworm is configured" >&2
	exit 1
fi
{
	echo "Types: deb"
	echo "URIs: $uri"
	echo "Suites: bookworm bookworm-backports"
	echo "Components: main"
	[ -z "$keyring" ] || echo "Signed-By: $keyring"
} >"$work/debian.sources"

apt=(-qq -o "Dir::State=$work/state" -o "Dir::State::status=/var/lib/dpkg/status" -o "Dir::Cache=$work/cache"
	-o "Dir::Etc::sourcelist=$work/debian.sources" -o "Dir::Etc::sourceparts=/dev/null"
	-o "APT::Sandbox::User=$(id -un)" -o "Debug::NoLocking=1")
apt-get "${apt[@]}" update

# The tools, and whatever they would pull in that is not installed here.
wanted=(qemu-utils/bookworm-backports)
while read -r name version; do
	[ "$name" = qemu-utils ] || wanted+=("$name=$version")
done < <(apt-get "${apt[@]}" --simulate --no-install-recommends install qemu-utils/bookworm-backports |
	sed -nE 's/^Inst ([^ ]+) (\[[^]]*\] )?\(([^ ]+) .*/\1 \3/p')
(cd "$work/debs" && apt-get "${apt[@]}" download "${wanted[@]}")
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/tree"; done

for tool in qemu-nbd qemu-img qemu-io qemu-storage-daemon; do
	cat >"$work/bin/$tool" <<-'EOF'
		#!/bin/sh
		here=$(dirname "$(dirname "$(readlink -f "$0")")")
		libraries=$(find "$here/tree" -type d -name '*-linux-gnu' -path '*lib*' | paste -sd:)
		LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/tree/usr/bin/$(basename "$0")" "$@"
	EOF
	chmod +x "$work/bin/$tool"
done
"$work/bin/qemu-nbd" --version | head -n 1
mkdir -p "$dir"
rm -rf "${dir:?}/tree"
mv "$work/tree" "$dir/tree"
mv "$work/bin" "$dir/bin" # last: what is complete has it
