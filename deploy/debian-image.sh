#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a Debian image for clouds from packages: this machine's own release, with cloud-init, from its own mirror.
#
# usage: deploy/debian-image.sh [--out FILE]      FILE is build/debian-CODENAME.qcow2 unless said otherwise
#
# It is an image like any other: a partition table, ext4, GRUB in the gap before the partition, Debian's kernel for
# clouds, systemd and cloud-init, which finds its data by itself and grows the root file system to the disk. Needs root
# and 2 GiB of room beside FILE while it works; what runs and is mounted meanwhile lives in namespaces of its own, and ends
# with this script. Does nothing if FILE is there and this script has not changed since.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. /etc/os-release
codename=${VERSION_CODENAME:-}
out=$here/../build/debian-$codename.qcow2
mib=1048576
gap=1        # MiB before the partition
size=1024    # MiB of the whole disk; the root grows with the volume that is made from it
packages=linux-image-cloud-amd64,grub-pc,systemd-sysv,dbus,udev,cloud-init,cloud-guest-utils,fdisk,e2fsprogs,iproute2
packages+=,openssh-server,ca-certificates,zstd

die() {
	echo "debian-image: $*" >&2
	exit 1
}
began=$SECONDS
say() { printf 'debian-image: [%2d:%02d] %s\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) "$*"; }

while [ $# -gt 0 ]; do
	case "$1" in
	--out)
		out=${2:?--out needs a file}
		shift
		;;
	-h | --help)
		sed -n '3,10s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*)
		echo "debian-image: unknown option '$1' (see --help)" >&2
		exit 2
		;;
	esac
	shift
done
case "$codename" in
bookworm | trixie) ;;
*) die "Debian ${VERSION_ID:-?} is not supported: use Debian 12 or 13" ;;
esac
[ "$(dpkg --print-architecture)" = amd64 ] || die "only amd64 is supported: the boot loader is that of a PC"
out=$(realpath -m "$out")
wanted=$({ cat "$0" && echo "$codename"; } | sha256sum | cut -d' ' -f1)
if [ -s "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$wanted" ]; then
	exit 0
fi
[ "$(id -u)" -eq 0 ] || die "must run as root: the files of the image belong to its root"

install_tools() {
	local p missing=()
	for p in mmdebstrap fdisk e2fsprogs qemu-utils; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing ${missing[*]}, which are needed to make it"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
		die "apt-get install ${missing[*]} failed: install them by hand, then start again"
}

# Lines for the image's sources.list: this machine's own Debian mirrors, with the updates and security that it has.
sources() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg uri suite origin
	apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(ORIGIN)' 'Identifier: Packages' | sort -u |
		while read -r uri suite origin; do
			case "$origin $suite" in
			"Debian $codename" | "Debian $codename-updates" | "Debian $codename-security")
				echo "deb $([ ! -e $keyring ] || echo "[signed-by=$keyring] ")$uri $suite main"
				;;
			esac
		done
}

work='' child=''
clean() {
	local status=$?
	trap - EXIT INT TERM HUP
	if [ -n "$child" ]; then # its namespaces, with all that is in them, end with it
		kill -KILL "$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	[ -z "$work" ] || rm -rf --one-file-system "$work"
	exit "$status"
}
trap clean EXIT
trap 'echo "debian-image: interrupted; nothing of it is left" >&2; exit 130' INT TERM HUP

# apart WHAT COMMAND...: in namespaces of its own; its output is shown only when it fails.
apart() {
	local what=$1
	shift
	unshare --mount --pid --fork --kill-child=KILL --mount-proc "$@" >"$work/log" 2>&1 </dev/null &
	child=$!
	if ! wait "$child"; then
		child=''
		tail -n 30 "$work/log" >&2
		die "$what failed, see above"
	fi
	child=''
}

