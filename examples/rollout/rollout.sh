#!/bin/sh
# A service of some hosts behind nginx or HAProxy, watched by Prometheus, through good and bad releases, with users who ask all the
# time. A good release reaches every host; one that fails two requests of a hundred more, one that takes twice as long, one
# that leaks memory and one that crashes are each reverted while they are canaries. What users were answered is counted for each.
#
#   examples/rollout/rollout.sh [--agents N] [--haproxy] [--flaky-metric] [--only NAME]... [DIRECTORY]
#
#   --agents N       hosts, each with an agent: 2 to 200, 10 if nothing is said; 40 want a machine of some eight cores
#   --haproxy        HAProxy before them instead of nginx
#   --flaky-metric   besides what is measured, a critical metric that is noise, and often away: it reverts nothing
#   --only NAME      of good, errors, slow, leak and crash only these; may be said several times
#
# KILN, NGINX, HAPROXY, PROMETHEUS and BAZEL name the programs.
#
# Takes some fifteen minutes, of which each release takes two or three. Everything runs on this machine, as this user, and ends with the script.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:/usr/sbin"
kiln=${KILN:-kiln} nginx=${NGINX:-nginx} haproxy=${HAPROXY:-haproxy} prometheus=${PROMETHEUS:-prometheus}
bazel=${BAZEL:-bazel}
# nginx takes a variable of this name for sockets that it inherits.
unset NGINX
balancer=nginx hosts=10 flaky= only= place=
usage() { sed -n 's/^#   //p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --agents) [ $# -gt 1 ] || usage; hosts=$2; shift ;;
    --haproxy) balancer=haproxy ;;
    --flaky-metric) flaky=1 ;;
    --only)
      [ $# -gt 1 ] || usage
      case $2 in good | errors | slow | leak | crash) only="$only $2" ;; *) usage ;; esac
      shift ;;
    -*) usage ;;
    *) [ -z "$place" ] || usage; place=$1 ;;
  esac
  shift
