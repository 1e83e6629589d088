//! What an action left behind: found beneath its root, named by digest, brought to the store.

mod beneath;
mod collect;
mod hash;
mod holes;
mod tree;
mod upload;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_cas::Digest;
use kiln_protos::reapi;
use tokio_util::sync::CancellationToken;

pub use collect::collect;
pub use upload::upload;

/// Most levels of directories within one output directory.
pub const MAX_OUTPUT_DEPTH: usize = 512;

/// Most bytes of a path among outputs: Linux takes no longer one from anybody (`PATH_MAX`), so that
/// the file could be neither read again here nor made by a client.
pub const MAX_OUTPUT_PATH: usize = 4_095;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Declared in `output_paths`: a file, a directory or a symlink, whichever is there.
    Any,
    /// Declared in `output_files`: a file or a symlink; a directory is a fault.
    File,
    /// Declared in `output_directories`: a directory or a symlink; a file is a fault.
    Directory,
}

/// An output that the command declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The path as the command names it, relative to its working directory. The result repeats it.
    pub declared: String,
    /// The path of the output, relative to the input root.
    pub path: String,
    pub kind: OutputKind,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputSpec {
    pub expected: Vec<Expected>,
    /// Store the Directory messages of output directories as blobs of their own, besides the Tree.
    pub directories_apart: bool,
}

/// The limits of all outputs of one action together.
#[derive(Debug, Clone)]
pub struct OutputLimits {
    pub entries: usize,
    /// Most bytes of one file: the store takes no larger blob.
    pub blob: u64,
    /// Most bytes that the files hold, without holes.
    pub bytes: u64,
    /// Most bytes of holes, which were never written and read as zeros: nothing limits them while
    /// the action runs, and in the store and at the client they are bytes like others.
    pub hole_bytes: u64,
    /// How long it may take to find and hash the outputs. That is no part of the action's own time.
    pub time: Duration,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self {
            entries: 500_000,
            blob: u64::MAX,
            bytes: 64 << 30,
            hole_bytes: 8 << 30,
            time: Duration::from_secs(600),
        }
    }
}

/// Outputs of one action, named and not yet stored.
pub struct Collected {
    /// The output fields of an ActionResult; the rest is empty.
    pub result: reapi::ActionResult,
    /// The blobs that `result` names, each once; the empty one is left out.
    pub blobs: Vec<(Digest, Content)>,
    /// The directory beneath which the files of [`Content::Beneath`] lie.
    pub root: Arc<OwnedFd>,
    /// The first fault in what the action left; `None`: there is none. The other outputs are in
    /// `result` all the same, but none is there where the outputs are too much.
    pub fault: Option<OutputError>,
}

/// The place in which the bytes of a blob are.
pub enum Content {
    Memory(Bytes),
    /// The path of a file beneath the root of the outputs.
    Beneath(String),
    /// A file of the worker, read from its start.
    File(std::fs::File),
}

/// What ends the collection of outputs before it is done.
#[derive(Debug, Clone)]
pub struct Patience {
    pub cancel: CancellationToken,
    pub until: Instant,
}

impl Patience {
    fn check(&self) -> Result<(), OutputError> {
        if self.cancel.is_cancelled() {
            return Err(OutputError::Cancelled);
        }
        if Instant::now() >= self.until {
            let text =
                "take longer to be read than this worker allows; leave fewer or smaller ones";
            return Err(OutputError::TooMuch(text.to_owned()));
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The action has left something at `path` that cannot be an output; `fault` says why.
    #[error("output {path:?} {fault}")]
    Unusable { path: String, fault: String },
    #[error("the outputs {0}")]
    TooMuch(String),
    #[error(
        "an output or a log of {size} bytes is larger than the {limit} that the store takes \
         (storage.max_blob_size, storage.max_size): split or compress it, or have the limit raised"
    )]
    TooLarge { size: u64, limit: u64 },
    #[error("nobody wants the outputs any more")]
    Cancelled,
    #[error("collect outputs: {context}")]
    Io { context: String, source: std::io::Error },
}

impl OutputError {
    fn io(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }

    /// The error of a look at `path`. An action may have closed the way to its outputs even to their owner.
    fn met(what: &str, path: &str) -> impl Fn(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                Self::unusable(path, "is behind permissions that the action has taken away")
            }
            _ => Self::Io { context: format!("{what} {path}"), source },
        }
    }

    fn unusable(path: &str, fault: impl Into<String>) -> Self {
        Self::Unusable { path: path.to_owned(), fault: fault.into() }
    }
}
