//! An action's /dev.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, fchmodat, makedev, mknodat};
use nix::unistd::Uid;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::error::{Context, ZygoteError};
use super::layout::{self, DEVICES, MACHINE};
use super::mounts;

/// The device nodes of an action: name, major and minor number.
const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
/// The directories in /dev on which something is mounted for each action.
const MOUNT_POINTS: [&str; 2] = ["pts", "shm"];

/// Device nodes of this slot alone, mounted nowhere yet: locks on the machine's would be seen by all
/// actions. `None`: nobody but root of the machine can make any, so the machine's own serve.
pub(super) fn private() -> Option<OwnedFd> {
    if !Uid::effective().is_root() {
        return None;
    }
    let mount = detached_tmpfs().ok()?;
    let everybody = Mode::from_bits_truncate(0o666);
    for (name, major, minor) in NODES {
        mknodat(&mount, name, SFlag::S_IFCHR, everybody, makedev(major, minor)).ok()?;
        let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
        fchmodat(&mount, name, everybody, follow).ok()?;
    }
    // A machine may let root make nodes that nobody can open.
    let null = nix::fcntl::openat(
        &mount,
        "null",
        nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_CLOEXEC,
        Mode::empty(),
    );
    null.is_ok().then_some(mount)
}

fn detached_tmpfs() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Fills `dev`, a directory of a root that is being prepared.
pub(super) fn populate(dev: &Path) -> Result<(), ZygoteError> {
    for name in MOUNT_POINTS {
        layout::make_dir(&dev.join(name))?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).context("symlink", name)?;
    }
    for (name, ..) in NODES {
        let own = Path::new(DEVICES).join(name);
        let machine = Path::new(MACHINE).join("dev").join(name);
        let Some(from) = [own, machine].into_iter().find(|path| path.exists()) else { continue };
        let to = dev.join(name);
        File::create(&to).context("create", to.display())?;
        mounts::bind(&from, &to)?;
        // What is written to a device is written all the same; its times and mode stay.
        mounts::restrict(&to, false, true)?;
    }
    Ok(())
}
