//! The audit log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `GET /api/v1/audit` answers: entries of the audit log, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntries {
    pub entries: Vec<AuditEntry>,
    /// The value of `before` that asks for the next page; `null` on the last one.
    pub next_before: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// The number of the entry. Entries are counted from 1 without gaps.
    pub sequence: u64,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub at: i64,
    pub actor: String,
    pub action: String,
    pub subject: String,
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub details: serde_json::Value,
    /// The hash over the entry and the one before it, in hexadecimal.
    pub hash: String,
}

/// What `GET /api/v1/audit/check` answers: whether the chain of hashes holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditCheck {
    pub entries: u64,
    /// Where in the log the chain of hashes does not hold; `null` where it holds everywhere.
    pub broken: Option<String>,
}

/// What `GET /api/v1/audit/export` answers: lines of the audit log, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditExport {
    /// An object each: `entry`, the entry as it was hashed, or `checkpoint`, a signed envelope.
    pub lines: Vec<serde_json::Value>,
    /// The entry to go on after; `null` at the end.
    pub next_after: Option<u64>,
}

impl From<&kiln_cas::stores::audit::AuditEntry> for AuditEntry {
    fn from(it: &kiln_cas::stores::audit::AuditEntry) -> Self {
        let seconds = i64::try_from(it.event.time).unwrap_or(i64::MAX);
        let details = serde_json::from_str(&it.event.details);
        Self {
            sequence: it.sequence,
            at: seconds.saturating_mul(1_000_000_000),
            actor: it.event.actor.clone(),
            action: it.event.action.clone(),
            subject: it.event.subject.clone(),
            details: details.unwrap_or_else(|_| it.event.details.clone().into()),
            hash: it.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}
