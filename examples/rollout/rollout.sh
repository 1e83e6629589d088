#!/bin/sh
# A service of 10 hosts behind nginx or HAProxy, watched by Prometheus, through good and bad releases, with users who ask all the
# time. A good release reaches every host; one that fails two requests of a hundred more, one that takes twice as long and
# one that crashes are each reverted while they are canaries. What users were answered is counted for each.
#
#   examples/rollout/rollout.sh [DIRECTORY]
#
# KILN, NGINX, HAPROXY, PROMETHEUS and BAZEL name the programs; BALANCER=haproxy takes that one, HOSTS=40 more hosts.
#
# Takes some ten minutes. Everything runs on this machine, as this user, and ends with the script.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:/usr/sbin"
kiln=${KILN:-kiln} nginx=${NGINX:-nginx} haproxy=${HAPROXY:-haproxy} prometheus=${PROMETHEUS:-prometheus}
balancer=${BALANCER:-nginx} bazel=${BAZEL:-bazel} hosts=${HOSTS:-10}
place=${1:-$(mktemp -d "${TMPDIR:-/tmp}/kiln-rollout.XXXXXX")}
mkdir -p "$place/kiln" "$place/work" "$place/hosts"
cd "$place"
place=$(pwd)

started=
end() {
  # shellcheck disable=SC2086
  kill $started 2>/dev/null || :
  wait
}
trap end EXIT
trap 'exit 1' INT TERM
free() { python3 -c 'import socket; it = socket.socket(); it.bind(("127.0.0.1", 0)); print(it.getsockname()[1])'; }
say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
within() { # SECONDS COMMAND...: until it succeeds
  seconds=$1; shift
  until "$@" >/dev/null 2>&1; do
    seconds=$((seconds - 1))
    [ $seconds -gt 0 ] || { echo "not there in time: $*" >&2; exit 1; }
    sleep 1
  done
}

# The server, which trusts what is signed with its own key.
api=127.0.0.1:$(free) edge=127.0.0.1:$(free) status=127.0.0.1:$(free) watch=127.0.0.1:$(free)
export KILN_SERVER="http://$api"
(umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem 2>/dev/null)
openssl pkey -in key.pem -pubout -out key.pub
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
  cat >parts.toml <<EOF
[traffic.edge]
kind = "nginx"
directory = "$place/kiln"
status = "$status"
test = ["$nginx", "-e", "$place/error.log", "-c", "$place/nginx.conf", "-t", "-q"]
reload = ["$nginx", "-e", "$place/error.log", "-c", "$place/nginx.conf", "-s", "reload"]
EOF
fi
cat >>parts.toml <<EOF

[signals.prom]
kind = "prometheus"
url = "http://$watch"
EOF
cat >kiln.toml <<EOF
[releases]
key = "$place/key.pem"
[rollouts]
parts = "$place/parts.toml"
EOF
"$kiln" serve --listen "$api" --data-dir data --config kiln.toml --workers 1 >server.log 2>&1 &
started="$started $!"
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
say "building releases"
release 1.0 '{"version": "1.0", "delay": 0.004, "errors": 0.002}'
release 1.1 '{"version": "1.1", "delay": 0.004, "errors": 0.002, "note": "as good"}'
release 1.2 '{"version": "1.2", "delay": 0.004, "errors": 0.022}'
release 1.3 '{"version": "1.3", "delay": 0.008, "errors": 0.002}'
release 1.4 '{"version": "1.4", "delay": 0.004, "errors": 0.002, "crash_after": 15}'
(cd work && "$bazel" --output_user_root="$place/bazel" --max_idle_secs=60 shutdown >/dev/null 2>&1)

# Hosts: an agent each, which keeps the program of its release running.
scraped=
for it in $(seq "$hosts"); do
  port=$(free)
  "$kiln" agent --service api --environment prod --name "host-$it" --address "127.0.0.1:$port" --dir "hosts/$it" \
    --key key.pub --repository team/app --run "python3 out/app.py --port $port" \
    --health "http://127.0.0.1:$port/healthz" --health-every 2s >"hosts/$it.log" 2>&1 &
  started="$started $!"
  scraped="$scraped${scraped:+, }{ targets: [\"127.0.0.1:$port\"], labels: { host: host-$it } }"
done
temporary=
for it in client_body proxy fastcgi uwsgi scgi; do temporary="$temporary ${it}_temp_path \"$place/$it\";"; done
# A host that is being switched refuses connections for a moment: another one answers.
cat >nginx.conf <<EOF
daemon off; worker_processes 2; pid "$place/nginx.pid";
events { worker_connections 1024; }
http {
  access_log off; $temporary
  include "$place/kiln/*.conf";
  server { listen $edge; location / { set \$to api.prod; proxy_pass http://\$to; proxy_next_upstream error; } }
}
EOF
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
cat >prometheus.yml <<EOF
global: { scrape_interval: 1s }
scrape_configs: [{ job_name: api, static_configs: [$scraped] }]
EOF
if [ "$balancer" = haproxy ]; then
  sh -c 'echo $$ >haproxy.pid; exec "$0" -W -f "$PWD/haproxy.cfg" -f "$PWD/kiln" 2>haproxy.log' "$haproxy" &
else
  "$nginx" -e "$place/error.log" -c "$place/nginx.conf" &
fi
started="$started $!"
"$prometheus" --config.file=prometheus.yml --storage.tsdb.path=tsdb --web.listen-address=$watch 2>prometheus.log &
started="$started $!"
within 20 test -s "$balancer.pid"
within 20 curl -sf "http://$watch/-/ready"

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
EOF

there() { # whether all hosts have said that they are there
  "$kiln" agent list --service api --json |
    python3 -c 'import json, sys; sys.exit(len(json.load(sys.stdin)["agents"]) != int(sys.argv[1]))' "$hosts"
}
wrong=0
roll() { # VERSION CODE: rolls out while users ask, and says what they were answered; CODE is how it should end
  say "rolling out $1"
  python3 "$here/users.py" "$edge" 900 6 users.stop >"users-$1.json" &
  users=$!
  started="$started $users"
  code=0
  "$kiln" rollout start rollout.toml --release "team/app:$1" --env prod --reason "an example" --wait || code=$?
  : >users.stop
  wait $users
  rm users.stop
  say "exit code $code (expected $2); users were answered: $(cat "users-$1.json")"
  [ $code = "$2" ] || wrong=1
}

within 60 there
say "installing 1.0"
"$kiln" rollout start first.toml --release team/app:1.0 --env prod --reason 'the first' --wait
roll 1.1 0
roll 1.2 1
roll 1.3 1
roll 1.4 1
"$kiln" rollout list
"$kiln" agent list --service api
exit $wrong
