//! The directory that an image is unpacked into. No path leads out of it: the kernel follows links
//! as if it were `/` (`openat2` with RESOLVE_IN_ROOT).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlink};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

/// Directories inside of each other, whatever links led there: as deep as their removal may recurse.
const MAX_DEPTH: usize = 256;
/// Modification time of all directories: 2000-01-01, which every program can take.
const DIRECTORY_TIME: i64 = 946_684_800;
/// The latest modification time, in seconds since 1970 (the year 2242); later ones are clamped to
/// it.
const LATEST: i64 = 1 << 33;
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

#[derive(Debug, thiserror::Error)]
#[error("{action} {path:?}: {error}")]
pub struct TreeError {
    action: &'static str,
    path: PathBuf,
    error: Errno,
}

impl TreeError {
    /// Whether this machine is to blame, and not what was to be unpacked.
    pub fn is_local(&self) -> bool {
        !matches!(
            self.error,
            Errno::ENAMETOOLONG
                | Errno::ELOOP
                | Errno::ENOTDIR
                | Errno::EISDIR
                | Errno::EEXIST
                | Errno::ENOENT
                | Errno::EINVAL
                | Errno::EXDEV
                | Errno::EMLINK
                | Errno::EFBIG
        )
    }
}

type Result<T> = std::result::Result<T, TreeError>;

trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for nix::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| TreeError { action, path: path.to_owned(), error })
    }
}

pub struct Tree {
    root: Arc<OwnedFd>,
    /// The directory that was used last, since entries come in order; `None`: none yet, or
    /// something was removed since.
    last: Option<(PathBuf, Arc<OwnedFd>)>,
    /// How many names the path of the image's root has on this machine.
    depth: usize,
}

/// A file that is being written.
pub struct NewFile {
    file: File,
    path: PathBuf,
}

impl NewFile {
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        let written = self.file.write_all(data);
        written
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
            .context("write", &self.path)
    }

    pub fn finish(self, mode: u32, time: i64) -> Result<()> {
        fchmod(&self.file, Mode::from_bits_truncate(file_mode(mode)))
            .context("chmod", &self.path)?;
        let time = seconds(time);
        futimens(&self.file, &time, &time).context("set the time of", &self.path)
    }
}

/// The mode of a file: everybody gets what the owner has, but for writing.
fn file_mode(mode: u32) -> u32 {
    let owner = mode & 0o500;
    (mode & 0o777) | owner >> 3 | owner >> 6
}

/// The mode of a directory: it can be searched and, by the worker, changed.
fn directory_mode(mode: u32) -> u32 {
    file_mode(mode) | 0o755
}

fn seconds(time: i64) -> TimeSpec {
    TimeSpec::new(time.clamp(0, LATEST), 0)
}

impl Tree {
    /// Takes a directory that exists.
    pub fn open(path: &Path) -> Result<Self> {
        let root = nix::fcntl::open(path, DIRECTORY, Mode::empty()).context("open", path)?;
        let mut tree = Self { root: Arc::new(root), last: None, depth: 0 };
        tree.depth = tree.depth_of(tree.root.as_fd()).context("find", path)?;
        Ok(tree)
    }

    /// Removes whatever is at this path.
    pub fn clear(&mut self, parent: &Path, name: &OsStr) -> Result<()> {
        let directory = self.directory(parent)?;
        let path = parent.join(name);
        if status(directory.as_fd(), name).context("look at", &path)?.is_none() {
            return Ok(());
        }
        self.last = None;
        remove(directory.as_fd(), name, MAX_DEPTH).context("remove", &path)
    }

    /// Removes what is at this path. Nothing need be there, not even the parent.
    pub fn remove(&mut self, parent: &Path, name: &OsStr) -> Result<()> {
        match self.existing(parent)? {
            Some(_) => self.clear(parent, name),
            None => Ok(()),
        }
    }

