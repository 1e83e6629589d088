//! The task that records executions.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use kiln_cas::SharedBlobStore;
use kiln_cas::events::EVENT_BUFFER;
use kiln_cas::records::{Expect, Record, RecordsError, SharedRecords, Write};
use kiln_net::Backoff;
use kiln_net::clock::until;
use kiln_protos::events::Execution;
use lru::LruCache;
use prost::Message as _;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::batch::{Batch, put};
use super::clock::{Clock, day};
use super::figures::{Counters, count};
use super::kept::{How, Seen, add, seen};
use super::keys::{self, RecordId};
use super::store::Encoder;
use super::trees::files_of;

/// Records that are known to be there.
const MAX_RECENT: NonZeroUsize = NonZeroUsize::new(100_000).expect("it is not 0");
/// Results that wait to be written, and their bytes; what comes beyond them is given up, and counted.
pub(super) const MAX_PENDING: usize = 20_000;
const MAX_PENDING_BYTES: usize = 64 << 20;
/// Results that are written together, where they are small.
const BATCH: usize = 1_000;
/// A batch is written at the latest so long after the first execution in it was taken in ...
const DELAY: Duration = Duration::from_millis(230);
/// ... which is so long after its end at most. Being woken for each event costs those who publish.
const GATHER: Duration = Duration::from_millis(20);
/// After a write that failed. All frontends fail at the same moment, and what comes meanwhile has to find room.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(10));
/// Tries while somebody waits for it: before a release is made, and at the end.
const TRIES: u32 = 3;
/// Directories that are read at once, and results of nobody known that are written at once.
const AT_ONCE: usize = 16;

pub enum Command {
    Flush(oneshot::Sender<()>),
    Shutdown(oneshot::Sender<()>),
}

pub struct Writer {
    pub records: SharedRecords,
    pub blobs: SharedBlobStore,
    pub events: Receiver<Arc<Execution>>,
    pub commands: mpsc::Receiver<Command>,
    pub counters: Arc<Counters>,
    pub clock: Clock,
    recent: LruCache<RecordId, u32>,
    pending: Vec<Seen>,
    pending_bytes: usize,
    due: Option<Instant>,
    /// Writes that failed since one went well.
    failures: u32,
    /// Given up since this was last written down.
    unnamed: u64,
}

/// What is to be written of a result.
enum Known {
    /// Its record is there, and used today.
    Today,
    /// It is there, and was used some day.
    Before,
    Not,
}

impl Writer {
    pub fn new(
        (records, blobs): (SharedRecords, SharedBlobStore),
        events: Receiver<Arc<Execution>>,
        commands: mpsc::Receiver<Command>,
        counters: Arc<Counters>,
        clock: Clock,
    ) -> Self {
        Self {
            records,
            blobs,
            events,
            commands,
            counters,
            clock,
            recent: LruCache::new(MAX_RECENT),
            pending: Vec::new(),
            pending_bytes: 0,
            due: None,
            failures: 0,
            unnamed: 0,
        }
    }

