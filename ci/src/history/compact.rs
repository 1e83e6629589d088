//! Does what [`plan`] says, so that a crash anywhere loses nothing: new segments are durable before the
//! catalogue names them, and the catalogue names them and forgets the old ones in one step.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::catalogue::{CATALOGUE, Catalogue, Dead, Fresh, encode};
use super::plan::{Task, plan};
use super::query::{damaged, span};
use super::segment::{self, Written};
use super::snapshot::Snapshot;
use super::{History, HistoryError, SegmentMeta};
use crate::attempts::{Attempt, Known, join};
use crate::model::Time;
use crate::storage::{Expect, MAX_BATCH, StorageError, Write};

/// What a request was merged into is known by then.
const SETTLED: Duration = Duration::from_secs(24 * 3600);

/// A blob that nothing names is no longer about to be named.
const ORPHANED: Duration = Duration::from_secs(3600);
const PAGE: usize = 1000;

/// Settled segments that a late account makes to be written anew, at most.
const MAX_LATE: usize = 8;

impl History {
    /// Does the next thing that is due, and says whether there was one. Who is faster wins where several
    /// processes do it at once.
    pub async fn maintain(&self, now: Time) -> Result<bool, HistoryError> {
        let snapshot = self.snapshot().await?;
        self.forget_joined(&snapshot);
        let fresh: Vec<Fresh> = snapshot.fresh.iter().map(|(it, _)| it.clone()).collect();
        let Some(task) = plan(&snapshot.catalogue, &fresh, now, &self.policy) else {
            return Ok(false);
        };
        let done = match task {
            Task::Settle(names) => self.settle(&snapshot, &names, now).await,
            Task::Merge(names) => self.merge(&snapshot, &names, now).await,
            Task::Age(names) => self.age(&snapshot, &names, now).await,
            Task::Drop(names) => self.replace(&snapshot, &names, &[], None, now).await,
            Task::Remove(names) => self.remove(&snapshot, &names).await,
        };
        match done {
            // Somebody else did it, and what they removed may have been read here.
            Err(HistoryError::Storage(StorageError::Conflict(_) | StorageError::NotFound(_))) => {
                Ok(true)
            }
            done => done.map(|()| true),
        }
    }

