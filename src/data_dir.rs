//! The directory of everything that Kiln keeps is its user's alone: what is in it is not for everybody on
//! the machine, and neither what is made there later, whatever the umask.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

const OWN: u32 = 0o700;
const OTHERS: u32 = 0o077;

/// Makes `path` if it is not there, and closes it to all other users. What cannot be made is for the storage
/// to complain about.
pub fn close(path: &Path) {
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
}

/// The mode that an existing directory had, if that was wider.
fn try_close(path: &Path) -> io::Result<Option<u32>> {
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(OWN).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(OWN))?;
        return Ok(None);
    }
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(None);
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
}
