//! An action's /dev.
#![allow(unsafe_code)] // fsopen, fsconfig and fsmount have no safe counterpart

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, fchmodat, makedev, mknodat};
use nix::unistd::Uid;

use super::error::{Context, ZygoteError};
use super::layout::{self, DEVICES, MACHINE};
use super::mounts;

/// Name, major and minor number.
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
/// Where something is mounted for each action.
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

fn detached_tmpfs() -> nix::Result<OwnedFd> {
    const CREATE: libc::c_uint = 6;
    const CLOSE_ON_EXEC: libc::c_uint = 1;
    // SAFETY: the name is a terminated string that outlives the call.
    let context =
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOSE_ON_EXEC) })?;
    // SAFETY: this command takes no key and no value.
    let created = unsafe {
        let none = std::ptr::null::<libc::c_char>();
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, none, none, 0)
    };
    Errno::result(created)?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: integers only.
    descriptor(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOSE_ON_EXEC, attributes)
    })
}

fn descriptor(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
