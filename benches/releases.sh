#!/usr/bin/env bash
# Times what is said of releases in docs/benchmarks.md, on a server of its own with a release build of kiln.
#
# usage: [FILES=1000] [MIB=1024] [ROUNDS=5] [PROMOTIONS=200] [PORT=8987] benches/releases.sh
# Needs bazel (BAZEL), curl, openssl, and a release build of kiln (KILN, default target/release/kiln). KILN_BENCH_DIR chooses
# where a few GiB are kept meanwhile.
set -euo pipefail

files=${FILES:-1000} mib=${MIB:-1024} rounds=${ROUNDS:-5} promotions=${PROMOTIONS:-200} port=${PORT:-8987}
kiln=${KILN:-$(cd "$(dirname "$0")/.." && pwd)/target/release/kiln}
work=$(mktemp -d "${KILN_BENCH_DIR:-${TMPDIR:-/tmp}}/kiln-releases.XXXXXX")
server=http://127.0.0.1:$port
pid=
finish() {
  if [ -n "$pid" ]; then kill "$pid" && wait "$pid" || true; fi
  (cd "$work/app" && "${BAZEL:-bazel}" --output_user_root="$work/bazel" shutdown) || true
  chmod -R u+w "$work" && rm -rf "$work"
}
trap finish EXIT
cd "$work"

openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.pem
cat > environments.toml << 'POLICY'
[environments.dev]
[environments.prod]
after = ["dev"]
signers = ["server"]
level = 1
conditions = ["release.name.startsWith('bench/')"]
POLICY
KILN_RELEASES_KEY=server.pem KILN_PROMOTION_POLICY=environments.toml \
  "$kiln" serve --listen "127.0.0.1:$port" --data-dir data --workers 1 > server.log 2>&1 &
pid=$!
until curl -sf -o probe "$server/api/v1/environments"; do
  kill -0 "$pid"
  sleep 0.1
done

# Files of random bytes, which an action makes, and which stay at the server.
mkdir app && touch app/WORKSPACE
cat > app/BUILD << BUILD
genrule(
    name = "files",
    outs = ["out/f%d" % it for it in range($files)],
    cmd = "for it in \$(OUTS); do head -c $((mib * 1048576 / files)) /dev/urandom > \$\$it; done",
)
genrule(name = "small", outs = ["one"], cmd = "echo one > \$@")
genrule(name = "other", outs = ["two"], cmd = "echo two > \$@")
BUILD
invocation=$(cat /proc/sys/kernel/random/uuid)
(cd app && "${BAZEL:-bazel}" --output_user_root="$work/bazel" build --invocation_id="$invocation" \
  --remote_executor="grpc://127.0.0.1:$port" --remote_download_minimal //... ) > bazel.log 2>&1 || { tail bazel.log; exit 1; }

seconds() { # COMMAND...
  local start end
  start=$(date +%s.%N)
  "$@" > said
  end=$(date +%s.%N)
  awk "BEGIN { printf \"%.2f\", $end - $start }"
}
create() { # VERSION TARGET
  "$kiln" release create "$1" --invocation "$invocation" --target "$2" --server "$server"
}
# The same files on a disk, to be read once.
"$kiln" release create bench/files:0 --invocation "$invocation" --target //:files --server "$server" --json > made.json
layer=$(python3 -c 'import json; it = json.load(open("made.json")); print(max(it["content"], key=lambda it: it["size"])["digest"].split(":")[1])')
"$kiln" release export bench/files:0 --output export --server "$server" > said
mkdir plain && tar -xf "export/blobs/sha256/$layer" -C plain && rm -rf export && sync
read_all() { find plain -type f -exec cat {} + > /dev/null; }
hash_all() { find plain -type f -exec cat {} + | sha256sum; }

echo "| $files files, $mib MiB | round | seconds |"
echo "| --- | --- | --- |"
# A release of all files but one: of a layer that is not there yet.
new() { # VERSION, NUMBER OF THE FILE
  local some=() it
  for it in $(seq 0 $((files - 1))); do if [ "$it" != "$2" ]; then some+=(--output "out/f$it"); fi; done
  "$kiln" release create "bench/new:$1" --invocation "$invocation" --target //:files --server "$server" "${some[@]}"
}
for round in $(seq "$rounds"); do
  echo "| read once (cat) | $round | $(seconds read_all) |"
  echo "| read and hashed once (sha256sum) | $round | $(seconds hash_all) |"
  # Another version of what is there packs and hashes nothing anew; other outputs are a layer of their own.
  echo "| a release under another name | $round | $(seconds create "bench/files:again-$round" //:files) |"
  echo "| a release of one file less, a layer that is not there yet | $round | $(seconds new "$round" $((files - round))) |"
done
# Whoever may (root) reads from the disk as well, and not out of the page cache.
forget=/proc/sys/vm/drop_caches
for round in $(if [ -w "$forget" ]; then seq "$rounds"; fi); do
  sync && echo 3 > "$forget"
  echo "| read once, from the disk | $round | $(seconds read_all) |"
  sync && echo 3 > "$forget"
  echo "| a release of one file less, from the disk | $round | $(seconds new "cold-$round" $((files - rounds - round))) |"
done

# Two that take turns in an environment that asks for a signature, a level, an expression and another environment.
create bench/one:1 //:small > said
create bench/one:2 //:other > said
for it in 1 2; do "$kiln" promote "bench/one:$it" --to dev --server "$server" > said; done
for it in $(seq "$promotions"); do
  version=$((it % 2 + 1))
  body="{\"release\":\"bench/one:$version\",\"environment\":\"prod\",\"reason\":\"measured\"}"
  curl -sf -o answer -w '%{time_total}\n' -X POST -H 'content-type: application/json' -d "$body" "$server/api/v1/promotions"
done | sort -n > times
echo "promotions: p50 $(awk "NR == int($promotions / 2)" times) s, p99 $(awk "NR == int($promotions * 0.99)" times) s"
tail -c 300 answer