done
case $hosts in "" | *[!0-9]* | ????*) usage ;; esac
{ [ "$hosts" -ge 2 ] && [ "$hosts" -le 200 ]; } || usage
only=${only:-" good errors slow leak crash"}
wants() { case "$only " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
place=${place:-$(mktemp -d "${TMPDIR:-/tmp}/kiln-rollout.XXXXXX")}
mkdir -p "$place/kiln" "$place/work" "$place/hosts"
cd "$place"
place=$(pwd)

# shellcheck source=../lib.sh
. "$here/../lib.sh"
trap end_started EXIT
trap 'exit 1' INT TERM
say() { printf '%s  %s\n' "$(date +%T)" "$*"; }

# The server, which trusts what is signed with its own key.
api=127.0.0.1:$(free) edge=127.0.0.1:$(free) status=127.0.0.1:$(free) watch=127.0.0.1:$(free)
export KILN_SERVER="http://$api"
signing_key
if [ "$balancer" = haproxy ]; then
  cat >parts.toml <<EOF
[traffic.edge]
kind = "haproxy"
directory = "$place/kiln"
socket = "$place/admin.sock"
test = ["$haproxy", "-c", "-f", "$place/haproxy.cfg", "-f", "$place/kiln"]
reload = ["sh", "-c", "kill -USR2 \$(cat '$place/haproxy.pid')"]
EOF
else
  nginx_part >parts.toml
fi
prometheus_part >>parts.toml
cat >>parts.toml <<EOF

[signals.flaky]
kind = "command"
command = ["python3", "$here/flaky.py"]
EOF
cat >kiln.toml <<EOF
[releases]
key = "$place/key.pem"
[rollouts]
parts = "$place/parts.toml"
EOF
start server.log "$kiln" serve --listen "$api" --data-dir data --config kiln.toml --workers 1
within 30 "$kiln" health

# Releases: the same program, which does what is written beside it.
cp "$here/app.py" work/app.py
cat >work/BUILD <<'EOF'
genrule(name = "app", srcs = ["app.py", "behaviour.json"], outs = ["out/app.py", "out/behaviour.json"],
        cmd = "cp $(location app.py) $(location out/app.py); cp $(location behaviour.json) $(location out/behaviour.json)")
EOF
: >work/WORKSPACE
release() { # VERSION BEHAVIOUR
  printf '%s\n' "$2" >work/behaviour.json
  invocation=$(cat /proc/sys/kernel/random/uuid)
  (cd work && "$bazel" --output_user_root="$place/bazel" --max_idle_secs=60 build --invocation_id="$invocation" \
    --remote_executor="grpc://$api" --bes_backend="grpc://$api" //:app) >bazel.log 2>&1
  "$kiln" release create "team/app:$1" --invocation "$invocation" --target //:app >/dev/null
}
# Times that are well above what a busy machine adds to them.
say "building releases"
as_good='"delay": 0.02, "errors": 0.002'
release 1.0 "{\"version\": \"1.0\", $as_good}"
if wants good; then release 1.1 "{\"version\": \"1.1\", $as_good, \"note\": \"as good\"}"; fi
if wants errors; then release 1.2 '{"version": "1.2", "delay": 0.02, "errors": 0.022}'; fi
if wants slow; then release 1.3 '{"version": "1.3", "delay": 0.04, "errors": 0.002}'; fi
if wants leak; then release 1.4 "{\"version\": \"1.4\", $as_good, \"leak\": 1000000}"; fi
if wants crash; then release 1.5 "{\"version\": \"1.5\", $as_good, \"crash_after\": 15}"; fi
(cd work && "$bazel" --output_user_root="$place/bazel" --max_idle_secs=60 shutdown >/dev/null 2>&1)

# Hosts: an agent each, which keeps the program of its release running.
scraped=
for it in $(seq "$hosts"); do
  port=$(free)
  start "hosts/$it.log" "$kiln" agent --service api --environment prod --name "host-$it" \
    --address "127.0.0.1:$port" --dir "hosts/$it" --key key.pub --repository team/app --run "python3 out/app.py --port $port" \
    --health "http://127.0.0.1:$port/healthz" --health-every 2s
  scraped="$scraped${scraped:+, }{ targets: [\"127.0.0.1:$port\"], labels: { host: host-$it } }"
done
# A host that is being switched refuses connections for a moment: another one answers.
nginx_config api.prod error >nginx.conf
cat >haproxy.cfg <<EOF
global
    stats socket $place/admin.sock level admin expose-fd listeners
defaults
    mode http
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend users
    bind $edge
    use_backend %[str(api.prod)]
EOF
if [ "$balancer" = haproxy ]; then
  start haproxy.log sh -c 'echo $$ >haproxy.pid; exec "$0" -W -f "$PWD/haproxy.cfg" -f "$PWD/kiln"' "$haproxy"
  within 60 test -s haproxy.pid
else
  start_nginx
fi
start_prometheus "$scraped"

# Where nothing runs nobody asks, and nothing is measured: the first release comes to all hosts at once.
cat >first.toml <<EOF
name = "api"
by = "both"
traffic = "edge"
targets = $hosts
steps = [100]
bake = "5s"
soak = "1s"
watch = "1s"
EOF
cat >rollout.toml <<EOF
name = "api"
by = "both"
traffic = "edge"
targets = $hosts
steps = [10, 50, 100]
bake = "60s"
soak = "20s"
watch = "5s"

[judge]
interval = "1s"
least = { points = 30, effective = 10, requests = 100, errors = 0 }

[[metric]]
name = "errors"
source = "prom"
bad = 'sum(increase(requests_total{host=~"{{targets}}",code="500"}[{{window}}]))'
total = 'sum(increase(requests_total{host=~"{{targets}}"}[{{window}}]))'
direction = "increase"
critical = true

[[metric]]
name = "p99"
source = "prom"
query = 'histogram_quantile(0.99, sum by (le) (rate(latency_seconds_bucket{host=~"{{targets}}"}[2s])))'
direction = "increase"
critical = true
effectSize = { allowedIncrease = 1.2, criticalIncrease = 1.2 }

[[metric]]
name = "memory"
source = "prom"
# What it grows by in three seconds. Values of memory itself are too much alike to be many, and a megabyte makes 200 kB the least that counts.
query = '1e6 + avg(delta(resident_bytes{host=~"{{targets}}"}[3s]))'
direction = "increase"
critical = true
effectSize = { allowedIncrease = 1.2, criticalIncrease = 1.2 }
EOF
[ -z "$flaky" ] || cat >>rollout.toml <<EOF

[[metric]]
name = "flaky"
source = "flaky"
query = "noise of {{targets}}"
direction = "increase"
critical = true
EOF

wrong=0
# As many as the first step has, which is what a release may reach that is reverted.
first=$(((hosts + 9) / 10))
roll() { # NAME VERSION CODE: rolls out while users ask, and says what they were answered; CODE is how it should end
  wants "$1" || return 0
  say "$1: rolling out $2"
  ask "users-$2.json" 6 0
  code=0
  "$kiln" rollout start rollout.toml --release "team/app:$2" --env prod --reason "an example" --wait || code=$?
  asked
  id=$("$kiln" rollout list --limit 1 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["rollouts"][0]["id"])')
  "$kiln" rollout show "$id" --json >"rollout-$2.json" || :
  say "$1: exit code $code, expected $3"
  # The judge could not decide in time, as where a machine is too busy to answer: the next one wants the place.
  if [ $code = 6 ]; then
    "$kiln" rollout abort "$id" --reason "the example goes on" >/dev/null
    "$kiln" rollout watch "$id" --plain || :
  fi
  python3 "$here/seen.py" "$first" "users-$2.json" <"rollout-$2.json" >came || { wrong=1; echo "  MORE THAN THE CANARY HAD IT" >>came; }
  tee -a seen <came
  [ $code = "$3" ] || { wrong=1; echo "  THAT IS NOT AS EXPECTED"; }
}

within $((60 + hosts * 2)) all_there api prod "$hosts"
say "installing 1.0 on $hosts hosts behind $balancer"
"$kiln" rollout start first.toml --release team/app:1.0 --env prod --reason 'the first' --wait
roll good 1.1 0
roll errors 1.2 1
roll slow 1.3 1
roll leak 1.4 1
roll crash 1.5 1
"$kiln" rollout list
"$kiln" agent list --service api
[ $wrong = 0 ] && say "all went as it should; what was seen is in $place/seen" || say "something did not go as it should: look into $place"
exit $wrong
