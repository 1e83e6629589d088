//! The audit log: append-only, each entry bound to the one before it by a hash, so that a
//! change of history shows. It is made of records alone.

use bytes::Bytes;

use crate::digest::DigestFunction;
use crate::records::{Expect, Record, RecordsError, SharedRecords, Write};

/// Attempts to append while others append too.
const MAX_ATTEMPTS: usize = 64;
/// Entries read at once by [`AuditLog::verify`], and most of one page.
pub const MAX_PAGE: usize = 1000;
/// Bytes of each text of an entry.
pub const MAX_TEXT: usize = 64 * 1024;
const HEAD: &str = "audit/head";
const ENTRIES: &str = "audit/entry/";

/// What happened. `time` is in seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    pub time: u64,
    /// Who did it.
    pub actor: String,
    /// What was done, e.g. `release.promote`.
    pub action: String,
    /// What the action was done to, such as a release.
    pub subject: String,
    /// A JSON object as text.
    pub details: String,
}

/// An event in its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Counts from 1 without gaps.
    pub sequence: u64,
    pub event: AuditEvent,
    /// Hash of the entry before; zeros for the first.
    pub previous: [u8; 32],
    /// SHA-256 over everything above.
    pub hash: [u8; 32],
}

/// The first place where the chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditBreak {
    #[error("audit entry {0} is missing")]
    Missing(u64),
    #[error("audit entry {0} is unreadable")]
    Unreadable(u64),
    #[error("audit entry {0} was changed: its hash does not match its content")]
    Changed(u64),
    #[error("audit entry {0} does not follow the entry before it")]
    Unchained(u64),
    #[error("audit entry {found} stands where entry {at} belongs")]
    Misplaced { at: u64, found: u64 },
    #[error("the head of the audit log does not match entry {0}")]
    Head(u64),
}

pub struct AuditLog {
    records: SharedRecords,
}

impl AuditEntry {
    /// The hash that its content has. Where [`Self::hash`] is another, it was changed.
    pub fn expected_hash(&self) -> [u8; 32] {
        hash(self.sequence, &self.event, &self.previous)
    }

    fn new(sequence: u64, event: AuditEvent, previous: [u8; 32]) -> Self {
        let hash = hash(sequence, &event, &previous);
        Self { sequence, event, previous, hash }
    }

    fn encode(&self) -> Bytes {
        let mut data = content(self.sequence, &self.event, &self.previous);
        data.extend_from_slice(&self.hash);
        data.into()
    }

    fn decode(data: &[u8]) -> Option<Self> {
        let mut rest = data;
        let sequence = take_number(&mut rest)?;
        let time = take_number(&mut rest)?;
        let mut text = || take_text(&mut rest);
        let (actor, action, subject, details) = (text()?, text()?, text()?, text()?);
        let (previous, rest) = rest.split_first_chunk::<32>()?;
        let hash = <[u8; 32]>::try_from(rest).ok()?;
        let event = AuditEvent { time, actor, action, subject, details };
        Some(Self { sequence, event, previous: *previous, hash })
    }
}

