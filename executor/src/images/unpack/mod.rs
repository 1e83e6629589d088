//! Applies layers to a directory (OCI image specification 1.1, "Applying changesets").
//!
//! What is unpacked differs from what the layers say in four ways, so that an image is the same for
//! every worker, whoever runs it:
//! - everything belongs to the worker's user, and everybody may read and execute what the owner may;
//!   set-user-ID and set-group-ID bits are dropped;
//! - device nodes, FIFOs and extended attributes are left out: the sandbox brings its own /dev, and
//!   nothing in it gains privileges;
//! - directories have one fixed modification time (files and links keep theirs);
//! - `/etc/hosts` and `/etc/resolv.conf` exist, so that the sandbox can put its own over them.

mod allowance;
mod tree;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};
use tokio_util::sync::CancellationToken;

use self::allowance::{Allowance, Allowed};
pub use self::tree::{Tree, TreeError};

/// Bytes of headers (long names, PAX records, sparse maps) before one entry's content.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Names in one entry's path.
const MAX_DEPTH: usize = 256;
const BLOCK: u64 = 512;
const BUFFER: usize = 128 << 10;
const WHITEOUT: &[u8] = b".wh.";
/// Names of storage drivers begin so; they mean nothing to others, but for `.wh..wh..opq`.
const DRIVER_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The layer is at fault: no worker could unpack it.
    #[error("{0}")]
    Layer(String),
    /// This machine is at fault: another worker may be able to unpack the layer.
    #[error("{0}")]
    Local(String),
    #[error("nobody waits for the image any more")]
    Stopped,
}

impl From<TreeError> for UnpackError {
    fn from(error: TreeError) -> Self {
        if error.is_local() {
            Self::Local(error.to_string())
        } else {
            Self::Layer(error.to_string())
        }
    }
}

/// How much more the layers of one image may bring.
#[derive(Debug, Clone)]
pub struct Budget {
    /// How many entries all layers together may still have.
    pub entries: u64,
    /// How many bytes the files of all layers may still have.
    pub bytes: u64,
}

impl Budget {
    fn take_entry(&mut self) -> Result<(), UnpackError> {
        self.entries = self
            .entries
            .checked_sub(1)
            .ok_or_else(|| UnpackError::Layer("it has too many entries".to_owned()))?;
        Ok(())
    }

    fn take_bytes(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            UnpackError::Layer(
                "unpacked it is larger than this worker may keep (images.max_size)".to_owned(),
            )
        })?;
        Ok(())
    }
}

/// Applies one layer, a tar archive, over what `tree` holds of the layers below.
pub fn apply(
    tree: &mut Tree,
    layer: impl Read,
    budget: &mut Budget,
    stop: &CancellationToken,
) -> Result<(), UnpackError> {
    let allowance = Allowance::default();
    let mut archive = Archive::new(Allowed::new(layer, allowance.clone()));
    let mut changes = Changes { tree, budget, stop, own: HashSet::new(), buffer: vec![0; BUFFER] };
    let mut entries = archive.entries().map_err(malformed)?;
    loop {
        allowance.set(MAX_HEADER_BYTES);
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry.map_err(malformed)?;
        let stored = entry.header().entry_size().unwrap_or(0).max(entry.size());
        allowance.set(stored.saturating_add(BLOCK));
        changes.apply(&mut entry)?;
        // What was not read would be read with the next header, and be counted to it.
        std::io::copy(&mut entry, &mut std::io::sink()).map_err(malformed)?;
    }
}

fn malformed(error: std::io::Error) -> UnpackError {
    UnpackError::Layer(format!("it is not a valid archive: {error}"))
}

/// One layer on its way into the tree.
struct Changes<'a> {
    tree: &'a mut Tree,
    budget: &'a mut Budget,
    stop: &'a CancellationToken,
    /// Paths that this layer made or touched, with all above them: whiteouts are for layers below.
    own: HashSet<PathBuf>,
    buffer: Vec<u8>,
}

