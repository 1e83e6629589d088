#!/usr/bin/env bash
# Fuzzes what reads bytes from outside: each target asserts an invariant under libFuzzer.
#
#   scripts/fuzz.sh                  every target for a minute
#   scripts/fuzz.sh frames 600       one target for ten minutes
#   scripts/fuzz.sh all 300          every target for five minutes
#
# Installs a nightly toolchain and cargo-fuzz. Builds one crate at a time and runs one process, both
# at the lowest priority. Starts from fuzz/seeds/TARGET; what was learned stays in
# target/fuzz-corpus/TARGET. Stops at the first input that fails: it is left in
# fuzz/artifacts/TARGET, and `cargo +nightly fuzz run --sanitizer none --target-dir target/fuzz
# TARGET FILE` repeats it.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=tools.sh
. scripts/tools.sh

case "${1:-}" in
-h | --help)
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
  exit 0
  ;;
esac
seconds=${2:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "SECONDS is $seconds, not a number above 0"
targets=$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' fuzz/Cargo.toml)
if [ "${1:-all}" != all ]; then
  grep -qx "$1" <<<"$targets" || fail "no target $1; there are: $(echo $targets)"
  targets=$1
fi

need_rust
need_cc
if ! cargo +nightly --version >/dev/null 2>&1; then
  say "installing a nightly toolchain"
  rustup toolchain install nightly --profile minimal
fi
export PATH="$tools_dir/bin:$PATH"
if ! command -v cargo-fuzz >/dev/null; then
  say "installing cargo-fuzz"
  nice -n 19 cargo install --quiet --locked --jobs 1 --root "$tools_dir" cargo-fuzz
fi

export CARGO_BUILD_JOBS=1
for target in $targets; do
  say "$target for $seconds s"
  corpus="target/fuzz-corpus/$target"
  mkdir -p "$corpus" "fuzz/artifacts/$target"
  seeds=()
  [ -d "fuzz/seeds/$target" ] && seeds=("fuzz/seeds/$target")
  # No sanitizer: what is fuzzed holds no unsafe code, and runs several times as fast.
  nice -n 19 cargo +nightly fuzz run --sanitizer none --fuzz-dir fuzz --target-dir target/fuzz "$target" \
    "$corpus" "${seeds[@]}" -- -fork=0 -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=20 \
    -print_final_stats=1 -verbosity=0
done
