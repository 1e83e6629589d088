#!/usr/bin/env bash
# Pulls from Kiln's registry and from Debian's docker-registry, in turns, in one run on loopback.
#
# usage: [ROUNDS=3] [SIZE_MIB=256] [SMALL=300] benches/registry.sh
# Needs KILN_REGISTRY (docker-registry), curl, and a release build of kiln (KILN, default target/release/kiln).
set -euo pipefail

rounds=${ROUNDS:-3} size=${SIZE_MIB:-256} small=${SMALL:-300}
kiln=${KILN:-$(dirname "$0")/../target/release/kiln}
: "${KILN_REGISTRY:?the path of docker-registry}"
work=$(mktemp -d)
started=()
trap 'kill "${started[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

await() { # URL
  for _ in $(seq 200); do
    if curl -s -o "$work/probe" "$1"; then return; fi
    sleep 0.05
  done
  echo "$1 does not answer" >&2
  exit 1
}

mkdir "$work/other" "$work/kiln"
other=127.0.0.1:$(free_port) own=127.0.0.1:$(free_port)
cat > "$work/other.yml" << CONFIG
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $work/other } }
http: { addr: $other }
CONFIG
"$KILN_REGISTRY" serve "$work/other.yml" > "$work/other.log" 2>&1 &
started+=($!)
KILN_WORKERS_COUNT=0 "$kiln" serve --listen "$own" --data-dir "$work/kiln" > "$work/kiln.log" 2>&1 &
started+=($!)
await "http://$other/v2/"
await "http://$own/v2/"

head -c "$((size << 20))" /dev/urandom > "$work/blob"
head -c 2048 /dev/urandom > "$work/small"
digest() { echo "sha256:$(sha256sum < "$1" | cut -d' ' -f1)"; }
large=$(digest "$work/blob") little=$(digest "$work/small")

# Seconds that a push took.
push() { # HOST FILE DIGEST
  local location start end
  location=$(curl -sf -D - -o "$work/answer" -X POST "http://$1/v2/bench/app/blobs/uploads/" -H 'content-length: 0' \
    | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  case $location in http*) ;; *) location=http://$1$location ;; esac
  case $location in *\?*) location="$location&digest=$3" ;; *) location="$location?digest=$3" ;; esac
  start=$(date +%s.%N)
  curl -sf -o "$work/answer" -X PUT -H 'content-type: application/octet-stream' -T "$2" "$location"
  end=$(date +%s.%N)
  awk "BEGIN { print $end - $start }"
}

# Seconds for one pull of the large blob by one client, then by four at a time.
pull() { # URL
  curl -sf -o /dev/null -w "%{time_total}" "$1"
}
pull_by_four() { # URL
  local start end pids=()
  start=$(date +%s.%N)
  for _ in 1 2 3 4; do
    curl -sf -o /dev/null "$1" &
    pids+=($!)
  done
  wait "${pids[@]}"
  end=$(date +%s.%N)
  awk "BEGIN { print $end - $start }"
}
# Seconds for many pulls of a small blob over one connection.
pull_many() { # URL
  local start end
  for _ in $(seq "$small"); do printf 'url = %s\noutput = /dev/null\n' "$1"; done > "$work/many"
  start=$(date +%s.%N)
  curl -sf -K "$work/many"
  end=$(date +%s.%N)
  awk "BEGIN { print $end - $start }"
}
rate() { awk "BEGIN { printf \"%.0f\", $1 / $2 }"; }

echo "| round | server | push, MB/s | pull, MB/s | pull by four, MB/s | small pulls /s |"
echo "| --- | --- | --- | --- | --- | --- |"
bytes=$(((size << 20) / 1000000))
for round in $(seq "$rounds"); do
  for server in docker-registry Kiln; do
    host=$other
    if [ "$server" = Kiln ]; then host=$own; fi
    pushed=$(push "$host" "$work/blob" "$large")
    push "$host" "$work/small" "$little" > "$work/answer"
    url=http://$host/v2/bench/app/blobs
    one=$(pull "$url/$large") four=$(pull_by_four "$url/$large") many=$(pull_many "$url/$little")
    echo "| $round | $server | $(rate $bytes "$pushed") | $(rate $bytes "$one") | $(rate $((4 * bytes)) "$four") | $(rate "$small" "$many") |"
  done
  # The same bytes as the store gives them to the HTTP cache's clients.
  cas=http://$own/cas/${large#sha256:}
  curl -sf -o "$work/answer" -T "$work/blob" "$cas"
  one=$(pull "$cas") four=$(pull_by_four "$cas")
  echo "| $round | Kiln's store, /cas/ | | $(rate $bytes "$one") | $(rate $((4 * bytes)) "$four") | |"
done
