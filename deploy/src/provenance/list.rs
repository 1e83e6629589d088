//! The closure as documents: parts of bounded size, and an index that names each by its digest. Whoever has
//! the digest of the index, which the signed provenance names, can check all of it.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

use super::closure::{Closure, Found};
use super::record::{ActionRecord, Origin, Run};
use crate::encoding::hex;
use crate::json::{self, JsonError};
use crate::timestamp::Timestamp;

/// Media type of the index.
pub const CLOSURE_INDEX_TYPE: &str = "application/vnd.kiln.closure.index.v1+json";
/// Media type of a part.
pub const CLOSURE_PART_TYPE: &str = "application/vnd.kiln.closure.part.v1+json";
/// A part ends with the entry that brings it above this size.
const PART_BYTES: usize = 512 << 10;
/// An entry has outputs with paths and platform properties; a part has one that is too long at its end.
const MAX_PART_BYTES: usize = 16 << 20;
const MAX_INDEX_BYTES: usize = 4 << 20;

/// The parts of a closure, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClosureIndex {
    pub media_type: String,
    pub actions: usize,
    pub written: usize,
    pub sources: usize,
    pub missing: usize,
    pub parts: Vec<Part>,
}

/// A part of the list: lines of JSON, an entry in each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// The digest of the part as `sha256:…`.
    pub digest: String,
    pub size: usize,
    pub entries: usize,
}

/// A line of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum ClosureEntry {
    Executed(Box<Executed>),
    /// A client wrote this result: it was not built here.
    Written {
        id: String,
        action: String,
        by: String,
        written_on: Timestamp,
        outputs: BTreeMap<String, String>,
    },
    /// A client uploaded this: it was not built here.
    Source {
        path: String,
        digest: String,
    },
    /// Inputs that are gone, with all that may have made them.
    Missing {
        path: String,
        directory: String,
    },
}

/// An action that ran here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Executed {
    pub id: String,
    pub action: String,
    pub command: String,
    pub input_root: String,
    pub target: String,
    pub mnemonic: String,
    pub invocation: String,
    pub worker: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub platform: BTreeMap<String, String>,
    pub root_file_system: String,
    pub enforced: Vec<String>,
    pub exit_code: i32,
    pub started_on: Timestamp,
    pub finished_on: Timestamp,
    /// Digests of outputs, by their paths.
    pub outputs: BTreeMap<String, String>,
}

/// Why a list cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("the closure's list cannot be read or written")]
    Json(#[from] JsonError),
    #[error("a part of the closure's list cannot be kept")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0:?} is no list of a closure")]
    MediaType(String),
    #[error("the part {expected} of the closure's list was changed: its digest is {found}")]
    Changed { expected: String, found: String },
    #[error("the part {digest} of the closure's list has {found} entries instead of {expected}")]
    Entries { digest: String, expected: usize, found: usize },
    #[error("the parts of the closure's list hold something else than its index says")]
    Counts,
}

/// Takes the parts of a list, each with its digest.
pub type PartSink<'a> = dyn FnMut(&str, Vec<u8>) -> Result<(), ListError> + 'a;

/// Writes entries into parts, and hands each on when it is full.
pub struct ListWriter<'a> {
    sink: &'a mut PartSink<'a>,
    open: Vec<u8>,
    entries: usize,
    parts: Vec<Part>,
}

fn name(digest: &kiln_cas::Digest) -> String {
    format!("{}:{}", digest.function, digest.hex())
}

/// The digest of bytes as `sha256:…`.
pub(super) fn digest_of(data: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(data).into();
    format!("sha256:{}", hex(&hash))
}

fn moment(nanoseconds: i64) -> Timestamp {
    Timestamp::from_unix(nanoseconds.div_euclid(1_000_000_000))
}

impl ClosureEntry {
    /// What is written of something that was found.
    pub fn of(found: &Found) -> Self {
        match found {
            Found::Action(record) => Self::of_record(record),
            Found::Source { path, digest } => {
                Self::Source { path: path.clone(), digest: name(digest) }
            }
            Found::Missing { path, directory } => {
                Self::Missing { path: path.clone(), directory: name(directory) }
            }
        }
    }

    fn of_record(record: &ActionRecord) -> Self {
        match &record.origin {
            Origin::Ran(run) => Self::of_run(record, run),
            Origin::Wrote(written) => Self::Written {
                id: record.id.clone(),
                action: name(&record.action),
                by: written.by.clone(),
                written_on: moment(record.finished),
                outputs: outputs(record),
            },
        }
    }

