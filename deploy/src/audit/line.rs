//! Lines of an export: each an entry, or a checkpoint behind the entry that it names.

use kiln_cas::stores::audit::{AuditEntry, AuditEvent};
use serde::{Deserialize, Serialize};

use crate::encoding::{from_hex, hex};
use crate::json::{self, JsonError};
use crate::signing::Envelope;

/// Bytes of a line: four texts of an entry, every character of them escaped.
pub const MAX_LINE: usize = 2 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Entry(EntryLine),
    Checkpoint(Envelope),
}

/// An entry. Hashes are in hexadecimal digits, `details` is the very text that was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryLine {
    sequence: u64,
    /// The time of the entry in seconds since the Unix epoch.
    time: u64,
    actor: String,
    action: String,
    subject: String,
    details: String,
    previous: String,
    hash: String,
}

/// Why a line says nothing.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("it is no line of an audit log")]
    Json(#[from] JsonError),
    #[error("a hash of entry {0} is none")]
    Hash(u64),
}

impl Line {
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        Ok(json::read(line, MAX_LINE)?)
    }

    /// The line in JSON, without the end of the line.
    pub fn write(&self) -> Result<Vec<u8>, LineError> {
        Ok(json::write(self)?)
    }
}

impl From<&AuditEntry> for EntryLine {
    fn from(it: &AuditEntry) -> Self {
        let event = it.event.clone();
        Self {
            sequence: it.sequence,
            time: event.time,
            actor: event.actor,
            action: event.action,
            subject: event.subject,
            details: event.details,
            previous: hex(&it.previous),
            hash: hex(&it.hash),
        }
    }
}

impl TryFrom<EntryLine> for AuditEntry {
    type Error = LineError;

    fn try_from(it: EntryLine) -> Result<Self, LineError> {
        let wrong = LineError::Hash(it.sequence);
        let hash = |text: &str| from_hex(text).and_then(|it| <[u8; 32]>::try_from(it).ok());
        let (Some(previous), Some(of_it)) = (hash(&it.previous), hash(&it.hash)) else {
            return Err(wrong);
        };
        let EntryLine { sequence, time, actor, action, subject, details, .. } = it;
        let event = AuditEvent { time, actor, action, subject, details };
        Ok(Self { sequence, event, previous, hash: of_it })
    }
}
