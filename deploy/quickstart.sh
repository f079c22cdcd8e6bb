#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Three nodes on this machine, a virtual machine on one of them, and that node's sudden death.
#
# usage: deploy/quickstart.sh [--dir DIR]            set everything up, show a failover, leave the cluster running
#        deploy/quickstart.sh --debian [--dir DIR]   the same with a real Debian: an image, cloud-init, its root on a volume
#        deploy/quickstart.sh --stop [--dir DIR]     end it and remove everything
#
# DIR is /var/tmp/kedge-quickstart unless said otherwise. The nodes listen on 127.0.0.1, .2 and .3, port 7443. A second
# start takes up what is there. Guests are emulated (no KVM needed); KEDGE_ACCEL=kvm or auto changes that.
set -euo pipefail

source_dir=$(cd "$(dirname "$0")/.." && pwd)
bin=$source_dir/build/release
dir=/var/tmp/kedge-quickstart
action=start
port=7443
nodes=(1 2 3)
vm=demo
patience=60 # seconds for the guest to count elsewhere

while [ $# -gt 0 ]; do
	case "$1" in
	--stop) action=stop ;;
	--debian) vm=debian patience=600 ;; # it boots for half a minute, or for some when the machine is busy
	--dir)
		dir=${2:?--dir needs a directory}
		shift
		;;
	-h | --help)
		sed -n '3,10s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*)
		echo "quickstart: unknown option '$1' (see --help)" >&2
		exit 2
		;;
	esac
	shift
done
dir=$(realpath -m "$dir")
marker=$dir/.kedge-quickstart
image=$source_dir/build/debian.qcow2

