//! What an action left behind: found beneath its root, named by digest, brought to the store.

mod beneath;
mod collect;
mod tree;
mod upload;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::Digest;
use kiln_protos::reapi;

pub use collect::collect;
pub use upload::upload;

/// Levels of directories within one output directory.
pub const MAX_OUTPUT_DEPTH: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// `output_paths`: whatever is there.
    Any,
    /// `output_files`.
    File,
    /// `output_directories`.
    Directory,
}

/// One declared output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// As the command names it: relative to its working directory. Repeated in the result.
    pub declared: String,
    /// The same, relative to the input root.
    pub path: String,
    pub kind: OutputKind,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputSpec {
    pub expected: Vec<Expected>,
    /// Store the Directory messages of output directories as blobs of their own, besides the Tree.
    pub directories_apart: bool,
}

/// What all outputs of one action may be together.
#[derive(Debug, Clone)]
pub struct OutputLimits {
    pub entries: usize,
    /// As `stat` tells it: a file with holes counts whole.
    pub bytes: u64,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { entries: 500_000, bytes: 64 << 30 }
    }
}

/// Outputs of one action, named and not yet stored.
pub struct Collected {
    /// The output fields of an ActionResult; the rest is empty.
    pub result: reapi::ActionResult,
    /// Each blob once, the empty one left out.
    pub blobs: Vec<(Digest, Content)>,
    /// For [`Content::Beneath`].
    pub root: Arc<OwnedFd>,
}

/// Where the bytes of a blob are.
pub enum Content {
    Memory(Bytes),
    /// A file beneath the root.
    Beneath(String),
    /// A file of the worker, read from its start.
    File(std::fs::File),
}

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The action's own doing.
    #[error("output {path:?} {fault}")]
    Unusable { path: String, fault: String },
    #[error("the outputs {0}")]
    TooMuch(String),
    #[error("collect outputs: {context}: {error}")]
    Io { context: String, error: std::io::Error },
}

impl OutputError {
    fn io(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let context = context.into();
        move |error| Self::Io { context, error }
    }

    fn unusable(path: &str, fault: impl Into<String>) -> Self {
        Self::Unusable { path: path.to_owned(), fault: fault.into() }
    }
}