impl Changes<'_> {
    fn apply(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), UnpackError> {
        if self.stop.is_cancelled() {
            return Err(UnpackError::Stopped);
        }
        self.budget.take_entry()?;
        let name = entry.path_bytes().into_owned();
        let path = clean(&name)?;
        let Some(base) = path.file_name().map(OsStr::to_owned) else { return Ok(()) };
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        if is_for_drivers(&parent, &base) {
            return Ok(());
        }
        if base.as_bytes() == OPAQUE {
            return self.hide_all(&parent);
        }
        if let Some(hidden) = base.as_bytes().strip_prefix(WHITEOUT) {
            return self.hide(&parent, hidden);
        }
        self.make(entry, &name, &parent, &base)?;
        self.note(path);
        Ok(())
    }

    fn make(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        name: &[u8],
        parent: &Path,
        base: &OsStr,
    ) -> Result<(), UnpackError> {
        let header = entry.header();
        let mode = header.mode().map_err(malformed)?;
        let time = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
        match header.entry_type() {
            EntryType::Directory => Ok(self.tree.make_directory(parent, base, mode)?),
            // How archives from before 1988 write directories.
            EntryType::Regular if name.ends_with(b"/") => {
                Ok(self.tree.make_directory(parent, base, mode)?)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, parent, base, mode, time)
            }
            EntryType::Symlink => {
                let target = link_name(entry)?;
                if target.is_empty() {
                    return Err(UnpackError::Layer(format!(
                        "the symlink {} leads nowhere",
                        shown(name)
                    )));
                }
                Ok(self.tree.make_symlink(parent, base, OsStr::from_bytes(&target), time)?)
            }
            EntryType::Link => {
                let target = clean(&link_name(entry)?)?;
                Ok(self.tree.make_link(parent, base, &target)?)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                Ok(self.tree.clear(parent, base)?)
            }
            EntryType::XGlobalHeader => Ok(()),
            other => Err(UnpackError::Layer(format!(
                "{} is of the unknown type {:?}",
                shown(name),
                char::from(other.as_byte())
            ))),
        }
    }

    fn file(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        parent: &Path,
        base: &OsStr,
        mode: u32,
        time: i64,
    ) -> Result<(), UnpackError> {
        self.budget.take_bytes(entry.size())?;
        let mut file = self.tree.create(parent, base)?;
        loop {
            if self.stop.is_cancelled() {
                return Err(UnpackError::Stopped);
            }
            match entry.read(&mut self.buffer).map_err(malformed)? {
                0 => break,
                count => file.write(&self.buffer[..count])?,
            }
        }
        Ok(file.finish(mode, time)?)
    }

    fn note(&mut self, path: PathBuf) {
        let mut path = path.as_path();
        while !path.as_os_str().is_empty() && self.own.insert(path.to_owned()) {
            path = path.parent().unwrap_or(Path::new(""));
        }
    }

    fn hide(&mut self, parent: &Path, hidden: &[u8]) -> Result<(), UnpackError> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Layer("a whiteout names nothing".to_owned()));
        }
        self.hide_entry(parent, OsStr::from_bytes(hidden))
    }

    /// Removes what layers below left at this place; what this layer has there stays.
    fn hide_entry(&mut self, parent: &Path, name: &OsStr) -> Result<(), UnpackError> {
        let path = parent.join(name);
        if self.own.contains(&path) {
            return self.hide_all(&path);
        }
        Ok(self.tree.remove(parent, name)?)
    }

    fn hide_all(&mut self, directory: &Path) -> Result<(), UnpackError> {
        for name in self.tree.names(directory)? {
            self.hide_entry(directory, &name)?;
        }
        Ok(())
    }
}

fn is_for_drivers(parent: &Path, base: &OsStr) -> bool {
    let reserved = |name: &OsStr| name.as_bytes().starts_with(WHITEOUT);
    parent.iter().any(reserved)
        || (base.as_bytes().starts_with(DRIVER_PREFIX) && base.as_bytes() != OPAQUE)
}

fn link_name(entry: &Entry<'_, impl Read>) -> Result<Vec<u8>, UnpackError> {
    let target = entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default();
    if target.contains(&0) || target.len() >= nix::libc::PATH_MAX as usize {
        return Err(UnpackError::Layer("the target of a link is not a path".to_owned()));
    }
    Ok(target)
}

/// A path relative to the image's root, which itself is the empty path.
fn clean(name: &[u8]) -> Result<PathBuf, UnpackError> {
    let fault = |text: &str| Err(UnpackError::Layer(format!("the path {} {text}", shown(name))));
    if name.contains(&0) {
        return fault("has a NUL byte");
    }
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => path.push(part),
            Component::ParentDir | Component::Prefix(_) => return fault("leads upwards"),
        }
    }
    if path.components().count() > MAX_DEPTH {
        return fault("is too deep");
    }
    Ok(path)
}

fn shown(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    format!("{:?}", OsString::from_vec(name[..name.len().min(SHOWN)].to_vec()))
}
