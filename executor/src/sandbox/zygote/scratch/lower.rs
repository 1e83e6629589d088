//! The trees of inputs, as the overlay gets them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::unistd::chdir;

use super::super::error::{Context, ZygoteError};
use super::super::layout::under;

/// Most bytes of a list of lower trees by their own paths: the options of a mount call have to fit
/// into a page, and longer lists get short names.
const MAX_LOWER_OPTION: usize = 3000;
/// Most layers of an overlay: the kernel's own limit.
const MAX_LOWER: usize = 500;

pub(super) fn paths(lower: &[PathBuf], base: &str) -> Result<Vec<PathBuf>, ZygoteError> {
    if lower.len() > MAX_LOWER {
        return Err(ZygoteError::Refused(format!(
            "{} input trees are more than {MAX_LOWER}",
            lower.len()
        )));
    }
    if let Some(relative) = lower.iter().find(|path| !path.is_absolute()) {
        return Err(ZygoteError::Refused(format!(
            "the input tree {} is not an absolute path",
            relative.display()
        )));
    }
    Ok(lower.iter().map(|path| under(base, path)).collect())
}

/// The trees in the words of the mount option. Colons and commas would end a word, so such paths, and
/// lists that are too long, go through links with short names in the directory it changes to.
pub(super) fn option(lower: &[PathBuf], base: &Path) -> Result<String, ZygoteError> {
    let plain =
        |path: &PathBuf| path.to_str().is_some_and(|path| !path.contains([':', ',', '\\', '"']));
    let join = |paths: &[PathBuf]| {
        paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":")
    };
    let joined = join(lower);
    if joined.len() <= MAX_LOWER_OPTION && lower.iter().all(plain) {
        return Ok(joined);
    }
    let links = base.join("l");
    fs::create_dir(&links).context("mkdir", links.display())?;
    chdir(&links).context("chdir", links.display())?;
    let mut short = Vec::with_capacity(lower.len());
    for (index, path) in lower.iter().enumerate() {
        let link = PathBuf::from(index.to_string());
        symlink(path, &link).context("symlink", link.display())?;
        short.push(link);
    }
    Ok(join(&short))
}
