//! The background work of a process on the store: it watches the index, collects garbage, and takes over pending
//! blobs.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::spread;
use tokio::sync::watch;
use tokio::time::Instant;

use super::activity::Activity;
use super::collect::Collector;
use super::epoch::Epochs;
use super::index::BlobIndex;
use super::orphans::OrphanCollector;
use super::pending_elsewhere::PendingElsewhere;
use super::running::RunningInvocations;
use super::space::Space;
use crate::error::StoreError;

/// Blobs that have been pending for longer have lost their process.
const PENDING_AGE: Duration = Duration::from_secs(10);
/// Pending blobs that are taken over at once.
const ADOPTED: usize = 256;
/// Pause between two passes for orphans. The first comes after a random part of it, so that
/// the processes of a fleet that started together do not begin at the same time.
const ORPHANS_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Turns that are left out while nothing is asked of the store.
const IDLE_TURNS: u32 = 11;

/// The background work on the store, one piece of it at a time.
pub struct Upkeep {
    pub index: Arc<dyn BlobIndex>,
    pub activity: Activity,
    pub epochs: Arc<Epochs>,
    pub elsewhere: Arc<PendingElsewhere>,
    pub collector: Arc<Collector>,
    pub orphans: Arc<OrphanCollector>,
    pub running: Arc<RunningInvocations>,
    pub space: Arc<Space>,
    /// Pause between two turns.
    pub interval: Duration,
    /// Pause between two passes that collect garbage.
    pub collect_every: Duration,
}

impl Upkeep {
    /// One call to the index per interval, or per twelve where nothing happens, unless there is
    /// something to do. Ends when `stop` says true, or with its sender.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut collect_at = Instant::now() + spread(self.collect_every);
        let mut orphans_at = Instant::now() + spread(ORPHANS_EVERY);
        let (mut turn, mut seen, mut idle) = (0u64, 0, 0);
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let asked = self.activity.count();
            if std::mem::replace(&mut seen, asked) == asked && idle < IDLE_TURNS {
                idle += 1;
                continue;
            }
            idle = 0;
            let now = Instant::now();
            let work = async {
                if now >= orphans_at {
                    orphans_at = now + ORPHANS_EVERY;
                    return self.look_for_orphans().await;
                }
                if now >= collect_at || self.space.is_high() {
                    collect_at = now + self.collect_every;
                    return self.look_for_garbage().await;
                }
                turn += 1;
                self.look_around(turn).await
            };
            tokio::select! {
                result = work => {
                    if let Err(error) = result {
                        tracing::warn!(
                            error = %chain(&error),
                            "upkeep of the store failed; it is tried again"
                        );
                    }
                }
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn look_around(&self, turn: u64) -> Result<(), StoreError> {
        self.running.report().await?;
        match (turn - 1) % 3 {
            _ if self.epochs.is_unmarked() => self.epochs.check().await,
            0 => self.epochs.check().await,
            2 if self.space.limited() => self.space.count(&*self.index).await.map(drop),
            _ => self.adopt_all().await,
        }
    }

    async fn adopt_all(&self) -> Result<(), StoreError> {
        while self.elsewhere.adopt(PENDING_AGE, ADOPTED).await? == ADOPTED {}
        Ok(())
    }

    async fn look_for_garbage(&self) -> Result<(), StoreError> {
        let collected = self.collector.collect(0).await?;
        if collected.blobs > 0 {
            tracing::info!(blobs = collected.blobs, bytes = collected.bytes, "garbage collected");
        }
        Ok(())
    }

    async fn look_for_orphans(&self) -> Result<(), StoreError> {
        let orphans = self.orphans.collect().await?;
        if orphans.objects + orphans.uploads > 0 {
            let (objects, uploads) = (orphans.objects, orphans.uploads);
            tracing::info!(objects, uploads, "objects without a blob deleted");
        }
        Ok(())
    }
}
