//! Directories of inputs that an action may change in place: the action becomes the owner of what is in
//! them. The overlay copies each file for that; the inputs themselves stay as they are.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
use nix::unistd::{Gid, Uid, fchownat};

use super::identity::Identity;

/// Most levels of directories that are handed over, since each takes an open descriptor; what lies
/// deeper stays read-only.
const MAX_DEPTH: usize = 256;
const OWNER_WRITES: u32 = 0o200;

/// Hands `path` over to the action, if it is a directory that no symlink leads to.
pub(super) fn hand_over(root: BorrowedFd<'_>, path: &str, to: &Identity) -> nix::Result<()> {
    match open(root, path) {
        Ok(directory) => contents(directory, to, MAX_DEPTH),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Ok(()),
        Err(error) => Err(error),
    }
}

fn open(root: BorrowedFd<'_>, path: &str) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(root, path, how)
}

/// Hands over `directory` and what is in it, at most `depth` levels. Nothing changes meanwhile: the
/// action does not run yet.
fn contents(directory: OwnedFd, to: &Identity, depth: usize) -> nix::Result<()> {
    let mut listing = Dir::from_fd(directory)?;
    let entries = listing.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    let names: Vec<CString> = entries.collect::<nix::Result<_>>()?;
    let here = listing.as_fd();
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        let status = fstatat(here, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFREG {
            let mode = Mode::from_bits_truncate(status.st_mode | OWNER_WRITES);
            fchmodat(here, name.as_c_str(), mode, FchmodatFlags::FollowSymlink)?;
        } else if kind != SFlag::S_IFDIR {
            continue;
        }
        if to.switches_user {
            let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(here, name.as_c_str(), Some(uid), Some(gid), flags)?;
        }
        if kind == SFlag::S_IFDIR && depth > 0 {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let child = nix::fcntl::openat(here, name.as_c_str(), flags, Mode::empty())?;
            contents(child, to, depth - 1)?;
        }
    }
    Ok(())
}