began=$SECONDS
say() { printf '[%2d:%02d] %s\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) "$*"; }
die() {
	echo "quickstart: $*" >&2
	exit 1
}
node_kedge() { # N ARGS...
	local n=$1
	shift
	KEDGE_DIR=$dir/n$n "$bin/kedge" "$@"
}

# Ids of our own programs that have something below a directory on their command line.
pids_below() { # DIRECTORY [PROGRAM]
	local entry argv program
	for entry in /proc/[0-9]*; do
		argv=()
		{ mapfile -d '' argv <"$entry/cmdline"; } 2>/dev/null || continue
		[ ${#argv[@]} -gt 0 ] || continue
		program=${argv[0]##*/}
		case "$program" in
		kedged | kedge-guard | kedge-vol | qemu-system-*) ;;
		*) continue ;;
		esac
		[ -z "${2:-}" ] || [ "$program" = "$2" ] || continue
		[[ " ${argv[*]}" == *"$1/"* ]] && echo "${entry#/proc/}"
	done
	return 0
}

end_all() {
	local pids
	for _ in $(seq 50); do
		mapfile -t pids < <(pids_below "$dir")
		[ ${#pids[@]} -gt 0 ] || return 0
		kill -KILL "${pids[@]}" 2>/dev/null || true
		sleep 0.1
	done
	die "these processes do not end: ${pids[*]}"
}

stop() {
	if [ ! -e "$marker" ]; then
		say "there is no quickstart cluster in $dir"
		return 0
	fi
	say "ending every process of $dir"
	end_all
	rm -rf "$dir"
	say "done: nothing of it is left"
}

# quiet NAME COMMAND...: its output goes to a log, and to the terminal only when it fails.
quiet() {
	local log=$source_dir/build/quickstart-$1.log
	shift
	mkdir -p "$source_dir/build"
	if ! "$@" >"$log" 2>&1 </dev/null; then
		tail -n 30 "$log" >&2
		die "'$*' failed (all of it: $log)"
	fi
}

wait_until() { # SECONDS WHAT COMMAND...
	local deadline=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		if [ $SECONDS -ge $deadline ]; then
			die "gave up waiting: $what (logs: $dir/n*.log)"
		fi
		sleep 0.1
	done
}

build() {
	say "looking for packages"
	"$source_dir/deploy/install-deps.sh" build run
	command -v python3 >/dev/null || "$source_dir/deploy/install-deps.sh" test
	say "building (a minute or two the first time)"
	quiet configure cmake -S "$source_dir" --preset release
	if [ -t 1 ]; then
		cmake --build "$bin"
	else
		quiet build cmake --build "$bin"
	fi
	if [ "$vm" = debian ]; then
		say "making an image of Debian from packages (some two minutes the first time)"
		"$source_dir/deploy/debian-image.sh" --out "$image"
	else
		say "making the guest: a kernel and a busybox from Debian's packages"
		quiet guest "$source_dir/deploy/guest/build.sh" "$source_dir/build/guest"
	fi
}

runs() { [ -n "$(pids_below "$dir/n$1" kedged)" ]; }
is_busy() { (exec 3<>"/dev/tcp/127.0.0.$1/$port") 2>/dev/null; }

check_ports() {
	local n busy=()
	for n in "${nodes[@]}"; do
		if ! runs "$n" && is_busy "$n"; then busy+=("127.0.0.$n:$port"); fi
	done
	[ ${#busy[@]} -eq 0 ] || die "already in use: ${busy[*]} (another quickstart? end it with --stop and its --dir)"
}

start_node() { # N
	runs "$1" && return 0
	say "starting node n$1"
	setsid nohup "$bin/kedged" --config "$dir/n$1/kedge.conf" </dev/null >>"$dir/n$1.log" 2>&1 &
	disown
}

set_accel() { # N
	local conf=$dir/n$1/kedge.conf accel=${KEDGE_ACCEL:-tcg}
	sed -i '/^\[hypervisor\]/,/^\[/ s/^[;# ]*accel *=.*/accel = '"$accel"'/' "$conf"
	grep -q "^accel = $accel" "$conf" || sed -i "s/^\[hypervisor\]/&\naccel = $accel/" "$conf"
}

# Reads JSON and prints a Python expression over it, called d.
json() { python3 -c "import json, sys; d = json.load(sys.stdin); print($1)"; }
voters_up() { node_kedge 1 status --json 2>/dev/null | json "d['quorum'] and sum(n['state'] == 'up' for n in d['nodes']) or 0" 2>/dev/null; }
has_quorum() { [ "$(voters_up)" -ge "$1" ] 2>/dev/null; }

form_cluster() {
	local n token
	say "making a cluster in $dir"
	mkdir -p "$dir"
	touch "$marker"
	"$bin/kedge" init --dir "$dir/n1" --name n1 --listen "127.0.0.1:$port"
	set_accel 1
	start_node 1
	wait_until 30 "n1 has a quorum" has_quorum 1
	for n in 2 3; do
		token=$(node_kedge 1 token)
		say "node n$n joins with a one-use token"
		"$bin/kedge" join --dir "$dir/n$n" --name "n$n" --listen "127.0.0.$n:$port" "$token"
		set_accel "$n"
		start_node "$n"
	done
	touch "$dir/.formed"
}

cluster() {
	local n
	if [ -e "$dir" ] && [ ! -e "$marker" ]; then
		die "$dir exists and was not made by this script: choose another --dir"
	fi
	if [ -e "$marker" ] && [ ! -e "$dir/.formed" ]; then
		say "removing what an interrupted start left"
		end_all
		rm -rf "$dir"
	fi
	check_ports
	if [ -e "$dir/.formed" ]; then
		say "the cluster in $dir is taken up again"
		for n in "${nodes[@]}"; do start_node "$n"; done
	else
		form_cluster
	fi
	wait_until 60 "three nodes are up" has_quorum 3
	wait_until 30 "their volume engines are there" has_engines
	node_kedge 1 node ls
}

counts() { # true when the guest writes right now, wherever it is
	local before after
	before=$(cat "$dir"/n*/console/"$vm".log 2>/dev/null | wc -c)
	sleep 0.5
	after=$(cat "$dir"/n*/console/"$vm".log 2>/dev/null | wc -c)
	[ "$after" -gt "$before" ] && grep -qs '^kedge-guest .*count=' "$dir"/n*/console/"$vm".log
}

in_sync() {
	[ "$(node_kedge 1 volume show "$vm.root" --json | json "sum(r['state'] == 'in-sync' for r in d['volume']['replicas'])" 2>/dev/null)" = 2 ]
}
writes() { grep -qs '^kedge-guest .*wrote=' "$dir"/n*/console/"$vm".log; }
has_engines() { [ "$(node_kedge 1 node ls --json | json "sum(n['engine'] for n in d['nodes'])" 2>/dev/null)" = ${#nodes[@]} ]; }

demo_yaml() {
	cat <<-YAML
		kind: vm
		name: $vm
		vcpus: 1
		memory: 128MiB
		run: true
		boot: {kernel: $source_dir/build/guest/vmlinuz, initrd: $source_dir/build/guest/initrd.img, cmdline: console=ttyS0 quiet}
		disks: [{name: root, size: 256MiB, replicas: 2}]
	YAML
}

debian_yaml() {
	cat <<-YAML
		kind: vm
		name: $vm
		vcpus: 1
		memory: 512MiB
		run: true
		disks: [{name: root, size: 2GiB, replicas: 2, image: debian}]
		cloud-init: {user-data: $source_dir/deploy/guest/user-data}
	YAML
}

apply_vm() {
	"${vm}_yaml" >"$dir/$vm.yaml"
	say "kedge apply -f $dir/$vm.yaml"
	node_kedge 1 apply -f "$dir/$vm.yaml"
	say "waiting until the guest counts on its serial line, and writes a log to its disk"
	wait_until $((patience + 30)) "the guest counts" counts
	wait_until 60 "both replicas of its disk are in sync" in_sync
	wait_until 30 "it writes" writes
	node_kedge 1 vm ls
	node_kedge 1 volume ls
}

has_image() { [ "$(node_kedge 1 image ls --json | json "sum(i['name'] == 'debian' for i in d['images'])" 2>/dev/null)" = 1 ]; }

add_image() {
	if ! has_image; then
		say "kedge image add debian $image"
		node_kedge 1 image add debian "$image"
	fi
	node_kedge 1 image ls
}

# What cloud-init and the guest's own program said, wherever it ran.
show_console() {
	say "from its serial line:"
	grep -ahE '^(cloud-init of |kedge-guest .*found=|Debian )' "$dir"/n*/console/"$vm".log | tr -d '\r' | sed 's/^/    /'
}

prove() {
	local how=()
	[ "$vm" != debian ] || how=(--in-a-file)
	"$source_dir/deploy/guest_log.py" --dir "$dir" --kedge "$bin/kedge" --vm "$vm" "${how[@]}"
}

hints() {
	cat <<-TEXT

		The cluster is left running. Talk to it:

		    export PATH=$bin:\$PATH KEDGE_DIR=$dir/n1
		    kedge status                       the cluster at a glance
		    kedge vm ls                        where the VM is, and why
		    kedge volume ls                    its disk, and who has it
		    kedge events --follow              what happens, as it happens
		    kedge vm stop $vm; kedge vm start $vm
		    tail -F $dir/n*/console/$vm.log    the guest's own voice

		Hurt it: send SIGKILL or SIGSTOP to a kedged, a kedge-guard or a qemu below $dir and watch the
		console. Run this script again for another failover; end everything with

		    $0 --stop$([ "$dir" = /var/tmp/kedge-quickstart ] || echo " --dir $dir")
	TEXT
}

if [ "$action" = stop ]; then
	stop
	exit 0
fi
[ "$(id -u)" -eq 0 ] || die "must run as root: the guests' QEMU is started as root here"
[ ${#dir} -le 40 ] || die "$dir is too long: the paths of Unix sockets below it would not fit (at most 40 letters)"
trap 'echo; echo "quickstart: interrupted; $0 --stop removes what was made" >&2; exit 130' INT TERM
build
cluster
[ "$vm" != debian ] || add_image
apply_vm
[ "$vm" != debian ] || show_console
say "now the node of '$vm' loses power: every process of it is killed"
python3 "$source_dir/deploy/show_failover.py" --dir "$dir" --kedge "$bin/kedge" --vm "$vm" --patience "$patience"
[ "$vm" != debian ] || show_console
for n in "${nodes[@]}"; do start_node "$n"; done
wait_until 60 "the killed node is back" has_quorum 3
say "the killed node is back; its replica gets what it missed"
wait_until 60 "both replicas are in sync again" in_sync
node_kedge 1 node ls
node_kedge 1 volume ls
say "is every line that the guest was told is written on its disk, before the failover and after it?"
prove
hints
