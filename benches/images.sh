#!/usr/bin/env bash
# Container images: the first pull of an image of about 100 MB against `skopeo copy` and `umoci unpack`
# of the same one in the same run, and what an action in an image costs against one on the host's root.
#
#   benches/images.sh                       builds Kiln first; ROUNDS=3 pulls, ACTIONS=300 actions
#   KILN=path/to/kiln benches/images.sh     measures this binary
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=../scripts/tools.sh
. scripts/tools.sh
need_bazel
need_registry || fail "docker-registry, skopeo, umoci and busybox cannot be had here"
if [ -z "${KILN:-}" ]; then
  cargo build --release --locked -p kiln
  KILN="${CARGO_TARGET_DIR:-target}/release/kiln"
fi
place=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait; chmod -R u+w "$place"; rm -rf "$place"' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }

say "making an image"
image="$place/layout:it"
umoci init --layout "$place/layout"
umoci new --image "$image"
umoci unpack --rootless --image "$image" "$place/bundle" >/dev/null
mkdir -p "$place/bundle/rootfs/"{bin,etc,opt}
cp "$KILN_BUSYBOX" "$place/bundle/rootfs/bin/busybox"
ln -s busybox "$place/bundle/rootfs/bin/sh"
umoci repack --image "$image" "$place/bundle" >/dev/null
# Libraries and headers of this machine, until the image has about 100 MB compressed.
for part in include share/perl lib/x86_64-linux-gnu lib/gcc; do
  rm -rf "$place/bundle"
  umoci unpack --rootless --image "$image" "$place/bundle" >/dev/null
  (cd /usr && find "$part" -type f -size -20M -print0 2>/dev/null | sort -z |
    awk 'BEGIN { RS = ORS = "\0" } n++ < 9000' | tar --null -T - -cf - 2>/dev/null) |
    tar -C "$place/bundle/rootfs/opt" -xf - || true
  umoci repack --image "$image" "$place/bundle" >/dev/null
  size=$(du -sm "$place/layout/blobs" | cut -f1)
  [ "$size" -lt 90 ] || break
done
rm -rf "$place/bundle"

port=$(free_port)
printf "version: 0.1\nstorage: {filesystem: {rootdirectory: '%s'}}\nhttp: {addr: '127.0.0.1:%s'}\nlog: {level: error}\n" \
  "$place/registry" "$port" >"$place/registry.yml"
"$KILN_REGISTRY" serve "$place/registry.yml" >/dev/null 2>&1 &
pids+=($!)
until curl -fs "http://127.0.0.1:$port/v2/" >/dev/null; do sleep 0.05; done
skopeo copy --quiet --insecure-policy --dest-tls-verify=false "oci:$image" "docker://127.0.0.1:$port/bench:it"
digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://127.0.0.1:$port/bench:it")
name="docker://127.0.0.1:$port/bench@$digest"
echo "image: $size MB in blobs"

workspace="$place/workspace"
mkdir "$workspace"
touch "$workspace/WORKSPACE"
printf 'build:kiln --spawn_strategy=remote\nbuild --color=no --curses=no --noshow_progress\n' >"$workspace/.bazelrc"
cat >"$workspace/rules.bzl" <<'RULES'
def _touch(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.run(outputs = [out], executable = "/bin/sh", arguments = ["-c", ": > $0", out.path])
    return [DefaultInfo(files = depset([out]))]

touch = rule(implementation = _touch)
RULES
cat >"$workspace/BUILD" <<BUILD
load(":rules.bzl", "touch")
touch(name = "first", exec_properties = {"container-image": "$name"})
[touch(name = "%s-%s" % (kind, number), exec_properties = properties)
 for number in range(${ACTIONS:-300})
 for (kind, properties) in [("image", {"container-image": "$name"}), ("host", {})]]
[filegroup(name = kind, srcs = ["%s-%s" % (kind, number) for number in range(${ACTIONS:-300})])
 for kind in ["image", "host"]]
BUILD
bazel() {
  (cd "$workspace" && "$KILN_BAZEL" --output_user_root="$place/bazel" --max_idle_secs=60 --nohome_rc "$@" 2>"$place/bazel.log") ||
    { cat "$place/bazel.log" >&2; exit 1; }
}
serve() {
  port_of_kiln=$(free_port)
  "$KILN" serve --listen "127.0.0.1:$port_of_kiln" --data-dir "$place/data-$1" --allow-image '*' >/dev/null 2>&1 &
  kiln=$!
  pids+=("$kiln")
  until curl -fs "http://127.0.0.1:$port_of_kiln/readyz" >/dev/null; do sleep 0.05; done
}
metric() { curl -fs "http://127.0.0.1:$port_of_kiln/metrics" | awk -v name="$1" '$1 == name { print $2 }'; }
stage() { metric "kiln_action_stage_duration_seconds_sum{stage=\"$1\"}"; }
build() { bazel build --config=kiln --remote_executor="grpc://127.0.0.1:$port_of_kiln" --jobs=2 "$@"; }

echo "| round | skopeo copy | umoci unpack | both | Kiln: pull and unpack |"
echo "| --- | --- | --- | --- | --- |"
for round in $(seq "${ROUNDS:-3}"); do
  begin=$(now)
  skopeo copy --quiet --insecure-policy --src-tls-verify=false "docker://127.0.0.1:$port/bench@$digest" "oci:$place/copy-$round:it"
  copied=$(since "$begin")
  begin=$(now)
  umoci unpack --rootless --image "$place/copy-$round:it" "$place/unpacked-$round" >/dev/null
  unpacked=$(since "$begin")
  serve "$round"
  build //:first
  pulled=$(metric kiln_image_pull_seconds_total)
  awk -v round="$round" -v a="$copied" -v b="$unpacked" -v c="$pulled" \
    'BEGIN { printf "| %d | %.2f s | %.2f s | %.2f s | %.2f s |\n", round, a, b, a + b, c }'
  rm -rf "$place/copy-$round" "$place/unpacked-$round"
  if [ "$round" != "${ROUNDS:-3}" ]; then
    kill "$kiln"
    wait "$kiln" || true
    rm -rf "$place/data-$round"
    bazel clean
  fi
done

echo
echo "| root | input fetch | run | actions |"
echo "| --- | --- | --- | --- |"
for kind in host image host image; do
  bazel clean
  fetch=$(stage input_fetch) run=$(stage run)
  before=$(metric 'kiln_executions_total{outcome="success"}')
  build --noremote_accept_cached "//:$kind"
  after=$(metric 'kiln_executions_total{outcome="success"}')
  awk -v kind="$kind" -v n="$((after - before))" -v f0="$fetch" -v r0="$run" -v f1="$(stage input_fetch)" -v r1="$(stage run)" \
    'BEGIN { printf "| %s | %.3f ms | %.3f ms | %d |\n", kind, (f1 - f0) / n * 1000, (r1 - r0) / n * 1000, n }'
done
bazel shutdown
