#!/usr/bin/env bash
# Builds Kiln, starts it, and builds and tests examples/bazel through it twice.
#
#   scripts/quickstart.sh            leaves nothing running
#   scripts/quickstart.sh --keep     leaves the server up, so that the web pages can be read
#
# KILN_PORT (default: 8980, or a free port when that is taken) chooses the port.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools.sh
. "$root/scripts/tools.sh"
keep=
case "${1:-}" in
  "") ;;
  --keep) keep=1 ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

need_rust
need_cc
# Bazel is fetched while Kiln compiles: most of the one is waiting, all of the other is work.
need_bazel &
bazel=$!
build_kiln
wait "$bazel" || fail "no Bazel (see above)"
need_bazel
# The example has a WORKSPACE, which later ones do not read. Debian's 4.2.3 does not say its version.
version=$("$KILN_BAZEL" --version 2>/dev/null | sed -n 's/^bazel \([0-9][0-9]*\)\..*$/\1/p')
offline=
if [ "${version:-0}" -ge 8 ]; then
  fail "examples/bazel is for Bazel 2 to 7, and $KILN_BAZEL is $version: name another with KILN_BAZEL"
elif [ "${version:-0}" -ge 6 ]; then
  offline=--config=offline
fi
kiln=$KILN_BUILT

work=$(mktemp -d "${TMPDIR:-/tmp}/kiln-quickstart.XXXXXX")
server=
finish() {
  status=$?
  (cd "$root/examples/bazel" && bazel_run shutdown) >/dev/null 2>&1 || true
  if [ -n "$server" ] && { [ -z "$keep" ] || [ $status -ne 0 ]; }; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    [ $status -eq 0 ] && { chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"; }
  fi
  [ $status -eq 0 ] || say "failed; the server's log: $work/serve.log"
}
trap finish EXIT

port=${KILN_PORT:-8980}
if [ -z "${KILN_PORT:-}" ] && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  port=0
fi
"$kiln" serve --listen "127.0.0.1:$port" --data-dir "$work/data" >"$work/serve.log" 2>&1 &
server=$!
address=
for _ in $(seq 300); do
  address=$(sed -n 's/^.*--remote_executor=grpc:\/\/\([^ ]*\).*$/\1/p' "$work/serve.log" | head -1)
  [ -n "$address" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$work/serve.log" >&2; fail "kiln serve ended at once"; }
  sleep 0.1
done
[ -n "$address" ] || fail "kiln serve was not ready within 30 s"

bazel_run() { "$KILN_BAZEL" --output_user_root="$work/bazel" "$@"; }
build() {
  say "$1: bazel test --config=kiln //..."
  (cd "$root/examples/bazel" &&
    bazel_run test ${offline:+"$offline"} --config=kiln --remote_executor="grpc://$address" --color=no --curses=no \
      --noshow_loading_progress --noshow_progress --invocation_id="$2" //... 2>&1) |
    grep -E '^(INFO: (Elapsed|[0-9]+ process|Build)|ERROR|FAIL|//|Executed)' | sed 's/^/  /'
}
first=$(cat /proc/sys/kernel/random/uuid)
second=$(cat /proc/sys/kernel/random/uuid)
build "first build, everything runs remotely" "$first"
(cd "$root/examples/bazel" && bazel_run clean ${offline:+"$offline"} >/dev/null 2>&1)
build "second build after bazel clean, everything from the cache" "$second"

say "what Kiln saw"
for invocation in "$first" "$second"; do
  "$kiln" --server "http://$address" build show "$invocation" | sed 's/^/  /'
done
if [ -n "$keep" ]; then
  say "web pages: http://$address/ (stop the server with: kill $server)"
fi
