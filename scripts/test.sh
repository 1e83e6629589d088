#!/usr/bin/env bash
# Runs all tests: unit, property, simulation, services, and end to end with real clients,
# which it installs first. Fails when a client cannot be had, unless KILN_ALLOW_SKIPS=1.
#
#   scripts/test.sh --tools     installs them, and runs nothing
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=tools.sh
. scripts/tools.sh
need_rust
need_cc
need_bazel
missing() {
  [ "${KILN_ALLOW_SKIPS:-}" = 1 ] || fail "$1 cannot be had here; KILN_ALLOW_SKIPS=1 skips its tests"
  say "SKIPPED: the tests that need $1"
}
need_bazel_2 || missing "Bazel 2.1.0"
# Debian sid moves on and is not always whole: what comes from there may be absent, or be of another version than the tests know.
need_bazel_7 || { unset KILN_BAZEL_7; say "SKIPPED: the tests that need Bazel 7 (log: $tools_dir/bazel-7.log)"; }
need_sid_clients || say "SKIPPED: the tests that need oras, crane and cosign (log: $tools_dir/sid.log)"
need_casd || missing "buildbox-casd"
need_chromium || missing "Chromium"
need_redis || missing "redis-server"
need_node_worker || missing "node and @bazel/worker"
need_ccache || missing "ccache"
need_promtool || missing "Prometheus"
need_nginx || missing "nginx"
need_haproxy || missing "HAProxy"
need_envoy || missing "Envoy"
need_registry || missing "docker-registry, skopeo, umoci and busybox"
need_buildah || missing "buildah"
need_verifiers || missing "node, @sigstore/verify and securesystemslib"
need_weed || missing "weed (SeaweedFS)"
need_cargo_deb || missing "cargo-deb"
[ "${1:-}" != --tools ] || exit 0
[ "${KILN_ALLOW_SKIPS:-}" = 1 ] || export KILN_NO_SKIPS=1
# What waits leaves its processor to others (.config/nextest.toml).
export NEXTEST_TEST_THREADS="${NEXTEST_TEST_THREADS:-$(($(nproc) + 1))}"
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace --locked --no-fail-fast "$@"
else
  cargo test --workspace --locked --no-fail-fast "$@"
fi
