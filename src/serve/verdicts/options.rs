//! Options of verdicts.

use std::path::PathBuf;

use kiln_ci::verdicts::VerdictOptions;

use crate::serve::webhook::WebhookOptions;

#[derive(Debug, Clone)]
pub struct VerdictsOptions {
    /// Whether failures are judged here. What others have judged is answered all the same.
    pub on: bool,
    pub judging: VerdictOptions,
    /// A CODEOWNERS file; `None`: no test has an owner.
    pub owners: Option<PathBuf>,
    pub webhook: Option<WebhookOptions>,
}