/// Every part with its length, so that no two entries have the same content.
fn content(sequence: u64, event: &AuditEvent, previous: &[u8; 32]) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend_from_slice(&sequence.to_le_bytes());
    data.extend_from_slice(&event.time.to_le_bytes());
    for text in [&event.actor, &event.action, &event.subject, &event.details] {
        data.extend_from_slice(&(text.len() as u64).to_le_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    data.extend_from_slice(previous);
    data
}

fn hash(sequence: u64, event: &AuditEvent, previous: &[u8; 32]) -> [u8; 32] {
    DigestFunction::Sha256.digest(&content(sequence, event, previous)).hash
}

fn take_number(data: &mut &[u8]) -> Option<u64> {
    let (number, rest) = data.split_first_chunk::<8>()?;
    *data = rest;
    Some(u64::from_le_bytes(*number))
}

fn take_text(data: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_number(data)?).ok()?;
    let (text, rest) = data.split_at_checked(length)?;
    *data = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn key(sequence: u64) -> String {
    format!("{ENTRIES}{sequence:020}")
}

fn sequence_in(key: &str) -> Option<u64> {
    key.strip_prefix(ENTRIES)?.parse().ok()
}

impl AuditLog {
    pub fn new(records: SharedRecords) -> Self {
        Self { records }
    }

    /// Appends durably. Errors: `Conflict` when others were faster again and again.
    pub async fn append(&self, event: AuditEvent) -> Result<AuditEntry, RecordsError> {
        let entries = self.append_with(vec![event], Vec::new()).await?;
        let none = || RecordsError::Invalid("nothing was to be noted".to_owned());
        entries.into_iter().next().ok_or_else(none)
    }

    /// Appends all events and applies the writes in one step, or does neither: what is done and what is noted
    /// of it are the same. Errors: `Conflict` when an expectation of the writes failed, or others appended faster
    /// again and again.
    pub async fn append_with(
        &self,
        events: Vec<AuditEvent>,
        writes: Vec<Write>,
    ) -> Result<Vec<AuditEntry>, RecordsError> {
        events.iter().try_for_each(check)?;
        if events.is_empty() {
            self.records.write(writes).await?;
            return Ok(Vec::new());
        }
        let mut last_conflict = RecordsError::Conflict { key: HEAD.to_owned() };
        for _ in 0..MAX_ATTEMPTS {
            let head = self.records.get(HEAD).await?;
            let entries = chained(head.as_ref(), &events)?;
            let mut all = writes_of(head.as_ref(), &entries);
            all.extend(writes.iter().cloned());
            match self.records.write(all).await {
                Ok(_) => return Ok(entries),
                // An entry beyond the head was put there by nobody who appends.
                Err(RecordsError::Conflict { key }) if is_own(&key) => {
                    last_conflict = RecordsError::Conflict { key };
                }
                Err(error) => return Err(error),
            }
        }
        Err(last_conflict)
    }

    /// Sequence and hash of the last entry; `None` for an empty log. Kept elsewhere, it shows
    /// later whether the end was cut off.
    pub async fn head(&self) -> Result<Option<(u64, [u8; 32])>, RecordsError> {
        self.records.get(HEAD).await?.as_ref().map(decode_head).transpose()
    }

    /// Entries after `after` (0: from the first) in order, at most `limit` or [`MAX_PAGE`].
    pub async fn list(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, RecordsError> {
        let records = self.page(after, limit).await?;
        records
            .iter()
            .map(|record| {
                AuditEntry::decode(&record.value).ok_or_else(|| {
                    RecordsError::Corrupt(format!("{} is not an audit entry", record.key).into())
                })
            })
            .collect()
    }

    /// The entries after `after` that can be read, oldest first, and up to which sequence that is, at most `limit` of
    /// them. Whoever follows the log passes by what is damaged, which [`Self::verify`] names.
    pub async fn follow(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<AuditEntry>, u64), RecordsError> {
        let records = self.page(after, limit).await?;
        let upto = records.last().and_then(|record| sequence_in(&record.key)).unwrap_or(after);
        let read = |record: &Record| {
            let entry = AuditEntry::decode(&record.value);
            if entry.is_none() {
                tracing::error!(key = record.key, "an entry of the audit log is passed by");
            }
            entry
        };
        Ok((records.iter().filter_map(read).collect(), upto))
    }

    /// The newest entries, newest first; `before`: only those before this sequence.
    pub async fn list_newest(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, RecordsError> {
        let before = before.map(key);
        let limit = limit.min(MAX_PAGE);
        let records = self.records.list(ENTRIES, before.as_deref(), true, limit).await?;
        Ok(records.iter().filter_map(|record| AuditEntry::decode(&record.value)).collect())
    }

    async fn page(&self, after: u64, limit: usize) -> Result<Vec<Record>, RecordsError> {
        self.records.list(ENTRIES, Some(&key(after)), false, limit.min(MAX_PAGE)).await
    }

    /// Checks the entries `from..=to` (`to` bounded by the head), and that the head names the
    /// last. `Ok(None)`: the chain holds; else the first break.
    pub async fn verify(&self, from: u64, to: u64) -> Result<Option<AuditBreak>, RecordsError> {
        let head = self.head().await?;
        let (last, head_hash) = head.unwrap_or((0, [0; 32]));
        if last == 0 && !self.page(0, 1).await?.is_empty() {
            return Ok(Some(AuditBreak::Head(0)));
        }
        let (from, to) = (from.max(1), to.min(last));
        let mut chain = Chain { next: from, previous: (from == 1).then_some([0; 32]) };
        if from > 1 {
            // The entry before is the anchor of the first.
            chain.next = from - 1;
        }
        while chain.next <= to {
            let page = self.page(chain.next - 1, MAX_PAGE).await?;
            if page.is_empty() {
                return Ok(Some(AuditBreak::Missing(chain.next)));
            }
            for record in page {
                if chain.next > to {
                    break;
                }
                if let Err(broken) = chain.follow_record(&record) {
                    return Ok(Some(broken));
                }
            }
        }
        let at_head = to == last && last > 0 && from <= to;
        if at_head && chain.previous != Some(head_hash) {
            return Ok(Some(AuditBreak::Head(last)));
        }
        Ok(None)
    }
}

/// Walks entries in order, wherever they come from.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// Sequence of the entry that comes next.
    next: u64,
    /// Hash that the next entry must name; `None` before the first of a partial check.
    previous: Option<[u8; 32]>,
}

impl Chain {
    /// Expects the entry after this one. Where it is not the first of all, what it names as the one before is believed.
    pub fn after(sequence: u64) -> Self {
        Self { next: sequence + 1, previous: (sequence == 0).then_some([0; 32]) }
    }

    /// The last entry that was followed.
    pub fn last(&self) -> Option<(u64, [u8; 32])> {
        Some((self.next.checked_sub(1)?, self.previous?))
    }

    fn follow_record(&mut self, record: &Record) -> Result<(), AuditBreak> {
        let sequence = self.next;
        if record.key != key(sequence) {
            return Err(AuditBreak::Missing(sequence));
        }
        let entry = AuditEntry::decode(&record.value).ok_or(AuditBreak::Unreadable(sequence))?;
        if entry.hash != entry.expected_hash() {
            return Err(AuditBreak::Changed(sequence));
        }
        self.link(&entry)
    }

    /// Checks the next entry.
    pub fn follow(&mut self, entry: &AuditEntry) -> Result<(), AuditBreak> {
        if entry.hash != entry.expected_hash() {
            return Err(AuditBreak::Changed(entry.sequence));
        }
        if entry.sequence > self.next {
            return Err(AuditBreak::Missing(self.next));
        }
        self.link(entry)
    }

    /// Checks the place of an entry whose hash is right.
    fn link(&mut self, entry: &AuditEntry) -> Result<(), AuditBreak> {
        let sequence = self.next;
        if entry.sequence != sequence {
            return Err(AuditBreak::Misplaced { at: sequence, found: entry.sequence });
        }
        if self.previous.is_some_and(|previous| previous != entry.previous) {
            return Err(AuditBreak::Unchained(sequence));
        }
        self.previous = Some(entry.hash);
        self.next = self.next.saturating_add(1);
        Ok(())
    }
}

fn check(event: &AuditEvent) -> Result<(), RecordsError> {
    for text in [&event.actor, &event.action, &event.subject, &event.details] {
        if text.len() > MAX_TEXT {
            let message = format!("an audit text of {} bytes; at most {MAX_TEXT} fit", text.len());
            return Err(RecordsError::Invalid(message));
        }
    }
    Ok(())
}

/// The events behind the head, in their order.
fn chained(head: Option<&Record>, events: &[AuditEvent]) -> Result<Vec<AuditEntry>, RecordsError> {
    let (mut sequence, mut previous) = match head {
        Some(head) => decode_head(head)?,
        None => (0, [0; 32]),
    };
    let mut entries = Vec::with_capacity(events.len());
    for event in events {
        sequence += 1;
        let entry = AuditEntry::new(sequence, event.clone(), previous);
        previous = entry.hash;
        entries.push(entry);
    }
    Ok(entries)
}

/// The new head is the last one of them.
fn writes_of(head: Option<&Record>, entries: &[AuditEntry]) -> Vec<Write> {
    let expect = head.map_or(Expect::Absent, |head| Expect::Version(head.version));
    let next = entries.last().map(encode_head);
    let head = Write { key: HEAD.to_owned(), expect, value: next };
    let entry = |entry: &AuditEntry| Write {
        key: key(entry.sequence),
        expect: Expect::Absent,
        value: Some(entry.encode()),
    };
    [head].into_iter().chain(entries.iter().map(entry)).collect()
}

fn is_own(key: &str) -> bool {
    key == HEAD || key.starts_with(ENTRIES)
}

fn encode_head(entry: &AuditEntry) -> Bytes {
    [&entry.sequence.to_le_bytes()[..], &entry.hash].concat().into()
}

fn decode_head(head: &Record) -> Result<(u64, [u8; 32]), RecordsError> {
    let (sequence, hash) = head
        .value
        .split_first_chunk::<8>()
        .and_then(|(sequence, hash)| Some((*sequence, <[u8; 32]>::try_from(hash).ok()?)))
        .ok_or_else(|| {
            RecordsError::Corrupt(format!("{HEAD} is not the head of an audit log").into())
        })?;
    Ok((u64::from_le_bytes(sequence), hash))
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
