//! The directory that a release is exported to: an image layout with the release, what was signed about it and
//! the list of its closure. skopeo, oras and cosign read it as well.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::release::{Release, ReleaseName};
use crate::json::JsonError;
use crate::oci::{
    ContentDigest, Descriptor, Document, DocumentError, DocumentKind, INDEX_TYPE, Index,
    LAYOUT_FILE, MAX_DOCUMENT_BYTES, REF_NAME_ANNOTATION,
};

/// The full name of the release, at its entry in the index.
pub const RELEASE_ANNOTATION: &str = "build.kiln.release";
/// The file with the index, and what the file says that makes a directory a layout.
pub const INDEX_FILE: &str = "index.json";
pub const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// How deep manifests may be within manifests.
const MAX_DEPTH: usize = 8;

/// Takes the files of an export.
pub trait Exporter {
    /// A file at `path`, relative and with `/`, out of what is read. A file that is there has the same content.
    fn put(&mut self, path: &str, content: &mut dyn Read) -> io::Result<()>;
}

/// Why a release was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0} cannot be read from the store")]
    Read(ContentDigest, #[source] io::Error),
    #[error("{0} cannot be written")]
    Write(String, #[source] io::Error),
    #[error("{0} is no manifest")]
    Document(ContentDigest, #[source] DocumentError),
    #[error("{0} lies too deep; name it by an index further out")]
    TooDeep(ContentDigest),
    #[error("the index cannot be written")]
    Json(#[from] JsonError),
}

/// Writes an export. `open` reads content of the store.
pub fn export(
    release: &Release,
    open: &dyn Fn(&ContentDigest) -> io::Result<Box<dyn Read>>,
    out: &mut dyn Exporter,
) -> Result<(), ExportError> {
    let mut export = Export { open, out, written: BTreeSet::new() };
    for root in std::iter::once(&release.subject).chain(&release.attestations) {
        export.put_all(root, 0)?;
    }
    export.put_file(INDEX_FILE, &export_index(release)?)?;
    // It comes last: an export that was cut short is no layout.
    export.put_file(LAYOUT_FILE, LAYOUT)
}

/// The index of an export.
pub fn export_index(release: &Release) -> Result<Vec<u8>, JsonError> {
    let subject = release
        .subject
        .clone()
        .with(REF_NAME_ANNOTATION, release.name.version.as_str())
        .with(RELEASE_ANNOTATION, &release.name.to_string());
    let entries = std::iter::once(subject).chain(release.attestations.iter().cloned());
    Index::new(entries.collect()).write()
}

/// The release that the index of an export names, if it names one.
pub fn named_release(index: &[u8]) -> Option<ReleaseName> {
    let Ok(Document::Index(index)) = Document::read(INDEX_TYPE, index) else { return None };
    index.manifests.iter().find_map(|it| it.annotations.get(RELEASE_ANNOTATION)?.parse().ok())
}

/// The path of content in an export.
pub fn blob_path(digest: &ContentDigest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

struct Export<'a> {
    open: &'a dyn Fn(&ContentDigest) -> io::Result<Box<dyn Read>>,
    out: &'a mut dyn Exporter,
    written: BTreeSet<ContentDigest>,
}

impl Export<'_> {
    fn put_file(&mut self, path: &str, mut content: &[u8]) -> Result<(), ExportError> {
        let failed = |it| ExportError::Write(path.to_owned(), it);
        self.out.put(path, &mut content).map_err(failed)
    }

    fn put_all(&mut self, root: &Descriptor, depth: usize) -> Result<(), ExportError> {
        if !self.written.insert(root.digest.clone()) || root.is_foreign() {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(ExportError::TooDeep(root.digest.clone()));
        }
        let path = blob_path(&root.digest);
        let read = |it| ExportError::Read(root.digest.clone(), it);
        let mut content = (self.open)(&root.digest).map_err(read)?;
        if DocumentKind::of(&root.media_type).is_none() {
            return self.out.put(&path, &mut content).map_err(|it| ExportError::Write(path, it));
        }
        let mut data = Vec::new();
        content.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut data).map_err(read)?;
        let document = Document::read(&root.media_type, &data)
            .map_err(|it| ExportError::Document(root.digest.clone(), it))?;
        for named in document.names() {
            self.put_all(named, depth + 1)?;
        }
        self.put_file(&path, &data)
    }
}

/// A directory of this machine.
#[derive(Debug, Clone)]
pub struct DirectoryExport {
    root: PathBuf,
}

impl DirectoryExport {
    /// `root` is made when the first file comes.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

impl Exporter for DirectoryExport {
    fn put(&mut self, path: &str, content: &mut dyn Read) -> io::Result<()> {
        let path = self.root.join(path);
        let parent = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(parent)?;
        // A file appears whole or not at all.
        let unfinished = path.with_extension("unfinished");
        let mut file = std::fs::File::create(&unfinished)?;
        io::copy(content, &mut file)?;
        file.flush()?;
        std::fs::rename(&unfinished, &path)
    }
}
