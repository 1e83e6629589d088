//! Why traffic was not split.

use std::path::PathBuf;
use std::time::Duration;

use kiln_net::process::ProcessError;

#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The split cannot be said to any balancer.
    #[error("the split cannot be set: {0}")]
    Split(String),
    #[error("{path}: {what}", path = path.display())]
    File {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not of this program's making; move it away", .0.display())]
    Foreign(PathBuf),
    /// Somebody else was changing the balancer for too long. Nothing was changed.
    #[error("somebody else has been changing this balancer for {0:?}")]
    Busy(Duration),
    #[error("the balancer refuses the configuration; the former one holds")]
    Refused(#[source] ProcessError),
    #[error("the balancer could not be told to reload; the former configuration was put back")]
    Reload(#[source] ProcessError),
    #[error(
        "after {0:?} the balancer does not do what it was told ({1}); the former configuration was put back"
    )]
    NotInForce(Duration, String),
    #[error("the balancer refuses a weight ({0}); the former configuration was put back")]
    Weight(String),
    #[error("the balancer cannot be asked what it does: {0}")]
    Silent(String),
    #[error("the balancer does something else than {path} says: {1}", path = .0.display())]
    Differs(PathBuf, String),
    #[error(transparent)]
    Program(#[from] ProcessError),
    #[error("the program's answer is not understood: {0}")]
    Answer(String),
}
