//! Writing behind: small blobs that the index holds and this process has promised to carry to
//! the object store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kiln_net::Backoff;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::index::Generation;
use super::parts::Parts;
use crate::digest::Digest;
use crate::error::StoreError;

/// Most KiB of blobs that wait; each counts as one at least.
const ROOM: usize = 64 << 10;
/// Blobs that are being carried at the same time.
const CARRIED: usize = 32;
/// How long a write waits for room before it is refused.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pauses after failed attempts: the first, which every attempt waits for, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How often a `sync` that waits has blobs that pause tried again.
const SYNC_ROUND: Duration = Duration::from_secs(1);
/// Between two warnings that work waits for the object store.
const WARNING_EVERY: Duration = Duration::from_secs(10);
const BACKOFF: Backoff = Backoff::new(FIRST_PAUSE, Duration::from_secs(10));

pub struct Behind {
    state: Mutex<State>,
    /// Counts what became of blobs.
    changed: watch::Sender<u64>,
    /// The latest round; blobs that pause are tried again when it changes.
    round: watch::Sender<u64>,
    room: Arc<Semaphore>,
    carried: Semaphore,
    /// How many wait for what is carried.
    hurry: watch::Sender<usize>,
}

/// How long the place of a blob waits for those of others: while nobody waits for it...
const LINGER: Duration = Duration::from_millis(200);
/// ...and while somebody does.
const HURRY: Duration = Duration::from_millis(4);

/// Returns when it is time to tell the index of the places that are there.
pub async fn linger(mut hurry: watch::Receiver<usize>) {
    // An error means that nobody can be in a hurry any more.
    let _ = tokio::time::timeout(LINGER, hurry.wait_for(|waiting| *waiting > 0)).await;
    tokio::time::sleep(HURRY).await;
}

/// One who waits, for as long as it does.
pub struct Hurry<'a>(&'a watch::Sender<usize>);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

#[derive(Default)]
struct State {
    /// Blobs are numbered as they come.
    next: u64,
    pending: BTreeMap<u64, Digest>,
    data: HashMap<Digest, Bytes>,
    bytes: u64,
    /// Round and error of the latest attempt that failed.
    failed: BTreeMap<u64, (u64, StoreError)>,
    /// When a blob last reached the object store.
    reached: Option<Instant>,
    warned: Option<Instant>,
}

/// Why blobs are not in the object store.
struct Failed {
    error: StoreError,
    /// It may be over a little later.
    passes: bool,
}

/// Room for one blob.
pub struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Default for Behind {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            round: watch::Sender::new(0),
            room: Arc::new(Semaphore::new(ROOM)),
            carried: Semaphore::new(CARRIED),
            hurry: watch::Sender::new(0),
        }
    }
}

