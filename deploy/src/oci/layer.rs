//! Layers out of files and trees. The same files give the same bytes, on any machine and at any time: members
//! come in the order of their paths, belong to nobody, are of no time, and are not compressed (compressed bytes
//! would depend on who compresses).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use super::paths::{PathProblem, check_path, stays_within};

/// Media type of what is written.
pub const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// Members of a layer.
const MAX_ENTRIES: usize = 2_000_000;

/// Bytes that a member's header, that of a long name and what fills their blocks take at most, without the name.
const MEMBER: u64 = 4 * 512;

/// A file, link or directory that is packed into a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry<F> {
    /// The path, relative and with `/` between its parts.
    pub path: String,
    pub node: LayerNode<F>,
}

/// What is packed. There is no way to say a device, a socket or another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerNode<F> {
    /// `content` is what the file is opened by.
    File {
        content: F,
        size: u64,
        is_executable: bool,
    },
    Directory,
    /// The target is relative and stays within the layer.
    Symlink {
        target: String,
    },
}

/// Why there is no layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("a path cannot be packed")]
    Path(#[from] PathProblem),
    #[error("the link {path:?} leads to {target:?}, out of what is packed")]
    Link { path: String, target: String },
    #[error("{0:?} is packed twice")]
    Twice(String),
    #[error("{0:?} lies below something that is no directory")]
    BelowFile(String),
    #[error("there are more than {MAX_ENTRIES} files; name fewer outputs, or an archive of them")]
    TooMany,
    #[error("{path:?} has {found} bytes instead of {expected}")]
    Size { path: String, expected: u64, found: u64 },
    #[error("{path:?} cannot be packed")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Writes a layer with all entries and the directories above them. `open` opens the content of a file.
pub fn write_layer<F, R: Read>(
    mut entries: Vec<LayerEntry<F>>,
    open: &mut dyn FnMut(&F) -> io::Result<R>,
    out: &mut dyn Write,
) -> Result<(), LayerError> {
    if entries.len() > MAX_ENTRIES {
        return Err(LayerError::TooMany);
    }
    entries.sort_by(|one, two| one.path.split('/').cmp(two.path.split('/')));
    check(&entries)?;
    let mut builder = Builder::new(out);
    let mut written = BTreeSet::new();
    for entry in &entries {
        append_parents(&mut builder, &mut written, &entry.path)?;
        append(&mut builder, entry, open)?;
        if matches!(entry.node, LayerNode::Directory) {
            written.insert(entry.path.clone());
        }
    }
    let source = builder.into_inner();
    source.map_err(|source| LayerError::Io { path: String::new(), source })?;
    Ok(())
}

/// Bytes that a layer of these entries has at most.
pub fn layer_size_at_most<F>(entries: &[LayerEntry<F>]) -> u64 {
    let size = |entry: &LayerEntry<F>| {
        let name = entry.path.len() as u64;
        let parents = entry.path.matches('/').count() as u64;
        let content = match &entry.node {
            LayerNode::File { size, .. } => size.saturating_add(MEMBER),
            LayerNode::Symlink { target } => MEMBER + target.len() as u64,
            LayerNode::Directory => MEMBER,
        };
        // Each directory above it is named as well, once for all that lie below.
        content.saturating_add((MEMBER + name) * (parents + 1))
    };
    entries.iter().map(size).fold(MEMBER, u64::saturating_add)
}

/// Entries are sorted: what lies below a path comes right behind it.
fn check<F>(entries: &[LayerEntry<F>]) -> Result<(), LayerError> {
    let mut earlier: Option<&LayerEntry<F>> = None;
    for entry in entries {
        check_path(&entry.path)?;
        if let LayerNode::Symlink { target } = &entry.node
            && (target.starts_with('/') || target.is_empty() || !stays_within(&entry.path, target))
        {
            let (path, target) = (entry.path.clone(), target.clone());
            return Err(LayerError::Link { path, target });
        }
        if let Some(earlier) = earlier {
            if earlier.path == entry.path {
                return Err(LayerError::Twice(entry.path.clone()));
            }
            let below =
                entry.path.strip_prefix(&earlier.path).is_some_and(|it| it.starts_with('/'));
            if below && !matches!(earlier.node, LayerNode::Directory) {
                return Err(LayerError::BelowFile(entry.path.clone()));
            }
        }
        earlier = Some(entry);
    }
    Ok(())
}

fn append_parents(
    builder: &mut Builder<&mut dyn Write>,
    written: &mut BTreeSet<String>,
    path: &str,
) -> Result<(), LayerError> {
    for (at, _) in path.match_indices('/') {
        let Some(parent) = path.get(..at) else { continue };
        if written.insert(parent.to_owned()) {
            append_directory(builder, parent)?;
        }
    }
    Ok(())
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append_directory(builder: &mut Builder<&mut dyn Write>, path: &str) -> Result<(), LayerError> {
    let mut header = header(EntryType::Directory, 0o755, 0);
    let done = builder.append_data(&mut header, format!("{path}/"), io::empty());
    done.map_err(|source| LayerError::Io { path: path.to_owned(), source })
}

fn append<F, R: Read>(
    builder: &mut Builder<&mut dyn Write>,
    entry: &LayerEntry<F>,
    open: &mut dyn FnMut(&F) -> io::Result<R>,
) -> Result<(), LayerError> {
    let path = &entry.path;
    let failed = |source| LayerError::Io { path: path.clone(), source };
    match &entry.node {
        LayerNode::Directory => append_directory(builder, path),
        LayerNode::Symlink { target } => {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            builder.append_link(&mut header, path, target).map_err(failed)
        }
        LayerNode::File { content, size, is_executable } => {
            let mode = if *is_executable { 0o755 } else { 0o644 };
            let mut header = header(EntryType::Regular, mode, *size);
            let mut content = Counted { inner: open(content).map_err(failed)?, count: 0 };
            // One byte more than there should be shows that there is more.
            let limited = (&mut content).take(size.saturating_add(1));
            builder.append_data(&mut header, path, limited).map_err(failed)?;
            let (path, expected, found) = (path.clone(), *size, content.count);
            (found == expected).then_some(()).ok_or(LayerError::Size { path, expected, found })
        }
    }
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(into)?;
        self.count += length as u64;
        Ok(length)
    }
}
