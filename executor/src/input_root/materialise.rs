//! A layer becomes a directory tree of hard links.

use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::InputError;
use super::key::FileKey;
use super::plan::Layer;
use crate::paths;

/// Modification time of every input: 2000-01-01T00:00:00Z, which zip archives can express.
const FIXED_TIME: Duration = Duration::from_secs(946_684_800);

/// Builds the tree at `root`, which must not exist. `known_file` finds a cached file. Blocks.
pub(super) fn build(
    root: &Path,
    layer: &Layer,
    known_file: impl Fn(&FileKey) -> Option<PathBuf>,
) -> Result<(), InputError> {
    let failed = |path: &Path| InputError::io(format!("create {}", path.display()));
    fs::create_dir(root).map_err(failed(root))?;
    let directories: Vec<PathBuf> = layer.directories.iter().map(|path| root.join(path)).collect();
    for directory in &directories {
        fs::create_dir(directory).map_err(failed(directory))?;
    }
    for (path, key) in &layer.files {
        let path = root.join(path);
        known_file(key)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not in the file cache"))
            .and_then(|file| link(&file, &path))
            .map_err(failed(&path))?;
    }
    for (path, target) in &layer.symlinks {
        let at = root.join(path);
        symlink(&**target, &at).map_err(|error| match error.raw_os_error() {
            // Paths have been held against what the kernel takes. Of targets XFS takes a quarter of that.
            Some(nix::libc::ENAMETOOLONG) => {
                InputError::TargetTooLong { path: paths::shorten(path), bytes: target.len() }
            }
            _ => failed(&at)(error),
        })?;
    }
    for directory in directories.iter().rev().map(PathBuf::as_path).chain([root]) {
        close(directory).map_err(failed(directory))?;
    }
    Ok(())
}

/// Completes a directory that has all its entries. Everybody may write to it: an action works in a copy of
/// its own above this tree, and builds there as it would at home. Nobody else reaches the
/// tree, for the worker's directory is closed to all other users.
fn close(directory: &Path) -> io::Result<()> {
    let directory = File::open(directory)?;
    set_fixed_time(&directory)?;
    directory.set_permissions(Permissions::from_mode(0o777))
}

pub(super) fn set_fixed_time(file: &File) -> io::Result<()> {
    let time = SystemTime::UNIX_EPOCH + FIXED_TIME;
    file.set_times(FileTimes::new().set_accessed(time).set_modified(time))
}

/// File systems bound the links to one file (ext4: 65,000): at the bound the cached file gets
/// a fresh copy, and the links made so far keep the old one.
fn link(file: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(file, path) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EMLINK) => {
            renew(file)?;
            fs::hard_link(file, path)
        }
        result => result,
    }
}

fn renew(file: &Path) -> io::Result<()> {
    let directory = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut fresh = tempfile::NamedTempFile::new_in(directory)?;
    io::copy(&mut File::open(file)?, fresh.as_file_mut())?;
    set_fixed_time(fresh.as_file())?;
    fresh.as_file().set_permissions(fs::metadata(file)?.permissions())?;
    fresh.persist(file)?;
    Ok(())
}

/// Removes a file; one that is absent is no error. Blocks.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes a tree whose directories may not be writable. Absent is success. Blocks.
pub(super) fn remove_tree(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(root)?;
            fs::remove_dir_all(root)
        }
        result => result,
    }
}

fn make_writable(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::failure::Failure;
    use crate::paths::{MAX_PATH_BYTES, MAX_WORK_DIR};

    #[test]
    fn a_renewed_file_is_another_inode_with_the_same_content_and_mode() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        fs::write(&file, "content").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
        let link = directory.path().join("link");
        fs::hard_link(&file, &link).unwrap();
        renew(&file).unwrap();
        let (old, new) = (fs::metadata(&link).unwrap(), fs::metadata(&file).unwrap());
        assert_ne!(old.ino(), new.ino());
        assert_eq!(old.mode(), new.mode());
        assert_eq!(fs::read_to_string(&file).unwrap(), "content");
    }

    #[test]
    fn a_target_that_no_file_system_takes_is_a_fault_of_the_action() {
        let directory = tempfile::tempdir().unwrap();
        let symlinks = vec![("link".to_owned(), "x".repeat(4096).into())];
        let layer = Layer { symlinks, ..Default::default() };
        let error = build(&directory.path().join("tree"), &layer, |_| None).unwrap_err();
        assert!(error.to_string().contains("\"link\" has 4096 bytes"), "{error}");
        assert!(matches!(Failure::from(error), Failure::InvalidAction(_)));
    }

    #[test]
    fn the_longest_path_fits_below_the_longest_directory_of_a_worker() {
        let base = tempfile::tempdir().unwrap();
        let name = "w".repeat(MAX_WORK_DIR - base.path().as_os_str().len() - 1);
        let trees = base.path().join(name).join("inputs/trees");
        fs::create_dir_all(&trees).unwrap();
        let directories: Vec<String> =
            (1..=18).map(|depth| vec!["d".repeat(199); depth].join("/")).collect();
        let longest = format!("{}/{}", directories[17], "l".repeat(200));
        assert_eq!(longest.len(), MAX_PATH_BYTES);
        let symlinks = vec![(longest, "target".into())];
        let layer = Layer { directories, symlinks, ..Default::default() };
        build(&trees.join(u64::MAX.to_string()), &layer, |_| None).unwrap();
    }

    #[test]
    fn trees_without_write_permission_can_be_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("tree");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/c"), "x").unwrap();
        for path in ["a/b", "a", ""] {
            fs::set_permissions(root.join(path), Permissions::from_mode(0o555)).unwrap();
        }
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        remove_tree(&root).unwrap();
    }
}
