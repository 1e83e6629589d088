//! Write-behind: small blobs that the index holds, and that this process has taken on to write to
//! the object store.

mod pending;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kiln_net::Backoff;
use kiln_net::causes::chain;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use self::pending::{Failed, PendingBlobs};
use super::hurry::{Hurry, InHurry};
use super::index::Generation;
use super::uploads::Uploads;
use crate::digest::Digest;
use crate::error::StoreError;

/// Most KiB of blobs that wait; each counts as one at least.
const CAPACITY: usize = 64 << 10;
/// Blobs that are written to the object store at the same time.
const WRITES: usize = 32;
/// How long a write waits for room before it is refused.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pauses after failed attempts: the first, which every attempt waits for, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const BACKOFF: Backoff = Backoff::new(FIRST_PAUSE, Duration::from_secs(10));
/// How often a `sync` that waits has blobs that pause tried again.
const SYNC_ROUND: Duration = Duration::from_secs(1);
/// Between two warnings that work waits for the object store.
const WARNING_EVERY: Duration = Duration::from_secs(10);

/// Writes small blobs to the object store some time after they became visible.
pub struct WriteBehind {
    shared: Arc<BackgroundWrites>,
    hurry: Hurry,
    runtime: Handle,
}

/// Shared by [`WriteBehind`] and the tasks that write its blobs.
struct BackgroundWrites {
    uploads: Arc<Uploads>,
    state: Mutex<WriteProgress>,
    /// Counts what became of blobs.
    changed: watch::Sender<u64>,
    /// The latest round; blobs that pause are tried again when it changes.
    round: watch::Sender<u64>,
    capacity: Arc<Semaphore>,
    writes: Semaphore,
    /// True: the store is closed, and nothing is tried any more.
    stop: watch::Receiver<bool>,
}

#[derive(Default)]
struct WriteProgress {
    pending: PendingBlobs,
    /// When a blob last reached the object store.
    reached: Option<Instant>,
    warned: Option<Instant>,
}

/// Room for one blob among those that wait.
pub struct Reservation {
    _permit: OwnedSemaphorePermit,
}

impl WriteBehind {
    /// Blobs are written on the current runtime until `stop` says true.
    pub fn new(uploads: Arc<Uploads>, hurry: Hurry, stop: watch::Receiver<bool>) -> Self {
        let shared = BackgroundWrites {
            uploads,
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            round: watch::Sender::new(0),
            capacity: Arc::new(Semaphore::new(CAPACITY)),
            writes: Semaphore::new(WRITES),
            stop,
        };
        Self { shared: Arc::new(shared), hurry, runtime: Handle::current() }
    }

    /// Bytes of a blob that is still to be written.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.shared.state().pending.get(digest)
    }

    /// How many blobs are still to be written, and their bytes.
    pub fn pending(&self) -> (u64, u64) {
        let state = self.shared.state();
        (state.pending.len(), state.pending.bytes())
    }

    /// Waits until there is room. Errors: `Unavailable` when that takes too long.
    pub async fn reserve(&self, size: u64) -> Result<Reservation, StoreError> {
        let units = u32::try_from(size.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
        let permit = self.shared.capacity.clone().acquire_many_owned(units.min(CAPACITY as u32));
        match tokio::time::timeout(PATIENCE, permit).await {
            Ok(Ok(permit)) => Ok(Reservation { _permit: permit }),
            _ => Err(self.shared.too_full()),
        }
    }

    /// Takes on a blob that the index holds. It is tried until it is in the object store, or the
    /// store is closed.
    pub fn write(&self, digest: &Digest, data: Bytes, reservation: Reservation) {
        let Some(number) = self.shared.state().pending.admit(digest, &data) else { return };
        let (digest, shared) = (*digest, self.shared.clone());
        self.runtime.spawn(async move {
            let mut stop = shared.stop.clone();
            tokio::select! {
                () = shared.try_until_done(number, digest, data) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            drop(reservation);
        });
    }

    /// Somebody waits for what is pending, for as long as the answer is kept.
    pub fn hurry_up(&self) -> InHurry<'_> {
        self.hurry.up()
    }

    /// Returns when all blobs that came before this call are in the object store. Errors:
    /// `Unavailable` when an attempt at one of them that began after this call has failed, for a
    /// reason that does not pass by itself, or while nothing has reached the object store for
    /// `patience`; they are tried again all the same.
    pub async fn sync(&self, patience: Duration) -> Result<(), StoreError> {
        let shared = &self.shared;
        let (mut changed, mut stop) = (shared.changed.subscribe(), shared.stop.clone());
        let (began, end) = (Instant::now(), shared.state().pending.next_number());
        let round = shared.next_round();
        loop {
            let outcome = shared.state().pending.outcome(end, round);
            let failed = match outcome {
                Some(Ok(())) => return Ok(()),
                Some(Err(Failed { error, passes })) => {
                    if !passes || shared.is_hopeless(began, patience) {
                        return Err(error);
                    }
                    shared.warn(&error);
                    true
                }
                None => false,
            };
            tokio::select! {
                _ = changed.changed(), if !failed => {}
                () = tokio::time::sleep(SYNC_ROUND), if failed => {
                    shared.next_round();
                }
                _ = stop.wait_for(|stop| *stop) => {
                    return Err(StoreError::unavailable("the store is closed"));
                }
            }
        }
    }
}

impl BackgroundWrites {
    fn state(&self) -> MutexGuard<'_, WriteProgress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn too_full(&self) -> StoreError {
        let state = self.state();
        let reason = state.pending.first_error().map(ToString::to_string);
        StoreError::unavailable(format!(
            "{} small blobs wait to be written to the object store: {}",
            state.pending.len(),
            reason.unwrap_or_else(|| "it is too slow".to_owned())
        ))
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
            tracing::warn!(error = %chain(error), "finished work waits for the object store");
        }
    }

    async fn try_until_done(&self, number: u64, digest: Digest, data: Bytes) {
        // The same object in all attempts: one whose answer was lost leaves nothing behind.
        let generation = Generation::fresh();
        let mut failures = 0;
        loop {
            let mut rounds = self.round.subscribe();
            let result = {
                let Ok(_permit) = self.writes.acquire().await else { return };
                rounds.mark_unchanged();
                let round = *rounds.borrow();
                let settled = self.uploads.settle(&digest, generation, data.clone()).await;
                settled.map_err(|error| (round, error))
            };
            let Err((round, error)) = result else { return self.done(number) };
            tracing::warn!(
                %digest, error = %chain(&error),
                "a small blob is not in the object store yet"
            );
            self.failed(number, round, error);
            tokio::time::sleep(FIRST_PAUSE).await;
            failures += 1;
            // An error means that no round can come any more; the pause goes on.
            let _ = tokio::time::timeout(BACKOFF.pause(failures), rounds.changed()).await;
        }
    }

    fn done(&self, number: u64) {
        let mut state = self.state();
        state.reached = Some(Instant::now());
        state.pending.done(number);
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    fn failed(&self, number: u64, round: u64, error: StoreError) {
        self.state().pending.failed(number, round, error);
        self.changed.send_modify(|count| *count += 1);
    }
}
