//! Reading the journal: what is in memory and what is in records, as one.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_cas::Digest;
use kiln_cas::records::{Record, RecordsError};
use kiln_net::causes::chain;
use kiln_protos::events::Execution;
use kiln_protos::events::execution::Origin;
use kiln_protos::reapi::ActionResult;
use prost::Message;

use super::memory::JournalEntry;
use super::store::{action_of, decode, entry};
use super::summary::{BuildSummary, is_part};
use super::{Journal, keys};

/// Most entries of one page.
pub const MAX_PAGE: usize = 2000;
/// Executions read at the same time: in a fleet each is a round trip to Redis.
const READ_AT_ONCE: usize = 32;
/// Records that are looked through for keys that begin like a text, at most.
const MAX_LIKE: usize = 200;
/// Earlier runs looked through for one of the same target and mnemonic.
const MAX_EARLIER: usize = 200;

/// The executions that are asked for; the answer is always newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    Recent,
    Action(Digest),
    /// Executions of a target; `mnemonic: None`: of any mnemonic.
    Target {
        target: String,
        mnemonic: Option<String>,
    },
    Invocation(String),
}

/// A part of a long list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only entries with a lower sequence number.
    pub before: Option<u64>,
    /// The number of entries, at most [`MAX_PAGE`].
    pub limit: usize,
}

impl Page {
    pub fn first(limit: usize) -> Self {
        Self { before: None, limit }
    }
}

/// An earlier run that a later one can be compared with.
#[derive(Debug, Clone, Copy)]
pub struct Earlier<'a> {
    pub target: &'a str,
    pub mnemonic: &'a str,
    /// The run's configuration; `None`: any.
    pub configuration: Option<&'a str>,
    /// An action of which no run is wanted; `None`: any action will do.
    pub not_action: Option<&'a Digest>,
    /// Only runs with a lower sequence number.
    pub before: Option<u64>,
    /// Only runs that made one of these: a target compiles each of its sources in an action of
    /// the same mnemonic. `None`: whatever they made.
    pub outputs: Option<&'a BTreeSet<String>>,
}

/// Paths of what an execution made; empty when the journal has no result of it.
pub fn outputs_of(execution: &Execution) -> BTreeSet<String> {
    let Ok(result) = ActionResult::decode(execution.action_result.clone()) else {
        return BTreeSet::new();
    };
    let files = result.output_files.into_iter().map(|file| file.path);
    let directories = result.output_directories.into_iter().map(|directory| directory.path);
    let links = result.output_symlinks.into_iter().map(|link| link.path);
    files.chain(directories).chain(links).collect()
}

impl Query {
    fn matches(&self, execution: &Execution) -> bool {
        match self {
            Self::Recent => true,
            Self::Action(action) => action_of(execution).as_ref() == Some(action),
            Self::Target { target, mnemonic } => {
                execution.target_id == *target
                    && mnemonic.as_ref().is_none_or(|wanted| execution.mnemonic == *wanted)
            }
            Self::Invocation(invocation) => execution.invocation_id == *invocation,
        }
    }

    /// Prefix of the keys that lead to the executions; `None`: the executions themselves.
    fn index(&self) -> Option<String> {
        match self {
            Self::Recent => None,
            Self::Action(action) => Some(keys::actions(action)),
            Self::Target { target, mnemonic } => Some(keys::targets(target, mnemonic.as_deref())),
            Self::Invocation(invocation) => Some(keys::invocations(invocation)),
        }
    }
}

/// `None`: the build cannot be read, and is left out of lists, where it would hide all others.
fn readable(record: &Record) -> Option<BuildSummary> {
    let read = decode(record);
    let said = |error: &RecordsError| tracing::warn!(error = chain(error), "a build is left out");
    read.inspect_err(said).ok()
}

impl Journal {
    /// The execution with this id (the name of its operation).
    pub async fn execution(&self, id: &str) -> Result<Option<JournalEntry>, RecordsError> {
        let pending = self.inner.memory().newest(None, |execution| execution.id == id);
        if let Some(entry) = pending.into_iter().next() {
            return Ok(Some(entry));
        }
        let Some(record) = self.records().get(&keys::id(id)).await? else { return Ok(None) };
        let seq = std::str::from_utf8(&record.value).ok().and_then(keys::seq_of);
        match seq {
            Some(seq) => self.at(seq).await,
            None => Ok(None),
        }
    }

