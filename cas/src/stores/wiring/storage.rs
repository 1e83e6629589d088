//! All storage of a process: blobs, action results, records and pins.

use std::sync::{Arc, Mutex, PoisonError};

use super::stats::StorageStats;
use crate::action_cache::SharedActionCache;
use crate::blob::SharedBlobStore;
use crate::error::StoreError;
use crate::pins::Pins;
use crate::promises::Invocations;
use crate::records::SharedRecords;
use crate::redis::Redis;
use crate::stores::actions::DiskActionCache;
use crate::stores::directory::DirectoryLock;
use crate::stores::disk::{DiskBlobStore, Premises};
use crate::stores::indexed::Indexed;
use crate::stores::records::DiskRecords;

/// All storage of a process. Clones share it.
#[derive(Clone)]
pub struct Storage {
    pub blobs: SharedBlobStore,
    /// Hits are complete: every blob that they name is present and promised.
    pub actions: SharedActionCache,
    pub records: SharedRecords,
    /// Blobs that stay until somebody lets go of them.
    pub pins: Pins,
    pub stats: Arc<StorageStats>,
    /// The invocations that promises of the blobs are attributed to.
    pub invocations: Invocations,
    /// What the fleet shares besides.
    pub redis: Option<Redis>,
    pub(super) opened: Arc<Opened>,
}

/// The parts that closing needs.
pub(super) struct Opened {
    pub(super) disk: DiskBlobStore,
    pub(super) actions: Option<Arc<DiskActionCache>>,
    pub(super) indexed: Option<Indexed>,
    pub(super) records: Option<Arc<DiskRecords>>,
    pub(super) lock: Mutex<Option<DirectoryLock>>,
}

impl Storage {
    /// A place for others to keep files in, under the limit of the blobs in the data directory.
    pub fn premises(&self) -> Premises {
        self.opened.disk.premises()
    }

    /// `give_up` is asked for what unfinished uploads hold before a write is refused for want of
    /// room, whoever writes. `false`: they hold nothing.
    pub fn on_full(&self, give_up: impl Fn() -> bool + Send + Sync + 'static) {
        self.opened.disk.on_full(give_up);
    }

    /// Makes everything durable, writes down leases, and gives the directory free. Call it when
    /// nobody uses the storage any more: what is written during or after it may be lost.
    pub async fn close(&self) -> Result<(), StoreError> {
        let opened = &self.opened;
        // Whatever does not work, the rest is closed all the same.
        let shared = match &opened.indexed {
            Some(indexed) => indexed.close().await,
            None => Ok(()),
        };
        opened.disk.close().await?;
        if let Some(actions) = &opened.actions {
            actions.close().await?;
        }
        if let Some(records) = &opened.records {
            records.close().await?;
        }
        opened.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared
    }
}
