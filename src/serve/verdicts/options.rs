//! What verdicts are started with.

use std::path::PathBuf;

use kiln_ci::verdicts::VerdictOptions;

use crate::serve::webhook::{WebhookError, WebhookOptions};

#[derive(Debug, Clone)]
pub struct VerdictsOptions {
    /// Whether failures are judged here. What others have judged is answered all the same.
    pub on: bool,
    pub judging: VerdictOptions,
    /// A CODEOWNERS file; `None`: no test has an owner.
    pub owners: Option<PathBuf>,
    pub webhook: Option<WebhookOptions>,
}

#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error("no random bytes from the kernel")]
    Random,
}
