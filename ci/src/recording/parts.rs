//! What recording stands on.

use std::sync::Arc;

use kiln_protos::events::Execution;
use tokio::sync::broadcast;

use crate::history::History;
use crate::services::Clock;
use crate::storage::Blobs;

/// What recording reads attempts from, and what it writes them to.
pub struct RecorderParts {
    pub history: Arc<History>,
    pub blobs: Arc<dyn Blobs>,
    pub clock: Arc<dyn Clock>,
    /// What was executed; `None`: nothing is taken in.
    pub executions: Option<broadcast::Receiver<Arc<Execution>>>,
}
