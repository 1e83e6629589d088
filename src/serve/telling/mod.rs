//! Tells what lies in records until somebody outside was told of it: each notice until it was heard or given up, and by one
//! server of a fleet at a time, the one that has the lease.
//!
//! Two tell in ways of their own. News of merge queues stay where they are: each of several who are told has a place up to
//! which it was told, and a lease that goes with that (`ci/src/queue/hosted/feed.rs`); `merge_queue` counts its tries by
//! [`Tries`] as well. Changes of the quarantine are told as soon as they are written, by the server that decides about it
//! (`ci/src/verdicts/telling.rs`).

#[cfg(test)]
mod tests;

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use kiln_cas::records::SharedRecords;
use kiln_cas::records::lease::{LeaseRecord, RecordTurn};
use kiln_net::Backoff;
use kiln_net::causes::chain;

use super::webhook::heard;

/// Notices that are told one after the other in one look.
const TOLD_AT_ONCE: usize = 50;
/// How often one notice is told at most, and how long is waited at most after it could not be.
const TRIES: u32 = 10;
const LONGEST: Duration = Duration::from_secs(300);

/// Notices that lie in records until they were told.
#[async_trait]
pub trait Notices: Send + Sync {
    type Notice: Send + Sync;
    type Error: Error + Send + Sync + 'static;

    /// What one of them is called in the server's log.
    const CALLED: &'static str;
    /// The key of the record that says which server tells them.
    const LEASE: &'static str;

    /// Those that are still to be told, oldest first, `most` at most.
    async fn waiting(&self, most: usize) -> Result<Vec<Self::Notice>, Self::Error>;

    /// Which one it is, for the server's log.
    fn which(&self, notice: &Self::Notice) -> String;

    /// Tells one. Errors: why it was not heard.
    async fn tell(&self, notice: &Self::Notice) -> Result<(), String>;

    /// Forgets one: it was told, or is given up.
    async fn told(&self, notice: &Self::Notice) -> Result<(), Self::Error>;
}

/// When notices are told.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How often it is looked whether something is to be told, and how long is waited at first after it could not be.
    pub look: Duration,
    /// How long the server that tells may be silent until another one tells: several seconds.
    pub term: Duration,
}

/// One server's part in telling notices.
pub struct Telling<N> {
    notices: N,
    look: Duration,
    turn: RecordTurn,
}

impl<N: Notices> Telling<N> {
    /// `name` is what this server calls itself among all others, now and before.
    pub fn new(notices: N, pace: Pace, (records, name): (&SharedRecords, &str)) -> Self {
        let turn = LeaseRecord::new(records.clone(), N::LEASE).turn(name, pace.term);
        Self { notices, look: pace.look, turn }
    }

    /// Tells all notices, again and again; never returns.
    pub async fn keep_told(&self) {
        let mut tries = Tries::new(N::CALLED, self.look);
        loop {
            let pause = self.tell_all(&mut tries).await.unwrap_or(self.look);
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells notices, oldest first, each until it was heard or given up. Returns how long the one that could not be told waits;
    /// `None`: none of them does.
    async fn tell_all(&self, tries: &mut Tries) -> Option<Duration> {
        // What was there before it was this server's turn may have been told by another one.
        if self.waiting(1).await.is_empty() || !self.is_mine().await {
            return None;
        }
        for notice in self.waiting(TOLD_AT_ONCE).await {
            let told = self.doing(heard(self.notices.tell(&notice))).await?;
            let pause = tries.after(told, &self.notices.which(&notice));
            if pause.is_some() {
                return pause;
            }
            if let Err(error) = self.notices.told(&notice).await {
                tracing::warn!(error = %chain(&error), "{} may be told twice", N::CALLED);
                return None;
            }
        }
        if let Err(error) = self.turn.give_up().await {
            let (what, error) = (N::CALLED, chain(&error));
            tracing::info!(what, error, "other servers tell nothing until the lease is over");
        }
        None
    }

    /// Those that are still to be told, `most` at most; none where they cannot be read.
    async fn waiting(&self, most: usize) -> Vec<N::Notice> {
        self.notices.waiting(most).await.unwrap_or_else(|error| {
            let (what, error) = (N::CALLED, chain(&error));
            tracing::warn!(what, error, "it is not known what is to be told");
            Vec::new()
        })
    }

    /// Does something that takes its time. Nothing: it was not begun, or was cut off, because another server may tell by now.
    async fn doing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.turn.doing(|| self.is_mine(), work).await.unwrap_or_else(|_| {
            tracing::warn!(what = N::CALLED, "whoever tells could not renew that");
            None
        })
    }

    /// Whether it is this server's turn to tell, and no other's.
    async fn is_mine(&self) -> bool {
        self.turn.is_mine().await.unwrap_or_else(|error| {
            let (what, error) = (N::CALLED, chain(&error));
            tracing::warn!(what, error, "it is not known who tells");
            false
        })
    }
}

/// How often the notice whose turn it is could not be told.
pub struct Tries {
    called: &'static str,
    pauses: Backoff,
    failed: u32,
}

impl Tries {
    /// `called`: what one notice is called in the server's log. `first`: how long is waited at first after it could not be told.
    pub fn new(called: &'static str, first: Duration) -> Self {
        Self { called, pauses: Backoff::new(first, LONGEST), failed: 0 }
    }

    /// Takes in whether a notice was heard, and `which` it was. Returns how long to wait before it is told again; `None`: it
    /// was heard, or is given up.
    pub fn after(&mut self, heard: Result<(), String>, which: &str) -> Option<Duration> {
        if let Err(reason) = heard {
            self.failed += 1;
            let called = self.called;
            if self.failed < TRIES {
                tracing::info!(reason, which, "{called} could not be told");
                return Some(self.pauses.pause(self.failed));
            }
            tracing::warn!(reason, which, "{called} is told to nobody");
        }
        self.failed = 0;
        None
    }
}
