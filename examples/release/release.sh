#!/bin/sh
# From a build to a release that anybody can verify without this server.
#
#     kiln serve &
#     examples/release/release.sh team/app:1.0 //greet:greet [WORKSPACE]
#
# Needs kiln, bazel, openssl and /proc. It may be run again, and from anywhere: the key and the exports are in
# RELEASE_DIRECTORY (~/.local/share/kiln/release), the key is made where there is none, and never leaves that directory. SOURCE
# (git+URL@COMMIT) and BRANCH say what was built.
set -eu

name=$1 target=$2 workspace=${3:-$(dirname "$0")/../bazel}
server=${KILN_SERVER:-http://127.0.0.1:8980}
address=${server#*://}
directory=${RELEASE_DIRECTORY:-${XDG_DATA_HOME:-${HOME:-$PWD}/.local/share}/kiln/release}
mkdir -p "$directory"

# Each is there whole or not at all, and a key that is there is never written over.
if [ ! -e "$directory/key.pem" ]; then
    (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$directory/key.pem.new")
    rm -f "$directory/key.pub"
    mv "$directory/key.pem.new" "$directory/key.pem"
fi
if [ ! -e "$directory/key.pub" ]; then
    openssl pkey -in "$directory/key.pem" -pubout -out "$directory/key.pub.new"
    mv "$directory/key.pub.new" "$directory/key.pub"
fi

invocation=$(cat /proc/sys/kernel/random/uuid)
# What Bazel finds up to date on this machine, it asks the server nothing of: then there is nothing to release.
(cd "$workspace" && ${BAZEL:-bazel} clean)
(cd "$workspace" && ${BAZEL:-bazel} build --invocation_id="$invocation" \
    --remote_executor="grpc://$address" --bes_backend="grpc://$address" "$target")

# Commit and branch are what whoever releases says: the server sees files, not repositories.
set -- "$name" --invocation "$invocation" --target "$target" --key "$directory/key.pem"
if [ -n "${SOURCE:-}" ]; then set -- "$@" --source "$SOURCE"; fi
if [ -n "${BRANCH:-}" ]; then set -- "$@" --branch "$BRANCH"; fi
# The same content again is the release that is there; other content takes another version.
kiln release create "$@" --server "$server"

out="$directory/$(echo "$name" | tr '/:' '--')"
# A release never changes, and one that was cut short is no release: what an earlier run left goes.
rm -rf "$out"
kiln release export "$name" --output "$out" --server "$server"
kiln release verify "$out" --key "$directory/key.pub" --name "$name"
echo "$out is an OCI image layout: skopeo, oras and cosign read it as well"
echo "and the server is a registry that has it: skopeo copy docker://$address/$name ..."
