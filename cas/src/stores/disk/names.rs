//! Files of large blobs by their names: `large/ab/abcd…-SIZE`, `large/ab/blake3-abcd…-SIZE`.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;

/// The file of a blob below `dir`.
pub fn path(dir: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let prefix = match digest.function {
        DigestFunction::Sha256 => "",
        DigestFunction::Blake3 => "blake3-",
    };
    dir.join(&hex[..2]).join(format!("{prefix}{hex}-{}", digest.size))
}

/// The digest that a file of ours below `dir` is named by.
pub fn parse(dir: &Path, file: &Path) -> Option<Digest> {
    let name = file.file_name()?.to_str()?;
    let (function, name) = match name.strip_prefix("blake3-") {
        Some(rest) => (DigestFunction::Blake3, rest),
        None => (DigestFunction::Sha256, name),
    };
    let (hash, size) = name.split_once('-')?;
    let digest = Digest::from_hex(hash.as_bytes(), size.parse().ok()?, function).ok()?;
    (path(dir, &digest) == file).then_some(digest)
}

/// Renames, creating the directory that holds `to` if it is not there yet.
pub fn rename_into(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(dir) = to.parent() {
                std::fs::create_dir_all(dir)?;
            }
            std::fs::rename(from, to)
        }
        result => result,
    }
}

/// What is in a directory.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = std::fs::read_dir(dir).map_err(|error| failed("list", dir, error))?;
    let paths: Result<_, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    paths.map_err(|error| failed("list", dir, error))
}

/// An I/O error with what was done to which file.
pub fn failed(what: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::io(format!("{what} {}", path.display()), error)
}