# What every image for clouds brings: a console on the serial line, a network by networkd, nothing of this machine. Where a
# machine has no network, nothing waits for it. Of the keys for SSH, which cloud-init makes anew, the cheapest one does.
settle_tree() {
	local tree=$1
	cat >"$tree/etc/default/grub.d/50-cloud.cfg" <<-'CFG'
		GRUB_TIMEOUT=0
		GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
		GRUB_TERMINAL="console serial"
		GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
	CFG
	echo "LABEL=root / ext4 errors=remount-ro 0 1" >"$tree/etc/fstab"
	echo localhost >"$tree/etc/hostname"
	printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$tree/etc/hosts"
	rm -f "$tree/etc/resolv.conf" "$tree"/etc/ssh/ssh_host_* "$tree"/var/cache/apt/*.bin
	: >"$tree/etc/machine-id"
	mkdir -p "$tree/etc/systemd/system/systemd-networkd-wait-online.service.d"
	printf '[Unit]\nConditionPathExistsGlob=/sys/class/net/e*\n' \
		>"$tree/etc/systemd/system/systemd-networkd-wait-online.service.d/no-network.conf"
	printf 'ssh_genkeytypes: [ed25519]\nlocale: C.UTF-8\n' >"$tree/etc/cloud/cloud.cfg.d/50-small.cfg"
	chroot "$tree" systemctl -q enable systemd-networkd
}

# The first grub.cfg; `update-grub` in the guest writes Debian's own. The kernel has no name here, it may be a newer one.
write_grub() {
	local tree=$1 kernel
	kernel=$(basename "$tree"/boot/vmlinuz-*)
	mkdir -p "$tree/boot/grub"
	cp -r "$tree/usr/lib/grub/i386-pc" "$tree/boot/grub/"
	cat >"$tree/boot/grub/grub.cfg" <<-CFG
		serial --unit=0 --speed=115200
		terminal_output console serial
		search --no-floppy --label root --set=root
		linux /boot/$kernel root=LABEL=root ro console=tty0 console=ttyS0,115200
		initrd /boot/initrd.img-${kernel#vmlinuz-}
		boot
	CFG
	chroot "$tree" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p '(hd0,msdos1)/boot/grub' \
		biosdisk part_msdos ext2
}

# A partition table, the file system behind the gap, and GRUB in the gap: boot.img expects core.img in sector 1.
write_disk() {
	local tree=$1 disk=$2 core=$1/boot/grub/i386-pc/core.img
	truncate -s "${size}M" "$disk"
	echo "start=$((gap * mib / 512)), type=83, bootable" | sfdisk -q --label dos "$disk"
	[ "$(stat -c %s "$core")" -le $((gap * mib - 512)) ] || die "GRUB's core.img does not fit into the gap"
	dd if="$tree/boot/grub/i386-pc/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
	dd if="$core" of="$disk" bs=512 seek=1 conv=notrunc status=none
	mkfs.ext4 -q -L root -d "$tree" -E offset=$((gap * mib)) "$disk" "$((size - gap))M" >"$work/log" 2>&1 || {
		cat "$work/log" >&2
		die "mkfs.ext4 failed, see above"
	}
}

install_tools
mkdir -p "$(dirname "$out")"
lines=$(sources)
[ -n "$lines" ] || {
	apt-get update -qq
	lines=$(sources)
}
[ -n "$lines" ] || die "no Debian mirror with the suite $codename is configured in /etc/apt"
free=$(df -Pm "$(dirname "$out")" | awk 'NR == 2 {print $4}')
[ "$free" -ge 2048 ] || die "$(dirname "$out") has $free MiB of room, 2048 are needed: choose another --out"
work=$(mktemp -d "$out.XXXXXX")

say "putting Debian $VERSION_ID together from packages (a minute or two)"
echo "$lines" >"$work/sources.list"
mkdir "$work/tree"
apart mmdebstrap mmdebstrap --mode=root --variant=minbase --include="$packages" --skip=output/dev \
	--aptopt='Apt::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--essential-hook='echo grub-pc grub-pc/install_devices_empty boolean true | chroot "$1" debconf-set-selections' \
	"$codename" "$work/tree" "$work/sources.list"
settle_tree "$work/tree"
write_grub "$work/tree"
say "$(du -sm "$work/tree" | cut -f1) MiB of files; writing the disk"
write_disk "$work/tree" "$work/disk.raw"
say "compressing it"
qemu-img convert -c -f raw -O qcow2 "$work/disk.raw" "$work/disk.qcow2"
rm -f "$out.stamp"
mv "$work/disk.qcow2" "$out"
echo "$wanted" >"$out.stamp"
say "$out is ready: $(($(stat -c %s "$out") / mib)) MiB, a disk of $size MiB"
