#!/usr/bin/env bash
# Measures how a release comes to many hosts: agents that share it, and then the same agents with the server alone, in one run
# on this machine. Each agent, and the server, is in a network namespace of its own, behind one router; links are shaped by tc.
# A router and no switch: behind a switch each agent would know each other one as a neighbour, and the kernel has room for 1,024
# neighbours of all namespaces together. What finds no room there is not connected, as forty agents showed.
#
#   benches/swarm.sh                     100 agents, 200 MiB: an hour, and 50 GB of disk meanwhile
#   AGENTS=5 MIB=20 benches/swarm.sh     a try of five minutes
#
#   AGENTS=100 MIB=200      agents, and the size of the release
#   AGENT_MBIT=2            of each agent's link, up and down alike, in Mbit/s
#   SERVER_MBIT=100         of the server's
#   DELAY_MS=2              on the way out of each, where the kernel has netem; it is said, and the figures have 0, where it has not
#   MODES="shared alone"    or only one of them
#   JSON=FILE               writes the figures there as well
#   KILN_BENCH_BUILD=0 skips the build; KILN_BENCH_DIR chooses where the data is kept.
#
# Why links are so slow: what is to be seen is what links and the origin allow. On a real network each host has processors of
# its own; here all share those of one machine, and each byte that is shared is encrypted, decrypted, hashed twice and written
# there. At 100 Mbit/s a hundred agents would take 1.25 GB/s together, and the figures would say how fast this machine is. Of five
# agents on two busy cores each took 1 % of a core while it fetched, and 16 ms for each MB besides: a hundred of them take 1.4 of
# two cores at 2 Mbit/s, and at 4 Mbit/s all of both. The column `busy` says what the processors did in all: where it is above
# 80 %, shape slower, or wait until nothing else runs.
#
# Needs root (namespaces and tc), iproute2, openssl and Bazel, which makes the release. All of it goes when the script ends; one
# that is killed with -9 leaves processes in namespaces that are called kiln-swarm-….
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=../scripts/tools.sh
. "$root/scripts/tools.sh"
[ "$(id -u)" = 0 ] || fail "namespaces and tc take root"
for it in ip tc nsenter openssl; do command -v "$it" >/dev/null || fail "$it is missing"; done
need_bazel || fail "Bazel cannot be had here"
# shellcheck source=servers.sh
. "$root/benches/servers.sh"
need_built kiln

agents=${AGENTS:-100} mib=${MIB:-200} agent_mbit=${AGENT_MBIT:-2} server_mbit=${SERVER_MBIT:-100} delay=${DELAY_MS:-2}
# Seconds until a mode is given up.
readonly LIMIT=14400
kiln=$target/kiln
# Nothing here is beyond this machine's proxy.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy

needed=$((agents * mib * 5 / 2)) free=$(df --output=avail -BM "$data" | tail -1 | tr -dc 0-9)
[ "$free" -gt "$needed" ] || fail "$needed MiB are needed in $data, and $free are free"