    fn of_run(record: &ActionRecord, run: &Run) -> Self {
        Self::Executed(Box::new(Executed {
            id: record.id.clone(),
            action: name(&record.action),
            command: name(&run.command),
            input_root: name(&run.input_root),
            target: record.target.clone(),
            mnemonic: record.mnemonic.clone(),
            invocation: record.invocation.clone(),
            worker: run.worker.clone(),
            image: run.image.clone(),
            platform: run.platform.iter().cloned().collect(),
            root_file_system: run.sandbox.root.name().to_owned(),
            enforced: run.sandbox.enforced.iter().map(|it| it.name().to_owned()).collect(),
            exit_code: run.exit_code,
            started_on: moment(record.started),
            finished_on: moment(record.finished),
            outputs: outputs(record),
        }))
    }
}

fn outputs(record: &ActionRecord) -> BTreeMap<String, String> {
    record.outputs.iter().map(|it| (it.path.clone(), name(&it.digest))).collect()
}

impl<'a> ListWriter<'a> {
    pub fn new(sink: &'a mut PartSink<'a>) -> Self {
        Self { sink, open: Vec::new(), entries: 0, parts: Vec::new() }
    }

    pub fn add(&mut self, entry: &ClosureEntry) -> Result<(), ListError> {
        serde_json::to_writer(&mut self.open, entry).map_err(JsonError::Unwritable)?;
        self.open.push(b'\n');
        self.entries += 1;
        if self.open.len() >= PART_BYTES { self.end_part() } else { Ok(()) }
    }

    fn end_part(&mut self) -> Result<(), ListError> {
        let data = std::mem::take(&mut self.open);
        let part = Part { digest: digest_of(&data), size: data.len(), entries: self.entries };
        (self.sink)(&part.digest, data)?;
        self.parts.push(part);
        self.entries = 0;
        Ok(())
    }

    /// The index, with its digest; it is not handed to the sink.
    pub fn finish(mut self, closure: &Closure) -> Result<(Vec<u8>, String), ListError> {
        if self.entries > 0 {
            self.end_part()?;
        }
        let Closure { actions, written, sources, missing } = *closure;
        let media_type = CLOSURE_INDEX_TYPE.to_owned();
        let index =
            ClosureIndex { media_type, actions, written, sources, missing, parts: self.parts };
        let data = json::write(&index)?;
        let digest = digest_of(&data);
        Ok((data, digest))
    }
}

/// Reads an index whose digest was checked.
pub fn read_index(data: &[u8]) -> Result<ClosureIndex, ListError> {
    let index: ClosureIndex = json::read(data, MAX_INDEX_BYTES)?;
    if index.media_type != CLOSURE_INDEX_TYPE {
        return Err(ListError::MediaType(index.media_type));
    }
    Ok(index)
}

/// Reads a part, checks that it is the one that the index names, and hands out its entries.
pub fn read_part(
    data: &[u8],
    part: &Part,
    each: &mut dyn FnMut(ClosureEntry),
) -> Result<(), ListError> {
    let found = digest_of(data);
    if found != part.digest || data.len() != part.size {
        return Err(ListError::Changed { expected: part.digest.clone(), found });
    }
    let mut entries = 0;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        each(json::read(line, MAX_PART_BYTES)?);
        entries += 1;
    }
    if entries != part.entries {
        let (digest, expected) = (part.digest.clone(), part.entries);
        return Err(ListError::Entries { digest, expected, found: entries });
    }
    Ok(())
}

impl ClosureIndex {
    /// Whether the entries of all parts are what the index says.
    pub fn check_counts(&self, entries: &Closure) -> Result<(), ListError> {
        let says = Closure {
            actions: self.actions,
            written: self.written,
            sources: self.sources,
            missing: self.missing,
        };
        (says == *entries).then_some(()).ok_or(ListError::Counts)
    }
}

impl Closure {
    /// Counts an entry of a list.
    pub fn count(&mut self, entry: &ClosureEntry) {
        match entry {
            ClosureEntry::Executed(_) => self.actions += 1,
            ClosureEntry::Written { .. } => {
                self.actions += 1;
                self.written += 1;
            }
            ClosureEntry::Source { .. } => self.sources += 1,
            ClosureEntry::Missing { .. } => self.missing += 1,
        }
    }
}
