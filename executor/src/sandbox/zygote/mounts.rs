//! Single mount calls.
#![allow(unsafe_code)] // mount_setattr, open_tree and move_mount have no safe counterpart

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::error::{Context, ZygoteError};

const NONE: Option<&str> = None;
/// Of one action, of the 4,096 that a machine usually has.
const MAX_TERMINALS: u32 = 256;

/// From now on no mount is seen by, or comes from, another namespace.
pub(super) fn make_private() -> Result<(), ZygoteError> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("mount", "private on /")
}

/// `from` with everything mounted beneath it.
pub(super) fn bind(from: &Path, to: &Path) -> Result<(), ZygoteError> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .context("bind mount", format_args!("{} on {}", from.display(), to.display()))
}

pub(super) fn tmpfs(at: &Path, options: &str) -> Result<(), ZygoteError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))
        .context("mount", format_args!("tmpfs on {}", at.display()))
}

pub(super) fn proc(at: &Path) -> Result<(), ZygoteError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), at, Some("proc"), flags, NONE).context("mount", "/proc")
}

/// Terminals of its own, which end with it.
pub(super) fn devpts(at: &Path) -> Result<(), ZygoteError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = format!("newinstance,mode=0620,ptmxmode=0666,max={MAX_TERMINALS}");
    mount(Some("devpts"), at, Some("devpts"), flags, Some(options.as_str()))
        .context("mount", at.display())
}

pub(super) fn overlay(at: &Path, options: &str) -> Result<(), ZygoteError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("overlay"), at, Some("overlay"), flags, Some(options))
        .context("mount", format_args!("overlay of the inputs ({options})"))
}

pub(super) fn detach(at: &Path) -> Result<(), ZygoteError> {
    umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).context("umount2", at.display())
}

/// A copy of what is at `path`, mounted nowhere yet.
pub(super) fn open_tree(path: &Path) -> Result<OwnedFd, ZygoteError> {
    let name = c_path(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a terminated string that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) };
    let fd = Errno::result(fd).context("open_tree", path.display())?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF).context("open_tree", path.display())?;
    // SAFETY: the kernel has just made this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same with everything mounted beneath it, in which what root owns is owned by `owner`, a user
/// namespace that maps 0 to somebody.
pub(super) fn open_tree_owned(path: &Path, owner: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let clone = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a terminated string that outlives the call.
    let fd = Errno::result(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), clone)
    })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for this process.
    let tree = unsafe { OwnedFd::from_raw_fd(fd) };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(owner.as_raw_fd()).map_err(|_| Errno::EBADF)?,
    };
    // SAFETY: the path is empty, so that the descriptor itself is meant, and the attributes are a live
    // mount_attr of the size given.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(tree)
}

/// Mounts what [`open_tree`] has copied.
pub(super) fn attach(tree: &OwnedFd, at: &Path) -> Result<(), ZygoteError> {
    let name = c_path(at)?;
    // SAFETY: both paths are terminated strings that outlive the call; the first is empty, so that
    // the descriptor itself is meant.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            name.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop).context("move_mount", at.display())
}

fn c_path(path: &Path) -> Result<CString, ZygoteError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Errno::EINVAL)
        .context("use", path.display())
}

/// Adds to the mount at `at`, and with `recursive` to all beneath it. Devices are left usable
/// with `devices`.
pub(super) fn restrict(at: &Path, recursive: bool, devices: bool) -> Result<(), ZygoteError> {
    let nodev = if devices { 0 } else { libc::MOUNT_ATTR_NODEV };
    let added = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | nodev;
    set_attributes(&c_path(at)?, recursive, added).context("mount_setattr", at.display())
}

/// Ends writing through the mount at `at`, also by who keeps one of its directories open when it has
/// been detached. False: somebody has a file of it open for writing, or mapped so.
pub(super) fn end_writing(at: &Path) -> Result<bool, ZygoteError> {
    match set_attributes(&c_path(at)?, false, libc::MOUNT_ATTR_RDONLY) {
        Err(Errno::EBUSY) => Ok(false),
        ended => ended.map(|()| true).context("mount_setattr", at.display()),
    }
}

fn set_attributes(path: &CStr, recursive: bool, added: u64) -> nix::Result<()> {
    let attributes =
        libc::mount_attr { attr_set: added, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a terminated string and the attributes a live mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}
