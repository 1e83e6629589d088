#!/usr/bin/env bash
# Measures a Kiln on S3 and Redis beside an embedded one, all on this machine, and prints the table of
# docs/benchmarks.md: storage, then what S3 itself takes from a plain client, then the queue.
#
#   benches/fleet.sh [options of kiln-load, such as --work ac-hit --seconds 1 --repeat 3]
#
# Starts redis-server (append-only file on) and SeaweedFS's S3 gateway, which it installs where they
# are missing. KILN_BENCH_DIR chooses where they keep their data; KILN_BENCH_BUILD=0 skips the build;
# KILN_BENCH_QUEUE=0 leaves the queue out.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=../scripts/tools.sh
. "$root/scripts/tools.sh"
need_redis || fail "redis-server cannot be had here"
need_weed || fail "weed (SeaweedFS) cannot be had here"

# shellcheck source=servers.sh
. "$root/benches/servers.sh"
[ "${KILN_BENCH_BUILD:-1}" = 0 ] || cargo build --release --locked -p kiln-scheduler --example execute_cost
need_built kiln kiln-load examples/execute_cost

# await NAME PORT: until something listens there.
await() {
  for _ in $(seq 600); do
    (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return
    sleep 0.1
  done
  fail "$1 did not listen on port $2 within a minute: $(tail -n 3 "$data/$1.log")"
}

base=$((12000 + RANDOM % 8000))
redis=$((base + 1)) s3=$((base + 2))
export AWS_ACCESS_KEY_ID=kiln AWS_SECRET_ACCESS_KEY=kiln-secret AWS_REGION=us-east-1
endpoint="http://127.0.0.1:$s3"

mkdir "$data/redis" "$data/weed"
"$KILN_REDIS" --port "$redis" --bind 127.0.0.1 --dir "$data/redis" --save '' \
  --appendonly yes --appendfsync everysec --maxmemory-policy noeviction >"$data/redis.log" 2>&1 &
servers+=($!)
HOME="$data/weed" "$KILN_WEED" mini -dir="$data/weed" -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3.port="$s3" \
  -bucket=kiln-bench -master.telemetry=false -webdav=false -admin.ui=false -s3.port.iceberg=0 \
  -master.port=$((base + 5)) -volume.port=$((base + 6)) -filer.port=$((base + 7)) \
  -admin.port=$((base + 8)) >"$data/weed.log" 2>&1 &
servers+=($!)
await redis "$redis"
await weed "$s3"
put() {
  curl --silent --fail --output /dev/null --aws-sigv4 "aws:amz:us-east-1:s3" \
    --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" --upload-file "$1" "$endpoint/kiln-bench/$2"
}
for _ in $(seq 300); do
  put /etc/hostname ready 2>/dev/null && break
  sleep 0.1
done

start embedded "$target/kiln" serve --listen 127.0.0.1:PORT --data-dir "$data/embedded" --allow-cache-updates
KILN_S3_ENDPOINT="$endpoint" start shared "$target/kiln" serve --listen 127.0.0.1:PORT --data-dir "$data/shared" \
  --allow-cache-updates --redis "redis://127.0.0.1:$redis" --s3 s3://kiln-bench/blobs

# What the store takes from a client that does nothing else, 64 MiB at a time, in MB/s.
head -c $((64 << 20)) /dev/urandom >"$data/64m"
plain_writes() {
  local count=8 begin end
  sync
  begin=$(date +%s%N)
  for number in $(seq $count); do put "$data/64m" "plain-$1-$number" || fail "a PUT to SeaweedFS failed"; done
  end=$(date +%s%N)
  awk -v bytes=$((count << 26)) -v ns=$((end - begin)) -v when="$1" \
    'BEGIN { printf "curl PUT of 64 MiB to SeaweedFS (%s): %.0f MB/s\n", when, bytes / ns * 1000 }'
}
plain_writes before
works=(--work cache)
case " $* " in *" --work "*) works=() ;; esac
"$target/kiln-load" "${arguments[@]}" "${works[@]}" "$@"
plain_writes after

[ "${KILN_BENCH_QUEUE:-1}" = 0 ] && exit
for pid in "${servers[@]:2}"; do kill "$pid" 2>/dev/null || true; done
for frontends in 1 2 4; do
  say "the queue, $frontends frontends"
  "$target/examples/execute_cost" "redis://127.0.0.1:$redis" "$frontends"
done
