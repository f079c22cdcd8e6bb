#!/usr/bin/env bash
# shellcheck disable=SC2317  # the traps call what looks unreachable
# SPDX-License-Identifier: Apache-2.0
# Runs the tests and ends with one line, `N passed, N failed`.
#
# usage: tests/run.sh            everything, some 22 minutes on two cores
#        tests/run.sh --quick    style, unit, a minute of simulation, one real cluster: about 5 minutes
#        tests/run.sh --long     everything with 2000 + 2000 + 5000 seeds, the quickstart, and the benchmarks 20 times
#        tests/run.sh --asan     build with address and undefined sanitizers: unit and simulation
#        tests/run.sh --tsan     build with the thread sanitizer: unit and simulation
#        tests/run.sh --fuzz [SECONDS]   each fuzzer of tests/fuzz for so long (60), with sanitizers; needs clang
#        tests/run.sh --coverage         lines that unit tests and simulators reach, by folder
#        tests/run.sh --no-install   may come with each of them: do not look for missing packages
#
# Each step's full output is kept in build/test-logs/STEP.log.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

usage_error() {
	echo "run.sh: unknown option '$1' (see --help)" >&2
	exit 2
}

mode=default preset=dev install=1 fuzz_seconds=60
for arg in "$@"; do
	case "$arg" in
	--quick | --long) mode=${arg#--} ;;
	--asan | --tsan) mode=sanitizer preset=${arg#--} ;;
	--fuzz | --coverage) mode=${arg#--} preset=${arg#--} ;;
	[1-9]*) [ "$mode" = fuzz ] && [ -z "${arg//[0-9]/}" ] && fuzz_seconds=$arg || usage_error "$arg" ;;
	--no-install) install='' ;;
	-h | --help)
		sed -n '4,15s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*) usage_error "$arg" ;;
	esac
done

build=build/$preset
logs=build/test-logs
mkdir -p "$logs"
passed=0 failed=0 current='' began=$SECONDS
declare -a broken=()

