//! The logs of one process.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::log::Log;

/// Streams kept, finished ones included.
pub const MAX_LOGS: usize = 1024;
/// Bytes kept of all streams together.
pub const MAX_ALL_LOGS_BYTES: u64 = 256 << 20;

/// All live logs of one process. When there are too many, or they are too large together, the
/// oldest finished ones go first, then the oldest. Clones share them.
#[derive(Clone, Default)]
pub(super) struct LocalLogs {
    registry: Arc<Mutex<Registry>>,
    /// Bytes of all streams.
    kept: Arc<AtomicU64>,
}

#[derive(Default)]
struct Registry {
    by_name: HashMap<String, Arc<Log>>,
    order: VecDeque<String>,
}

impl LocalLogs {
    /// How many logs there are, and their bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, u64) {
        (self.registry().order.len(), self.kept.load(Ordering::Relaxed))
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream; an open one of the same name is kept.
    pub(super) fn create(&self, name: &str) {
        let mut registry = self.registry();
        if registry.by_name.contains_key(name) {
            return;
        }
        if registry.order.len() >= MAX_LOGS {
            registry.forget_one(None);
        }
        let log = Log::new(self.kept.clone());
        registry.by_name.insert(name.to_owned(), Arc::new(log));
        registry.order.push_back(name.to_owned());
    }

    /// Appends `data`, the first byte of which is at `offset` of the stream: bytes that are
    /// there already (a repeated message) are dropped. Unknown names and gaps are ignored.
    pub(super) fn append(&self, name: &str, offset: u64, data: &Bytes) {
        let Some(log) = self.find(name) else { return };
        log.append(offset, data);
        while self.kept.load(Ordering::Relaxed) > MAX_ALL_LOGS_BYTES {
            if !self.registry().forget_one(Some(name)) {
                return;
            }
        }
    }

    /// No more will come: readers see the end.
    pub(super) fn finish(&self, name: &str) {
        if let Some(log) = self.find(name) {
            log.finish();
        }
    }

    /// Size so far and whether it is finished. `None`: unknown name.
    pub(super) fn status(&self, name: &str) -> Option<(u64, bool)> {
        Some(self.find(name)?.status())
    }

    /// Lets go of a log that is not finished: its readers look for it elsewhere.
    pub(super) fn leave(&self, name: &str) {
        let mut registry = self.registry();
        let unfinished = |log: &Arc<Log>| !log.status().1;
        if registry.by_name.get(name).is_some_and(unfinished) {
            registry.order.retain(|other| other != name);
            if let Some(log) = registry.by_name.remove(name) {
                log.forget(true);
            }
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Log>> {
        self.registry().by_name.get(name).cloned()
    }
}

impl Registry {
    /// Forgets a stream other than `except`. `false`: there is none.
    fn forget_one(&mut self, except: Option<&str>) -> bool {
        let finished = |name: &String| self.by_name.get(name).is_none_or(|log| log.status().1);
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
