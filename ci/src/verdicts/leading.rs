//! What the server does that decides: takes attempts in, lets them become evidence, has failures run again, and looks
//! after the quarantine. Whatever fails here ends it; the next one begins from what is written.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use tokio::time::Instant;

use super::book::Book;
use super::builds::BuildRecord;
use super::error::VerdictError;
use super::extent::Extent;
use super::heard::Heard;
use super::inbox::{self, Inbox, Item};
use super::keys;
use super::mind::{Builds, Mind, MindState, OPEN_FOR, Tests};
use super::parts::{VerdictOptions, VerdictParts};
use super::store::{Store, TERM, delete, put};
use super::sweep::Sweep;
use crate::attempts::BlobName;
use crate::flakes::Identity;
use crate::model::Time;
use crate::quarantine::Change;
use crate::storage::{MAX_VALUE, Write};

/// A window is closed before its time when it has so much in it: all of it is written in one step.
const MAX_ITEMS: usize = 80;
const MAX_TESTS: usize = 250;
/// Cases that are written in one step.
const MAX_CASES: usize = 500;
/// Cases that are written in one step where a window is closed.
const MAX_CLOSED: usize = 300;
/// Invocations that are written in one step.
const MAX_BUILDS: usize = 200;
/// How often the record of who decides is written where nothing else is: when half of its term is over.
const RENEW: Duration = Duration::from_secs(TERM.as_secs() / 2);
/// How often it is looked what is over.
const TIDY: Duration = Duration::from_secs(60);

pub struct Leading {
    pub parts: VerdictParts,
    pub mind: Mind,
    pub store: Store,
    options: VerdictOptions,
    book: Book,
    inbox: Inbox,
    /// What is not evidence yet, by key.
    pending: BTreeMap<String, Item>,
    /// The extent of all that is pending.
    extent: Extent,
    /// Since when something is pending; `None`: nothing is.
    since: Option<Instant>,
    renewed: Instant,
    tidied: Option<Instant>,
    sweep: Sweep,
}

impl Leading {
    /// `inbox`: the one that this process writes to.
    pub async fn begin(
        parts: VerdictParts,
        options: VerdictOptions,
        book: Book,
        inbox: Inbox,
        store: Store,
    ) -> Result<Self, VerdictError> {
        let now = parts.clock.now();
        let mut state: MindState = store.document(keys::STATE).await?.unwrap_or_default();
        if state.census.is_none() {
            state.census = Some(store.count().await?);
        }
        let age = u64::try_from(OPEN_FOR.as_millis()).unwrap_or(u64::MAX);
        let since = Time(now.0.saturating_sub(age));
        let cases = store.cases(since, options.limits.open).await?;
        let mind = Mind::new(options.limits, state, cases);
        Ok(Self {
            parts,
            mind,
            store,
            options,
            book,
            inbox,
            pending: BTreeMap::new(),
            extent: Extent::default(),
            since: None,
            renewed: Instant::now(),
            tidied: None,
            sweep: Sweep::default(),
        })
    }

    /// Looks once at what came. Answers whether more is expected soon.
    pub async fn step(&mut self) -> Result<bool, VerdictError> {
        self.take_in().await?;
        while self.is_due() {
            self.close().await?;
            self.take_in().await?;
        }
        self.write_cases().await?;
        if self.tidied.is_none_or(|it| it.elapsed() >= TIDY) {
            self.tidy().await?;
            self.tidied = Some(Instant::now());
        }
        if self.renewed.elapsed() >= RENEW {
            self.write(Vec::new()).await?;
        }
        Ok(!self.pending.is_empty() || self.mind.has_work())
    }

    /// Failures are run again from when they come, whatever is said later of what happened with them.
    async fn take_in(&mut self) -> Result<(), VerdictError> {
        let now = self.parts.clock.now();
        let (records, own) = (&*self.parts.records, Some(&self.inbox));
        let items = inbox::oldest(records, &self.pending, own).await?;
        for item in items {
            for heard in &item.heard {
                // Most are passes, for which nothing need be read.
                if !self.mind.wants(heard) {
                    continue;
                }
                let (evidence, _) = self.store.test(&heard.test).await?;
                self.mind.hear(heard, &evidence, now);
            }
            self.since.get_or_insert_with(Instant::now);
            self.extent.add(&item);
            self.pending.insert(item.key.clone(), item);
        }
        Ok(())
    }

