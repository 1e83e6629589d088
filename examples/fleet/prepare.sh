#!/usr/bin/env bash
# Makes what the fleet needs to trust itself: an authority of its own, a certificate, tokens,
# and credentials for the store. Everything goes to secrets/; what is there is kept.
#
#   examples/fleet/prepare.sh [NAME...]     names under which clients reach the fleet
#                                           (default: localhost kiln)
# KILN (default: kiln) is the program.
set -euo pipefail
cd "$(dirname "$0")"
kiln=${KILN:-kiln}
names=("${@:-localhost}" kiln)
mkdir -p secrets
umask 077
if [ ! -e secrets/ca.pem ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj "/CN=Kiln example authority" -keyout secrets/ca.key -out secrets/ca.pem 2>/dev/null
fi
if [ ! -e secrets/server.pem ]; then
  alternative=$(printf 'DNS:%s,' "${names[@]}")
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=kiln" \
    -keyout secrets/server.key -out secrets/server.csr 2>/dev/null
  openssl x509 -req -in secrets/server.csr -CA secrets/ca.pem -CAkey secrets/ca.key -days 825 \
    -extfile <(printf 'subjectAltName=%sIP:127.0.0.1\n' "$alternative") \
    -out secrets/server.pem 2>/dev/null
  rm secrets/server.csr
fi
token() { # name, roles...
  [ -e "secrets/$1.token" ] && return
  local name=$1 roles=()
  shift
  for role in "$@"; do roles+=(--role "$role"); done
  "$kiln" token new "$name" "${roles[@]}" --out "secrets/$name.token" >> secrets/access.toml
}
token ci write-cache execute
token developers execute
token workers worker
random() { head -c 24 /dev/urandom | base64 | tr -d '/+=\n'; }
[ -e secrets/redis.password ] || random > secrets/redis.password
printf 'requirepass %s\nappendonly yes\nappendfsync everysec\nmaxmemory-policy noeviction\n' \
  "$(cat secrets/redis.password)" > secrets/redis.conf
if [ ! -e secrets/aws-credentials ]; then
  key=$(random) secret=$(random)
  printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$key" "$secret" \
    > secrets/aws-credentials
  printf '{"identities": [{"name": "kiln", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin"]}]}\n' \
    "$key" "$secret" > secrets/s3.json
fi
# Containers run as other users: the directory keeps strangers out, the files can be read where they are mounted.
chmod 644 secrets/*
chmod 700 secrets
echo "examples/fleet/secrets: ca.pem, server.pem, ci.token, developers.token, workers.token"
