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

# shellcheck source=../lib.sh
. "$here/../lib.sh"
trap end_started EXIT
trap 'exit 1' INT TERM

for it in old-1 old-2 old-3 old-4 new-1; do
  bad=0; [ "$it" != new-1 ] || bad=0.02
  start "$it.log" "$python" "$here/app.py" --address-file "$it" --errors $bad --version "${it%-*}"
done
for it in old-1 old-2 old-3 old-4 new-1; do within 60 test -s "$it"; done
set --
for it in old-1 old-2 old-3 old-4; do set -- "$@" --baseline "$it=$(cat "$it")"; done
set -- "$@" --canary "new-1=$(cat new-1)" --service api --environment try

edge=127.0.0.1:$(free) status=127.0.0.1:$(free) watch=127.0.0.1:$(free)
nginx_config api.try off >nginx.conf
{ nginx_part; prometheus_part; } >parts.toml
start_nginx
scraped=
for it in old-1 old-2 old-3 old-4 new-1; do scraped="$scraped${scraped:+, }{ targets: [\"$(cat $it)\"] }"; done
start_prometheus "$scraped"

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
