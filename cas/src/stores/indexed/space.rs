//! The limit of the whole store.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::parts::Parts;
use crate::error::StoreError;

/// Above this share of the limit garbage is collected, down to the lower one.
const HIGH: (u64, u64) = (95, 100);
const LOW: (u64, u64) = (90, 100);
/// While another process collects, writes may exceed the limit by this share of it.
const SLACK: u64 = 20;

pub struct Space {
    max: u64,
    /// As the index last said, and what this process wrote since.
    used: AtomicU64,
    turn: Mutex<()>,
    /// Second of the clock at which a pass last found too little to free.
    fruitless_at: AtomicU32,
    refused: AtomicU64,
}

impl Space {
    pub fn new(max: u64) -> Self {
        let fruitless_at = AtomicU32::new(u32::MAX);
        Self { max, used: 0.into(), turn: Mutex::default(), fruitless_at, refused: 0.into() }
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn limited(&self) -> bool {
        self.max > 0
    }

    pub fn is_high(&self) -> bool {
        self.limited() && self.used() > share(self.max, HIGH)
    }

    /// Bytes that a pass is to free when `used` are in use and `need` are about to be.
    pub fn excess(&self, used: u64, need: u64) -> u64 {
        let crowded = self.limited() && (used > share(self.max, HIGH) || used + need > self.max);
        if !crowded {
            return 0;
        }
        used.saturating_sub(share(self.max, LOW).min(self.max.saturating_sub(need)))
    }

    /// Counts `size` if that keeps to `limit`.
    fn take(&self, size: u64, limit: u64) -> bool {
        let fits = |used: u64| used.checked_add(size).filter(|used| *used <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

fn share(of: u64, (part, whole): (u64, u64)) -> u64 {
    (u128::from(of) * u128::from(part) / u128::from(whole)) as u64
}

impl Parts {
    /// Asks the index what is in use.
    pub async fn count_space(&self) -> Result<u64, StoreError> {
        let used = self.index.usage().await?.bytes;
        self.space.used.store(used, Ordering::Relaxed);
        Ok(used)
    }

    /// Returns when a blob of this size may be written, which may need others to go first.
    /// Errors: `Full` when too few may go; `TooLarge` when it could never fit.
    pub async fn admit(&self, size: u64) -> Result<(), StoreError> {
        self.announce().await?;
        let space = &self.space;
        if !space.limited() || space.take(size, space.max) {
            return Ok(());
        }
        if size > space.max {
            return Err(StoreError::TooLarge { size, limit: space.max });
        }
        let _turn = space.turn.lock().await;
        self.count_space().await?;
        if space.take(size, space.max) {
            return Ok(());
        }
        let now = self.options.clock.now();
        let mut busy = false;
        if space.fruitless_at.load(Ordering::Relaxed) != now {
            // What is pending cannot go; what cannot be written now stays pending.
            let _hurry = self.behind.hurry_up();
            if let Err(error) = self.behind.sync(Duration::ZERO, self.stop.clone()).await {
                tracing::debug!(%error, "some small blobs stay pending");
            }
            busy = self.collect(size).await?.busy;
            self.count_space().await?;
        }
        let slack = if busy { space.max / SLACK } else { 0 };
        if space.take(size, space.max.saturating_add(slack)) {
            return Ok(());
        }
        if busy {
            let message = "the store is full, and another process is making room: try again";
            return Err(StoreError::Unavailable(message.to_owned()));
        }
        space.fruitless_at.store(now, Ordering::Relaxed);
        space.refused.fetch_add(1, Ordering::Relaxed);
        Err(StoreError::Full { used: space.used(), limit: space.max, setting: "s3.max_size" })
    }
}
