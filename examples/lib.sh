# What examples share that run a service on this machine; for sh and bash. Whoever reads it is in the directory `place` and has
# named the programs: kiln, nginx, prometheus.

python=$(python3 -c 'import sys; print(sys.executable)')
started=

end_started() { # ends what is in `started`, newest first: agents end their programs by themselves
  for it in $started; do kill "$it" 2>/dev/null || :; done
  wait
}
end_other() { # PID: of a process that is no child
  kill "$1" 2>/dev/null || return 0
  while kill -0 "$1" 2>/dev/null; do sleep 0.1; done
}
start() { # LOG COMMAND...: in the background
  log=$1; shift
  "$@" >"$log" 2>&1 &
  started="$! $started"
}
free() { # a port that nobody listens on, another one each time: who is to have one may begin to listen late
  "$python" -c 'import socket, sys
with open(sys.argv[1], "a+") as given:
    given.seek(0)
    taken = given.read().split()
    while True:
        it = socket.socket()
        it.bind(("127.0.0.1", 0))
        port = str(it.getsockname()[1])
        if port not in taken:
            break
    given.write(port + "\n")
print(port)' "$place/ports"
}
fetch() { # URL on this machine: proxies are for others
  "$python" -c 'import sys, urllib.request as it
sys.stdout.write(it.build_opener(it.ProxyHandler({})).open(sys.argv[1], timeout=10).read().decode())' "$1"
}
within() { # SECONDS COMMAND...: until it succeeds
  deadline=$(($(date +%s) + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt $deadline ] || { echo "not there in time: $*" >&2; exit 1; }
    sleep 0.2
  done
}
signing_key() { # key.pem signs, key.pub verifies
  (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem 2>/dev/null)
  openssl pkey -in key.pem -pubout -out key.pub
}
agents() { # SERVICE ENVIRONMENT: how many hosts have said that they are there
  "$kiln" agent list --service "$1" --environment "$2" --json |
    "$python" -c 'import json, sys; print(len(json.load(sys.stdin)["agents"]))'
}
all_there() { [ "$(agents "$1" "$2")" = "$3" ]; }

# nginx at `edge` sends requests to the members of SERVICE.ENVIRONMENT, which Kiln writes to kiln/ and sees taken at `status`.
nginx_config() { # SERVICE.ENVIRONMENT error|off: whether another one is asked where one cannot be reached
  temporary=
  for it in client_body proxy fastcgi uwsgi scgi; do temporary="$temporary ${it}_temp_path \"$place/$it\";"; done
  cat <<END
daemon off; worker_processes 2; pid "$place/nginx.pid";
events { worker_connections 1024; }
http {
  access_log off; $temporary
  include "$place/kiln/*.conf";
  server { listen $edge; location / { set \$to $1; proxy_pass http://\$to; proxy_next_upstream $2; } }
}
END
}
nginx_part() {
  cat <<END
[traffic.edge]
kind = "nginx"
directory = "$place/kiln"
status = "$status"
test = ["$nginx", "-e", "$place/error.log", "-c", "$place/nginx.conf", "-t", "-q"]
reload = ["$nginx", "-e", "$place/error.log", "-c", "$place/nginx.conf", "-s", "reload"]
END
}
start_nginx() {
  start nginx.log "$nginx" -e "$place/error.log" -c "$place/nginx.conf"
  within 60 test -s nginx.pid
}

# Prometheus at `watch` looks at hosts each second.
prometheus_part() {
  printf '[signals.prom]\nkind = "prometheus"\nurl = "http://%s"\n' "$watch"
}
start_prometheus() { # TARGETS: a list in YAML's short form
  printf 'global: { scrape_interval: 1s }\nscrape_configs: [{ job_name: api, static_configs: [%s] }]\n' "$1" >prometheus.yml
  start prometheus.log "$prometheus" --config.file=prometheus.yml --storage.tsdb.path=tsdb "--web.listen-address=$watch"
  within 60 fetch "http://$watch/-/ready"
}

# Users who ask at `edge`; `asked` ends them.
ask() { # FILE USERS PAUSE: what they are answered is counted in FILE
  rm -f users.stop
  "$python" "$here/../rollout/users.py" "$edge" 1200 "$2" users.stop "$3" >"$1" &
  users=$!
  started="$users $started"
}
asked() {
  : >users.stop
  wait "$users"
}
