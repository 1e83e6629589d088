//! What a process does for the store beside serving it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kiln_net::spread;
use tokio::time::Instant;

use super::parts::Parts;
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

/// One call to the index per interval, or per twelve where nothing happens, unless there is something
/// to do.
pub async fn run(parts: Arc<Parts>) {
    let mut stop = parts.stop.clone();
    let mut collect_at = Instant::now() + spread(parts.options.collect_every);
    let mut orphans_at = Instant::now() + spread(ORPHANS_EVERY);
    let (mut turn, mut seen, mut idle) = (0u64, 0, 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(parts.options.interval) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let uses = parts.uses.load(Ordering::Relaxed);
        if std::mem::replace(&mut seen, uses) == uses && idle < IDLE_TURNS {
            idle += 1;
            continue;
        }
        idle = 0;
        let now = Instant::now();
        let work = async {
            if now >= orphans_at {
                orphans_at = now + ORPHANS_EVERY;
                return parts.look_for_orphans().await;
            }
            if now >= collect_at || parts.space.is_high() {
                collect_at = now + parts.options.collect_every;
                return parts.look_for_garbage().await;
            }
            parts.report_runs().await?;
            turn += 1;
            match (turn - 1) % 3 {
                _ if parts.is_unmarked() => parts.check_epoch().await,
                0 => parts.check_epoch().await,
                2 if parts.space.limited() => parts.count_space().await.map(drop),
                _ => parts.adopt_all().await,
            }
        };
        tokio::select! {
            result = work => {
                if let Err(error) = result {
                    tracing::warn!(%error, "upkeep of the store failed; it is tried again");
                }
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

impl Parts {
    async fn adopt_all(&self) -> Result<(), StoreError> {
        while self.adopt(PENDING_AGE, ADOPTED).await? == ADOPTED {}
        Ok(())
    }

    async fn look_for_garbage(&self) -> Result<(), StoreError> {
        let collected = self.collect(0).await?;
        if collected.blobs > 0 {
            tracing::info!(blobs = collected.blobs, bytes = collected.bytes, "garbage collected");
        }
        Ok(())
    }

    async fn look_for_orphans(&self) -> Result<(), StoreError> {
        let orphans = self.collect_orphans().await?;
        if orphans.objects + orphans.uploads > 0 {
            let (objects, uploads) = (orphans.objects, orphans.uploads);
            tracing::info!(objects, uploads, "objects without a blob deleted");
        }
        Ok(())
    }
}
