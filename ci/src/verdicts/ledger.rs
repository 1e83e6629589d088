//! Changes of the quarantine: each is in the audit log, and told once.

use async_trait::async_trait;

use super::keys;
use crate::attempts::cut;
use crate::model::Time;
use crate::quarantine::{Actor, Change, Kind};
use crate::storage::{Damage, Expect, StorageError, Write};

/// Bytes of names in the audit log.
const MAX_NAME: usize = 4 << 10;

/// What the audit log is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub at: Time,
    pub actor: String,
    /// `tests.quarantine.enter` and the like.
    pub action: String,
    pub subject: String,
    /// What else is noted, as the text of a JSON object.
    pub details: String,
}

/// Records beside the audit log.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Applies all writes and notes them, or does neither. `Conflict` when an expectation of the writes failed.
    async fn write(&self, notes: Vec<Note>, writes: Vec<Write>) -> Result<(), StorageError>;
}

/// Tells somebody outside of a change. Errors in words; what was not told is tried again.
#[async_trait]
pub trait Teller: Send + Sync + 'static {
    async fn tell(&self, change: &Change) -> Result<(), String>;
}

/// Who looks after a test.
pub trait Owners: Send + Sync + 'static {
    fn owner(&self, label: &str) -> Option<String>;
}

pub fn note(change: &Change) -> Note {
    let actor = match &change.by {
        Actor::Policy => "policy".to_owned(),
        Actor::Person(name) => name.clone(),
    };
    let action = match change.kind {
        Kind::Entered => "enter",
        Kind::Renewed => "renew",
        Kind::Left => "leave",
        Kind::Expired => "expire",
        Kind::Refused => "refuse",
    };
    let details = serde_json::json!({
        "change": change.number,
        "instance": cut(&change.subject.test.instance, MAX_NAME),
        "configuration": cut(&change.subject.test.configuration, MAX_NAME),
        "reason": cut(&change.reason, MAX_NAME),
        "owner": change.owner.as_deref().map(|it| cut(it, MAX_NAME)),
        "expires_ms": change.expires.map(|it| it.0),
    });
    Note {
        at: change.at,
        actor: cut(&actor, MAX_NAME).to_owned(),
        action: format!("tests.quarantine.{action}"),
        subject: cut(&change.subject.to_string(), MAX_NAME).to_owned(),
        details: details.to_string(),
    }
}

/// The record by which a change is told later.
pub fn notice(change: &Change) -> Result<Write, Damage> {
    let (key, value) = (keys::notice(change.number), keys::encode(change)?);
    Ok(Write { key, expect: Expect::Absent, value: Some(value) })
}
