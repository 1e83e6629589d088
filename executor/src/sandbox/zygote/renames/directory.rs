//! Renames a directory entry by entry where the file system does not do it at once.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Most levels of directories that a rename goes down; each has two descriptors open and lies on a
/// small stack.
const MAX_DEPTH: usize = 128;

/// Renames `old`, a path from `from`, to `new`, a path from `to`, as `rename(2)` does. Fails with
/// EXDEV where neither the kernel nor this can do it; what was moved until then is moved back.
pub(super) fn rename(
    from: BorrowedFd<'_>,
    old: &Path,
    to: BorrowedFd<'_>,
    new: &Path,
) -> nix::Result<()> {
    let (old, new) = (without_slashes(old), without_slashes(new));
    let replaced = match renameat2(from, old, to, new, RenameFlags::RENAME_NOREPLACE) {
        // What is in the way may be an empty directory, which a rename replaces.
        Err(Errno::EEXIST) => Some(clear_the_way(from, old, to, new)?),
        Err(Errno::EXDEV) => None,
        done => return done,
    };
    if let Some(None) = replaced {
        return Ok(());
    }
    let moved = on_one_device(from, old, to, new)
        .and_then(|()| move_entry(from, &c_name(old)?, to, &c_name(new)?, 0));
    if let (Err(_), Some(Some(there))) = (moved, replaced) {
        // As before: a rename that fails changes nothing.
        let _ = mkdirat(to, new, mode(&there));
    }
    moved
}

/// Removes the empty directory at `new` and answers what it was; `None`: `old` and `new` are the
/// same entry, and nothing is to be done.
fn clear_the_way(
    from: BorrowedFd<'_>,
    old: &Path,
    to: BorrowedFd<'_>,
    new: &Path,
) -> nix::Result<Option<FileStat>> {
    let (moved, there) = (stat(from, old)?, stat(to, new)?);
    if (moved.st_dev, moved.st_ino) == (there.st_dev, there.st_ino) {
        return Ok(None);
    }
    match (is_directory(&moved), is_directory(&there)) {
        (true, true) => {}
        (true, false) => return Err(Errno::ENOTDIR),
        // Not what this is for.
        (false, _) => return Err(Errno::EXDEV),
    }
    unlinkat(to, new, UnlinkatFlags::RemoveDir)?;
    Ok(Some(there))
}

/// Fails with EXDEV, the right answer, where the rename would be between two file systems.
fn on_one_device(
    from: BorrowedFd<'_>,
    old: &Path,
    to: BorrowedFd<'_>,
    new: &Path,
) -> nix::Result<()> {
    let parent = match new.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Through links, as the path of a parent is meant.
    let parent = fstatat(to, parent, AtFlags::empty())?;
    if stat(from, old)?.st_dev == parent.st_dev { Ok(()) } else { Err(Errno::EXDEV) }
}

/// Moves one entry, and a directory entry by entry where the kernel does not move it. Files keep
/// what they are: the kernel renames each, and gives the action its own copy of an input.
fn move_entry(
    from: BorrowedFd<'_>,
    old: &CStr,
    to: BorrowedFd<'_>,
    new: &CStr,
    depth: usize,
) -> nix::Result<()> {
    match renameat2(from, old, to, new, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EXDEV) if depth < MAX_DEPTH => {}
        done => return done,
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = |at: BorrowedFd<'_>, name: &CStr| openat(at, name, flags, Mode::empty());
    let source = open(from, old)?;
    let before = fstat(&source)?;
    mkdirat(to, new, Mode::S_IRWXU)?;
    let target = open(to, new)?;
    let moved = move_entries(&source, &target, depth).and_then(|()| {
        futimens(&target, &accessed(&before), &modified(&before))?;
        fchmod(&target, mode(&before))?;
        unlinkat(from, old, UnlinkatFlags::RemoveDir)
    });
    if moved.is_err() {
        let _ = fchmod(&target, Mode::S_IRWXU);
        let _ = move_entries(&target, &source, depth);
        let _ = unlinkat(to, new, UnlinkatFlags::RemoveDir);
    }
    moved
}

fn move_entries(source: &OwnedFd, target: &OwnedFd, depth: usize) -> nix::Result<()> {
    let names = names(source)?;
    let mut entries = names.iter();
    entries.try_for_each(|name| move_entry(source.as_fd(), name, target.as_fd(), name, depth + 1))
}

fn names(directory: &OwnedFd) -> nix::Result<Vec<CString>> {
    let listed = Dir::openat(directory, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let entries = listed.into_iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    let named = |entry: &nix::Result<CString>| {
        entry.as_ref().map_or(true, |name| !matches!(name.as_bytes(), b"." | b".."))
    };
    entries.filter(named).collect()
}

fn stat(at: BorrowedFd<'_>, path: &Path) -> nix::Result<FileStat> {
    fstatat(at, path, AtFlags::AT_SYMLINK_NOFOLLOW)
}

pub(super) fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode)
}

fn accessed(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_atime, stat.st_atime_nsec)
}

fn modified(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}

/// The path without slashes at its end: `d/` is the directory `d`, which is made or removed by its
/// name alone.
fn without_slashes(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(bytes.len().min(1), |at| at + 1);
    Path::new(OsStr::from_bytes(&bytes[..end]))
}

fn c_name(path: &Path) -> nix::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}
