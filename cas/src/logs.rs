//! Output of running actions, readable while it grows (LogStream API).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::blob::BlobStream;

/// Bytes kept of one stream; what comes after is cut off with a note. The whole output is a
/// blob once the action has finished.
pub const MAX_LOG_BYTES: usize = 4 << 20;
/// Streams kept, finished ones included; the oldest go first.
pub const MAX_LOGS: usize = 1024;

const CUT_NOTE: &[u8] = b"\n[kiln: live output is cut here; the finished action has all of it]\n";

/// All live logs of one process.
#[derive(Clone, Default)]
pub struct LogStreams {
    inner: Arc<Mutex<Registry>>,
}

#[derive(Default)]
struct Registry {
    by_name: std::collections::HashMap<String, Arc<Log>>,
    order: VecDeque<String>,
}

#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Notify,
}

#[derive(Default)]
struct LogState {
    chunks: Vec<Bytes>,
    size: u64,
    cut: bool,
    finished: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStreams {
    /// Opens a stream; an open one of the same name is kept.
    pub fn create(&self, name: &str) {
        let mut registry = lock(&self.inner);
        if registry.by_name.contains_key(name) {
            return;
        }
        if registry.order.len() >= MAX_LOGS
            && let Some(oldest) = registry.order.pop_front()
            && let Some(log) = registry.by_name.remove(&oldest)
        {
            log.finish();
        }
        registry.by_name.insert(name.to_owned(), Arc::default());
        registry.order.push_back(name.to_owned());
    }

    /// Appends `data`, the first byte of which is at `offset` of the stream: bytes that are
    /// there already (a repeated message) are dropped. Unknown names and gaps are ignored.
    pub fn append(&self, name: &str, offset: u64, data: &Bytes) {
        if let Some(log) = self.find(name) {
            log.append(offset, data);
        }
    }

    /// No more will come: readers see the end.
    pub fn finish(&self, name: &str) {
        if let Some(log) = self.find(name) {
            log.finish();
        }
    }

    /// Bytes from `offset` on; waits for more until the stream is finished. `None`: unknown name.
    pub fn read(&self, name: &str, offset: u64) -> Option<BlobStream> {
        let log = self.find(name)?;
        Some(Box::pin(futures_util::stream::unfold((log, offset), |(log, offset)| async move {
            let chunk = log.next(offset).await?;
            let next = offset + chunk.len() as u64;
            Some((Ok(chunk), (log, next)))
        })))
    }

    /// Size so far and whether it is finished. `None`: unknown name.
    pub fn status(&self, name: &str) -> Option<(u64, bool)> {
        let log = self.find(name)?;
        let state = lock(&log.state);
        Some((state.size, state.finished))
    }

    fn find(&self, name: &str) -> Option<Arc<Log>> {
        lock(&self.inner).by_name.get(name).cloned()
    }
}

impl Log {
    fn append(&self, offset: u64, data: &Bytes) {
        let mut state = lock(&self.state);
        if state.finished || state.cut || offset > state.size {
            return;
        }
        let known = (state.size - offset) as usize;
        if known >= data.len() {
            return;
        }
        state.push(data.slice(known..));
        drop(state);
        self.changed.notify_waiters();
    }

    fn finish(&self) {
        lock(&self.state).finished = true;
        self.changed.notify_waiters();
    }

    async fn next(&self, offset: u64) -> Option<Bytes> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = lock(&self.state);
                if let Some(chunk) = state.chunk_at(offset) {
                    return Some(chunk);
                }
                if state.finished {
                    return None;
                }
            }
            changed.await;
        }
    }
}

impl LogState {
    fn push(&mut self, mut data: Bytes) {
        let room = MAX_LOG_BYTES.saturating_sub(self.size as usize);
        if data.len() > room {
            data.truncate(room);
            self.cut = true;
        }
        self.size += data.len() as u64;
        self.chunks.push(data);
        if self.cut {
            self.size += CUT_NOTE.len() as u64;
            self.chunks.push(Bytes::from_static(CUT_NOTE));
        }
    }

    fn chunk_at(&self, offset: u64) -> Option<Bytes> {
        let mut start = 0;
        for chunk in &self.chunks {
            let end = start + chunk.len() as u64;
            if offset < end {
                return Some(chunk.slice((offset - start) as usize..));
            }
            start = end;
        }
        None
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
        let mut reader = logs.read("a/b", 2).expect("the stream exists");
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
        let all: Vec<_> = logs.read("x", 0).unwrap().collect().await;
        let size: usize = all.iter().map(|chunk| chunk.as_ref().unwrap().len()).sum();
        assert_eq!(size, MAX_LOG_BYTES + CUT_NOTE.len());
    }
}