    /// The names in a directory; none where the path leads to no directory.
    pub fn names(&mut self, directory: &Path) -> Result<Vec<OsString>> {
        match self.existing(directory)? {
            Some(found) => names(found.as_fd()).context("list", directory),
            None => Ok(Vec::new()),
        }
    }

    /// Makes a directory; one that is there already stays, with the new mode.
    pub fn make_directory(&mut self, parent: &Path, name: &OsStr, mode: u32) -> Result<()> {
        let path = parent.join(name);
        let there = status(self.directory(parent)?.as_fd(), name).context("look at", &path)?;
        if !there.is_some_and(|status| is_directory(&status)) {
            self.clear(parent, name)?;
            self.add_directory(parent, name)?;
        }
        let opened = openat(
            self.directory(parent)?.as_fd(),
            name,
            DIRECTORY | OFlag::O_NOFOLLOW,
            Mode::empty(),
        );
        let mode = Mode::from_bits_truncate(directory_mode(mode));
        fchmod(opened.context("open", &path)?, mode).context("chmod", &path)
    }

    /// Makes a new, empty file in the place of what was there.
    pub fn create(&mut self, parent: &Path, name: &OsStr) -> Result<NewFile> {
        self.clear(parent, name)?;
        let path = parent.join(name);
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made =
            openat(self.directory(parent)?.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        Ok(NewFile { file: File::from(made.context("create", &path)?), path })
    }

    pub fn make_symlink(
        &mut self,
        parent: &Path,
        name: &OsStr,
        target: &OsStr,
        time: i64,
    ) -> Result<()> {
        self.clear(parent, name)?;
        let (directory, path) = (self.directory(parent)?, parent.join(name));
        symlinkat(target, directory.as_fd(), name).context("symlink", &path)?;
        let time = seconds(time);
        utimensat(directory.as_fd(), name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .context("set the time of", &path)
    }

    /// Makes a hard link to `target`, a path in the image.
    pub fn make_link(&mut self, parent: &Path, name: &OsStr, target: &Path) -> Result<()> {
        let path = parent.join(name);
        if path == target {
            // To itself: it is there already, or nothing can be linked to.
            return status(self.directory(parent)?.as_fd(), name)
                .and_then(|there| there.map(drop).ok_or(Errno::ENOENT))
                .context("link", &path);
        }
        let missing =
            || TreeError { action: "link to", path: target.to_owned(), error: Errno::ENOENT };
        let target_name = target.file_name().ok_or_else(missing)?;
        let target_parent = target.parent().unwrap_or(Path::new(""));
        let from = self.existing(target_parent)?.ok_or_else(missing)?;
        let there = status(from.as_fd(), target_name).context("link to", target)?;
        let there = there.ok_or_else(missing)?;
        let to = self.directory(parent)?;
        // The same file by another way: removing its name first would lose it.
        let same = status(to.as_fd(), name).context("look at", &path)?;
        if same.is_some_and(|same| (same.st_dev, same.st_ino) == (there.st_dev, there.st_ino)) {
            return Ok(());
        }
        drop(to);
        self.clear(parent, name)?;
        let to = self.directory(parent)?;
        linkat(from.as_fd(), target_name, to.as_fd(), name, AtFlags::empty()).context("link", &path)
    }

    /// Makes empty files where the sandbox puts its own, and gives all directories one time. Returns the
    /// bytes that the tree takes on disk.
    pub fn finish(&mut self, mount_points: &[(&str, &str)]) -> Result<u64> {
        for (parent, name) in mount_points {
            let (parent, name) = (Path::new(parent), OsStr::new(name));
            let there = status(self.directory(parent)?.as_fd(), name).context("look at", parent)?;
            if there.is_none() {
                self.create(parent, name)?.finish(0o644, DIRECTORY_TIME)?;
            }
        }
        let mut seen = std::collections::HashSet::new();
        settle(self.root.as_fd(), MAX_DEPTH, &mut seen).context("settle", Path::new("/"))
    }

    /// Writes everything to disk.
    pub fn sync(&self) -> Result<()> {
        nix::unistd::syncfs(self.root.as_fd()).context("sync", Path::new("/"))
    }

    fn existing(&self, path: &Path) -> Result<Option<Arc<OwnedFd>>> {
        match self.open_directory(path) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(error) => Err(error).context("open", path),
        }
    }

    /// Opens a directory, made with all above it where it is missing.
    fn directory(&mut self, path: &Path) -> Result<Arc<OwnedFd>> {
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return Ok(directory.clone());
        }
        let directory = match self.open_directory(path) {
            Err(Errno::ENOENT) => {
                if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                    self.directory(parent)?;
                    self.add_directory(parent, name)?;
                }
                self.open_directory(path)
            }
            other => other,
        };
        let directory = directory.context("open the directory", path)?;
        self.last = Some((path.to_owned(), directory.clone()));
        Ok(directory)
    }

    fn open_directory(&self, path: &Path) -> nix::Result<Arc<OwnedFd>> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.clone());
        }
        let how = OpenHow::new()
            .flags(DIRECTORY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.root.as_fd(), path, how).map(Arc::new)
    }

    fn add_directory(&mut self, parent: &Path, name: &OsStr) -> Result<()> {
        let (directory, path) = (self.directory(parent)?, parent.join(name));
        let depth = self.depth_of(directory.as_fd()).context("find", parent)?;
        if depth >= self.depth + MAX_DEPTH {
            return Err(Errno::ENAMETOOLONG).context("mkdir", &path);
        }
        mkdirat(directory.as_fd(), name, Mode::from_bits_truncate(0o755))
            .context("mkdir", &path)?;
        // Whatever the umask is.
        let made = openat(directory.as_fd(), name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
        fchmod(made.context("open", &path)?, Mode::from_bits_truncate(0o755))
            .context("chmod", &path)
    }

    /// How deep a directory's real path is, whatever links led there.
    fn depth_of(&self, directory: BorrowedFd<'_>) -> nix::Result<usize> {
        let real = readlink(Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())))?;
        Ok(Path::new(&real).components().count())
    }
}

