//! An action's /dev.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::error::{Context, ZygoteError};
use super::{layout, mounts};

const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Fills `dev`, a directory of a root that is being prepared. Device nodes cannot be made in a user
/// namespace, so the machine's are bound.
pub(super) fn populate(dev: &Path) -> Result<(), ZygoteError> {
    layout::make_dir(&dev.join("shm"))?;
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).context("symlink", name)?;
    }
    for name in NODES {
        let (from, to) = (Path::new(layout::MACHINE).join("dev").join(name), dev.join(name));
        if fs::exists(&from).unwrap_or(false) {
            File::create(&to).context("create", to.display())?;
            mounts::bind(&from, &to)?;
        }
    }
    Ok(())
}