    /// Executions that `query` names, newest first.
    pub async fn executions(
        &self,
        query: &Query,
        page: Page,
    ) -> Result<Vec<JournalEntry>, RecordsError> {
        let limit = page.limit.min(MAX_PAGE);
        // Memory first: what is written in between is then found twice, never missed.
        let mut entries = self.inner.memory().newest(page.before, |e| query.matches(e));
        entries.truncate(limit);
        let stored = match query.index() {
            None => self.stored(page.before, limit).await?,
            Some(prefix) => self.indexed(query, &prefix, page.before, limit).await?,
        };
        entries.extend(stored);
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.seq));
        entries.dedup_by_key(|entry| entry.seq);
        entries.truncate(limit);
        Ok(entries)
    }

    async fn stored(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, RecordsError> {
        let before = before.map(keys::execution);
        let list = self.records().list(keys::EXECUTIONS, before.as_deref(), true, limit).await?;
        Ok(list.iter().filter_map(entry).collect())
    }

    async fn indexed(
        &self,
        query: &Query,
        prefix: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, RecordsError> {
        let mut sequences = match query {
            // The mnemonic comes before the sequence number: their lists are merged.
            Query::Target { mnemonic: None, .. } => self.sequences(prefix, None, MAX_PAGE).await?,
            _ => self.sequences(prefix, before, limit).await?,
        };
        sequences.retain(|seq| before.is_none_or(|before| *seq < before));
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        sequences.truncate(limit);
        let read = stream::iter(sequences).map(|seq| self.at(seq)).buffered(READ_AT_ONCE);
        let entries: Vec<Option<JournalEntry>> = read.try_collect().await?;
        // Gone in between, or of another string with the same hash: not ours.
        let is_ours = |entry: &JournalEntry| query.matches(&entry.execution);
        Ok(entries.into_iter().flatten().filter(is_ours).collect())
    }

    async fn sequences(
        &self,
        prefix: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<u64>, RecordsError> {
        let before = before.map(|seq| keys::at(prefix, seq));
        let list = self.records().list(prefix, before.as_deref(), true, limit).await?;
        Ok(list.iter().filter_map(|record| keys::seq_of(&record.key)).collect())
    }

    async fn at(&self, seq: u64) -> Result<Option<JournalEntry>, RecordsError> {
        let record = self.records().get(&keys::execution(seq)).await?;
        Ok(record.as_ref().and_then(entry))
    }

    /// Builds, the one that began last first.
    pub async fn builds(&self, page: Page) -> Result<Vec<BuildSummary>, RecordsError> {
        let limit = page.limit.min(MAX_PAGE);
        let mut builds: Vec<_> = {
            let memory = self.inner.memory();
            memory.builds.values().map(|build| build.summary.clone()).collect()
        };
        builds.retain(|build| page.before.is_none_or(|before| build.first_seq < before));
        let before = page.before.map(|seq| format!("{}{seq:016x}/", keys::BUILDS));
        let stored = self.records().list(keys::BUILDS, before.as_deref(), true, limit).await?;
        for record in &stored {
            let Some((seq, escaped)) = keys::parse_build_by_time(&record.key) else { continue };
            if builds.iter().any(|build| build.first_seq == seq) {
                continue;
            }
            if let Some(record) = self.records().get(&keys::build_escaped(escaped)).await? {
                builds.extend(readable(&record));
            }
        }
        builds.sort_by_key(|build| std::cmp::Reverse(build.first_seq));
        builds.truncate(limit);
        Ok(builds)
    }

    pub async fn build(&self, invocation: &str) -> Result<Option<BuildSummary>, RecordsError> {
        let known = self.inner.memory().builds.get(invocation).map(|build| build.summary.clone());
        if known.is_some() {
            return Ok(known);
        }
        let record = self.records().get(&keys::build(invocation)).await?;
        record.as_ref().map(decode).transpose()
    }

    /// Actions whose hash begins with `beginning` (hexadecimal digits), at most `limit`.
    pub async fn actions_like(
        &self,
        beginning: &str,
        limit: usize,
    ) -> Result<Vec<Digest>, RecordsError> {
        let is_like = |action: &Digest| action.hex().starts_with(beginning);
        let pending = self.inner.memory().newest(None, |_| true);
        let pending = pending.iter().filter_map(|entry| action_of(&entry.execution));
        let mut found: BTreeSet<String> =
            pending.filter(is_like).map(|action| action.to_string()).collect();
        for prefix in keys::actions_like(beginning) {
            let list = self.records().list(&prefix, None, false, MAX_LIKE).await?;
            let actions = list.iter().filter_map(|record| keys::action_in(&record.key));
            found.extend(actions.map(str::to_owned));
        }
        Ok(found.iter().filter_map(|text| keys::parse_action(text)).take(limit).collect())
    }

    /// Builds whose invocation id begins with `beginning`, at most `limit`.
    pub async fn builds_like(
        &self,
        beginning: &str,
        limit: usize,
    ) -> Result<Vec<String>, RecordsError> {
        let known: Vec<String> = self.inner.memory().builds.keys().cloned().collect();
        let mut found: BTreeSet<String> =
            known.into_iter().filter(|id| id.starts_with(beginning)).collect();
        let list = self.records().list(&keys::build(beginning), None, false, MAX_LIKE).await?;
        for build in list.iter().filter_map(readable) {
            if build.invocation_id.starts_with(beginning) {
                found.insert(build.invocation_id);
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }

    /// The last run by a worker of the same target and mnemonic, as `earlier` describes it:
    /// what an action that missed the cache is compared with.
    pub async fn last_run_before(
        &self,
        earlier: Earlier<'_>,
    ) -> Result<Option<JournalEntry>, RecordsError> {
        let query = Query::Target {
            target: earlier.target.to_owned(),
            mnemonic: Some(earlier.mnemonic.to_owned()),
        };
        let page = Page { before: earlier.before, limit: MAX_EARLIER };
        let found = self.executions(&query, page).await?.into_iter().find(|entry| {
            let run = &entry.execution;
            let action = action_of(run);
            run.origin() != Origin::Merged
                && !is_part(run)
                && action.is_some()
                && (earlier.not_action.is_none() || action.as_ref() != earlier.not_action)
                && earlier.configuration.is_none_or(|wanted| run.configuration_id == wanted)
                && earlier.outputs.is_none_or(|wanted| !outputs_of(run).is_disjoint(wanted))
        });
        Ok(found)
    }
}
