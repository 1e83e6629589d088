//! The quarantine as a record that any server may change.

use std::sync::Arc;

use tokio::sync::Notify;

use super::error::VerdictError;
use super::keys;
use super::ledger::{self, Ledger};
use crate::model::{Subject, Time};
use crate::quarantine::{Change, Policy, Quarantine, Request};
use crate::storage::{Expect, Records, StorageError, Write};

/// How often a change is tried while others change something, too.
const TRIES: u32 = 16;
/// Tests of one instance that people may put into quarantine; beyond nearly any cap, so that the gate masks nothing
/// by then.
const MAX_ENTRIES: usize = 1_000;
/// Bytes of all names, reasons and owners of an instance's entries: all instances share one record.
const MAX_BYTES: usize = 256 << 10;
/// Bytes of each name.
const MAX_NAME: usize = 1_024;
/// Bytes of a reason, and of an owner.
const MAX_TEXT: usize = 1_000;

/// Clones share one quarantine.
#[derive(Clone)]
pub struct Book {
    records: Arc<dyn Records>,
    ledger: Arc<dyn Ledger>,
    policy: Policy,
    /// Whether somebody outside is told of changes.
    tells: bool,
    /// A change was written by this process.
    written: Arc<Notify>,
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
        Self { records, ledger, policy, tells, written: Arc::default() }
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
        self.ledger.write(notes, writes).await?;
        if !changes.is_empty() {
            self.written.notify_one();
        }
        Ok(())
    }

    /// Waits until this process has written a change.
    pub async fn written(&self) {
        self.written.notified().await;
    }

    /// Whether a test's names are as short as those that are in quarantine have to be.
    pub fn fits(&self, subject: &Subject) -> bool {
        check_names(subject).is_ok()
    }

    /// Puts a test into quarantine, or gives it more time there.
    pub async fn enter(
        &self,
        subject: &Subject,
        request: &Request,
        now: Time,
    ) -> Result<Change, VerdictError> {
        check(request)?;
        if request.stay.is_some_and(|it| it.is_zero() || it > self.policy.expiry) {
            let most = match self.policy.expiry.as_secs() {
                whole if whole.is_multiple_of(3600) => format!("{} hours", whole / 3600),
                seconds => format!("{seconds} seconds"),
            };
            let message = format!("a test may stay for {most} at most, and for more than none");
            return Err(VerdictError::Invalid(message));
        }
        check_names(subject)?;
        self.change(|quarantine| {
            has_room(quarantine, subject, request, now)?;
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

/// Errors: an instance would fill the record that all share.
fn has_room(
    quarantine: &Quarantine,
    subject: &Subject,
    request: &Request,
    now: Time,
) -> Result<(), VerdictError> {
    let instance = &subject.test.instance;
    let own =
        quarantine.entries(now).filter(|(it, _)| it.test.instance == *instance && *it != subject);
    let (mut count, mut bytes) = (0, names(subject).map(str::len).sum::<usize>() + size(request));
    for (it, entry) in own {
        count += 1;
        bytes += names(it).map(str::len).sum::<usize>() + entry.reason.len();
        bytes += entry.owner.as_deref().map_or(0, str::len);
    }
    if count >= MAX_ENTRIES || bytes > MAX_BYTES {
        let message = format!("{count} tests are in quarantine: take some out first");
        return Err(VerdictError::Invalid(message));
    }
    Ok(())
}

fn size(request: &Request) -> usize {
    request.reason.len() + request.owner.as_deref().map_or(0, str::len)
}

fn names(subject: &Subject) -> impl Iterator<Item = &str> {
    let test = &subject.test;
    let case = subject.case.iter().flat_map(|it| [it.class.as_str(), &it.name]);
    [test.instance.as_str(), &test.label, &test.configuration].into_iter().chain(case)
}

fn check_names(subject: &Subject) -> Result<(), VerdictError> {
    match names(subject).find(|it| it.len() > MAX_NAME) {
        None => Ok(()),
        Some(long) => {
            let message = format!("a name has {} bytes; at most {MAX_NAME} fit", long.len());
            Err(VerdictError::Invalid(message))
        }
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
