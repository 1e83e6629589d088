//! Output of running actions, readable while it grows (LogStream API).
//!
//! A log is at the frontend that the worker speaks to. In a fleet, [`relay`] brings it to the
//! frontends where it is read.

mod relay;
#[cfg(test)]
mod relay_tests;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::blob::BlobStream;
use crate::error::StoreError;
use crate::redis::{Redis, RedisError};
use relay::{Following, Relay};

/// Bytes kept of one stream; what comes after is cut off with a note. The whole output is a
/// blob once the action has finished.
pub const MAX_LOG_BYTES: usize = 4 << 20;
/// Streams kept, finished ones included.
pub const MAX_LOGS: usize = 1024;
/// Bytes kept of all streams together.
pub const MAX_ALL_LOGS_BYTES: u64 = 256 << 20;
/// Bytes that are gathered in one piece.
const PIECE: usize = 64 << 10;

const CUT_NOTE: &[u8] = b"\n[kiln: live output is cut here; the finished action has all of it]\n";

/// All live logs of one process. When there are too many, or they are too large together, the
/// oldest finished ones go first, then the oldest.
#[derive(Clone, Default)]
pub struct LogStreams {
    inner: Arc<Mutex<Registry>>,
    /// Bytes of all streams.
    kept: Arc<AtomicU64>,
    /// `None`: there are no other frontends.
    relay: Option<Arc<Relay>>,
}

/// Names of the logs of one run: standard output and error.
pub type LogNames = Arc<[String; 2]>;

/// The logs of a run that a worker reports to this frontend. What is not finished when this is
/// dropped goes on at another frontend, or ends.
pub struct OpenLogs {
    logs: LogStreams,
    names: LogNames,
}

#[derive(Default)]
struct Registry {
    by_name: HashMap<String, Arc<Log>>,
    order: VecDeque<String>,
}

struct Log {
    state: Mutex<LogState>,
    changed: Notify,
    /// Of all streams.
    kept: Arc<AtomicU64>,
}

#[derive(Default)]
struct LogState {
    /// All but the last of [`PIECE`] bytes.
    pieces: Vec<Vec<u8>>,
    size: u64,
    cut: bool,
    finished: bool,
    /// It goes on at another frontend, if anywhere.
    moved: bool,
}

enum Next {
    Chunk(Bytes),
    End,
    Moved,
}

