#!/usr/bin/env bash
# What dependencies may be (deny.toml): licences, one version of each crate, where they come from; and
# that none has a known weakness, where the database of these can be fetched.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=tools.sh
. scripts/tools.sh
need_rust
if ! need_cargo_deny; then
  [ "${KILN_ALLOW_SKIPS:-}" = 1 ] || fail "cargo-deny cannot be had here; KILN_ALLOW_SKIPS=1 goes on without"
  say "SKIPPED: the rules of deny.toml"
  exit 0
fi
checks=(bans licenses sources)
if timeout 120 "$KILN_CARGO_DENY" fetch db >>"$tools_dir/cargo-deny.log" 2>&1; then
  checks+=(advisories)
else
  say "SKIPPED: known weaknesses of dependencies (log: $tools_dir/cargo-deny.log)"
fi
# An exception that nothing needs any more has to go.
"$KILN_CARGO_DENY" --locked check -D unmatched-skip -D unnecessary-skip "${checks[@]}"
