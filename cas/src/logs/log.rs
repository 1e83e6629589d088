//! One log: output of a run as it grows, for any number of readers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes kept of one stream; what comes after is cut off with a note. The whole output is a
/// blob once the action has finished.
pub const MAX_LOG_BYTES: usize = 4 << 20;
/// Bytes that are gathered in one piece.
pub(super) const PIECE: usize = 64 << 10;

pub(super) const CUT_NOTE: &[u8] =
    b"\n[kiln: live output is cut here; the finished action has all of it]\n";

pub(super) struct Log {
    state: Mutex<LogState>,
    changed: Notify,
    /// Bytes of all streams.
    kept: Arc<AtomicU64>,
}

#[derive(Default)]
struct LogState {
    /// The bytes, in pieces of [`PIECE`] bytes but for the last.
    pieces: Vec<Vec<u8>>,
    size: u64,
    cut: bool,
    finished: bool,
    /// The rest of the log, if there is any, is at another frontend.
    moved: bool,
}

/// What a reader gets next.
pub(super) enum Next {
    Chunk(Bytes),
    End,
    /// The rest of the log, if there is any, is at another frontend.
    Moved,
}

impl Log {
    /// `kept` counts the bytes of all streams.
    pub(super) fn new(kept: Arc<AtomicU64>) -> Self {
        Self { state: Mutex::default(), changed: Notify::default(), kept }
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size so far, and whether it is finished.
    pub(super) fn status(&self) -> (u64, bool) {
        let state = self.state();
        (state.size, state.finished)
    }

    /// Appends what is not there yet of `data`, the first byte of which is at `offset`.
    pub(super) fn append(&self, offset: u64, data: &Bytes) {
        let mut state = self.state();
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

    /// No more will come: readers see the end.
    pub(super) fn finish(&self) {
        self.state().finished = true;
        self.changed.notify_waiters();
    }

    /// Drops the bytes. Readers then see the end, or, where the log has `moved`, [`Next::Moved`].
    pub(super) fn forget(&self, moved: bool) {
        let mut state = self.state();
        let gone = LogState { finished: !moved, moved, ..Default::default() };
        let LogState { size, .. } = std::mem::replace(&mut *state, gone);
        self.kept.fetch_sub(size, Ordering::Relaxed);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The bytes from `offset` on; waits for them.
    pub(super) async fn next(&self, offset: u64) -> Next {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state();
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
