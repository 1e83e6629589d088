//! What this machine lets the sandbox enforce.

use super::{SandboxError, Slot, SlotConfig};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub user_namespace: bool,
    pub(super) not_enforced: Vec<String>,
}

impl Capabilities {
    /// What is not enforced, and why: one sentence each. Empty: everything is.
    pub fn not_enforced(&self) -> &[String] {
        &self.not_enforced
    }
}

/// Starts a slot, sees what it can do, and stops it. Fails where nothing can be isolated at all.
pub async fn probe(config: SlotConfig) -> Result<Capabilities, SandboxError> {
    let slot = Slot::start(config).await?;
    let capabilities = slot.capabilities().clone();
    slot.stop().await;
    Ok(capabilities)
}
