//! Whether a blob may be written: the whole store has a limit, and what is in the way may go first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use kiln_net::causes::chain;
use tokio::sync::Mutex;

use super::collect::Collector;
use super::index::BlobIndex;
use super::running::RunningInvocations;
use super::space::Space;
use super::write_behind::WriteBehind;
use crate::clock::Clock;
use crate::error::StoreError;

/// While another process collects, writes may exceed the limit by this share of it.
const SLACK: u64 = 20;

pub struct Admission {
    index: Arc<dyn BlobIndex>,
    space: Arc<Space>,
    running: Arc<RunningInvocations>,
    write_behind: Arc<WriteBehind>,
    collector: Arc<Collector>,
    clock: Clock,
    turn: Mutex<()>,
    /// Second of the clock at which a pass last found too little to free.
    fruitless_at: AtomicU32,
    refused: AtomicU64,
}

impl Admission {
    pub fn new(
        index: Arc<dyn BlobIndex>,
        space: Arc<Space>,
        running: Arc<RunningInvocations>,
        write_behind: Arc<WriteBehind>,
        collector: Arc<Collector>,
        clock: Clock,
    ) -> Self {
        Self {
            index,
            space,
            running,
            write_behind,
            collector,
            clock,
            turn: Mutex::default(),
            fruitless_at: AtomicU32::new(u32::MAX),
            refused: AtomicU64::new(0),
        }
    }

    /// Writes that found no room since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns when a blob of `size` bytes may be written, which may need others to go first.
    /// Errors: `Full` when too few may go; `TooLarge` when it could never fit.
    pub async fn admit(&self, size: u64) -> Result<(), StoreError> {
        self.running.announce().await?;
        let space = &self.space;
        let max = space.max();
        if !space.limited() || space.take(size, max) {
            return Ok(());
        }
        if size > max {
            return Err(StoreError::TooLarge { size, limit: max });
        }
        let _turn = self.turn.lock().await;
        space.count(&*self.index).await?;
        if space.take(size, max) {
            return Ok(());
        }
        let now = self.clock.now();
        let busy = self.fruitless_at.load(Ordering::Relaxed) != now && self.make_room(size).await?;
        let slack = if busy { max / SLACK } else { 0 };
        if space.take(size, max.saturating_add(slack)) {
            return Ok(());
        }
        if busy {
            let message = "the store is full, and another process is making room: try again";
            return Err(StoreError::unavailable(message));
        }
        self.fruitless_at.store(now, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(StoreError::Full { used: space.used(), limit: max, setting: "s3.max_size" })
    }

    /// Whether another process makes room, and this one did nothing.
    async fn make_room(&self, size: u64) -> Result<bool, StoreError> {
        // What is pending cannot go; what cannot be written now stays pending.
        let _hurry = self.write_behind.hurry_up();
        if let Err(error) = self.write_behind.sync(Duration::ZERO).await {
            tracing::debug!(error = %chain(&error), "some small blobs stay pending");
        }
        let busy = self.collector.collect(size).await?.busy;
        self.space.count(&*self.index).await?;
        Ok(busy)
    }
}
