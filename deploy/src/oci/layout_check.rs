//! The verification of a layout: everything that its index leads to is there, and is what its digest says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use serde::Deserialize;

use super::descriptor::Descriptor;
use super::digest::ContentDigest;
use super::document::{
    Document, DocumentError, DocumentKind, INDEX_TYPE, Index, MAX_DOCUMENT_BYTES,
};
use super::layout::{LAYOUT_FILE, Layout};
use crate::json::{self, JsonError};

/// Bytes that `index.json` may have.
pub const MAX_INDEX_BYTES: usize = MAX_DOCUMENT_BYTES;
const MAX_LAYOUT_FILE: usize = 4096;
const VERSION: &str = "1.0.0";
const CHUNK: usize = 64 << 10;

/// How much a layout may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutLimits {
    /// How many manifests and indexes.
    pub documents: usize,
    pub blobs: usize,
    /// How deep indexes are within indexes.
    pub depth: usize,
}

impl Default for LayoutLimits {
    fn default() -> Self {
        Self { documents: 10_000, blobs: 200_000, depth: 8 }
    }
}

/// What a layout holds, all of it verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedLayout {
    pub index: Index,
    /// Every manifest and index that can be reached.
    pub documents: BTreeMap<ContentDigest, Document>,
    pub blobs: BTreeSet<ContentDigest>,
    /// Bytes of all blobs, documents among them.
    pub bytes: u64,
}

