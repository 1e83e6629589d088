//! The quarantine as a record that any server may change.

use std::sync::Arc;

use super::error::VerdictError;
use super::keys;
use super::ledger::{self, Ledger};
use crate::model::{Subject, Time};
use crate::quarantine::{Change, Policy, Quarantine, Request};
use crate::storage::{Expect, Records, StorageError, Write};

/// How often a change is tried while others change something, too.
const TRIES: u32 = 16;
/// Tests that people may put into quarantine; far beyond any cap, so that the gate masks nothing by then.
const MAX_ENTRIES: usize = 5_000;
/// Bytes of a reason, and of an owner.
const MAX_TEXT: usize = 1_000;

/// Clones share one quarantine.
#[derive(Clone)]
pub struct Book {
    records: Arc<dyn Records>,
    ledger: Arc<dyn Ledger>,
    policy: Policy,
    /// Somebody outside is told of changes.
    tells: bool,
}

/// The quarantine, and what its record must be for it to be written.
pub struct Page {
    pub quarantine: Quarantine,
    pub expect: Expect,
}

impl Book {
    pub fn new(
        records: Arc<dyn Records>,
        ledger: Arc<dyn Ledger>,
        policy: Policy,
        tells: bool,
    ) -> Self {
        Self { records, ledger, policy, tells }
    }

    pub async fn open(&self) -> Result<Page, VerdictError> {
        let Some(record) = self.records.get(keys::QUARANTINE).await? else {
            let quarantine = Quarantine::new(self.policy.clone());
            return Ok(Page { quarantine, expect: Expect::Absent });
        };
        let quarantine: Quarantine = keys::decode(&record.value)
            .map_err(|source| VerdictError::Damaged { key: record.key, source })?;
        let quarantine = quarantine.with_policy(self.policy.clone());
        Ok(Page { quarantine, expect: Expect::Version(record.version) })
    }

    /// What is to be written for these changes, the quarantine first.
    pub fn writes(&self, page: &Page, changes: &[Change]) -> Result<Vec<Write>, VerdictError> {
        let value = Some(keys::encode(&page.quarantine)?);
        let mut writes =
            vec![Write { key: keys::QUARANTINE.to_owned(), expect: page.expect, value }];
        if self.tells {
            for change in changes {
                writes.push(ledger::notice(change)?);
            }
        }
        Ok(writes)
    }

    /// Writes changes with what else belongs to the same step.
    pub async fn write(&self, changes: &[Change], writes: Vec<Write>) -> Result<(), VerdictError> {
        let notes = changes.iter().map(ledger::note).collect();
        Ok(self.ledger.write(notes, writes).await?)
    }

    /// Puts a test into quarantine, or gives it more time there.
    pub async fn enter(
        &self,
        subject: &Subject,
        request: &Request,
        now: Time,
    ) -> Result<Change, VerdictError> {
        check(request)?;
        self.change(|quarantine| {
            let is_new = quarantine.find(subject, now).is_none();
            if is_new && quarantine.len(now) >= MAX_ENTRIES {
                let message = format!("{MAX_ENTRIES} tests are in quarantine: take some out first");
                return Err(VerdictError::Invalid(message));
            }
            Ok(quarantine.enter(subject, request.clone(), now)?)
        })
        .await
    }

    pub async fn leave(
        &self,
        subject: &Subject,
        request: &Request,
        now: Time,
    ) -> Result<Change, VerdictError> {
        check(request)?;
        self.change(|quarantine| Ok(quarantine.leave(subject, request.clone(), now)?)).await
    }

    async fn change(
        &self,
        apply: impl Fn(&mut Quarantine) -> Result<Change, VerdictError>,
    ) -> Result<Change, VerdictError> {
        for _ in 0..TRIES {
            let mut page = self.open().await?;
            let change = apply(&mut page.quarantine)?;
            let writes = self.writes(&page, std::slice::from_ref(&change))?;
            match self.write(std::slice::from_ref(&change), writes).await {
                Err(VerdictError::Storage(StorageError::Conflict(_))) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(change),
            }
        }
        Err(VerdictError::Restless)
    }
}

fn check(request: &Request) -> Result<(), VerdictError> {
    let owner = request.owner.as_deref().unwrap_or_default();
    for (what, text) in [("reason", request.reason.as_str()), ("owner", owner)] {
        if text.len() > MAX_TEXT {
            let message = format!("the {what} has {} bytes; at most {MAX_TEXT} fit", text.len());
            return Err(VerdictError::Invalid(message));
        }
        if text.chars().any(char::is_control) {
            return Err(VerdictError::Invalid(format!("the {what} is to be one line of text")));
        }
    }
    Ok(())
}
