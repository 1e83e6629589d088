#!/usr/bin/env bash
# The whole of Kiln in some minutes, on this machine: `git push` -> merge queue -> remote build and tests (one of them in four
# parts, one flaky and in quarantine) -> signed release -> staging -> canary over 20 hosts behind nginx -> all of them. Then a bad
# change: its tests pass, users get errors from its canary, and the server takes it back by itself.
#
#   examples/ship/run.sh             leaves nothing running, and nothing on the disk
#   examples/ship/run.sh --keep      leaves everything up until Ctrl-C, so that the pages can be read
#
# KILN, BAZEL, NGINX and PROMETHEUS name the programs. What is not there is installed where that can be done (scripts/tools.sh),
# and kiln is built. HOSTS=5 takes fewer hosts, BAKE=8s shorter looks at each step, PICTURES=DIRECTORY takes each of its pages.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
keep=
case "${1:-}" in
  "") ;;
  --keep) keep=1 ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
# shellcheck source=../../scripts/tools.sh
. "$root/scripts/tools.sh"
# Whole paths: the script changes its directory.
program() { (cd "$(dirname "$1")" && printf '%s/%s' "$(pwd)" "$(basename "$1")"); }
need_programs python3 openssl
need_queue_git
[ -z "${BAZEL:-}" ] || KILN_BAZEL=$(command -v "$BAZEL")
need_bazel
[ -n "${NGINX:-}" ] || { need_nginx && NGINX=$KILN_NGINX; } || fail "no nginx: install it, or set NGINX to its path"
[ -n "${PROMETHEUS:-}" ] || { need_prometheus && PROMETHEUS=$KILN_PROMETHEUS; } ||
  fail "no Prometheus: install it, or set PROMETHEUS to its path"
if [ -z "${KILN:-}" ] && ! KILN=$(command -v kiln); then
  need_rust && need_cc && build_kiln
  KILN=$KILN_BUILT
fi
kiln=$(program "$(command -v "$KILN")") bazel=$(program "$KILN_BAZEL") nginx=$NGINX prometheus=$PROMETHEUS hosts=${HOSTS:-20}
# nginx takes a variable of this name for sockets that it inherits.
unset NGINX

# Bazel works in no directory whose path has a space.
place=${TMPDIR:-/tmp}
[[ $place != *[[:space:]]* ]] || place=/tmp
place=$(cd "$(mktemp -d "$place/kiln-ship.XXXXXX")" && pwd -P)
# What a program that is killed leaves behind is in it as well.
mkdir "$place/tmp"
export TMPDIR=$place/tmp
# Whatever ends this script ends all that it started, and nothing is left on the disk.
# shellcheck source=../lib.sh
. "$here/../lib.sh"
child=
finish() {
  code=$?
  trap '' INT TERM HUP
  [ $code = 0 ] || [ $code -ge 129 ] || tail -n 20 "$place"/*.log >&2 || :
  [ -z "$child" ] || kill "$child" 2>/dev/null || :
  # Who waits for the other end of it waits no more.
  [ ! -p "$place/said" ] || : <>"$place/said"
  end_started
  for it in "$place"/bazel/*/server/server.pid.txt; do
    [ ! -e "$it" ] || end_other "$(cat "$it")"
  done
  cd /
  chmod -R u+w "$place" 2>/dev/null || :
  rm -rf "$place"
  exit $code
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

began=$SECONDS
now() { printf '%d:%02d' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)); }
chapter() { printf '\n\033[1m%s  %s\033[0m\n' "$(now)" "$*"; }
tell() { printf '%5s  %s\n' "$(now)" "$*"; }
note() { printf '  %5s  %-26s %s\n' "$(now)" "$1" "$2" >>"$place/table"; }
# Both wait for what they do in the background, so that a signal is heard meanwhile; `finish` ends it.
patiently() { # COMMAND...
  "$@" &
  child=$!
  local code=0
  wait "$child" || code=$?
  child=
  return $code
}
run() { # COMMAND...: shown, with what it prints
  printf '       $ %s\n' "$*"
  sed -u 's/^/       /' <said &
  local shown=$! code=0
  patiently shown_as "$@" || code=$?
  wait "$shown"
  return $code
}
shown_as() { exec "$@" >said 2>&1; }
field() { # PATH...: of JSON on stdin
  "$python" -c 'import json, sys
it = json.load(sys.stdin)
for name in sys.argv[1:]:
    it = it[int(name)] if isinstance(it, list) else (it or {}).get(name)
print("" if it is None else it)' "$@"
}