    /// How inputs are run again whose first attempt is not evidence yet.
    pub fn pending_action(&self, identity: Identity) -> Option<BlobName> {
        let heard = self.pending.values().flat_map(|it| &it.heard);
        let mut own = heard.filter(|it| it.identity == identity);
        own.find_map(|it| it.action.clone())
    }

    fn is_due(&self) -> bool {
        let is_old = self.since.is_some_and(|it| it.elapsed() >= self.options.window);
        let is_full = self.extent.tests() >= MAX_TESTS || self.extent.builds() >= MAX_BUILDS;
        is_old || is_full || self.pending.len() >= MAX_ITEMS
    }

    /// What came within a window becomes evidence, in one step.
    async fn close(&mut self) -> Result<(), VerdictError> {
        let mut items = self.next_window();
        self.add_commits(&mut items).await?;
        let mut heard: Vec<&Heard> = items.iter().flat_map(|it| &it.heard).collect();
        heard.sort_by_key(|it| (it.at, it.execution));
        let mut tests = self.tests_of(&heard).await?;
        let mut builds = self.builds_of(&heard).await?;
        let now = self.parts.clock.now();
        self.mind.close(&heard, &mut tests, &mut builds, now);
        self.pending.values().flat_map(|it| &it.heard).for_each(|it| self.mind.awaits(it));
        let mut page = self.book.open().await?;
        let mut changes = Vec::new();
        // A pass is the other half of what a failure began, and lets a test leave.
        for evidence in tests.values() {
            let mut subjects = evidence.subjects().filter(|(it, _)| self.book.fits(it)).peekable();
            if subjects.peek().is_none() {
                continue;
            }
            let owner = self.parts.owners.owner(&evidence.test.label);
            let count = self.mind.census.of(&evidence.test.instance);
            for (subject, history) in subjects {
                let owner = owner.as_deref();
                changes.extend(page.quarantine.assess(&subject, history, owner, count, now));
            }
        }
        let mut writes = match changes.is_empty() {
            true => Vec::new(),
            false => self.book.writes(&page, &changes)?,
        };
        writes.extend(items.iter().map(|it| delete(it.key.clone())));
        for build in builds.into_values().filter(|it| !it.failures.is_empty()) {
            writes.push(put(keys::build(&build.instance, &build.invocation), &build)?);
        }
        for evidence in tests.into_values() {
            writes.push(self.store.keep_test(evidence)?);
        }
        // A gate that knows of a failure is to find its case, too.
        writes.extend(self.cases(MAX_CLOSED)?);
        writes.push(self.state()?);
        self.write_with(&changes, writes).await
    }

    /// Executions know no commit: of what failed it is that which build events told of the invocation by now.
    async fn add_commits(&self, items: &mut [Item]) -> Result<(), VerdictError> {
        let mut known: BTreeMap<(String, String), Option<String>> = BTreeMap::new();
        let unknown = |it: &&mut Heard| {
            it.commit.is_none() && it.shadow.is_none() && (it.is_failure() || !it.failed.is_empty())
        };
        for it in items.iter_mut().flat_map(|it| &mut it.heard).filter(unknown) {
            let build = (it.test.instance.clone(), it.invocation.clone());
            let commit = match known.get(&build) {
                Some(commit) => commit.clone(),
                None => self.commit_of(&build.0, &build.1).await?,
            };
            it.commit.clone_from(&commit);
            known.insert(build, commit);
        }
        Ok(())
    }

    async fn commit_of(
        &self,
        instance: &str,
        invocation: &str,
    ) -> Result<Option<String>, VerdictError> {
        let noted = self.parts.streams.build(invocation).await?.map(|it| it.summary);
        let own = noted.filter(|it| it.stream.instance == instance);
        Ok(own.and_then(|it| it.origin.commit))
    }