/// Where a reader reads.
enum Source {
    Here(Arc<Log>),
    There(Box<Following>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStreams {
    /// Logs that are read at all frontends that share `redis`. Call within a tokio runtime: a
    /// task lives there as long as these.
    pub async fn join(redis: Redis) -> Result<Self, RedisError> {
        let mut logs = Self::default();
        logs.relay = Some(Relay::start(redis, &logs).await?);
        Ok(logs)
    }

    /// Opens the logs of a run.
    pub fn open(&self, names: LogNames) -> OpenLogs {
        names.iter().for_each(|name| self.create(name));
        OpenLogs { logs: self.clone(), names }
    }

    /// Opens a stream; an open one of the same name is kept.
    pub fn create(&self, name: &str) {
        let mut registry = lock(&self.inner);
        if registry.by_name.contains_key(name) {
            return;
        }
        if registry.order.len() >= MAX_LOGS {
            registry.forget_one(None);
        }
        let log =
            Log { state: Mutex::default(), changed: Notify::default(), kept: self.kept.clone() };
        registry.by_name.insert(name.to_owned(), Arc::new(log));
        registry.order.push_back(name.to_owned());
    }

    /// Appends `data`, the first byte of which is at `offset` of the stream: bytes that are
    /// there already (a repeated message) are dropped. Unknown names and gaps are ignored.
    pub fn append(&self, name: &str, offset: u64, data: &Bytes) {
        let Some(log) = self.find(name) else { return };
        log.append(offset, data);
        while self.kept.load(Ordering::Relaxed) > MAX_ALL_LOGS_BYTES {
            if !lock(&self.inner).forget_one(Some(name)) {
                return;
            }
        }
    }

    /// No more will come: readers see the end.
    pub fn finish(&self, name: &str) {
        if let Some(log) = self.find(name) {
            log.finish();
        }
    }

    /// Bytes from `offset` on; waits for more until the stream is finished. `None`: unknown
    /// name. Errors: `Unavailable`, when other frontends cannot be asked.
    pub async fn read(&self, name: &str, offset: u64) -> Result<Option<BlobStream>, StoreError> {
        let source = match (self.find(name), &self.relay) {
            (Some(log), _) => Source::Here(log),
            (None, None) => return Ok(None),
            (None, Some(relay)) => match relay.follow(name, offset).await? {
                Some(following) => Source::There(Box::new(following)),
                None => return Ok(None),
            },
        };
        let reader = Reader { source, offset, name: name.to_owned(), relay: self.relay.clone() };
        Ok(Some(Box::pin(futures_util::stream::try_unfold(reader, Reader::next))))
    }

    /// Size so far and whether it is finished. `None`: unknown name.
    pub fn status(&self, name: &str) -> Option<(u64, bool)> {
        let log = self.find(name)?;
        let state = lock(&log.state);
        Some((state.size, state.finished))
    }

    /// Lets go of a log that is not finished: its readers look for it elsewhere.
    fn leave(&self, name: &str) {
        let mut registry = lock(&self.inner);
        let unfinished = |log: &Arc<Log>| !lock(&log.state).finished;
        if registry.by_name.get(name).is_some_and(unfinished) {
            registry.order.retain(|other| other != name);
            if let Some(log) = registry.by_name.remove(name) {
                log.forget(true);
            }
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Log>> {
        lock(&self.inner).by_name.get(name).cloned()
    }
}

impl OpenLogs {
    /// Bytes of standard output, or error, from `offset` on.
    pub fn append(&self, stderr: bool, offset: u64, data: &Bytes) {
        self.logs.append(&self.names[usize::from(stderr)], offset, data);
    }

    /// No more will come.
    pub fn finish(&self) {
        self.names.iter().for_each(|name| self.logs.finish(name));
    }
}

impl Drop for OpenLogs {
    fn drop(&mut self) {
        self.names.iter().for_each(|name| self.logs.leave(name));
    }
}

struct Reader {
    source: Source,
    offset: u64,
    name: String,
    relay: Option<Arc<Relay>>,
}

impl Reader {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        loop {
            let chunk = match &mut self.source {
                Source::There(following) => following.next().await?,
                Source::Here(log) => match log.next(self.offset).await {
                    Next::Chunk(chunk) => Some(chunk),
                    Next::End => None,
                    Next::Moved => {
                        let Some(relay) = &self.relay else { return Ok(None) };
                        let following = relay.ask(&self.name, self.offset).await?;
                        self.source = Source::There(Box::new(following));
                        continue;
                    }
                },
            };
            let Some(chunk) = chunk else { return Ok(None) };
            self.offset += chunk.len() as u64;
            return Ok(Some((chunk, self)));
        }
    }
}

impl Registry {
    /// Forgets a stream other than `except`. `false`: there is none.
    fn forget_one(&mut self, except: Option<&str>) -> bool {
        let finished =
            |name: &String| self.by_name.get(name).is_none_or(|log| lock(&log.state).finished);
        let others =
            || self.order.iter().enumerate().filter(|(_, name)| Some(name.as_str()) != except);
        let chosen = others().find(|(_, name)| finished(name)).or_else(|| others().next());
        let Some(name) = chosen.map(|(at, _)| at).and_then(|at| self.order.remove(at)) else {
            return false;
        };
        if let Some(log) = self.by_name.remove(&name) {
            log.forget(false);
        }
        true
    }
}

impl Log {
    fn append(&self, offset: u64, data: &Bytes) {
        let mut state = lock(&self.state);
        if state.finished || state.moved || state.cut || offset > state.size {
            return;
        }
        let known = (state.size - offset) as usize;
        if known >= data.len() {
            return;
        }
        let before = state.size;
        state.push(&data[known..]);
        self.kept.fetch_add(state.size - before, Ordering::Relaxed);
        drop(state);
        self.changed.notify_waiters();
    }

    fn finish(&self) {
        lock(&self.state).finished = true;
        self.changed.notify_waiters();
    }

    /// Lets go of the bytes as well: readers see the end, or look elsewhere.
    fn forget(&self, moved: bool) {
        let mut state = lock(&self.state);
        let gone = LogState { finished: !moved, moved, ..Default::default() };
        let LogState { size, .. } = std::mem::replace(&mut *state, gone);
        self.kept.fetch_sub(size, Ordering::Relaxed);
        drop(state);
        self.changed.notify_waiters();
    }

    async fn next(&self, offset: u64) -> Next {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = lock(&self.state);
                if state.moved {
                    return Next::Moved;
                }
                if let Some(chunk) = state.chunk_at(offset) {
                    return Next::Chunk(chunk);
                }
                if state.finished {
                    return Next::End;
                }
            }
            changed.await;
        }
    }
}

impl LogState {
    fn push(&mut self, data: &[u8]) {
        let room = MAX_LOG_BYTES.saturating_sub(self.size as usize);
        self.gather(&data[..data.len().min(room)]);
        if data.len() > room {
            self.cut = true;
            self.gather(CUT_NOTE);
        }
    }

