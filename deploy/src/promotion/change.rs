//! What happened: for the audit log, and for whoever is told.

use kiln_cas::stores::audit::AuditEvent;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::world::Actor;
use crate::timestamp::Timestamp;

/// Characters of a text that is noted.
const MAX_TEXT: usize = 4_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Promoted,
    RolledBack,
    /// A promotion was asked for, and waits.
    Waits,
    /// A promotion waits no more: it was refused, it is too late, or something else came.
    GaveUp,
    Approved,
    Withdrawn,
    Held,
    Lifted,
    OverrideAsked,
    Overridden,
    Rejected,
}

/// One change of what is promoted, with what was before it and after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub number: u64,
    pub at: Timestamp,
    pub kind: ChangeKind,
    pub by: Actor,
    /// The environment that was changed; empty: all environments.
    pub environment: String,
    /// A release, or what else it was done to.
    pub subject: String,
    pub digest: Option<String>,
    pub reason: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

impl ChangeKind {
    /// The kind as the audit log and notices name it.
    pub fn action(self) -> &'static str {
        match self {
            Self::Promoted => "release.promote",
            Self::RolledBack => "release.rollback",
            Self::Waits => "release.promote.wait",
            Self::GaveUp => "release.promote.give-up",
            Self::Approved => "release.approve",
            Self::Withdrawn => "release.approve.withdraw",
            Self::Held => "environment.hold",
            Self::Lifted => "environment.lift",
            Self::OverrideAsked => "environment.override.ask",
            Self::Overridden => "environment.override",
            Self::Rejected => "environment.reject",
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

impl Change {
    pub fn event(&self) -> AuditEvent {
        let details = json!({
            "change": self.number,
            "environment": self.environment,
            "digest": self.digest,
            "reason": cut(&self.reason),
            "before": self.before,
            "after": self.after,
            "automation": self.by.automation,
        });
        let place = match self.environment.as_str() {
            "" => self.subject.clone(),
            environment if self.subject.is_empty() => environment.to_owned(),
            environment => format!("{} in {environment}", self.subject),
        };
        AuditEvent {
            time: u64::try_from(self.at.unix()).unwrap_or(0),
            actor: cut(&self.by.name),
            action: self.kind.action().to_owned(),
            subject: cut(&place),
            details: details.to_string(),
        }
    }
}
