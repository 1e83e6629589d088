//! What is recorded, and who signs.

use std::sync::Arc;
use std::time::Duration;

use kiln_deploy::retention::Rules;
use kiln_deploy::signing::Signer;

#[derive(Clone)]
pub struct ReleaseOptions {
    /// Whether executions are recorded.
    pub records: bool,
    /// How long a record is kept after it was used last.
    pub keep_records: Duration,
    /// Which releases stay.
    pub rules: Rules,
    /// Whether the others are removed by themselves.
    pub gc: bool,
    /// What the server signs releases with; `None`: whoever makes one signs it.
    pub key: Option<Arc<dyn Signer>>,
}