impl Behind {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of a blob that is still to be carried.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.state().data.get(digest).cloned()
    }

    /// How many blobs are still to be carried, and their bytes.
    pub fn pending(&self) -> (u64, u64) {
        let state = self.state();
        (state.pending.len() as u64, state.bytes)
    }

    /// Waits until there is room. Errors: `Unavailable` when that takes too long.
    pub async fn reserve(&self, size: u64) -> Result<Room, StoreError> {
        let units = u32::try_from(size.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
        let permit = self.room.clone().acquire_many_owned(units.min(ROOM as u32));
        match tokio::time::timeout(PATIENCE, permit).await {
            Ok(Ok(permit)) => Ok(Room { _permit: permit }),
            _ => {
                let state = self.state();
                let reason = state.failed.values().next().map(|(_, error)| error.to_string());
                Err(StoreError::Unavailable(format!(
                    "{} small blobs wait to be written to the object store: {}",
                    state.pending.len(),
                    reason.unwrap_or_else(|| "it is too slow".to_owned())
                )))
            }
        }
    }

    pub fn hurry(&self) -> watch::Receiver<usize> {
        self.hurry.subscribe()
    }

    /// Somebody waits for what is carried, for as long as this is kept.
    pub fn hurry_up(&self) -> Hurry<'_> {
        self.hurry.send_modify(|waiting| *waiting += 1);
        Hurry(&self.hurry)
    }

    /// `None`: the blob is pending already.
    fn admit(&self, digest: &Digest, data: &Bytes) -> Option<u64> {
        let mut state = self.state();
        if state.data.contains_key(digest) {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.pending.insert(number, *digest);
        state.bytes += data.len() as u64;
        state.data.insert(*digest, data.clone());
        Some(number)
    }

    fn done(&self, number: u64) {
        let mut state = self.state();
        state.reached = Some(Instant::now());
        state.failed.remove(&number);
        if let Some(digest) = state.pending.remove(&number)
            && let Some(data) = state.data.remove(&digest)
        {
            state.bytes -= data.len() as u64;
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    fn failed(&self, number: u64, round: u64, error: StoreError) {
        self.state().failed.insert(number, (round, error));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Returns when all blobs that came before this call are in the object store. Errors:
    /// `Unavailable` when an attempt of one of them that began after this call has failed, for a
    /// reason that does not pass by itself, or while nothing has reached the object store for
    /// `patience`; they are tried again all the same.
    pub async fn sync(
        &self,
        patience: Duration,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let mut changed = self.changed.subscribe();
        let (began, end) = (Instant::now(), self.state().next);
        let round = self.next_round();
        loop {
            let failed = match self.outcome(end, round) {
                Some(Err(Failed { error, passes })) => {
                    if !passes || self.is_hopeless(began, patience) {
                        return Err(error);
                    }
                    Some(error)
                }
                Some(Ok(())) => return Ok(()),
                None => None,
            };
            if let Some(error) = &failed {
                self.warn(error);
            }
            tokio::select! {
                _ = changed.changed(), if failed.is_none() => {}
                () = tokio::time::sleep(SYNC_ROUND), if failed.is_some() => {
                    self.next_round();
                }
                _ = stop.wait_for(|stop| *stop) => {
                    return Err(StoreError::Unavailable("the store is closed".to_owned()));
                }
            }
        }
    }

    /// Has blobs that pause tried again now. Returns the number of the round.
    fn next_round(&self) -> u64 {
        let mut round = 0;
        self.round.send_modify(|latest| {
            *latest += 1;
            round = *latest;
        });
        round
    }

    /// Whether nothing has reached the object store for so long, and since then.
    fn is_hopeless(&self, began: Instant, patience: Duration) -> bool {
        let reached = self.state().reached.map_or(began, |reached| reached.max(began));
        reached.elapsed() >= patience
    }

    fn warn(&self, error: &StoreError) {
        let mut state = self.state();
        if state.warned.is_none_or(|at| at.elapsed() >= WARNING_EVERY) {
            state.warned = Some(Instant::now());
            tracing::warn!(%error, "finished work waits for the object store");
        }
    }

    /// What became of the blobs numbered below `end`; `None`: that is not known yet.
    fn outcome(&self, end: u64, round: u64) -> Option<Result<(), Failed>> {
        let state = self.state();
        if state.pending.first_key_value().is_none_or(|(first, _)| *first >= end) {
            return Some(Ok(()));
        }
        let failures = state.failed.range(..end);
        let (number, (_, error)) = failures.into_iter().find(|(_, (tried, _))| *tried >= round)?;
        let digest = state.pending.get(number)?;
        let passes = matches!(error, StoreError::Unavailable(_));
        let error = StoreError::Unavailable(format!(
            "{} small blobs are not in the object store yet, among them {digest}: {error}",
            state.pending.range(..end).count()
        ));
        Some(Err(Failed { error, passes }))
    }
}

/// Hands over a blob that the index holds. It is tried until it is in the object store, or the
/// store is closed.
pub fn carry(parts: &Arc<Parts>, digest: &Digest, data: Bytes, room: Room) {
    if let Some(number) = parts.behind.admit(digest, &data) {
        let (digest, parts) = (*digest, parts.clone());
        let runtime = parts.runtime.clone();
        runtime.spawn(async move {
            let mut stop = parts.stop.clone();
            tokio::select! {
                () = try_until_done(&parts, number, digest, data) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            drop(room);
        });
    }
}

async fn try_until_done(parts: &Parts, number: u64, digest: Digest, data: Bytes) {
    let behind = &parts.behind;
    // The same object in all attempts: one whose answer was lost leaves nothing behind.
    let generation = Generation::fresh();
    let mut failures = 0;
    loop {
        let mut rounds = behind.round.subscribe();
        let result = {
            let Ok(_permit) = behind.carried.acquire().await else { return };
            rounds.mark_unchanged();
            let round = *rounds.borrow();
            parts.settle(&digest, generation, data.clone()).await.map_err(|error| (round, error))
        };
        let Err((round, error)) = result else {
            return behind.done(number);
        };
        tracing::warn!(%digest, %error, "a small blob is not in the object store yet");
        behind.failed(number, round, error);
        tokio::time::sleep(FIRST_PAUSE).await;
        failures += 1;
        // An error means that no round can come any more; the pause goes on.
        let _ = tokio::time::timeout(BACKOFF.pause(failures), rounds.changed()).await;
    }
}
