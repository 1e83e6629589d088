//! The mount calls of the zygote, one function for each.
#![allow(unsafe_code)] // mount_setattr has no safe counterpart

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount};

use super::error::{Context, ZygoteError, errno};

const NONE: Option<&str> = None;
const UNCHANGED: libc::mount_attr =
    libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };
/// Most terminals of one action, of the 4,096 that a machine usually has.
const MAX_TERMINALS: u32 = 256;

/// Makes all mounts private: from now on none is seen by, or comes from, another namespace.
pub(super) fn make_private() -> Result<(), ZygoteError> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("mount", "private on /")
}

/// Mounts `from` on `to`, with everything mounted beneath it.
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

/// Mounts terminals of its own for an action, which end with the mount.
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
    clone_tree(path).context("open_tree", path.display())
}

fn clone_tree(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, path, flags).map_err(errno)
}

/// A copy of what is at `path`, mounted nowhere yet, in which what root owns is owned by `owner`, a
/// user namespace that maps 0 to somebody.
pub(super) fn open_tree_owned(path: &Path, owner: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let tree = clone_tree(path)?;
    let userns_fd = u64::try_from(owner.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let owned = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, userns_fd, ..UNCHANGED };
    // An empty path means the descriptor itself.
    set_attributes(tree.as_fd(), c"", libc::AT_EMPTY_PATH, &owned)?;
    Ok(tree)
}

/// Mounts what [`open_tree`] has copied.
pub(super) fn attach(tree: &OwnedFd, at: &Path) -> Result<(), ZygoteError> {
    move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("move_mount", at.display())
}

/// Makes the mount at `at` read-only, and setuid programs and device nodes in it without effect;
/// with `recursive` all mounts beneath it as well. With `devices` the device nodes stay usable.
pub(super) fn restrict(at: &Path, recursive: bool, devices: bool) -> Result<(), ZygoteError> {
    let nodev = if devices { 0 } else { libc::MOUNT_ATTR_NODEV };
    let added = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | nodev;
    add_attributes(at, recursive, added).context("mount_setattr", at.display())
}

/// Ends writing through the mount at `at`, also by who keeps one of its directories open when it has
/// been detached. False: somebody has a file of it open for writing, or mapped so.
pub(super) fn end_writing(at: &Path) -> Result<bool, ZygoteError> {
    match add_attributes(at, false, libc::MOUNT_ATTR_RDONLY) {
        Err(Errno::EBUSY) => Ok(false),
        ended => ended.map(|()| true).context("mount_setattr", at.display()),
    }
}

fn add_attributes(at: &Path, recursive: bool, attr_set: u64) -> nix::Result<()> {
    let path = CString::new(at.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    set_attributes(CWD, &path, flags, &libc::mount_attr { attr_set, ..UNCHANGED })
}

fn set_attributes(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: libc::c_int,
    attributes: &libc::mount_attr,
) -> nix::Result<()> {
    // SAFETY: the path is a terminated string and the attributes a live mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}
