#!/bin/sh
# How requests are split and signals are asked, by hand: four servers of the old version, one of a new one that fails two
# requests of a hundred, nginx before them and Prometheus beside them. No Kiln server runs.
#
#   examples/rollout/traffic.sh [DIRECTORY]   KILN, NGINX and PROMETHEUS name the programs
set -eu

here=$(cd "$(dirname "$0")" && pwd)
kiln=${KILN:-kiln} nginx=${NGINX:-$(PATH="$PATH:/usr/sbin" command -v nginx)} prometheus=${PROMETHEUS:-prometheus}
# nginx takes a variable of this name for sockets that it inherits.
unset NGINX
place=${1:-$(mktemp -d "${TMPDIR:-/tmp}/kiln-traffic.XXXXXX")}
mkdir -p "$place/kiln"
cd "$place"
place=$(pwd)

started=
trap 'kill $started 2>/dev/null || :; wait' EXIT
free() { python3 -c 'import socket; it = socket.socket(); it.bind(("127.0.0.1", 0)); print(it.getsockname()[1])'; }
within() { # SECONDS COMMAND...: until it succeeds
  seconds=$1; shift
  until "$@" >/dev/null 2>&1; do
    seconds=$((seconds - 1))
    [ $seconds -gt 0 ] || { echo "not there in time: $*" >&2; exit 1; }
    sleep 1
  done
}

for it in old-1 old-2 old-3 old-4 new-1; do
  bad=0; [ "$it" != new-1 ] || bad=0.02
  python3 "$here/app.py" --address-file "$it" --errors $bad --version "${it%-*}" &
  started="$started $!"
done
for it in old-1 old-2 old-3 old-4 new-1; do within 20 test -s "$it"; done
set --
for it in old-1 old-2 old-3 old-4; do set -- "$@" --baseline "$it=$(cat "$it")"; done
set -- "$@" --canary "new-1=$(cat new-1)" --service api --environment try

edge=127.0.0.1:$(free) status=127.0.0.1:$(free) watch=127.0.0.1:$(free)
temporary=
for it in client_body proxy fastcgi uwsgi scgi; do temporary="$temporary ${it}_temp_path \"$place/$it\";"; done
cat >nginx.conf <<EOF
daemon off; worker_processes 2; pid "$place/nginx.pid";
events { worker_connections 1024; }
http {
  access_log off; $temporary
  include "$place/kiln/*.conf";
  server { listen $edge; location / { set \$to api.try; proxy_pass http://\$to; proxy_next_upstream off; } }
}
EOF
cat >prometheus.yml <<EOF
global: { scrape_interval: 1s }
scrape_configs:
  - job_name: api
    static_configs: [{ targets: [$(cat old-1), $(cat old-2), $(cat old-3), $(cat old-4), $(cat new-1)] }]
EOF
cat >parts.toml <<EOF
[traffic.edge]
kind = "nginx"
directory = "$place/kiln"
status = "$status"
test = ["$nginx", "-e", "$place/error.log", "-c", "$place/nginx.conf", "-t", "-q"]
reload = ["$nginx", "-e", "$place/error.log", "-c", "$place/nginx.conf", "-s", "reload"]

[signals.prom]
kind = "prometheus"
url = "http://$watch"
EOF
"$nginx" -e "$place/error.log" -c "$place/nginx.conf" &
started="$started $!"
"$prometheus" --config.file=prometheus.yml --storage.tsdb.path=tsdb --web.listen-address=$watch 2>prometheus.log &
started="$started $!"
within 20 test -s nginx.pid
within 20 curl -sf "http://$watch/-/ready"

"$kiln" rollout traffic parts.toml --balancer edge --share 0 "$@"
python3 "$here/users.py" $edge 30 >users.json &
users=$!
for share in 1 10 50; do
  "$kiln" rollout traffic parts.toml --balancer edge --share $share "$@" >/dev/null
  echo "$share % of the requests go to the new version"
  sleep 9
done
wait $users
echo "what users were answered: $(cat users.json)"
count='sum(increase(requests_total{instance=~"{{addresses}}"'
"$kiln" rollout signals parts.toml --source prom --last 25 "$@" \
  --bad "$count,code=\"500\"}[{{window}}]))" --total "$count}[{{window}}]))"
"$kiln" rollout signals parts.toml --source prom --last 20 --interval 1 "$@" --query \
  'histogram_quantile(0.99, sum by (le) (rate(latency_seconds_bucket{instance=~"{{addresses}}"}[5s])))'
