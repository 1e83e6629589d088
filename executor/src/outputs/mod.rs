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

/// Levels of directories within one output directory.
pub const MAX_OUTPUT_DEPTH: usize = 512;

/// Bytes of a path among outputs: what is longer Linux takes from nobody (`PATH_MAX`), so that the file could be
/// neither read again here nor made by a client.
pub const MAX_OUTPUT_PATH: usize = 4_095;

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

/// What all outputs of one action may be together.
#[derive(Debug, Clone)]
pub struct OutputLimits {
    pub entries: usize,
    /// Bytes of one file: the store takes no larger blob.
    pub blob: u64,
    /// Bytes that the files hold.
    pub bytes: u64,
    /// Bytes that were never written, and read as zeros: nothing limits them while the action runs, and in the
    /// store and at the client they are bytes like others.
    pub hole_bytes: u64,
    /// How long naming them may take. It is no part of the action's own time.
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
    /// Each blob once, the empty one left out.
    pub blobs: Vec<(Digest, Content)>,
    /// Where the files of [`Content::Beneath`] lie.
    pub root: Arc<OwnedFd>,
    /// The first that is wrong with what the action left; the rest is in `result` all the same, but
    /// nothing is where the outputs are too much.
    pub fault: Option<OutputError>,
}

/// Where the bytes of a blob are.
pub enum Content {
    Memory(Bytes),
    /// A file beneath the root.
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
    /// One output is not what it may be, by what the action did.
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
