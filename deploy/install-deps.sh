#!/usr/bin/env bash
# Installs what Kedge needs to build and run on Debian 12 or 13, from the machine's own Debian mirror.
#
# usage: deploy/install-deps.sh [build] [run] [test]      (default: all three)
#   build  compiler, CMake, the -dev packages
#   run    libvirt with the embedded QEMU driver, QEMU, the parts of the demo guest
#   test   clang, pmccabe, python3 and the foreign tools that the tests set against ours
#
# It asks dpkg first and does nothing when everything is there. Safe to run any number of times.
set -euo pipefail

sets=("$@")
[ ${#sets[@]} -gt 0 ] || sets=(build run test)

. /etc/os-release
case "${VERSION_ID:-}" in
12) backports=bookworm-backports msgpack=libmsgpack-dev ;;
13) backports='' msgpack=libmsgpack-c-dev ;;
*)
	echo "install-deps: Debian ${VERSION_ID:-?} is not supported: use Debian 12 or 13" >&2
	exit 1
	;;
esac

build_packages=(build-essential cmake ninja-build pkg-config git ca-certificates libuv1-dev libsqlite3-dev "$msgpack"
	libmbedtls-dev libyaml-dev libinih-dev libxml2-dev libcmocka-dev liburing-dev libgnutls28-dev)
# From backports on Debian 12: its own libraft commits entries of old terms by counting, which is unsafe.
build_backports=(libraft-dev libvirt-dev)
run_packages=(busybox-static cpio kmod procps qemu-utils xz-utils)
run_backports=(libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86)
test_packages=(clang clang-format pmccabe python3 python3-yaml openssl nftables iproute2 strace
	fio libnbd-bin python3-libnbd nbdkit e2fsprogs xfsprogs btrfs-progs mount)

want=() want_backports=()
for set in "${sets[@]}"; do
	case "$set" in
	build) want+=("${build_packages[@]}") want_backports+=("${build_backports[@]}") ;;
	run) want+=("${run_packages[@]}") want_backports+=("${run_backports[@]}") ;;
	test) want+=("${test_packages[@]}") ;;
	*)
		echo "install-deps: unknown set '$set' (one of: build run test)" >&2
		exit 2
		;;
	esac
done

is_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=() missing_backports=()
for p in "${want[@]}"; do is_installed "$p" || missing+=("$p"); done
for p in "${want_backports[@]}"; do is_installed "$p" || missing_backports+=("$p"); done
# A libraft from before the backport counts as missing: the build would refuse it anyway.
if is_installed libraft-dev && dpkg --compare-versions "$(dpkg-query -W -f '${Version}' libraft-dev)" lt 0.22; then
	missing_backports+=(libraft-dev)
fi
if [ ${#missing[@]} -eq 0 ] && [ ${#missing_backports[@]} -eq 0 ]; then
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "install-deps: not root, and these packages are missing: ${missing[*]} ${missing_backports[*]}" >&2
	exit 1
fi

# Adds the backports suite to the mirror that this machine already uses, with the keyring it already trusts.
add_backports() {
	local list=/etc/apt/sources.list.d/kedge-backports.sources uri keyring src
	grep -rqsE "(Suites:.*|deb .*)\\b$backports\\b" /etc/apt/sources.list /etc/apt/sources.list.d && return 0
	for src in /etc/apt/sources.list.d/*.sources; do
		[ -e "$src" ] && grep -qE '^Suites:.*\bbookworm\b' "$src" || continue
		uri=$(awk '/^URIs:/ {print $2; exit}' "$src")
		keyring=$(awk '/^Signed-By:/ {print $2; exit}' "$src")
		break
	done
	if [ -z "${uri:-}" ]; then
		uri=$(awk '$1 == "deb" { for (i = 2; i < NF; i++) if ($i ~ /^(https?|file|mirror)/ && $(i+1) == "bookworm") { print $i; exit } }' \
			/etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true)
	fi
	if [ -z "${uri:-}" ]; then
		echo "install-deps: no Debian mirror with the suite bookworm is configured, so $backports (libraft >= 0.22) cannot be added" >&2
		exit 1
	fi
	{
		echo "Types: deb"
		echo "URIs: $uri"
		echo "Suites: $backports"
		echo "Components: main"
		[ -z "${keyring:-}" ] || echo "Signed-By: $keyring"
	} >"$list"
}

[ -z "$backports" ] || add_backports
export DEBIAN_FRONTEND=noninteractive
echo "install-deps: installing ${missing[*]} ${missing_backports[*]}"
apt-get update -qq
# Services of the packages (libvirtd and the like) are not wanted here: Kedge starts what it needs itself.
policy=/usr/sbin/policy-rc.d made_policy=''
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	made_policy=1
fi
trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
if [ ${#missing[@]} -gt 0 ]; then
	apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if [ ${#missing_backports[@]} -gt 0 ]; then
	offers=$(apt-cache policy libraft-dev)
	if [ -n "$backports" ] && [[ "$offers" != *"$backports"* ]]; then
		echo "install-deps: the configured mirror does not offer $backports, which has libraft >= 0.22, libvirt 11 and QEMU 10" >&2
		exit 1
	fi
	apt-get install -y -qq --no-install-recommends ${backports:+-t "$backports"} "${missing_backports[@]}" >/dev/null
fi