fn is_directory(status: &FileStat) -> bool {
    kind(status) == SFlag::S_IFDIR
}

fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits())
}

fn status(directory: BorrowedFd<'_>, name: &OsStr) -> nix::Result<Option<FileStat>> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn names(directory: BorrowedFd<'_>) -> nix::Result<Vec<OsString>> {
    let mut listing = Dir::openat(directory, ".", DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a directory with all that is beneath it.
fn remove(directory: BorrowedFd<'_>, name: &OsStr, depth: usize) -> nix::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) if depth > 0 => {}
        other => return other,
    }
    let inner = openat(directory, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
    for child in names(inner.as_fd())? {
        remove(inner.as_fd(), &child, depth - 1)?;
    }
    unlinkat(directory, name, UnlinkatFlags::RemoveDir)
}

/// Sets the times of all directories, the deepest first. Returns bytes on disk; a file with several
/// names counts once.
fn settle(
    directory: BorrowedFd<'_>,
    depth: usize,
    seen: &mut std::collections::HashSet<u64>,
) -> nix::Result<u64> {
    const SECTOR: u64 = 512;
    let mut bytes = 0;
    for name in names(directory)? {
        let Some(status) = status(directory, &name)? else { continue };
        if status.st_nlink < 2 || is_directory(&status) || seen.insert(status.st_ino) {
            bytes += status.st_blocks.unsigned_abs() * SECTOR;
        }
        if is_directory(&status) && depth > 0 {
            let inner =
                openat(directory, name.as_os_str(), DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
            bytes += settle(inner.as_fd(), depth - 1, seen)?;
        }
    }
    let time = seconds(DIRECTORY_TIME);
    futimens(directory, &time, &time)?;
    Ok(bytes)
}