/// The first broken link of a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("{name} cannot be read")]
    File {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{name} is not what it should be")]
    Json {
        name: String,
        #[source]
        source: JsonError,
    },
    #[error("the layout has version {0:?}; known is {VERSION}")]
    Version(String),
    #[error("{digest} is missing, or cannot be read")]
    Blob {
        digest: ContentDigest,
        #[source]
        source: io::Error,
    },
    #[error("{digest} was changed: it has the digest {found}")]
    Changed { digest: ContentDigest, found: ContentDigest },
    #[error("{digest} has {found} bytes instead of {expected}")]
    Size { digest: ContentDigest, expected: u64, found: u64 },
    #[error("{digest} is no manifest that can be used")]
    Document {
        digest: ContentDigest,
        #[source]
        source: DocumentError,
    },
    #[error("index.json is no index that can be used")]
    Index(#[source] DocumentError),
    #[error("the layout leads to more than {0} {1}; make several layouts of it")]
    TooMany(usize, &'static str),
    #[error("{0} lies deeper than {1} indexes; name it by an index further out")]
    TooDeep(ContentDigest, usize),
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// Reads `oci-layout` and `index.json`.
pub fn read_index(layout: &dyn Layout) -> Result<Index, LayoutError> {
    let file = |name: &str, limit| {
        layout
            .file(name, limit)
            .map_err(|source| LayoutError::File { name: name.to_owned(), source })
    };
    let version: Version = json::read(&file(LAYOUT_FILE, MAX_LAYOUT_FILE)?, MAX_LAYOUT_FILE)
        .map_err(|source| LayoutError::Json { name: LAYOUT_FILE.to_owned(), source })?;
    if version.version != VERSION {
        return Err(LayoutError::Version(version.version));
    }
    match Document::read(INDEX_TYPE, &file("index.json", MAX_INDEX_BYTES)?) {
        Ok(Document::Index(index)) => Ok(*index),
        Ok(Document::Manifest(_)) => Err(LayoutError::Index(DocumentError::Ambiguous)),
        Err(error) => Err(LayoutError::Index(error)),
    }
}

/// Reads all bytes of a blob and compares them with what is said of it. The bytes are handed to `each`.
pub fn check_blob(
    layout: &dyn Layout,
    descriptor: &Descriptor,
    each: &mut dyn FnMut(&[u8]),
) -> Result<(), LayoutError> {
    let digest = descriptor.digest.clone();
    let failed = |source| LayoutError::Blob { digest: digest.clone(), source };
    // One byte more shows that there is more.
    let mut blob = layout.blob(&digest).map_err(failed)?.take(descriptor.size.saturating_add(1));
    let mut hashing = digest.algorithm().hashing();
    let (mut chunk, mut size) = (vec![0; CHUNK], 0);
    loop {
        let length = match blob.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let read = chunk.get(..length).unwrap_or_default();
        hashing.update(read);
        each(read);
        size += length as u64;
    }
    if size != descriptor.size {
        return Err(LayoutError::Size { digest, expected: descriptor.size, found: size });
    }
    let found = hashing.finish();
    if found != digest {
        return Err(LayoutError::Changed { digest, found });
    }
    Ok(())
}

/// A blob of at most `limit` bytes, verified.
pub fn read_blob(
    layout: &dyn Layout,
    descriptor: &Descriptor,
    limit: usize,
) -> Result<Vec<u8>, LayoutError> {
    if descriptor.size > limit as u64 {
        let source = io::Error::new(io::ErrorKind::InvalidData, "it is too large");
        return Err(LayoutError::Blob { digest: descriptor.digest.clone(), source });
    }
    let mut data = Vec::new();
    check_blob(layout, descriptor, &mut |read| data.extend_from_slice(read))?;
    Ok(data)
}

/// A manifest or an index, verified.
pub fn check_document(
    layout: &dyn Layout,
    descriptor: &Descriptor,
) -> Result<Document, LayoutError> {
    let data = read_blob(layout, descriptor, MAX_DOCUMENT_BYTES)?;
    let read = Document::read(&descriptor.media_type, &data);
    read.map_err(|source| LayoutError::Document { digest: descriptor.digest.clone(), source })
}

/// Verifies everything that the index leads to.
pub fn check_layout(
    layout: &dyn Layout,
    limits: LayoutLimits,
) -> Result<CheckedLayout, LayoutError> {
    let index = read_index(layout)?;
    let open: Vec<_> = index.manifests.iter().map(|it| (it.clone(), 0)).collect();
    let checked =
        CheckedLayout { index, documents: BTreeMap::new(), blobs: BTreeSet::new(), bytes: 0 };
    let mut check = Check { layout, limits, checked, open, seen: BTreeSet::new() };
    while let Some((descriptor, depth)) = check.open.pop() {
        check.follow(&descriptor, depth)?;
    }
    Ok(check.checked)
}

struct Check<'a> {
    layout: &'a dyn Layout,
    limits: LayoutLimits,
    checked: CheckedLayout,
    /// What is to be followed, each with how many indexes lead to it.
    open: Vec<(Descriptor, usize)>,
    /// What was verified: the same digest may be described in another way somewhere else.
    seen: BTreeSet<(ContentDigest, u64, String)>,
}

impl Check<'_> {
    fn follow(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), LayoutError> {
        let Descriptor { digest, size, media_type, .. } = descriptor;
        // Others may have it instead: the specification lets it be away.
        let is_away = descriptor.is_foreign();
        if is_away || !self.seen.insert((digest.clone(), *size, media_type.clone())) {
            return Ok(());
        }
        if DocumentKind::of(media_type).is_some() {
            return self.follow_document(descriptor, depth);
        }
        if self.checked.blobs.len() >= self.limits.blobs {
            return Err(LayoutError::TooMany(self.limits.blobs, "blobs"));
        }
        self.checked.blobs.insert(digest.clone());
        self.checked.bytes = self.checked.bytes.saturating_add(descriptor.size);
        check_blob(self.layout, descriptor, &mut |_| {})
    }

    fn follow_document(
        &mut self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<(), LayoutError> {
        if depth > self.limits.depth {
            return Err(LayoutError::TooDeep(descriptor.digest.clone(), self.limits.depth));
        }
        if self.checked.documents.len() >= self.limits.documents {
            return Err(LayoutError::TooMany(self.limits.documents, "manifests"));
        }
        let document = check_document(self.layout, descriptor)?;
        self.open.extend(document.names().map(|it| (it.clone(), depth + 1)));
        self.checked.bytes = self.checked.bytes.saturating_add(descriptor.size);
        self.checked.documents.insert(descriptor.digest.clone(), document);
        Ok(())
    }
}
