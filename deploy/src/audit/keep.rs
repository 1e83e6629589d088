//! Checkpoints beside the log, and exports of both.
//!
//! | key | what |
//! | --- | --- |
//! | `audit/checkpoint/{sequence}` | the envelope of the checkpoint of this entry |

use std::sync::Arc;

use kiln_cas::records::{Expect, MAX_VALUE, Record, RecordsError, SharedRecords, Write};
use kiln_cas::stores::audit::{AuditBreak, AuditEntry, AuditLog, MAX_PAGE};

use super::checkpoint::{Checkpoint, CheckpointError};
use super::line::Line;
use crate::json::{self, JsonError};
use crate::signing::{Envelope, KeyRing, Signer};
use crate::timestamp::Timestamp;

/// Entries after which there is a checkpoint at the latest.
pub const EVERY: u64 = 1_000;
/// Seconds after which an entry that no checkpoint confirms yet gets one.
const WITHIN: i64 = 600;
const CHECKPOINTS: &str = "audit/checkpoint/";

/// Why there is no checkpoint or export.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("the audit log cannot be used")]
    Records(#[from] RecordsError),
    #[error("the checkpoint cannot be made")]
    Checkpoint(#[from] CheckpointError),
    #[error("the work was given up")]
    Stopped,
    #[error("a checkpoint cannot be written")]
    Json(#[from] JsonError),
    #[error("the checkpoint {key} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: JsonError,
    },
}

/// What came of a look at the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing is due, or there is no key.
    Nothing,
    Signed,
    /// The log does not hold: it is not confirmed.
    Broken(AuditBreak),
    /// The entry that was signed last is another now: the log was written anew, and is not confirmed.
    Rewritten(u64),
}

/// The checkpoints of a log.
#[derive(Clone)]
pub struct Checkpoints {
    records: SharedRecords,
    log: Arc<AuditLog>,
    /// URI of the server.
    name: String,
    signer: Option<Arc<dyn Signer>>,
}

fn key(sequence: u64) -> String {
    format!("{CHECKPOINTS}{sequence:020}")
}

fn read(record: &Record) -> Result<Envelope, KeepError> {
    let damaged = |source| KeepError::Damaged { key: record.key.clone(), source };
    json::read(&record.value, MAX_VALUE).map_err(damaged)
}

fn sequence(record: &Record) -> u64 {
    record.key.strip_prefix(CHECKPOINTS).and_then(|it| it.parse().ok()).unwrap_or(0)
}

impl Checkpoints {
    /// Without a signer none are made.
    pub fn new(records: SharedRecords, name: &str, signer: Option<Arc<dyn Signer>>) -> Self {
        let log = Arc::new(AuditLog::new(records.clone()));
        Self { records, log, name: name.to_owned(), signer }
    }

    async fn newest(&self) -> Result<Option<Record>, RecordsError> {
        Ok(self.records.list(CHECKPOINTS, None, true, 1).await?.pop())
    }

    /// Signs the newest entry where that is due. Several frontends may do so at once: one of them writes it. What was signed
    /// before must be in the log still, else nothing is signed: a log that was changed is not confirmed.
    pub async fn keep(&self, now: Timestamp) -> Result<Kept, KeepError> {
        let Some(signer) = &self.signer else { return Ok(Kept::Nothing) };
        // Read before the head: entries that others add meanwhile are not missing.
        let newest = self.newest().await?;
        let before = newest.as_ref().map_or(0, sequence);
        let last = self.log.head().await?.map_or(0, |(last, _)| last);
        if last < before {
            return Ok(Kept::Broken(AuditBreak::Missing(last + 1)));
        }
        if last == before {
            return Ok(Kept::Nothing);
        }
        let oldest = self.log.list(before, 1).await?.pop();
        let waited = oldest.map_or(0, |it| {
            now.unix().saturating_sub(i64::try_from(it.event.time).unwrap_or(i64::MAX))
        });
        if last - before < EVERY && (0..WITHIN).contains(&waited) {
            return Ok(Kept::Nothing);
        }
        if let Some(newest) = &newest
            && !self.is_there(newest, &**signer, now).await?
        {
            return Ok(Kept::Rewritten(before));
        }
        // From the entry that was signed last on: it is the anchor of what follows.
        if let Some(broken) = self.log.verify(before.max(1), last).await? {
            return Ok(Kept::Broken(broken));
        }
        let Some(entry) = self.log.list(last - 1, 1).await?.pop() else {
            return Ok(Kept::Nothing);
        };
        // A program may sign, which takes its time.
        let (checkpoint, with) = (Checkpoint::of(&self.name, &entry, now), signer.clone());
        let signing = tokio::task::spawn_blocking(move || checkpoint.sign(&*with));
        let envelope = signing.await.map_err(|_| KeepError::Stopped)??;
        let value = Some(json::write(&envelope)?.into());
        let write = Write { key: key(last), expect: Expect::Absent, value };
        match self.records.write(vec![write]).await {
            Ok(_) => Ok(Kept::Signed),
            Err(RecordsError::Conflict { .. }) => Ok(Kept::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether what was signed is in the log still. What another key has signed is not known here.
    async fn is_there(
        &self,
        checkpoint: &Record,
        signer: &dyn Signer,
        now: Timestamp,
    ) -> Result<bool, KeepError> {
        let keys = KeyRing::single("server", signer.public_key().clone());
        let Ok(signed) = Checkpoint::verify(&read(checkpoint)?, &keys, now) else {
            return Ok(true);
        };
        let entry = self.log.list(signed.sequence.saturating_sub(1), 1).await?.pop();
        let is_it = |it: AuditEntry| {
            it.sequence == signed.sequence && signed.hash().is_some_and(|hash| hash == it.hash)
        };
        Ok(entry.is_some_and(is_it))
    }

    /// Entries after `after` with the checkpoints behind them, at most `limit` entries; and the entry to go on after,
    /// `None`: that was the end. A checkpoint of an entry that is not there comes last.
    pub async fn export(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Line>, Option<u64>), KeepError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let entries = self.log.list(after, limit).await?;
        let full = entries.len() == limit;
        let last = entries.last().map_or(after, |it| it.sequence);
        let mut checkpoints =
            self.checkpoints(after, full.then_some(last)).await?.into_iter().peekable();
        let mut lines = Vec::with_capacity(entries.len());
        for entry in &entries {
            lines.push(Line::Entry(entry.into()));
            while let Some((_, envelope)) = checkpoints.next_if(|it| it.0 <= entry.sequence) {
                lines.push(Line::Checkpoint(envelope));
            }
        }
        lines.extend(checkpoints.map(|(_, envelope)| Line::Checkpoint(envelope)));
        Ok((lines, full.then_some(last)))
    }

    /// Checkpoints behind the entry `after`, up to and with `to`; `None`: all that follow.
    async fn checkpoints(
        &self,
        after: u64,
        to: Option<u64>,
    ) -> Result<Vec<(u64, Envelope)>, KeepError> {
        let found = self.records.list(CHECKPOINTS, Some(&key(after)), false, MAX_PAGE).await?;
        let within = found.iter().filter(|it| to.is_none_or(|to| sequence(it) <= to));
        within.map(|it| Ok((sequence(it), read(it)?))).collect()
    }
}
