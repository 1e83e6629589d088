//! Deploy locks, as programs see them.

use kiln_deploy::rollouts::control::LockShown;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::moment::at;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRequest {
    pub service: String,
    pub environment: String,
    pub reason: String,
    /// Seconds that the lock lasts: one at least, and those of thirty days at most.
    pub lasts_s: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnlockRequest {
    pub service: String,
    pub environment: String,
    pub reason: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DeployLock {
    pub service: String,
    pub environment: String,
    /// A person, or the id of a rollout.
    pub owner: String,
    pub reason: String,
    pub until: String,
    /// Grows with every owner: targets refuse orders with a lower one.
    pub token: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DeployLocks {
    pub locks: Vec<DeployLock>,
}

impl From<&LockShown> for DeployLock {
    fn from(it: &LockShown) -> Self {
        Self {
            service: it.place.service.clone(),
            environment: it.place.environment.clone(),
            owner: it.lock.owner.clone(),
            reason: it.lock.reason.clone(),
            until: at(it.lock.expires),
            token: it.lock.token,
        }
    }
}