    pub async fn run(mut self) {
        let mut gathering = None;
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush(done)) => {
                        self.drain().await;
                        // Nobody may wait any more.
                        done.send(()).ok();
                    }
                    Some(Command::Shutdown(done)) => {
                        self.end().await;
                        done.send(()).ok();
                        return;
                    }
                    None => return self.end().await,
                },
                () = until(due) => {
                    self.write().await;
                }
                () = until(gathering), if gathering.is_some() => gathering = None,
                event = self.events.recv(), if gathering.is_none() => {
                    match event {
                        Ok(event) => self.take(&event),
                        Err(RecvError::Lagged(lost)) => self.lose(lost),
                        Err(RecvError::Closed) => return self.answer_commands().await,
                    }
                    self.take_published();
                    gathering = Some(Instant::now() + GATHER);
                },
            }
        }
    }

    /// Nothing more will be published.
    async fn answer_commands(mut self) {
        self.end().await;
        while let Some(Command::Flush(done) | Command::Shutdown(done)) = self.commands.recv().await
        {
            done.send(()).ok();
        }
    }

    fn take_published(&mut self) {
        for _ in 0..EVENT_BUFFER {
            match self.events.try_recv() {
                Ok(event) => self.take(&event),
                Err(TryRecvError::Lagged(lost)) => self.lose(lost),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn take(&mut self, event: &Execution) {
        let today = day((self.clock)());
        let is_known = |id: RecordId| self.recent.peek(&id) == Some(&today);
        let Some(seen) = seen(event, is_known) else { return };
        let bytes = seen.kept.encoded_len();
        let is_full = self.pending.len() >= MAX_PENDING
            || self.pending_bytes.saturating_add(bytes) > MAX_PENDING_BYTES;
        if is_full {
            count(&self.counters.dropped, 1);
            self.unnamed += 1;
            return;
        }
        self.pending_bytes += bytes;
        self.pending.push(seen);
        self.due.get_or_insert_with(|| Instant::now() + DELAY);
    }

    fn lose(&mut self, events: u64) {
        count(&self.counters.lost_events, events);
        self.unnamed += events;
    }

    /// Writes all that happened so far, or tries to.
    async fn drain(&mut self) -> bool {
        self.take_published();
        for _ in 1..TRIES {
            if self.write().await {
                return true;
            }
            // Somebody waits: that it failed before makes it no longer.
            tokio::time::sleep(AGAIN.pause(1)).await;
        }
        self.write().await
    }

    async fn end(&mut self) {
        if self.drain().await && self.pending.is_empty() {
            return;
        }
        let given_up = self.pending.len() as u64;
        count(&self.counters.dropped, given_up);
        tracing::error!(given_up, "executions could not be recorded");
        self.pending.clear();
    }

    /// Writes what is pending; `false`: it could not be written, and is tried again.
    async fn write(&mut self) -> bool {
        self.due = None;
        for _ in 0..MAX_PENDING {
            if self.pending.is_empty() {
                break;
            }
            if let Err(error) = self.write_some().await {
                count(&self.counters.failed_writes, 1);
                self.failures = self.failures.saturating_add(1);
                let again_in = AGAIN.pause(self.failures);
                let error = kiln_net::causes::chain(&error);
                tracing::warn!(error, ?again_in, "executions cannot be recorded for now");
                self.due = Some(Instant::now() + again_in);
                return false;
            }
            self.failures = 0;
        }
        // What comes meanwhile is written with the next.
        if !self.pending.is_empty() {
            self.due = Some(Instant::now() + DELAY);
        }
        true
    }

    async fn write_some(&mut self) -> Result<(), RecordsError> {
        let now = (self.clock)();
        let today = day(now);
        let length = self.batch();
        let known = self.known(length, today).await?;
        self.read_trees(&known).await;
        let mut batch = Batch::default();
        let (mut written, mut touched, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
        for (seen, known) in self.pending.iter().take(length).zip(&known) {
            match (known, seen.how) {
                (Known::Today, _) => {}
                (Known::Before, _) => {
                    batch.touch(seen.id, today);
                    touched.push(seen);
                }
                (Known::Not, How::Hit) => written.push(seen),
                (Known::Not, How::Ran | How::Merged) => batch.record(seen.id, &seen.kept, today),
            }
            if !matches!(known, Known::Today) {
                recorded.push(seen.id);
            }
            batch.used(seen.id, seen.how, &seen.kept);
        }
        self.write_foreign(&written, &mut batch, today).await?;
        let part = format!("{now:016x}-{:08x}", fastrand::u32(..));
        for writes in batch.finish(today, &part) {
            self.records.write(writes).await?;
        }
        self.write_gone(&touched, today, &part).await?;
        count(&self.counters.recorded, recorded.len() as u64);
        count(&self.counters.known, (length - recorded.len()) as u64);
        for id in recorded {
            self.recent.put(id, today);
        }
        let written = self.pending.drain(..length).map(|it| it.kept.encoded_len()).sum();
        // Files of directories were added since.
        self.pending_bytes =
            if self.pending.is_empty() { 0 } else { self.pending_bytes.saturating_sub(written) };
        self.name_losses(now, &part).await
    }

    /// How many of those that are pending are written together. What is in directories is read for each batch anew.
    fn batch(&self) -> usize {
        let mut weight = 0;
        let fits = |seen: &&Seen| {
            weight += seen.weight();
            weight <= BATCH
        };
        self.pending.iter().take_while(fits).count().max(1)
    }

    /// What is known of each of the first of those that are pending. Of several with the same result one is new: the
    /// one that says how it was made, if there is one.
    async fn known(&mut self, length: usize, today: u32) -> Result<Vec<Known>, RecordsError> {
        let mut order: Vec<_> = self.pending.iter().take(length).enumerate().collect();
        order.sort_by_key(|(_, seen)| seen.how);
        let mut new = std::collections::HashSet::new();
        let (mut asked, mut keys) = (Vec::new(), Vec::new());
        let mut known: Vec<_> = (0..length).map(|_| Known::Today).collect();
        for (index, seen) in order {
            let is_recent = self.recent.get(&seen.id).is_some_and(|day| *day == today);
            let is_known = seen.is_known || is_recent && seen.how != How::Ran;
            if !new.insert(seen.id) || is_known {
                continue;
            }
            if let Some(known) = known.get_mut(index) {
                *known = Known::Not;
            }
            if seen.how != How::Ran {
                asked.push(index);
                keys.push(keys::touched(seen.id));
            }
        }
        for (index, found) in asked.into_iter().zip(self.get_each(&keys).await?) {
            let used =
                found.and_then(|it| std::str::from_utf8(&it.value).ok()?.parse::<u32>().ok());
            if let (Some(used), Some(known)) = (used, known.get_mut(index)) {
                *known = if used >= today { Known::Today } else { Known::Before };
            }
        }
        Ok(known)
    }

    /// Many batches ask for nothing, and need not go to the store for it.
    async fn get_each(&self, keys: &[String]) -> Result<Vec<Option<Record>>, RecordsError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.records.get_each(keys).await
    }

    /// What is in the directories that new executions left. One that is not there, or too large, is not looked into.
    async fn read_trees(&mut self, known: &[Known]) {
        let blobs = &self.blobs;
        let new = self.pending.iter_mut().zip(known).filter(|(_, it)| matches!(it, Known::Not));
        let read = new.map(|(seen, _)| async move {
            for tree in std::mem::take(&mut seen.trees) {
                let files = files_of(blobs, &tree).await;
                add(&mut seen.kept, files.into_iter());
            }
        });
        let futures: Vec<_> = read.collect();
        stream::iter(futures).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    /// Results that nobody ran here, as far as is known: a record of an execution, if there is one after all, is
    /// left alone. What leads to them is written in any case: the record may be from a try of which the rest failed.
    async fn write_foreign(
        &self,
        written: &[&Seen],
        batch: &mut Batch,
        today: u32,
    ) -> Result<(), RecordsError> {
        let records = &self.records;
        let mut encoder = Encoder::default();
        let new = |seen: &&Seen| {
            let (key, value) = (keys::record(seen.id), Some(encoder.encode(&seen.kept)));
            Write { key, expect: Expect::Absent, value }
        };
        let put_new = |write: Write| async move {
            match records.write(vec![write]).await {
                Ok(_) | Err(RecordsError::Conflict { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        };
        let puts: Vec<_> = written.iter().map(new).map(put_new).collect();
        let puts: Vec<_> = stream::iter(puts).buffer_unordered(AT_ONCE).collect().await;
        puts.into_iter().collect::<Result<(), RecordsError>>()?;
        for seen in written {
            batch.lead_to(seen.id, &seen.kept, today);
        }
        Ok(())
    }

    /// Records that were removed for their age while it was written that they are used. From then on nobody removes them.
    async fn write_gone(
        &self,
        touched: &[&Seen],
        today: u32,
        part: &str,
    ) -> Result<(), RecordsError> {
        let keys: Vec<_> = touched.iter().map(|it| keys::record(it.id)).collect();
        let found = self.get_each(&keys).await?;
        let gone = touched.iter().zip(found).filter(|(_, it)| it.is_none());
        let gone: Vec<_> = gone.map(|(seen, _)| *seen).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        self.write_foreign(&gone, &mut batch, today).await?;
        for writes in batch.finish(today, &format!("{part}-again")) {
            self.records.write(writes).await?;
        }
        Ok(())
    }

    /// So that whoever asks later where something came from hears that not everything is known.
    async fn name_losses(&mut self, now: i64, part: &str) -> Result<(), RecordsError> {
        if self.unnamed > 0 {
            let lost = self.unnamed;
            tracing::warn!(lost, "executions came faster than they could be recorded");
            let loss = put(keys::lost(now, part), self.unnamed.to_string().into_bytes());
            self.records.write(vec![loss]).await?;
            self.unnamed = 0;
        }
        Ok(())
    }
}
