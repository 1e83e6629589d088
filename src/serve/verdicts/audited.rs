//! Changes of the quarantine, in one step with what the audit log says of them.

use async_trait::async_trait;
use kiln_cas::stores::audit::{AuditEvent, AuditLog};
use kiln_ci::storage::{StorageError, Write};
use kiln_ci::verdicts::{Ledger, Note};

use crate::serve::history::{failed, write};

pub struct Audited(pub AuditLog);

#[async_trait]
impl Ledger for Audited {
    async fn write(&self, notes: Vec<Note>, writes: Vec<Write>) -> Result<(), StorageError> {
        let event = |note: Note| AuditEvent {
            time: note.at.0 / 1_000,
            actor: note.actor,
            action: note.action,
            subject: note.subject,
            details: note.details,
        };
        let events = notes.into_iter().map(event).collect();
        let writes = writes.into_iter().map(write).collect();
        self.0.append_with(events, writes).await.map(drop).map_err(failed)
    }
}
