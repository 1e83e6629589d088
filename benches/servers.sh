#!/usr/bin/env bash
# Sourced by run.sh, fleet.sh, swarm.sh and tests.sh, after scripts/tools.sh: a release build, a directory for data, and servers,
# which go when the script ends. KILN_BENCH_BUILD=0 skips the build; KILN_BENCH_DIR chooses where the data is kept.

# need_built NAME...: programs of the build, in $target.
need_built() {
  local program
  target=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd) || fail "there is no release build: build one with cargo build --release"
  for program in "$@"; do
    [ -x "$target/$program" ] || fail "$target/$program is missing: build it with cargo build --release"
  done
}

[ "${KILN_BENCH_BUILD:-1}" = 0 ] || cargo build --release --locked -p kiln-benches -p kiln --bins

data=$(mktemp -d "${KILN_BENCH_DIR:-${TMPDIR:-/tmp}}/kiln-bench.XXXXXX")
servers=()
stop() {
  for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${servers[@]}"; do wait "$pid" 2>/dev/null || true; done
  servers=()
}
# Functions that undo what a script has set up besides, once its servers are gone.
undo=()
finish() {
  status=$?
  stop
  for it in "${undo[@]}"; do "$it" || true; done
  if [ $status -ne 0 ]; then tail -n 5 "$data"/*.log >&2 2>/dev/null || true; fi
  chmod -R u+w "$data" 2>/dev/null || true
  rm -rf "$data"
}
trap finish EXIT

port=$((20000 + RANDOM % 12000))
# What kiln-load and kiln-events are told of the servers.
arguments=()
# start NAME COMMAND...: runs a server on the next port, which replaces PORT in the command.
start() {
  local name=$1
  shift
  port=$((port + 1))
  "${@//PORT/$port}" >"$data/$name.log" 2>&1 &
  local pid=$!
  servers+=("$pid")
  for _ in $(seq 300); do
    kill -0 "$pid" 2>/dev/null || fail "$name ended at once: $(tail -n 3 "$data/$name.log")"
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      arguments+=(--target "$name=http://127.0.0.1:$port" --pid "$name=$pid")
      return
    fi
    sleep 0.1
  done
  fail "$name did not listen on port $port within 30 s"
}
