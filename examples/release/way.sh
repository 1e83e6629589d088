#!/bin/sh
# The whole way of a release, on a server of its own: built, released, verified, through staging after a soak, approved by
# somebody else, in production, and rolled back. Nothing is left behind but what is printed.
#
#     examples/release/way.sh [PORT]
#
# Needs kiln, bazel, openssl and python3; cosign (3.1 or newer, or COSIGN names it) is asked where it is there. It may be run again, and
# from anywhere.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
port=${1:-8985}
server=http://127.0.0.1:$port
work=$(mktemp -d)
pid=
finish() {
    if [ -n "$pid" ]; then kill "$pid" && wait "$pid" || true; fi
    (cd "$here/../bazel" && ${BAZEL:-bazel} --output_user_root="$work/bazel" shutdown) || true
    chmod -R u+w "$work" && rm -rf "$work"
}
trap finish EXIT
cd "$work"

# Who may do what: CI builds and releases, ana and bo stand for releases, op reads the audit log.
umask 077
kiln token new ci --role write-cache --role execute --role release-manager --out ci.token > access.toml
kiln token new op --role admin --out op.token >> access.toml
for who in ana bo; do
    kiln token new "$who" --role release-manager --out "$who.token" >> access.toml
done
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.pem
openssl pkey -in server.pem -pubout -out server.pub

KILN_RELEASES_KEY=server.pem KILN_PROMOTION_POLICY=$here/environments.toml \
    kiln serve --listen "127.0.0.1:$port" --data-dir data --access-file access.toml > server.log 2>&1 &
pid=$!
as() { # WHO COMMAND...
    who=$1
    shift
    echo "\$ [$who] kiln $*"
    kiln "$@" --server "$server" --token-file "$who.token"
}
until kiln status --server "$server" --token-file ci.token > status 2>&1; do
    kill -0 "$pid" || { cat server.log; exit 1; }
    sleep 0.2
done

# 1. Two builds, each released with CI's word on commit and branch.
source=git+https://git.example/app
commit=1234567890123456789012345678901234567890
release() { # NAME TARGET
    invocation=$(cat /proc/sys/kernel/random/uuid)
    (cd "$here/../bazel" && ${BAZEL:-bazel} --output_user_root="$work/bazel" build --invocation_id="$invocation" --symlink_prefix=/ \
        --remote_executor="grpc://127.0.0.1:$port" --remote_header="authorization=Bearer $(cat "$work/ci.token")" "$2")
    as ci release create "$1" --invocation "$invocation" --target "$2" --source "$source@$commit" --branch main
}
release team/app:1.0 //greet:hello
release team/app:1.1 //greet:greeting

# 2. Verified without the server, by Kiln and by a script that shares nothing with it; and where it can be pulled, by cosign.
as ci release export team/app:1.0 --output app-1.0
kiln release verify app-1.0 --key server.pub --name team/app:1.0 --source "$source" --branch main
python3 "$here/../../scripts/verify-release.py" app-1.0 --key server.pub --name team/app:1.0 --source "$source"
cosign=${COSIGN:-$(command -v cosign || true)}
if [ -n "$cosign" ]; then
    digest=$(kiln release show team/app:1.0 --json --server "$server" --token-file ci.token |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["digest"])')
    mkdir docker
    printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}' "$port" "$(printf 'ci:%s' "$(cat ci.token)" | base64 -w0)" \
        > docker/config.json
    for asked in verify 'verify-attestation --type slsaprovenance1'; do
        # shellcheck disable=SC2086 # The option and its value are words of their own.
        DOCKER_CONFIG=$work/docker "$cosign" $asked --key server.pub --insecure-ignore-tlog --allow-http-registry \
            "127.0.0.1:$port/team/app@$digest" > cosign.json
    done
else
    echo 'cosign is not here: it is not asked'
fi

# 3. Through the environments: staging after a soak, production after somebody else has approved.
promote() { # VERSION ENVIRONMENT
    # Exit code 6: it waits for the soak, and the server does it as soon as it may.
    as ci promote "team/app:$1" --to "$2" --wait 5m --reason 'next' || [ $? = 6 ]
    until kiln env show "$2" --server "$server" --token-file ci.token | grep -q "release *team/app:$1"; do sleep 1; done
}
for version in 1.0 1.1; do
    promote "$version" dev
    promote "$version" staging
    as ana approve "team/app:$version" --for prod --reason 'tried by hand'
    as bo approve "team/app:$version" --for prod --reason 'so did I'
    promote "$version" prod
done
as ci env list

# 4. Back, at once; and what was done is in the log. Ten minutes after an entry a checkpoint of it is signed: from then on what
# `kiln audit export` prints is confirmed by `kiln audit verify` and by scripts/verify-audit.py, which shares nothing with Kiln.
as bo rollback --env prod --reason 'it prints too much'
as ci env show prod
kiln env summary prod --generation 1 --server "$server" --token-file ci.token > summary.json
as op audit log --check
