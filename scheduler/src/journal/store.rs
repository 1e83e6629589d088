//! The journal's records: batches, retention and what is read at the start.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::records::{Expect, MAX_BATCH, Record, RecordsError, SharedRecords, Write};
use kiln_cas::{Digest, DigestFunction, Reason};
use kiln_protos::events::Execution;
use prost::Message;

use super::durations::Learned;
use super::keys;
use super::memory::JournalEntry;
use super::summary::BuildSummary;

/// Executions or builds deleted in one step.
const PRUNE_STEP: usize = 150;
/// Records that are read at once.
const PAGE: usize = 500;

/// Counts over all records; written with every batch that changes them.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Meta {
    #[prost(uint64, tag = "1")]
    pub last_seq: u64,
    #[prost(uint64, tag = "2")]
    pub executions: u64,
    #[prost(uint64, tag = "3")]
    pub builds: u64,
}

/// Writes that belong together, and what they add to the counts.
pub(super) struct Unit {
    pub writes: Vec<Write>,
    pub executions: u64,
    pub builds: u64,
    pub last_seq: u64,
}

pub(super) struct Store {
    pub records: SharedRecords,
    pub meta: Meta,
    /// The state that the record of [`Meta`] must have whenever it is written.
    expect: Expect,
}

impl Store {
    pub async fn open(records: SharedRecords) -> Result<Self, RecordsError> {
        let mut store = Self::open_fenced(records).await?;
        store.expect = Expect::Anything;
        Ok(store)
    }

    /// For one writer of several: from the moment on at which another one has written, every
    /// batch fails as `Conflict`. After that, and after any other error, it must be opened anew.
    pub async fn open_fenced(records: SharedRecords) -> Result<Self, RecordsError> {
        let (meta, expect) = match records.get(keys::META).await? {
            Some(record) => (decode(&record)?, Expect::Version(record.version)),
            None => (Meta::default(), Expect::Absent),
        };
        Ok(Self { records, meta, expect })
    }

