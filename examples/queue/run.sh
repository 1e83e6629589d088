#!/usr/bin/env bash
# A merge queue at work, at a server and with a real Bazel, whose tests run on that server. A repository has 30 branches: good and
# bad ones, a flaky one, two that conflict, and a bad one that is pushed again, mended, while it waits. Exactly the good ones land.
#
#   examples/queue/run.sh             leaves nothing running, and nothing on the disk
#   examples/queue/run.sh --keep      leaves all of it up until Ctrl-C, so that the pages can be read
#
# KILN and BAZEL name the programs. What is not there is installed where that can be done (scripts/tools.sh), and kiln is built.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
keep=
case "${1:-}" in
  "") ;;
  --keep) keep=1 ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
# shellcheck source=../../scripts/tools.sh
. "$root/scripts/tools.sh"
need_programs python3
need_queue_git
[ -z "${BAZEL:-}" ] || KILN_BAZEL=$(command -v "$BAZEL")
need_bazel
if [ -z "${KILN:-}" ] && ! KILN=$(command -v kiln); then
  need_rust && need_cc && build_kiln
  KILN=$KILN_BUILT
fi
# A whole path: the script changes its directory.
kiln=$(command -v "$KILN")
kiln=$(cd "$(dirname "$kiln")" && pwd)/$(basename "$kiln")
bazel=$KILN_BAZEL