    /// Copies: a slice would keep all of the message alive that it came in.
    fn gather(&mut self, mut data: &[u8]) {
        self.size += data.len() as u64;
        while !data.is_empty() {
            if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
                self.pieces.push(Vec::new());
            }
            let Some(piece) = self.pieces.last_mut() else { return };
            let (now, later) = data.split_at(data.len().min(PIECE - piece.len()));
            piece.extend_from_slice(now);
            data = later;
        }
    }

    fn chunk_at(&self, offset: u64) -> Option<Bytes> {
        if offset >= self.size {
            return None;
        }
        let (piece, within) = (offset as usize / PIECE, offset as usize % PIECE);
        self.pieces.get(piece).map(|piece| Bytes::copy_from_slice(&piece[within..]))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_reader_sees_what_comes_later_and_then_the_end() {
        let logs = LogStreams::default();
        logs.create("a/b");
        logs.append("a/b", 0, &Bytes::from_static(b"one "));
        let mut reader = logs.read("a/b", 2).await.unwrap().expect("the stream exists");
        assert_eq!(reader.next().await.unwrap().unwrap(), "e ");
        logs.append("a/b", 0, &Bytes::from_static(b"one two"));
        logs.finish("a/b");
        assert_eq!(reader.next().await.unwrap().unwrap(), "two");
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn output_beyond_the_limit_is_cut_with_a_note() {
        let logs = LogStreams::default();
        logs.create("x");
        logs.append("x", 0, &Bytes::from(vec![b'.'; MAX_LOG_BYTES + 1]));
        logs.finish("x");
        let all: Vec<_> = logs.read("x", 0).await.unwrap().unwrap().collect().await;
        let size: usize = all.iter().map(|chunk| chunk.as_ref().unwrap().len()).sum();
        assert_eq!(size, MAX_LOG_BYTES + CUT_NOTE.len());
    }

    #[tokio::test]
    async fn all_logs_together_stay_within_their_budget_and_finished_ones_go_first() {
        let logs = LogStreams::default();
        let full = Bytes::from(vec![b'.'; MAX_LOG_BYTES]);
        let fit = (MAX_ALL_LOGS_BYTES / MAX_LOG_BYTES as u64) as usize;
        logs.create("running");
        logs.append("running", 0, &Bytes::from_static(b"live"));
        for number in 0..2 * fit {
            let name = number.to_string();
            logs.create(&name);
            logs.append(&name, 0, &full);
            logs.finish(&name);
            assert!(logs.kept.load(Ordering::Relaxed) <= MAX_ALL_LOGS_BYTES);
        }
        assert_eq!(logs.status("running"), Some((4, false)), "it is the oldest, and runs");
        assert!(logs.status("0").is_none());
        assert!(logs.status(&(2 * fit - 1).to_string()).is_some());
        // With too many streams a running one is spared as well.
        for number in 0..MAX_LOGS {
            let name = format!("n{number}");
            logs.create(&name);
            logs.finish(&name);
        }
        assert_eq!(logs.status("running"), Some((4, false)));
        assert!(lock(&logs.inner).order.len() <= MAX_LOGS);
    }

    #[tokio::test]
    async fn many_small_messages_take_the_room_of_their_bytes() {
        let logs = LogStreams::default();
        logs.create("x");
        let message = Bytes::from(vec![b'y'; 1 << 20]);
        for offset in 0..200_000 {
            logs.append("x", offset, &message.slice(..1));
        }
        logs.finish("x");
        drop(message.try_into_mut().expect("the log holds on to no message"));
        let chunks: Vec<_> =
            logs.read("x", 7).await.unwrap().unwrap().map(Result::unwrap).collect().await;
        assert!(chunks.len() <= 200_000 / PIECE + 1);
        assert_eq!(chunks.concat(), vec![b'y'; 200_000 - 7]);
    }
}
