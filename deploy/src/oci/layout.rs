//! Image layouts: a directory with an index and blobs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::digest::ContentDigest;

/// What says that a directory is a layout.
pub const LAYOUT_FILE: &str = "oci-layout";
/// The name of a manifest in the index of a layout.
pub const REF_NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// A source that an image layout is read from.
pub trait Layout {
    /// `oci-layout` or `index.json`, at most `limit` bytes of it; more is an error.
    fn file(&self, name: &str, limit: usize) -> io::Result<Vec<u8>>;

    /// A blob, from its first byte.
    fn blob(&self, digest: &ContentDigest) -> io::Result<Box<dyn Read>>;
}

/// A layout on disk.
#[derive(Debug, Clone)]
pub struct DirectoryLayout {
    root: PathBuf,
}

impl DirectoryLayout {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The path of a blob in the layout's directory.
    pub fn blob_path(&self, digest: &ContentDigest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Nothing but a file: whatever else is there could keep its reader waiting.
    fn open(path: &Path) -> io::Result<File> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        File::open(path)
    }
}

impl Layout for DirectoryLayout {
    fn file(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        Self::open(&self.root.join(name))?.take(limit as u64 + 1).read_to_end(&mut data)?;
        if data.len() > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
        }
        Ok(data)
    }

    fn blob(&self, digest: &ContentDigest) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(Self::open(&self.blob_path(digest))?))
    }
}
