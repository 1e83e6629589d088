//! Removes what an action left on a disk, however deep it is: it may have made more levels of directories
//! than a process can have open, or a path can name.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Removes the directory at `path` with all that is in it. Nobody changes it meanwhile.
pub(super) fn tree(path: &Path) -> nix::Result<()> {
    let root = Dir::open(path, flags(), Mode::empty())?;
    let mut moved = 0;
    each_entry(root.as_fd(), |name| flatten(root.as_fd(), name, &mut moved))?;
    unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir)
}

fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// Removes an entry of `root`. The directories in it that are not empty become entries of `root`.
fn flatten(root: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> nix::Result<()> {
    if remove(root, name)? {
        return Ok(());
    }
    let directory = Dir::openat(root, name, flags(), Mode::empty())?;
    each_entry(directory.as_fd(), |child| match remove(directory.as_fd(), child)? {
        true => Ok(()),
        false => move_up(directory.as_fd(), child, root, moved),
    })?;
    unlinkat(root, name, UnlinkatFlags::RemoveDir)
}

/// Removes the entry `name`. False: it is a directory that is not empty, and is still there.
fn remove(directory: BorrowedFd<'_>, name: &CStr) -> nix::Result<bool> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => {}
        removed => return removed.map(|()| true),
    }
    match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// Moves the entry `name` to an unused name in `root`. The call is the one with flags, because the
/// filter of system calls asks the zygote about a rename without.
fn move_up(
    from: BorrowedFd<'_>,
    name: &CStr,
    root: BorrowedFd<'_>,
    moved: &mut u64,
) -> nix::Result<()> {
    loop {
        *moved += 1;
        let unused = format!(".removed-{moved}");
        match renameat2(from, name, root, unused.as_str(), RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => {}
            done => return done,
        }
    }
}

/// Calls `work` with each entry until there is none, those included that come meanwhile.
fn each_entry(
    directory: BorrowedFd<'_>,
    mut work: impl FnMut(&CStr) -> nix::Result<()>,
) -> nix::Result<()> {
    let mut any = true;
    while std::mem::take(&mut any) {
        for entry in Dir::openat(directory, ".", flags(), Mode::empty())? {
            let name: CString = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                any = true;
                work(&name)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_goes_and_nothing_that_a_link_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (root, kept) = (dir.path().join("root"), dir.path().join("kept"));
        fs::write(&kept, "").unwrap();
        for path in ["a/b/c/d", "a/b/e", ".removed-1/x/y", "empty"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in ["f", "a/f", "a/b/c/f", ".removed-2"] {
            fs::write(root.join(path), "").unwrap();
        }
        symlink("../../kept", root.join("a/link")).unwrap();
        symlink("..", root.join("a/b/up")).unwrap();
        tree(&root).unwrap();
        assert!(!root.exists() && kept.exists());
        assert_eq!(tree(&root), Err(Errno::ENOENT));
    }
}