    /// The oldest items, with no more tests and invocations than fit into one step.
    fn next_window(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        let mut taken = Extent::default();
        while let Some((key, item)) = self.pending.pop_first() {
            taken.add(&item);
            let is_full = taken.tests() > MAX_TESTS || taken.builds() > MAX_BUILDS;
            if !items.is_empty() && (is_full || items.len() >= MAX_ITEMS) {
                self.pending.insert(key, item);
                break;
            }
            items.push(item);
        }
        self.extent = Extent::default();
        self.pending.values().for_each(|it| self.extent.add(it));
        self.since = (!self.pending.is_empty()).then(Instant::now);
        items
    }

    async fn tests_of(&mut self, heard: &[&Heard]) -> Result<Tests, VerdictError> {
        let mut tests = Tests::new();
        for it in heard {
            if !tests.contains_key(&it.test) {
                let (evidence, is_known) = self.store.test(&it.test).await?;
                if !is_known {
                    self.mind.census.add(&it.test.instance);
                }
                tests.insert(it.test.clone(), evidence);
            }
        }
        Ok(tests)
    }

    async fn builds_of(&self, heard: &[&Heard]) -> Result<Builds, VerdictError> {
        let mut builds = Builds::new();
        for it in heard.iter().filter(|it| it.shadow.is_none()) {
            let (instance, invocation) = (&it.test.instance, &it.invocation);
            let key = (instance.clone(), invocation.clone());
            if let Entry::Vacant(entry) = builds.entry(key) {
                let kept = self.store.build(instance, invocation).await?;
                entry.insert(kept.unwrap_or_else(|| BuildRecord::new(instance, invocation)));
            }
        }
        Ok(builds)
    }

    /// Events that are too many for one record are forgotten, oldest first.
    fn state(&self) -> Result<Write, VerdictError> {
        let mut state = self.mind.state();
        loop {
            let write = put(keys::STATE.to_owned(), &state)?;
            let fits = write.value.as_ref().is_none_or(|it| it.len() <= MAX_VALUE);
            if fits || !state.clusters.forget_half() {
                return Ok(write);
            }
        }
    }

    /// What shadow runs said, for gates to read.
    async fn write_cases(&mut self) -> Result<(), VerdictError> {
        let writes = self.cases(MAX_CASES)?;
        if writes.is_empty() {
            return Ok(());
        }
        self.write(writes).await
    }

    fn cases(&mut self, most: usize) -> Result<Vec<Write>, VerdictError> {
        let write = |((subject, identity), record): (super::mind::Key, _)| {
            put(keys::case(&subject, identity), &record)
        };
        self.mind.take_changed(most).into_iter().map(write).collect()
    }

    /// Ends what is over, and has quarantined tests run again that nobody runs.
    async fn tidy(&mut self) -> Result<(), VerdictError> {
        let now = self.parts.clock.now();
        self.mind.forget(now);
        let mut page = self.book.open().await?;
        let changes = page.quarantine.tick(now);
        if !changes.is_empty() {
            let writes = self.book.writes(&page, &changes)?;
            self.write_with(&changes, writes).await?;
        }
        let quarantined: Vec<_> = page.quarantine.entries(now).map(|(it, _)| it.clone()).collect();
        for subject in quarantined {
            let (evidence, _) = self.store.test(&subject.test).await?;
            if let Some(it) = evidence.newest() {
                self.mind.probe(&subject, it.identity, it.took);
            }
        }
        let (writes, gone) = self.sweep.next(&self.store, now).await?;
        gone.iter().for_each(|instance| self.mind.census.remove(instance));
        if !writes.is_empty() {
            self.write(writes).await?;
        }
        Ok(())
    }

    async fn write(&mut self, writes: Vec<Write>) -> Result<(), VerdictError> {
        self.store.write(writes).await?;
        self.renewed = Instant::now();
        Ok(())
    }

    async fn write_with(
        &mut self,
        changes: &[Change],
        mut writes: Vec<Write>,
    ) -> Result<(), VerdictError> {
        writes.push(self.store.fence());
        self.book.write(changes, writes).await?;
        self.store.fenced().await?;
        self.renewed = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
#[path = "leading_tests.rs"]
mod tests;
