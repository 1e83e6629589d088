#!/usr/bin/env bash
# Hands a release of Kiln's to the verifiers of others, and tampered ones as well.
#
#   deploy/tests/verifiers.sh DIR    DIR: what the ignored test `a_release_for_the_verifiers_of_others` wrote
#
# Verifiers that are not there are named and left out: cosign and oras (COSIGN, ORAS; Debian's newer packages run
# unpacked), docker-registry, npm's @sigstore/verify (SIGSTORE_NODE: a directory with node_modules), PyPI's
# securesystemslib (SECURESYSTEMSLIB_PYTHON: its interpreter), OpenSSL.
set -euo pipefail
dir=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
registry=
trap 'rm -rf "$work"; [ -z "$registry" ] || kill "$registry"' EXIT
failed=0

# verdict NAME good|bad COMMAND...: whether a command accepts what is good, and refuses what is not.
verdict() {
  local name=$1 expected=$2 found=good
  shift 2
  "$@" >"$work/log" 2>&1 || found=bad
  echo "$name: $expected is taken for $found"
  [ "$expected" = "$found" ] || { failed=1; cat "$work/log"; }
}
missing() { echo "SKIPPED: $1 is not there"; }

for key in p256 ed25519; do
  at=$dir/$key
  bad=$work/$key.bad.json
  python3 "$here/tamper.py" "$at/artifact.sigstore.json" "$bad"
  for pair in "good $at/artifact.sigstore.json" "bad $bad"; do
    read -r expected bundle <<<"$pair"
    if [ -n "${COSIGN:-}" ]; then
      verdict "cosign $key" "$expected" "$COSIGN" verify-blob-attestation --key "$at/release.pub" --bundle "$bundle" \
        --type slsaprovenance1 --insecure-ignore-tlog "$at/artifact"
    fi
    if [ -n "${SIGSTORE_NODE:-}" ]; then
      verdict "@sigstore/verify $key" "$expected" env NODE_PATH="$SIGSTORE_NODE/node_modules" \
        node "$here/verify.js" "$bundle" "$at/release.pub"
    fi
    if [ -n "${SECURESYSTEMSLIB_PYTHON:-}" ]; then
      verdict "securesystemslib $key" "$expected" "$SECURESYSTEMSLIB_PYTHON" "$here/verify.py" "$bundle" "$at/release.pub"
    fi
  done
done
[ -n "${COSIGN:-}" ] || missing cosign
[ -n "${SIGSTORE_NODE:-}" ] || missing @sigstore/verify
[ -n "${SECURESYSTEMSLIB_PYTHON:-}" ] || missing securesystemslib

base64 -d "$dir/p256/simple.sig" >"$work/simple.sig"
verdict "openssl, the older form" good openssl dgst -sha256 -verify "$dir/p256/release.pub" -signature "$work/simple.sig" \
  "$dir/p256/simple.json"
echo >>"$work/simple.sig"
verdict "openssl, the older form" bad openssl dgst -sha256 -verify "$dir/p256/release.pub" -signature "$work/simple.sig" \
  "$dir/p256/release.pub"

if [ -z "${ORAS:-}" ] || [ -z "${COSIGN:-}" ] || ! command -v docker-registry >/dev/null; then
  missing "oras, cosign or docker-registry"
  exit "$failed"
fi
port=${PORT:-5791}
printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "127.0.0.1:%s"}\n' "$work/registry" "$port" >"$work/registry.yml"
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry=$!
curl -s --retry 50 --retry-connrefused --retry-delay 1 "http://127.0.0.1:$port/v2/" >/dev/null
for key in p256 ed25519; do
  at=$dir/$key
  ref=127.0.0.1:$port/$key
  "$ORAS" cp --to-plain-http -r --from-oci-layout "$at/layout:1.0" "$ref:1.0" >/dev/null
  digest=$(cat "$at/subject")
  for kind in slsaprovenance1 spdx; do
    verdict "cosign verify-attestation $kind $key" good "$COSIGN" verify-attestation --key "$at/release.pub" --type "$kind" \
      --insecure-ignore-tlog --allow-http-registry "$ref@$digest"
  done
  verdict "cosign verify $key" good "$COSIGN" verify --key "$at/release.pub" --insecure-ignore-tlog --allow-http-registry \
    "$ref@$digest"
  verdict "cosign verify $key by another key" bad "$COSIGN" verify --key "$dir/$([ $key = p256 ] && echo ed25519 || echo p256)/release.pub" \
    --insecure-ignore-tlog --allow-http-registry "$ref@$digest"
done
exit "$failed"
