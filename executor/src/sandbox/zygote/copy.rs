//! Copies of an action's inputs, for a check that changes the order of directories or the times of
//! files: trees of inputs are shared and cannot be changed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::error::{Context, ZygoteError};
use crate::sandbox::conditions::{Condition, Conditions};

/// Most bytes of inputs that are copied for one action.
const MAX_BYTES: u64 = 512 << 20;
const MAX_ENTRIES: usize = 50_000;
/// Most levels of directories in the inputs that are copied.
const MAX_DEPTH: usize = 256;
/// Seconds by which modification times of inputs are later: another year, day, hour, minute and
/// second.
const LATER_SECONDS: i64 = 31_626_061;

/// Why these trees are not copied; `None`: they can be. `room`: what the action may write.
pub(super) fn hindrance(trees: &[PathBuf], room: Option<u64>) -> Option<String> {
    let limit = MAX_BYTES.min(room.map_or(MAX_BYTES, |room| room / 2));
    let mut left = Left { bytes: limit, entries: MAX_ENTRIES };
    let fits = trees.iter().all(|tree| left.take(tree, MAX_DEPTH));
    (!fits).then(|| {
        format!(
            "its inputs are more than is copied for it ({} MiB and {MAX_ENTRIES} entries)",
            limit >> 20
        )
    })
}

struct Left {
    bytes: u64,
    entries: usize,
}

impl Left {
    /// Takes what is beneath `directory` off what may still be copied. False: it is too much, or
    /// cannot be read.
    fn take(&mut self, directory: &Path, depth: usize) -> bool {
        let (Ok(entries), true) = (fs::read_dir(directory), depth > 0) else { return false };
        for entry in entries {
            let Ok(entry) = entry else { return false };
            let Ok(metadata) = entry.metadata() else { return false };
            let size = if metadata.is_file() { metadata.len() } else { 0 };
            if self.entries == 0 || self.bytes < size {
                return false;
            }
            self.entries -= 1;
            self.bytes -= size;
            if metadata.is_dir() && !self.take(&entry.path(), depth - 1) {
                return false;
            }
        }
        true
    }
}

/// Copies `trees`, the uppermost first, into the empty directory `to` in memory.
pub(super) fn inputs(
    trees: &[PathBuf],
    to: &Path,
    conditions: Conditions,
    owner: Option<(u32, u32)>,
) -> Result<(), ZygoteError> {
    let newest_first = lists_newest_first(to).context("list", to.display())?;
    let copy = Copy {
        owner,
        reverse: newest_first != conditions.has(Condition::FileOrder),
        later: if conditions.has(Condition::ModificationTimes) { LATER_SECONDS } else { 0 },
    };
    copy.directory(trees, to).context("copy inputs to", to.display())
}

struct Copy {
    /// The user and group to whom the copies are to belong; `None`: whoever makes them.
    owner: Option<(u32, u32)>,
    /// Whether entries are made in reverse, so that they are listed as they should be.
    reverse: bool,
    later: i64,
}

impl Copy {
    fn directory(&self, from: &[PathBuf], to: &Path) -> io::Result<()> {
        let mut names: Vec<OsString> = Vec::new();
        let mut places: BTreeMap<OsString, Vec<PathBuf>> = BTreeMap::new();
        for tree in from {
            for entry in fs::read_dir(tree)? {
                let entry = entry?;
                let place = places.entry(entry.file_name()).or_default();
                if place.is_empty() {
                    names.push(entry.file_name());
                }
                place.push(entry.path());
            }
        }
        if self.reverse {
            names.reverse();
        }
        for name in names {
            let Some(sources) = places.get(&name) else { continue };
            self.entry(sources, &to.join(&name))?;
        }
        Ok(())
    }

    /// Copies one entry to `to`. `sources`: its paths in the trees that hold it. No two trees hold
    /// the same file, but several may hold the same directory.
    fn entry(&self, sources: &[PathBuf], to: &Path) -> io::Result<()> {
        let Some(first) = sources.first() else { return Ok(()) };
        let metadata = fs::symlink_metadata(first)?;
        if metadata.is_symlink() {
            symlink(fs::read_link(first)?, to)?;
        } else if metadata.is_dir() {
            fs::create_dir(to)?;
            let directories: Vec<PathBuf> =
                sources.iter().filter(|path| path.is_dir()).cloned().collect();
            self.directory(&directories, to)?;
            fs::set_permissions(to, PermissionsExt::from_mode(metadata.mode() & 0o7777))?;
        } else {
            fs::copy(first, to)?;
        }
        if let Some((uid, gid)) = self.owner {
            lchown(to, Some(uid), Some(gid))?;
        }
        self.set_time(&metadata, to)
    }

    fn set_time(&self, of: &Metadata, path: &Path) -> io::Result<()> {
        let time = TimeSpec::new(of.mtime() + self.later, of.mtime_nsec());
        utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }
}

/// Kernels differ in what a directory in memory lists first.
fn lists_newest_first(within: &Path) -> io::Result<bool> {
    let probe = within.join(".order");
    fs::create_dir(&probe)?;
    for name in ["0", "1"] {
        fs::create_dir(probe.join(name))?;
    }
    let first = fs::read_dir(&probe)?.next().transpose()?.map(|entry| entry.file_name());
    fs::remove_dir_all(&probe)?;
    Ok(first.is_some_and(|name| name == "1"))
}
