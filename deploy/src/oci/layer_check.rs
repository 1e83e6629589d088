//! Layers of others, read before anything is unpacked: no member leads out, and none is a device.

use std::io::{self, Read};

use tar::{Archive, Entry, EntryType};

use super::paths::{PathProblem, check_name, stays_within};

/// How much a layer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLimits {
    pub entries: u64,
    /// Bytes that all files may have, uncompressed.
    pub bytes: u64,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self { entries: 2_000_000, bytes: 64 << 30 }
    }
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerProblem {
    #[error("a file of the layer has a path that is refused")]
    Path(#[from] PathProblem),
    #[error("{path:?} of the layer links to {target:?}, out of it")]
    Link { path: String, target: String },
    #[error("{path:?} of the layer is neither a file nor a directory nor a link: {kind}")]
    Kind { path: String, kind: String },
    #[error("a name in the layer is no text")]
    Name,
    #[error("the layer has more than {0} files")]
    Entries(u64),
    #[error("the layer has more than {0} bytes")]
    Bytes(u64),
    #[error("the layer cannot be read")]
    Io(#[from] io::Error),
}

/// Reads an uncompressed layer to its end. Returns how many members it has.
pub fn check_layer(layer: impl Read, limits: LayerLimits) -> Result<u64, LayerProblem> {
    let mut archive = Archive::new(layer);
    let (mut entries, mut bytes) = (0, 0u64);
    for entry in archive.entries()? {
        let entry = entry?;
        entries += 1;
        bytes = bytes.saturating_add(entry.header().entry_size()?);
        if entries > limits.entries {
            return Err(LayerProblem::Entries(limits.entries));
        }
        if bytes > limits.bytes {
            return Err(LayerProblem::Bytes(limits.bytes));
        }
        check_entry(&entry)?;
    }
    Ok(entries)
}

fn text(bytes: &[u8]) -> Result<&str, LayerProblem> {
    std::str::from_utf8(bytes).map_err(|_| LayerProblem::Name)
}

fn check_entry<R: Read>(entry: &Entry<'_, R>) -> Result<(), LayerProblem> {
    let name = entry.path_bytes();
    let path = check_name(text(&name)?)?;
    let kind = entry.header().entry_type();
    match kind {
        EntryType::Regular
        | EntryType::Continuous
        | EntryType::GNUSparse
        | EntryType::Directory => Ok(()),
        // Comments on members that follow, which the reader has already used.
        EntryType::XGlobalHeader => Ok(()),
        EntryType::Symlink => check_link(entry, path, |target| stays_within(path, target)),
        EntryType::Link => check_link(entry, path, |target| check_name(target).is_ok()),
        other => Err(LayerProblem::Kind { path: path.to_owned(), kind: format!("{other:?}") }),
    }
}

fn check_link<R: Read>(
    entry: &Entry<'_, R>,
    path: &str,
    stays: impl Fn(&str) -> bool,
) -> Result<(), LayerProblem> {
    let target = entry.link_name_bytes().unwrap_or_default();
    let target = text(&target)?;
    if target.is_empty() || !stays(target) {
        let (path, target) = (path.to_owned(), target.to_owned());
        return Err(LayerProblem::Link { path, target });
    }
    Ok(())
}
