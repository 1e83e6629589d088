#!/bin/bash
# Shows with a real server and a real Bazel what becomes of flaky, broken and long tests. README.md says what it does.
#
#   KILN=path/to/kiln BAZEL=bazel CASES=24 examples/tests/run.sh
set -eu

here=$(cd "$(dirname "$0")" && pwd)
kiln=${KILN:-kiln}
bazel=${BAZEL:-bazel}
cases=${CASES:-24}
parts=${PARTS:-4}
rounds=${ROUNDS:-60}
# How much faster in parts, in percent.
faster=${FASTER:-200}

work=$(mktemp -d "${TMPDIR:-/tmp}/kiln-tests-example.XXXXXX")
server=
cleanup() {
  run_bazel shutdown > /dev/null 2>&1 || true
  if [ -n "$server" ]; then
    kill "$server" 2> /dev/null || true
    wait "$server" 2> /dev/null || true
  fi
  chmod -R u+w "$work" 2> /dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n== %s\n' "$*"; }
ok() { printf 'ok: %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# Sources are changed on the way: those of a copy.
mkdir "$work/examples"
cp -R "$here" "$work/examples/tests"
cp -R "$here/../bazel" "$work/examples/bazel"
cd "$work/examples/tests"
sed -i "s/^CASES = .*/CASES = \"$cases\"/; s/^PARTS = .*/PARTS = \"$parts\"/" BUILD.bazel

# It lives for minutes: what it compiles well it never earns back.
startup=("--output_user_root=$work/bazel" --max_idle_secs=120 --nohome_rc
  --host_jvm_args=-XX:TieredStopAtLevel=1 --host_jvm_args=-XX:+UseSerialGC)
flags=(--config=kiln --symlink_prefix=/ --noshow_progress --color=no --curses=no)
run_bazel() { LC_ALL=C.UTF-8 "$bazel" "${startup[@]}" "$@"; }
# Tests run again though they passed: each round stands for a build at another commit.
run_tests() { run_bazel test "${flags[@]}" --nocache_test_results "$@"; }
short=(--test_tag_filters=-long,-unshardable //...)

say "A server with $parts slots"
KILN_TESTS_WINDOW=1s "$kiln" serve --listen 127.0.0.1:0 --data-dir "$work/data" --workers "$parts" \
  > "$work/serve.log" 2>&1 &
server=$!
for _ in $(seq 300); do
  address=$(sed -n 's|.*--remote_executor=grpc://\([^ ]*\).*|\1|p' "$work/serve.log" | head -1)
  [ -n "$address" ] && break
  kill -0 "$server" 2> /dev/null || { cat "$work/serve.log" >&2; fail "the server did not start"; }
  sleep 0.1
done
[ -n "$address" ] || fail "the server did not become ready"
export KILN_SERVER="http://$address"
flags+=("--remote_executor=grpc://$address" "--bes_backend=grpc://$address"
  "--bes_results_url=http://$address/builds/")
ok "$KILN_SERVER"

say "Flaky tests are found, and nobody else is accused"
# The first of its tables; failures that are judged come behind an empty line.
flaky() { "$kiln" tests flakes --standing flaky | sed '/^$/,$d'; }
for round in $(seq "$rounds"); do
  run_tests --build_metadata=COMMIT_SHA="$(printf '%040x' "$round")" "${short[@]}" \
    > "$work/bazel.log" 2>&1 || [ $? = 3 ] || { cat "$work/bazel.log" >&2; fail "Bazel failed"; }
  flaky | grep -q '//:flaky_test' && break
done
"$kiln" tests flakes
flaky | grep -q '//:flaky_test' || fail "//:flaky_test was not found in $rounds rounds"
accused=$(flaky | grep -o '//:[a-z_]*' | grep -v -e '//:flaky_test' -e '//:order_test' || true)
[ -z "$accused" ] || fail "falsely accused: $accused"
ok "//:flaky_test was found in round $round; steady, slow and sharded tests are not accused"

say "A pipeline stays green though a quarantined test fails"
"$kiln" tests quarantine add //:flaky_test --reason 'fails every other time' --owner @example
for round in $(seq "$rounds"); do
  code=0
  "$kiln" ci run --wait 60s -- "$bazel" "${startup[@]}" test "${flags[@]}" --nocache_test_results \
    //:flaky_test //:steady_test > "$work/ci.log" 2>&1 || code=$?
  # On a busy machine the time may be over before a shadow run has passed: undecided, and never red.
  [ $code = 0 ] || grep -q '^undecided' "$work/ci.log" ||
    { cat "$work/ci.log" >&2; fail "kiln ci run ended with $code"; }
  grep -q '^green: .* masked' "$work/ci.log" && break
done
grep '^green: .* masked' "$work/ci.log" || fail "it did not fail in $rounds rounds"
ok "Bazel said 3, and kiln ci run 0"

say "A broken test is never masked, in quarantine or not"
"$kiln" tests quarantine add //:broken_test --reason 'to see that it does not help'
echo "gone" > feature.txt
code=0
"$kiln" ci run --wait "${WAIT:-90s}" -- "$bazel" "${startup[@]}" test "${flags[@]}" --nocache_test_results \
  //:broken_test //:steady_test > "$work/ci.log" 2>&1 || code=$?
grep -e '//:broken_test' "$work/ci.log" | tail -1 || true
[ $code = 3 ] || { cat "$work/ci.log" >&2; fail "kiln ci run ended with $code"; }
ok "kiln ci run ended with Bazel's own 3"

say "A long suite over $parts workers"
run_bazel build "${flags[@]}" //:whole_test //:suite_test //:unshardable_test > "$work/bazel.log" 2>&1
logs=$(run_bazel info "${flags[@]}" bazel-testlogs 2> /dev/null)
names() { grep -o 'name="case[0-9]*"' "$logs/$1/test.xml" | sort; }
timed() {
  local began
  began=$(date +%s%N)
  run_tests "$1" > "$work/bazel.log" 2>&1 || { cat "$work/bazel.log" >&2; fail "$1 failed"; }
  took=$(($(date +%s%N) - began))
  seconds=$(printf '%d.%01d' $((took / 1000000000)) $((took / 100000000 % 10)))
}
timed //:whole_test
whole=$took
echo "whole: $seconds s"
timed //:suite_test
echo "in $parts parts: $seconds s"
[ "$(names whole_test)" = "$(names suite_test)" ] || fail "the cases are not the same"
[ "$(names suite_test | wc -l)" = "$cases" ] || fail "not every case ran once"
# What Bazel itself takes is in both.
[ $((took * faster / 100)) -lt "$whole" ] ||
  fail "it was not $faster % as fast: are $parts cores idle? FASTER=120 asks for less"
ok "the identical $cases cases, each once"
timed //:unshardable_test
[ "$(names unshardable_test | wc -l)" = 6 ] || fail "a runner that knows of no shards lost cases"
ok "a runner that knows nothing of shards ran whole, with all its cases"

say "All is as it should be"
