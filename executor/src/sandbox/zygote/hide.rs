//! Hides from actions what they may not see of the machine, wherever it lies: data and secrets of
//! the server, which a root made of the machine's own directories would show.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::elsewhere::{self, Place};
use super::error::{Context, ZygoteError};
use super::mounts;

/// A directory with one of these in it, or of this name, holds programs that actions need.
const SHARED: [&str; 7] = ["bin", "include", "lib", "lib64", "libexec", "sbin", "share"];
/// Fewest names in the path of a directory that is hidden as a whole: `/opt` itself, say, is
/// nobody's own.
const LEAST_DEPTH: usize = 2;
/// The path, in a prepared root, of an empty file that nobody can read.
const NOTHING: &str = "kiln/nothing";

/// The paths to hide: those of `paths` that exist, without links, at each place where mounts show
/// them. For a file that is its directory, since a file that is replaced by another one would be
/// seen again. Only the file itself is hidden in a directory of programs.
pub(super) fn find(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = paths.iter().filter_map(|path| place_of(path)).collect();
    // A name that is no UTF-8 is lost, and no other line with it.
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = elsewhere::mounts(&String::from_utf8_lossy(&mounts));
    let others = found.iter().flat_map(|path| elsewhere::places(&mounts, path));
    let others: Vec<_> = others.filter(is_there).map(|place| place.path).collect();
    found.extend(others);
    found.sort();
    found.dedup();
    // What lies in another one of them is hidden with it.
    let all = found.clone();
    found.retain(|path| !all.iter().any(|other| path != other && path.starts_with(other)));
    found
}

/// Whether `place` shows the same file or directory as its original, so that no other mount covers
/// it.
fn is_there(place: &Place) -> bool {
    let id = |path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    id(&place.path).is_some_and(|other| id(&place.original) == Some(other))
}

fn place_of(path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(path);
    if let Ok(directory) = &real
        && directory.is_dir()
    {
        return Some(directory.clone());
    }
    let directory = match &real {
        Ok(file) => file.parent()?.to_owned(),
        // It may be made later.
        Err(_) => fs::canonicalize(path.parent()?).ok()?,
    };
    if is_shared(&directory) { real.ok() } else { Some(directory) }
}

fn is_shared(directory: &Path) -> bool {
    let depth = directory.components().filter(|part| matches!(part, Component::Normal(_))).count();
    let name = directory.file_name().and_then(|name| name.to_str());
    depth < LEAST_DEPTH
        || name.is_some_and(|name| SHARED.contains(&name))
        || SHARED.iter().any(|shared| directory.join(shared).exists())
}

/// Covers each path in `hidden` with something empty, where `root` shows it.
pub(super) fn cover(root: &Path, hidden: &[PathBuf]) -> Result<(), ZygoteError> {
    for path in hidden {
        let at = root.join(path.strip_prefix("/").unwrap_or(path));
        let Ok(metadata) = fs::symlink_metadata(&at) else { continue };
        if metadata.is_dir() {
            mounts::tmpfs(&at, "mode=0555")?;
        } else {
            let nothing = root.join(NOTHING);
            File::create(&nothing).context("create", nothing.display())?;
            mounts::bind(&nothing, &at)?;
        }
        mounts::restrict(&at, false, false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_with_its_directory_unless_that_holds_programs() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        for path in ["own/etc", "tools/bin", "data/blobs"] {
            fs::create_dir_all(base.join(path)).unwrap();
        }
        for path in ["own/etc/kiln.toml", "tools/kiln.toml", "data/token"] {
            fs::write(base.join(path), "").unwrap();
        }
        std::os::unix::fs::symlink(base.join("data"), base.join("link")).unwrap();
        let paths = [
            "own/etc/kiln.toml",
            "own/etc/later",
            "tools/kiln.toml",
            "tools/later",
            "link",
            "data/token",
        ]
        .map(|path| base.join(path));
        let expected = ["data", "own/etc", "tools/kiln.toml"].map(|path| base.join(path));
        assert_eq!(find(&paths), expected);
    }
}
