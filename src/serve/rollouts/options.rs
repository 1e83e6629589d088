//! What rollouts are started with.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_deploy::rollouts::parts::{Signals, Targets, Traffic};

use crate::serve::webhook::WebhookOptions;

#[derive(Clone, Default)]
pub struct RolloutOptions {
    pub parts: RolloutParts,
    pub webhook: Option<WebhookOptions>,
}

/// What rollouts may name: programs, balancers and servers of the operator.
#[derive(Clone, Default)]
pub struct RolloutParts {
    pub targets: BTreeMap<String, Arc<dyn Targets>>,
    pub traffic: BTreeMap<String, Arc<dyn Traffic>>,
    pub signals: BTreeMap<String, Arc<dyn Signals>>,
}

impl std::fmt::Debug for RolloutOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RolloutOptions").finish_non_exhaustive()
    }
}
