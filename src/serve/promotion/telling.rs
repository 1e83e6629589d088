//! Tells changes of environments: each until it was heard or given up, and by one server of a fleet at a time, the one that
//! has the lease.

use std::time::Duration;

use kiln_cas::records::SharedRecords;
use kiln_cas::records::lease::{LeaseRecord, RecordTurn};
use kiln_deploy::promotion::{Change, Keeper};
use kiln_net::Backoff;
use kiln_net::causes::chain;

use super::told::tell;
use crate::serve::webhook::{Webhook, heard};

/// How often it is looked whether something is to be told.
const LOOK: Duration = Duration::from_secs(10);
/// The record of which server tells changes.
const TELLING: &str = "promotion/telling";
/// How long the server that tells changes may be silent until another one tells them.
const TELLS: Duration = Duration::from_secs(60);
/// Changes that are told one after the other in one look.
const TOLD_AT_ONCE: usize = 50;
/// How often one change is told at most, and how long is waited after it could not be.
const TRIES: u32 = 10;
const PAUSES: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));

/// One server's part in telling changes.
pub struct Telling {
    turn: RecordTurn,
}

impl Telling {
    /// `name` is what this server calls itself among all others, now and before.
    pub fn new(records: SharedRecords, name: &str) -> Self {
        Self { turn: LeaseRecord::new(records, TELLING).turn(name, TELLS) }
    }

    /// Tells the webhook all changes, again and again; never returns.
    pub async fn keep_told(&self, keeper: &Keeper, webhook: &Webhook) {
        let mut tries = 0;
        loop {
            let pause = self.tell_all(keeper, webhook, &mut tries).await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells changes, oldest first, each until it was heard or given up; says how long to wait for the next look.
    async fn tell_all(&self, keeper: &Keeper, webhook: &Webhook, tries: &mut u32) -> Duration {
        // What was there before it was this server's turn may have been told by another one.
        if waiting(keeper, 1).await.is_empty() || !self.is_mine().await {
            return LOOK;
        }
        for change in waiting(keeper, TOLD_AT_ONCE).await {
            let Some(told) = self.doing(heard(tell(webhook, &change))).await else { return LOOK };
            if let Err(reason) = told {
                *tries += 1;
                if *tries < TRIES {
                    tracing::info!(reason, change = change.number, "a change could not be told");
                    return PAUSES.pause(*tries);
                }
                tracing::warn!(reason, change = change.number, "a change is told to nobody");
            }
            *tries = 0;
            if let Err(error) = keeper.told(change.number).await {
                tracing::warn!(error = %chain(&error), "a change may be told twice");
                return LOOK;
            }
        }
        if let Err(error) = self.turn.give_up().await {
            tracing::info!(error = %chain(&error), "other servers tell no changes for a minute");
        }
        LOOK
    }

    /// Does something that takes its time. Nothing: it was not begun, or was cut off, because another server may tell by now.
    async fn doing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        if !self.is_mine().await {
            return None;
        }
        tokio::select! {
            done = work => Some(done),
            () = self.until_lost() => None,
        }
    }

    /// Returns before another server may tell, also where nobody answers who asks.
    async fn until_lost(&self) {
        if self.turn.until_lost(|| self.is_mine()).await.is_err() {
            tracing::warn!("whoever tells changes could not renew that");
        }
    }

    /// Whether it is this server's turn to tell changes, and no other's.
    async fn is_mine(&self) -> bool {
        self.turn.is_mine().await.unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "it is not known who tells changes");
            false
        })
    }
}

/// The changes that are still to be told, `most` at most; none where they cannot be read.
async fn waiting(keeper: &Keeper, most: usize) -> Vec<Change> {
    keeper.notices(most).await.unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "it is not known what is to be told");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use kiln_cas::records::{Record, Records, RecordsError, Version, Write};
    use kiln_cas::stores::MemoryRecords;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    /// Records that answer nobody any more once they have fallen silent.
    #[derive(Default)]
    struct Silent {
        inner: MemoryRecords,
        fell: AtomicBool,
    }

    impl Silent {
        async fn heard(&self) {
            if self.fell.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
        }
    }

    #[async_trait]
    impl Records for Silent {
        async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
            self.heard().await;
            self.inner.get(key).await
        }

        async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
            self.heard().await;
            self.inner.write(writes).await
        }

        async fn list(
            &self,
            prefix: &str,
            after: Option<&str>,
            reverse: bool,
            limit: usize,
        ) -> Result<Vec<Record>, RecordsError> {
            self.heard().await;
            self.inner.list(prefix, after, reverse, limit).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_is_cut_off_before_another_server_may_tell_it() {
        let records = Arc::new(Silent::default());
        let (one, two) =
            (Telling::new(records.clone(), "one"), Telling::new(records.clone(), "two"));
        assert_eq!(one.doing(sleep(3 * TELLS)).await, Some(()), "it renews its turn");
        assert_eq!(two.doing(sleep(TELLS)).await, None, "it is not its turn");
        records.fell.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let done = timeout(2 * TELLS, one.doing(pending::<()>())).await;
        assert_eq!(done, Ok(None), "it goes on");
        assert!(began.elapsed() < TELLS, "another one may tell by then");
    }
}
