#!/usr/bin/env bash
# Makes the Debian package: the binary, manual pages, completions, systemd units and their configuration.
#
#   scripts/package.sh                       of a release build; the package is left in target/package
#   scripts/package.sh --profile dev         of another cargo profile (for tests)
#   scripts/package.sh --binary FILE         of a binary that is there already
#   scripts/package.sh --fast                larger and sooner, for tests
#
# Installs cargo-deb where it is missing. dpkg-deb has to be there (Debian, Ubuntu).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=tools.sh
. scripts/tools.sh
profile=release binary= fast=
while [ $# -gt 0 ]; do
  case "$1" in
    --profile) profile=${2:?a profile of Cargo.toml}; shift 2 ;;
    --binary) binary=${2:?a file}; shift 2 ;;
    --fast) fast=--fast; shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) fail "$1: not an option; see scripts/package.sh --help" ;;
  esac
done

need_rust
command -v dpkg-deb >/dev/null || fail "no dpkg-deb: packages are made on Debian or Ubuntu"
need_cargo_deb || fail "cargo-deb cannot be installed (log: $tools_dir/cargo-deb.log)"
if [ -z "$binary" ]; then
  need_cc
  say "building kiln ($profile)"
  cargo build --locked --profile "$profile" --bin kiln
  case "$profile" in dev) directory=debug ;; *) directory=$profile ;; esac
  binary="${CARGO_TARGET_DIR:-target}/$directory/kiln"
fi

out=target/package
rm -rf "$out"
mkdir -p "$out/bin" "$out/completions"
install -m 755 "$binary" "$out/bin/kiln"
strip "$out/bin/kiln"
"$out/bin/kiln" man --output "$out/man"
"$out/bin/kiln" completions bash >"$out/completions/kiln.bash"
"$out/bin/kiln" completions zsh >"$out/completions/_kiln"
"$out/bin/kiln" completions fish >"$out/completions/kiln.fish"
"$KILN_CARGO_DEB" deb --no-build --no-strip --locked ${fast:+"$fast"} --output "$out/"