# The network. Nothing of it is in the machine's own namespace; with its namespace each link goes.
router=kiln-swarm-$$-router
readonly GATEWAY=10.213.255.254
namespaces=()
unmake() {
  local name pid
  for name in "${namespaces[@]}"; do
    for pid in $(ip netns pids "$name" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
    ip netns del "$name" 2>/dev/null || true
  done
}
undo+=(unmake)
trap 'exit 1' INT TERM HUP

namespace() { # NAME
  ip netns add "$1"
  namespaces+=("$1")
  ip -n "$1" link set lo up
}
shape() { # NAMESPACE DEVICE MBIT
  # A burst holds one packet before it is cut (64 KiB), so that the kernel cuts none for the sake of the rate.
  tc -n "$1" qdisc add dev "$2" root handle 1: tbf rate "$3mbit" burst 128kb latency 200ms
}
link() { # NAME ADDRESS MBIT: a namespace behind the router
  local it=kiln-swarm-$$-$1
  namespace "$it"
  ip link add dev eth0 netns "$it" type veth peer name "port-$1" netns "$router"
  ip -n "$it" address add "$2/32" dev eth0
  ip -n "$it" link set eth0 up
  ip -n "$it" route add "$GATEWAY" dev eth0
  ip -n "$it" route add default via "$GATEWAY"
  ip -n "$router" address add "$GATEWAY/32" dev "port-$1"
  ip -n "$router" link set "port-$1" up
  ip -n "$router" route add "$2" dev "port-$1"
  # What goes to it is shaped at the router, what comes from it at itself.
  shape "$router" "port-$1" "$3"
  shape "$it" eth0 "$3"
  [ "$delay" = 0 ] || tc -n "$it" qdisc add dev eth0 parent 1:1 handle 10: netem delay "${delay}ms" limit 10000
}
inside() { # NAME COMMAND...: becomes the command
  local it=kiln-swarm-$$-$1
  shift
  exec nsenter --net="/run/netns/$it" -- "$@"
}
address_of() { echo "10.213.$((1 + $1 / 250)).$((1 + $1 % 250))"; }

say "$agents agents at $agent_mbit Mbit/s, a server at $server_mbit Mbit/s"
namespace "$router"
ip netns exec "$router" sysctl -qw net.ipv4.ip_forward=1
if [ "$delay" != 0 ] && ! tc -n "$router" qdisc add dev lo root netem delay 1ms 2>/dev/null; then
  say "this kernel has no netem: links have a rate and no delay"
  delay=0
fi
tc -n "$router" qdisc del dev lo root 2>/dev/null || true
link server 10.213.0.1 "$server_mbit"
for number in $(seq "$agents"); do link "$number" "$(address_of "$number")" "$agent_mbit"; done

# The server, and a release of random bytes that an action makes there.
export KILN_SERVER=http://10.213.0.1:8980
(umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$data/key.pem" 2>/dev/null)
openssl pkey -in "$data/key.pem" -pubout -out "$data/key.pub"
(KILN_RELEASES_KEY="$data/key.pem" inside server "$kiln" serve --listen 10.213.0.1:8980 --insecure --workers 1 \
  --data-dir "$data/server") >"$data/server.log" 2>&1 &
servers+=($!)
server=$!
ask() { (inside server "$kiln" "$@"); }
for _ in $(seq 300); do
  kill -0 "$server" 2>/dev/null || fail "the server ended at once: $(tail -n 3 "$data/server.log")"
  if ask health >"$data/said" 2>&1; then break; fi
  sleep 0.1
done
mkdir "$data/work"
touch "$data/work/WORKSPACE"
cat >"$data/work/BUILD" <<BUILD
genrule(name = "app", outs = ["out/data"], cmd = "head -c $((mib << 20)) /dev/urandom > \$@")
BUILD
invocation=$(cat /proc/sys/kernel/random/uuid)
# In batch mode nothing of Bazel stays in the namespace.
(cd "$data/work" && inside server "$KILN_BAZEL" --batch --output_user_root="$data/bazel" --nohome_rc build \
  --invocation_id="$invocation" --remote_executor="${KILN_SERVER/http/grpc}" --bes_backend="${KILN_SERVER/http/grpc}" \
  --remote_download_minimal //:app) >"$data/bazel.log" 2>&1 || fail "Bazel failed: $(tail -n 3 "$data/bazel.log")"
ask release create team/app:1 --invocation "$invocation" --target //:app >"$data/said"

# Figures that only grow.
sent() { # NAME: bytes that left it, as they are on the wire
  tc -n "kiln-swarm-$$-$1" -s -j qdisc show dev eth0 |
    python3 -c 'import json, sys; print(next(it["bytes"] for it in json.load(sys.stdin) if it.get("root")))'
}
seconds() { # PID...: processor time
  local pid
  for pid in "$@"; do sed 's/.*) //' "/proc/$pid/stat"; done |
    awk -v per="$(getconf CLK_TCK)" '{ sum += $12 + $13 } END { printf "%.2f", sum / per }'
}
busy() { # seconds of all processors in which something ran
  awk -v per="$(getconf CLK_TCK)" '$1 == "cpu" { printf "%.2f", ($2 + $3 + $4 + $7 + $8 + $9) / per }' /proc/stat
}
count() { # MODE: agents that are there
  ask agent list --service app --environment "$1" --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["agents"]))'
}
have_it() { find "$data/hosts" -maxdepth 2 -name current | wc -l; }

measure() { # MODE
  local mode=$1 number own all told began wire cpu_server cpu_agents cpu_all
  servers=("$server")
  for number in $(seq "$agents"); do
    own=()
    [ "$mode" = alone ] || own=(--peers-listen "$(address_of "$number"):8990")
    (inside "$number" "$kiln" agent --service app --environment "$mode" --name "$mode-$number" --dir "$data/hosts/$number" \
      --key "$data/key.pub" --repository team/app "${own[@]}") >"$data/hosts/$number.txt" 2>&1 &
    servers+=($!)
  done
  for _ in $(seq 600); do
    all=$(count "$mode")
    [ "$all" != "$agents" ] || break
    sleep 0.5
  done
  [ "$all" = "$agents" ] || fail "$all of $agents agents are there"
  cat >"$data/$mode.toml" <<TOML
name = "app"
targets = $agents
steps = [100]
bake = "1s"
soak = "1s"
watch = "5s"
settle = "${LIMIT}s"
TOML
  say "$mode: rolling out to all of them at once"
  wire=$(sent server) cpu_server=$(seconds "$server") cpu_agents=$(seconds "${servers[@]:1}") cpu_all=$(busy)
  began=$(date +%s.%N)
  ask rollout start "$data/$mode.toml" --release team/app:1 --env "$mode" --reason "measured" >"$data/said"
  told=0
  until [ "$(have_it)" = "$agents" ]; do
    sleep 1
    told=$((told + 1))
    kill -0 "$server" 2>/dev/null || fail "the server has ended"
    for number in $(seq "$agents"); do
      kill -0 "${servers[$number]}" 2>/dev/null || fail "agent $number has ended: $(tail -n 3 "$data/hosts/$number.txt")"
    done
    [ $((told % 60)) != 0 ] || say "$mode: $(have_it) of $agents have it after $told s"
    [ "$told" -lt "$LIMIT" ] || fail "$mode: $(have_it) of $agents have it after $LIMIT s"
  done
  python3 - "$data/figures" "$mode" "$data/hosts" "$began" "$((mib << 20))" \
    "$(($(sent server) - wire))" "$cpu_server" "$(seconds "$server")" "$cpu_agents" "$(seconds "${servers[@]:1}")" \
    "$cpu_all" "$(busy)" <<'PYTHON'
import glob, json, math, os, sys, time
file, mode, hosts, began, size, sent, *processors = sys.argv[1:]
began, size, sent = float(began), int(size), int(sent)
server, agents, machine = (float(b) - float(a) for a, b in zip(processors[::2], processors[1::2]))
# An agent has a release when it is fetched, verified, unpacked and switched to: that is when the link was made.
times = sorted(os.lstat(it).st_mtime - began for it in glob.glob(f"{hosts}/*/current"))
at = lambda percent: round(times[math.ceil(len(times) * percent / 100) - 1], 2)
figures = {
    "mode": mode, "origin_bytes": sent, "origin_releases": round(sent / size, 3),
    "p50_s": at(50), "p99_s": at(99), "max_s": at(100),
    "server_cpu_s": round(server, 2), "agents_cpu_s": round(agents, 2),
    "busy_percent": round(100 * machine / ((time.time() - began) * os.cpu_count())),
}
with open(file, "a") as out:
    out.write(json.dumps(figures) + "\n")
PYTHON
  for number in "${servers[@]:1}"; do kill "$number" 2>/dev/null || true; done
  for number in "${servers[@]:1}"; do wait "$number" 2>/dev/null || true; done
  servers=("$server")
  rm -rf "$data/hosts"
}
for mode in ${MODES:-shared alone}; do
  mkdir "$data/hosts"
  measure "$mode"
done

python3 - "$data/figures" "$agents" "$mib" "$agent_mbit" "$server_mbit" "$delay" "${JSON:-}" <<'PYTHON'
import json, sys
agents, mib, agent, server, delay = (float(it) for it in sys.argv[2:7])
with open(sys.argv[1]) as file:
    runs = [json.loads(line) for line in file]
bits = mib * (1 << 20) * 8 / 1e6
# Nothing is faster: all of it over one agent's link; and, where nobody shares, all of it to each over the server's.
floor = {"shared": max(bits / agent, bits / server), "alone": max(bits / agent, bits * agents / server)}
print("| mode | left the origin | in releases | p50 | p99 | max | what links allow | processors: server | agents, all | busy |")
print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
for it in runs:
    it["floor_s"] = round(floor[it["mode"]], 2)
    print(f"| {it['mode']} | {it['origin_bytes'] / 1e6:.0f} MB | {it['origin_releases']:.2f} | {it['p50_s']:.1f} s | {it['p99_s']:.1f} s "
          f"| {it['max_s']:.1f} s | {it['floor_s']:.1f} s | {it['server_cpu_s']:.1f} s | {it['agents_cpu_s']:.1f} s | {it['busy_percent']} % |")
    if it["busy_percent"] > 80:
        print(f"{it['mode']}: processors were busy for {it['busy_percent']} % of the time: shape slower", file=sys.stderr)
report = {"agents": int(agents), "mib": int(mib), "agent_mbit": agent, "server_mbit": server, "delay_ms": delay, "runs": runs}
print(json.dumps(report))
if sys.argv[7]:
    with open(sys.argv[7], "w") as out:
        json.dump(report, out, indent=2)
PYTHON
