//! What a slot enforces on this machine.

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