    /// Removes what was put by somebody who ended before naming it: what this process has seen unnamed for so long. `now`: by a
    /// clock of this process that nobody sets, from any origin.
    pub async fn sweep(&self, now: Duration) -> Result<u64, HistoryError> {
        let (mut swept, mut seen) = (0, BTreeSet::new());
        let mut after: Option<String> = None;
        loop {
            // Listed before it is asked which are named: what is named later was put later.
            let page = self.segments.list(after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last().cloned() else { break };
            let known = self.snapshot().await?.names();
            for (name, _) in page {
                if known.contains(&name) {
                    continue;
                }
                if self.unnamed.of(&name, now) >= ORPHANED {
                    self.segments.remove(&name).await?;
                    swept += 1;
                }
                seen.insert(name);
            }
            after = Some(last);
        }
        self.unnamed.keep(&seen);
        Ok(swept)
    }

    /// Fresh segments become one, and with them those that know the same invocations already.
    async fn settle(
        &self,
        snapshot: &Snapshot,
        names: &[String],
        now: Time,
    ) -> Result<(), HistoryError> {
        let fresh: Vec<_> =
            snapshot.fresh.iter().filter(|(it, _)| names.contains(&it.meta.name)).collect();
        let mut attempts = Vec::new();
        for (it, _) in &fresh {
            attempts.extend(self.read(&it.meta).await?);
        }
        let late = self.settled_before(snapshot, &attempts).await?;
        for it in &late {
            attempts.extend(self.read(it).await?);
        }
        let late: Vec<String> = late.into_iter().map(|it| it.name).collect();
        let fresh: Vec<_> = fresh.into_iter().cloned().collect();
        let written = write(attempts, now)?;
        self.replace(snapshot, &late, &fresh, Some(written), now).await
    }

    /// Segments with attempts of these invocations: what is told late joins what was told in time.
    async fn settled_before(
        &self,
        snapshot: &Snapshot,
        attempts: &[Attempt],
    ) -> Result<Vec<SegmentMeta>, HistoryError> {
        let Some((from, to)) = span(attempts) else { return Ok(Vec::new()) };
        let wanted: HashSet<&str> = attempts.iter().map(|it| it.invocation.as_str()).collect();
        let mut found = Vec::new();
        let mut near: Vec<_> = snapshot.catalogue.segments.iter().collect();
        near.sort_by_key(|it| std::cmp::Reverse(it.to));
        for it in near.into_iter().filter(|it| it.runs > 0 && it.touches(from, to)) {
            let own = self.invocations(it).await?;
            if found.len() < MAX_LATE && own.iter().any(|it| wanted.contains(it.id.as_str())) {
                found.push(it.clone());
            }
        }
        Ok(found)
    }

    async fn merge(
        &self,
        snapshot: &Snapshot,
        names: &[String],
        now: Time,
    ) -> Result<(), HistoryError> {
        let segments = snapshot.named(names);
        if segments.iter().all(|it| it.runs == 0) {
            return self.age(snapshot, names, now).await;
        }
        let mut attempts = Vec::new();
        for it in segments {
            attempts.extend(self.read(it).await?);
        }
        self.replace(snapshot, names, &[], Some(write(attempts, now)?), now).await
    }

    /// Keeps of old attempts only what they came to, day by day.
    async fn age(
        &self,
        snapshot: &Snapshot,
        names: &[String],
        now: Time,
    ) -> Result<(), HistoryError> {
        let mut all = BTreeMap::new();
        let segments = snapshot.named(names);
        for it in &segments {
            let bytes = self.whole(&it.name).await?;
            for (test, days) in segment::read_days(&bytes).map_err(|source| damaged(it, source))? {
                let sum: &mut BTreeMap<u64, super::Day> = all.entry(test).or_default();
                for (number, day) in days {
                    sum.entry(number).or_default().add(&day);
                }
            }
        }
        let from = segments.iter().map(|it| it.from).min().unwrap_or_default();
        let to = segments.iter().map(|it| it.to).max().unwrap_or_default();
        let written = segment::write_days(all, from, to).map_err(HistoryError::Unwritable)?;
        self.replace(snapshot, names, &[], Some(written), now).await
    }

    async fn remove(&self, snapshot: &Snapshot, names: &[String]) -> Result<(), HistoryError> {
        for name in names {
            self.segments.remove(name).await?;
        }
        let mut catalogue = snapshot.catalogue.clone();
        catalogue.dead.retain(|it| !names.contains(&it.name));
        self.write_catalogue(snapshot, catalogue, Vec::new()).await
    }

    async fn read(&self, it: &SegmentMeta) -> Result<Vec<Attempt>, HistoryError> {
        let bytes = self.whole(&it.name).await?;
        segment::read_all(&bytes).map_err(|source| damaged(it, source))
    }

    /// Replaces segments by what was made of them, in one step of the catalogue.
    async fn replace(
        &self,
        snapshot: &Snapshot,
        names: &[String],
        fresh: &[(Fresh, u64)],
        written: Option<Written>,
        now: Time,
    ) -> Result<(), HistoryError> {
        let mut catalogue = snapshot.catalogue.clone();
        catalogue.segments.retain(|it| !names.contains(&it.name));
        let gone = names.iter().chain(fresh.iter().map(|(it, _)| &it.meta.name));
        catalogue.dead.extend(gone.map(|name| Dead { name: name.clone(), since: now }));
        let mut put = None;
        if let Some(written) = written {
            let name = self.segments.put(written.bytes.clone()).await?;
            catalogue.segments.push(SegmentMeta::of(name.clone(), &written));
            put = Some(name);
        }
        let forgotten = fresh.iter().map(|(it, version)| Write {
            key: it.key(),
            expect: Expect::Version(*version),
            value: None,
        });
        let done = self.write_catalogue(snapshot, catalogue, forgotten.collect()).await;
        if let (Err(HistoryError::Storage(StorageError::Conflict(_))), Some(name)) = (&done, put) {
            // Somebody was faster. What is left here is swept up otherwise.
            self.segments.remove(&name).await.ok();
        }
        done
    }

    async fn write_catalogue(
        &self,
        snapshot: &Snapshot,
        catalogue: Catalogue,
        mut writes: Vec<Write>,
    ) -> Result<(), HistoryError> {
        debug_assert!(writes.len() < MAX_BATCH);
        let expect = match snapshot.version {
            0 => Expect::Absent,
            version => Expect::Version(version),
        };
        let value = Some(encode(&catalogue));
        writes.push(Write { key: CATALOGUE.to_owned(), expect, value });
        Ok(self.records.write(writes).await?)
    }
}

impl Snapshot {
    fn named(&self, names: &[String]) -> Vec<&SegmentMeta> {
        self.catalogue.segments.iter().filter(|it| names.contains(&it.name)).collect()
    }

    fn names(&self) -> HashSet<String> {
        let segments = self.catalogue.segments.iter().map(|it| &it.name);
        let dead = self.catalogue.dead.iter().map(|it| &it.name);
        let fresh = self.fresh.iter().map(|(it, _)| &it.meta.name);
        segments.chain(dead).chain(fresh).chain(&self.unread).cloned().collect()
    }
}

/// What is old enough is settled: runs that were none go.
fn write(attempts: Vec<Attempt>, now: Time) -> Result<Written, HistoryError> {
    let mut attempts = join(attempts);
    attempts.retain(|it| !it.known.has(Known::MERGED) || now.since(it.started) < SETTLED);
    segment::write(&attempts).map_err(HistoryError::Unwritable)
}
