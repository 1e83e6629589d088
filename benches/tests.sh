#!/usr/bin/env bash
# Measures what Kiln does about tests, on this machine, as ratios in one run:
#
#   benches/tests.sh [events] [recording] [grid] [shards] [impact]      # all of them without a name
#
# events: build events from 8 streams, against a server that does nothing but acknowledge them. recording: tests that write a
# report, with the history switched off and on. grid: 5,000 tests at 200 commits, as pages and programs get it. shards: a plan for 100,000 cases. impact: a workspace of 5,000 targets
# whose base is known, against one `bazel query` (KILN_BAZEL names a Bazel).
# KILN_BENCH_BUILD=0 skips the build; KILN_BENCH_DIR chooses where the servers keep their data.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=../scripts/tools.sh
. "$root/scripts/tools.sh"
# shellcheck source=servers.sh
. "$root/benches/servers.sh"
need_built kiln kiln-floor kiln-load kiln-events

events() {
  say "build events: 8 streams"
  arguments=()
  start floor "$target/kiln-floor" --listen 127.0.0.1:PORT
  start kiln "$target/kiln" serve --listen 127.0.0.1:PORT --data-dir "$data/events"
  "$target/kiln-events" "${arguments[@]}" --repeat "${ROUNDS:-5}"
  stop
}

recording() {
  say "tests, without and with their history"
  arguments=()
  start off env KILN_TESTS_RECORD=false "$target/kiln" serve --listen 127.0.0.1:PORT --data-dir "$data/off" --workers 2
  start on "$target/kiln" serve --listen 127.0.0.1:PORT --data-dir "$data/on" --workers 2
  "$target/kiln-load" "${arguments[@]}" --work execute-tests --seconds 2 --repeat "${ROUNDS:-5}"
  stop
}

grid() {
  say "the grid of 200 commits and 5,000 tests"
  arguments=()
  start kiln "$target/kiln" serve --listen 127.0.0.1:PORT --data-dir "$data/grid"
  local url=http://127.0.0.1:$port path
  "$target/kiln-events" --target "kiln=$url" --commits 200 --events 5000
  for path in '/tests/grid?columns=200' '/tests/grid?columns=200&page=20' \
    '/tests/grid?columns=200&outcome=failing&sort=failures' '/api/v1/tests/grid?columns=200&limit=100' '/tests'; do
    curl -fsS -o /dev/null -w "$path: first %{time_total} s, %{size_download} bytes\n" "$url$path"
    # What is kept of all tests is a few seconds old by then, and read anew.
    sleep 4
    curl -fsS -o /dev/null -w "$path: again %{time_total} s\n" "$url$path"
  done
  stop
}

# timed COMMAND...: seconds that it takes, the median of five.
timed() {
  for _ in 1 2 3 4 5; do
    local began ended
    began=$(date +%s%N)
    "$@" >"$data/said" 2>"$data/said.log" || { cat "$data/said.log" >&2; fail "$* failed"; }
    ended=$(date +%s%N)
    echo $(((ended - began) / 1000))
  done | sort -n | sed -n 3p | awk '{ printf "%.3f", $1 / 1e6 }'
}

shards() {
  say "a plan for 100,000 cases"
  python3 - "$data/durations.json" <<'PYTHON'
import json, random, sys
random.seed(1)
cases = {f"tests/test_{n // 50}.py::Test::test_{n}": random.lognormvariate(-2, 1.5) for n in range(100_000)}
json.dump(cases, open(sys.argv[1], "w"))
PYTHON
  for count in 8 32 200; do
    echo "shards $count: $(timed "$target/kiln" tests shards --durations "$data/durations.json" --shards "$count" --format json) s"
  done
}

impact() {
  need_bazel || { say "no Bazel: impact is left out"; return; }
  say "impact: 5,000 targets"
  local work=$data/workspace bazel=$data/bazel
  printf '#!/bin/sh\n[ "$1" = --version ] && exec %s --version\nexec %s --output_user_root=%s --nohome_rc "$@"\n' \
    "$KILN_BAZEL" "$KILN_BAZEL" "$data/bazel-out" >"$bazel"
  chmod +x "$bazel"
  mkdir -p "$work"
  python3 - "$work" <<'PYTHON'
import os, sys
root = sys.argv[1]
open(f"{root}/WORKSPACE", "w").close()
for package in range(250):
    os.makedirs(f"{root}/p{package}")
    with open(f"{root}/p{package}/BUILD.bazel", "w") as build:
        build.write('package(default_visibility = ["//visibility:public"])\n')
        for target in range(20):
            deps = [f"//p{package // 2}:t{target}"] if package else []
            srcs = [f"f{target}.txt"] + deps
            build.write(f'filegroup(name = "t{target}", srcs = {srcs!r})\n'.replace("'", '"'))
            with open(f"{root}/p{package}/f{target}.txt", "w") as source:
                source.write(f"{package} {target}\n")
PYTHON
  (
    cd "$work"
    git init -q -b main . && git add -A
    git -c user.name=b -c user.email=b@localhost commit -qm base
    echo changed >p3/f1.txt
    "$target/kiln" impact --base HEAD --bazel "$bazel" >/dev/null
    local query kiln
    query=$(timed "$bazel" query --output=proto --order_output=no '//...')
    kiln=$(timed "$target/kiln" impact --base HEAD --bazel "$bazel")
    echo "bazel query: $query s; kiln impact, base known: $kiln s ($(wc -l <"$data/said") affected)"
    awk -v a="$kiln" -v b="$query" 'BEGIN { printf "ratio: %.2f\n", a / b }'
    "$bazel" shutdown 2>/dev/null
  )
}

for what in "${@:-events recording grid shards impact}"; do
  for one in $what; do "$one"; done
done