    /// Writes units in order, in as few batches as they fit into. Returns how many units are
    /// durable, and the error that stopped the others.
    pub async fn write(&mut self, units: Vec<Unit>) -> (usize, Result<(), RecordsError>) {
        let mut written = 0;
        let mut units = units.into_iter().peekable();
        while units.peek().is_some() {
            let mut batch = Batch::new(self.meta);
            let mut count = 0;
            while let Some(unit) = units.next_if(|unit| batch.has_room(unit)) {
                batch.add(unit);
                count += 1;
            }
            match self.commit(batch).await {
                Ok(()) => written += count,
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// Writes units, at most [`MAX_BATCH`] less one writes, in one batch, and that everything
    /// up to `last_seq` is in the records.
    pub async fn write_up_to(
        &mut self,
        last_seq: u64,
        units: Vec<Unit>,
    ) -> Result<(), RecordsError> {
        let mut batch = Batch::new(self.meta);
        batch.meta.last_seq = batch.meta.last_seq.max(last_seq);
        units.into_iter().for_each(|unit| batch.add(unit));
        self.commit(batch).await
    }

    async fn commit(&mut self, mut batch: Batch) -> Result<(), RecordsError> {
        let meta = Bytes::from(batch.meta.encode_to_vec());
        let key = keys::META.to_owned();
        batch.writes.push(Write { key, expect: self.expect, value: Some(meta) });
        let versions = self.records.write(batch.writes).await?;
        if let (Some(version), false) = (versions.last(), self.expect == Expect::Anything) {
            self.expect = Expect::Version(*version);
        }
        self.meta = batch.meta;
        Ok(())
    }

    /// Deletes the oldest executions above `max`, one step. `true`: there is more to do.
    pub async fn prune_executions(&mut self, max: u64) -> Result<bool, RecordsError> {
        let excess = self.meta.executions.saturating_sub(max);
        if excess == 0 {
            return Ok(false);
        }
        let step = PRUNE_STEP.min(usize::try_from(excess).unwrap_or(PRUNE_STEP));
        let oldest = self.records.list(keys::EXECUTIONS, None, false, step).await?;
        let mut batch = Batch::new(self.meta);
        for record in &oldest {
            batch.push(delete(record.key.clone()));
            let seq = keys::seq_of(&record.key);
            if let (Some(seq), Ok(execution)) = (seq, Execution::decode(record.value.clone())) {
                index_keys(&execution, seq).into_iter().for_each(|key| batch.push(delete(key)));
            }
        }
        // Fewer than counted (records removed by hand): the count follows what there is.
        let removed = if oldest.len() < step { excess } else { oldest.len() as u64 };
        batch.meta.executions = self.meta.executions.saturating_sub(removed);
        self.commit(batch).await?;
        Ok(self.meta.executions > max)
    }

    /// Deletes the oldest builds above `max`, one step; returns where each of them began.
    pub async fn prune_builds(&mut self, max: u64) -> Result<Vec<u64>, RecordsError> {
        let excess = self.meta.builds.saturating_sub(max);
        if excess == 0 {
            return Ok(Vec::new());
        }
        let step = PRUNE_STEP.min(usize::try_from(excess).unwrap_or(PRUNE_STEP));
        let oldest = self.records.list(keys::BUILDS, None, false, step).await?;
        let mut batch = Batch::new(self.meta);
        let mut pruned = Vec::new();
        for record in &oldest {
            if let Some((first_seq, escaped)) = keys::parse_build_by_time(&record.key) {
                batch.push(delete(keys::build_escaped(escaped)));
                pruned.push(first_seq);
            }
            batch.push(delete(record.key.clone()));
        }
        let removed = if oldest.len() < step { excess } else { oldest.len() as u64 };
        batch.meta.builds = self.meta.builds.saturating_sub(removed);
        self.commit(batch).await?;
        Ok(pruned)
    }
}

/// Writes that are applied together.
struct Batch {
    meta: Meta,
    writes: Vec<Write>,
    keys: HashSet<String>,
}

impl Batch {
    fn new(meta: Meta) -> Self {
        Self { meta, writes: Vec::new(), keys: HashSet::new() }
    }

    /// Whether the unit fits, with one place left for [`Meta`]. An empty batch takes any unit: no
    /// unit is that large.
    fn has_room(&self, unit: &Unit) -> bool {
        self.writes.is_empty() || self.writes.len() + unit.writes.len() < MAX_BATCH
    }

    fn add(&mut self, unit: Unit) {
        unit.writes.into_iter().for_each(|write| self.push(write));
        self.meta.executions += unit.executions;
        self.meta.builds += unit.builds;
        self.meta.last_seq = self.meta.last_seq.max(unit.last_seq);
    }

    /// A key may occur once in a batch: of two writes the first stays.
    fn push(&mut self, write: Write) {
        if self.keys.insert(write.key.clone()) {
            self.writes.push(write);
        }
    }
}

pub(super) fn execution_unit(seq: u64, execution: &Execution) -> Unit {
    let mut writes = vec![put(keys::execution(seq), execution.encode_to_vec())];
    let id = keys::id(&execution.id);
    writes.extend(index_keys(execution, seq).into_iter().map(|key| {
        let value = if key == id { format!("{seq:016x}").into_bytes() } else { Vec::new() };
        put(key, value)
    }));
    Unit { writes, executions: 1, builds: 0, last_seq: seq }
}

pub(super) fn build_unit(summary: &BuildSummary, is_new: bool) -> Unit {
    let mut writes = vec![put(keys::build(&summary.invocation_id), summary.encode_to_vec())];
    if is_new {
        let key = keys::build_by_time(summary.first_seq, &summary.invocation_id);
        writes.push(put(key, Vec::new()));
    }
    Unit { writes, executions: 0, builds: u64::from(is_new), last_seq: 0 }
}

pub(super) fn duration_unit(target: &str, mnemonic: &str, learned: Option<&Learned>) -> Unit {
    let key = keys::duration(target, mnemonic);
    let write = match learned {
        Some(learned) => put(key, learned.encode_to_vec()),
        None => delete(key),
    };
    Unit { writes: vec![write], executions: 0, builds: 0, last_seq: 0 }
}

/// All keys that lead to an execution.
fn index_keys(execution: &Execution, seq: u64) -> Vec<String> {
    let mut found = vec![keys::id(&execution.id)];
    if let Some(action) = action_of(execution) {
        found.push(keys::at(&keys::actions(&action), seq));
    }
    if !execution.target_id.is_empty() {
        let prefix = keys::targets(&execution.target_id, Some(&execution.mnemonic));
        found.push(keys::at(&prefix, seq));
    }
    if !execution.invocation_id.is_empty() {
        found.push(keys::at(&keys::invocations(&execution.invocation_id), seq));
    }
    found
}

/// The digest of the execution's action; `None` where it is malformed.
pub fn action_of(execution: &Execution) -> Option<Digest> {
    digest_of(execution, execution.action.as_ref())
}

/// One of the execution's digests as a domain type; `None`: it is missing or malformed.
pub fn digest_of(
    execution: &Execution,
    digest: Option<&kiln_protos::events::Digest>,
) -> Option<Digest> {
    let digest = digest?;
    let function = DigestFunction::from_wire(execution.digest_function).ok()?;
    let size = u64::try_from(digest.size_bytes).ok()?;
    Digest::from_hex(digest.hash.as_bytes(), size, function).ok()
}

/// All learned durations, page by page.
pub(super) async fn read_durations(
    records: &SharedRecords,
    max: usize,
) -> Result<Vec<Learned>, RecordsError> {
    let mut all: Vec<Learned> = Vec::new();
    let mut after: Option<String> = None;
    while all.len() < max {
        let page = records.list(keys::DURATIONS, after.as_deref(), false, PAGE).await?;
        all.extend(page.iter().filter_map(|record| Learned::decode(record.value.clone()).ok()));
        let Some(last) = page.last().filter(|_| page.len() == PAGE) else { break };
        after = Some(last.key.clone());
    }
    all.sort_by_key(|learned| learned.last_seq);
    Ok(all)
}

pub(super) fn entry(record: &Record) -> Option<JournalEntry> {
    let seq = keys::seq_of(&record.key)?;
    let execution = Execution::decode(record.value.clone()).ok()?;
    Some(JournalEntry { seq, execution: Arc::new(execution) })
}

pub(super) fn decode<M: Message + Default>(record: &Record) -> Result<M, RecordsError> {
    M::decode(record.value.clone()).map_err(|error| {
        RecordsError::Corrupt(Reason::caused(format!("{}: {error}", record.key), error))
    })
}

fn put(key: String, value: Vec<u8>) -> Write {
    Write { key, expect: Expect::Anything, value: Some(Bytes::from(value)) }
}

fn delete(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}
