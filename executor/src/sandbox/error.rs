use std::io;
use std::path::PathBuf;

/// What kept the sandbox from running an action. A failed action is not an error: it is a
/// [`Finished`](super::Finished).
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot start the sandbox process {command:?}: {source}")]
    StartZygote { command: String, source: io::Error },

    #[error("the sandbox cannot be set up: {0}")]
    Setup(String),

    #[error("the sandbox could not prepare the action: {0}")]
    Prepare(String),

    #[error("the sandbox process ended ({0}); the action did not finish")]
    ZygoteLost(String),

    #[error("the action was cancelled before it began")]
    Cancelled,

    #[error("the command with its environment has {size} bytes; the sandbox takes at most {limit}")]
    CommandTooLarge { size: usize, limit: usize },

    /// A tool that was to stay for further requests has ended; the text says how.
    #[error("the tool ended: {0}")]
    ToolEnded(String),

    #[error("cannot {action}: {source}")]
    Io { action: &'static str, source: io::Error },

    #[error("cannot {action} {path}: {source}")]
    Path { action: &'static str, path: PathBuf, source: io::Error },

    #[error("message from the sandbox process is malformed: {0}")]
    Malformed(&'static str),

    #[error("message from the sandbox process is malformed")]
    Undecodable(#[from] postcard::Error),
}

impl SandboxError {
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