chapter "A server, a repository and its merge queue"
cd "$place"
mkdir bin kiln hosts queue
mkfifo said
ln -s "$kiln" bin/kiln
# What Bazel keeps goes with the rest. Debian's finds its own parts by the system's bazelrc.
cat >bin/bazel <<END
#!/bin/sh
exec env LC_ALL=C.UTF-8 "$bazel" "--output_user_root=$place/bazel" --max_idle_secs=120 --nohome_rc \\
  --host_jvm_args=-XX:TieredStopAtLevel=1 --host_jvm_args=-XX:+UseSerialGC "\$@"
END
chmod +x bin/bazel
PATH="$place/bin:$PATH"
kiln=kiln
api=127.0.0.1:$(free) edge=127.0.0.1:$(free) status=127.0.0.1:$(free) watch=127.0.0.1:$(free) staging=127.0.0.1:$(free)
export KILN_SERVER="http://$api"
unset KILN_QUEUE_STATE
cp "$here"/*.toml .
sed -i "s/^targets = 20/targets = $hosts/" install.toml canary.toml
[ -z "${BAKE:-}" ] || sed -i "s/^bake = \"15s\"/bake = \"$BAKE\"/; s/^soak = \"10s\"/soak = \"$BAKE\"/" canary.toml
{ nginx_part; prometheus_part; } >parts.toml
signing_key
# What prod asks of a release (environments.toml): the page that it shows in staging.
cat >smoke.sh <<END
#!/bin/sh
exec "$python" -c 'import urllib.request as it; it.build_opener(it.ProxyHandler({})).open("http://$staging/", timeout=5)'
END
chmod +x smoke.sh
start server.log kiln serve --listen "$api" --data-dir data --config kiln.toml
within 30 kiln health
tell "the server is at $KILN_SERVER"

export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=Somebody GIT_AUTHOR_EMAIL=somebody@example.com
export GIT_COMMITTER_NAME=Somebody GIT_COMMITTER_EMAIL=somebody@example.com
git init --quiet --bare --initial-branch=main shop.git
git clone --quiet shop.git work 2>/dev/null
(cd work && git commit --quiet --allow-empty -m 'Begin' && git push --quiet origin HEAD:refs/heads/main)
# shellcheck disable=SC2016
check='kiln ci run --wait 5m -- bazel test --nocache_test_results --build_metadata=COMMIT_SHA=$KILN_QUEUE_COMMIT \
  --build_metadata=BRANCH_NAME=main --build_metadata=REPO_URL=https://git.example/shop //...'
start queue.log kiln queue run --server "$KILN_SERVER" --queue shop --state queue --repo shop.git --check "$check" \
  --env KILN_SERVER --flakes-ruled-out --poll 1s
within 30 kiln queue list --queue shop
tell "its runner lands on main what passes kiln ci run -- bazel test //..."

chapter "$hosts hosts behind nginx, and one in staging"
host() { # ENVIRONMENT NAME HOST:PORT
  start "hosts/$2.log" kiln agent --service shop --environment "$1" --name "$2" --address "$3" --dir "hosts/$2" \
    --key key.pub --repository web/shop --branch main --run "'$python' out/server.py ${3#*:}" \
    --health "http://$3/healthz" --health-every 3s
}
scraped=
for it in $(seq -w "$hosts"); do
  address=127.0.0.1:$(free)
  host prod "shop-$it" "$address"
  scraped="$scraped${scraped:+, }{ targets: [\"$address\"], labels: { host: shop-$it } }"
done
host staging shop-staging "$staging"
nginx_config shop.prod error >nginx.conf
start_nginx
start_prometheus "$scraped"
within 120 all_there shop prod "$hosts"
within 120 all_there shop staging 1
tell "on each an agent waits for what to run: it fetches, verifies, and keeps it running"
note "server, queue, hosts" "up: $((hosts + 1)) agents, nginx, Prometheus"

left() { [ -n "$(kiln queue show --queue shop --branch "$1" --json | field ended why)" ]; }
land() { # BRANCH: pushes it, queues it, waits until it has left the queue. `invocation` is the build that let it land.
  (cd work && git push --quiet origin "HEAD:refs/heads/$1")
  run kiln queue add --queue shop --branch "$1"
  patiently within 400 left "$1" || { run kiln queue explain --queue shop --branch "$1"; cat queue/shop/logs/*.log >&2; fail "$1 is still there"; }
  run kiln queue show --queue shop --branch "$1"
  commit=$(git --git-dir=shop.git rev-parse refs/heads/main)
  git --git-dir=shop.git merge-base --is-ancestor "$(git -C work rev-parse HEAD)" "$commit" ||
    { cat queue/shop/logs/*.log >&2; fail "$1 has not landed"; }
  # What landed is the commit that was tested: its build is the one that named it.
  invocation=$(fetch "$KILN_SERVER/api/v1/invocations?commit=$commit&limit=1" | field invocations 0 invocation_id)
  run kiln tests gate --invocation "$invocation"
  how="all tests passed"
  ! kiln tests gate --invocation "$invocation" | grep -q masked ||
    how="//:mail_test failed, passed when it was run again, and held up nobody"
  tell "landed as ${commit:0:12} by build $invocation"
  note "$1 landed" "${commit:0:12}; $how"
}
release() { # VERSION: of what that build made
  run kiln release create "web/shop:$1" --invocation "$invocation" --target //:app
  run kiln release verify "web/shop:$1" --key key.pub --source git+https://git.example/shop --branch main
  note "web/shop:$1" "signed, verified: made from ${commit:0:12} by build ${invocation:0:8}"
}
stands() { [ "$(kiln env show "$2" --json | field current release)" = "web/shop:$1" ]; }
promote() { # VERSION ENVIRONMENT: exit code 6 says that it waits, and is promoted as soon as it may
  run kiln promote "web/shop:$1" --to "$2" --wait 2m --reason "version $1" || [ $? = 6 ]
  within 60 stands "$1" "$2"
}
stage() { # VERSION: to the host in staging, and into prod, whose policy looks at that
  promote "$1" staging
  run kiln rollout start staging.toml --release "web/shop:$1" --env staging --reason "version $1" --wait
  promote "$1" prod
  tell "the gate of its build is green, it is signed, its page in staging answers: it may go to prod"
  note "web/shop:$1 in staging" "answers; promoted to prod"
}
roll() { # VERSION CODE: to the hosts while users ask; CODE is how it has to end
  ask "users-$1.json" 5 0.025
  code=0 since=$SECONDS
  run kiln rollout start canary.toml --release "web/shop:$1" --env prod --reason "version $1" --wait || code=$?
  took=$((SECONDS - since))
  asked
  answers=$("$python" "$here/counted.py" "users-$1.json")
  rollout=$(kiln rollout list --json | field rollouts 0 id)
  [ $code = "$2" ] || fail "the rollout of $1 ended with exit code $code, and not $2"
  tell "what users were answered meanwhile: $answers"
}
change() { # BRANCH PATCH SUBJECT
  (cd work && git fetch --quiet origin && git checkout --quiet -B "$1" origin/main && git apply "$here/changes/$2" &&
    git commit --quiet -a -m "$3")
  git -C work --no-pager show --format='       %h %s' --unified=0 | sed -n '1p;/^[+-][^+-]/s/^/         /p'
}

chapter "The first version: pushed, tested, landed, released, installed"
cp "$here"/app/* work
cp "$here/../tests/script_test.bzl" "$here/../tests/MODULE.bazel" work
cp -R "$here/../bazel/WORKSPACE" "$here/../bazel/.bazelignore" "$here/../bazel/third_party" work
cat >work/.bazelrc <<END
test --remote_executor=grpc://$api --bes_backend=grpc://$api --bes_results_url=$KILN_SERVER/builds/
test --spawn_strategy=remote --noremote_upload_local_results --incompatible_strict_action_env
test --symlink_prefix=/ --color=no --curses=no --noshow_progress
END
# Bazel 6 and 7 would ask the network for modules, and later ones read no WORKSPACE. Debian's 4.2.3 does not say its version.
case $("$bazel" --version 2>/dev/null) in
  "bazel 6."* | "bazel 7."*) echo 'common --noenable_bzlmod' >>work/.bazelrc ;;
esac
(cd work && git checkout --quiet -B first && git add . && git commit --quiet -m 'Open the shop')
land first
release 1.0
stage 1.0
# It fails in one of four runs: somebody saw it, and tries it until it does so again, where Bazel is warm and as the queue
# does it: with other options it would be another test.
flaked() { kiln tests flakes | grep -q //:mail_test; }
try() { cd queue/shop/trees/slot-0 && exec bazel test --nocache_test_results //:mail_test; }
until flaked; do
  patiently try >mail.log 2>&1 || [ $? = 3 ]
  sleep 1
done
run kiln tests quarantine add //:mail_test --reason 'the mail server hangs up' --owner @mail
note "//:mail_test" "has flaked: in quarantine"
run kiln rollout start install.toml --release web/shop:1.0 --env prod --reason 'the first' --wait
within 30 fetch "http://$edge/"
note "web/shop:1.0 in prod" "installed at $hosts hosts"

chapter "A good change, by canary to all hosts"
change apples apples.patch 'Say that there are apples'
land apples
release 1.1
stage 1.1
roll 1.1 0
note "web/shop:1.1 in prod" "everywhere after $took s; users: $answers"

chapter "A bad change, whose tests pass"
change visits visits.patch 'Remember the last four visits'
land visits
release 1.2
stage 1.2
roll 1.2 1
reverted=$(kiln rollout show "$rollout" --json | field reverted_s) || [ $? = 1 ]
stands 1.1 prod || fail "prod has not gone back to 1.1"
note "web/shop:1.2 in prod" "reverted after $took s, within $reverted s of the decision; users: $answers"
run kiln env show prod

chapter "What happened"
cat table
printf '\nPages:\n'
pictures=()
page() { # WHAT PATH PICTURE HEIGHT
  printf '  %-26s %s%s\n' "$1" "$KILN_SERVER" "$2"
  pictures+=("$3" "$4" "$KILN_SERVER$2")
}
page "start" / overview 740
page "the merge queue" /merge-queues/shop ship-queue 620
page "tests at each commit" /tests/grid ship-tests 420
page "quarantine" /tests/quarantine ship-quarantine 560
page "the build that landed 1.2" "/builds/$invocation" ship-build 900
page "its release" /releases/web/shop:1.2 ship-release 900
page "environments" /environments ship-environments 280
page "its rollout" "/rollouts/$rollout" ship-rollout 1100
page "hosts" /fleet ship-hosts 620
[ -z "${PICTURES:-}" ] || run "$root/scripts/pictures.sh" "$PICTURES" "${pictures[@]}"
if [ -n "$keep" ]; then
  echo "All of it is up, in $place, until Ctrl-C."
  sleep infinity &
  started="$! $started"
  wait $!
fi