# Bazel works in no directory whose path has a space.
place=${TMPDIR:-/tmp}
[[ $place != *[[:space:]]* ]] || place=/tmp
place=$(cd "$(mktemp -d "$place/kiln-queue.XXXXXX")" && pwd -P)
# What a program that is killed leaves behind is in it as well.
mkdir "$place/tmp"
export TMPDIR=$place/tmp
# Whatever ends this script ends all that it started, and nothing is left on the disk.
# shellcheck source=../lib.sh
. "$here/../lib.sh"
finish() {
  code=$?
  trap '' INT TERM HUP
  [ $code = 0 ] || [ $code -ge 129 ] || tail -n 40 "$place"/*.log "$place"/queue/app/logs/*.log >&2 || :
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

say "A server, a repository and its merge queue"
cd "$place"
mkdir bin
ln -s "$kiln" bin/kiln
# What Bazel keeps goes with the rest. Debian's finds its own parts by the system's bazelrc.
cat >bin/bazel <<END
#!/bin/sh
exec env LC_ALL=C.UTF-8 "$bazel" "--output_user_root=$place/bazel" --max_idle_secs=120 --nohome_rc \\
  --host_jvm_args=-XX:TieredStopAtLevel=1 --host_jvm_args=-XX:+UseSerialGC "\$@"
END
chmod +x bin/bazel
PATH="$place/bin:$PATH"
api=127.0.0.1:$(free)
export KILN_SERVER="http://$api"
unset KILN_QUEUE_STATE
# Failures within a second are looked at together; a server that many use takes a minute.
KILN_TESTS_WINDOW=1s start server.log kiln serve --listen "$api" --data-dir data --workers 4
within 30 kiln health
echo "the server is at $KILN_SERVER"

export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=Somebody GIT_AUTHOR_EMAIL=somebody@example.com
export GIT_COMMITTER_NAME=Somebody GIT_COMMITTER_EMAIL=somebody@example.com
git init --quiet --bare --initial-branch=main app.git
git clone --quiet app.git work 2>/dev/null
cd work
cp "$here"/app/* .
cp "$here/../tests/script_test.bzl" "$here/../tests/MODULE.bazel" .
cp -R "$here/../bazel/WORKSPACE" "$here/../bazel/.bazelignore" "$here/../bazel/third_party" .
cat >.bazelrc <<END
test --remote_executor=grpc://$api --bes_backend=grpc://$api --bes_results_url=$KILN_SERVER/builds/
test --spawn_strategy=remote --noremote_upload_local_results --incompatible_strict_action_env
test --symlink_prefix=/ --color=no --curses=no --noshow_progress
END
# Bazel 6 and 7 would ask the network for modules, and later ones read no WORKSPACE. Debian's 4.2.3 does not say its version.
case $("$bazel" --version 2>/dev/null) in
  "bazel 6."* | "bazel 7."*) echo 'common --noenable_bzlmod' >>.bazelrc ;;
esac
mkdir features
echo fine >features/base
echo 0 >shared
git add . && git commit --quiet -m 'Begin' && git push --quiet origin HEAD:refs/heads/main

push() { # BRANCH: what is here
  git add . && git commit --quiet -m "Add $1" && git push --quiet --force origin "HEAD:refs/heads/$1"
}
branch() { # BRANCH FILE WORD: a branch that changes one file
  git checkout --quiet -B "$1" main
  echo "$3" >"$2"
  push "$1"
}
branches=$(seq 0 29 | sed 's/^/change-/')
for it in $branches; do
  case $it in
    change-4 | change-15 | change-23) branch "$it" "features/$it" bad ;;
    change-9) branch "$it" "features/$it" flaky ;;
    change-12 | change-13) branch "$it" shared "$it" ;;
    *) branch "$it" "features/$it" fine ;;
  esac
done
cd ..

# A failure of the flaky test is run again by the server, and fails nobody once it has passed. Whoever looks for the culprit of
# a batch tests first what failed in it, and is done where that fails again.
# shellcheck disable=SC2016
check='first=${KILN_QUEUE_FIRST:-} test="kiln ci run --wait 5m -- bazel test"
if [ -s "$first" ]; then $test --test_tag_filters=-manual --target_pattern_file="$first"; [ $? != 3 ] || exit 3; fi
$test //...'
start queue.log kiln queue run --server "$KILN_SERVER" --queue app --state queue --repo app.git \
  --check "$check" --env KILN_SERVER --flakes-ruled-out --poll 1s
within 30 kiln queue list --queue app

say "30 branches are queued, and one of them is pushed again"
kiln queue pause --queue app --reason "until all are here"
# shellcheck disable=SC2086
printf '%s\n' $branches | xargs -P 10 -I '{}' kiln queue add --queue app --branch '{}' >/dev/null
(cd work && git checkout --quiet change-23 && echo fine >features/change-23 && push change-23)
kiln queue resume --queue app

left() { # how many have left the queue
  kiln queue list --queue app --ended 100 --json |
    "$python" -c 'import json, sys; print(len(json.load(sys.stdin)["ended"]))'
}
all_left() { [ "$(left)" = 30 ]; }
within 900 all_left
kiln queue list --queue app --ended 30

say "What became of them"
landed() { git --git-dir=app.git cat-file -e "refs/heads/main:features/$1" 2>/dev/null; }
for it in $branches; do
  case $it in
    change-4 | change-15)
      ! landed "$it" || fail "$it has landed, and is bad"
      shown=$(kiln queue show --queue app --branch "$it")
      [[ $shown == *"rejected: "*":${it}_test failed"* ]] || fail "it is not said what failed of $it: $shown"
      ;;
    change-12 | change-13) ;;
    *) landed "$it" || fail "$it has not landed, and is good" ;;
  esac
done
shared=$(git --git-dir=app.git show refs/heads/main:shared)
case $shared in
  change-12 | change-13) ;;
  *) fail "neither of two that conflict has landed" ;;
esac
# What main is now is a commit that was tested, exactly as it is, and that passed.
main=$(git --git-dir=app.git rev-parse refs/heads/main)
kiln queue list --queue app --json | "$python" -c 'import json, sys
queue = json.load(sys.stdin)
print(queue["totals"]["runs"], "runs for 30 changes")
passed = {it["commit"] for it in queue["ran"] if it["verdict"] == "passed"}
sys.exit(sys.argv[1] not in passed)' "$main" ||
  fail "main is at $main, which did not pass"
echo "26 good changes and one of two that conflict have landed, and nothing else"
if [ -n "$keep" ]; then
  echo "$KILN_SERVER/merge-queues/app is up until Ctrl-C."
  sleep infinity &
  started="$! $started"
  wait $!
fi
