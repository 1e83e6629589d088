//! The directory of everything that Kiln keeps is its user's alone: what is in it is not for everybody on
//! the machine, and neither what is made there later, whatever the umask.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

const OWN: u32 = 0o700;
const OTHERS: u32 = 0o077;
/// The file that each data directory has from its first start.
const MARK: &str = "lock";
/// The directory that some file systems have in their root: a data directory that holds only this
/// counts as empty.
const LOST: &str = "lost+found";
/// The worker's directory within a data directory. It must be no symbolic link, since programs run
/// in it and its mode is changed.
const WORKER: &str = "worker";

/// Why a data directory is not used, so that the start is refused.
#[derive(Debug, Error)]
pub enum DataDirError {
    #[error("{} is no directory; name one with --data-dir", .0.display())]
    NoDirectory(PathBuf),
    #[error(
        "{} holds {found:?}, and nothing that says it is Kiln's; name an empty directory, or one \
         that Kiln has made, with --data-dir",
        path.display()
    )]
    NotOurs { path: PathBuf, found: String },
    #[error("{} is a symbolic link: inside a data directory Kiln follows none", .0.display())]
    Link(PathBuf),
}

/// Makes `path` if it is not there, and closes it to all other users. It is left alone, and the start is
/// refused, where it may be anybody else's. What cannot be made is for the storage to complain about.
pub fn close(path: &Path) -> Result<(), DataDirError> {
    check(path)?;
    match try_close(path) {
        Ok(None) => {}
        Ok(Some(mode)) => tracing::warn!(
            path = %path.display(),
            "the data directory was open to other users of this machine (mode {mode:03o}); it is closed now"
        ),
        Err(error) if !path.exists() => tracing::debug!(%error, "the data directory is not there"),
        Err(error) => tracing::error!(
            path = %path.display(),
            %error,
            "the data directory is open to other users of this machine and cannot be closed: whoever has \
             an account here may read all blobs; make it the server's own (chown) with mode 0700"
        ),
    }
    Ok(())
}

/// Checks, before anything is changed, that the directory is Kiln's or may become so. The error
/// says why it may not be closed to others.
fn check(path: &Path) -> Result<(), DataDirError> {
    let Ok(about) = fs::metadata(path) else { return Ok(()) };
    if !about.is_dir() {
        return Err(DataDirError::NoDirectory(path.to_owned()));
    }
    let worker = path.join(WORKER);
    if worker.is_symlink() {
        return Err(DataDirError::Link(worker));
    }
    let is_ours = fs::symlink_metadata(path.join(MARK)).is_ok_and(|mark| mark.is_file());
    if is_ours || about.permissions().mode() & OTHERS == 0 {
        return Ok(());
    }
    // One that cannot be read is not ours to close either; the storage says what is wrong.
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    match entries.filter(|entry| entry.file_name() != LOST).find(may_be_used_by_others) {
        Some(found) => {
            let found = found.file_name().to_string_lossy().into_owned();
            Err(DataDirError::NotOurs { path: path.to_owned(), found })
        }
        None => Ok(()),
    }
}

/// A log or a configuration of the same user may lie there before the first start. What is more than that is
/// somebody's, who may want others to come to it.
fn may_be_used_by_others(entry: &fs::DirEntry) -> bool {
    let about = entry.metadata();
    about.is_ok_and(|about| !about.is_file() || about.uid() != nix::unistd::geteuid().as_raw())
}

/// Makes the directory, or closes an existing one to others. Returns the mode that it had, if that
/// was wider. Errors: it is another user's, or the system refuses.
fn try_close(path: &Path) -> io::Result<Option<u32>> {
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(OWN).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(OWN))?;
        return Ok(None);
    }
    let about = fs::metadata(path)?;
    let mode = about.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(None);
    }
    // Root may close anybody's; whoever made it for others to use is not asked.
    if about.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other(format!("it belongs to the user with id {}", about.uid())));
    }
    fs::set_permissions(path, Permissions::from_mode(mode & OWN))?;
    Ok(Some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_directory_is_made_closed_and_a_wider_one_is_tightened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/data");
        assert_eq!(try_close(&path).unwrap(), None);
        assert_eq!(mode(&path), 0o700);
        assert_eq!(try_close(&path).unwrap(), None);
        for (wide, left) in [(0o755, 0o700), (0o1777, 0o700), (0o550, 0o500)] {
            fs::set_permissions(&path, Permissions::from_mode(wide)).unwrap();
            assert_eq!(try_close(&path).unwrap(), Some(wide));
            assert_eq!(mode(&path), left);
        }
    }

    #[test]
    fn what_may_be_anybody_elses_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        fs::create_dir(path.join(LOST)).unwrap();
        assert!(check(&path).is_ok(), "an empty file system");
        fs::write(path.join("log"), "").unwrap();
        assert!(check(&path).is_ok(), "where a shell sends what a server says");
        fs::create_dir(path.join("theirs")).unwrap();
        let error = close(&path).unwrap_err();
        assert!(
            matches!(&error, DataDirError::NotOurs { found, .. } if found == "theirs"),
            "{error}"
        );
        assert_eq!(mode(&path), 0o1777);
        fs::write(path.join(MARK), "").unwrap();
        assert!(close(&path).is_ok(), "an earlier start left its mark");
        std::os::unix::fs::symlink(dir.path(), path.join(WORKER)).unwrap();
        assert!(matches!(close(&path), Err(DataDirError::Link(_))));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(close(&file), Err(DataDirError::NoDirectory(_))));
        assert_eq!(mode(&file), 0o644);
    }
}