say() { printf '[%2d:%02d] %s\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) "$*"; }

# Processes of a step are in its own session, so that an interrupted run ends them all by their ids.
end_current() {
	[ -n "$current" ] || return 0
	kill -TERM -- "-$current" 2>/dev/null || true
	for _ in $(seq 100); do
		kill -0 -- "-$current" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL -- "-$current" 2>/dev/null || true
	current=''
}
sweep() { [ ! -e tests/cluster/harness.py ] || python3 tests/cluster/harness.py --sweep $$ >>"$logs/sweep.log" 2>&1 || true; }
finish() {
	local status=$?
	trap - EXIT
	trap '' INT TERM HUP # whoever asks twice must not keep us from tidying up
	end_current
	sweep
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# step NAME SECONDS COMMAND...: runs it, counts its cases; a command that fails without naming a case is one failure.
step() {
	local name=$1 limit=$2 from=$SECONDS status=0 p f
	shift 2
	say "$name ..."
	KEDGE_TEST_RUN=$$ KEDGE_BUILD="$PWD/$build" setsid timeout --kill-after=15 "$limit" "$@" >"$logs/$name.log" 2>&1 </dev/null &
	current=$!
	wait "$current" || status=$?
	end_current
	read -r p f < <(python3 tests/count.py "$logs/$name.log")
	if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
	if [ "$status" -eq 0 ] && [ $((p + f)) -eq 0 ]; then p=1; fi
	passed=$((passed + p)) failed=$((failed + f))
	if [ "$f" -eq 0 ]; then
		say "$name: $p passed ($((SECONDS - from)) s)"
		return 0
	fi
	if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then say "$name: was ended after $limit s"; fi
	say "$name: $p passed, $f FAILED ($((SECONDS - from)) s); from $logs/$name.log:"
	{
		head -n -40 "$logs/$name.log" | grep -E 'FAILED|FAIL:|ERROR|[Ee]rror:' | tail -n 20
		echo '...'
		tail -n 40 "$logs/$name.log"
	} | sed 's/^/    | /'
	broken+=("$name")
	return 1
}

summary() {
	sweep
	[ ${#broken[@]} -eq 0 ] || say "failed: ${broken[*]} (logs in $logs/)"
	echo "$passed passed, $failed failed"
	[ "$failed" -eq 0 ]
	exit
}

build_all() { cmake --preset "$preset" && cmake --build --preset "$preset"; }
simulate() { # NAME SECONDS ARGS...: the cluster, or the volume if the name begins so
	local name=$1 limit=$2 program=kedge-sim
	shift 2
	[ "${name#volume-}" = "$name" ] || program=kedge-volume-sim
	step "$name" "$limit" "$build/$program" "$@" || true
}
cluster_tests() {
	local test name
	for test in tests/cluster/test_*.py; do
		name=cluster-$(basename "$test" .py)
		step "${name/cluster-test_/cluster-}" 420 python3 "$test" || true
	done
}

# What it knows stays in corpus/ for the next time; what breaks it is in found/, and `fuzz_NAME FILE` does so again.
fuzz() { # NAME SECONDS
	local folder=$build/corpus/$1
	mkdir -p "$folder" "$build/found"
	KEDGE_FUZZ_SEEDS=$folder "$build/fuzz_$1" -max_total_time="$2" -max_len=8192 -timeout=30 -rss_limit_mb=2048 \
		-print_final_stats=1 -artifact_prefix="$build/found/$1-" "$folder"
}
fuzz_control() { # it has a mistake: if that is not found, nothing else is
	rm -rf "$build/corpus/control"
	if fuzz control 120; then
		echo "error: the planted mistake was not found"
		return 1
	fi
	ls "$build"/found/control-* && rm -f "$build"/found/control-*
}
fuzz_all() {
	local program name
	export -f fuzz fuzz_control
	export build
	step fuzz-control 180 bash -c fuzz_control || true
	for program in "$build"/fuzz_*; do
		name=${program##*/fuzz_}
		[ "$name" != control ] || continue
		step "fuzz-$name" $((fuzz_seconds + 120)) bash -c "fuzz $name $fuzz_seconds" || true
	done
}

if [ -n "$install" ]; then step install 600 deploy/install-deps.sh || summary; fi
export -f build_all
export preset
step build 900 bash -c build_all || summary
if [ "$mode" = fuzz ]; then
	fuzz_all
	summary
fi
[ "$mode" != coverage ] || find "$build" -name '*.gcda' -delete
step count 10 python3 tests/count.py --self-test || true
step style 120 python3 tests/style.py || true
step unit 300 ctest --test-dir "$build" --verbose -j 2 --no-tests=error || true

case "$mode" in
quick)
	simulate planted 120 --planted tests/sim/planted.seeds
	simulate simulation 90 --box 60
	simulate volume-planted 60 --planted tests/volume_sim/planted.seeds
	simulate volume-simulation 60 --box 20
	step guest 300 deploy/guest/build.sh build/guest || summary
	step cluster-join 300 python3 tests/cluster/test_join.py || true
	;;
coverage)
	simulate planted 400 --planted tests/sim/planted.seeds
	simulate volume-planted 200 --planted tests/volume_sim/planted.seeds
	step coverage 300 python3 tests/coverage.py "$build" || true
	cat "$logs/coverage.log"
	;;
sanitizer)
	simulate planted 400 --planted tests/sim/planted.seeds
	simulate simulation 330 --box 200
	simulate volume-planted 200 --planted tests/volume_sim/planted.seeds
	simulate volume-simulation 150 --box 60
	;;
*)
	simulate planted 200 --planted tests/sim/planted.seeds
	simulate volume-planted 60 --planted tests/volume_sim/planted.seeds
	if [ "$mode" = long ]; then
		simulate simulation 14400 --seeds 2000
		simulate simulation-disks 14400 --seed 4 --step 4 --seeds 2000
		simulate volume-simulation 1800 --seeds 5000
	else
		simulate simulation 150 --box 90
		simulate volume-simulation 100 --box 40
	fi
	step guest 300 deploy/guest/build.sh build/guest || summary
	step volume-engine 300 python3 tests/volume/test_engine.py || true
	step volume-replicas 420 python3 tests/volume/test_replicas.py || true
	[ "$mode" != long ] || export KEDGE_TEST_LONG=1 # more cases of each
	step volume-faults 600 python3 tests/volume/test_faults.py || true
	step volume-power 300 python3 tests/volume/test_power.py || true
	step volume-clients 300 python3 tests/volume/test_clients.py || true
	step volume-scrub 180 python3 tests/volume/test_scrub.py || true
	step volume-durable 60 python3 tests/volume/test_durable.py || true
	step volume-renewal 180 python3 tests/volume/test_renewal.py || true
	step volume-filesystems 120 python3 tests/volume/test_filesystems.py || true
	step harness 120 python3 tests/cluster/harness_selftest.py || true
	cluster_tests
	if [ "$mode" = long ]; then
		quick_dir=/tmp/kt-$$-quickstart
		step quickstart 1200 deploy/quickstart.sh --dir "$quick_dir" || true
		step quickstart-again 1200 deploy/quickstart.sh --dir "$quick_dir" || true
		step quickstart-stop 60 deploy/quickstart.sh --stop --dir "$quick_dir" || true
		for bench in bench/*.py; do
			[ ! -e "$bench" ] || step "bench-$(basename "$bench" .py)" 7200 python3 "$bench" --runs 20 || true
		done
	fi
	;;
esac
summary
