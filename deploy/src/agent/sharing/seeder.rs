//! Says again and again which versions are here as a whole, so that others hear of it, and hears by which keys their passes are
//! signed.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_net::Backoff;

use super::assembly::Assembly;
use super::exchange::Identity;
use super::giving::Giving;
use super::shelf::Shelf;
use crate::agent::link::{Link, LinkError, Speaker};
use crate::oci::ContentDigest;

/// The time between two looks whether something new is here.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses after a server that did not answer, or said no.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// The longest time between two questions, whatever the server says.
const LONGEST: Duration = Duration::from_secs(60);

pub struct Seeder<L> {
    pub link: Arc<L>,
    pub speaker: Speaker,
    pub shelf: Arc<Shelf>,
    pub giving: Arc<Giving>,
    pub identity: Identity,
    pub near: String,
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl<L: Link> Seeder<L> {
    pub fn new(
        link: Arc<L>,
        speaker: Speaker,
        (shelf, giving): (Arc<Shelf>, Arc<Giving>),
        identity: Identity,
        near: String,
    ) -> Self {
        let (stopped, wake) = (Mutex::new(false), Condvar::new());
        Self { link, speaker, shelf, giving, identity, near, stopped, wake }
    }

    /// Tells the tracker again and again what is here, until [`Self::stop`].
    pub fn run(&self) {
        // Of each list: when it is said again, and how often in a row that failed.
        let mut due: BTreeMap<ContentDigest, (Instant, u32)> = BTreeMap::new();
        while !self.is_stopped_within(LOOK) {
            let kept = self.shelf.kept();
            due.retain(|list, _| kept.iter().any(|it| it.digest == *list));
            for assembly in &kept {
                let (at, failures) =
                    due.get(&assembly.digest).copied().unwrap_or((Instant::now(), 0));
                if at > Instant::now() || self.is_stopped_within(Duration::ZERO) {
                    continue;
                }
                let next = match self.say(assembly) {
                    Ok(again) => (Instant::now() + again.min(LONGEST), 0),
                    Err(error) => {
                        tracing::debug!(%error, "the server does not hear what is here");
                        (Instant::now() + AGAIN.pause(failures + 1), failures + 1)
                    }
                };
                due.insert(assembly.digest.clone(), next);
            }
        }
    }

    pub fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    fn is_stopped_within(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn say(&self, assembly: &Assembly) -> Result<Duration, LinkError> {
        let share = self.identity.share(assembly, &self.near);
        let shared = self.link.share(&self.speaker, &share)?;
        self.giving.believe(&shared.keys);
        Ok(shared.again)
    }
}
