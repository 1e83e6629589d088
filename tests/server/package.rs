//! The Debian package is made, installed, run and purged, in a view of this machine that nothing leaks out of.

#![allow(clippy::panic)]

use crate::support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{client, root};

/// Makes the package of the binary under test and returns its path.
fn package() -> PathBuf {
    let output = Command::new(root().join("scripts/package.sh"))
        .args(["--fast", "--binary", env!("CARGO_BIN_EXE_kiln")])
        .output()
        .expect("the script runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let path = String::from_utf8(output.stdout).expect("UTF-8");
    root().join(path.trim())
}

/// The script that root runs in the view. `$1` is the path of the package.
const LIFE: &str = r#"
set -eu
step() { echo "== $*" >&2; }
step install
dpkg --install "$1"
test "$(stat -c %U:%a /usr/bin/kiln)" = root:755
getent passwd kiln >/dev/null
step manual pages and completions
man -l --warnings /usr/share/man/man1/kiln-serve.1.gz >/dev/null
zcat /usr/share/man/man1/kiln.1.gz | grep -qi 'remote execution'
bash -n /usr/share/bash-completion/completions/kiln
step units
systemd-analyze verify --man=no /lib/systemd/system/kiln.service /lib/systemd/system/kiln-worker.service
step configuration
kiln config check --config /etc/kiln/kiln.toml >/dev/null
kiln config check --config /etc/kiln/worker.toml >/dev/null
step serve, as the unit does
install -d -o kiln -g kiln -m 700 /var/lib/kiln
setpriv --reuid kiln --regid kiln --clear-groups --no-new-privs --bounding-set=-all \
  env -i PATH=/usr/bin:/bin sh -c 'umask 077; cd /;
    exec kiln serve --config /etc/kiln/kiln.toml --listen 127.0.0.1:0' >/tmp/ready &
server=$!
touch /tmp/ready; until url=$(sed -n 's/^ *web pages *//p' /tmp/ready) && [ -n "$url" ]; do kill -0 $server; sleep 0.1; done
kiln --server "${url%/}" health
kiln --server "${url%/}" status --json | grep -q slots
kill $server; wait $server
test -e /var/lib/kiln/blobs
kiln config show --config /etc/kiln/worker.toml | grep -q 'data_dir  */var/lib/kiln-worker'
! grep -q data-dir /lib/systemd/system/kiln.service /lib/systemd/system/kiln-worker.service
step remove and purge
dpkg --remove kiln
test ! -e /usr/bin/kiln
test -e /etc/kiln/kiln.toml && test -d /var/lib/kiln
dpkg --purge kiln
test ! -e /etc/kiln && test ! -e /var/lib/kiln
step done
"#;

/// Runs [`LIFE`] over an overlay of `/`, in a mount namespace of its own. Returns whether the script succeeded, and
/// what it printed.
fn live(package: &Path) -> (bool, String) {
    let view = r#"
set -eu
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
cp "$1" /mnt/kiln.deb
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
for dir in proc sys dev; do mount --rbind /$dir /mnt/root/$dir; done
mount -t tmpfs none /mnt/root/tmp
mount -t tmpfs none /mnt/root/run
cp /mnt/kiln.deb /mnt/root/tmp/
# Not chroot: who is in one may make no user namespace, and so no sandbox.
mkdir /mnt/root/tmp/machine
cd /mnt/root
pivot_root . tmp/machine
umount --lazy /tmp/machine
exec sh -c "$2" life /tmp/kiln.deb
"#;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", view, "view"])
        .arg(package)
        .arg(LIFE)
        .output()
        .expect("unshare runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_package_installs_runs_and_leaves_nothing() {
    if client("KILN_CARGO_DEB").is_none() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root installs packages");
        return;
    }
    let (ok, said) = live(&package());
    assert!(ok && said.contains("== done"), "{said}");
}
