//! Records in an embedded database. One thread writes: it takes all batches that wait and
//! makes them durable together.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::{successor, validate};
use crate::error::Reason;
use crate::records::{Expect, Record, Records, RecordsError, Version, Write};

const ROWS: TableDefinition<'static, &str, (Version, &[u8])> = TableDefinition::new("records");
/// The version last given, under [`LAST_VERSION`]: versions grow over all keys, so that a key
/// that is deleted and made again cannot get an old one.
const COUNTERS: TableDefinition<'static, &str, u64> = TableDefinition::new("counters");
const LAST_VERSION: &str = "last_version";
/// Bytes of the database's own cache.
const CACHE: usize = 16 << 20;
/// Batches that wait for the writer; more wait outside.
const QUEUE: usize = 256;
/// Batches that share one commit.
const GROUP: usize = 64;

pub struct DiskRecords {
    path: PathBuf,
    /// Held exclusively by compaction alone.
    database: Arc<RwLock<Database>>,
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    queue: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

struct Job {
    writes: Vec<Write>,
    reply: oneshot::Sender<Result<Vec<Version>, RecordsError>>,
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> RecordsError {
    RecordsError::Unavailable(Reason::of(error))
}

fn database_error(error: impl Into<redb::Error>) -> RecordsError {
    match error.into() {
        error @ redb::Error::Corrupted(_) => RecordsError::Corrupt(Reason::of(error)),
        // So says the database of a file that does not begin as one.
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            RecordsError::Corrupt(Reason::of(error))
        }
        error => unavailable(error),
    }
}

fn closed() -> RecordsError {
    RecordsError::Unavailable("the records are closed".into())
}

impl DiskRecords {
    /// Opens or creates the database file. Blocks.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        let context = |error: RecordsError| match error {
            RecordsError::Unavailable(reason) => {
                let message = format!("{}: {reason}", path.display());
                RecordsError::Unavailable(Reason::caused(message, reason))
            }
            RecordsError::Corrupt(reason) => {
                let hint = "move it away to go on without it";
                let message = format!("{}: {reason}; {hint}", path.display());
                RecordsError::Corrupt(Reason::caused(message, reason))
            }
            other => other,
        };
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(path)
            .map_err(|error| context(database_error(error)))?;
        create_tables(&database).map_err(context)?;
        let database = Arc::new(RwLock::new(database));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let for_writer = database.clone();
        let thread = std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || write_groups(&for_writer, jobs))
            .map_err(unavailable)?;
        Ok(Self {
            path: path.to_owned(),
            database,
            writer: Mutex::new(Some(Writer { queue, thread })),
        })
    }

    /// Waits for writes in progress; later ones fail.
    pub async fn close(&self) -> Result<(), RecordsError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Writer { queue, thread }) = writer else { return Ok(()) };
        drop(queue);
        let joined = tokio::task::spawn_blocking(move || thread.join());
        match joined.await.map_err(unavailable)? {
            Ok(()) => Ok(()),
            Err(_) => Err(RecordsError::Unavailable("the writer stopped unexpectedly".into())),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, RecordsError> + Send + 'static,
    ) -> Result<T, RecordsError> {
        let database = self.database.clone();
        let work = move || work(&database.read().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.map_err(unavailable)?
    }
}

fn create_tables(database: &Database) -> Result<(), RecordsError> {
    let transaction = database.begin_write().map_err(database_error)?;
    transaction.open_table(ROWS).map_err(database_error)?;
    transaction.open_table(COUNTERS).map_err(database_error)?;
    transaction.commit().map_err(database_error)
}

/// A file of this many bytes is not worth the work.
const SMALL_FILE: u64 = 128 << 10;

/// Makes the file smaller where less than half of it is in use.
fn compact(path: &Path, database: &mut Database) -> Result<(), RecordsError> {
    let transaction = database.begin_write().map_err(database_error)?;
    let stats = transaction.stats().map_err(database_error)?;
    transaction.abort().map_err(database_error)?;
    let used = stats.allocated_pages() * stats.page_size() as u64;
    let size = std::fs::metadata(path).map_err(unavailable)?.len();
    if size <= SMALL_FILE || used > size / 2 {
        return Ok(());
    }
    database.compact().map(drop).map_err(unavailable)
}

fn write_groups(database: &RwLock<Database>, mut jobs: mpsc::Receiver<Job>) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        let (writes, replies): (Vec<_>, Vec<_>) =
            group.drain(..).map(|job| (job.writes, job.reply)).unzip();
        let database = database.read().unwrap_or_else(PoisonError::into_inner);
        let results = match commit(&database, writes) {
            Ok(results) => results,
            Err(error) => vec![Err(error); replies.len()],
        };
        for (reply, result) in replies.into_iter().zip(results) {
            // A caller that is gone does not want the answer.
            let _ = reply.send(result);
        }
    }
}

type Outcome = Result<Vec<Version>, RecordsError>;

/// Applies batches in order, each whole or not at all, and commits what was applied. An error
/// of the database undoes all of them.
fn commit(database: &Database, batches: Vec<Vec<Write>>) -> Result<Vec<Outcome>, RecordsError> {
    let transaction = database.begin_write().map_err(database_error)?;
    let mut outcomes = Vec::with_capacity(batches.len());
    {
        let mut rows = transaction.open_table(ROWS).map_err(database_error)?;
        let mut counters = transaction.open_table(COUNTERS).map_err(database_error)?;
        let last = counters.get(LAST_VERSION).map_err(database_error)?;
        let mut last = last.map_or(0, |value| value.value());
        for batch in batches {
            outcomes.push(match first_conflict(&rows, &batch)? {
                Some(key) => Err(RecordsError::Conflict { key }),
                None => Ok(apply(&mut rows, batch, &mut last)?),
            });
        }
        counters.insert(LAST_VERSION, last).map_err(database_error)?;
    }
    transaction.commit().map_err(database_error)?;
    Ok(outcomes)
}

