#!/usr/bin/env bash
# Makes the demo guest from Debian's own packages: a kernel and an initrd with busybox and deploy/guest/init.
#
# usage: deploy/guest/build.sh OUTDIR        -> OUTDIR/vmlinuz, OUTDIR/initrd.img
#
# The kernel package is downloaded and unpacked aside, never installed. The second call does nothing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -ne 1 ]; then
	echo "usage: $0 OUTDIR" >&2
	exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
modules=(virtio virtio_ring virtio_pci virtio_blk virtio_net virtio_rng button evdev)

# Two builds of one directory wait for each other instead of mixing their files.
exec 9>"$out/.lock"
flock 9

wanted=$(cat "$here/build.sh" "$here/init" | sha256sum | cut -d' ' -f1)
if [ -s "$out/vmlinuz" ] && [ -s "$out/initrd.img" ] && [ "$(cat "$out/.stamp" 2>/dev/null)" = "$wanted" ]; then
	exit 0
fi
for tool in apt-get dpkg-deb cpio depmod modprobe; do
	if ! command -v "$tool" >/dev/null; then
		echo "guest: '$tool' is missing: run deploy/install-deps.sh run" >&2
		exit 1
	fi
done
busybox=$(command -v busybox) || {
	echo "guest: busybox-static is missing: run deploy/install-deps.sh run" >&2
	exit 1
}

tmp=$(mktemp -d "$out/.build.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

newest_kernel() { # the real package behind the meta package
	apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1
}

package=$(newest_kernel)
if [ -z "$package" ]; then
	apt-get update -qq
	package=$(newest_kernel)
fi
if [ -z "$package" ]; then
	echo "guest: the configured Debian mirror has no linux-image-cloud-amd64" >&2
	exit 1
fi
echo "guest: building from $package"
download() { (cd "$tmp" && apt-get download -qq "$package" 2>"$tmp/download.log"); }
if ! download; then
	apt-get update -qq # the mirror may have moved on
	download || {
		cat "$tmp/download.log" >&2
		exit 1
	}
fi
dpkg-deb -x "$tmp"/linux-image-*.deb "$tmp/kernel"
version=${package#linux-image-}
[ -e "$tmp/kernel/lib" ] || ln -s usr/lib "$tmp/kernel/lib" # where Debian 13 has its modules

root=$tmp/root
mkdir -p "$root"/{bin,dev,proc,sys,lib/modules}
cp "$busybox" "$root/bin/busybox"
install -m 755 "$here/init" "$root/init"

# depmod knows what needs what (on Debian 13 they are compressed); `order` is then simply read from the top.
depmod -b "$tmp/kernel" "$version"
for module in "${modules[@]}"; do
	modprobe -d "$tmp/kernel" -S "$version" --show-depends "$module" 2>/dev/null || true
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' |
	while read -r file; do
		name=$(basename "$file")
		case "$file" in
		*.xz) name=${name%.xz} && xz -dc "$file" >"$root/lib/modules/$name" ;;
		*.zst) name=${name%.zst} && zstd -qdc "$file" >"$root/lib/modules/$name" ;;
		*) cp "$file" "$root/lib/modules/$name" ;;
		esac
		echo "$name"
	done >"$tmp/order"
mv "$tmp/order" "$root/lib/modules/order"

# Not compressed: unpacking costs an emulated CPU more time than reading does.
(cd "$root" && find . -print0 | cpio --null -o -H newc --owner 0:0 --quiet) >"$tmp/initrd.img"
mv "$tmp"/kernel/boot/vmlinuz-* "$out/vmlinuz"
mv "$tmp/initrd.img" "$out/initrd.img"
echo "$wanted" >"$out/.stamp"
echo "guest: $out/vmlinuz and $out/initrd.img are ready"
