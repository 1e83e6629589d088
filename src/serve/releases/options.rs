//! Options of releases: which executions are recorded, which releases are kept, and who signs.

use std::sync::Arc;
use std::time::Duration;

use kiln_deploy::retention::Rules;
use kiln_deploy::signing::Signer;

use crate::serve::webhook::WebhookOptions;

#[derive(Clone)]
pub struct ReleaseOptions {
    /// Whether executions are recorded.
    pub records: bool,
    /// How long a record is kept after it was used last.
    pub keep_records: Duration,
    /// Rules by which releases are kept.
    pub rules: Rules,
    /// Whether releases that no rule keeps are removed without being asked.
    pub gc: bool,
    /// The key that the server signs releases with; `None`: whoever makes a release signs it.
    pub key: Option<Arc<dyn Signer>>,
    /// Who is told of releases that are made, taken in, rejected and removed; `None`: nobody.
    pub webhook: Option<WebhookOptions>,
}