type Rows<'txn> = Table<'txn, &'static str, (Version, &'static [u8])>;
type RowsToRead = ReadOnlyTable<&'static str, (Version, &'static [u8])>;

fn first_conflict(rows: &Rows<'_>, batch: &[Write]) -> Result<Option<String>, RecordsError> {
    let guarded = |it: &&Write| !matches!(it.expect, Expect::Anything);
    for write in batch.iter().filter(guarded) {
        let row = rows.get(write.key.as_str()).map_err(database_error)?;
        let version = row.map(|row| row.value().0);
        let met = match write.expect {
            Expect::Absent => version.is_none(),
            Expect::Version(expected) => version == Some(expected),
            Expect::Anything => true,
        };
        if !met {
            return Ok(Some(write.key.clone()));
        }
    }
    Ok(None)
}

fn apply(
    rows: &mut Rows<'_>,
    batch: Vec<Write>,
    last: &mut Version,
) -> Result<Vec<Version>, RecordsError> {
    let mut versions = Vec::with_capacity(batch.len());
    for Write { key, value, .. } in batch {
        let Some(value) = value else {
            rows.remove(key.as_str()).map_err(database_error)?;
            versions.push(0);
            continue;
        };
        *last += 1;
        rows.insert(key.as_str(), (*last, &value[..])).map_err(database_error)?;
        versions.push(*last);
    }
    Ok(versions)
}

fn record(key: &str, (version, value): (Version, &[u8])) -> Record {
    Record { key: key.to_owned(), version, value: Bytes::copy_from_slice(value) }
}

#[async_trait]
impl Records for DiskRecords {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        let key = key.to_owned();
        self.read(move |database| {
            let transaction = database.begin_read().map_err(database_error)?;
            let rows = transaction.open_table(ROWS).map_err(database_error)?;
            let row = rows.get(key.as_str()).map_err(database_error)?;
            Ok(row.map(|row| record(&key, row.value())))
        })
        .await
    }

    /// In one go: each read by itself would change threads.
    async fn get_each(&self, keys: &[String]) -> Result<Vec<Option<Record>>, RecordsError> {
        let keys = keys.to_vec();
        self.read(move |database| {
            let transaction = database.begin_read().map_err(database_error)?;
            let rows = transaction.open_table(ROWS).map_err(database_error)?;
            let get = |key: &String| {
                let row = rows.get(key.as_str()).map_err(database_error)?;
                Ok::<_, RecordsError>(row.map(|row| record(key, row.value())))
            };
            keys.iter().map(get).collect()
        })
        .await
    }

    /// In one go and one transaction: to begin one takes nearly as long as to find a few records.
    async fn list_each(
        &self,
        prefixes: &[String],
        limit: usize,
    ) -> Result<Vec<Vec<Record>>, RecordsError> {
        let prefixes = prefixes.to_vec();
        self.read(move |database| {
            let transaction = database.begin_read().map_err(database_error)?;
            let rows = transaction.open_table(ROWS).map_err(database_error)?;
            prefixes.iter().map(|it| list(&rows, it, None, false, limit)).collect()
        })
        .await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        validate(&writes)?;
        let queue = {
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.as_ref().ok_or_else(closed)?.queue.clone()
        };
        let (reply, answer) = oneshot::channel();
        queue.send(Job { writes, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn compact(&self) -> Result<(), RecordsError> {
        let (path, database) = (self.path.clone(), self.database.clone());
        let work =
            move || compact(&path, &mut database.write().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.map_err(unavailable)?
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.read(move |database| {
            let transaction = database.begin_read().map_err(database_error)?;
            let rows = transaction.open_table(ROWS).map_err(database_error)?;
            list(&rows, &prefix, after.as_deref(), reverse, limit)
        })
        .await
    }
}

fn list(
    rows: &RowsToRead,
    prefix: &str,
    after: Option<&str>,
    reverse: bool,
    limit: usize,
) -> Result<Vec<Record>, RecordsError> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let end = successor(prefix);
    let mut from = Included(prefix);
    let mut to = end.as_deref().map_or(Unbounded, Excluded);
    match after {
        Some(after) if reverse && after <= prefix => return Ok(Vec::new()),
        Some(after) if reverse && end.as_deref().is_none_or(|end| after < end) => {
            to = Excluded(after);
        }
        Some(after) if !reverse && end.as_deref().is_some_and(|end| after >= end) => {
            return Ok(Vec::new());
        }
        Some(after) if !reverse && after >= prefix => from = Excluded(after),
        _ => {}
    }
    let range = rows.range::<&str>((from, to)).map_err(database_error)?;
    let read = |row: Result<(redb::AccessGuard<'_, &'static str>, _), redb::StorageError>| {
        let (key, value): (_, redb::AccessGuard<'_, (Version, &'static [u8])>) =
            row.map_err(database_error)?;
        Ok(record(key.value(), value.value()))
    };
    if reverse {
        range.rev().take(limit).map(read).collect()
    } else {
        range.take(limit).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_something_else_is_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.redb");
        std::fs::write(&path, [7; 5000]).unwrap();
        let Err(error) = DiskRecords::open(&path) else { panic!("it was opened") };
        assert!(matches!(error, RecordsError::Corrupt(_)), "{error}");
        assert!(error.to_string().contains("move it away"), "{error}");
    }
}
