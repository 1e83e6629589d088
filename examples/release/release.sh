#!/bin/sh
# From a build to a release that anybody can verify without this server.
#
#     kiln serve &
#     examples/release/release.sh team/app:1.0 //greet:greet [WORKSPACE]
#
# Needs kiln, bazel, openssl and uuidgen or /proc. The key is made where there is none, and never leaves this directory.
set -eu

name=$1 target=$2 workspace=${3:-$(dirname "$0")/../bazel}
server=${KILN_SERVER:-http://127.0.0.1:8980}
address=${server#*://}
directory=${RELEASE_DIRECTORY:-$PWD/release}
mkdir -p "$directory"

if [ ! -e "$directory/key.pem" ]; then
    (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$directory/key.pem")
    openssl pkey -in "$directory/key.pem" -pubout -out "$directory/key.pub"
fi

invocation=$(cat /proc/sys/kernel/random/uuid)
# What Bazel finds up to date on this machine, it asks the server nothing of: then there is nothing to release.
(cd "$workspace" && ${BAZEL:-bazel} clean)
(cd "$workspace" && ${BAZEL:-bazel} build --invocation_id="$invocation" \
    --remote_executor="grpc://$address" --bes_backend="grpc://$address" "$target")

# The commit is what whoever releases says: the server sees files, not repositories.
set -- "$name" --invocation "$invocation" --target "$target" --key "$directory/key.pem"
if [ -n "${SOURCE:-}" ]; then set -- "$@" --source "$SOURCE"; fi
kiln release create "$@" --server "$server"

out="$directory/$(echo "$name" | tr '/:' '--')"
kiln release export "$name" --output "$out" --server "$server"
kiln release verify "$out" --key "$directory/key.pub" --name "$name"
echo "$out is an OCI image layout: skopeo, oras and cosign read it as well"
echo "and the server is a registry that has it: skopeo copy docker://$address/$name ..."
