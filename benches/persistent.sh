#!/usr/bin/env bash
# Persistent workers: real Bazel builds the actions of a tool that takes its time to start, once by
# itself each and once by a tool that stays.
#
#   benches/persistent.sh                   builds Kiln first; ROUNDS=3 ACTIONS=100
#   KILN=path/to/kiln benches/persistent.sh measures this binary
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=../scripts/tools.sh
. scripts/tools.sh
need_bazel
if [ -z "${KILN:-}" ]; then
  cargo build --release --locked -p kiln
  KILN="${CARGO_TARGET_DIR:-target}/release/kiln"
fi
place=$(mktemp -d)
kiln=
trap 'kill $kiln 2>/dev/null || true; wait; chmod -R u+w "$place"; rm -rf "$place"' EXIT

workspace="$place/workspace"
mkdir -p "$workspace"
touch "$workspace/WORKSPACE"
printf 'build:kiln --spawn_strategy=remote\nbuild --color=no --curses=no --noshow_progress\n' >"$workspace/.bazelrc"
cp -r tests/workspace/persistent "$workspace/persistent"
cat >"$workspace/persistent/BUILD" <<BUILD
load(":defs.bzl", "capitals")
exports_files(["tool.py"])
[capitals(
    name = "json%d" % number,
    src = "text%d.txt" % number,
    exec_properties = {
        "kiln-tool-inputs": "persistent/tool.py",
        "persistentWorkerKey": "capitals",
        "persistentWorkerProtocol": "json",
    },
    protocol = "json",
) for number in range(${ACTIONS:-100})]
BUILD
for number in $(seq 0 $((${ACTIONS:-100} - 1))); do echo "text $number" >"$workspace/persistent/text$number.txt"; done

bazel() {
  (cd "$workspace" && "$KILN_BAZEL" --output_user_root="$place/bazel" --max_idle_secs=60 --nohome_rc "$@" 2>"$place/bazel.log") ||
    { cat "$place/bazel.log" >&2; exit 1; }
}
metric() { curl -fs "http://127.0.0.1:$port/metrics" | awk -v name="$1" '$1 == name { print $2 }'; }

# seconds TOOLS NAME: sets `took` and `ran` (mean milliseconds of an action).
measure() {
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  KILN_WORKERS_PERSISTENT=$1 "$KILN" serve --listen "127.0.0.1:$port" --data-dir "$place/data-$2" >/dev/null 2>&1 &
  kiln=$!
  until curl -fs "http://127.0.0.1:$port/readyz" >/dev/null; do sleep 0.05; done
  bazel clean
  local begin
  begin=$(date +%s.%N)
  bazel build --config=kiln --remote_executor="grpc://127.0.0.1:$port" --jobs=8 //persistent:all
  took=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.2f", b - a }')
  ran=$(awk -v sum="$(metric 'kiln_action_stage_duration_seconds_sum{stage="run"}')" -v count="${ACTIONS:-100}" \
    'BEGIN { printf "%.2f", sum / count * 1000 }')
  started=$(metric kiln_persistent_workers_started_total)
  kill "$kiln"
  wait "$kiln" || true
  rm -rf "$place/data-$2"
}

bazel info >/dev/null
echo "| round | build, each by itself | build, tools that stay | ratio | run, by itself | run, tools that stay | ratio | tools |"
echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
for round in $(seq "${ROUNDS:-3}"); do
  measure 0 "alone-$round"
  alone=$took alone_ran=$ran
  measure auto "stays-$round"
  awk -v round="$round" -v a="$alone" -v b="$took" -v ra="$alone_ran" -v rb="$ran" -v tools="$started" \
    'BEGIN { printf "| %d | %.2f s | %.2f s | %.1f | %.1f ms | %.1f ms | %.1f | %d |\n", round, a, b, a / b, ra, rb, ra / rb, tools }'
done
bazel shutdown
