//! Look-ups that cannot leave a directory, whatever symlinks an action put there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat};

use crate::paths;

/// The kernel asks for another try when a rename elsewhere raced with a look-up of `..`.
const TRIES: usize = 32;
/// The mode that a directory needs for its owner to look through it.
const OPEN: Mode = Mode::S_IRWXU;

/// Bytes of the unit in which `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// The kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File {
        size: u64,
        /// Bytes on the disk or in memory: fewer than `size` where the file has holes.
        allocated: u64,
        executable: bool,
        /// The file's identity where it has other names as well; `None`: this is its only name.
        inode: Option<Inode>,
    },
    Directory,
    Symlink,
    /// Anything else that no output can be (a pipe, a socket, a device): the text names it.
    Special(&'static str),
}

/// The identity of a file, by whatever name it is found. With another size it counts as another
/// file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inode {
    device: u64,
    number: u64,
    size: u64,
}

/// Where a path leads.
pub enum Found {
    /// The directory that holds the last name, open for look-ups.
    Parent(OwnedFd),
    Nothing,
    /// The path goes through a symlink that leads out of the root, or in a circle.
    Outside,
}

/// Opens the directory at `path` (`""`: the root itself). Symlinks within the root are
/// followed, none that leads out of it.
pub fn find_directory(root: BorrowedFd<'_>, path: &str) -> io::Result<Found> {
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let found = match open(root, path, flags) {
        Err(Errno::EACCES) => {
            open_up(root, path)?;
            open(root, path, flags)
        }
        found => found,
    };
    match found {
        Ok(directory) => Ok(Found::Parent(directory)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => Ok(Found::Nothing),
        Err(Errno::EXDEV | Errno::ELOOP) => Ok(Found::Outside),
        Err(error) => Err(error.into()),
    }
}

/// Gives the owner back the way through each directory on the path, as far as an action has closed it. Where
/// the path ends before that, or leads elsewhere, the next look-up says so.
fn open_up(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    if let Err(Errno::EACCES) = fstatat(root, ".", AtFlags::empty()) {
        set_mode(&root, OPEN)?;
    }
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    for end in ends {
        let (parent, name) = paths::split(&path[..end]);
        let parent = if parent.is_empty() { "." } else { parent };
        let Ok(parent) = open(root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY) else { break };
        if let Some(Kind::Directory) = kind(parent.as_fd(), name)? {
            let directory = open(parent.as_fd(), name, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
            if let Err(Errno::EACCES) = fstatat(&directory, ".", AtFlags::empty()) {
                set_mode(&directory, OPEN)?;
            }
        }
    }
    Ok(())
}

/// Opens a file that was seen before, to read it again.
pub fn open_file(root: BorrowedFd<'_>, path: &str) -> io::Result<File> {
    let (parent, name) = paths::split(path);
    match find_directory(root, parent)? {
        Found::Parent(parent) => open_entry(parent.as_fd(), name),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Opens the regular file `name` in `directory`.
pub fn open_entry(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    Ok(readable(directory, name, flags, 0o400)?.into())
}

/// Opens the directory `name` in `directory` for listing.
pub fn open_listing(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    readable(directory, name, flags, 0o500)
}

/// An action may have taken the right to read away from its owner: give it back and try again.
fn readable(
    directory: BorrowedFd<'_>,
    name: &str,
    flags: OFlag,
    mode: nix::libc::mode_t,
) -> io::Result<OwnedFd> {
    match open(directory, name, flags) {
        Err(Errno::EACCES) => {
            allow(directory, name, Mode::from_bits_truncate(mode))?;
            Ok(open(directory, name, flags)?)
        }
        result => Ok(result?),
    }
}

/// Changes the entry itself, whatever may be put in its place in between: through the name of its
/// descriptor, as one that is open for no more than that takes no mode.
fn allow(directory: BorrowedFd<'_>, name: &str, mode: Mode) -> io::Result<()> {
    let entry = open(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    if matches!(kind_of(&fstat(&entry)?), Kind::File { .. } | Kind::Directory) {
        set_mode(&entry, mode)?;
    }
    Ok(())
}

fn set_mode(entry: &impl AsRawFd, mode: Mode) -> io::Result<()> {
    let itself = format!("/proc/self/fd/{}", entry.as_raw_fd());
    Ok(fchmodat(AT_FDCWD, itself.as_str(), mode, FchmodatFlags::FollowSymlink)?)
}

/// The kind of the entry `name` in `directory`, whose symlinks are not followed; `None`: there is
/// no such entry.
pub fn kind(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<Kind>> {
    let found = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::EACCES) => {
            set_mode(&directory, OPEN)?;
            fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        }
        found => found,
    };
    match found {
        Ok(stat) => Ok(Some(kind_of(&stat))),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kind_of(stat: &FileStat) -> Kind {
    let format = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    match format {
        SFlag::S_IFREG => {
            let (size, allocated) = (stat.st_size as u64, stat.st_blocks as u64 * BLOCK_BYTES);
            let inode = Inode { device: stat.st_dev, number: stat.st_ino, size };
            let inode = (stat.st_nlink > 1).then_some(inode);
            Kind::File { size, allocated, executable: stat.st_mode & 0o111 != 0, inode }
        }
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFIFO => Kind::Special("a named pipe"),
        SFlag::S_IFSOCK => Kind::Special("a socket"),
        SFlag::S_IFBLK => Kind::Special("a block device"),
        SFlag::S_IFCHR => Kind::Special("a character device"),
        _ => Kind::Special("of an unknown kind"),
    }
}

/// The text of a symlink; `None` when it is not UTF-8.
pub fn target(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<String>> {
    Ok(readlinkat(directory, name)?.into_string().ok())
}

/// Whether the symlink `name` in `parent` (a path in the root) leads to a directory within the root.
pub fn leads_to_directory(root: BorrowedFd<'_>, path: &str) -> io::Result<bool> {
    Ok(matches!(find_directory(root, path)?, Found::Parent(_)))
}

fn open(directory: BorrowedFd<'_>, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 1..TRIES {
        match openat2(directory, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result,
        }
    }
    openat2(directory, path, how)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_does_not_lend_its_targets_mode() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, "secret").unwrap();
        std::fs::set_permissions(&target, PermissionsExt::from_mode(0o0)).unwrap();
        symlink("target", dir.path().join("link")).unwrap();
        let open_dir = File::open(dir.path()).unwrap();
        let mode = || std::fs::metadata(&target).unwrap().permissions().mode() & 0o777;
        let read = Mode::from_bits_truncate(0o400);
        // This stands for an action that has replaced a file by a symlink after the executor saw the file.
        allow(open_dir.as_fd(), "link", read).unwrap();
        assert_eq!(mode(), 0);
        allow(open_dir.as_fd(), "target", read).unwrap();
        assert_eq!(mode(), 0o400);
    }

    #[test]
    fn where_a_way_ends_nothing_is_left_to_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        symlink("..", dir.path().join("up")).unwrap();
        let root = File::open(dir.path()).unwrap();
        for path in ["gone/b/c", "file/b/c", "up/b/c"] {
            open_up(root.as_fd(), path).unwrap();
        }
    }
}
