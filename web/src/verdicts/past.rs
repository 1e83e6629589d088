//! What became of the quarantine: its changes, as the audit log has them, and what gates let pass.

use axum::Json;
use axum::extract::State;
use kiln_cas::access::Right;
use kiln_ci::verdicts::Masked;

use super::caller::Caller;
use crate::error::{ApiError, WebError};
use crate::json::{AuditEntry, MaskedFailure, QuarantineHistory};
use crate::state::WebState;

/// What the audit log calls changes of the quarantine.
const CHANGES: &str = "tests.quarantine.";
/// Changes that are found at most, entries of the log that are looked through for them, and how many are read
/// at once.
const MAX_CHANGES: usize = 100;
const MAX_LOOKED_AT: usize = 5_000;
const PAGE: usize = 500;

pub struct Past {
    pub changes: Vec<AuditEntry>,
    pub masked: Vec<Masked>,
}

/// Loads the past of the quarantine in the instances that may be seen, newest first.
pub async fn load(state: &WebState, may_see: impl Fn(&str) -> bool) -> Result<Past, WebError> {
    let mut changes = Vec::new();
    let (mut before, mut looked_at) = (None, 0);
    while changes.len() < MAX_CHANGES && looked_at < MAX_LOOKED_AT {
        let page = state.audit.list_newest(before, PAGE).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.sequence);
        looked_at += page.len();
        let own = page.iter().filter(|it| it.event.action.starts_with(CHANGES));
        let seen = own.map(AuditEntry::from).filter(|it| may_see(instance(it)));
        changes.extend(seen.take(MAX_CHANGES - changes.len()));
    }
    let mut masked = state.verdicts.survey.masked().await?;
    masked.retain(|it| may_see(&it.subject.test.instance));
    Ok(Past { changes, masked })
}

fn instance(it: &AuditEntry) -> &str {
    it.details["instance"].as_str().unwrap_or_default()
}

/// What is read of the instances that the caller may read.
pub async fn history(
    State(state): State<WebState>,
    caller: Caller,
) -> Result<Json<QuarantineHistory>, ApiError> {
    let past = load(&state, |instance| state.access.allows(&caller.0, Right::Read, instance));
    let Past { changes, masked } = past.await?;
    Ok(Json(QuarantineHistory {
        changes,
        masked: masked.iter().map(MaskedFailure::from).collect(),
    }))
}
